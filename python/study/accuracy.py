"""Accuracy and peak memory of fine-tuning by full training, LoRA, LST, WTA-CRS as published, and this library.

    python accuracy.py --out RESULTS search                     # learning rates, on a part of the training set
    python accuracy.py --out RESULTS train                      # every method with its rate; three seeds
    python accuracy.py --out RESULTS train --data sentences --methods full ours-0.3 --seeds 1

Each run is a process of its own, whose peak memory the kernel reports, and leaves a JSON file. Both commands continue
where they stopped. accuracy_report.py makes the table and the figure of these files.
"""

import argparse
import ctypes
import dataclasses
import json
import multiprocessing
import pathlib
import re

import torch
from finetune import FULL, evaluate, measure, save, time_ratio, train
from finetune_task import reviews, sentences
from methods import METHODS
from tqdm import tqdm

TABLE = (
    "full", "lora", "lst", "published-0.3", "published-0.1", "ours-0.3-linear", "ours-0.3", "ours-all",
    "lora+published-0.3", "lora+ours-0.3", "lora+ours-all",
)  # fmt: skip
# As many candidates for every method. Few parameters, most of them new, need larger steps.
RATES = (1e-4, 2e-4, 4e-4)
RATES_OF_FEW = (1e-3, 3e-3, 1e-2)


@dataclasses.dataclass
class Task:
    """A data set, and how models are trained on it."""

    load: callable
    train: int
    test: int
    length: int
    batch: int
    epochs: int


TASKS = {
    "sentences": Task(sentences, train=768, test=600, length=48, batch=32, epochs=3),
    "reviews": Task(reviews, train=256, test=300, length=128, batch=16, epochs=2),
}


@dataclasses.dataclass
class Run:
    data: str
    method: str
    seed: int
    rate: float
    # Whether a part of the training set takes the place of the test set.
    search: bool
    options: Task
    steps: int | None

    def file(self, out):
        kind, which = ("search", f"rate{self.rate:g}") if self.search else ("runs", f"seed{self.seed}")
        return out / kind / f"{self.data}-{self.method}-{which}.json"


def rates(method):
    return RATES_OF_FEW if METHODS[method].adapters or METHODS[method].ladder else RATES


def best_rate(out, data, method):
    """The rate with the lowest loss on the part that was not trained on."""
    found = [json.loads(file.read_text()) for file in (out / "search").glob(f"{data}-{method}-rate*.json")]
    if missing := set(rates(method)) - {run["rate"] for run in found}:
        raise SystemExit(f"search first: {data}, {method} has not been trained at {sorted(missing)}")
    return min(found, key=lambda run: run["loss"])["rate"]


def process_status(what):
    """Bytes, from the kernel's account of this process: VmRSS, what is resident now, or VmHWM, its peak."""
    text = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{what}:\s+(\d+) kB", text)[1])


def forget_peak():
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def execute(run):
    """Trains a model in this process."""
    torch.set_num_threads(1)
    task = run.options
    data, test = task.load(task.train, task.test, task.length)
    if run.search:
        held_out = [i % 3 == 2 for i in range(len(data))]
        test = data.part([i for i, out in enumerate(held_out) if out])
        data = data.part([i for i, out in enumerate(held_out) if not out])
    options = argparse.Namespace(epochs=task.epochs, steps=run.steps, batch=task.batch, rate=run.rate)
    method = METHODS[run.method]
    # The files' text is no part of training.
    ctypes.CDLL(None).malloc_trim(0)
    before = process_status("VmRSS")

    def watch(done, steps, step, batch):
        if done == steps // 10 + 1:
            forget_peak()

    step, result = train(method, run.seed, data, options, watch)
    result["peak"] = {"before": before, "process": process_status("VmHWM")}
    # The same for all methods and seeds, and the one that takes the most memory.
    batch = data.batch(sorted(range(len(data)), key=lambda i: -len(data.tokens[i]))[: task.batch])
    result["saved"] = measure(step, batch)
    parameters = list(step.model.parameters())
    result["parameters"] = sum(p.numel() for p in parameters)
    result["trained"] = sum(p.numel() for p in parameters if p.requires_grad)
    result["accuracy"], result["loss"] = evaluate(step.model, test)
    if run.seed == 0 and not run.search and method is not FULL:
        result["time_ratio"] = time_ratio(method, data, options, pairs=4)
    of_task = {name: value for name, value in vars(task).items() if name != "load"}
    return vars(run) | {"options": of_task} | result


def execute_to(run, file):
    save(execute(run), file)


def processes():
    """For processes that are forked from one that has imported everything and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["finetune", "finetune_task", "methods"])
    return context


def runs(options):
    """What the command asks for, seed by seed, so that a study that is cut short still has every method."""
    for data in options.data:
        task = TASKS[data]
        given = {name: value for name, value in vars(options).items() if name in ("train", "test", "epochs") and value}
        task = dataclasses.replace(task, **given)
        if options.command == "search":
            for place in range(len(RATES)):
                for method in options.methods:
                    yield Run(data, method, 0, rates(method)[place], True, task, options.steps)
        else:
            for seed in options.seeds:
                for method in options.methods:
                    rate = best_rate(options.out, options.searched or data, method)
                    yield Run(data, method, seed, rate, False, task, options.steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of results")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("search", "train"):
        command = commands.add_parser(name)
        command.add_argument("--data", nargs="*", choices=TASKS, default=list(TASKS))
        command.add_argument("--methods", nargs="*", choices=METHODS, default=list(TABLE))
        for size in ("train", "test", "epochs"):
            command.add_argument(f"--{size}", type=int, help="in the place of the data set's own")
        command.add_argument("--steps", type=int, help="stop after so many steps, for a trial")
        if name == "train":
            command.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
            command.add_argument("--searched", choices=TASKS, help="data set whose rates are taken, if not its own")
    options = parser.parse_args()
    context = processes()
    todo = list(runs(options))
    with tqdm(todo, desc=options.command, mininterval=0) as bar:
        for run in bar:
            file = run.file(options.out)
            bar.set_postfix_str(file.stem)
            if file.exists():
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            process = context.Process(target=execute_to, args=(run, file))
            process.start()
            process.join()
            if process.exitcode != 0:
                raise SystemExit(f"{file.stem} has failed")


if __name__ == "__main__":
    main()
