"""What goes from step to step, as arrays that the caller holds: keys of randomness, and a norm predictor's state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from .. import _native
from . import handlers
from .handlers import Kept


def key(seed: int, offset: int = 0) -> jax.Array:
    """A key, uint32[4], from two integers of up to 64 bits."""
    words = [int(number) >> shift & 0xFFFFFFFF for number in (seed, offset) for shift in (0, 32)]
    return jnp.array(words, jnp.uint32)


def advance(key: jax.Array, draws: int) -> jax.Array:
    """The key, uint32[4], whose offset lies `draws` further. `draws_of` returns how many a pass takes."""
    low = key[2] + jnp.uint32(draws & 0xFFFFFFFF)
    carry = (low < key[2]).astype(jnp.uint32)
    return jnp.stack([key[0], key[1], low, key[3] + jnp.uint32(draws >> 32) + carry])


def words_of(key: jax.Array) -> jax.Array:
    """The key's four words, uint32[4], also for a key of jax.random. Raises `TypeError` for anything else."""
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return jnp.concatenate([jax.random.bits(key, (2,), jnp.uint32), jnp.zeros(2, jnp.uint32)])
    if key.shape != (4,) or key.dtype != jnp.uint32:
        raise TypeError(f"the key is {key.dtype}{list(key.shape)}: it must be uint32[4] (wtacrs.jax.key) or a JAX key")
    return key


def predictor(
    in_features: int,
    *,
    features: int = 256,
    forgetting: float = 0.97,
    ridge: float = 0.1,
    clamp: float = 6.0,
    rows_per_update: int = 192,
    seed: int = 0,
) -> jax.Array:
    """The state of a norm predictor that knows nothing yet, uint8[...]: for one layer, or for layers that share h.

    It has `features` features, forgets a step's statistics by the factor `forgetting`, adds `ridge` of the mean
    diagonal to it, and keeps guesses of log norms within `clamp` of their mean. Raises `Error` for a setting that is 0
    or out of its range.
    """
    settings = _native.PredictorSettings(features, forgetting, ridge, clamp, rows_per_update, seed)
    made = _native.NormPredictor(handlers.CPU, in_features, settings)
    return jnp.asarray(np.frombuffer(made.save(), np.uint8))


def learn(state: jax.Array, kept: Kept, dz_norms: jax.Array, norms: jax.Array | None = None) -> jax.Array:
    """The predictor's next state, uint8[...], from a step: its kept rows, the norms that its backward pass returned,
    and those that its forward pass was given, from which the predictor learns how far to trust them. Both are float32,
    one for each row of h. A running program raises JAX's own error for bytes that are not a predictor's state."""
    cached = jnp.full(dz_norms.shape, -1, jnp.float32) if norms is None else norms
    return handlers.learn(state, kept, dz_norms.reshape(-1), cached.reshape(-1))
