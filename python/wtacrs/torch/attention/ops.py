"""Attention as custom operators (`custom_ops`).

`attention` saves probabilities (see `probabilities`), `kernel_attention` is torch's kernel for the CPU with what it
saves packed (see `scaled_dot_product`).
"""

from __future__ import annotations

import torch

from ..custom_ops import define, fake, keys_of, library, or_nothing, taken, words
from ..devices import device_of
from ..operators.packed_tensors import Layout
from .operands import Sizes
from .probabilities import Form, passes_for


def passes_of(form, sizes, tensor):
    return passes_for(Form.parse(form), Sizes(*map(int, sizes)), device_of(tensor.device))


# Attention that saves its probabilities


@define("attention_keys(Tensor(a!) randomness, Tensor query, SymInt[] sizes, str form) -> Tensor")
def attention_keys(randomness, query, sizes, form):
    """Seed and offset of each plan that draws, without dropout's, which come from `mask_key`."""
    plans = passes_of(form, sizes, query).drawing
    return keys_of([taken(randomness, plan.draws) for plan in plans if not plan.dropout])


@fake(attention_keys)
def _(randomness, query, sizes, form):
    return randomness.new_empty(sum(not plan.dropout for plan in passes_of(form, sizes, query).drawing), 2)


@define(
    "attention(Tensor query, Tensor key, Tensor value, Tensor? bias, Tensor? mask, Tensor? mask_key, Tensor keys,"
    " str form) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
def attention(query, key, value, bias, mask, mask_key, keys, form):
    """The output, and what the backward pass needs beside its arguments, each perhaps without elements."""
    passes = passes_of(form, Sizes.of(query, key, value), query)
    draws = [] if mask_key is None else [words(mask_key)]
    draws += [words(pair) for pair in keys]
    with torch.autocast(query.device.type, enabled=False):
        output, *saved, alive = passes.forward(query, key, value, bias, mask, draws)
    if alive is None and masks_queries(passes.form, bias, mask):
        alive = mask.new_ones(*mask.shape[:-1], 1)
    return output, *(or_nothing(tensor, query, torch.uint8) for tensor in saved), or_nothing(alive, query, torch.bool)


def masks_queries(form, bias, mask):
    """Whether a query may attend to nothing, for which torch returns zeros."""
    return mask is not None and mask.dtype == torch.bool and bias is None and not form.causal


@fake(attention)
def _(query, key, value, bias, mask, mask_key, keys, form):
    sizes = Sizes.of(query, key, value)
    passes = passes_of(form, sizes, query)
    output = query.new_empty(sizes.batch, sizes.rows, sizes.heads, sizes.values)
    block = lambda plan: query.new_empty(plan.saved_bytes, dtype=torch.uint8)
    nothing = lambda: query.new_empty(0, dtype=torch.uint8)
    operands = [block(plan) for plan in passes.operands.drawing]
    operands += [nothing() for _ in range(3 - len(operands))]
    if passes.form.packs:
        probabilities, dropping = block(passes.softmax), nothing()
    else:
        shape = sizes.batch * sizes.groups, sizes.heads // sizes.groups * sizes.rows, sizes.keys
        probabilities = query.new_empty(shape, dtype=torch.float32)
        dropping = nothing() if passes.dropout is None else block(passes.dropout)
    if masks_queries(passes.form, bias, mask):
        alive = mask.new_empty(*mask.shape[:-1], 1)
    else:
        alive = query.new_empty(0, dtype=torch.bool)
    return output, *operands, probabilities, dropping, alive


@define(
    "attention_backward(Tensor doutput, Tensor[] blocks, Tensor probabilities, Tensor dropping, Tensor alive,"
    " SymInt[] sizes, SymInt[]? of_bias, str form) -> (Tensor, Tensor, Tensor, Tensor)"
)
def attention_backward(doutput, blocks, probabilities, dropping, alive, sizes, of_bias, form):
    passes = passes_of(form, sizes, doutput)
    given = [tensor if tensor.numel() else None for tensor in (dropping, alive)]
    with torch.autocast(doutput.device.type, enabled=False):
        gradients = passes.backward(doutput, blocks, probabilities, *given, True, True, of_bias)
    return tuple(or_nothing(gradient, probabilities, torch.float32).contiguous() for gradient in gradients)


@fake(attention_backward)
def _(doutput, blocks, probabilities, dropping, alive, sizes, of_bias, form):
    sizes = Sizes(*sizes)
    make = lambda *shape: doutput.new_empty(shape, dtype=torch.float32)
    return (
        make(sizes.batch, sizes.heads, sizes.rows, sizes.channels),
        make(sizes.batch, sizes.groups, sizes.keys, sizes.channels),
        make(sizes.batch, sizes.groups, sizes.keys, sizes.values),
        make(0) if of_bias is None else make(*of_bias),
    )


def _save_attention(ctx, inputs, output):
    query, key, value, bias, *_, ctx.form = inputs
    _, *blocks, probabilities, dropping, alive = output
    ctx.sizes = Sizes.of(query, key, value)
    if passes_of(ctx.form, ctx.sizes, query).operands.whole:
        blocks = query, key, value
    ctx.save_for_backward(*blocks, probabilities, dropping, alive)
    ctx.dtype, ctx.of_bias = query.dtype, None if bias is None else (bias.shape, bias.dtype)
    ctx.mark_non_differentiable(*output[1:])


def _attention_gradients(ctx, doutput, *_):
    *blocks, probabilities, dropping, alive = ctx.saved_tensors
    of_bias = ctx.of_bias if ctx.needs_input_grad[3] else (None, None)
    *gradients, dbias = attention_backward(
        doutput, blocks, probabilities, dropping, alive, ctx.sizes, of_bias[0], ctx.form
    )
    needed = zip(gradients, ctx.needs_input_grad)
    gradients = [gradient.to(ctx.dtype) if needs else None for gradient, needs in needed]
    return *gradients, None if of_bias[1] is None else dbias.to(of_bias[1]), None, None, None, None


torch.library.register_autograd(attention._name, _attention_gradients, setup_context=_save_attention, lib=library)


# torch's kernel for the CPU. `strides` are those of Q, K and V, one behind the other.


def layouts(sizes, strides, dtype, device, packing):
    """Of what the kernel saves: K, Q, V and its output, in the order in which it saves them."""
    sizes, strides = Sizes(*map(int, sizes)), [int(stride) for stride in strides]
    of_query, of_key, of_value = strides[:4], strides[4:8], strides[8:]
    rows, values = sizes.rows, sizes.values
    of_output = (rows * sizes.heads * values, values, sizes.heads * values, 1)
    arrays = [
        ((sizes.batch, sizes.groups, sizes.keys, sizes.channels), of_key),
        ((sizes.batch, sizes.heads, rows, sizes.channels), of_query),
        ((sizes.batch, sizes.groups, sizes.keys, values), of_value),
        ((sizes.batch, sizes.heads, rows, values), of_output),
    ]
    return [Layout(shape, stride, dtype, device, packing) for shape, stride in arrays]


@define("kernel_keys(Tensor(a!) randomness, Tensor query, SymInt[] sizes, SymInt[] strides, int packing) -> Tensor")
def kernel_keys(randomness, query, sizes, strides, packing):
    packed = layouts(sizes, strides, query.dtype, query.device, packing)
    return keys_of([taken(randomness, layout.plan.draws) for layout in packed])


@fake(kernel_keys)
def _(randomness, query, sizes, strides, packing):
    return randomness.new_empty(4, 2)


@define(
    "kernel_attention(Tensor query, Tensor key, Tensor value, Tensor? mask, Tensor keys, bool causal, float scaling,"
    " SymInt[] strides, int packing) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
def kernel_attention(query, key, value, mask, keys, causal, scaling, strides, packing):
    """The output, batch x rows x heads x values; the logarithm of each row's sum; packed K, Q, V and output."""
    output, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, attn_mask=mask, scale=scaling
    )
    packed = layouts(Sizes.of(query, key, value), strides, query.dtype, query.device, packing)
    blocks = [
        layout.packed(tensor, *words(pair)) for layout, tensor, pair in zip(packed, (key, query, value, output), keys)
    ]
    # An operator's outputs share no memory.
    return output.transpose(1, 2).clone(memory_format=torch.contiguous_format), sums.contiguous(), *blocks


@fake(kernel_attention)
def _(query, key, value, mask, keys, causal, scaling, strides, packing):
    sizes = Sizes.of(query, key, value)
    packed = layouts(sizes, strides, query.dtype, query.device, packing)
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    sums = query.new_empty(sizes.batch, sizes.heads, sizes.rows, dtype=dtype)
    blocks = [query.new_empty(layout.plan.saved_bytes, dtype=torch.uint8) for layout in packed]
    return query.new_empty(sizes.batch, sizes.rows, sizes.heads, sizes.values), sums, *blocks


@define(
    "kernel_attention_backward(Tensor doutput, Tensor[] blocks, Tensor sums, Tensor? mask, SymInt[] sizes, bool causal,"
    " float scaling, SymInt[] strides, int packing) -> (Tensor, Tensor, Tensor)"
)
def kernel_attention_backward(doutput, blocks, sums, mask, sizes, causal, scaling, strides, packing):
    packed = layouts(sizes, strides, doutput.dtype, doutput.device, packing)
    key, query, value, output = (layout.restore(block) for layout, block in zip(packed, blocks))
    # The kernel's own sums have a row's heads side by side.
    sums = sums.transpose(1, 2).contiguous().transpose(1, 2)
    gradients = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        doutput.transpose(1, 2), query, key, value, output, sums, 0.0, causal, attn_mask=mask, scale=scaling
    )
    return tuple(gradient.contiguous() for gradient in gradients)


@fake(kernel_attention_backward)
def _(doutput, blocks, sums, mask, sizes, causal, scaling, strides, packing):
    sizes = Sizes(*sizes)
    return (
        doutput.new_empty(sizes.batch, sizes.heads, sizes.rows, sizes.channels),
        doutput.new_empty(sizes.batch, sizes.groups, sizes.keys, sizes.channels),
        doutput.new_empty(sizes.batch, sizes.groups, sizes.keys, sizes.values),
    )


def _save_kernel(ctx, inputs, output):
    query, key, value, mask, _, *ctx.settings = inputs
    ctx.sizes = Sizes.of(query, key, value)
    ctx.save_for_backward(mask, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _kernel_gradients(ctx, doutput, *_):
    mask, sums, *blocks = ctx.saved_tensors
    gradients = kernel_attention_backward(doutput, blocks, sums, mask, ctx.sizes, *ctx.settings)
    needed = zip(gradients, ctx.needs_input_grad)
    return *(gradient if needs else None for gradient, needs in needed), *(None,) * 6


torch.library.register_autograd(kernel_attention._name, _kernel_gradients, setup_context=_save_kernel, lib=library)
