"""Whether torch is tracing, and how the state of a model gets into a trace.

A trace runs the model's code with tensors that stand for others: for torch.compile, torch.export and make_fx, or
without memory.
"""

from __future__ import annotations

import contextlib
import sys

import torch
from torch._guards import detect_fake_mode
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode


def tracing() -> bool:
    """Whether a trace is running."""
    return torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None


def traced(tensor: torch.Tensor) -> bool:
    """Whether a pass over the tensor is to become an operator of torch."""
    return tracing() or isinstance(tensor, FakeTensor)


def state(*words: int) -> torch.Tensor:
    """int64 on the host, with memory even where a mode makes tensors without."""
    with _disable_current_modes():
        return torch.tensor(words, dtype=torch.int64, device="cpu")


def admitting_state(tensor: torch.Tensor):
    """Within, operators take the state of a model, which has memory, beside a tensor that has none."""
    mode = None if torch.compiler.is_compiling() else detect_fake_mode(tensor)
    if mode is None:
        return contextlib.nullcontext()
    return _admitting(mode)


@contextlib.contextmanager
def _admitting(mode):
    before, mode.allow_non_fake_inputs = mode.allow_non_fake_inputs, True
    try:
        yield
    finally:
        mode.allow_non_fake_inputs = before


def within_segment() -> bool:
    """Whether torch.compile is tracing a part of its graph, such as a checkpointed segment, from which nothing may be
    written to the memo."""
    compiler = sys.modules.get("torch._dynamo.symbolic_convert")
    translator = compiler and getattr(compiler.tls, "current_tx", None)
    return translator is not None and translator.output.current_tracer.parent is not None


# torch.compile calls the function while it traces, as torch.compiler.assume_constant_result would have it, whose import
# takes a second.
within_segment._dynamo_marked_constant = True
