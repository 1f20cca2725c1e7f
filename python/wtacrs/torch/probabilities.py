"""Attention that saves its probabilities: with dropout, or with a learned bias of the scores.

    S = scaling · Q Kᵀ + bias + mask,  P = softmax(S),  O = dropout(P) V

The graph holds Q, K and V (as they are, packed or sampled) and P (as it is or packed). The backward pass makes
dropout(P) again from P, seed and offset. Products and softmax are in f32, whatever the operands' dtype.
"""

from __future__ import annotations

import torch
from torch.autograd.function import once_differentiable

from . import devices
from .attention_operands import operands_of
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


class ProbabilityAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, bias, mask, causal, scaling, plans):
        operands = operands_of(plans.operators, query, key, value)
        q, k, v = operands.queries(query), operands.keys(key), operands.keys(value)
        packs = plans.operators.packs
        ctx.plans, ctx.operands, ctx.scaling = plans, operands, scaling
        ctx.dtypes = query.dtype, None if bias is None else (bias.shape, bias.dtype)
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
        blocks = operands.save((query, key, value), (q, k, v), dropped)
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
        scores_shape = (len(doutput), doutput.shape[1], operands.shapes[1][1])
        if packs:
            made = torch.empty(scores_shape, dtype=torch.float32, device=doutput.device)
            dropped = plans.softmax.restore(probabilities, made)
        elif plans.dropout is None:
            dropped = probabilities
        else:
            dropped = torch.empty_like(probabilities)
            plans.dropout.forward(probabilities, dropped, *ctx.key)
        dvalue = torch.bmm(dropped.transpose(1, 2), doutput)
        del dropped
        dscores = operands.of_probabilities(blocks, doutput)
        if packs:
            plans.softmax.backward(probabilities, dscores, dscores)
        else:
            if plans.dropout is not None:
                plans.dropout.backward(dropping, dscores, dscores)
            plans.softmax.backward(None, dscores, dscores, y=probabilities)
        dtype, of_bias = ctx.dtypes
        needs_q, needs_k, needs_v, needs_bias = ctx.needs_input_grad[:4]
        dquery, dkey = operands.of_operands(blocks, dscores, needs_q, needs_k)
        dbias = None
        if needs_bias:
            shape, bias_dtype = of_bias
            dbias = operands.by_head(dscores).sum_to_size(shape).to(bias_dtype)
        return (
            None if dquery is None else operands.by_head(dquery.mul_(scaling)).to(dtype),
            None if dkey is None else operands.by_group(dkey.mul_(scaling)).to(dtype),
            operands.by_group(dvalue).to(dtype) if needs_v else None,
            dbias, None, None, None, None,
        )  # fmt: skip


def add_terms(scores, bias, mask, causal):
    """Adds bias and mask to the scores (batch x heads x queries x keys) in place. Returns which queries attend to any
    key if torch returns zeros for the others, else None."""
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
        # torch's mask is then finite as well.
        return None
    alive = mask.any(-1, keepdim=True)
    return None if mask.device.type == "cpu" and alive.all() else alive
