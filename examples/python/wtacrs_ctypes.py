"""libwtacrs by ctypes alone: what the Python clients have in common. Needs nothing but the standard library.

Tensors go in by DLPack, without a copy.
"""

import ctypes as c
import ctypes.util

CPU, CUDA = 0, 1
DESIGNS = ["uniform", "crs", "top-k", "wta-iid", "wta-stratified", "wta-pivotal"]
SOURCES = ["input", "norms", "cached", "predicted"]
PRECISIONS = ["f32", "tf32"]
DTYPES = ["float32", "float16", "bfloat16", "float64"]
ABI_VERSION = 0


class Error(Exception):
    """A call that libwtacrs refused, in its own words."""


class Library:
    """Functions by name, without the prefix; a status that is not 0 becomes an exception."""

    def __init__(self, path=None):
        path = path or ctypes.util.find_library("wtacrs")
        if path is None:
            raise Error("no libwtacrs where the loader looks; give its path")
        self._library = c.CDLL(path)
        self._library.wtacrs_status_string.restype = c.c_char_p
        self._library.wtacrs_version.restype = c.c_char_p
        found = self._library.wtacrs_abi_version()
        if found != ABI_VERSION:
            raise Error(f"{path} has ABI version {found}; this client needs {ABI_VERSION}")

    def version(self):
        return self._library.wtacrs_version().decode()

    def __getattr__(self, name):
        function = getattr(self._library, "wtacrs_" + name)

        def call(*arguments):
            status = function(*arguments)
            if status:
                words = c.create_string_buffer(512)
                self._library.wtacrs_last_error(words, c.c_size_t(512), None)
                raise Error(f"{self._library.wtacrs_status_string(status).decode()}: {words.value.decode()}")

        # The next look-up finds it without asking.
        self.__dict__[name] = call
        return call

    def make(self, name, *arguments, by="create"):
        handle = c.c_void_p()
        getattr(self, f"{name}_{by}")(*arguments, c.byref(handle))
        return handle

    def ask(self, name, handle, kind=c.c_size_t):
        value = kind()
        getattr(self, name)(handle, c.byref(value))
        return value.value

    def plan(self, context, shape, *, design, source, rows=None, fraction=None, dtypes=None, precision="f32"):
        """A linear layer's plan: tokens, in_features and out_features; a budget in rows or as a fraction; dtypes of H,
        dZ and dW; whether f32 may be multiplied as tf32."""
        layer = self.make("layer")
        try:
            self.layer_set_shape(layer, *map(size, shape))
            if dtypes is not None:
                self.layer_set_dtypes(layer, *map(DTYPES.index, dtypes))
            if rows is not None:
                self.layer_set_budget_rows(layer, size(rows))
            if fraction is not None:
                self.layer_set_budget_fraction(layer, c.c_double(fraction))
            self.layer_set_design(layer, DESIGNS.index(design))
            self.layer_set_source(layer, SOURCES.index(source))
            self.layer_set_precision(layer, PRECISIONS.index(precision))
            return self.make("plan", context, layer)
        finally:
            self.layer_destroy(layer)


def size(value):
    return c.c_size_t(value)


# Where a capsule's struct has its DLTensor: DLManagedTensor begins with it, DLManagedTensorVersioned has its version, a
# context, a deleter and flags before.
DLPACK = {b"dltensor": 0, b"dltensor_versioned": 32}


class Tensor:
    """The DLTensor in a tensor's DLPack capsule, with a version or without, for as long as this object lives."""

    def __init__(self, capsule):
        name_of, get = c.pythonapi.PyCapsule_GetName, c.pythonapi.PyCapsule_GetPointer
        name_of.restype, name_of.argtypes = c.c_char_p, [c.py_object]
        get.restype, get.argtypes = c.c_void_p, [c.py_object, c.c_char_p]
        name = name_of(capsule)
        if name not in DLPACK:
            raise Error(f"a capsule named {name}; DLPack's are dltensor and dltensor_versioned, until they are used")
        # Never renamed to "used_...", so that the capsule itself releases the tensor.
        self._capsule = capsule
        managed = get(capsule, name)
        if name == b"dltensor_versioned" and (major := c.c_uint32.from_address(managed).value) != 1:
            raise Error(f"a tensor of DLPack version {major}; this client reads those of version 1, and those without")
        self.pointer = c.c_void_p(managed + DLPACK[name])
