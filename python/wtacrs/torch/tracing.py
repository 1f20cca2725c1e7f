"""Passes over tensors that stand for others: for torch.compile, torch.export and make_fx, or without memory.

Such a pass becomes one of the operators in `ops`, since a graph has no place for calls of the library. Layers that read
one H share its saved rows by a memo, which lives from the beginning to the end of the outermost module in the trace.
"""

from __future__ import annotations

import functools

import torch
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from .plans import why_pass_exact


def tracing() -> bool:
    """Whether a trace is running."""
    return torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None


def traced(tensor: torch.Tensor) -> bool:
    """Whether a pass over the tensor is to become an operator of torch."""
    return tracing() or isinstance(tensor, FakeTensor)


def linear(sampled, given, h, weight, bias, exact):
    """`layer.sampled_linear` in a trace; h is `given` in the dtype of the product."""
    tokens, in_features = h.numel() // h.shape[-1], h.shape[-1]
    if why_pass_exact(tokens, in_features, h.element_size(), sampled.budget, sampled.bits) is not None:
        return exact()
    sampling = sampled.sampling
    keep = sampled.described(h.dtype)
    block, joint = saved(sampling, given, keep)
    passes = torch.ops.wtacrs
    if block is None:
        batch = sampling.current_batch
        samples, mask = (None, None) if batch is None else (batch.samples, batch.mask)
        block = passes.pack_rows(h, sampling.randomness.words, sampled.site, samples, mask, weight.shape[0], keep)
        if sampled.learns:
            joint = passes.joint(block, sampling.anchor, sampled.site, samples, mask, tokens, in_features, keep)
        if sampling.memo is not None:
            sampling.memo.append((given, keep, block, joint))
    return passes.linear(h, weight, bias, block, joint, keep)


def saved(sampling, given, keep):
    """The block and the joint norms of a layer that has read the tensor before in this trace."""
    for tensor, how, block, joint in sampling.memo or ():
        if tensor is given and how == keep:
            return block, joint
    return None, None


def watch(model, sampling):
    """Lets a memo live as long as the outermost of the model's modules in a trace. Returns handles that end this."""
    handles = []
    for module in model.modules():
        if module is model or any(hasattr(child, "sampled") for child in module.modules() if child is not module):
            enter, leave = functools.partial(_enter, sampling), functools.partial(_leave, sampling)
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave))
    return handles


def _enter(sampling, module, _):
    if tracing() and (sampling.memo is None or sampling.memo_owner is module):
        sampling.memo, sampling.memo_owner = [], module


def _leave(sampling, module, _, __):
    if sampling.memo_owner is module:
        sampling.memo = sampling.memo_owner = None
