"""What packed operators cost on a real model, and what else was tried: errors and biases of dX, in torch, from the
definitions alone.

    python operator_errors.py            # requires the packages that finetune.py requires, and not the library

Takes the inputs of GELU, LayerNorm and softmax, and the gradients of their outputs, from one step of all-MiniLM-L6-v2
on film reviews. Each line packs what an operator saves in one of the ways below. `error` is the root mean square of the
relative error of dX over some draws. `bias` is the relative error of the mean of all draws, and `chance` what it would
be without bias: the error over the root of their number. All are means over the model's layers.
"""

from __future__ import annotations

import argparse
import math

import torch
from finetune import FULL, Step, build
from finetune_task import sentences
from record_layers import longest
from tqdm import tqdm
from transformers.activations import GELUActivation

GROUP = 128


def packed(y, bits, *, low=None, high=None, rotate=False, rounding="dithered"):
    """y (rows x columns) as it is read back, and the variance of each element. Ranges are those of groups, or given."""
    columns = y.shape[1]
    y = torch.nn.functional.pad(y, (0, -columns % GROUP)).reshape(len(y), -1, GROUP)
    if rotate:
        signs = torch.randint(0, 2, (GROUP,)).double() * 2 - 1
        y = (y * signs) @ hadamard(GROUP)
    least = y.amin(-1, keepdim=True) if low is None else torch.tensor(low, dtype=y.dtype)
    most = y.amax(-1, keepdim=True) if high is None else torch.tensor(high, dtype=y.dtype)
    step = ((most - least) / (2**bits - 1)).clamp(min=1e-30)
    t = (y - least) / step
    if rounding == "dithered":
        start, slope = torch.rand(2, *y.shape[:2], 1, dtype=y.dtype)
        u = (start + slope * torch.arange(GROUP)) % 1
        t = torch.floor(t + u) + 0.5 - u
    elif rounding == "stochastic":
        t = torch.floor(t + torch.rand_like(t))
    else:
        t = torch.round(t)
    y = least + t * step
    if rotate:
        y = (y @ hadamard(GROUP)) * signs
    variance = (step**2 / 12).expand_as(y)
    return y.reshape(len(y), -1)[:, :columns], variance.reshape(len(y), -1)[:, :columns]


def hadamard(size):
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / math.sqrt(size)


def slope(x):
    below = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return below + x * torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def of_gelu(x, dy, **how):
    return dy * packed(slope(x), low=-0.13, high=1.13, **how)[0]


def of_gelu_input(x, dy, **how):
    return dy * slope(packed(x, **how)[0])


def of_softmax(x, dy, corrected=True, **how):
    p, variance = packed(torch.softmax(x, -1), **how)
    dx = p * (dy - (p * dy).sum(-1, keepdim=True))
    return dx + variance * dy if corrected else dx


def of_softmax_stochastic(x, dy, **how):
    p, _ = packed(torch.softmax(x, -1), low=0.0, rounding="stochastic", **how)
    return p * (dy - (p * dy).sum(-1, keepdim=True))


def of_softmax_roots(x, dy, corrected=True, **how):
    """Squares of packed roots, less their variance; and the variance of that."""
    root, variance = packed(torch.softmax(x, -1).sqrt(), **how)
    p = root**2 - variance
    dx = p * (dy - (p * dy).sum(-1, keepdim=True))
    return dx + (4 * p * variance + 0.8 * variance**2) * dy if corrected else dx


def of_norm(x, g, corrected=True, **how):
    mean, deviation = x.mean(-1, keepdim=True), (x.var(-1, correction=0, keepdim=True) + 1e-12).sqrt()
    normal, variance = packed((x - mean) / deviation, **how)
    dx = g - g.mean(-1, keepdim=True) - normal * (normal * g).mean(-1, keepdim=True)
    return (dx + (variance * g / x.shape[1] if corrected else 0)) / deviation


WAYS = {
    "GELU": [
        ("slope, dithered", of_gelu, {}),
        ("slope, stochastic rounding", of_gelu, {"rounding": "stochastic"}),
        ("slope, rounded to the nearest", of_gelu, {"rounding": "nearest"}),
        ("input, dithered", of_gelu_input, {}),
        ("input, rotated and dithered", of_gelu_input, {"rotate": True}),
    ],
    "softmax": [
        ("probabilities, dithered", of_softmax, {}),
        ("the same, not corrected", of_softmax, {"corrected": False}),
        ("probabilities, stochastic rounding", of_softmax_stochastic, {}),
        ("roots of probabilities, dithered", of_softmax_roots, {}),
        ("the same, not corrected", of_softmax_roots, {"corrected": False}),
        ("probabilities, rounded to the nearest", of_softmax, {"rounding": "nearest", "corrected": False}),
    ],
    "LayerNorm": [
        ("normalised rows, dithered", of_norm, {}),
        ("the same, not corrected", of_norm, {"corrected": False}),
        ("normalised rows, rotated and dithered", of_norm, {"rotate": True}),
    ],
}
EXACT = {
    "GELU": lambda x, dy: dy * slope(x),
    "softmax": lambda x, dy: torch.softmax(x, -1) * (dy - (torch.softmax(x, -1) * dy).sum(-1, keepdim=True)),
    "LayerNorm": lambda x, g: torch.autograd.functional.vjp(
        lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:], eps=1e-12), x, g
    )[1],
}


def recorded(rows):
    """For each operator pairs of its input and its output's gradient, of every layer: rows x columns in f64."""
    data, _ = sentences(1152, 1000, 48)
    model, _ = build(FULL, seed=0)
    model.encoder.set_attn_implementation("eager")
    pairs = {name: [] for name in WAYS}

    def note(name, x, y, scale=None):
        def take(dy):
            dy = dy if scale is None else dy * scale
            flat = lambda t: t.detach().reshape(-1, t.shape[-1])[:rows].double()
            pairs[name].append((flat(x), flat(dy)))

        # The embeddings, whose norm comes first, are not trained.
        if y.requires_grad:
            y.register_hook(take)

    for module in model.modules():
        if isinstance(module, GELUActivation):
            module.register_forward_hook(lambda _, given, y: note("GELU", given[0], y))
        elif isinstance(module, torch.nn.LayerNorm):
            module.register_forward_hook(lambda m, given, y: note("LayerNorm", given[0], y, m.weight.detach()))
    softmax = torch.nn.functional.softmax

    def noted(x, *arguments, **named):
        y = softmax(x, *arguments, **named)
        note("softmax", x, y)
        return y

    torch.nn.functional.softmax = noted
    try:
        Step(model, None)(longest(data, 16))
    finally:
        torch.nn.functional.softmax = softmax
    return pairs


def measure(pairs, way, exact, how, draws):
    errors, biases = [], []
    for x, dy in pairs:
        truth = exact(x, dy)
        length = truth.norm()
        mean, square = torch.zeros_like(truth), 0.0
        for _ in range(draws):
            found = way(x, dy, **how)
            square += ((found - truth).norm() / length).item() ** 2 / draws
            mean += found / draws
        errors.append(math.sqrt(square))
        biases.append(((mean - truth).norm() / length).item())
    return sum(errors) / len(errors), sum(biases) / len(biases)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128, help="rows of each operator's input")
    parser.add_argument("--draws", type=int, default=400)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    pairs = recorded(options.rows)
    lines = [(name, *way, bits) for name, ways in WAYS.items() for way in ways for bits in (8, 4)]
    print("| operator | what is saved | bits | error | bias | chance |\n|---|---|---|---|---|---|")
    with tqdm(lines, desc="ways") as bar:
        for name, text, way, how, bits in bar:
            error, bias = measure(pairs[name], way, EXACT[name], {"bits": bits, **how}, options.draws)
            chance = error / math.sqrt(options.draws)
            tqdm.write(f"| {name} | {text} | {bits} | {error:.2g} | {bias:.2g} | {chance:.2g} |")


if __name__ == "__main__":
    main()
