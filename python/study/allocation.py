"""One budget of memory for all layers of all-MiniLM-L6-v2, against one fraction for each of them.

    python allocation.py --out RESULTS                 # every configuration, three seeds; continues where it stopped
    python allocation.py --out RESULTS --seeds 1 --only full shared-0.1

Bytes are shares of what the inputs of the linear layers take in bf16, in which the models compute (autocast). Each run
leaves a JSON file in the folder; allocation_report.py makes the table and the figure of these files.
"""

import argparse
import collections
import pathlib
import statistics

import torch
from finetune import FULL, Step, build, evaluate, measure, train
from finetune_task import sentences
from methods import Method
from runs import write
from tqdm import tqdm

from wtacrs.torch.linear.plans import budget_within, saved_a_token
from wtacrs.torch.packing import row_bytes

SHARES = (0.1, 0.03)
# Of most layers, and bytes of an element in bf16.
FEATURES, ELEMENT = 384, 2
# Steps between measurements of the gradients' errors.
EVERY = 6


def configurations():
    named = {"full": FULL}
    chosen = {"design": "wta-pivotal", "source": "predicted"}
    for share in SHARES:
        for bits in ("native", 4):
            fraction = {"budget": budget_within(share, FEATURES, ELEMENT, bits), "bits": bits}
            named[f"fraction-{bits}-{share}"] = Method(f"one fraction, {bits}", chosen | fraction)
        named[f"shared-{share}"] = Method("shared out", chosen | {"memory": share})
    named["noise-0.1"] = Method("a tenth of the batches' variance", chosen | {"noise": 0.1})
    return named


class Errors:
    """How far the gradients of sampled layers are from the exact ones, in every EVERY-th step of a training."""

    def __init__(self):
        self.exact = Step(*build(FULL, 0), autocast=True)
        self.found = []

    def before(self, done, steps, step, batch):
        """Computes the exact gradients of the step's batch, with the step's dropout. What it returns is called when the
        step has its own."""
        if step.sampling is None or done % EVERY:
            return None
        self.exact.model.load_state_dict(step.model.state_dict())
        generator = torch.get_rng_state()
        self.exact.model.zero_grad()
        self.exact.loss(*batch).backward()
        torch.set_rng_state(generator)
        return lambda: self.compare(done, step)

    def compare(self, done, step):
        squared = {}
        for name in step.sampling.layers:
            exact = self.exact.model.get_submodule(name).weight.grad.double()
            estimate = step.model.get_submodule(name).weight.grad.double()
            squared[name] = float((estimate - exact).square().sum() / exact.square().sum())
        self.found.append({
            "step": done, "squared_errors": list(squared.values()),
            "expected": list(expected(step.sampling, squared)),
            "share": share_of(step.sampling),
        })  # fmt: skip


def expected(sampling, squared):
    """For each H that lacks rows or bits: the squared error of all its readers that the planner expected by the steps
    before, and the one that they have in this step."""
    if sampling.planning is None:
        return
    by_input = collections.defaultdict(float)
    for name, layer in sampling.sampled.items():
        by_input[layer.shares_input_of or name] += squared[name]
    for first, error in by_input.items():
        planned = sampling.planning.planned(first)
        if planned is not None and planned.squared_error > 0:
            yield planned.squared_error, error


def share_of(sampling):
    """Of the bytes of all inputs in bf16. Each counts once, and those that other operators keep do not."""
    saved = whole = 0
    for name, layer in sampling.sampled.items():
        if layer.input_kept or layer.shares_input_of not in (None, name):
            continue
        saved += saved_a_token(layer.in_features, ELEMENT, layer.budget, layer.bits)
        whole += row_bytes(layer.in_features, ELEMENT, "native")
    return saved / whole


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of results, one file for each run")
    parser.add_argument("--only", nargs="*", choices=configurations())
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=768, help="sentences to train on")
    parser.add_argument("--test", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, help="stop after so many steps, for a trial")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    data, test = sentences(options.train, options.test, 48)
    names = options.only or list(configurations())
    todo = [(seed, name) for seed in range(options.seeds) for name in names]
    with tqdm(todo, desc="runs", mininterval=0) as bar:
        for seed, name in bar:
            bar.set_postfix_str(name)
            file = options.out / f"{name}-seed{seed}.json"
            if file.exists():
                continue
            errors, held = Errors(), []

            def watch(done, steps, step, batch, errors=errors, held=held):
                if done == steps * 3 // 4:
                    held.append(measure(step, batch))
                return errors.before(done, steps, step, batch)

            step, result = train(configurations()[name], seed, data, options, watch, autocast=True)
            accuracy, loss = evaluate(step.model, test)
            result |= {"name": name, "seed": seed, "accuracy": accuracy, "loss": loss, "held": held[0]}
            result["errors"] = errors.found
            result["options"] = {k: v for k, v in vars(options).items() if k not in ("out", "only", "seeds")}
            write(file, result)
            epochs = " ".join(f"{loss:.3f}" for loss in result["loss_by_epoch"])
            squared = [error for found in errors.found for error in found["squared_errors"]]
            root = f", error {statistics.mean(squared) ** 0.5:.3f}" if squared else ""
            tqdm.write(f"{name} seed {seed}: losses {epochs}, accuracy {accuracy:.3f}{root}")


if __name__ == "__main__":
    main()
