"""Linear layers for JAX on the CPU that save only a sample of their input's rows, in few bits, for the backward pass.

    z = wtacrs.jax.linear(h, w, wtacrs.jax.key(seed), budget=0.3, bits=4)

`z` is exact, and so is the gradient by h. The gradient by w is an unbiased estimate from the kept rows alone: what JAX
holds for the backward pass is one array of uint8 in the place of h. Every function is a pure function of its arguments.

Kept rows are packed in `bits` bits an element, or are exact copies with bits="native". With budget=1.0 and packed rows
nothing is chosen, and what follows of norms and predictors is of no use.

Randomness is an explicit key, uint32[4]: (seed low, seed high, offset low, offset high). Two layers, or two steps, with
one key draw alike, so give each its own: `key(seed, offset)`, `advance`, or any key of jax.random.

What is known of the norms of dZ, the gradient by z, goes in as `norms`, in the shape of h without its last axis; -1
means "not known", which is the default. The new norms come back as the "gradient" by `norms`, as there is no other way
out of a backward pass:

    def loss(w, norms): ...
    dw, norms = jax.grad(loss, argnums=(0, 1))(w, norms)     # the next step's guess for the same samples

The state of a norm predictor is an array of bytes. `predictor` makes one, and `learn` returns the next:

    def loss(w, norms, state):
        z, kept = linear_and_kept(h, w, key, predictor=state, norms=norms)
        return ..., kept
    (dw, fresh), kept = jax.grad(loss, argnums=(0, 1), has_aux=True)(w, norms, state)
    state = learn(state, kept, fresh, norms)

It works under jit, vmap (one call after another), lax.scan, jax.checkpoint and shard_map; docs/jax.md says what each
means for the key. JAX refuses forward mode and gradients of gradients: an estimate has neither.

Importing this module loads the compiled handlers of handlers.cc: those that WTACRS_JAX_LIBRARY names, or else those
that `python -m wtacrs.jax.build` has compiled for the installed JAX.
"""

import sys

from .._extras import imports_of
from .._native import Error

with imports_of("jax"):
    import jax  # noqa: F401

# Python imports this package before the module that compiles what it loads.
if "wtacrs.jax.build" not in sys.orig_argv:
    from .handlers import Kept
    from .layer import draws_of, linear, linear_and_kept, saved_bytes
    from .state import advance, key, learn, predictor

__all__ = [
    "Error",
    "Kept",
    "advance",
    "draws_of",
    "key",
    "learn",
    "linear",
    "linear_and_kept",
    "predictor",
    "saved_bytes",
]
