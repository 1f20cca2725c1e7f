"""The three calls that XLA makes into handlers.cc: a forward pass, a backward pass, and a predictor's step."""

from __future__ import annotations

import dataclasses
import functools
import numbers

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from .. import _native
from .._native import DESIGNS, DTYPES, PACKINGS, SOURCES
from .build import compiled_handlers

CPU = _native.Context("cpu")


def _register() -> None:
    advice = f"`python -m wtacrs.jax.build` compiles it for JAX {jax.__version__}, with a C++ compiler."
    library = _native.open_library("WTACRS_JAX_LIBRARY", "wtacrs_jax", compiled_handlers(), advice)
    for name in ("wtacrs_jax_forward", "wtacrs_jax_backward", "wtacrs_jax_learn"):
        try:
            handler = getattr(library, name)
        except AttributeError:
            raise ImportError(
                f"{library._name} has no {name}: set WTACRS_JAX_LIBRARY to one that has. {advice}"
            ) from None
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform="cpu")


_register()


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is fixed while a program is traced. `budget` is a share of the tokens in (0, 1], or as an int a number of
    rows, at least two. `bits` is 8, 4, 2 or "native"."""

    budget: float | int = 0.3
    bits: int | str = 4
    design: str = "wta-pivotal"
    mix: float = 0.01

    def __post_init__(self) -> None:
        if self.design not in DESIGNS:
            raise ValueError(f"the design is {self.design!r}: it must be one of {', '.join(DESIGNS)}")
        if self.bits not in PACKINGS:
            raise ValueError(f"bits is {self.bits!r}: it must be one of {', '.join(map(repr, PACKINGS))}")
        if isinstance(self.budget, numbers.Integral) and self.budget < 1:
            raise ValueError(f"the budget is {self.budget} rows: at least one must be kept")
        if isinstance(self.budget, numbers.Integral) and self.budget == 1:
            raise ValueError("the budget is 1, which as an int is one row alone: for all rows write 1.0")

    def attributes(self, predicted: bool) -> dict[str, np.generic]:
        """As the handlers take them."""
        by_rows = isinstance(self.budget, numbers.Integral)
        return {
            "budget": np.float64(0.0 if by_rows else self.budget),
            "rows": np.int64(self.budget if by_rows else 0),
            "packing": np.int32(PACKINGS[self.bits]),
            "design": np.int32(DESIGNS[self.design]),
            "source": np.int32(SOURCES[source(predicted)]),
            "mix": np.float64(self.mix),
        }


def source(predicted: bool) -> str:
    return "predicted" if predicted else "cached"


def dtype_name(dtype: DTypeLike) -> str:
    name = jnp.dtype(dtype).name
    if name not in DTYPES:
        raise TypeError(f"h is of {name}: it must be one of {', '.join(DTYPES)}")
    return name


def plan(tokens: int, in_features: int, dtype: DTypeLike, settings: Settings, predicted: bool) -> _native.LayerPlan:
    """Its `saved_bytes` and `draws` are those of the handlers' plans, which do not depend on out_features."""
    return _native.LayerPlan(
        CPU,
        (tokens, in_features, 1),
        budget=settings.budget,
        bits=settings.bits,
        design=settings.design,
        source=source(predicted),
        dtype=dtype_name(dtype),
        mix=settings.mix,
    )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["bytes"],
    meta_fields=["settings", "tokens", "in_features", "dtype", "predicted"],
)
@dataclasses.dataclass(frozen=True)
class Kept:
    """The kept rows of a forward pass, their indices and scales, in libwtacrs's own layout: to hand on, never to
    store."""

    bytes: jax.Array
    settings: Settings
    tokens: int
    in_features: int
    dtype: str
    predicted: bool


def forward(h: jax.Array, norms: jax.Array, state: jax.Array, key: jax.Array, settings: Settings) -> jax.Array:
    """The bytes of the kept rows."""
    predicted = state.size > 0
    saved = plan(*h.shape, h.dtype, settings, predicted).saved_bytes
    return _call("wtacrs_jax_forward", jax.ShapeDtypeStruct((saved,), jnp.uint8))(
        h, norms, state, key, **settings.attributes(predicted)
    )


def backward(
    kept: jax.Array, dz: jax.Array, w_shape: tuple[int, int], h_dtype: DTypeLike, settings: Settings, predicted: bool
) -> tuple[jax.Array, jax.Array]:
    """dW, and the norms of the rows of dz."""
    sums = jnp.float64 if h_dtype == jnp.float64 else jnp.float32
    results = jax.ShapeDtypeStruct(w_shape, sums), jax.ShapeDtypeStruct(dz.shape[:1], jnp.float32)
    return _call("wtacrs_jax_backward", results)(
        kept, dz, h_dtype=np.int32(DTYPES[dtype_name(h_dtype)]), **settings.attributes(predicted)
    )


def learn(state: jax.Array, kept: Kept, dz_norms: jax.Array, cached: jax.Array) -> jax.Array:
    """The predictor's next state. Where all rows are packed, nothing is guessed, and so nothing is learned."""
    if plan(kept.tokens, kept.in_features, kept.dtype, kept.settings, kept.predicted).packs_all:
        return state
    return _call("wtacrs_jax_learn", jax.ShapeDtypeStruct(state.shape, jnp.uint8))(
        state,
        kept.bytes,
        dz_norms,
        cached,
        in_features=np.int64(kept.in_features),
        h_dtype=np.int32(DTYPES[kept.dtype]),
        **kept.settings.attributes(kept.predicted),
    )


def _call(name, results):
    return jax.ffi.ffi_call(name, results, vmap_method="sequential")
