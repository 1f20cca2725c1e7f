"""Linear layers for JAX on the CPU that keep a sample of their input's rows for the backward pass.

    wtacrs_jax.load("libwtacrs_jax.so")                       # once; built as docs/jax.md says
    z = wtacrs_jax.linear(h, w, wtacrs_jax.key(seed), budget=0.3)

`z` is exact and so is the gradient by h. The gradient by w is an unbiased estimate, from the kept rows alone: what JAX
holds for the backward pass is one array of uint8 in the place of h. Everything is a pure function of its arguments.

Randomness is an explicit key, uint32[4]: (seed low, seed high, offset low, offset high). Two layers, or two steps, with one
key draw alike, so give each its own: `key(seed, offset)`, `advance`, or any key of jax.random.

What is known of the norms of dZ, the gradient by z, goes in as `norms`, in the shape of h without its last axis; -1 says
"not known", which is the default. The new norms come back as the "gradient" by `norms`, as there is no other way
out of a backward pass:

    def loss(w, norms): ...
    dw, norms = jax.grad(loss, argnums=(0, 1))(w, norms)     # the next step's guess for the same samples

A norm predictor is state in an array of bytes; `predictor` makes one and `learn` gives the next:

    def loss(w, norms, state):
        z, kept = linear_and_kept(h, w, key, predictor=state, norms=norms)
        return ..., kept
    (dw, fresh), kept = jax.grad(loss, argnums=(0, 1), has_aux=True)(w, norms, state)
    state = learn(state, kept, fresh, norms)

Under jit, vmap (one call after another), lax.scan, jax.checkpoint and shard_map it works; docs/jax.md says what each means
for the key. Forward mode and gradients of gradients are refused by JAX: an estimate has neither.
"""

import ctypes
import dataclasses
import functools
import math
import numbers

import jax
import jax.numpy as jnp
import numpy as np

DESIGNS = ("uniform", "crs", "top_k", "wta_iid", "wta_stratified", "wta_pivotal")
DTYPES = {"float32": 0, "float16": 1, "bfloat16": 2, "float64": 3}
CACHED, PREDICTED = 2, 3

_library = None


class WtacrsError(ValueError):
    """A call that libwtacrs refused while a program was traced. Refusals in a running program are JAX's errors."""


def load(path):
    """Loads the handlers, and with them libwtacrs, and registers them with JAX; a second call does nothing."""
    global _library
    if _library is not None:
        return
    library = ctypes.CDLL(str(path))
    for name in ("wtacrs_jax_forward", "wtacrs_jax_backward", "wtacrs_jax_learn"):
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    size, number = ctypes.c_size_t, ctypes.c_int32
    library.wtacrs_jax_sizes.argtypes = [
        size, size, number, ctypes.c_double, ctypes.c_int64, number, number, ctypes.c_double,
        ctypes.POINTER(size), ctypes.POINTER(ctypes.c_uint64),
    ]
    library.wtacrs_norm_predictor_create_with.argtypes = [
        size, size, ctypes.c_double, ctypes.c_double, ctypes.c_double, size, ctypes.c_uint64, ctypes.POINTER(ctypes.c_void_p),
    ]
    library.wtacrs_norm_predictor_save.argtypes = [ctypes.c_void_p, ctypes.c_void_p, size, ctypes.POINTER(size)]
    library.wtacrs_norm_predictor_destroy.argtypes = [ctypes.c_void_p]
    library.wtacrs_last_error.argtypes = [ctypes.c_char_p, size, ctypes.POINTER(size)]
    _library = library


def _loaded():
    if _library is None:
        raise RuntimeError("call wtacrs_jax.load with the path of libwtacrs_jax.so first")
    return _library


def _check(status):
    if status != 0:
        words = ctypes.create_string_buffer(1024)
        _library.wtacrs_last_error(words, len(words), None)
        raise WtacrsError(words.value.decode(errors="replace"))


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is fixed while a program is traced. `budget` is a share of the tokens in (0, 1], or a number of rows (int), at
    least two."""

    budget: float | int = 0.3
    design: str = "wta_pivotal"
    mix: float = 0.01

    def __post_init__(self):
        if self.design not in DESIGNS:
            raise ValueError(f"the design is {self.design!r}: it must be one of {', '.join(DESIGNS)}")
        if isinstance(self.budget, numbers.Integral) and self.budget < 1:
            raise ValueError(f"the budget is {self.budget} rows: at least one must be kept")
        if isinstance(self.budget, numbers.Integral) and self.budget == 1:
            raise ValueError("the budget is 1, which as an int is one row alone: for all rows write 1.0")

    def attributes(self, predicted):
        rows = self.budget if isinstance(self.budget, numbers.Integral) else 0
        return {
            "budget": np.float64(0.0 if rows else self.budget),
            "rows": np.int64(rows),
            "design": np.int32(DESIGNS.index(self.design)),
            "source": np.int32(PREDICTED if predicted else CACHED),
            "mix": np.float64(self.mix),
        }

    def sizes(self, tokens, in_features, dtype, predicted):
        """Bytes of the kept rows, and how far a pass advances the offset."""
        saved, draws = ctypes.c_size_t(), ctypes.c_uint64()
        a = self.attributes(predicted)
        status = _loaded().wtacrs_jax_sizes(
            tokens, in_features, _dtype(dtype), a["budget"], a["rows"], a["design"], a["source"], a["mix"],
            ctypes.byref(saved), ctypes.byref(draws),
        )
        _check(status)
        return saved.value, draws.value


def _dtype(dtype):
    name = jnp.dtype(dtype).name
    if name not in DTYPES:
        raise TypeError(f"h is of {name}: it must be one of {', '.join(DTYPES)}")
    return np.int32(DTYPES[name])


@functools.partial(jax.tree_util.register_dataclass, data_fields=["bytes"],
                   meta_fields=["settings", "tokens", "in_features", "dtype", "predicted"])
@dataclasses.dataclass(frozen=True)
class Kept:
    """The kept rows of a forward pass, their indices and scales, in libwtacrs's own layout: to hand on, never to store."""

    bytes: jax.Array
    settings: Settings
    tokens: int
    in_features: int
    dtype: str
    predicted: bool


def key(seed, offset=0):
    """A key from two integers of up to 64 bits."""
    words = [int(number) >> shift & 0xFFFFFFFF for number in (seed, offset) for shift in (0, 32)]
    return jnp.array(words, jnp.uint32)


def advance(key, draws):
    """The key whose offset lies `draws` further (`draws_of` tells how many a pass takes)."""
    low = key[2] + jnp.uint32(draws & 0xFFFFFFFF)
    carry = (low < key[2]).astype(jnp.uint32)
    return jnp.stack([key[0], key[1], low, key[3] + jnp.uint32(draws >> 32) + carry])


def _words(key):
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return jnp.concatenate([jax.random.bits(key, (2,), jnp.uint32), jnp.zeros(2, jnp.uint32)])
    if key.shape != (4,) or key.dtype != jnp.uint32:
        raise TypeError(f"the key is {key.dtype}{list(key.shape)}: it must be uint32[4] (wtacrs_jax.key) or a JAX key")
    return key


def draws_of(tokens, *, budget=0.3, design="wta_pivotal"):
    """How far a pass over so many tokens advances the offset."""
    return Settings(budget, design).sizes(tokens, 1, jnp.float32, False)[1]


def saved_bytes(tokens, in_features, dtype=jnp.float32, *, budget=0.3, design="wta_pivotal"):
    """Bytes that a layer holds for its backward pass in the place of h."""
    return Settings(budget, design).sizes(tokens, in_features, dtype, False)[0]


def linear(h, w, key, *, norms=None, predictor=None, budget=0.3, design="wta_pivotal", mix=0.01):
    """h @ w for h of [..., in_features] and w of [in_features, out_features], whose gradient by w is an estimate. Rows are
    chosen only where a gradient is asked for."""
    arguments, settings = _arguments(h, w, key, norms, predictor, budget, design, mix)
    return _linear(*arguments, settings).reshape(*h.shape[:-1], w.shape[1])


def linear_and_kept(h, w, key, *, norms=None, predictor=None, budget=0.3, design="wta_pivotal", mix=0.01):
    """`linear`, and the kept rows, for `learn`. They are the same array that the backward pass reads."""
    arguments, settings = _arguments(h, w, key, norms, predictor, budget, design, mix)
    z, kept = _linear_and_kept(*arguments, settings)
    tokens = math.prod(h.shape[:-1])
    kept = Kept(kept, settings, tokens, h.shape[-1], jnp.dtype(h.dtype).name, predictor is not None)
    return z.reshape(*h.shape[:-1], w.shape[1]), kept


def _arguments(h, w, key, norms, predictor, budget, design, mix):
    _loaded()
    if h.ndim < 2 or w.ndim != 2 or h.shape[-1] != w.shape[0]:
        raise TypeError(f"h is {list(h.shape)} and w {list(w.shape)}: [..., in_features] and [in_features, out_features]")
    if norms is None:
        norms = jnp.full(h.shape[:-1], -1, jnp.float32)
    if norms.shape != h.shape[:-1] or norms.dtype != jnp.float32:
        raise TypeError(f"norms is {norms.dtype}{list(norms.shape)}: it must be float32{list(h.shape[:-1])}")
    state = jnp.zeros(0, jnp.uint8) if predictor is None else predictor
    settings, rows = Settings(budget, design, mix), h.reshape(-1, h.shape[-1])
    # What does not fit is refused in inference, too.
    settings.sizes(*rows.shape, h.dtype, predictor is not None)
    return (rows, w, norms.reshape(-1), state, _words(key)), settings


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _linear(h, w, norms, state, key, settings):
    return h @ w


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _linear_and_kept(h, w, norms, state, key, settings):
    return h @ w, _forward(h, norms, state, key, settings)


def _forward(h, norms, state, key, settings):
    predicted = state.size > 0
    saved, _ = settings.sizes(*h.shape, h.dtype, predicted)
    call = jax.ffi.ffi_call("wtacrs_jax_forward", jax.ShapeDtypeStruct((saved,), jnp.uint8), vmap_method="sequential")
    return call(h, norms, state, key, **settings.attributes(predicted))


def _linear_and_kept_forward(h, w, norms, state, key, settings):
    kept = _forward(h, norms, state, key, settings)
    # Of h the type alone goes on: an array of no elements.
    return (h @ w, kept), (kept, w, state, jnp.zeros(0, h.dtype))


def _linear_forward(*arguments):
    (z, _), residuals = _linear_and_kept_forward(*arguments)
    return z, residuals


def _linear_backward(settings, residuals, dz):
    kept, w, state, h_like = residuals
    accumulator = jnp.float64 if h_like.dtype == jnp.float64 else jnp.float32
    results = (jax.ShapeDtypeStruct(w.shape, accumulator), jax.ShapeDtypeStruct(dz.shape[:1], jnp.float32))
    call = jax.ffi.ffi_call("wtacrs_jax_backward", results, vmap_method="sequential")
    dw, norms = call(kept, dz, h_dtype=_dtype(h_like.dtype), **settings.attributes(state.size > 0))
    dh = (dz @ w.T).astype(h_like.dtype)
    # Integers have no gradient.
    none = [np.zeros(shape, jax.dtypes.float0) for shape in (state.shape, (4,))]
    return dh, dw.astype(w.dtype), norms, *none


_linear.defvjp(_linear_forward, _linear_backward)
_linear_and_kept.defvjp(
    _linear_and_kept_forward, lambda settings, residuals, gradients: _linear_backward(settings, residuals, gradients[0])
)


def predictor(in_features, *, features=256, forgetting=0.97, ridge=0.1, clamp=6.0, rows_per_update=192, seed=0):
    """The state of a norm predictor that knows nothing yet, uint8[...]: for one layer, or for layers that share h."""
    library, handle, needed = _loaded(), ctypes.c_void_p(), ctypes.c_size_t()
    status = library.wtacrs_norm_predictor_create_with(
        in_features, features, forgetting, ridge, clamp, rows_per_update, seed, ctypes.byref(handle)
    )
    _check(status)
    try:
        _check(library.wtacrs_norm_predictor_save(handle, None, 0, ctypes.byref(needed)))
        state = np.empty(needed.value, np.uint8)
        _check(library.wtacrs_norm_predictor_save(handle, state.ctypes.data, state.size, ctypes.byref(needed)))
    finally:
        library.wtacrs_norm_predictor_destroy(handle)
    return jnp.asarray(state)


def learn(state, kept, dz_norms, norms=None):
    """The predictor's next state from a step: its kept rows, the norms that its backward pass gave, and those that its
    forward pass was given, so that it learns how far to trust them."""
    cached = jnp.full(dz_norms.shape, -1, jnp.float32) if norms is None else norms
    call = jax.ffi.ffi_call("wtacrs_jax_learn", jax.ShapeDtypeStruct(state.shape, jnp.uint8), vmap_method="sequential")
    return call(
        state, kept.bytes, dz_norms.reshape(-1), cached.reshape(-1), in_features=np.int64(kept.in_features),
        h_dtype=_dtype(kept.dtype), **kept.settings.attributes(kept.predicted),
    )
