"""Speed of training steps on the CPU: forward and backward pass and AdamW, by method.

    python speed.py --out RESULTS                              # both tables; continues where it stopped
    python speed.py --out RESULTS --models bert-base --methods native-0.3 --steps 8

At an equal batch, a process trains two models by turns, one of them fully, so that both see the same neighbours on a
machine that others use: the median of the ratios means something there. Within a budget of memory, each method trains
with the largest batch whose parts stay within it, in a process of its own. memory.py leaves what that batch is
estimated from. speed_report.py makes the tables and the figure.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import torch
from memory import FEW, measurement, sum_of_parts
from models import LENGTH
from runs import forget_peak, process_status, result_of
from tqdm import tqdm
from training import Training, pass_passes

BATCHES = {"bert-base": 16, "t5-base": 8}
EQUAL = ("checkpointing", "native-0.3", "native-0.1", "published-0.3", "ours-0.3", "ours-all", "lora", "lora+ours-0.3")
WITHIN = ("full", "checkpointing", "published-0.3", "native-0.3", "native-0.1", "ours-0.3", "lora", "lora+ours-0.3")
# Steps that predictors have seen: they learn in each of the first 64.
PASSES = 256
# Of a step that takes so many seconds, one is enough: the largest batches take minutes.
LONG = 60


def settle(training):
    if training.sampling is not None:
        pass_passes(training.sampling, PASSES)


def seconds_of(training, size):
    start = time.perf_counter(), time.process_time()
    training.step(size)
    return time.perf_counter() - start[0], time.process_time() - start[1]


def pairs(model, method, size, steps):
    both = [Training(model, name) for name in ("full", method)]
    for training in both:
        # The first step makes plans and predictors.
        training.step(size)
        settle(training)
        training.step(size)
    times = [[seconds_of(training, size) for training in both] for _ in range(steps)]
    ratios = [this[0] / full[0] for full, this in times]
    return {
        "model": model, "method": method, "batch": size, "threads": torch.get_num_threads(),
        "seconds_full": [full[0] for full, _ in times], "seconds": [this[0] for _, this in times],
        "ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios),
        # Of all steps, since predictors do not learn in each.
        "processor_ratio": sum(this[1] for _, this in times) / sum(full[1] for full, _ in times),
    }  # fmt: skip


def alone(model, method, size, steps):
    training = Training(model, method)
    training.step(2)
    settle(training)
    forget_peak()
    # The first whole batch makes plans, which a long step hides.
    first = seconds_of(training, size)[0]
    times = [first] if first > LONG else [seconds_of(training, size)[0] for _ in range(steps)]
    return {
        "model": model, "method": method, "batch": size, "threads": torch.get_num_threads(), "seconds": times,
        "tokens_per_second": LENGTH * size / statistics.median(times), "peak": process_status("VmHWM"),
    }  # fmt: skip


def within(budget):
    """How names of files begin that contain runs within this budget."""
    return f"within-{budget / 1e9:g}-"


def largest(folder, model, method, budget, steps):
    """The run with the largest batch, a multiple of four, whose sum of parts is within the budget; None if there is no
    such batch. Its peak may be above the budget all the same, since glibc keeps what was freed."""
    few, full = (measurement(folder, model, name, FEW) for name in (method, "full"))
    size = 0
    while sum_of_parts(few, full, size + 4) <= budget:
        size += 4
    if size == 0:
        return None
    file = folder / f"{within(budget)}{model}-{method}.json"
    return result_of(file, __file__, "--alone", model, method, size, steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of results, memory.py's as well")
    parser.add_argument("--models", nargs="*", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--methods", nargs="*", choices=sorted({*EQUAL, *WITHIN}))
    parser.add_argument("--tables", nargs="*", choices=("equal", "within"), default=["equal", "within"])
    parser.add_argument("--steps", type=int, default=7, help="timed steps at an equal batch")
    parser.add_argument("--budget", type=float, default=8e9, help="bytes")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = lambda methods: [name for name in methods if options.methods is None or name in options.methods]
    todo = [("equal", model, method) for model in options.models for method in chosen(EQUAL)]
    todo += [("within", model, method) for model in options.models for method in chosen(WITHIN)]
    with tqdm([task for task in todo if task[0] in options.tables], mininterval=0) as bar:
        for table, model, method in bar:
            bar.set_postfix_str(f"{table}, {model}, {method}")
            if table == "equal":
                file = options.out / f"equal-{model}-{method}.json"
                run = result_of(file, __file__, "--pairs", model, method, BATCHES[model], options.steps)
                tqdm.write(f"{model}, {method}: {run['ratio']:.3f} of full's time")
            else:
                run = largest(options.out, model, method, options.budget, 2)
                shown = "nothing fits" if run is None else f"{run['batch']}, {run['tokens_per_second']:.0f} tokens/s"
                tqdm.write(f"{model}, {method}: {shown}")


if __name__ == "__main__":
    if sys.argv[1:2] in (["--pairs"], ["--alone"]):
        made = {"--pairs": pairs, "--alone": alone}[sys.argv[1]]
        json.dump(made(*sys.argv[2:4], *map(int, sys.argv[4:6])), sys.stdout, indent=1)
    else:
        main()
