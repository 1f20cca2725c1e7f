"""The autograd function: z = h Wᵀ + b, whose backward pass needs only the sampled rows of h."""

import torch
from torch.autograd.function import once_differentiable
from wtacrs_ctypes import Error


class SampledLinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h, weight, bias, block, reading, plan, deferred):
        # The rows are a saved tensor like any other, so torch frees them, and its hooks see them.
        ctx.save_for_backward(weight if ctx.needs_input_grad[0] else None, block)
        ctx.reading, ctx.plan, ctx.deferred = reading, plan, deferred
        ctx.reader = reading.join()
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
        ctx.reading.begin()
        needs_h, _, needs_bias = ctx.needs_input_grad[:3]
        dh = dz.matmul(weight.to(dz.dtype)) if needs_h else None
        dw, db, norms = ctx.plan.backward(block, dz.reshape(-1, dz.shape[-1]), needs_bias)
        ctx.reading.finish(ctx.reader, ctx.plan, block, norms, ctx.deferred)
        # In another dtype it comes in the parameter's layout from the same copy; else torch makes that, if it is needed.
        dw = dw.to(ctx.weight_dtype, memory_format=torch.contiguous_format)
        return (
            dh,
            dw,
            db.to(ctx.bias_dtype) if needs_bias else None,
            None, None, None, None,
        )  # fmt: skip
