"""`SampledLinear`, which takes the place of nn.Linear, and its passes in torch's graph.

z = h Wᵀ + b, whose backward pass needs W, dZ and the sampled rows of h alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.autograd.function import once_differentiable

from .._native import Error
from .plans import packs_all


class LayerSampling:
    """How one layer is sampled: the model's `sampling`, the layer's `name`, the share of rows that it keeps, and the
    bits of an element. `budget` and `bits` may change between forward passes. Experts are one layer with `matrices`
    weights."""

    def __init__(
        self,
        sampling,
        name: str,
        budget: float,
        bits: int | str,
        *,
        in_features: int,
        out_features: int,
        matrices: int = 1,
    ):
        self.sampling, self.name = sampling, name
        self.budget, self.bits = budget, bits
        self.in_features, self.out_features, self.matrices = in_features, out_features, matrices
        # What forward passes have found: that another operator keeps the layer's input anyway; the name of the layer
        # that read the same input first; how many rows the last pass read; whether any pass saved a sample.
        self.input_kept = False
        self.shares_input_of = None
        self.rows = None
        self.has_saved = False

    @property
    def packs_all(self) -> bool:
        """Whether all rows are packed, whatever their number: then none is chosen."""
        return packs_all(self.budget, self.bits)

    def __deepcopy__(self, memo):
        # A copy of a model, as for averaged weights, goes on with the same randomness and guesses.
        return self

    def __str__(self):
        shown = f"budget={self.budget}, bits={self.bits!r}"
        settings = self.sampling.settings
        return shown if self.packs_all else f"{shown}, design={settings.design!r}, source={settings.source!r}"


class SampledLinear(torch.nn.Linear):
    """nn.Linear with the same parameters and the same forward pass. In training its weight gradient is an estimate from
    packed rows of its input, of all or of a sample, and nothing else of the input is saved. `convert` makes it.
    `sampled` is its `LayerSampling`."""

    sampled: LayerSampling

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        exact = super().forward
        if not self.training:
            return exact(h)
        return sampled_linear(self.sampled, h, self.weight, self.bias, lambda: exact(h))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.sampled}"


def sampled_linear(
    sampled: LayerSampling,
    given: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    exact: Callable[[], torch.Tensor],
) -> torch.Tensor:
    """given @ weight.T + bias, whose gradient of the weight is an estimate from packed rows of `given`.

    `given` is ... x in_features, `weight` out_features x in_features, `bias` out_features or None; the result is
    ... x out_features. `exact` computes what torch would. It serves calls without a gradient of the weight, and shapes
    and dtypes that do not fit, for which it raises torch's own errors.
    """
    # Without a weight gradient torch saves nothing of h.
    needed = torch.is_grad_enabled() and weight.requires_grad and not sampled.input_kept
    if not needed or given.numel() == 0 or given.shape[-1] != weight.shape[1]:
        return exact()
    h = given
    kind = h.device.type
    if torch.is_autocast_enabled(kind) and h.dtype != torch.float64:
        h = h.to(torch.get_autocast_dtype(kind))
    elif h.dtype != weight.dtype:
        return exact()
    sampling = sampled.sampling
    read = sampling.read(sampled, given, h, len(weight))
    if read is None:
        return exact()
    plan, shared, block = read
    return SampledLinearFunction.apply(h, weight, bias, block, shared, plan, sampling.deferred)


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
