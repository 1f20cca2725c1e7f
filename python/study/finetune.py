"""Fine-tunes all-MiniLM-L6-v2 on film review sentences, with exact gradients and with sampled ones.

    python finetune.py --out RESULTS                   # every configuration, three seeds; continues where it stopped
    python finetune.py --out RESULTS --only wta-pivotal-predictor-0.3 --seeds 1
    python finetune.py --out RESULTS --only all wta-pivotal-predictor-0.3 --bits 4          # with packed rows
    python finetune.py --out RESULTS --only all --bits 4 --activations 8 4        # and with packed activations
    torchrun --nproc-per-node 2 finetune.py --out RESULTS --only wta-pivotal-predictor-0.3 --seeds 1

Each run leaves a JSON file in the folder; finetune_report.py makes a table and a figure of these files. All files of
this folder require `pip install './python[study]'`.
"""

import argparse
import contextlib
import os
import pathlib
import statistics
import time

import torch
import torch.distributed as distributed
from finetune_task import Classifier, sentences
from methods import METHODS, Method
from runs import write
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from wtacrs.torch import SavedBytes

FULL = METHODS["full"]
# Design and source of each.
DESIGNS = {
    "wta-pivotal-predictor": ("wta-pivotal", "predicted"),
    "wta-pivotal-cache": ("wta-pivotal", "cached"),
    "wta-iid-cache": ("wta-iid", "cached"),
    "top-k-cache": ("top-k", "cached"),
}
BITS = ("native", "8", "4", "2")
ACTIVATIONS = ("none", "8", "4")
# Options that are no part of a single run.
UNRECORDED = ("out", "only", "bits", "activations", "seeds")


def configurations(every_bits=BITS, activations=ACTIVATIONS):
    """Name to method. Rows are native where a name has no bits, and all rows are kept, which native ones never are,
    under the name `all`. Activations are torch's own where a name has none."""
    of_rows = configurations_of_rows(every_bits)
    named = {"full": FULL}
    for packed in activations:
        for name, sampling in of_rows.items():
            operators = {} if packed == "none" else {"activations": "packed", "activation_bits": int(packed)}
            name = with_activations(name, packed)
            named[name] = Method(name, sampling | operators)
    return named


def with_activations(name, packed):
    return name if packed == "none" else f"{name}-{packed}bit-activations"


def configurations_of_rows(every_bits):
    named = {}
    for bits in every_bits:
        how = bits if bits == "native" else int(bits)
        if bits != "native":
            named[with_bits("all", bits)] = sampled(1.0, "wta-pivotal", "input", how)
        for budget in (0.3, 0.1):
            for name, (design, source) in DESIGNS.items():
                named[with_bits(f"{name}-{budget}", bits)] = sampled(budget, design, source, how)
    return named


def sampled(budget, design, source, bits):
    return {"budget": budget, "design": design, "source": source, "bits": bits}


def with_bits(name, bits):
    return name if bits == "native" else f"{name}-{bits}bits"


def chosen(only, every_bits, activations):
    """The names of the runs, in the study's order."""
    found = list(configurations(every_bits, activations))
    if only is None:
        return found
    of_rows = [with_bits(name, bits) for name in only for bits in every_bits]
    wanted = {with_activations(name, packed) for name in of_rows for packed in activations} | ({"full"} & set(only))
    return [name for name in found if name in wanted]


def build(method, seed, group=None):
    # The same head and, as far as masks go, the same dropout for every configuration.
    torch.manual_seed(seed)
    model = Classifier()
    # The tables are a lookup, not a linear layer; training them would cost half of a step of so small a study.
    model.encoder.embeddings.requires_grad_(False)
    # The head reads a row for each sentence, not for each token.
    sampling = method.apply(model, "encoder", seed, skip=["head"], process_group=group)
    return model.train(), sampling


class Step:
    """One training step: forward, backward, and what sampling needs beside it. With `autocast` the model computes in
    bf16."""

    def __init__(self, model, sampling, parallel=None, autocast=False):
        self.model, self.sampling, self.autocast = parallel or model, sampling, autocast

    def loss(self, tokens, mask, labels, ids):
        of_batch = contextlib.nullcontext() if self.sampling is None else self.sampling.batch(ids, mask)
        with of_batch, torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            return cross_entropy(self.model(tokens, mask), labels)

    def __call__(self, batch):
        loss = self.loss(*batch)
        loss.backward()
        if self.sampling is not None:
            self.sampling.exchange()
        return loss.item()


def train(method, seed, data, options, watch, autocast=False):
    """A model that is trained, the step that has trained it, and what is known of its training. `watch` is called
    before each step, with the number of steps before it, of all steps, the step and its batch. What it returns, unless
    it is None, is called when the step has its gradients."""
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    group = distributed.group.WORLD if world > 1 else None
    model, sampling = build(method, seed, group)
    parallel = torch.nn.parallel.DistributedDataParallel(model) if world > 1 else None
    step = Step(model, sampling, parallel, autocast)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.rate, weight_decay=0.01)
    steps = options.steps or options.epochs * (len(data) // options.batch)
    warm_up = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min((n + 1) / warm_up, (steps - n) / max(1, steps - warm_up))
    )
    order = torch.Generator().manual_seed(seed)
    # The bar of other ranks than the first is disabled, and does not count.
    losses, padded, done = [[]], [], 0
    with tqdm(total=steps, disable=rank > 0, desc=f"seed {seed}", leave=False, mininterval=2) as bar:
        while done < steps:
            if losses[-1]:
                losses.append([])
            for chosen in data.epoch(options.batch, order)[: steps - done]:
                batch = data.batch(chosen[rank::world])
                optimizer.zero_grad()
                seen = watch(done, steps, step, batch)
                losses[-1].append(step(batch))
                if seen is not None:
                    seen()
                padded.append(1 - batch[1].float().mean().item())
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                schedule.step()
                done += 1
                bar.update()
                bar.set_postfix(loss=f"{statistics.mean(losses[-1][-20:]):.3f}")
    return step, {
        "loss_by_epoch": [statistics.mean(epoch) for epoch in losses],
        "padding": statistics.mean(padded),
        "steps": steps,
    }


def measure(step, batch):
    """Bytes saved for a backward pass of this batch, which is then not made; and what full training saves for it."""
    counts = {}
    # Neither measurement may change what training draws next.
    planning = step.sampling and step.sampling.planning
    before = torch.get_rng_state(), step.sampling and step.sampling.randomness.offset, planning and planning.passes
    for name, measured in (("this", step), ("full", Step(*build(FULL, 0), autocast=step.autocast))):
        with SavedBytes(measured.model) as saved:
            loss = measured.loss(*batch)
        counts[name] = {"linear": saved.linear, "total": saved.total, "by_operator": saved.by_operator}
        del loss
    torch.set_rng_state(before[0])
    if step.sampling is not None:
        step.sampling.randomness.offset = before[1]
    if planning is not None:
        planning.passes = before[2]
    return counts | {"tokens": batch[1].numel()}


@torch.no_grad()
def evaluate(model, data, size=64):
    """Accuracy and loss."""
    model.eval()
    by_length = sorted(range(len(data)), key=lambda i: len(data.tokens[i]))
    right = loss = 0
    for start in range(0, len(data), size):
        tokens, mask, labels, _ = data.batch(by_length[start : start + size])
        scores = model(tokens, mask)
        right += (scores.argmax(1) == labels).sum().item()
        loss += cross_entropy(scores, labels, reduction="sum").item()
    return right / len(data), loss / len(data)


def time_ratio(method, data, options, pairs=8):
    """Processor time of a step's passes over that of full training's, taken in turns on the same batches."""
    both = [Step(*build(m, 0)) for m in (FULL, method)]
    order = torch.Generator().manual_seed(0)
    ratios = []
    for pair in range(pairs + 2):
        batch = data.batch(torch.randperm(len(data), generator=order)[: options.batch])
        spent = []
        for step in both:
            step.model.zero_grad()
            start = time.process_time()
            step(batch)
            spent.append(time.process_time() - start)
        if pair >= 2:
            ratios.append(spent[1] / spent[0])
    return statistics.median(ratios)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of results, one file for each run")
    names = ["all", *configurations(["native"], ["none"])]
    parser.add_argument("--only", nargs="*", choices=names, help="configurations without bits; if left out, every one")
    parser.add_argument("--bits", nargs="*", choices=BITS, default=["native"], help="how kept rows are saved")
    parser.add_argument(
        "--activations", nargs="*", choices=ACTIVATIONS, default=["none"], help="bits of what lies between the layers"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=1152, help="sentences to train on")
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, help="stop after so many steps, for a trial")
    parser.add_argument("--batch", type=int, default=32, help="sentences in a step, over all ranks")
    parser.add_argument("--length", type=int, default=48, help="tokens of a sentence at most")
    parser.add_argument("--rate", type=float, default=1e-4)
    options = parser.parse_args()
    if "RANK" in os.environ:
        distributed.init_process_group("gloo")
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    data, test = sentences(options.train, options.test, options.length)
    # Seed by seed, so that a study that is cut short still has every configuration.
    names = chosen(options.only, options.bits, options.activations)
    todo = [(seed, name) for seed in range(options.seeds) for name in names]
    with tqdm(todo, disable=rank > 0, desc="runs", mininterval=0) as bar:
        for seed, name in bar:
            file = options.out / f"{name}-seed{seed}.json"
            bar.set_postfix_str(name)
            if file.exists():
                continue
            method, saved = configurations()[name], []

            def halfway(done, steps, step, batch, saved=saved):
                if done == steps // 2:
                    saved.append(measure(step, batch))

            step, result = train(method, seed, data, options, halfway)
            result |= {"name": name, "seed": seed, "saved": saved[0], "accuracy": evaluate(step.model, test)[0]}
            result["options"] = {k: v for k, v in vars(options).items() if k not in UNRECORDED}
            if method is not FULL and seed == 0 and not distributed.is_initialized():
                result["time_ratio"] = time_ratio(method, data, options)
            if rank == 0:
                write(file, result)
            tqdm.write(f"{name} seed {seed}: accuracy {result['accuracy']:.3f}") if rank == 0 else None
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
