"""The module that takes the place of nn.Linear."""

import torch

from .function import SampledLinearFunction


class SampledLinear(torch.nn.Linear):
    """nn.Linear with the same parameters and the same forward pass; in training its weight gradient is an estimate from
    a few rows of the input, and the others are let go. Made by `convert`."""

    def forward(self, h):
        exact = not (self.training and torch.is_grad_enabled() and self.weight.requires_grad)
        # Without a weight gradient torch saves nothing of h. For shapes and dtypes that do not fit it has words of its
        # own.
        if exact or h.numel() == 0 or h.shape[-1] != self.in_features:
            return super().forward(h)
        given = h
        kind = h.device.type
        if torch.is_autocast_enabled(kind) and h.dtype != torch.float64:
            h = h.to(torch.get_autocast_dtype(kind))
        elif h.dtype != self.weight.dtype:
            return super().forward(h)
        plan, reading, block = self.sampling.read(self, given, h)
        return SampledLinearFunction.apply(h, self.weight, self.bias, block, reading, plan, self.sampling.deferred)

    def extra_repr(self):
        return f"{super().extra_repr()}, {self.sampling!r}"
