"""Linear layers in a trace (`modes`).

A pass becomes one of the custom operators of `ops`, since a graph has no place for calls of the library. Layers that
read one H share its saved rows by a memo, which lives from the beginning to the end of the outermost module in the
trace.
"""

from __future__ import annotations

import torch

from ..modes import admitting_state, tracing, within_segment
from .plans import why_pass_exact


def linear(sampled, given, h, weight, bias, exact):
    """`layer.sampled_linear` in a trace; h is `given` in the dtype of the product."""
    in_features = int(h.shape[-1])
    tokens = h.numel() // in_features
    if why_pass_exact(tokens, in_features, h.element_size(), sampled.budget, sampled.bits) is not None:
        return exact()
    sampling, keep = sampled.sampling, sampled.described(h.dtype)
    memo = None if within_segment() else sampling.traces.memo
    block, joint = shared(memo, given, keep)
    passes = torch.ops.wtacrs
    if block is None:
        batch = sampling.current_batch
        samples, mask = (None, None) if batch is None else (batch.samples, batch.mask_of(tokens))
        words, site = sampling.randomness.words, sampled.site
        with admitting_state(h):
            block = passes.pack_rows(h, words, site, samples, mask, int(weight.shape[0]), keep)
            if sampled.learns:
                joint = passes.joint(block, weight, site, samples, mask, tokens, in_features, keep)
        if memo is not None:
            memo.append((given, keep, block, joint))
    return passes.linear(h, weight, bias, block, joint, keep)


def shared(memo, given, keep):
    """The block and the joint norms of a layer that has read the tensor before in this trace."""
    # A tensor that was changed in place since is another H, but exact layers could not compute their gradients either.
    for tensor, how, block, joint in memo or ():
        if tensor is given and how == keep:
            return block, joint
    return None, None


class Traces:
    """`memo` is what layers of a model share in a trace: a list from the beginning to the end of the outermost of its
    modules there, and None at other times."""

    def __init__(self, model: torch.nn.Module):
        self.memo, self._outermost, self._hooks = None, None, []
        for module in model.modules():
            if module is model or any(hasattr(child, "sampled") for child in module.modules() if child is not module):
                self._hooks.append(module.register_forward_pre_hook(self._enter))
                self._hooks.append(module.register_forward_hook(self._leave))

    def __deepcopy__(self, memo):
        return self

    def __getstate__(self):
        # The handles of hooks are pickled with the modules.
        return {"memo": None, "_outermost": None, "_hooks": self._hooks}

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _enter(self, module, _):
        if not tracing() or within_segment():
            return
        # A trace that has failed never leaves.
        if self.memo is None or self._outermost is module:
            self.memo, self._outermost = [], module

    def _leave(self, module, _, __):
        if self._outermost is module:
            self.memo = self._outermost = None
