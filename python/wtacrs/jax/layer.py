"""A linear layer with a `custom_vjp`: the product is exact, and its gradient by w is an estimate from kept rows."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from . import handlers
from .handlers import Kept, Settings
from .state import words_of


def draws_of(tokens: int, *, budget: float | int = 0.3, bits: int | str = 4, design: str = "wta-pivotal") -> int:
    """How far a pass over so many tokens advances the offset of a key. Raises as `linear` does."""
    return handlers.plan(tokens, 1, jnp.float32, Settings(budget, bits, design), False).draws


def saved_bytes(
    tokens: int,
    in_features: int,
    dtype: DTypeLike = jnp.float32,
    *,
    budget: float | int = 0.3,
    bits: int | str = 4,
    design: str = "wta-pivotal",
) -> int:
    """Bytes that a layer holds for its backward pass in the place of h (tokens x in_features). Raises as `linear`
    does."""
    return handlers.plan(tokens, in_features, dtype, Settings(budget, bits, design), False).saved_bytes


def linear(
    h: jax.Array,
    w: jax.Array,
    key: jax.Array,
    *,
    norms: jax.Array | None = None,
    predictor: jax.Array | None = None,
    budget: float | int = 0.3,
    bits: int | str = 4,
    design: str = "wta-pivotal",
    mix: float = 0.01,
) -> jax.Array:
    """h @ w, of [..., out_features], for h of [..., in_features] and w of [in_features, out_features], whose gradient
    by w is an estimate. Rows are chosen, and packed in `bits` bits an element (8, 4, 2, or "native" for exact copies),
    only where a gradient is asked for.

    `budget` is a share of the rows in (0, 1], or as an int a number of rows, at least two. `norms`, float32 in the
    shape of h without its last axis, has the norms of dz that are known, and -1 where one is not; `mix` is the share of
    the rows' own norms in the weights. `predictor` is the state of a norm predictor, uint8[...].

    Raises `TypeError` for shapes and dtypes that do not fit, `ValueError` for another design or number of bits and for
    a budget below two rows, and `Error` for a budget that does not fit the rows. A running program raises JAX's own
    error if a row is not finite.
    """
    arguments, settings = _arguments(h, w, key, norms, predictor, budget, bits, design, mix)
    return _linear(*arguments, settings).reshape(*h.shape[:-1], w.shape[1])


def linear_and_kept(
    h: jax.Array,
    w: jax.Array,
    key: jax.Array,
    *,
    norms: jax.Array | None = None,
    predictor: jax.Array | None = None,
    budget: float | int = 0.3,
    bits: int | str = 4,
    design: str = "wta-pivotal",
    mix: float = 0.01,
) -> tuple[jax.Array, Kept]:
    """`linear`, and the kept rows, for `learn`. They are the same array that the backward pass reads. Raises as
    `linear` does."""
    arguments, settings = _arguments(h, w, key, norms, predictor, budget, bits, design, mix)
    z, kept = _linear_and_kept(*arguments, settings)
    tokens = math.prod(h.shape[:-1])
    predicted = arguments[3].size > 0
    kept = Kept(kept, settings, tokens, h.shape[-1], jnp.dtype(h.dtype).name, predicted)
    return z.reshape(*h.shape[:-1], w.shape[1]), kept


def _arguments(h, w, key, norms, predictor, budget, bits, design, mix):
    if h.ndim < 2 or w.ndim != 2 or h.shape[-1] != w.shape[0]:
        raise TypeError(
            f"h is {list(h.shape)} and w {list(w.shape)}: [..., in_features] and [in_features, out_features]"
        )
    if norms is None:
        norms = jnp.full(h.shape[:-1], -1, jnp.float32)
    if norms.shape != h.shape[:-1] or norms.dtype != jnp.float32:
        raise TypeError(f"norms is {norms.dtype}{list(norms.shape)}: it must be float32{list(h.shape[:-1])}")
    state = jnp.zeros(0, jnp.uint8) if predictor is None else predictor
    settings, rows = Settings(budget, bits, design, mix), h.reshape(-1, h.shape[-1])
    # What does not fit is refused in inference, too.
    if handlers.plan(*rows.shape, h.dtype, settings, predictor is not None).packs_all:
        # None is chosen, so that nothing has to be guessed.
        state = jnp.zeros(0, jnp.uint8)
    return (rows, w, norms.reshape(-1), state, words_of(key)), settings


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _linear(h, w, norms, state, key, settings):
    return h @ w


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _linear_and_kept(h, w, norms, state, key, settings):
    return h @ w, handlers.forward(h, norms, state, key, settings)


def _linear_and_kept_forward(h, w, norms, state, key, settings):
    kept = handlers.forward(h, norms, state, key, settings)
    # Of h the type alone goes on: an array of no elements.
    return (h @ w, kept), (kept, w, state, jnp.zeros(0, h.dtype))


def _linear_forward(*arguments):
    (z, _), residuals = _linear_and_kept_forward(*arguments)
    return z, residuals


def _linear_backward(settings, residuals, dz):
    kept, w, state, h_like = residuals
    dw, norms = handlers.backward(kept, dz, w.shape, h_like.dtype, settings, state.size > 0)
    dh = (dz @ w.T).astype(h_like.dtype)
    # Integers have no gradient.
    none = [np.zeros(shape, jax.dtypes.float0) for shape in (state.shape, (4,))]
    return dh, dw.astype(w.dtype), norms, *none


_linear.defvjp(_linear_forward, _linear_backward)
_linear_and_kept.defvjp(
    _linear_and_kept_forward, lambda settings, residuals, gradients: _linear_backward(settings, residuals, gradients[0])
)
