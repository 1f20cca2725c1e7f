"""What stands between the products as custom operators (`custom_ops`)."""

from __future__ import annotations

import torch

from ..custom_ops import contiguous, define, fake, key_of, library, or_nothing, taken, words
from ..randomness import from_torch
from . import passes
from .passes import Description


def operator_plan(description, x):
    return passes.plan_of(x, Description.parse(description))


@define("dither(Tensor(a!) randomness, Tensor x, str description) -> Tensor")
def dither(randomness, x, description):
    """Seed and offset of a pass without dropout."""
    return key_of(*taken(randomness, operator_plan(description, x).draws))


@fake(dither)
def _(randomness, x, description):
    return randomness.new_empty(2)


@define("mask_key(Tensor randomness) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,))
def mask_key(randomness):
    """Seed and offset of a pass with dropout. The offset comes from torch's generator on the host, whose state is
    restored where a segment runs again."""
    return key_of(words(randomness)[0], from_torch())


@fake(mask_key)
def _(randomness):
    return randomness.new_empty(2)


@define(
    "operator(Tensor x, Tensor? gate, Tensor? weight, Tensor? bias, Tensor key, str description) -> (Tensor, Tensor)"
)
def operator(x, gate, weight, bias, key, description):
    """y, and what the backward pass needs beside x, gate and y."""
    plan = operator_plan(description, x)
    x = contiguous(x)
    y = torch.empty_like(x)
    saved = plan.forward(x, y, *words(key), contiguous(gate), passes.floats(weight), passes.floats(bias))
    return y, or_nothing(saved, x, torch.uint8)


@fake(operator)
def _(x, gate, weight, bias, key, description):
    saved = operator_plan(description, x).saved_bytes
    return torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(saved, dtype=torch.uint8)


@define(
    "operator_backward(Tensor saved, Tensor dy, Tensor? x, Tensor? gate, Tensor? y, Tensor? weight, str description,"
    " bool with_weight, bool with_bias) -> (Tensor, Tensor, Tensor, Tensor)"
)
def operator_backward(saved, dy, x, gate, y, weight, description, with_weight, with_bias):
    plan = operator_plan(description, dy)
    kept = saved if len(saved) else None, contiguous(x), contiguous(gate), y, weight
    dx, dgate, *of_parameters = passes.gradients(plan, dy, *kept, with_weight, with_bias)
    return dx, or_nothing(dgate, dy), *(or_nothing(made, dy, torch.float32) for made in of_parameters)


@fake(operator_backward)
def _(saved, dy, x, gate, y, weight, description, with_weight, with_bias):
    dx = torch.empty_like(dy, memory_format=torch.contiguous_format)
    dgate = torch.empty_like(dx) if Description.parse(description).gated else dy.new_empty(0)
    dweight, dbias = (
        dy.new_empty(weight.shape if wanted else 0, dtype=torch.float32) for wanted in (with_weight, with_bias)
    )
    return dx, dgate, dweight, dbias


def _save_operator(ctx, inputs, output):
    x, gate, weight, bias, _, ctx.description = inputs
    y, saved = output
    passes.keep(ctx, operator_plan(ctx.description, x), saved, x, gate, y, weight, bias)
    ctx.mark_non_differentiable(saved)


def _operator_gradients(ctx, dy, _):
    saved, *kept = ctx.saved_tensors
    found = operator_backward(saved, dy, *kept, ctx.description, *ctx.needs_input_grad[2:4])
    return *passes.needed(ctx, *found), None, None


torch.library.register_autograd(operator._name, _operator_gradients, setup_context=_save_operator, lib=library)
