"""libwtacrs for torch tensors: contexts by device, plans by shape, and calls that take tensors."""

import contextlib
import ctypes as c
import functools
import os
import weakref

import torch
from torch.utils.dlpack import to_dlpack
from wtacrs_ctypes import CPU, CUDA, Error, Library, Tensor, size

DTYPES = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.float64: "float64",
}


@functools.cache
def library():
    """The library that WTACRS_LIBRARY names, or else the one that the loader finds."""
    return Library(os.environ.get("WTACRS_LIBRARY"))


class Host:
    """Where the library works for tensors of the CPU."""

    device = torch.device("cpu")
    on_gpu = False
    # Of saved and scratch memory. Torch's allocators give as much, so that blocks need no room to spare.
    alignment = 64

    @functools.cached_property
    def context(self):
        return library().make("context", CPU, 0)

    def current(self):
        """While it is entered, the context's CUDA context is the thread's current one, which the library asks for."""
        return contextlib.nullcontext()

    def stream(self):
        return None

    def tensor(self, of):
        return Tensor(to_dlpack(of.detach()))


class Gpu(Host):
    """A GPU on which torch has its own context."""

    on_gpu = True
    alignment = 256

    def __init__(self, device):
        self.device = device

    @functools.cached_property
    def context(self):
        with self.current():
            # Torch makes its own CUDA context when it first needs one.
            torch.cuda.synchronize()
            return library().make("context", CUDA, -1)

    @contextlib.contextmanager
    def current(self):
        with torch.cuda.device(self.device):
            # A thread that has called nothing of CUDA yet, as autograd's may be, has no context; this gives it one.
            torch.cuda.set_device(self.device)
            yield

    def stream(self):
        return c.c_void_p(torch.cuda.current_stream(self.device).cuda_stream)


@functools.cache
def place(device):
    """From a tensor's device to the library's; nothing else in this package asks which device it is."""
    if device.type not in ("cpu", "cuda"):
        raise Error(f"no tensors on {device}: wtacrs serves cpu and cuda")
    return Host() if device.type == "cpu" else Gpu(device)


def memory(count, place):
    """Bytes at a multiple of the place's alignment; where an allocator gives less, within a larger block."""
    block = torch.empty(count, dtype=torch.uint8, device=place.device)
    if block.data_ptr() % place.alignment:
        block = torch.empty(count + place.alignment, dtype=torch.uint8, device=place.device)
        block = block[-block.data_ptr() % place.alignment :][:count]
    return block


def numbers(values, place):
    """A copy that is where and how the library takes it."""
    return memory(values.nbytes, place).view(values.dtype).copy_(values)


def pointer(tensor):
    return None if tensor is None else c.c_void_p(tensor.data_ptr())


@functools.lru_cache(maxsize=1024)
def plan(place, tokens, in_features, out_features, dtype, budget, design, source, precision):
    """One plan for each shape, whatever the layer."""
    return Plan(place, (tokens, in_features, out_features), dtype, budget, design, source, precision)


class Plan:
    def __init__(self, place, shape, dtype, budget, design, source, precision):
        if dtype not in DTYPES:
            raise Error(f"no matrices of {dtype}: wtacrs takes {', '.join(DTYPES.values())}")
        self.place, self.shape, self.dtype = place, shape, dtype
        # What dW and the bias's gradient are summed in.
        self.sums = torch.float64 if dtype is torch.float64 else torch.float32
        self.handle = library().plan(
            place.context,
            shape,
            fraction=budget,
            design=design,
            source=source,
            dtypes=(DTYPES[dtype], DTYPES[dtype], DTYPES[self.sums]),
            precision=precision,
        )
        weakref.finalize(self, library().plan_destroy, self.handle)
        self.saved_bytes = library().ask("plan_saved_bytes", self.handle)
        self.forward_scratch_bytes = library().ask("plan_forward_scratch_bytes", self.handle)
        self.backward_scratch_bytes = library().ask("plan_backward_scratch_bytes", self.handle)
        self.draws = library().ask("plan_draws", self.handle, c.c_uint64)

    def forward(self, h, guess, predictor, seed, offset):
        """The saved rows of h, tokens x in_features, as one block of bytes."""
        block = memory(self.saved_bytes, self.place)
        scratch = memory(self.forward_scratch_bytes, self.place)
        rows = self.place.tensor(self._walkable(h))
        with self.place.current():
            library().forward_dl(
                self.handle, rows.pointer, pointer(guess), predictor, c.c_uint64(seed), c.c_uint64(offset),
                pointer(block), size(self.saved_bytes), pointer(scratch), size(self.forward_scratch_bytes),
                self.place.stream(),
            )  # fmt: skip
        return block

    def backward(self, block, dz, with_bias):
        """The gradients of weight (out_features x in_features) and bias, and the norms of dz's rows."""
        tokens, in_features, out_features = self.shape
        on_gpu, made = self.place.on_gpu, {"dtype": self.sums, "device": self.place.device}
        # A GPU writes rows of in_features x out_features.
        weight = torch.empty((in_features, out_features) if on_gpu else (out_features, in_features), **made)
        bias = torch.empty(out_features, **made) if with_bias else None
        norms = torch.empty(tokens, dtype=torch.float32, device=self.place.device)
        scratch = memory(self.backward_scratch_bytes, self.place)
        dz = self._walkable(dz)
        gradient, estimate = self.place.tensor(dz), self.place.tensor(weight if on_gpu else weight.T)
        with self.place.current():
            library().backward_dl(
                self.handle, pointer(block), size(self.saved_bytes), gradient.pointer, estimate.pointer, 0,
                pointer(norms), pointer(bias), pointer(scratch), size(self.backward_scratch_bytes),
                self.place.stream(),
            )  # fmt: skip
        return weight.T if on_gpu else weight, bias, norms

    def _walkable(self, matrix):
        """The CPU takes any strides; a GPU rows whose elements lie side by side, and that lie apart."""
        rows_apart = matrix.stride(1) == 1 and matrix.stride(0) >= matrix.shape[1]
        return matrix if rows_apart or not self.place.on_gpu else matrix.contiguous()
