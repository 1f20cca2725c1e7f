"""Layers of transformers' models other than nn.Linear: GPT-2's Conv1D, and experts whose weights are one parameter.

transformers is used only where it is already imported.

Experts are recognised by the forward method that transformers' decorator `use_experts_implementation` gives a class:
the classes differ in names and in their gates, and the decorator's flags describe what its functions need to know.
"""

from __future__ import annotations

import functools
import sys

import torch
from torch import nn
from torch.nn import functional as F

from ..linear.layer import LayerSampling, sampled_linear
from ..pickling import MadeClass


def is_conv1d(module: nn.Module) -> bool:
    """Whether the module is transformers' Conv1D: z = h W + b, with W of in_features x out_features."""
    library = sys.modules.get("transformers.pytorch_utils")
    return library is not None and library.Conv1D in (type(module), original_of(type(module)))


def is_experts(module: nn.Module) -> bool:
    """Whether the module is a class that transformers' decorator for experts has made."""
    forward = (original_of(type(module)) or type(module)).forward
    return experts_code() is not None and getattr(forward, "__code__", None) is experts_code()


def experts_code():
    """The code that all decorated classes share; None where transformers is not imported, or has no decorator."""
    library = sys.modules.get("transformers.integrations.moe")
    decorate = getattr(library, "use_experts_implementation", None)
    return None if decorate is None else code_of_decorated(decorate)


@functools.cache
def code_of_decorated(decorate):
    class Experts(nn.Module):
        def forward(self):
            pass

    return decorate(Experts).forward.__code__


def projections(module: nn.Module) -> tuple[str, str]:
    """The names of the parameters that experts multiply their rows by, in this order."""
    return ("gate_up_proj" if module.has_gate else "up_proj"), "down_proj"


def why_not_served(module: nn.Module, source: str) -> str | None:
    """Why experts are left as they are; None if they are sampled."""
    if source == "cached":
        return "experts read rows in an order of their own, in which cached norms are not known"
    return None


class SampledConv1D(MadeClass):
    """Conv1D with the same parameters and forward pass, whose weight gradient in training is an estimate."""

    sampled: LayerSampling

    def _made_by(self):
        return sampled_class, type(self).__bases__[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        exact = super().forward
        if not self.training:
            return exact(x)
        return sampled_linear(self.sampled, x, self.weight.T, self.bias, lambda: exact(x))

    def __repr__(self) -> str:
        return f"{super().__repr__().removesuffix(')')}, {self.sampled})"


class SampledExperts(MadeClass):
    """Experts with the same parameters, whose weight gradients in training are estimates: for each expert one from the
    rows that reach it. Experts that few rows reach are exact. `sampled` has the projections by name."""

    sampled: dict[str, LayerSampling]

    def _made_by(self):
        return sampled_class, type(self).__bases__[1]

    def forward(self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor):
        """From hidden_states, tokens x features, and the experts of each token with their weights, tokens x top_k, to
        tokens x features."""
        names = projections(self)
        needed = self.training and torch.is_grad_enabled() and any(getattr(self, n).requires_grad for n in names)
        # How many rows an expert gets is data, which a compiled graph does not know.
        if not needed or torch.compiler.is_compiling():
            return super().forward(hidden_states, top_k_index, top_k_weights)
        tokens, top_k = top_k_index.shape
        # Ids past the last expert are of tokens that another rank's experts serve; they come last, and add nothing.
        ids, order = top_k_index.reshape(-1).sort(stable=True)
        counts = torch.bincount(ids, minlength=self.num_experts)[: self.num_experts].tolist()
        order = order[: sum(counts)]
        first, second = (self._product(name) for name in names)
        gate = self._apply_gate if self.has_gate else self.act_fn
        made = []
        for expert, places in enumerate(order.split(counts)):
            if len(places):
                # A copy for each expert, so that an exact one keeps no more than its own rows.
                rows = hidden_states[places // top_k]
                made.append(second(expert, gate(first(expert, rows))))
        if not made:
            return super().forward(hidden_states, top_k_index, top_k_weights)
        z = torch.cat(made)
        if self.has_post_expert_norm:
            z = self.post_expert_norm(z)
        z = z * top_k_weights.reshape(-1)[order].unsqueeze(-1)
        back = z.new_zeros(tokens * top_k, z.shape[-1]).index_copy(0, order, z)
        return back.view(tokens, top_k, -1).sum(1).to(hidden_states.dtype)

    def _product(self, name):
        """The product of one projection: a function of an expert's number and its rows."""
        sampled = self.sampled.get(name)
        # One node of the graph for all experts: a weight that is indexed makes a gradient as large as all weights.
        weights = getattr(self, name).unbind()
        biases = getattr(self, f"{name}_bias").unbind() if self.has_bias else [None] * len(weights)

        def product(expert, rows):
            weight, bias = weights[expert].T if self.is_transposed else weights[expert], biases[expert]
            if not torch.is_autocast_enabled(rows.device.type):
                rows = rows.to(weight.dtype)
            exact = lambda: F.linear(rows, weight, bias)
            return exact() if sampled is None else sampled_linear(sampled, rows, weight, bias, exact)

        return product

    def extra_repr(self) -> str:
        shown = [f"{name}: {sampled}" for name, sampled in self.sampled.items()]
        return ", ".join(filter(None, [super().extra_repr(), *shown]))


@functools.cache
def sampled_class(original: type) -> type:
    """The class that takes the place of `original`. Libraries know a class by its name."""
    library = sys.modules.get("transformers.pytorch_utils")
    base = SampledConv1D if library is not None and original is library.Conv1D else SampledExperts
    return type(original.__name__, (base, original), {"__module__": original.__module__})


def is_sampled_class(kind: type) -> bool:
    return kind.__bases__[:1] in ((SampledConv1D,), (SampledExperts,))


def original_of(kind: type) -> type | None:
    """The class whose place this one, or one of its bases, takes; None if it takes none's."""
    return next((base.__bases__[1] for base in kind.__mro__ if is_sampled_class(base)), None)
