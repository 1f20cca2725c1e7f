"""Classes of activations, gated units, dropouts and norms that save few bits.

A converted module stays the same object. Its class becomes a subclass of its former class. The former forward pass runs
in eval mode, without gradients (except for dropout), for tensors that the library does not serve, and where a packed
operator would take no less memory.
"""

from __future__ import annotations

import functools

import torch

from ..pickling import MadeClass
from . import passes, recognition
from .passes import Description
from .recognition import Activation, Dropout, GatedUnit, Norm


class Converted(MadeClass):
    """`operators` is what a model's converted modules share. `kind` describes what this module computes."""

    def _made_by(self):
        return converted_class, type(self).__bases__[1], type(self.kind)

    def extra_repr(self):
        how = "saves few bits" if self.operators.packs else "saves no more than its gradient needs"
        return f"{super().extra_repr()}, {how}".removeprefix(", ")

    def saves(self, *inputs):
        return self.training and torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)


class ConvertedActivation(Converted):
    def forward(self, input):
        if not (self.saves(input) and passes.serves(input)):
            return super().forward(input)
        # A sign takes one bit as it is.
        packing = "native" if self.kind.operation == "relu" else self.operators.packing
        description = Description(self.kind.operation, row_of(input), packing=packing)
        if not passes.takes_less(input, description):
            return super().forward(input)
        return passes.apply(self.operators, input, description)


class ConvertedDropout(Converted):
    """Draws from the library even without gradients: checkpointing first runs a segment without them, and the masks of
    its second run must be the same."""

    def forward(self, input):
        if not (self.training and 0 < self.p < 1 and passes.serves(input)):
            return super().forward(input)
        return passes.apply(self.operators, input, Description("identity", row_of(input), dropout=self.p))


class ConvertedNorm(Converted):
    def forward(self, input):
        kind = self.kind
        weight, bias = kind.weight(self), kind.bias(self)
        columns = kind.columns(self)
        shape = getattr(self, "normalized_shape", (columns,))
        if not (
            self.saves(input, weight, bias)
            and passes.serves(input)
            and tuple(input.shape[-len(shape) :]) == tuple(shape)
            and all(p is None or p.dtype in passes.DTYPES for p in (weight, bias))
        ):
            return super().forward(input)
        dtype = kind.dtype_of(input, weight)
        x = input.to(torch.promote_types(input.dtype, dtype))
        epsilon = kind.epsilon(self)
        # As torch does for halves as well.
        epsilon = torch.finfo(torch.float32).eps if epsilon is None else epsilon
        description = Description(kind.operation, columns, packing=self.operators.packing, epsilon=epsilon)
        if self.operators.packs and not passes.takes_less(x, description):
            return super().forward(input)
        return passes.apply(self.operators, x, description, weight=weight, bias=bias).to(dtype)


class ConvertedGatedUnit(Converted):
    def forward(self, *arguments, **named):
        x = arguments[0] if len(arguments) == 1 and not named else None
        if x is None or not (self.training and torch.is_grad_enabled() and passes.serves(x)):
            return super().forward(*arguments, **named)
        return self.kind.run(self, x, self.unit)

    def unit(self, a, gate):
        if not (self.saves(a, gate) and passes.serves(a) and a.dtype == gate.dtype and a.shape == gate.shape):
            return self.kind.activation(self)(a) * gate
        description = Description(self.kind.operation, row_of(a), gated=True, packing=self.operators.packing)
        if self.operators.packs and not passes.takes_less(a, description, arrays=3):
            return self.kind.activation(self)(a) * gate
        return passes.apply(self.operators, a, description, gate)


def row_of(x):
    return x.shape[-1] if x.ndim else 1


CONVERTED = {
    Activation: ConvertedActivation,
    Dropout: ConvertedDropout,
    Norm: ConvertedNorm,
    GatedUnit: ConvertedGatedUnit,
}


@functools.cache
def converted_class(original, kind):
    # Libraries know a class by its name.
    return type(original.__name__, (CONVERTED[kind], original), {"__module__": original.__module__})


def find(model, skipped, mode):
    """Two dictionaries by name: the modules to convert with what they compute, and why others stay as they are."""
    found, left, within = {}, {}, set()
    for name, module in model.named_modules():
        if isinstance(module, Converted) or skipped(name, module):
            continue
        kind = recognition.kind_of(module)
        if kind is None:
            reason = recognition.why_left(module)
            if reason is not None:
                left[name] = reason
        elif isinstance(kind, Activation) and mode == "exact" and kind.operation != "relu":
            left[name] = "its gradient needs its input, which torch keeps"
        else:
            found[name] = (module, kind)
            if isinstance(kind, GatedUnit):
                within.add(id(kind.activation(module)))
    left = {name: reason for name, reason in left.items() if id(model.get_submodule(name)) not in within}
    return {name: pair for name, pair in found.items() if id(pair[0]) not in within}, left


def convert(module, kind, shared):
    module.__class__ = converted_class(type(module), type(kind))
    module.operators, module.kind = shared, kind


def revert(module):
    module.__class__ = type(module).__bases__[1]
    del module.operators, module.kind
