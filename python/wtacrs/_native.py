"""libwtacrs by ctypes: the one module of this package that knows the C interface.

Importing it loads the library that WTACRS_LIBRARY names, or else the one in this package's folder, or else the one that
the loader finds, and looks up every function of the table below. Where one of these steps fails, the import does.

The classes stand for the library's objects. They take matrices as `Tensor`s and all other memory as addresses: integers
such as torch's `data_ptr()` and NumPy's `ctypes.data`, or None for NULL. Memory lies on the context's device. `stream`
is the address of a CUDA stream, which the CPU ignores. A refused call raises `Error`.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import numbers
import os
import pathlib
import threading
import types
import typing
import weakref
from ctypes import byref, c_char_p, c_double, c_int32, c_size_t, c_uint32, c_uint64, c_void_p

from . import __version__

ABI_VERSION = 0

# Where an installed package has the library.
PACKAGED = pathlib.Path(__file__).parent / "lib" / "libwtacrs.so"

# Of memory, a handle or a stream; None is NULL.
Address: typing.TypeAlias = int | None

# The enumerations of the interface, complete, by the names that this package uses.
DEVICES = {"cpu": 0, "cuda": 1}
DTYPES = {"float32": 0, "float16": 1, "bfloat16": 2, "float64": 3}
DESIGNS = {"uniform": 0, "crs": 1, "top-k": 2, "wta-iid": 3, "wta-stratified": 4, "wta-pivotal": 5}
SOURCES = {"input": 0, "norms": 1, "cached": 2, "predicted": 3}
BUDGETS = {"rows": 0, "fraction": 1, "exact": 2}
PRECISIONS = {"f32": 0, "tf32": 1, "wide": 2}
ENGINES = {"auto": 0, "own": 1, "cublaslt": 2}
AXES = {"rows": 0, "columns": 1}
SIDES = {"left": 0, "right": 1}
# By bits an element, where rows are packed.
PACKINGS = {"native": 0, 8: 1, 4: 2, 2: 3}
TARGETS = {"memory": 0, "noise": 1}
OPERATIONS = {
    "identity": 0,
    "relu": 1,
    "gelu": 2,
    "gelu-tanh": 3,
    "silu": 4,
    "softmax": 5,
    "layer-norm": 6,
    "rms-norm": 7,
}

# Arguments of the functions that are refused with a status. `address` stands for handles, memory, tensors, structs,
# streams and outputs, `number` for members of enumerations.
address, number = c_void_p, c_int32
FUNCTIONS = {
    "context_create": [number, number, address, address],
    "context_destroy": [address],
    "context_norms_dl": [address, number, address, address, c_size_t, address],
    "layer_create": [address],
    "layer_destroy": [address],
    "layer_set_shape": [address, c_size_t, c_size_t, c_size_t],
    "layer_set_dtypes": [address, number, number, number],
    "layer_set_budget": [address, number, c_double],
    "layer_set_design": [address, number],
    "layer_set_source": [address, number, c_double],
    "layer_set_precision": [address, number],
    "layer_set_engine": [address, number],
    "layer_set_packing": [address, number],
    "layer_set_further_offset": [address, address],
    "plan_create": [address, address, address],
    "plan_destroy": [address],
    "plan_get_info": [address, address],
    "plan_select": [address, address, address, c_uint64, c_uint64, c_uint32, address, address, c_size_t, address],
    "plan_forward_dl": [address, address, c_uint64, c_uint64, address, address, c_size_t, address, c_size_t, address],
    "plan_backward_dl": [address, address, c_size_t, address, address, address, address, c_size_t, address],
    "tensor_mul_create": [address],
    "tensor_mul_destroy": [address],
    "tensor_mul_set_shape": [address, c_size_t, c_size_t, c_size_t, c_size_t, c_size_t],
    "tensor_mul_set_budget": [address, number, number, c_double],
    "tensor_mul_set_packing": [address, number],
    "tensor_mul_set_precision": [address, number],
    "tensor_mul_set_engine": [address, number],
    "tensor_mul_set_further_offset": [address, address],
    "tensor_mul_plan_create": [address, address, address],
    "tensor_mul_plan_destroy": [address],
    "tensor_mul_plan_get_info": [address, address],
    "tensor_mul_plan_forward_dl": [
        address, address, address, c_uint64, c_uint64, address, address, c_size_t, address, c_size_t, address,
    ],
    "tensor_mul_plan_backward": [
        address, address, c_size_t, address, address, address, address, address, c_size_t, address,
    ],
    "operator_create": [address],
    "operator_destroy": [address],
    "operator_set_operation": [address, number, c_int32],
    "operator_set_shape": [address, c_size_t, c_size_t],
    "operator_set_dtype": [address, number],
    "operator_set_packing": [address, number],
    "operator_set_dropout": [address, c_double],
    "operator_set_epsilon": [address, c_double],
    "operator_set_further_offset": [address, address],
    "operator_plan_create": [address, address, address],
    "operator_plan_destroy": [address],
    "operator_plan_get_info": [address, address],
    "operator_plan_forward": [address, address, c_uint64, c_uint64, address, c_size_t, address],
    "operator_plan_backward": [address, address, address, c_size_t, address, c_size_t, address],
    "operator_plan_restore": [address, address, c_size_t, address, address],
    "norm_predictor_create": [address, c_size_t, address, address],
    "norm_predictor_load": [address, address, c_size_t, address],
    "norm_predictor_save": [address, address, c_size_t, address],
    "norm_predictor_destroy": [address],
    "norm_predictor_update": [address, address, address, c_size_t, address, address, address],
    "norm_predictor_statistics_count": [address, address],
    "norm_predictor_statistics": [address, address, address, c_size_t, address, address, address, c_size_t, address],
    "norm_predictor_apply": [address, address, c_size_t, address],
    "planner_create": [address],
    "planner_destroy": [address],
    "planner_add_layer": [address, c_size_t, number, address],
    "planner_share_input": [address, c_size_t, c_size_t],
    "planner_observe": [address, c_size_t, address],
    "planner_observe_rows": [address, c_size_t, number, c_size_t, address, c_size_t],
    "planner_statistics_count": [address, address],
    "planner_statistics": [address, address, c_size_t],
    "planner_load": [address, c_size_t, address],
    "planner_save": [address, address, c_size_t, address],
    "planner_apply": [address, address, c_size_t],
    "planner_solve": [address, number, c_double],
    "planner_get_budget": [address, c_size_t, address],
    "norm_cache_create": [address, c_size_t, c_size_t, address],
    "norm_cache_load": [address, c_size_t, c_size_t, address, c_size_t, address],
    "norm_cache_save": [address, address, c_size_t, address],
    "norm_cache_destroy": [address],
    "norm_cache_fetch": [address, address, address, c_size_t, c_size_t, address, c_size_t, address],
    "norm_cache_store": [address, address, address, c_size_t, c_size_t, address, c_size_t, address],
    "norm_cache_outcome": [address, address, address],
}  # fmt: skip


class _Struct(ctypes.Structure):
    """A struct of the interface. Its first field is its size, which is set here."""

    def __init__(self, *values):
        super().__init__(ctypes.sizeof(self), *values)
        self._as_parameter_ = ctypes.addressof(self)


class _ContextOptions(_Struct):
    _fields_ = [("size", c_size_t), ("threads", c_size_t)]


class _ErrorInfo(_Struct):
    _fields_ = [
        ("size", c_size_t),
        ("status", c_int32),
        ("index", c_size_t),
        ("text_bytes", c_size_t),
    ]


class _PlanInfo(_Struct):
    _fields_ = [
        ("size", c_size_t),
        ("budget_rows", c_size_t),
        ("draws", c_uint64),
        ("alignment", c_size_t),
        ("saved_bytes", c_size_t),
        ("exact_bytes", c_size_t),
        ("forward_scratch_bytes", c_size_t),
        ("backward_scratch_bytes", c_size_t),
        ("estimate_scratch_bytes", c_size_t),
        ("weight_gradient_scratch_bytes", c_size_t),
        ("saved_status_offset", c_size_t),
        ("saved_status_words", c_size_t),
        ("engine", c_int32),
        ("reserved", c_int32),
    ]


class _ForwardOptions(_Struct):
    _fields_ = [("size", c_size_t), ("guess", address), ("predictor", address), ("weights", address)]


class _BackwardOptions(_Struct):
    _fields_ = [("size", c_size_t), ("accumulate", c_int32), ("dz_norms", address), ("bias_gradient", address)]


class _Selection(_Struct):
    _fields_ = [
        ("size", c_size_t),
        ("indices", address),
        ("scales", address),
        ("capacity", c_size_t),
        ("kept", address),
        ("winners", address),
    ]


class _TensorMulPlanInfo(_Struct):
    _fields_ = [
        ("size", c_size_t),
        ("draws", c_uint64),
        ("alignment", c_size_t),
        ("saved_bytes", c_size_t),
        ("exact_bytes", c_size_t),
        ("forward_scratch_bytes", c_size_t),
        ("backward_scratch_bytes", c_size_t),
        ("left_status_offset", c_size_t),
        ("right_status_offset", c_size_t),
        ("left_status_words", c_size_t),
        ("right_status_words", c_size_t),
        ("left_engine", c_int32),
        ("right_engine", c_int32),
    ]


class _OperatorPlanInfo(_Struct):
    _fields_ = [
        ("size", c_size_t),
        ("draws", c_uint64),
        ("alignment", c_size_t),
        ("saved_bytes", c_size_t),
        ("backward_scratch_bytes", c_size_t),
        ("keeps_input", c_int32),
        ("keeps_gate", c_int32),
        ("keeps_output", c_int32),
        ("restores", c_int32),
    ]


class _OperatorForward(_Struct):
    _fields_ = [
        ("size", c_size_t),
        ("x", address),
        ("gate", address),
        ("weight", address),
        ("bias", address),
        ("y", address),
    ]


class _OperatorBackward(_Struct):
    _fields_ = [
        ("size", c_size_t),
        ("x", address),
        ("gate", address),
        ("y", address),
        ("weight", address),
        ("dy", address),
        ("dx", address),
        ("dgate", address),
        ("dweight", address),
        ("dbias", address),
    ]


class _NormPredictorOptions(_Struct):
    _fields_ = [
        ("size", c_size_t),
        ("features", c_size_t),
        ("forgetting", c_double),
        ("ridge", c_double),
        ("clamp", c_double),
        ("rows_per_update", c_size_t),
        ("seed", c_uint64),
    ]


class _Observation(_Struct):
    _fields_ = [
        ("size", c_size_t),
        ("tokens", c_size_t),
        ("weights", address),
        ("input_norms", address),
        ("dz_norms", address),
        ("budget_rows", c_size_t),
        ("packing", number),
        ("squared_norm", c_double),
        ("squared_change", c_double),
    ]


class _Planned(_Struct):
    _fields_ = [
        ("size", c_size_t),
        ("share", c_double),
        ("tokens", c_size_t),
        ("squared_error", c_double),
        ("packing", number),
        ("is_planned", c_int32),
    ]


class _PassOptions(threading.local):
    """Structs that a pass fills in place, which is cheaper than new ones. Threads share plans, but not these."""

    def __init__(self):
        self.forward, self.backward = _ForwardOptions(), _BackwardOptions()
        self.operator_forward, self.operator_backward = _OperatorForward(), _OperatorBackward()


# A row of H, or a norm, that is negative or not finite; a budget that does not fit.
INVALID_WEIGHTS, INVALID_BUDGET = 10, 11


class Error(Exception):
    """What libwtacrs or this package refuses, with the offending argument and value. `status` is the library's, or None
    where this package refuses."""

    def __init__(self, text: str, status: int | None = None):
        super().__init__(text)
        self.status = status

    def __reduce__(self):
        return type(self), (str(self), self.status)

    def within(self, place: str) -> Error:
        """The same, with the place in front: a layer's name."""
        return type(self)(f"{place}: {self}", self.status)


def look_up(table: dict, name: int | str, what: str) -> int:
    """The member of an enumeration that has the name. Raises `Error` with all names if there is none."""
    if name not in table:
        raise Error(f"no {what} {name!r}; there are {', '.join(map(str, table))}")
    return table[name]


def open_library(variable: str, name: str, packaged: pathlib.Path, advice: str) -> ctypes.CDLL:
    """The library whose path the environment variable contains, or else the one at `packaged`, or else the one that the
    loader finds by its name. An `ImportError` names the variable and ends with the advice."""
    if not (path := os.environ.get(variable)):
        path = str(packaged) if packaged.exists() else ctypes.util.find_library(name)
    if path is None:
        raise ImportError(
            f"there is no {packaged}, and lib{name} is not where the loader looks: set {variable} to its path. {advice}"
        )
    try:
        return ctypes.CDLL(path)
    except OSError as error:
        raise ImportError(f"lib{name} cannot be loaded: {error}. Set {variable} to its path. {advice}") from error


def _open() -> tuple[str, types.SimpleNamespace]:
    """The library's path, and its functions by their names without the prefix."""
    library = open_library(
        "WTACRS_LIBRARY", "wtacrs", PACKAGED, "`pip install ./python` in a clone of wtacrs builds and installs it."
    )

    def function(name, arguments=(), result=c_int32):
        try:
            found = getattr(library, "wtacrs_" + name)
        except AttributeError:
            raise ImportError(
                f"{library._name} has no wtacrs_{name}: set WTACRS_LIBRARY to a libwtacrs that has"
            ) from None
        found.argtypes, found.restype = list(arguments), result
        return found

    abi = function("abi_version")()
    if abi != ABI_VERSION:
        raise ImportError(
            f"{library._name} has ABI version {abi}: set WTACRS_LIBRARY to a libwtacrs of ABI version {ABI_VERSION}"
        )
    functions = {name: function(name, arguments) for name, arguments in FUNCTIONS.items()}
    for found in functions.values():
        found.errcheck = _raise_refusal
    functions["last_error"] = function("last_error", [address, c_size_t, address])
    functions["status_string"] = function("status_string", [number], c_char_p)
    functions["version"] = function("version", [], c_char_p)
    version = functions["version"]().decode()
    if library._name == str(PACKAGED) and version != __version__:
        raise ImportError(
            f"{library._name} has version {version}, and this package {__version__}: install the package again, or "
            "set WTACRS_LIBRARY to a libwtacrs that fits"
        )
    return library._name, types.SimpleNamespace(**functions)


def _raise_refusal(status, function, arguments):
    if status != 0:
        info = _ErrorInfo()
        _c.last_error(None, 0, info)
        words = ctypes.create_string_buffer(info.text_bytes)
        _c.last_error(words, info.text_bytes, None)
        raise Error(f"{_c.status_string(status).decode()}: {words.value.decode()}", status)


LIBRARY, _c = _open()
_options = _PassOptions()


def version() -> str:
    """The library's version, such as "0.1.0"."""
    return _c.version().decode()


# Functions of this package's own, whose types nobody else sets.
_name_of_capsule = ctypes.PYFUNCTYPE(c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
_pointer_in_capsule = ctypes.PYFUNCTYPE(c_void_p, ctypes.py_object, c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class Tensor:
    """The DLTensor in a matrix's DLPack capsule, with a version or without, for as long as this object lives.
    `read_only` says whether its owner allows no writes; a capsule without a version cannot forbid them."""

    # Where a capsule's struct has its DLTensor: DLManagedTensor begins with it; in DLManagedTensorVersioned a version,
    # a context, a deleter and flags come first.
    _PLACES = {b"dltensor": 0, b"dltensor_versioned": 32}
    _FLAGS, _READ_ONLY = 24, 1

    def __init__(self, capsule):
        name = _name_of_capsule(capsule)
        if name not in self._PLACES:
            raise Error(f"a capsule named {name}: an unused one is named dltensor or dltensor_versioned")
        # The capsule is never renamed to "used_...", so that it releases the tensor itself.
        self._capsule = capsule
        managed = _pointer_in_capsule(capsule, name)
        self.read_only = False
        if name == b"dltensor_versioned":
            if (major := c_uint32.from_address(managed).value) != 1:
                raise Error(
                    f"a tensor of DLPack version {major}: this package reads version 1, and tensors without a version"
                )
            self.read_only = bool(c_uint64.from_address(managed + self._FLAGS).value & self._READ_ONLY)
        self._as_parameter_ = managed + self._PLACES[name]

    def as_output(self, argument: str) -> Tensor:
        """Itself, for a call that writes it. Raises `Error`, with the argument's name, where it is read-only."""
        if self.read_only:
            raise Error(f"{argument} is read-only, and would be written")
        return self


class _Object:
    """An object of the library, which is destroyed when nothing refers to it any more."""

    kind: str

    def __init__(self, maker, *arguments):
        handle = c_void_p()
        getattr(_c, f"{self.kind}_{maker}")(*arguments, byref(handle))
        self._as_parameter_ = handle.value
        weakref.finalize(self, getattr(_c, self.kind + "_destroy"), handle.value)


class Context(_Object):
    """A device. `ordinal` is a GPU's number, or -1 for the thread's current CUDA context. On the CPU `threads` compute:
    by default as many as there are cores, or as RAYON_NUM_THREADS says; with 1 the calling thread alone."""

    kind = "context"

    def __init__(self, device: str = "cpu", ordinal: int = 0, threads: int = 0) -> None:
        """Raises `Error` if the machine has no such GPU."""
        super().__init__("create", DEVICES[device], ordinal, _ContextOptions(threads))

    def row_norms(self, x: Tensor, norms: Address, count: int, stream: Address = None) -> None:
        """Writes the Euclidean norms of the rows of x (count x columns), `count` floats."""
        _c.context_norms_dl(self, AXES["rows"], x, norms, count, stream)


class _Layer(_Object):
    """A layer's description, from which a plan is made."""

    kind = "layer"

    def __init__(self):
        super().__init__("create")


class LayerPlan(_Object):
    """How a linear layer of one shape (tokens, in_features, out_features) keeps its sample, and what memory that takes.

    `budget` is a share of the tokens in (0, 1], or as an int a number of rows. `bits` is "native", or packs kept rows
    in 8, 4 or 2 bits an element. A plan that packs all tokens (`packs_all`) chooses none of them: it needs neither
    norms nor guesses. `dtype` is that of H, and of dZ unless `dz_dtype` is given; dW and the bias's gradient have the
    dtype `sums`. Saved and scratch memory is aligned to 64 bytes, on CUDA to 256. A forward pass that begins at an
    offset leaves offset + `draws` to the next. `further_offset` is a number (uint64) on the device, which passes add to
    their offset when they run, as for a CUDA graph. `engine` is the program that multiplies on a GPU: "own" for this
    library's kernels, "cublaslt", or "auto" for cuBLASLt where it is expected to be faster. `multiplies_by` is the one
    of the plan.
    """

    kind = "plan"

    def __init__(
        self,
        context: Context,
        shape: tuple[int, int, int],
        *,
        budget: float | int,
        design: str,
        source: str,
        bits: int | str = "native",
        dtype: str = "float32",
        dz_dtype: str | None = None,
        precision: str = "f32",
        engine: str = "auto",
        mix: float = 0.01,
        further_offset: Address = None,
    ) -> None:
        """Raises `Error` if the budget does not fit the tokens, or if there is no such design, source, number of bits,
        dtype, precision or engine, or if cuBLASLt is asked for and missing."""
        self.sums = "float64" if dtype == "float64" else "float32"
        layer = _Layer()
        _c.layer_set_shape(layer, *shape)
        dtypes = [look_up(DTYPES, name, "matrix dtype") for name in (dtype, dz_dtype or dtype, self.sums)]
        _c.layer_set_dtypes(layer, *dtypes)
        if isinstance(budget, bool) or not isinstance(budget, numbers.Real):
            raise Error(
                f"budget is {budget!r}, of type {type(budget).__name__}: it must be a share of the rows, or as an int "
                "a number of rows"
            )
        by_rows = isinstance(budget, numbers.Integral)
        _c.layer_set_budget(layer, BUDGETS["rows" if by_rows else "fraction"], budget)
        _c.layer_set_design(layer, look_up(DESIGNS, design, "design"))
        _c.layer_set_source(layer, look_up(SOURCES, source, "source"), mix)
        _c.layer_set_precision(layer, look_up(PRECISIONS, precision, "precision"))
        _c.layer_set_engine(layer, look_up(ENGINES, engine, "engine"))
        _c.layer_set_packing(layer, look_up(PACKINGS, bits, "number of bits"))
        _c.layer_set_further_offset(layer, further_offset)
        super().__init__("create", context, layer)
        info = _PlanInfo()
        _c.plan_get_info(self, info)
        self.saved_bytes, self.exact_bytes, self.draws = info.saved_bytes, info.exact_bytes, info.draws
        self.budget_rows, self.packs_all = info.budget_rows, bits != "native" and info.budget_rows == shape[0]
        self.forward_scratch_bytes = info.forward_scratch_bytes
        self.backward_scratch_bytes = info.backward_scratch_bytes
        self.multiplies_by = next(name for name, number in ENGINES.items() if number == info.engine)
        # Of the 32-bit words in saved memory on CUDA that are not 0 where H was refused.
        self.status = slice(info.saved_status_offset, info.saved_status_offset + 4 * info.saved_status_words)

    def select(
        self,
        input_norms: Address,
        guess: Address,
        seed: int,
        offset: int,
        item: int,
        indices: Address,
        scales: Address,
        capacity: int,
        scratch: Address = None,
        stream: Address = None,
    ) -> tuple[int, int]:
        """Chooses rows from norms on the host (tokens floats), and writes their indices (uint32) and scales (float64),
        at most `capacity`. Returns the numbers of kept rows and of winners among them."""
        kept, winners = c_uint64(), c_uint64()
        counts = ctypes.addressof(kept), ctypes.addressof(winners)
        selection = _Selection(indices, scales, capacity, *counts)
        _c.plan_select(
            self, input_norms, guess, seed, offset, item, selection, scratch, self.forward_scratch_bytes, stream
        )
        return kept.value, winners.value

    def forward(
        self,
        h: Tensor,
        guess: Address,
        predictor: NormPredictor | None,
        seed: int,
        offset: int,
        saved: Address,
        scratch: Address,
        stream: Address = None,
        weights: Address = None,
    ) -> None:
        """Chooses rows of h (tokens x in_features) and writes them to `saved`. `guess` holds a norm of dZ for each
        token, negative where it is not known; `predictor` is for the source "predicted". `weights` receives what the
        rows are chosen by (tokens float64)."""
        options = _options.forward
        options.guess, options.weights = guess, weights
        options.predictor = None if predictor is None else predictor._as_parameter_
        _c.plan_forward_dl(
            self, h, seed, offset, options, saved, self.saved_bytes, scratch, self.forward_scratch_bytes, stream
        )

    def backward(
        self,
        saved: Address,
        dz: Tensor,
        dw: Tensor,
        dz_norms: Address,
        bias_gradient: Address,
        scratch: Address,
        stream: Address = None,
    ) -> None:
        """Writes dW (in_features x out_features) from dZ (tokens x out_features), and where they are asked for the
        norms of dZ's rows (tokens floats) and the bias's gradient (out_features). A read-only dW is refused."""
        options = _options.backward
        options.dz_norms, options.bias_gradient = dz_norms, bias_gradient
        _c.plan_backward_dl(
            self, saved, self.saved_bytes, dz, dw.as_output("dw"), options, scratch, self.backward_scratch_bytes, stream
        )


class _Operator(_Object):
    """An operator's description, from which a plan is made."""

    kind = "operator"

    def __init__(self):
        super().__init__("create")


class OperatorPlan(_Object):
    """What stands between a model's products, for arrays of one shape (rows, columns): an activation function, which
    may be `gated`, softmax, a norm or the identity, then dropout.

    `packing` is "native", or packs what is saved in 8, 4 or 2 bits an element; wtacrs.h has a table of what is saved.
    The caller keeps x, the gate and y until the backward pass where `keeps_input`, `keeps_gate` and `keeps_output` are
    true. Arrays are dense, of `dtype`; weight, bias and their gradients are float32. Saved memory, which may have 0
    bytes, and scratch memory are aligned to 64 bytes, on CUDA to 256. A forward pass that begins at an offset leaves
    offset + `draws` to the next.
    """

    kind = "operator_plan"

    def __init__(
        self,
        context: Context,
        shape: tuple[int, int],
        *,
        operation: str,
        gated: bool = False,
        packing: int | str = "native",
        dropout: float = 0.0,
        epsilon: float = 1e-5,
        further_offset: Address = None,
        dtype: str = "float32",
    ) -> None:
        """Raises `Error` if there is no such operation, packing or dtype, or if dropout or epsilon is out of its
        range."""
        operator = _Operator()
        _c.operator_set_operation(operator, look_up(OPERATIONS, operation, "operation"), gated)
        _c.operator_set_shape(operator, *shape)
        _c.operator_set_dtype(operator, look_up(DTYPES, dtype, "matrix dtype"))
        _c.operator_set_packing(operator, look_up(PACKINGS, packing, "number of bits"))
        _c.operator_set_dropout(operator, dropout)
        _c.operator_set_epsilon(operator, epsilon)
        _c.operator_set_further_offset(operator, further_offset)
        super().__init__("create", context, operator)
        info = _OperatorPlanInfo()
        _c.operator_plan_get_info(self, info)
        self.saved_bytes, self.draws = info.saved_bytes, info.draws
        self.backward_scratch_bytes = info.backward_scratch_bytes
        self.keeps_input, self.keeps_gate = bool(info.keeps_input), bool(info.keeps_gate)
        self.keeps_output, self.restores = bool(info.keeps_output), bool(info.restores)

    def forward(
        self,
        x: Address,
        gate: Address,
        weight: Address,
        bias: Address,
        y: Address,
        seed: int,
        offset: int,
        saved: Address,
        stream: Address = None,
    ) -> None:
        """Writes y, which may be x or None, and `saved`."""
        operands = _options.operator_forward
        operands.x, operands.gate, operands.weight, operands.bias, operands.y = x, gate, weight, bias, y
        _c.operator_plan_forward(self, operands, seed, offset, saved, self.saved_bytes, stream)

    def backward(
        self,
        x: Address,
        gate: Address,
        y: Address,
        weight: Address,
        dy: Address,
        dx: Address,
        dgate: Address,
        dweight: Address,
        dbias: Address,
        saved: Address,
        scratch: Address,
        stream: Address = None,
    ) -> None:
        """Writes dx, which may be dy, and the gradients of the gate, the weight and the bias."""
        operands = _options.operator_backward
        operands.x, operands.gate, operands.y, operands.weight = x, gate, y, weight
        operands.dy, operands.dx, operands.dgate = dy, dx, dgate
        operands.dweight, operands.dbias = dweight, dbias
        _c.operator_plan_backward(self, operands, saved, self.saved_bytes, scratch, self.backward_scratch_bytes, stream)

    def restore(self, saved: Address, y: Address, stream: Address = None) -> None:
        """Writes y again from what a forward pass saved."""
        _c.operator_plan_restore(self, saved, self.saved_bytes, y, stream)


class _TensorMul(_Object):
    """A batched product's description, from which a plan is made."""

    kind = "tensor_mul"

    def __init__(self):
        super().__init__("create")


def mark_refused(saved: Address) -> None:
    """Notes in saved memory of the CPU that a forward pass refused its operands: where a mark of the library's stands
    in memory that one has written."""
    c_uint64.from_address(saved).value = 0


def is_refused(saved: Address) -> bool:
    """Whether `mark_refused` was called for this memory."""
    return c_uint64.from_address(saved).value == 0


class TensorMulPlan(_Object):
    """C = A B for every (batch, head), in float32: A is rows x inner, B inner x columns, and `shape` is (batch, heads,
    rows, inner, columns).

    The gradient of A sums over B's columns, that of B over A's rows. `left` and `right` are their budgets: a share, an
    int as a number of pairs, or None for an exact gradient from an operand that is saved whole.
    """

    kind = "tensor_mul_plan"

    def __init__(
        self,
        context: Context,
        shape: tuple[int, int, int, int, int],
        *,
        left: float | int | None,
        right: float | int | None,
        bits: int | str = "native",
        precision: str = "f32",
        engine: str = "auto",
        further_offset: Address = None,
    ) -> None:
        """Raises `Error` if a budget does not fit its side, if there is no such number of bits, precision or engine, or
        if cuBLASLt is asked for and missing."""
        product = _TensorMul()
        _c.tensor_mul_set_shape(product, *shape)
        for side, budget in (("left", left), ("right", right)):
            unit = "exact" if budget is None else "rows" if isinstance(budget, numbers.Integral) else "fraction"
            _c.tensor_mul_set_budget(product, SIDES[side], BUDGETS[unit], budget or 0)
        _c.tensor_mul_set_packing(product, look_up(PACKINGS, bits, "number of bits"))
        _c.tensor_mul_set_precision(product, look_up(PRECISIONS, precision, "precision"))
        _c.tensor_mul_set_engine(product, look_up(ENGINES, engine, "engine"))
        _c.tensor_mul_set_further_offset(product, further_offset)
        super().__init__("create", context, product)
        info = _TensorMulPlanInfo()
        _c.tensor_mul_plan_get_info(self, info)
        self.saved_bytes, self.exact_bytes, self.draws = info.saved_bytes, info.exact_bytes, info.draws
        self.forward_scratch_bytes = info.forward_scratch_bytes
        self.backward_scratch_bytes = info.backward_scratch_bytes

    def forward(
        self, a: Tensor, b: Tensor, seed: int, offset: int, saved: Address, scratch: Address, stream: Address = None
    ) -> None:
        """Writes to `saved` what both gradients need of A and B, tensors of four axes."""
        _c.tensor_mul_plan_forward_dl(
            self, a, b, seed, offset, None, saved, self.saved_bytes, scratch, self.forward_scratch_bytes, stream
        )

    def backward(
        self, saved: Address, g: Address, da: Address, db: Address, scratch: Address, stream: Address = None
    ) -> None:
        """Writes dA and dB, from G without gaps."""
        _c.tensor_mul_plan_backward(
            self, saved, self.saved_bytes, g, da, db, None, scratch, self.backward_scratch_bytes, stream
        )


class _Saved(_Object):
    """An object that is saved as bytes."""

    @classmethod
    def _made(cls, maker, *arguments):
        made = cls.__new__(cls)
        _Object.__init__(made, maker, *arguments)
        return made

    def save(self) -> bytearray:
        """All of its state, in bytes that `load` reads on any device."""
        needed = c_size_t()
        save = getattr(_c, self.kind + "_save")
        save(self, None, 0, byref(needed))
        data = bytearray(needed.value)
        save(self, (ctypes.c_ubyte * len(data)).from_buffer(data), len(data), byref(needed))
        return data


class PredictorSettings(typing.NamedTuple):
    """Those of `wtacrs_norm_predictor_options`, with the library's defaults."""

    features: int = 256
    forgetting: float = 0.97
    ridge: float = 0.1
    clamp: float = 6.0
    rows_per_update: int = 192
    seed: int = 0


class NormPredictor(_Saved):
    """A regression of log |dZ_i| on h_i, for one layer or for layers that read one H."""

    kind = "norm_predictor"

    def __init__(self, context: Context, in_features: int, settings: PredictorSettings | None = None) -> None:
        """Without settings the library's own hold. Raises `Error` for a setting that is 0 or out of its range."""
        if settings is not None:
            # In the library's struct they would stand for its defaults.
            zeros = [name for name, value in settings._asdict().items() if name != "seed" and value == 0]
            if zeros:
                raise Error(f"{zeros[0]} is 0: it must be above 0")
            settings = _NormPredictorOptions(*settings)
        super().__init__("create", context, in_features, settings)

    @classmethod
    def load(cls, context: Context, data: Address, length: int) -> NormPredictor:
        """From the `length` bytes on the host that `save` returned, on whatever device. Raises `Error` if they are not
        a predictor's."""
        return cls._made("load", context, data, length)

    def update(self, plan: LayerPlan, saved: Address, dz_norms: Address, stream: Address = None) -> None:
        """Learns from a step's saved rows and the norms of dZ."""
        _c.norm_predictor_update(self, plan, saved, plan.saved_bytes, dz_norms, None, stream)

    @property
    def statistics_count(self) -> int:
        """How many sums `statistics` writes."""
        count = c_size_t()
        _c.norm_predictor_statistics_count(self, byref(count))
        return count.value

    def statistics(
        self, plan: LayerPlan, saved: Address, dz_norms: Address, sums: Address, count: int, stream: Address = None
    ) -> None:
        """Writes what `update` would learn from: `count` sums (float64), which ranks add."""
        _c.norm_predictor_statistics(self, plan, saved, plan.saved_bytes, dz_norms, None, sums, count, stream)

    def apply(self, sums: Address, count: int, stream: Address = None) -> None:
        """Learns from a step's sums over all ranks."""
        _c.norm_predictor_apply(self, sums, count, stream)


class Planned(typing.NamedTuple):
    """A layer's budget: the share of its rows, the bits of an element, and the expected squared error of its gradient,
    and of those of the layers that share its input, relative to their squares."""

    share: float
    bits: int | str
    squared_error: float


class Planner(_Saved):
    """One budget of memory, or of noise, for all layers of a model, by what its steps have shown. Layers have numbers,
    in the order in which they were added. All memory is the host's."""

    kind = "planner"

    def __init__(self) -> None:
        super().__init__("create")

    @classmethod
    def load(cls, data: Address, length: int) -> Planner:
        """From the `length` bytes that `save` returned. Raises `Error` if they are not a planner's."""
        return cls._made("load", data, length)

    def add_layer(self, in_features: int, dtype: str) -> int:
        """A layer whose H has rows of so many elements of the dtype. Returns its number."""
        layer = c_size_t()
        _c.planner_add_layer(self, in_features, look_up(DTYPES, dtype, "matrix dtype"), byref(layer))
        return layer.value

    def share_input(self, layer: int, first: int) -> None:
        """The layer reads the same H as an earlier one, and gets the same budget."""
        _c.planner_share_input(self, layer, first)

    def observe(
        self,
        layer: int,
        tokens: int,
        weights: Address,
        input_norms: Address,
        dz_norms: Address,
        budget_rows: int,
        bits: int | str,
        squared_norm: float,
        squared_change: float = -1.0,
    ) -> None:
        """Notes what a step has shown: `tokens` weights (float64; None for the best) and norms of H and dZ (float32),
        how many rows were kept and how, ‖dW‖² of the estimate, and ‖dW − dW'‖² of its change since the observation
        before, or -1."""
        packing = look_up(PACKINGS, bits, "number of bits")
        seen = tokens, weights, input_norms, dz_norms, budget_rows, packing, squared_norm, squared_change
        _c.planner_observe(self, layer, _Observation(*seen))

    def observe_rows(self, layer: int, rows: int, h: Address, leading: int) -> None:
        """Measures the noise of packing by some rows of H in float32, `leading` elements from one to the next."""
        _c.planner_observe_rows(self, layer, DTYPES["float32"], rows, h, leading)

    @property
    def statistics_count(self) -> int:
        """How many sums `statistics` writes."""
        count = c_size_t()
        _c.planner_statistics_count(self, byref(count))
        return count.value

    def statistics(self, sums: Address, count: int) -> None:
        """Writes the sums (float64) of what was observed since the last `apply`: ranks add theirs."""
        _c.planner_statistics(self, sums, count)

    def apply(self, sums: Address, count: int) -> None:
        """Takes in the sums of all ranks."""
        _c.planner_apply(self, sums, count)

    def solve(self, target: str, share: float) -> None:
        """Finds budgets for "memory", a share of the bytes of all inputs, or "noise", a share of the variance among
        batches. Raises `Error` where too little was observed, or the target is out of reach."""
        _c.planner_solve(self, look_up(TARGETS, target, "target"), share)

    def budget(self, layer: int) -> Planned | None:
        """The layer's budget by the last `solve`; None if it was not observed before."""
        planned = _Planned()
        _c.planner_get_budget(self, layer, planned)
        bits = next(bits for bits, number in PACKINGS.items() if number == planned.packing)
        return Planned(planned.share, bits, planned.squared_error) if planned.is_planned else None


class NormCache(_Saved):
    """Norms of dZ by training sample, from each sample's last visit. `room` is (samples, tokens_per_sample); without it
    a cache on the CPU takes any sample.

    In `fetch` and `store` a batch has `count` samples with as many ids and lengths (int64), and `norms` has
    `row_tokens` floats for each of them, `tokens` in all.
    """

    kind = "norm_cache"

    _NO_BOUNDS = (2 ** (8 * ctypes.sizeof(c_size_t)) - 1,) * 2

    def __init__(self, context: Context, room: tuple[int, int] | None = None) -> None:
        super().__init__("create", context, *(room or self._NO_BOUNDS))

    @classmethod
    def load(cls, context: Context, data: Address, length: int, room: tuple[int, int] | None = None) -> NormCache:
        """From the `length` bytes on the host that `save` returned, on whatever device. Raises `Error` if they are not
        a cache's, or if they do not fit the room."""
        return cls._made("load", context, *(room or cls._NO_BOUNDS), data, length)

    def fetch(
        self,
        ids: Address,
        lengths: Address,
        count: int,
        row_tokens: int,
        norms: Address,
        tokens: int,
        stream: Address = None,
    ) -> None:
        """Writes the batch's norms, -1 for every token that is not known."""
        _c.norm_cache_fetch(self, ids, lengths, count, row_tokens, norms, tokens, stream)

    def store(
        self,
        ids: Address,
        lengths: Address,
        count: int,
        row_tokens: int,
        norms: Address,
        tokens: int,
        stream: Address = None,
    ) -> None:
        """Remembers the batch's norms in place of those of earlier visits."""
        _c.norm_cache_store(self, ids, lengths, count, row_tokens, norms, tokens, stream)

    # The first reason for which calls on a GPU have left out a sample.
    _FAULTS = {1: "its id is out of range", 2: "it has too many tokens", 3: "it is known with another length"}

    def left_out(self) -> tuple[int, str] | None:
        """The first sample that a GPU's cache has left out since the last call, and why, or None. A norm that is not
        finite comes from a loss scaler and is not reported. Waits for the GPU."""
        fault, sample = c_uint32(), c_uint64()
        _c.norm_cache_outcome(self, byref(fault), byref(sample))
        return (sample.value, self._FAULTS[fault.value]) if fault.value in self._FAULTS else None
