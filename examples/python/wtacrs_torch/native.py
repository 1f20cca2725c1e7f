"""libwtacrs for torch tensors: contexts by device, plans by shape, and calls that take tensors."""

import contextlib
import ctypes as c
import functools
import os
import weakref

import torch
from torch.utils.dlpack import to_dlpack
from wtacrs_ctypes import CPU, CUDA, Error, Library, Tensor, size

# Of saved and scratch memory. Torch's allocators give as much, so that blocks need no room to spare.
ALIGNMENT = {"cpu": 64, "cuda": 256}
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


@functools.cache
def context(device):
    """The CPU's context, or that of a GPU on which torch has its own."""
    if device.type == "cpu":
        return library().make("context", CPU, 0)
    if device.type != "cuda":
        raise Error(f"no tensors on {device}: wtacrs serves cpu and cuda")
    with torch.cuda.device(device):
        # Torch makes its own CUDA context when it first needs one.
        torch.cuda.synchronize()
        return library().make("context", CUDA, -1)


def current(device):
    """While it is entered, the device's CUDA context is the thread's current one, which the library asks for."""
    return contextlib.nullcontext() if device.type == "cpu" else torch.cuda.device(device)


def stream(device):
    return None if device.type == "cpu" else c.c_void_p(torch.cuda.current_stream(device).cuda_stream)


def memory(count, device):
    """Bytes at a multiple of ALIGNMENT; where an allocator gives less, within a larger block."""
    alignment = ALIGNMENT[device.type]
    block = torch.empty(count, dtype=torch.uint8, device=device)
    if block.data_ptr() % alignment:
        block = torch.empty(count + alignment, dtype=torch.uint8, device=device)
        block = block[-block.data_ptr() % alignment :][:count]
    return block


def pointer(tensor):
    return None if tensor is None else c.c_void_p(tensor.data_ptr())


def tensor(of):
    return Tensor(to_dlpack(of.detach()))


@functools.lru_cache(maxsize=1024)
def plan(device, tokens, in_features, out_features, dtype, budget, design, source, precision):
    """One plan for each shape, whatever the layer."""
    return Plan(device, (tokens, in_features, out_features), dtype, budget, design, source, precision)


class Plan:
    def __init__(self, device, shape, dtype, budget, design, source, precision):
        if dtype not in DTYPES:
            raise Error(f"no matrices of {dtype}: wtacrs takes {', '.join(DTYPES.values())}")
        self.device, self.shape, self.dtype = device, shape, dtype
        # What dW and the bias's gradient are summed in.
        self.sums = torch.float64 if dtype is torch.float64 else torch.float32
        self.handle = library().plan(
            context(device),
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
        block = memory(self.saved_bytes, self.device)
        scratch = memory(self.forward_scratch_bytes, self.device)
        rows = tensor(self._walkable(h))
        with current(self.device):
            library().forward_dl(
                self.handle, rows.pointer, pointer(guess), predictor, c.c_uint64(seed), c.c_uint64(offset),
                pointer(block), size(self.saved_bytes), pointer(scratch), size(self.forward_scratch_bytes),
                stream(self.device),
            )  # fmt: skip
        return block

    def backward(self, block, dz, with_bias):
        """The gradients of weight (out_features x in_features) and bias, and the norms of dz's rows."""
        tokens, in_features, out_features = self.shape
        made = {"dtype": self.sums, "device": self.device}
        on_cpu = self.device.type == "cpu"
        # A GPU writes rows of in_features x out_features.
        shape = (out_features, in_features) if on_cpu else (in_features, out_features)
        weight = torch.empty(shape, **made)
        bias = torch.empty(out_features, **made) if with_bias else None
        norms = torch.empty(tokens, dtype=torch.float32, device=self.device)
        scratch = memory(self.backward_scratch_bytes, self.device)
        dz = self._walkable(dz)
        gradient, estimate = tensor(dz), tensor(weight.T if on_cpu else weight)
        with current(self.device):
            library().backward_dl(
                self.handle, pointer(block), size(self.saved_bytes), gradient.pointer, estimate.pointer, 0,
                pointer(norms), pointer(bias), pointer(scratch), size(self.backward_scratch_bytes),
                stream(self.device),
            )  # fmt: skip
        return weight if on_cpu else weight.T, bias, norms

    def _walkable(self, matrix):
        """The CPU takes any strides; a GPU rows whose elements lie side by side."""
        return matrix if self.device.type == "cpu" or matrix.stride(1) == 1 else matrix.contiguous()
