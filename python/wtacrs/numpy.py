"""wtacrs on NumPy arrays: row norms, selections from weights, and the two passes of one linear layer.

    layer = Linear(tokens, in_features, out_features, budget=0.3, bits=4)
    saved = layer.forward(h, seed=42)           # in the place of h
    dw = saved.backward(dz)                     # an estimate of h.T @ dz

Matrices are float32, float64 or float16 of any strides, and are read and written where they lie.
"""

from __future__ import annotations

import typing

import numpy as np

from ._native import Context, Error, LayerPlan, Tensor, version

__all__ = ["Error", "Linear", "Saved", "Selection", "row_norms", "select", "version"]

CPU = Context("cpu")


def row_norms(x):
    """The Euclidean norms of the rows of x, float32."""
    norms = np.empty(len(x), np.float32)
    CPU.row_norms(tensor(x), norms.ctypes.data, len(norms))
    return norms


class Selection(typing.NamedTuple):
    """Kept rows, ascending, with their scales 1/π, of which `winners` are kept in every draw."""

    indices: np.ndarray
    scales: np.ndarray
    winners: int


def select(weights, rows, *, design="wta-pivotal", seed, offset=0, item=0):
    """A selection of `rows` of the weights. `item` is the item of a batch that shares one offset."""
    weights = np.ascontiguousarray(weights, np.float32)
    plan = LayerPlan(CPU, (len(weights), 1, 1), budget=rows, design=design, source="input")
    indices, scales = np.empty(rows, np.uint32), np.empty(rows, np.float64)
    kept, winners = plan.select(
        weights.ctypes.data, None, seed, offset, item, indices.ctypes.data, scales.ctypes.data, rows
    )
    return Selection(indices[:kept], scales[:kept], winners)


class Linear:
    """A linear layer z = h @ w for one number of tokens, of whose h only a sample is saved.

    `budget` is a share of the tokens in (0, 1], or as an int a number of rows. `bits` is 8, 4 or 2 for rows that are
    packed in so many bits an element, or "native" for exact copies. `source` says what a forward pass knows of the
    norms of dz: "input" nothing, "norms" the norms themselves, "cached" those of an earlier step (negative where not
    known). Where all rows are packed, none is chosen, and `design` and `source` play no part.
    """

    def __init__(
        self,
        tokens,
        in_features,
        out_features,
        *,
        budget,
        design="wta-pivotal",
        source="input",
        bits=4,
        dtype="float32",
    ):
        self.shape = tokens, in_features, out_features
        self.plan = LayerPlan(CPU, self.shape, budget=budget, design=design, source=source, bits=bits, dtype=dtype)

    def forward(self, h, norms=None, *, seed, offset=0):
        """Chooses and saves rows of h (tokens x in_features). Two passes need offsets that lie `plan.draws` apart."""
        if norms is not None:
            norms = np.ascontiguousarray(norms, np.float32)
            if norms.shape != self.shape[:1]:
                raise Error(f"norms of shape {norms.shape} for {self.shape[0]} tokens")
        rows = aligned(self.plan.saved_bytes)
        guess = None if norms is None else norms.ctypes.data
        self.plan.forward(tensor(h), guess, None, seed, offset, rows.ctypes.data, None)
        return Saved(self, rows)


class Saved:
    """What a layer keeps for its backward pass."""

    def __init__(self, layer, rows):
        self.layer, self.rows = layer, rows

    @property
    def nbytes(self):
        return self.rows.nbytes

    def backward(self, dz):
        """The estimate of dw (in_features x out_features) from dz (tokens x out_features)."""
        plan, (_, in_features, out_features) = self.layer.plan, self.layer.shape
        dw, scratch = np.empty((in_features, out_features), plan.sums), aligned(plan.backward_scratch_bytes)
        plan.backward(self.rows.ctypes.data, tensor(dz), tensor(dw), None, None, scratch.ctypes.data)
        return dw


def tensor(matrix):
    # Read-only arrays have a capsule of version 1 alone.
    return Tensor(matrix.__dlpack__(max_version=(1, 0)))


def aligned(count):
    """Bytes at a multiple of 64."""
    block = np.empty(count + 64, np.uint8)
    return block[-block.ctypes.data % 64 :][:count]
