"""What stands between the products as custom operators (`custom_ops`)."""

from __future__ import annotations

import torch

from ..custom_ops import contiguous, define, fake, library, or_nothing, taken, two_words, words
from ..randomness import MASK
from . import passes
from .passes import Description


def operator_plan(description, x):
    return passes.plan_of(x, Description.parse(description))


@define("dither(Tensor(a!) randomness, Tensor x, str description) -> Tensor")
def dither(randomness, x, description):
    """Seed and offset of a pass without dropout."""
    return two_words(*taken(randomness, operator_plan(description, x).draws))


@fake(dither)
def _(randomness, x, description):
    return randomness.new_empty(2)


@define("mask_key(Tensor randomness) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,))
def mask_key(randomness):
    """Seed and offset of a pass with dropout. The offset comes from torch's generator on the host, whose state is
    restored where a segment runs again."""
    return two_words(int(randomness[0]) & MASK, int(torch.randint(2**62, (), device="cpu")))


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
    dy = contiguous(dy)
    dx, dgate, dweight, dbias = fake_operator_backward(
        saved, dy, x, gate, y, weight, description, with_weight, with_bias
    )
    plan.backward(
        saved if len(saved) else None,
        dy,
        dx,
        x=contiguous(x),
        gate=contiguous(gate),
        y=y,
        weight=passes.floats(weight),
        dgate=dgate if plan.gated else None,
        dweight=dweight if with_weight else None,
        dbias=dbias if with_bias else None,
    )
    return dx, dgate, dweight, dbias


@fake(operator_backward)
def fake_operator_backward(saved, dy, x, gate, y, weight, description, with_weight, with_bias):
    dx = torch.empty_like(dy, memory_format=torch.contiguous_format)
    dgate = torch.empty_like(dx) if Description.parse(description).gated else dy.new_empty(0)
    dweight, dbias = (
        dy.new_empty(weight.shape if wanted else 0, dtype=torch.float32) for wanted in (with_weight, with_bias)
    )
    return dx, dgate, dweight, dbias


def _save_operator(ctx, inputs, output):
    x, gate, weight, bias, _, ctx.description = inputs
    y, saved = output
    plan = operator_plan(ctx.description, x)
    ctx.save_for_backward(
        saved,
        x if plan.keeps_input else None,
        gate if plan.keeps_gate else None,
        y if plan.keeps_output else None,
        weight,
    )
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.mark_non_differentiable(saved)


def _operator_gradients(ctx, dy, _):
    saved, x, gate, y, weight = ctx.saved_tensors
    _, needs_gate, needs_weight, needs_bias = ctx.needs_input_grad[:4]
    dx, dgate, dweight, dbias = operator_backward(
        saved, dy, x, gate, y, weight, ctx.description, needs_weight, needs_bias
    )
    return (
        dx,
        dgate if needs_gate else None,
        dweight.to(weight.dtype) if needs_weight else None,
        dbias.to(ctx.bias_dtype) if needs_bias else None,
        None,
        None,
    )


torch.library.register_autograd(operator._name, _operator_gradients, setup_context=_save_operator, lib=library)
