"""Where the library works for tensors: on the host, or on a GPU in torch's own CUDA context and on its current stream.

Nothing else in `wtacrs.torch` asks which kind of device a tensor is on.
"""

from __future__ import annotations

import contextlib
import functools
import os
import types
import warnings

import torch
from torch._C._functorch import is_functorch_wrapped_tensor
from torch._subclasses import FakeTensor
from torch.overrides import has_torch_function_unary
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils.dlpack import to_dlpack

from .. import _native
from .._native import Error

NOTHING_TO_ENTER = contextlib.nullcontext()


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
        if _process.forked:
            after_a_fork()
        return NOTHING_TO_ENTER

    def stream(self):
        return None

    def captures(self):
        """Whether a CUDA graph captures what is computed now."""
        return False

    def plans(self, make):
        """`make` makes a plan of the library from the address of a further offset: that for passes, and where CUDA
        graphs may capture passes, another for these."""
        return make(None), None

    def drawing(self, plan, seed, offset):
        """The plan of the library, the seed and the offset by which a pass of `plan` draws."""
        return plan.native, seed, offset

    def drawn(self, plan):
        """A pass of `plan` has drawn."""

    def matrix(self, tensor):
        """The tensor as the library takes matrices, where it lies."""
        return _native.Tensor(to_dlpack(tensor.detach().resolve_neg()))

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

    @functools.cached_property
    def further_offset(self):
        """What passes of CUDA graphs add to their offset. Each of them advances it, in every replay."""
        return torch.zeros(1, dtype=torch.int64, device=self.torch_device)

    def captures(self):
        return torch.cuda.is_current_stream_capturing()

    def plans(self, make):
        return make(None), make(address(self.further_offset))

    def drawing(self, plan, seed, offset):
        if not plan.draws or not self.captures():
            return plan.native, seed, offset
        if plan.dropout and torch._C._current_graph_task_id() >= 0:
            raise Error(
                "dropout in a checkpointed segment of a CUDA graph: its masks would not be those of the forward pass. "
                "Capture without checkpointing, or without dropout"
            )
        # Offsets from 0 with a seed of their own: no other pass has these.
        return plan.captured, seed ^ CAPTURED, 0

    def drawn(self, plan):
        if plan.draws and self.captures():
            self.further_offset.add_(plan.draws)


CAPTURED = 0x5DEECE66D1CE4E5B

# Of this process: whether it is the fork of one in which this module was imported, and has not computed since.
_process = types.SimpleNamespace(forked=False)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: setattr(_process, "forked", True))


def after_a_fork():
    """The library starts threads of its own in a forked process. torch does not: where its threads have worked before
    the fork, it waits for them without end, unless it is told to use none."""
    _process.forked = False
    threads = torch.get_num_threads()
    if threads > 1:
        torch.set_num_threads(1)
        warnings.warn(
            f"this process was forked, and torch's {threads} threads do not survive a fork: torch computes on one "
            "thread here. Start processes by spawn for more",
            RuntimeWarning,
            stacklevel=2,
        )


@functools.cache
def device_of(torch_device):
    """From torch's device to the library's."""
    if torch_device.type not in SERVED:
        raise Error(f"no tensors on {torch_device}: wtacrs serves {' and '.join(SERVED)}")
    return Host() if torch_device.type == "cpu" else Gpu(torch_device)


# Tensors without memory stand for plain ones in a trace.
PLAIN = (torch.Tensor, torch.nn.Parameter, FakeTensor)
SERVED = ("cpu", "cuda")


def why_not_plain(tensor: torch.Tensor) -> str | None:
    """Why the library cannot read a tensor's elements in this process's memory; None if it can. Such tensors go torch's
    own way, whatever that is for their type."""
    if not torch.compiler.is_compiling() and is_functorch_wrapped_tensor(tensor):
        return "a tensor of torch.func"
    strided = tensor.layout is torch.strided and not tensor.is_nested
    if strided and type(tensor) in PLAIN and not tensor.is_meta:
        return None
    if is_traceable_wrapper_subclass(tensor) or has_torch_function_unary(tensor):
        return f"a {type(tensor).__name__}"
    if not strided:
        return f"a tensor of layout {'nested' if tensor.is_nested else str(tensor.layout).removeprefix('torch.')}"
    return "on meta" if tensor.is_meta else None


def values_of_jagged(tensor: torch.Tensor) -> torch.Tensor | None:
    """The rows of a jagged tensor of samples x tokens x features, one after another; None for others."""
    if tensor.layout is not torch.jagged or tensor.ndim != 3 or not tensor.is_contiguous():
        return None
    return tensor.values()


def jagged_like(tensor: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """A jagged tensor of other rows, with the lengths of this one."""
    known = {f"{end}_seqlen": getattr(tensor, f"_maybe_{end}_seqlen", None) for end in ("min", "max")}
    return torch.nested.nested_tensor_from_jagged(rows, tensor.offsets(), **known)


def storage_of(tensor: torch.Tensor) -> torch.UntypedStorage | None:
    """The storage of the tensor's elements; None for a tensor that consists of others, as sparse ones do."""
    return tensor.untyped_storage() if tensor.layout is torch.strided and not tensor.is_nested else None


def autocast_dtype(kind: str) -> torch.dtype | None:
    """The dtype in which products are computed on this kind of device, if autocast is at work there."""
    # Of other devices not all have it, and torch refuses to answer for those.
    available = kind in SERVED or torch.amp.is_autocast_available(kind)
    if not available or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def address(tensor):
    return None if tensor is None else tensor.data_ptr()
