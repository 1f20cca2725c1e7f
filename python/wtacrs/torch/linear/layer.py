"""`SampledLinear`, which takes the place of nn.Linear, and its passes in torch's graph.

z = h Wᵀ + b, whose backward pass needs W, dZ and the sampled rows of h alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.autograd.function import once_differentiable

from ..._native import Error
from .. import devices, modes
from . import ops, tracing
from .plans import packs_all, product


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
        # Stands for the layer's guess in a traced pass.
        self.site = ops.site_of(self)
        # What forward passes have found: that another operator keeps the layer's input anyway; the name of the layer
        # that read the same input first; how many rows the last pass read; whether any pass saved a sample.
        self.input_kept = False
        self.shares_input_of = None
        self.rows = None
        self.has_saved = False

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "site"}

    def __setstate__(self, state):
        vars(self).update(state)
        self.site = ops.site_of(self)

    @property
    def learns(self) -> bool:
        """Whether a guess of this layer learns from its backward passes."""
        return self.sampling.settings.source != "input" and not self.packs_all

    def described(self, dtype: torch.dtype) -> str:
        """What the layer keeps of an H of this dtype, as traced passes take it."""
        settings = self.sampling.settings
        return ops.describe(self.budget, self.bits, settings.design, settings.source, settings.engine, dtype)

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

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        exact = super().forward
        if not self.training:
            return exact(input)
        return sampled_linear(self.sampled, input, self.weight, self.bias, lambda: exact(input))

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
    if not needed:
        return exact()
    jagged = None if torch.compiler.is_compiling() else devices.values_of_jagged(given)
    # Cached norms are known for the places of a mask.
    if jagged is not None and sampled.sampling.source != "cached":
        linear = lambda: torch.nn.functional.linear(jagged, weight, bias)
        return devices.jagged_like(given, sampled_linear(sampled, jagged, weight, bias, linear))
    reason = why_torchs_way(given, weight)
    if reason is not None:
        # A pass on meta computes nothing, and says nothing of later ones.
        if not given.is_meta:
            sampled.sampling.leave_exact(sampled.name, reason)
        return exact()
    if given.numel() == 0 or given.shape[-1] != weight.shape[1]:
        return exact()
    h = given
    autocast = devices.autocast_dtype(h.device.type)
    if autocast is not None and h.dtype != torch.float64:
        h = h.to(autocast)
    elif h.dtype != weight.dtype:
        return exact()
    if modes.traced(given):
        return tracing.linear(sampled, given, h, weight, bias, exact)
    sampling = sampled.sampling
    try:
        read = sampling.read(sampled, given, h, len(weight))
    except Error as error:
        raise error.within(f"layer {sampled.name!r}") from error
    if read is None:
        return exact()
    plan, shared, block = read
    return SampledLinearFunction.apply(h, weight, bias, block, shared, plan, sampled)


def why_torchs_way(given: torch.Tensor, weight: torch.Tensor) -> str | None:
    """Why torch's own product serves tensors of such types; None if the library does."""
    for what, tensor in (("input", given), ("weight", weight)):
        reason = devices.why_not_plain(tensor)
        if reason is not None:
            return f"its {what} is {reason}"
    return f"its weight is {str(weight.dtype).removeprefix('torch.')}" if weight.is_complex() else None


class SampledLinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h, weight, bias, block, shared, plan, sampled):
        # The rows are a saved tensor like any other, so torch frees them, and its hooks see them.
        ctx.save_for_backward(weight if ctx.needs_input_grad[0] else None, block)
        ctx.shared, ctx.plan, ctx.sampled = shared, plan, sampled
        ctx.reader = shared.join()
        ctx.weight_dtype = weight.dtype
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.used = False
        return product(h, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, dz):
        if ctx.used:
            raise Error(
                f"a second backward pass through the layer {ctx.sampled.name!r}, whose rows are drawn for one. Run the "
                "forward pass again, or the model in eval mode, where gradients are exact (retain_graph)"
            )
        weight, block = ctx.saved_tensors
        ctx.used = True
        ctx.shared.begin_backward()
        needs_h, _, needs_bias = ctx.needs_input_grad[:3]
        shape = dz.shape
        dz = dz.reshape(-1, shape[-1])
        dh = dz.mm(weight.to(dz.dtype)).view(*shape[:-1], -1) if needs_h else None
        try:
            dw, db, norms = ctx.plan.backward(block, dz, needs_bias, ctx.shared.wants_norms)
            if ctx.shared.watched is not None:
                ctx.sampled.sampling.planning.note(ctx.sampled, ctx.shared.watched, norms, dw)
            ctx.shared.finish_backward(ctx.reader, ctx.plan, block, norms, ctx.sampled.sampling.deferred)
        except Error as error:
            raise error.within(f"layer {ctx.sampled.name!r}") from error
        # A cast brings dW into the parameter's layout with the same copy; otherwise torch does so where it is needed.
        dw = dw.to(ctx.weight_dtype, memory_format=torch.contiguous_format)
        return (
            dh,
            dw,
            db.to(ctx.bias_dtype) if needs_bias else None,
            None, None, None, None,
        )  # fmt: skip
