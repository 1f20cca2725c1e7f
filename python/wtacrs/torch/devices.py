"""Where the library works for tensors: on the host, or on a GPU in torch's own CUDA context and on its current stream.

Nothing else in `wtacrs.torch` asks which kind of device a tensor is on.
"""

from __future__ import annotations

import contextlib
import functools
import os

import torch
from torch.utils.dlpack import to_dlpack

from .. import _native
from .._native import Error


class Host:
    torch_device = torch.device("cpu")
    on_gpu = False
    # Of saved and scratch memory. Torch's allocators give as much, so that blocks need no room to spare.
    alignment = 64

    @functools.cached_property
    def context(self):
        # As many as torch has at the first use.
        threads = 0 if "RAYON_NUM_THREADS" in os.environ else torch.get_num_threads()
        return _native.Context("cpu", threads=threads)

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
        block = torch.empty(count, dtype=torch.uint8, device=self.torch_device)
        if block.data_ptr() % self.alignment:
            block = torch.empty(count + self.alignment, dtype=torch.uint8, device=self.torch_device)
            block = block[-block.data_ptr() % self.alignment :][:count]
        return block

    def aligned_copy(self, values):
        return self.memory(values.nbytes).view(values.dtype).copy_(values)


class Gpu(Host):
    on_gpu = True
    alignment = 256

    def __init__(self, torch_device):
        self.torch_device = torch_device

    @functools.cached_property
    def context(self):
        with self.current():
            # Torch makes its own CUDA context when it first needs one.
            torch.cuda.synchronize()
            return _native.Context("cuda", -1)

    @contextlib.contextmanager
    def current(self):
        with torch.cuda.device(self.torch_device):
            # A thread that has called nothing of CUDA yet, as autograd's may be, has no context; this gives it one.
            torch.cuda.set_device(self.torch_device)
            yield

    def stream(self):
        return torch.cuda.current_stream(self.torch_device).cuda_stream


@functools.cache
def device_of(torch_device):
    """From torch's device to the library's."""
    if torch_device.type not in ("cpu", "cuda"):
        raise Error(f"no tensors on {torch_device}: wtacrs serves cpu and cuda")
    return Host() if torch_device.type == "cpu" else Gpu(torch_device)


def address(tensor):
    return None if tensor is None else tensor.data_ptr()
