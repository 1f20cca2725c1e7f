"""Step times of converted models as shares of the exact one's, whose steps alternate with theirs in one process.

    python step_time.py --layers 2 --batch 16 --tokens 128 --steps 12

A BERT of BERT-Base's widths; a step is a forward and a backward pass. Alternating steps see the same neighbours, so that
the median of their ratios means something on a machine that others use, too.
"""

import argparse
import statistics
import time

import torch
from transformers import BertConfig, BertModel

from wtacrs.torch import SavedBytes, convert

CONFIGURATIONS = {
    "exact": None,
    "linear layers, 4 bits": {"bits": 4},
    "exact activations, native rows": {"bits": "native", "activations": "exact"},
    "packed activations, 8 bits": {"bits": 4, "activations": "packed"},
    "packed activations, 4 bits": {"bits": 4, "activations": "packed", "activation_bits": 4},
}


def model(layers):
    torch.manual_seed(0)
    return BertModel(BertConfig(num_hidden_layers=layers, vocab_size=1000), add_pooling_layer=False).train()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("layers", 2), ("batch", 16), ("tokens", 128), ("steps", 12)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--budget", type=float, default=0.3)
    parser.add_argument("--autocast", action="store_true", help="in bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", help="of the configurations")
    options = parser.parse_args()
    chosen = {n: o for n, o in CONFIGURATIONS.items() if n == "exact" or not options.only or n in options.only}
    device = torch.device(options.device)
    models = {}
    for name, settings in chosen.items():
        models[name] = model(options.layers).to(device)
        if settings:
            convert(models[name], options.budget, seed=1, **settings)
    ids = torch.randint(1000, (options.batch, options.tokens), device=device)

    def loss(name):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.autocast):
            return models[name](ids).last_hidden_state.float().square().mean()

    def step(name):
        start = time.perf_counter()
        loss(name).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        models[name].zero_grad()
        return time.perf_counter() - start

    times = {name: [] for name in models}
    for turn in range(options.steps + 1):
        for name in models:
            seconds = step(name)
            # The first step makes plans, and learns where memory is.
            if turn:
                times[name].append(seconds)
    held = {}
    for name in models:
        with SavedBytes(models[name]) as saved:
            loss(name)
        held[name] = saved.total
    print(f"{'':32} seconds  of exact  held, of exact")
    for name, seconds in times.items():
        ratio = statistics.median(this / exact for this, exact in zip(seconds, times["exact"]))
        print(f"{name:32} {statistics.median(seconds):7.3f} {ratio:9.3f} {held[name] / held['exact']:15.3f}")


if __name__ == "__main__":
    main()
