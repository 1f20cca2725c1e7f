"""The passes of linear layers as custom operators (`custom_ops`)."""

from __future__ import annotations

import functools
import itertools
import weakref

import torch

from ..._native import Error
from ..custom_ops import define, fake, library, or_nothing, taken
from ..devices import device_of
from ..modes import admitting_state, state
from ..packing import bits_of
from . import plans
from .batch_layout import Batch
from .guesses import Input

# Converted layers, by the number in their `site`.
_sites = weakref.WeakValueDictionary()
_numbers = itertools.count()


def site_of(layer):
    """A tensor that stands for the layer."""
    number = next(_numbers)
    _sites[number] = layer
    return state(number, 0)


def at_site(site):
    layer = _sites.get(int(site[0]))
    if layer is None:
        raise Error("a compiled pass of a layer that is no longer converted")
    return layer


def describe(budget, bits, design, source, engine, dtype):
    """Of a layer: what it keeps, as one word of a graph. `dtype` is that of its input."""
    return f"{budget} {bits} {design} {source} {engine} {dtype}"


@functools.cache
def described(keep):
    budget, bits, design, source, engine, dtype = keep.split(" ")
    return float(budget), bits_of(bits), design, source, engine, getattr(torch, dtype.removeprefix("torch."))


def rows_plan(keep, torch_device, tokens, in_features, out_features):
    *kept, dtype = described(keep)
    shape = (int(tokens), int(in_features), int(out_features))
    return plans.plan_for(device_of(torch_device), shape, dtype, *kept, plans.precision())


def batch_of(samples, mask):
    return None if samples is None else Batch(samples, mask)


@define(
    "pack_rows(Tensor h, Tensor(a!) randomness, Tensor site, Tensor? samples, Tensor? mask, int out_features, str keep)"
    " -> Tensor"
)
def pack_rows(h, randomness, site, samples, mask, out_features, keep):
    rows = h.reshape(-1, h.shape[-1])
    plan = rows_plan(keep, h.device, *rows.shape, out_features)
    layer = at_site(site)
    guess = Input() if plan.packs_all else layer.sampling.guess(layer.name, h.shape[-1])
    guess.move(plan.device)
    prior = guess.prior(batch_of(samples, mask), len(rows))
    try:
        return plan.forward(rows, prior, guess.predictor, *taken(randomness, plan.draws))
    except Error as error:
        raise error.within(f"layer {layer.name!r}") from error


@fake(pack_rows)
def _(h, randomness, site, samples, mask, out_features, keep):
    in_features = int(h.shape[-1])
    tokens = h.numel() // in_features
    if h.device.type == "cpu":
        # The number of tokens may be a symbol.
        budget, bits, *_ = described(keep)
        saved = plans.block_bytes(tokens, in_features, h.element_size(), budget, bits)
    else:
        saved = rows_plan(keep, h.device, tokens, in_features, out_features).native.saved_bytes
    return h.new_empty(saved, dtype=torch.uint8)


@define(
    "weight_gradient(Tensor block, Tensor dz, int in_features, str keep, bool with_bias, bool with_squares)"
    " -> (Tensor, Tensor, Tensor)"
)
def weight_gradient(block, dz, in_features, keep, with_bias, with_squares):
    plan = rows_plan(keep, dz.device, dz.shape[0], in_features, dz.shape[1])
    weight, bias, norms = plan.backward(block, dz, with_bias, with_squares)
    return weight, or_nothing(bias, dz), dz.new_empty(0) if norms is None else norms.double().square_()


@fake(weight_gradient)
def _(block, dz, in_features, keep, with_bias, with_squares):
    tokens, out_features = dz.shape
    sums = torch.float64 if dz.dtype == torch.float64 else torch.float32
    if dz.device.type == "cpu":
        weight = dz.new_empty(out_features, in_features, dtype=sums)
    else:
        weight = dz.new_empty(in_features, out_features, dtype=sums).T
    bias = dz.new_empty(out_features if with_bias else 0, dtype=sums if with_bias else dz.dtype)
    squares = dz.new_empty(tokens, dtype=torch.float64) if with_squares else dz.new_empty(0)
    return weight, bias, squares


@define("linear(Tensor h, Tensor weight, Tensor? bias, Tensor block, Tensor? joint, str keep) -> Tensor")
def linear(h, weight, bias, block, joint, keep):
    return plans.product(h, weight, bias)


@fake(linear)
def _(h, weight, bias, block, joint, keep):
    return h.new_empty(*h.shape[:-1], weight.shape[0])


def _save_linear(ctx, inputs, output):
    _, weight, bias, block, joint, ctx.keep = inputs
    ctx.save_for_backward(weight if ctx.needs_input_grad[0] else None, block)
    ctx.in_features, ctx.weight_dtype = int(weight.shape[1]), weight.dtype
    ctx.bias_dtype = None if bias is None else bias.dtype
    # As long as this node lives, other layers can join.
    ctx.joint = joint


def _linear_gradients(ctx, dz):
    weight, block = ctx.saved_tensors
    needs_h, _, needs_bias = ctx.needs_input_grad[:3]
    dh = dz.matmul(weight.to(dz.dtype)) if needs_h else None
    rows = dz.reshape(-1, dz.shape[-1])
    dw, db, squares = weight_gradient(block, rows, ctx.in_features, ctx.keep, needs_bias, ctx.joint is not None)
    return (
        dh,
        dw.to(ctx.weight_dtype, memory_format=torch.contiguous_format),
        db.to(ctx.bias_dtype) if needs_bias else None,
        None,
        None if ctx.joint is None else squares,
        None,
    )


torch.library.register_autograd(linear._name, _linear_gradients, setup_context=_save_linear, lib=library)


@define(
    "joint(Tensor block, Tensor weight, Tensor site, Tensor? samples, Tensor? mask, SymInt tokens, int in_features,"
    " str keep) -> Tensor"
)
def joint(block, weight, site, samples, mask, tokens, in_features, keep):
    """Zeros, one for each token, for all layers that read one H. Their gradient is the sum over these layers of
    ‖dZ_i‖², and torch computes it when the last of them has finished its backward pass. Then the guess learns.
    `weight` is there because it requires a gradient, and gets none from here."""
    return torch.zeros(tokens, dtype=torch.float64, device=block.device)


@fake(joint)
def _(block, weight, site, samples, mask, tokens, in_features, keep):
    return block.new_empty(tokens, dtype=torch.float64)


def _save_joint(ctx, inputs, output):
    block, _, site, samples, mask, _, ctx.in_features, ctx.keep = inputs
    ctx.save_for_backward(block, site, samples, mask)


def _learn_jointly(ctx, squares):
    block, site, samples, mask = ctx.saved_tensors
    with admitting_state(block):
        learn(site, block, squares, samples, mask, ctx.in_features, ctx.keep)
    return (None,) * 8


torch.library.register_autograd(joint._name, _learn_jointly, setup_context=_save_joint, lib=library)


@define(
    "learn(Tensor(a!) site, Tensor block, Tensor squares, Tensor? samples, Tensor? mask, int in_features, str keep)"
    " -> ()"
)
def learn(site, block, squares, samples, mask, in_features, keep):
    layer = at_site(site)
    plan = rows_plan(keep, block.device, len(squares), in_features, 1)
    sampling = layer.sampling
    guess = sampling.guess(layer.name, in_features)
    guess.learn(plan, block, squares.sqrt().float(), batch_of(samples, mask), sampling.deferred)
    site[1] += 1


@fake(learn)
def _(site, block, squares, samples, mask, in_features, keep):
    pass
