"""`SampledLinear`, which takes the place of nn.Linear, and its passes in torch's graph.

z = h Wᵀ + b, whose backward pass needs W, dZ and the sampled rows of h alone.
"""

from __future__ import annotations

import torch
from torch.autograd.function import once_differentiable

from .._native import Error


class SampledLinear(torch.nn.Linear):
    """nn.Linear with the same parameters and the same forward pass. In training its weight gradient is an estimate from
    packed rows of its input, of all or of a sample, and nothing else of the input is saved. `convert` makes it."""

    def forward(self, h):
        exact = not (self.training and torch.is_grad_enabled() and self.weight.requires_grad)
        # Without a weight gradient torch saves nothing of h. Shapes and dtypes that do not fit get torch's own errors.
        if exact or h.numel() == 0 or h.shape[-1] != self.in_features:
            return super().forward(h)
        given = h
        kind = h.device.type
        if torch.is_autocast_enabled(kind) and h.dtype != torch.float64:
            h = h.to(torch.get_autocast_dtype(kind))
        elif h.dtype != self.weight.dtype:
            return super().forward(h)
        read = self.sampling.read(self, given, h)
        if read is None:
            return super().forward(given)
        plan, shared, block = read
        return SampledLinearFunction.apply(h, self.weight, self.bias, block, shared, plan, self.sampling.deferred)

    def extra_repr(self):
        return f"{super().extra_repr()}, {self.sampling.settings()}"


class SampledLinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h, weight, bias, block, shared, plan, deferred):
        # The rows are a saved tensor like any other, so torch frees them, and its hooks see them.
        ctx.save_for_backward(weight if ctx.needs_input_grad[0] else None, block)
        ctx.shared, ctx.plan, ctx.deferred = shared, plan, deferred
        ctx.reader = shared.join()
        ctx.weight_dtype = weight.dtype
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.used = False
        # Under autocast h has its dtype already; without it the dtypes are equal.
        return torch.nn.functional.linear(h, weight.to(h.dtype), None if bias is None else bias.to(h.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx, dz):
        if ctx.used:
            raise Error(
                "a second backward pass through a sampled layer: its rows are drawn for one. Run the forward pass "
                "again, or the model in eval mode, where gradients are exact (retain_graph)"
            )
        weight, block = ctx.saved_tensors
        ctx.used = True
        ctx.shared.begin_backward()
        needs_h, _, needs_bias = ctx.needs_input_grad[:3]
        dh = dz.matmul(weight.to(dz.dtype)) if needs_h else None
        dz = dz.reshape(-1, dz.shape[-1])
        dw, db, norms = ctx.plan.backward(block, dz, needs_bias, ctx.shared.guess.learns)
        ctx.shared.finish_backward(ctx.reader, ctx.plan, block, norms, ctx.deferred)
        # A cast brings dW into the parameter's layout with the same copy; otherwise torch does so where it is needed.
        dw = dw.to(ctx.weight_dtype, memory_format=torch.contiguous_format)
        return (
            dh,
            dw,
            db.to(ctx.bias_dtype) if needs_bias else None,
            None, None, None, None,
        )  # fmt: skip
