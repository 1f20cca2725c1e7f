"""What goes from step to step, as arrays that the caller holds: keys of randomness, and a norm predictor's state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from .. import _native
from . import handlers


def key(seed, offset=0):
    """A key from two integers of up to 64 bits."""
    words = [int(number) >> shift & 0xFFFFFFFF for number in (seed, offset) for shift in (0, 32)]
    return jnp.array(words, jnp.uint32)


def advance(key, draws):
    """The key whose offset lies `draws` further. `draws_of` returns how many a pass takes."""
    low = key[2] + jnp.uint32(draws & 0xFFFFFFFF)
    carry = (low < key[2]).astype(jnp.uint32)
    return jnp.stack([key[0], key[1], low, key[3] + jnp.uint32(draws >> 32) + carry])


def words_of(key):
    """The key's four words, also for a key of jax.random."""
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return jnp.concatenate([jax.random.bits(key, (2,), jnp.uint32), jnp.zeros(2, jnp.uint32)])
    if key.shape != (4,) or key.dtype != jnp.uint32:
        raise TypeError(f"the key is {key.dtype}{list(key.shape)}: it must be uint32[4] (wtacrs.jax.key) or a JAX key")
    return key


def predictor(in_features, *, features=256, forgetting=0.97, ridge=0.1, clamp=6.0, rows_per_update=192, seed=0):
    """The state of a norm predictor that knows nothing yet, uint8[...]: for one layer, or for layers that share h."""
    settings = _native.PredictorSettings(features, forgetting, ridge, clamp, rows_per_update, seed)
    made = _native.NormPredictor(handlers.CPU, in_features, settings)
    return jnp.asarray(np.frombuffer(made.save(), np.uint8))


def learn(state, kept, dz_norms, norms=None):
    """The predictor's next state from a step: its kept rows, the norms that its backward pass returned, and those that
    its forward pass was given, from which the predictor learns how far to trust them."""
    cached = jnp.full(dz_norms.shape, -1, jnp.float32) if norms is None else norms
    return handlers.learn(state, kept, dz_norms.reshape(-1), cached.reshape(-1))
