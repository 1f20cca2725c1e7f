"""Peak memory of fine-tuning, with its parts: parameters, gradients, AdamW's state, and what is held for the backward
pass.

    python memory.py --out RESULTS                             # every model and method; continues where it stopped
    python memory.py --out RESULTS --models t5-base --methods full ours-0.3 --batch 16

Sequences have 128 tokens, a T5's target 8. Each measurement is a fresh process. It makes one step with two sequences,
and then two steps of AdamW with the whole batch, whose peak the kernel reports. A batch is halved until its parts,
known from eight sequences, fit into the limit. A batch that was made smaller is measured at half its size as well, for
the line to the whole one. memory_report.py makes the table and the figure.
"""

import argparse
import json
import pathlib
import sys

import torch
from methods import METHODS
from models import LENGTH, MODELS
from runs import forget_peak, process_status, result_of
from tqdm import tqdm
from training import Training

from wtacrs.torch import SavedBytes

TABLE = (
    "full", "checkpointing", "lora", "lst", "published-0.3", "published-0.1", "ours-0.3", "ours-all",
    "lora+published-0.3", "lora+published-0.1", "lora+ours-0.3", "lora+ours-all",
)  # fmt: skip
LASTING = ("imported", "parameters", "optimizer")
WARM_UP, FEW, WHOLE = 2, 8, 64


class Moments:
    """Bytes of gradients and of what is still held: after the forward pass, and after each gradient."""

    def __init__(self, meter, parameters):
        self.meter, self.gradients, self.all = meter, 0, []
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self.add)

    def add(self, parameter):
        self.gradients += parameter.grad.nbytes
        self.note()

    def note(self):
        self.all.append((self.gradients, self.meter.left()))

    def outermost(self):
        """Without those that have less of both than a later one, or as little."""
        found, most = [], -1
        for gradients, held in reversed(self.all):
            if held > most:
                found.insert(0, (gradients, held))
                most = held
        return found


def measure(model, method, size):
    imported = process_status("VmRSS")
    training = Training(model, method)
    training.step(WARM_UP)
    before = process_status("VmRSS")
    forget_peak()
    training.step(size)
    first = process_status("VmHWM")
    meter = SavedBytes(training.model)
    moments = Moments(meter, training.parameters)
    gradients = training.step(size, meter, moments.note)
    return {
        "model": model, "method": method, "batch": size, "threads": torch.get_num_threads(),
        "imported": imported, "resident_before": before, "resident_after": process_status("VmRSS"),
        "parameters": sum(p.nbytes for p in training.model.parameters()),
        "trained": sum(p.nbytes for p in training.parameters),
        "gradients": gradients, "optimizer": training.state_bytes(),
        "held": meter.total, "by_operator": meter.by_operator,
        "first_peak": first, "peak": process_status("VmHWM"), "moments": moments.outermost(),
    }  # fmt: skip


def measurement(folder, model, method, size):
    # Memory that is freed goes back at once, so that what is resident is what is in use.
    environment = {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
    file = folder / f"{model}-{method}-{size}.json"
    return result_of(file, __file__, "--measure", model, method, size, environment=environment)


def sum_of_parts(few, full, batch):
    """The most that the parts take together at one moment of a step with this batch: parameters, AdamW's state, the
    imports, gradients, held bytes, and operators' own arrays. `few` and `full` are measurements of the method and of
    full training with other batches, since what is held grows with the batch."""
    lasting = sum(few[part] for part in LASTING)
    together = max(gradients + held * batch / few["batch"] for gradients, held in few["moments"])
    return lasting + together + working(few["method"], full, batch)


def working(method, full, batch):
    """Bytes that a backward pass has in memory at a time for itself: three arrays as wide as the widest, in f32; a
    waiting gradient of a table that trains; and what a block holds that runs again."""
    shape, how = MODELS[full["model"]], METHODS[method]
    table = 0 if how.adapters or how.ladder else shape.shared_table
    block = full["held"] * batch / full["batch"] / shape.blocks if how.checkpointing else 0
    return 4 * (3 * batch * LENGTH * shape.widest + table) + block


def fitting(few, full, batch, limit):
    """The batch, or the largest of its halves whose parts are below the limit."""
    while batch > FEW and sum_of_parts(few, full, batch) > limit:
        batch //= 2
    return batch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of results, one file for each process")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--methods", nargs="*", choices=TABLE, default=list(TABLE))
    parser.add_argument("--batch", type=int, default=64, help="sequences, a power of two of at least 8")
    parser.add_argument("--limit", type=float, default=20e9, help="bytes that a process may take")
    options = parser.parse_args()
    if options.batch < FEW or options.batch & (options.batch - 1):
        parser.error(f"--batch {options.batch}; it is a power of two of at least {FEW}")
    options.out.mkdir(parents=True, exist_ok=True)
    todo = [(model, method) for model in options.models for method in options.methods]
    with tqdm(todo, mininterval=0) as bar:
        for model, method in bar:
            bar.set_postfix_str(f"{model}, {method}")
            measured, full = (measurement(options.out, model, name, FEW) for name in (method, "full"))
            size = fitting(measured, full, options.batch, options.limit)
            # A line through sizes below the whole batch.
            sizes = [size] if size == WHOLE else [size // 2, size]
            for size in sizes:
                if size > FEW:
                    measured = measurement(options.out, model, method, size)
            tqdm.write(
                f"{model}, {method}, {measured['batch']} sequences: peak {measured['peak'] / 1e9:.2f} GB, "
                f"held {measured['held'] / 1e9:.2f} GB"
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        json.dump(measure(*sys.argv[2:4], int(sys.argv[4])), sys.stdout, indent=1)
    else:
        main()
