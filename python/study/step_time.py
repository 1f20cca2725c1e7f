"""Step times of converted models as shares of the exact one's, whose steps alternate with theirs in one process.

    python step_time.py --layers 2 --batch 16 --tokens 128 --steps 12
    python step_time.py --model minilm --batch 4 --tokens 32 --steps 40 --passes 256
    python step_time.py --model mixtral --batch 8 --tokens 128 --steps 12 --passes 256

A BERT of BERT-Base's or MiniLM's shape, or a small Mixtral with eight experts, of which two serve a token; a step is a
forward and a backward pass. Alternating steps see the same neighbours, so that the median of their ratios means
something on a machine that others use, too. The ratio of all processor times depends on others even less.
"""

import argparse
import statistics
import time

import torch
from training import pass_passes
from transformers import BertConfig, BertModel, MixtralConfig, MixtralModel

from wtacrs.torch import SavedBytes, convert

CONFIGURATIONS = {
    "exact": None,
    "linear layers, 4 bits": {"bits": 4},
    "exact activations, native rows": {"bits": "native", "activations": "exact"},
    "the same, Q, K and V sampled": {"bits": "native", "activations": "exact", "tensor_mul": 0.3},
    "packed activations, 8 bits": {"bits": 4, "activations": "packed"},
    "packed activations, 4 bits": {"bits": 4, "activations": "packed", "activation_bits": 4},
}


BERT, MIXTRAL = (BertConfig, lambda config: BertModel(config, add_pooling_layer=False)), (MixtralConfig, MixtralModel)
# What a model is made with, and its shape beside the defaults of transformers; the first is BERT-Base, of two layers.
SHAPES = {
    "bert": (BERT, {"num_hidden_layers": 2}),
    "minilm": (BERT, {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}),
    "mixtral": (
        MIXTRAL,
        {
            "hidden_size": 512,
            "intermediate_size": 1024,
            "num_hidden_layers": 2,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "use_cache": False,
        },
    ),
}


def model(name, layers):
    torch.manual_seed(0)
    (config, make), shape = SHAPES[name]
    shape = shape | ({} if layers is None else {"num_hidden_layers": layers})
    return make(config(vocab_size=1000, **shape)).train()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="bert")
    parser.add_argument("--layers", type=int, help="in place of the model's number")
    for name, default in (("batch", 16), ("tokens", 128), ("steps", 12)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--passes", type=int, default=0, help="that predictors have seen, which then learn more seldom")
    parser.add_argument("--budget", type=float, default=0.3)
    parser.add_argument("--autocast", action="store_true", help="in bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", help="of the configurations")
    options = parser.parse_args()
    chosen = {n: o for n, o in CONFIGURATIONS.items() if n == "exact" or not options.only or n in options.only}
    device = torch.device(options.device)
    models, samplings = {}, []
    for name, settings in chosen.items():
        models[name] = model(options.model, options.layers).to(device)
        if settings:
            sampling = convert(models[name], options.budget, seed=1, **settings)
            samplings.append(sampling)
    ids = torch.randint(1000, (options.batch, options.tokens), device=device)

    def loss(name):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.autocast):
            return models[name](ids).last_hidden_state.float().square().mean()

    def step(name):
        start = time.perf_counter(), time.process_time()
        loss(name).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        models[name].zero_grad()
        return time.perf_counter() - start[0], time.process_time() - start[1]

    times = {name: [] for name in models}
    # The first step makes plans and predictors, and learns where memory is.
    for name in models:
        step(name)
    for sampling in samplings:
        pass_passes(sampling, options.passes)
    for _ in range(options.steps):
        for name in models:
            times[name].append(step(name))
    held = {}
    for name in models:
        with SavedBytes(models[name]) as saved:
            loss(name)
        held[name] = saved.total
    print(f"{'':32} seconds  of exact  processor, of exact  held, of exact")
    for name, steps in times.items():
        wall = statistics.median(this / exact for (this, _), (exact, _) in zip(steps, times["exact"]))
        # Of all steps, since predictors do not learn in each.
        processor = sum(this for _, this in steps) / sum(exact for _, exact in times["exact"])
        seconds = statistics.median(wall_time for wall_time, _ in steps)
        share = held[name] / held["exact"]
        print(f"{name:32} {seconds:7.3f} {wall:9.3f} {processor:20.3f} {share:15.3f}")


if __name__ == "__main__":
    main()
