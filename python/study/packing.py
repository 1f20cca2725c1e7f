"""What packing costs, and what else was tried: the error of dW from packed rows, in NumPy, from the definition alone.

    python python/study/packing.py testdata/minilm_l3_value_imdb_1024.safetensors

Each line packs all rows, or a share of them chosen by exact weights with a systematic tail, in one of the ways below.
It prints the bits an element takes, with those of its group's numbers, and the relative error of dW over some draws.
"""

from __future__ import annotations

import argparse
import json
import pathlib

import numpy as np


def read(path, name):
    """A matrix of f32 or bf16 from a safetensors file."""
    data = pathlib.Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8 : 8 + size])[name]
    first, last = entry["data_offsets"]
    raw = data[8 + size + first : 8 + size + last]
    if entry["dtype"] == "BF16":
        matrix = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    else:
        matrix = np.frombuffer(raw, "<f4")
    return matrix.reshape(entry["shape"]).astype(np.float64)


def hadamard(size):
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.sqrt(size)


def bf16(values, up):
    """Rounded up or down to a bf16."""
    bits = np.asarray(values, "<f4").view("<u4")
    rounded = (bits & 0xFFFF0000).astype("<u4").view("<f4").astype(np.float64)
    away = ((bits & 0xFFFF0000) + 0x10000).astype("<u4").view("<f4").astype(np.float64)
    return np.where((rounded < values) if up else (rounded > values), away, rounded)


def groups_of(h, group):
    """Rows in groups, the last filled with zeros."""
    padded = -h.shape[1] % group
    return np.pad(h, ((0, 0), (0, padded))).reshape(len(h), -1, group)


def packed(h, rng, bits=4, group=128, rotate=True, symmetric=False, rounding="dithered"):
    """h as it is read back."""
    y = groups_of(h, group)
    if rotate:
        signs = rng.choice([-1.0, 1.0], group)
        y = (y * signs) @ hadamard(group)
    steps = (1 << bits) - 1
    low = y.min(-1, keepdims=True)
    if symmetric:
        largest = np.abs(y).max(-1, keepdims=True)
        low, range_ = -largest, 2 * largest
    else:
        low = bf16(low, up=False)
        range_ = y.max(-1, keepdims=True) - low
    step = np.maximum(bf16(range_ / steps * (1 + 2.0**-20), up=True), 2.0**-100)
    t = (y - low) / step
    if rounding == "dithered":
        first = rng.random(y.shape[:2] + (1,))
        u = (first + np.arange(group) * 0.6180339887498949) % 1
        read_back = np.floor(t + u) + 0.5 - u
    elif rounding == "stochastic":
        read_back = np.floor(t + rng.random(y.shape))
    else:
        read_back = np.round(t)
    y = low + read_back * step
    if rotate:
        y = (y @ hadamard(group)) * signs
    return y.reshape(len(h), -1)[:, : h.shape[1]]


def selection(weights, kept, rng):
    """Winners and a systematic tail: indices and scales."""
    if kept >= len(weights):
        return np.arange(len(weights)), np.ones(len(weights))
    winners = np.zeros(len(weights), bool)
    while True:
        tail = weights[~winners].sum()
        more = ~winners & ((kept - winners.sum()) * weights >= tail)
        if not more.any():
            break
        winners |= more
    chance = np.where(winners, 1.0, (kept - winners.sum()) * weights / tail)
    line = np.cumsum(np.where(winners, 0.0, chance))
    points = rng.random() + np.arange(kept - winners.sum())
    chosen = np.searchsorted(line, points, side="right")
    indices = np.sort(np.concatenate([np.flatnonzero(winners), np.minimum(chosen, len(weights) - 1)]))
    return indices, 1 / chance[indices]


def error(h, dz, kept, draws, rng, read_back):
    """The root mean square of the relative error of dW."""
    exact = h.T @ dz
    weights = np.linalg.norm(h, axis=1) * np.linalg.norm(dz, axis=1)
    squares = []
    for _ in range(draws):
        indices, scales = selection(weights, kept, rng)
        estimate = read_back(h[indices], scales).T @ (dz[indices] * scales[:, None])
        squares.append(((estimate - exact) ** 2).sum() / (exact**2).sum())
    return np.sqrt(np.mean(squares))


def heavier_rows_get_more(h, scales, rng, light, heavy, share):
    """The winners with the largest norms in `heavy` bits, the others in `light`."""
    norms = np.linalg.norm(h, axis=1) * scales
    is_heavy = norms >= np.quantile(norms, 1 - share)
    read_back = packed(h, rng, bits=light)
    read_back[is_heavy] = packed(h, rng, bits=heavy)[is_heavy]
    return read_back


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--draws", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    h, dz = read(arguments.file, "h"), read(arguments.file, "dz")
    tokens, columns = h.shape

    print("| rows | how | bits an element | relative error of dW |")
    print("|---|---|---|---|")

    def line(kept, name, bits, read_back):
        rng = np.random.default_rng(arguments.seed)
        found = error(h, dz, kept, arguments.draws, rng, lambda rows, scales: read_back(rows, scales, rng))
        print(f"| {kept} | {name} | {bits:.2f} | {found:.4f} |", flush=True)

    def simple(kept, name, bits=4, group=128, **how):
        groups = -(-columns // group)
        numbers = 16 if how.get("symmetric") else 32
        size = groups * (bits * group + numbers) / columns
        line(kept, name, size, lambda rows, _, rng: packed(rows, rng, bits=bits, group=group, **how))

    for kept in (tokens, round(0.3 * tokens)):
        for bits in (8, 4, 3, 2):
            simple(kept, f"{bits} bits", bits)
        for group in (32, 64, 256, 512):
            simple(kept, f"4 bits, groups of {group}", group=group)
        simple(kept, "4 bits, not rotated", rotate=False)
        simple(kept, "4 bits, symmetric range", symmetric=True)
        simple(kept, "4 bits, stochastic rounding", rounding="stochastic")
        simple(kept, "4 bits, rounded to nearest", rounding="nearest")
        for light, heavy, share in ((2, 8, 1 / 3), (2, 4, 0.5)):
            bits = light + (heavy - light) * share + 0.25
            name = f"{heavy} bits for the heaviest {share:.0%} of rows, {light} for others"
            line(
                kept,
                name,
                bits,
                lambda rows, scales, rng, how=(light, heavy, share): heavier_rows_get_more(rows, scales, rng, *how),
            )


if __name__ == "__main__":
    main()
