"""Whether a pass is being traced, and what traced passes over one H share.

A trace runs the model's code with tensors that stand for others: for torch.compile, torch.export and make_fx, or for
tensors without memory. Then a pass becomes one of the operators in `ops`, and layers that read the same tensor share
its saved rows by this memo, which lives from the beginning to the end of the outermost module in the trace.
"""

from __future__ import annotations

import torch
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import _get_current_dispatch_mode


def traced(tensor):
    """Whether a pass over the tensor is to become an operator of torch."""
    return torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None or isinstance(tensor, FakeTensor)
