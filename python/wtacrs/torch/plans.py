"""The two passes of a linear layer on torch tensors, with one plan for each shape, whatever the layer; and whether what
they save is less than the layer's input."""

from __future__ import annotations

import functools

import torch

from .. import _native
from .._native import Error, LayerPlan
from .devices import address


@functools.lru_cache(maxsize=1024)
def plan_for(device, shape, dtype, budget, bits, design, source, precision):
    """`shape` is (tokens, in_features, out_features), and `budget` a share of the tokens."""
    return Plan(device, shape, dtype, budget, bits, design, source, precision)


class Plan:
    def __init__(self, device, shape, dtype, budget, bits, design, source, precision):
        self.device, self.shape = device, shape
        self.bits, self.element_bytes = bits, dtype.itemsize
        self.native = LayerPlan(
            device.context,
            shape,
            budget=float(budget),
            design=design,
            source=source,
            bits=bits,
            dtype=str(dtype).removeprefix("torch."),
            precision=precision,
        )
        # What dW and the bias's gradient are summed in.
        self.sums = getattr(torch, self.native.sums)
        self.draws, self.packs_all = self.native.draws, self.native.packs_all

    def why_exact(self):
        """Why its passes would save no memory; None if they do."""
        tokens, in_features, _ = self.shape
        native = self.native
        return why_exact(in_features, self.element_bytes, self.bits, tokens, native.saved_bytes, native.exact_bytes)

    def forward(self, h, guess, predictor, seed, offset):
        """The saved rows of h, tokens x in_features, as one block of bytes.

        Elements of h that are not finite make dW NaN, as they make torch's: loss scalers look for that, and skip the
        step. The host refuses such rows in the forward pass, a GPU notes them in the block.
        """
        block = self.device.memory(self.native.saved_bytes)
        scratch = self.device.memory(self.native.forward_scratch_bytes)
        rows = self.device.matrix(self._walkable(h))
        try:
            with self.device.current():
                self.native.forward(
                    rows,
                    address(guess),
                    predictor,
                    seed,
                    offset,
                    address(block),
                    address(scratch),
                    self.device.stream(),
                )
        except Error as error:
            if error.status != _native.INVALID_WEIGHTS or torch.isfinite(h).all():
                raise
            _native.mark_refused(address(block))
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


GROUP, LEAST_GROUP = 128, 16
# An index and a scale.
SELECTED = 12


def why_layer_exact(layer, budget, bits):
    """Why the layer would save no memory for many tokens in its weight's dtype; None if it does."""
    saved, exact = (1000 * count for count in bytes_a_token(layer, budget, bits))
    return why_exact(layer.in_features, layer.weight.element_size(), bits, 1000, saved, exact)


def why_exact(in_features, element_bytes, bits, tokens, saved, exact):
    native, packed = in_features * element_bytes, row_bytes(in_features, element_bytes, bits)
    if bits != "native" and not saves_less(packed, native):
        return f"a row of its input takes {native} bytes, a packed one {packed}"
    if not saves_less(saved, exact):
        return f"the input of {tokens} tokens takes {exact} bytes, saved rows {saved:.0f}"
    return None


def saves_less(saved, exact):
    return saved < exact


def bytes_a_token(layer, budget, bits):
    """What is saved, divided by all tokens and leaving out what a block has beside its rows; and what the layer's input
    takes, if it has the weight's dtype."""
    element_bytes = layer.weight.element_size()
    selected = 0 if packs_all(budget, bits) else SELECTED
    saved = budget * (row_bytes(layer.in_features, element_bytes, bits) + selected)
    return saved, layer.in_features * element_bytes


def row_bytes(in_features, element_bytes, bits):
    """A row as it is, or packed: codes, and 4 bytes for each group of 128 elements. What is left of a row is a group of
    a smaller power of two."""
    if bits == "native":
        return in_features * element_bytes
    whole, left = divmod(in_features, GROUP)
    padded = whole * GROUP + (max(LEAST_GROUP, 1 << (left - 1).bit_length()) if left else 0)
    return padded * bits // 8 + 4 * (whole + bool(left))


def packs_all(budget, bits):
    """Whether all rows are packed, whatever their number: then none is chosen."""
    return budget == 1 and bits != "native"
