"""Attention that saves its probabilities: with dropout, or with a learned bias of the scores.

    S = scaling · Q Kᵀ + bias + mask,  P = softmax(S),  O = dropout(P) V

The graph holds Q, K and V (as they are, packed or sampled) and P (as it is or packed). The backward pass makes
dropout(P) again from P, seed and offset. Products and softmax are in f32, whatever the operands' dtype.
"""

from __future__ import annotations

import functools
import typing

import torch
from torch.autograd.function import once_differentiable

from .. import devices
from ..modes import admitting_state, traced
from ..operators.passes import plan_for
from ..packing import bits_of
from .operands import Sizes, operands_of


class Form(typing.NamedTuple):
    """How attention is computed and saved, whatever its shape. `packing` is that of the probabilities."""

    causal: bool
    scaling: float
    dropout: float
    packing: int | str
    operand_packing: int | str
    tensor_mul: float | None
    engine: str = "auto"

    @property
    def packs(self):
        return self.packing != "native"

    def __str__(self):
        return " ".join(map(str, self))

    @classmethod
    @functools.cache
    def parse(cls, text):
        causal, scaling, dropout, *packings, share, engine = text.split(" ")
        packings = map(bits_of, packings)
        share = None if share == "None" else float(share)
        return cls(causal == "True", float(scaling), float(dropout), *packings, share, engine)


def attend(shared, query, key, value, mask, bias, causal, scaling, dropout):
    form = Form(causal, scaling, dropout, shared.packing, shared.operand_packing, shared.tensor_mul, shared.engine)
    with torch.autocast(query.device.type, enabled=False):
        if traced(query):
            return attend_traced(shared, query, key, value, bias, mask, form)
        passes = passes_for(form, Sizes.of(query, key, value), devices.device_of(query.device))
        draws = [shared.draw(plan) for plan in passes.drawing]
        return ProbabilityAttention.apply(query, key, value, bias, mask, passes, draws)


def attend_traced(shared, query, key, value, bias, mask, form):
    words, text, library = shared.randomness.words, str(form), torch.ops.wtacrs
    sizes = Sizes.of(query, key, value)
    with admitting_state(query):
        mask_key = library.mask_key(words) if form.dropout else None
        keys = library.attention_keys(words, query, sizes, text)
    return library.attention(query, key, value, bias, mask, mask_key, keys, text)[0]


@functools.lru_cache(maxsize=256)
def passes_for(form, sizes, device):
    return Passes(form, sizes, device)


class Passes:
    """Both passes of attention for one form and shape. `drawing` lists the plans that draw, in their order: first that
    of dropout or of the packed probabilities, if there is one, then those of the operands."""

    def __init__(self, form, sizes, device):
        self.form, self.sizes = form, sizes
        self.operands = operands_of(form, sizes, device)
        shape = (sizes.batch * sizes.heads * sizes.rows, sizes.keys)
        make = lambda operation, **options: plan_for(device, shape, torch.float32, operation, **options)
        if form.packs:
            self.softmax, self.dropout = make("softmax", packing=form.packing, dropout=form.dropout), None
            of_probabilities = [self.softmax]
        else:
            self.softmax = make("softmax")
            self.dropout = make("identity", dropout=form.dropout) if form.dropout else None
            of_probabilities = [self.dropout] if form.dropout else []
        self.drawing = [*of_probabilities, *self.operands.drawing]

    def forward(self, query, key, value, bias, mask, draws):
        """The output, batch x rows x heads x values; then what the backward pass needs: three blocks of the operands,
        the probabilities, dropout's mask, and which queries attend to any key, each perhaps None."""
        operands, scaling = self.operands, self.form.scaling
        draws = list(draws)
        q, k, v = operands.queries(query), operands.keys(key), operands.keys(value)
        scores = torch.bmm(q if scaling == 1 else q * scaling, k.transpose(1, 2))
        alive = add_terms(operands.by_head(scores), bias, mask, self.form.causal)
        dropped, dropping = scores, None
        if self.form.packs:
            probabilities = self.softmax.forward(scores, scores, *draws.pop(0))
        else:
            self.softmax.forward(scores, scores, 0, 0)
            probabilities = scores
            if self.dropout is not None:
                dropped = torch.empty_like(scores)
                dropping = self.dropout.forward(scores, dropped, *draws.pop(0))
        blocks = operands.save((q, k, v), dropped, draws)
        output = operands.by_head(torch.bmm(dropped, v))
        if alive is not None:
            output = output * alive
        output = output.transpose(1, 2).to(query.dtype, memory_format=torch.contiguous_format).contiguous()
        return output, *blocks, probabilities, dropping, alive

    def backward(self, doutput, blocks, probabilities, dropping, alive, needs_query, needs_key, of_bias):
        """The gradients of the scaled scores' operands and of V, and of a bias whose shape is `of_bias`, in f32.
        `blocks` are those of the forward pass, or operands as they were given."""
        operands, scaling, packs = self.operands, self.form.scaling, self.form.packs
        doutput = doutput.transpose(1, 2)
        doutput = operands.queries(doutput if alive is None else doutput * alive)
        if packs:
            shape = (len(doutput), doutput.shape[1], self.sizes.keys)
            dropped = torch.empty(shape, dtype=torch.float32, device=doutput.device)
            dropped = self.softmax.restore(probabilities, dropped)
        elif self.dropout is None:
            dropped = probabilities
        else:
            # The gradient of dropout is dropout with the same mask.
            dropped = torch.empty_like(probabilities)
            self.dropout.backward(dropping, probabilities, dropped)
        dvalue = torch.bmm(dropped.transpose(1, 2), doutput)
        del dropped
        dscores = operands.of_probabilities(blocks, doutput)
        del doutput
        if packs:
            self.softmax.backward(probabilities, dscores, dscores)
        else:
            if self.dropout is not None:
                self.dropout.backward(dropping, dscores, dscores)
            self.softmax.backward(None, dscores, dscores, y=probabilities)
        dquery, dkey = operands.of_operands(blocks, dscores, needs_query, needs_key)
        return (
            None if dquery is None else operands.by_head(dquery.mul_(scaling)),
            None if dkey is None else operands.by_group(dkey.mul_(scaling)),
            operands.by_group(dvalue),
            None if of_bias is None else operands.by_head(dscores).sum_to_size(of_bias),
        )


class ProbabilityAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, bias, mask, passes, draws):
        output, *blocks, probabilities, dropping, alive = passes.forward(query, key, value, bias, mask, draws)
        ctx.passes = passes
        ctx.dtypes = query.dtype, None if bias is None else (bias.shape, bias.dtype)
        if passes.operands.whole:
            blocks = query, key, value
        ctx.save_for_backward(*blocks, probabilities, dropping, alive)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, doutput):
        *blocks, probabilities, dropping, alive = ctx.saved_tensors
        needs_query, needs_key, needs_value, needs_bias = ctx.needs_input_grad[:4]
        dtype, of_bias = ctx.dtypes
        # A backward pass may run within autocast, too.
        with torch.autocast(doutput.device.type, enabled=False):
            dquery, dkey, dvalue, dbias = ctx.passes.backward(
                doutput,
                blocks,
                probabilities,
                dropping,
                alive,
                needs_query,
                needs_key,
                of_bias[0] if needs_bias else None,
            )
        return (
            None if dquery is None else dquery.to(dtype),
            None if dkey is None else dkey.to(dtype),
            dvalue.to(dtype) if needs_value else None,
            dbias.to(of_bias[1]) if needs_bias else None,
            None, None, None,
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
