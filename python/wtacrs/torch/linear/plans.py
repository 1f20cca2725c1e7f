"""The two passes of a linear layer on torch tensors, with one plan for each shape, whatever the layer; and whether what
they save is less than the layer's input."""

from __future__ import annotations

import functools
import math

import torch

from ... import _native
from ..._native import Error, LayerPlan
from ..devices import address
from ..packing import OVERHEAD, packed_elements, row_bytes


def precision():
    """How torch itself multiplies f32 on a GPU."""
    return "f32" if torch.get_float32_matmul_precision() == "highest" else "tf32"


@functools.lru_cache(maxsize=1024)
def plan_for(device, shape, dtype, budget, bits, design, source, engine, precision):
    """`shape` is (tokens, in_features, out_features), and `budget` a share of the tokens."""
    return Plan(device, shape, dtype, budget, bits, design, source, engine, precision)


class Plan:
    def __init__(self, device, shape, dtype, budget, bits, design, source, engine, precision):
        self.device, self.shape = device, shape
        self.native, self.captured = device.plans(
            lambda further_offset: LayerPlan(
                device.context,
                shape,
                budget=float(budget),
                design=design,
                source=source,
                bits=bits,
                dtype=str(dtype).removeprefix("torch."),
                precision=precision,
                engine=engine,
                further_offset=further_offset,
            )
        )
        # What dW and the bias's gradient are summed in.
        self.sums = getattr(torch, self.native.sums)
        self.draws, self.packs_all, self.dropout = self.native.draws, self.native.packs_all, 0.0

    def forward(self, h, guess, predictor, seed, offset, weights=None):
        """The saved rows of h, tokens x in_features, as one block of bytes. `weights` receives what they are chosen by.

        Elements of h that are not finite make dW NaN, as they make torch's: loss scalers look for that, and skip the
        step. The host refuses such rows in the forward pass, a GPU notes them in the block.
        """
        block = self.device.memory(self.native.saved_bytes)
        # The CPU needs none.
        scratch_bytes = self.native.forward_scratch_bytes
        scratch = self.device.memory(scratch_bytes) if scratch_bytes else None
        rows = self.device.matrix(self._walkable(h))
        native, seed, offset = self.device.drawing(self, seed, offset)
        try:
            with self.device.current():
                native.forward(
                    rows,
                    address(guess),
                    predictor,
                    seed,
                    offset,
                    address(block),
                    address(scratch),
                    self.device.stream(),
                    address(weights),
                )
        except Error as error:
            if error.status != _native.INVALID_WEIGHTS or torch.isfinite(h).all():
                raise
            _native.mark_refused(address(block))
        self.device.drawn(self)
        return block

    def backward(self, block, dz, with_bias, with_norms):
        """The gradients of weight (out_features x in_features) and bias, and the norms of dz's rows; None for what is
        not asked for. Where h was not finite, the weight's gradient is NaN, and so are the norms, from which no guess
        learns."""
        tokens, in_features, out_features = self.shape
        on_gpu, like = self.device.on_gpu, {"dtype": self.sums, "device": self.device.torch_device}
        # A GPU writes rows of in_features x out_features.
        weight = torch.empty((in_features, out_features) if on_gpu else (out_features, in_features), **like)
        bias = torch.empty(out_features, **like) if with_bias else None
        norms = torch.empty(tokens, dtype=torch.float32, device=self.device.torch_device) if with_norms else None
        if not on_gpu and _native.is_refused(address(block)):
            bias = dz.sum(0, dtype=self.sums) if with_bias else None
            return weight.fill_(torch.nan), bias, norms.fill_(torch.nan) if with_norms else None
        scratch = self.device.memory(self.native.backward_scratch_bytes)
        gradient = self.device.matrix(self._walkable(dz))
        estimate = self.device.matrix(weight if on_gpu else weight.T)
        with self.device.current():
            self.native.backward(
                address(block),
                gradient,
                estimate,
                address(norms),
                address(bias),
                address(scratch),
                self.device.stream(),
            )
        if not on_gpu:
            return weight, bias, norms
        # Nobody waits for the answer.
        refused = block[self.native.status].view(torch.int32).any()
        for made in (weight, norms):
            if made is not None:
                made.masked_fill_(refused, torch.nan)
        return weight.T, bias, norms

    def _walkable(self, matrix):
        """The CPU takes any strides; a GPU rows whose elements lie side by side, and that lie apart."""
        rows_apart = matrix.stride(1) == 1 and matrix.stride(0) >= matrix.shape[1]
        return matrix if rows_apart or not self.device.on_gpu else matrix.contiguous()


def product(h, weight, bias):
    """h Wᵀ + b in h's dtype. Under autocast h has its dtype already; without it the dtypes are equal."""
    return torch.nn.functional.linear(h, weight.to(h.dtype), None if bias is None else bias.to(h.dtype))


# Of a block's header, and the alignment of its parts.
HEADER = 64
# An index and a scale.
SELECTED = 12
# Heads and poolers read a handful of rows, of which a sample says little.
LEAST_ROWS = 64


def why_layer_exact(layer, budget, bits):
    """Why the layer would save no memory for many tokens in its weight's dtype; None if it does."""
    return why_no_less(1000, layer.in_features, layer.weight.element_size(), budget, bits, beside=0)


def why_pass_exact(tokens, in_features, element_bytes, budget, bits):
    """Why a pass is exact; None if it is sampled. Without the library, so that torch can trace it."""
    return why_short(tokens) or why_no_less(tokens, in_features, element_bytes, budget, bits, OVERHEAD)


def why_short(tokens):
    """Why a pass over so few rows is exact; None if it is not."""
    if tokens >= LEAST_ROWS:
        return None
    return f"a pass over {tokens} row{'s' if tokens != 1 else ''}, and passes below {LEAST_ROWS} are exact"


def why_no_less(tokens, in_features, element_bytes, budget, bits, beside):
    """Why saved rows, with so many bytes beside them, would take no less than the input; None if they do."""
    native, packed = in_features * element_bytes, row_bytes(in_features, element_bytes, bits)
    if bits != "native" and not saves_less(packed, native):
        return f"a row of its input takes {native} bytes, a packed one {packed}"
    saved, exact = tokens * saved_a_token(in_features, element_bytes, budget, bits) + beside, tokens * native
    if not saves_less(saved, exact):
        return f"the input of {tokens} tokens takes {exact} bytes, saved rows {saved:.0f}"
    return None


def saves_less(saved, exact):
    return saved < exact


def bytes_a_token(layer, budget, bits):
    """What is saved for a token, and what the layer's input takes, if it has the weight's dtype."""
    element_bytes = layer.weight.element_size()
    return saved_a_token(layer.in_features, element_bytes, budget, bits), layer.in_features * element_bytes


def saved_a_token(in_features, element_bytes, budget, bits):
    """Saved rows divided by all tokens, without what a block has beside its rows."""
    selected = 0 if packs_all(budget, bits) else SELECTED
    return budget * (row_bytes(in_features, element_bytes, bits) + selected)


def budget_within(share, in_features, element_bytes, bits):
    """The share of the rows whose bytes, with index and scale, are this share of the input's."""
    row = row_bytes(in_features, element_bytes, bits) + SELECTED
    return min(1.0, share * row_bytes(in_features, element_bytes, "native") / row)


def block_bytes(tokens, in_features, element_bytes, budget, bits):
    """What a forward pass saves on the CPU, as the library has it. The number of tokens may be a symbol of torch's."""
    kept = max(1, math.floor(budget * tokens + 0.5))
    selected = kept if bits == "native" or kept != tokens else 0
    end = HEADER
    parts = [selected * 4, selected * 8]
    if bits == "native":
        parts += [kept * in_features * element_bytes]
    else:
        elements, groups = packed_elements(in_features)
        parts += [kept * groups * 4, kept * (elements * bits // 8)]
    for part in parts:
        end = (end + part + HEADER - 1) // HEADER * HEADER
    return end


def packs_all(budget, bits):
    """Whether all rows are packed, whatever their number: then none is chosen."""
    return budget == 1 and bits != "native"
