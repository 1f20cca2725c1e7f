"""Attention whose probabilities are saved: where dropout thins them, or where a bias of the scores is learned.

    S = scaling · Q Kᵀ + bias + mask,  P = softmax(S),  O = dropout(P) V

The graph holds Q, K, V and P, as they are or packed. The dropped probabilities are made again from P and the mask's
counters. Products and softmax are f32, whatever the operands' dtype.
"""

from __future__ import annotations

import torch
from torch.autograd.function import once_differentiable

from . import devices
from .operators import plan_for


def attend(operators, query, key, value, mask, bias, causal, scaling, dropout):
    plans = Plans(operators, query, key, dropout)
    with torch.autocast(query.device.type, enabled=False):
        return ProbabilityAttention.apply(query, key, value, bias, mask, causal, scaling, plans)


class Plans:
    """The operators of one shape of attention."""

    def __init__(self, operators, query, key, dropout):
        self.operators = operators
        batch, heads, queries, _ = query.shape
        device = devices.device_of(query.device)
        shape = (batch * heads * queries, key.shape[2])
        make = lambda operation, **options: plan_for(device, shape, torch.float32, operation, **options)
        if operators.packs:
            self.softmax = make("softmax", packing=operators.packing, dropout=dropout)
            self.dropout = None
        else:
            self.softmax = make("softmax")
            self.dropout = make("identity", dropout=dropout) if dropout else None

    def pack(self, operand):
        plan = self.packing_of(operand.shape, operand.device)
        return plan.forward(operand, None, *self.operators.draw(plan))

    def restored(self, saved, shape, device):
        return self.packing_of(shape, device).restore(saved, torch.empty(shape, device=device))

    def packing_of(self, shape, device):
        heads, rows, channels = shape
        return plan_for(
            devices.device_of(device), (heads, rows * channels), torch.float32, "identity",
            packing=self.operators.operand_packing,
        )  # fmt: skip


class ProbabilityAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, bias, mask, causal, scaling, plans):
        operands = Operands(query, key, value)
        q, k, v = operands.queries(query), operands.keys(key), operands.keys(value)
        packs = plans.operators.packs
        ctx.plans, ctx.operands, ctx.scaling = plans, operands, scaling
        ctx.dtypes = query.dtype, None if bias is None else (bias.shape, bias.dtype)
        blocks = [plans.pack(t) for t in (q, k, v)] if packs else [query, key, value]
        scores = torch.bmm(q if scaling == 1 else q * scaling, k.transpose(1, 2))
        alive = add_terms(operands.by_head(scores), bias, mask, causal)
        if packs:
            probabilities = plans.softmax.forward(scores, scores, *plans.operators.draw(plans.softmax))
            dropped, dropping = scores, None
        else:
            plans.softmax.forward(scores, scores, 0, 0)
            probabilities = dropped = scores
            dropping = None
            if plans.dropout is not None:
                ctx.key = plans.operators.draw(plans.dropout)
                dropped = torch.empty_like(scores)
                dropping = plans.dropout.forward(scores, dropped, *ctx.key)
        output = operands.by_head(torch.bmm(dropped, v))
        if alive is not None:
            output = output * alive
        ctx.save_for_backward(*blocks, probabilities, dropping, alive)
        return output.transpose(1, 2).to(query.dtype, memory_format=torch.contiguous_format).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx, doutput):
        # A backward pass may run within autocast, too.
        with torch.autocast(doutput.device.type, enabled=False):
            return ProbabilityAttention.gradients(ctx, doutput)

    @staticmethod
    def gradients(ctx, doutput):
        *blocks, probabilities, dropping, alive = ctx.saved_tensors
        plans, operands, scaling = ctx.plans, ctx.operands, ctx.scaling
        packs = plans.operators.packs
        doutput = doutput.transpose(1, 2)
        doutput = operands.queries(doutput if alive is None else doutput * alive)
        operand = lambda which: (
            plans.restored(blocks[which], operands.shapes[which], doutput.device)
            if packs
            else (operands.queries if which == 0 else operands.keys)(blocks[which])
        )
        scores_shape = (len(doutput), doutput.shape[1], operands.shapes[1][1])
        if packs:
            dropped = plans.softmax.restore(probabilities, torch.empty(scores_shape, device=doutput.device))
        elif plans.dropout is None:
            dropped = probabilities
        else:
            dropped = torch.empty_like(probabilities)
            plans.dropout.forward(probabilities, dropped, *ctx.key)
        dvalue = torch.bmm(dropped.transpose(1, 2), doutput)
        del dropped
        dscores = torch.bmm(doutput, operand(2).transpose(1, 2))
        if packs:
            plans.softmax.backward(probabilities, dscores, dscores)
        else:
            if plans.dropout is not None:
                plans.dropout.backward(dropping, dscores, dscores)
            plans.softmax.backward(None, dscores, dscores, y=probabilities)
        dtype, of_bias = ctx.dtypes
        needs_q, needs_k, needs_v, needs_bias = ctx.needs_input_grad[:4]
        dquery = torch.bmm(dscores, operand(1)).mul_(scaling) if needs_q else None
        dkey = torch.bmm(dscores.transpose(1, 2), operand(0)).mul_(scaling) if needs_k else None
        dbias = None
        if needs_bias:
            shape, bias_dtype = of_bias
            dbias = operands.by_head(dscores).sum_to_size(shape).to(bias_dtype)
        return (
            None if dquery is None else operands.by_head(dquery).to(dtype),
            None if dkey is None else operands.by_group(dkey).to(dtype),
            operands.by_group(dvalue).to(dtype) if needs_v else None,
            dbias, None, None, None, None,
        )  # fmt: skip


class Operands:
    """Q, K and V as batches of matrices in f32. Query heads that share a key head are rows of one matrix, so that
    nothing is repeated and the gradients of K and V add up."""

    def __init__(self, query, key, value):
        self.batch, self.heads, self.rows, channels = query.shape
        self.groups = key.shape[1]
        of_queries = (self.batch * self.groups, self.heads // self.groups * self.rows, channels)
        self.shapes = of_queries, *((self.batch * self.groups, *operand.shape[2:]) for operand in (key, value))

    def queries(self, tensor):
        rows = self.heads // self.groups * self.rows
        return tensor.reshape(self.batch * self.groups, rows, tensor.shape[-1]).float().contiguous()

    def keys(self, tensor):
        return tensor.reshape(self.batch * self.groups, *tensor.shape[2:]).float().contiguous()

    def by_head(self, matrices):
        return matrices.view(self.batch, self.heads, self.rows, matrices.shape[-1])

    def by_group(self, matrices):
        return matrices.view(self.batch, self.groups, *matrices.shape[1:])


def add_terms(scores, bias, mask, causal):
    """Adds bias and mask to the scores (batch x heads x queries x keys) in place. Returns which queries have a key at
    all, where torch's own gives zeros for the others; None if all have."""
    if bias is not None:
        scores += bias
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is None:
        return None
    if mask.dtype != torch.bool:
        scores += mask
        return None
    scores.masked_fill_(mask.logical_not(), torch.finfo(scores.dtype).min)
    if causal or bias is not None:
        # torch's own mask is then finite as well.
        return None
    alive = mask.any(-1, keepdim=True)
    return None if mask.device.type == "cpu" and alive.all() else alive
