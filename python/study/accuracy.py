"""Accuracy and peak memory of fine-tuning by full training, LoRA, LST, WTA-CRS as published, and this library.

    python accuracy.py --out RESULTS search                     # learning rates, on a part of the training set
    python accuracy.py --out RESULTS train                      # every method with its rate; three seeds
    python accuracy.py --out RESULTS at-rate --rate 1e-4        # with this rate
    python accuracy.py --out RESULTS cost                       # peak memory, what is held, step time
    python accuracy.py --out RESULTS train --data sentences --methods full ours-0.3 --seeds 0

Each run is a process of its own and leaves a JSON file. The commands continue where they stopped. accuracy_report.py
makes the tables and the figure of these files.
"""

import argparse
import ctypes
import dataclasses
import json
import multiprocessing
import pathlib

import torch
from finetune import FULL, evaluate, measure, time_ratio, train
from finetune_task import reviews, sentences
from methods import METHODS
from runs import forget_peak, process_status, write
from tqdm import tqdm

TABLE = (
    "full", "lora", "lst", "published-0.3", "published-0.1", "ours-0.3-linear", "ours-0.3", "ours-all",
    "lora+published-0.3", "lora+ours-0.3", "lora+ours-all",
)  # fmt: skip
# Few parameters, most of them new, need larger steps.
RATES = (5e-5, 1e-4, 2e-4, 4e-4)
RATES_OF_FEW = (3e-4, 1e-3, 3e-3, 1e-2)
CANDIDATES = 3
# malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


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
    "reviews": Task(reviews, train=192, test=240, length=128, batch=8, epochs=2),
}


@dataclasses.dataclass
class Run:
    # Of the commands.
    kind: str
    data: str
    method: str
    seed: int
    rate: float
    task: Task
    steps: int | None

    def file(self, out):
        rate, seed = f"-rate{self.rate:g}", f"-seed{self.seed}"
        which = {"search": rate, "train": seed, "at-rate": rate + seed, "cost": ""}[self.kind]
        return out / self.kind / f"{self.data}-{self.method}{which}.json"


def searched(out, data, method):
    """Rate to loss on the part that was not trained on."""
    found = [json.loads(file.read_text()) for file in (out / "search").glob(f"{data}-{method}-rate*.json")]
    return {run["rate"]: run["loss"] for run in found}


def candidate(out, data, method, place):
    """As many for every method: the two in the middle, then the one beyond the better of them."""
    smallest, first, second, largest = RATES_OF_FEW if METHODS[method].adapters or METHODS[method].ladder else RATES
    if place < 2:
        return (first, second)[place]
    losses = searched(out, data, method)
    return smallest if losses[first] < losses[second] else largest


def best_rate(out, data, method):
    losses = searched(out, data, method)
    if len(losses) < CANDIDATES:
        raise SystemExit(f"search first: of {data} and {method} there are {len(losses)} runs in {out / 'search'}")
    return min(losses, key=losses.get)


def execute(run, file):
    """In a process of its own."""
    torch.set_num_threads(1)
    task = run.task
    data, test = task.load(task.train, task.test, task.length)
    if run.kind == "search":
        # The texts of each label follow one another.
        left_out = range(2, len(data), 3)
        test, data = data.part(list(left_out)), data.part([i for i in range(len(data)) if i not in left_out])
    options = argparse.Namespace(epochs=task.epochs, steps=run.steps, batch=task.batch, rate=run.rate)
    if run.kind == "cost":
        result = cost(METHODS[run.method], data, options)
    else:
        step, result = train(METHODS[run.method], run.seed, data, options, lambda *_: None)
        result["accuracy"], result["loss"] = evaluate(step.model, test)
    of_task = {name: value for name, value in vars(task).items() if name != "load"}
    write(file, vars(run) | {"task": of_task} | result)


def cost(method, data, options, warm_up=2, measured=3):
    # Freed blocks go back to the kernel at once, which otherwise would count them until they are used again.
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 128 * 1024)
    # Of all batches the one that takes the most memory.
    longest = data.part(sorted(range(len(data)), key=lambda i: -len(data.tokens[i]))[: options.batch])
    libc.malloc_trim(0)
    before = process_status("VmRSS")

    def watch(done, steps, step, batch):
        if done == warm_up:
            libc.malloc_trim(0)
            forget_peak()

    few = argparse.Namespace(**vars(options) | {"steps": warm_up + measured})
    step, _ = train(method, 0, longest, few, watch)
    peak = process_status("VmHWM")
    # What malloc arrives at when it is left alone.
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 25)
    libc.mallopt(M_TRIM_THRESHOLD, 1 << 26)
    parameters = list(step.model.parameters())
    return {
        "before": before,
        "peak": peak,
        "saved": measure(step, longest.batch(torch.arange(len(longest)))),
        "parameters": sum(p.numel() for p in parameters),
        "trained": sum(p.numel() for p in parameters if p.requires_grad),
        "time_ratio": 1.0 if method is FULL else time_ratio(method, data, options, pairs=3),
    }


def processes():
    """For processes that are forked from one that has imported everything and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["finetune", "finetune_task", "methods"])
    return context


def every_run(options):
    """What the command asks for, seed by seed, so that a study that is cut short still has every method. A rate is
    chosen when its turn has come."""
    for data in options.data:
        task = TASKS[data]
        given = {name: value for name, value in vars(options).items() if name in ("train", "test", "epochs") and value}
        task = dataclasses.replace(task, **given)
        if options.command == "search":
            rounds = [
                (0, lambda method, place=place: candidate(options.out, data, method, place))
                for place in range(CANDIDATES)
            ]
        elif options.command == "cost":
            rounds = [(0, lambda _: 1e-4)]
        elif options.command == "at-rate":
            rounds = [(seed, lambda _: options.rate) for seed in options.seeds]
        else:
            of = options.searched or data
            rounds = [(seed, lambda method: best_rate(options.out, of, method)) for seed in options.seeds]
        for seed, rate in rounds:
            for method in options.methods:
                yield Run(options.command, data, method, seed, rate(method), task, options.steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of results")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("search", "train", "at-rate", "cost"):
        command = commands.add_parser(name)
        command.add_argument("--data", nargs="*", choices=TASKS, default=list(TASKS))
        command.add_argument("--methods", nargs="*", choices=METHODS, default=list(TABLE))
        for size in ("train", "test", "epochs"):
            command.add_argument(f"--{size}", type=int, help="in the place of the data set's own")
        command.add_argument("--steps", type=int, help="stop after so many steps, for a trial")
        if name in ("train", "at-rate"):
            command.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
        if name == "at-rate":
            command.add_argument("--rate", type=float, required=True)
        if name == "train":
            command.add_argument("--searched", choices=TASKS, help="data set whose rates are taken, if not its own")
    options = parser.parse_args()
    context = processes()
    rounds = CANDIDATES if options.command == "search" else len(getattr(options, "seeds", [0]))
    total = len(options.data) * rounds * len(options.methods)
    with tqdm(every_run(options), total=total, desc=options.command, mininterval=0) as bar:
        for run in bar:
            file = run.file(options.out)
            bar.set_postfix_str(file.stem)
            if file.exists():
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            process = context.Process(target=execute, args=(run, file))
            process.start()
            process.join()
            if process.exitcode != 0:
                raise SystemExit(f"{file.stem} has failed")


if __name__ == "__main__":
    main()
