"""wtacrs on NumPy arrays: row norms, selections from weights, and the two passes of one linear layer.

    layer = Linear(tokens, in_features, out_features, budget=0.3, bits=4)
    saved = layer.forward(h, seed=42)           # in the place of h
    dw = saved.backward(dz)                     # an estimate of h.T @ dz

Matrices are float32, float64 or float16 of any strides, and are read and written where they lie. What libwtacrs refuses
is an `Error` that names the argument, index and value.
"""

from __future__ import annotations

import numbers
import typing

from ._extras import imports_of
from ._native import Context, Error, LayerPlan, Tensor, version

with imports_of("numpy"):
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Error", "Linear", "Saved", "Selection", "row_norms", "select", "version"]

CPU = Context("cpu")


def row_norms(x: ArrayLike) -> NDArray[np.float32]:
    """The Euclidean norms of the rows of x (rows x columns), float32[rows]. The norm of a row that is not finite is not
    finite.

    Raises `Error` if x is not a matrix of a supported dtype.
    """
    x = np.asarray(x)
    if x.ndim != 2:
        raise Error(f"x has the shape {list(x.shape)}: it must be rows x columns")
    norms = np.empty(len(x), np.float32)
    CPU.row_norms(tensor(x), norms.ctypes.data, len(norms))
    return norms


class Selection(typing.NamedTuple):
    """Kept rows, ascending (uint32), with their scales 1/π (float64), of which `winners` are kept in every draw."""

    indices: NDArray[np.uint32]
    scales: NDArray[np.float64]
    winners: int


def select(
    weights: ArrayLike, rows: int, *, design: str = "wta-pivotal", seed: int, offset: int = 0, item: int = 0
) -> Selection:
    """A selection of `rows` rows by their weights (float32[number of rows], finite and not negative).

    `design` is "uniform", "crs", "top-k", "wta-iid", "wta-stratified" or "wta-pivotal". Equal weights, rows, design,
    seed and offset return the same selection on every machine. `item` is the item of a batch that shares one offset.

    Raises `Error` if a weight is negative or not finite, if `rows` is not an int from 1 to the number of weights, or if
    there is no such design.
    """
    weights = np.ascontiguousarray(weights, np.float32)
    if weights.ndim != 1:
        raise Error(f"weights has the shape {list(weights.shape)}: it must have one axis")
    if not isinstance(rows, numbers.Integral):
        raise Error(f"rows is {rows!r}, of type {type(rows).__name__}: it must be an int")
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
    known). Where all rows are packed, none is chosen, and `design` and `source` play no part. `dtype` is that of h and
    dz: "float32", "float64" or "float16".

    Raises `Error` if the budget does not fit the tokens, or if there is no such design, source, number of bits or
    dtype.
    """

    def __init__(
        self,
        tokens: int,
        in_features: int,
        out_features: int,
        *,
        budget: float | int,
        design: str = "wta-pivotal",
        source: str = "input",
        bits: int | str = 4,
        dtype: str = "float32",
    ) -> None:
        self.shape = tokens, in_features, out_features
        self.plan = LayerPlan(CPU, self.shape, budget=budget, design=design, source=source, bits=bits, dtype=dtype)

    @property
    def draws(self) -> int:
        """How far a forward pass advances the offset: the next pass begins at `offset + draws`."""
        return self.plan.draws

    def forward(self, h: ArrayLike, norms: ArrayLike | None = None, *, seed: int, offset: int = 0) -> Saved:
        """Chooses and saves rows of h (tokens x in_features). `norms`, for the sources "norms" and "cached", has the
        norm of each row of dz (float32[tokens]).

        Raises `Error` if a shape or dtype is not the layer's, if a row of h or a norm that is used is not finite, or if
        the source requires norms and there are none.
        """
        if norms is not None:
            norms = np.ascontiguousarray(norms, np.float32)
            if norms.shape != self.shape[:1]:
                raise Error(f"norms of shape {norms.shape} for {self.shape[0]} tokens")
        rows = aligned(self.plan.saved_bytes)
        guess = None if norms is None else norms.ctypes.data
        self.plan.forward(tensor(h), guess, None, seed, offset, rows.ctypes.data, None)
        return Saved(self, rows)


class Saved:
    """What a layer keeps for its backward pass: `nbytes` bytes."""

    def __init__(self, layer: Linear, rows: NDArray[np.uint8]) -> None:
        self.layer, self.rows = layer, rows

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes

    def backward(self, dz: ArrayLike) -> NDArray[np.floating]:
        """The estimate of dw = h.T @ dz (in_features x out_features) from dz (tokens x out_features): float32, or
        float64 for a layer of that dtype.

        Raises `Error` if the shape or dtype of dz is not the layer's.
        """
        plan, (_, in_features, out_features) = self.layer.plan, self.layer.shape
        dw, scratch = np.empty((in_features, out_features), plan.sums), aligned(plan.backward_scratch_bytes)
        plan.backward(self.rows.ctypes.data, tensor(dz), tensor(dw), None, None, scratch.ctypes.data)
        return dw


def tensor(matrix: ArrayLike) -> Tensor:
    # Read-only arrays have a capsule of version 1 alone.
    return Tensor(np.asarray(matrix).__dlpack__(max_version=(1, 0)))


def aligned(count: int) -> NDArray[np.uint8]:
    """Bytes at a multiple of 64."""
    block = np.empty(count + 64, np.uint8)
    return block[-block.ctypes.data % 64 :][:count]
