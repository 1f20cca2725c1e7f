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
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys

import torch
from methods import METHODS
from models import MODELS, build, masks_of
from tqdm import tqdm

from wtacrs.torch import SavedBytes

TABLE = (
    "full", "checkpointing", "lora", "lst", "published-0.3", "published-0.1", "ours-0.3", "ours-all",
    "lora+published-0.3", "lora+published-0.1", "lora+ours-0.3", "lora+ours-all",
)  # fmt: skip
PARTS = ("imported", "parameters", "gradients", "optimizer", "held")
WARM_UP, FEW, WHOLE = 2, 8, 64


def process_status(what):
    """Bytes, from the kernel's account of this process: VmRSS, what is resident now, or VmHWM, its peak."""
    text = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{what}:\s+(\d+) kB", text)[1])


def forget_peak():
    pathlib.Path("/proc/self/clear_refs").write_text("5")


class Training:
    def __init__(self, model, method):
        self.model = build(model)
        self.sampling = METHODS[method].apply(self.model, "base")
        self.model.train()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        # Its other forms hold copies of the largest parameter while they run.
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)

    def step(self, size, meter=None):
        batch = self.model.batch(size)
        samples = contextlib.nullcontext()
        if self.sampling is not None:
            samples = self.sampling.batch(torch.arange(size), *masks_of(batch))
        with samples, meter or contextlib.nullcontext():
            loss = self.model(**batch)
        loss.backward()
        if self.sampling is not None:
            self.sampling.exchange()
        gradients = sum(p.grad.nbytes for p in self.parameters if p.grad is not None)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return gradients

    def state(self):
        states = self.optimizer.state.values()
        return sum(value.nbytes for state in states for value in state.values() if value.ndim > 0)


def measure(model, method, size):
    imported = process_status("VmRSS")
    training = Training(model, method)
    training.step(WARM_UP)
    before = process_status("VmRSS")
    forget_peak()
    training.step(size)
    first = process_status("VmHWM")
    with_meter = SavedBytes(training.model)
    gradients = training.step(size, with_meter)
    return {
        "model": model, "method": method, "batch": size, "threads": torch.get_num_threads(),
        "imported": imported, "resident_before": before, "resident_after": process_status("VmRSS"),
        "parameters": sum(p.nbytes for p in training.model.parameters()),
        "trained": sum(p.nbytes for p in training.parameters),
        "gradients": gradients, "optimizer": training.state(),
        "held": with_meter.total, "by_operator": with_meter.by_operator,
        "first_peak": first, "peak": process_status("VmHWM"),
    }  # fmt: skip


def fresh(folder, model, method, size):
    """The measurement of this batch, from its file or from a new process."""
    file = folder / f"{model}-{method}-{size}.json"
    if not file.exists():
        # Memory that is freed goes back at once, so that what is resident is what is in use.
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
        command = [sys.executable, __file__, "--measure", model, method, str(size)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{model}, {method}, {size} sequences: exit {done.returncode}\n{done.stderr[-2000:]}")
        part = file.with_suffix(".part")
        part.write_text(done.stdout)
        part.replace(file)
    return json.loads(file.read_text())


def sum_of_parts(measured):
    return sum(measured[part] for part in PARTS)


def fitting(measured, batch, limit):
    """The batch, or the largest of its halves whose parts are below the limit."""
    of_one = measured["held"] / measured["batch"]
    while batch > FEW and sum_of_parts(measured) + of_one * (batch - measured["batch"]) > limit:
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
            measured = fresh(options.out, model, method, FEW)
            size = fitting(measured, options.batch, options.limit)
            # A line through sizes below the whole batch.
            sizes = [size] if size == WHOLE else [size // 2, size]
            for size in sizes:
                if size > FEW:
                    measured = fresh(options.out, model, method, size)
            tqdm.write(
                f"{model}, {method}, {measured['batch']} sequences: peak {measured['peak'] / 1e9:.2f} GB, "
                f"held {measured['held'] / 1e9:.2f} GB"
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        json.dump(measure(*sys.argv[2:4], int(sys.argv[4])), sys.stdout, indent=1)
    else:
        main()
