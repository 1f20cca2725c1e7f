"""torch's scaled_dot_product_attention, with what its kernel saves packed in 8 bits: Q, K, V and the output.

torch chooses the kernel, and so what is saved. The kernel runs in a graph of its own, whose saved tensors are replaced:
matrices by packed ones, each once, and the mask by the tensors that it was made from. What is small or must be exact,
such as the sum of each row, stays. The backward pass computes the probabilities again from packed Q and K. So the
gradient has a bias, of second order in their noise.
"""

from __future__ import annotations

import torch
from torch.autograd.function import once_differentiable
from torch.autograd.graph import get_gradient_edge, saved_tensors_hooks

from ..modes import admitting_state, traced
from ..operators.packed_tensors import Layout
from .operands import Sizes


def attend_packed(operators, query, key, value, mask, bias, causal, scaling, dropout):
    if causal and key.shape[2] > query.shape[2]:
        # A first pass over a cache of a fixed size has more keys than queries.
        key, value = (t[:, :, : query.shape[2]] for t in (key, value))
        bias = None if bias is None else bias[..., : query.shape[2]]
    bias = None if bias is None else bias.detach()
    kernel = Kernel(mask is not None or bias is not None, causal, scaling, dropout, query, key)
    with torch.autocast(query.device.type, enabled=False):
        if traced(query):
            return attend_traced(operators, query, key, value, kernel.mask(mask, bias), kernel)
        return PackedAttention.apply(query, key, value, mask, bias, kernel, operators)


def attend_traced(operators, query, key, value, mask, kernel):
    """By the operator of `ops`, which has torch's kernel for the CPU."""
    passes, words, packing = torch.ops.wtacrs, operators.randomness.words, operators.operand_packing
    strides = [*query.stride(), *key.stride(), *value.stride()]
    with admitting_state(query):
        keys = passes.kernel_keys(words, query, Sizes.of(query, key, value), strides, packing)
    return passes.kernel_attention(
        query, key, value, mask, keys, kernel.causal, kernel.scaling, strides, packing
    )[0]  # fmt: skip


def serves_traced(query, key, value, dropout):
    """Whether a trace has an operator for it."""
    return query.device.type == "cpu" and not dropout and query.shape[3] == key.shape[3] == value.shape[3]


class Kernel:
    """torch's kernel, with its arguments other than the operands."""

    def __init__(self, masked, causal, scaling, dropout, query, key):
        self.causal = causal and not masked
        self.masks_bias = causal and masked
        self.scaling, self.dropout = scaling, dropout
        self.queries, self.keys, self.dtype, self.device = query.shape[2], key.shape[2], query.dtype, query.device
        self.grouped = {"enable_gqa": True} if query.shape[1] != key.shape[1] else {}

    def mask(self, mask, bias):
        """One mask to add to the scores, or None."""
        if bias is None:
            if mask is None or mask.dtype != torch.bool:
                return mask
            return torch.zeros(mask.shape, dtype=self.dtype, device=self.device).masked_fill_(~mask, -torch.inf)
        bias = bias.to(self.dtype)
        if mask is None and self.masks_bias:
            mask = torch.ones(self.queries, self.keys, dtype=torch.bool, device=self.device).tril()
        if mask is None:
            return bias
        return torch.where(mask, bias, torch.finfo(self.dtype).min) if mask.dtype == torch.bool else bias + mask

    def __call__(self, query, key, value, mask):
        """The output, batch x queries x heads x channels."""
        output = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=self.dropout, is_causal=self.causal, scale=self.scaling,
            **self.grouped,
        )  # fmt: skip
        return output.transpose(1, 2).contiguous()


class PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, mask, bias, kernel, operators):
        saved = []

        def save(tensor):
            saved.append(tensor.detach())
            return len(saved) - 1

        ctx.kernel = kernel
        # The graph within refers to this, and not to ctx, which refers to the graph.
        ctx.restored = restored = {}
        added = kernel.mask(mask, bias)
        with torch.enable_grad():
            anchor = torch.empty(0, requires_grad=True, device="cpu")
            inputs = [Entry.apply(anchor, operand.detach()) for operand in (query, key, value)]
            with saved_tensors_hooks(save, restored.__getitem__):
                output = kernel(*inputs, added)
        ctx.inputs, ctx.output = [get_gradient_edge(t) for t in inputs], get_gradient_edge(output)
        masks = None if added is None else added.untyped_storage().data_ptr()
        remade = added is not mask
        ctx.tensors, ctx.indices, blocks, places = [], [], [], {}
        for tensor in saved:
            storage = tensor.untyped_storage().data_ptr()
            view = tensor.shape, tensor.stride(), tensor.storage_offset()
            if (storage, *view) not in places:
                places[storage, *view] = len(blocks)
                if storage == masks and remade:
                    ctx.tensors.append(view)
                    blocks.append(None)
                elif is_matrix(tensor) and storage != masks:
                    layout = Layout.of(tensor, operators.operand_packing)
                    ctx.tensors.append(layout)
                    blocks.append(layout.packed(tensor, *operators.draw(layout.plan)))
                else:
                    ctx.tensors.append(None)
                    blocks.append(tensor)
            ctx.indices.append(places[storage, *view])
        ctx.save_for_backward(mask if remade else None, bias if remade else None, *blocks)
        return output.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx, doutput):
        mask, bias, *blocks = ctx.saved_tensors
        tensors = []
        for kept, block in zip(ctx.tensors, blocks):
            if kept is None:
                tensors.append(block)
            elif isinstance(kept, Layout):
                tensors.append(kept.restore(block))
            else:
                tensors.append(ctx.kernel.mask(mask, bias).as_strided(*kept))
        ctx.restored.update(enumerate(tensors[index] for index in ctx.indices))
        del tensors, blocks
        with torch.autocast(doutput.device.type, enabled=False):
            gradients = torch.autograd.grad([ctx.output], ctx.inputs, [doutput])
        ctx.restored.clear()
        return *gradients, None, None, None, None


def is_matrix(tensor):
    """Whether a saved tensor has a matrix for each head. cuDNN's kernel saves a number for each row with a last axis of
    one."""
    return tensor.is_floating_point() and tensor.ndim == 4 and tensor.shape[3] > 1


class Entry(torch.autograd.Function):
    """A tensor as the input of a graph that does not keep it."""

    @staticmethod
    def forward(ctx, anchor, tensor):
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient):
        return None, None
