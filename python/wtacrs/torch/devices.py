"""Where the library works for tensors: on the host, or on a GPU in torch's own CUDA context and on its current stream.

Nothing else in `wtacrs.torch` asks which kind of device a tensor is on.
"""

from __future__ import annotations

import contextlib
import functools

import torch
from torch.utils.dlpack import to_dlpack

from .. import _native
from .._native import Error


class Host:
    of_torch = torch.device("cpu")
    on_gpu = False
    # Of saved and scratch memory. Torch's allocators give as much, so that blocks need no room to spare.
    alignment = 64

    @functools.cached_property
    def context(self):
        return _native.Context("cpu")

    def current(self):
        """While it is entered, the context's CUDA context is the thread's current one, as the library requires."""
        return contextlib.nullcontext()

    def stream(self):
        return None

    def matrix(self, tensor):
        """The tensor as the library takes matrices, where it lies."""
        return _native.Tensor(to_dlpack(tensor.detach()))

    def memory(self, count):
        """Bytes at a multiple of the alignment; where an allocator gives less, within a larger block."""
        block = torch.empty(count, dtype=torch.uint8, device=self.of_torch)
        if block.data_ptr() % self.alignment:
            block = torch.empty(count + self.alignment, dtype=torch.uint8, device=self.of_torch)
            block = block[-block.data_ptr() % self.alignment :][:count]
        return block

    def aligned_copy(self, values):
        return self.memory(values.nbytes).view(values.dtype).copy_(values)


class Gpu(Host):
    on_gpu = True
    alignment = 256

    def __init__(self, of_torch):
        self.of_torch = of_torch

    @functools.cached_property
    def context(self):
        with self.current():
            # Torch makes its own CUDA context when it first needs one.
            torch.cuda.synchronize()
            return _native.Context("cuda", -1)

    @contextlib.contextmanager
    def current(self):
        with torch.cuda.device(self.of_torch):
            # A thread that has called nothing of CUDA yet, as autograd's may be, has no context; this gives it one.
            torch.cuda.set_device(self.of_torch)
            yield

    def stream(self):
        return torch.cuda.current_stream(self.of_torch).cuda_stream


@functools.cache
def device_of(of_torch):
    """From torch's device to the library's."""
    if of_torch.type not in ("cpu", "cuda"):
        raise Error(f"no tensors on {of_torch}: wtacrs serves cpu and cuda")
    return Host() if of_torch.type == "cpu" else Gpu(of_torch)


def address(tensor):
    return None if tensor is None else tensor.data_ptr()
