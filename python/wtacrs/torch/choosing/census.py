"""`Census`: every matrix of a model, whether it is sampled, and what follows for bytes and operations."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from ..linear.layer import LayerSampling
from ..linear.plans import bytes_a_token
from .choice import Product, forward_is_replaced, matrices, products

# Where configs of transformers have the number of experts that serve a token.
EXPERTS_A_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A matrix of a module, or one for each expert. `product` is what a linear layer multiplies by it, None in other
    modules. `sampled` is None where there is a `reason` why it is not sampled."""

    name: str
    module: nn.Module
    weight: torch.Tensor
    product: Product | None = None
    sampled: LayerSampling | None = None
    reason: str | None = None

    @property
    def elements(self) -> int:
        """Those that train, as far as they exist: a lazy weight has none yet."""
        return self.weight.numel() if self.trains and not nn.parameter.is_lazy(self.weight) else 0

    @property
    def trains(self) -> bool:
        return self.weight.requires_grad

    @property
    def kind(self) -> str:
        return self.product.kind if self.product is not None else type(self.module).__name__


class Census:
    """The matrices that are in the model of a `Sampling` now."""

    def __init__(self, sampling):
        self.sampling = sampling
        model = sampling.model
        present = {id(module) for module in model.modules()}
        entries = [self._converted(name, product) for name, product in sampling.products.items()]
        for name, left in sampling.left.items():
            entries += self._exact(name, left.module, left.reason, left.product)
        known = {id(entry.module) for entry in entries}
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and id(module) not in known:
                entries += self._exact(name, module, "it came into the model after convert: add adapters first")
        self.entries = [entry for entry in entries if id(entry.module) in present]
        self.sampled = [entry for entry in self.entries if entry.sampled is not None]
        self.exact = [entry for entry in self.entries if entry.sampled is None]
        self._most_rows = max((s.rows or 0 for s in sampling.sampled.values() if s.matrices == 1), default=0)

    def _converted(self, name, product):
        sampled = self.sampling.sampled[name]
        reason = self.sampling.why_exact(name)
        if self.sampling.reverted:
            reason = "it was reverted"
        elif forward_is_replaced(product.module):
            reason = "its forward was replaced after convert"
        elif sampled.has_saved and not sampled.input_kept:
            # Exact in some passes, and not in all.
            reason = None
        return Entry(name, product.module, product.weight, product, None if reason else sampled, reason)

    @staticmethod
    def _exact(name, module, reason, product=None):
        """The matrices of a module, or of one product of it."""
        found = products(name, module) if product is None else [product]
        if found:
            return [Entry(p.name, module, p.weight, p, reason=reason) for p in found]
        return [Entry(name, module, weight, reason=reason) for weight in matrices(module).values()]

    def held(self, tokens: int) -> tuple[int, int]:
        """Bytes of linear layers' inputs, before `convert` and after it."""
        inputs = {}
        for entry in self.entries:
            if entry.product is None or not entry.trains:
                continue
            own = self.sampling.sampled.get(entry.name)
            shared = own.shares_input_of if own is not None else None
            # Of an input that layers share, each form is held once: rows of one budget and bits, or all of it.
            forms = inputs.setdefault(shared or entry.name, {})
            rows = tokens * self.rows_a_token(entry)
            whole = rows * entry.product.in_features * entry.weight.element_size()
            if entry.sampled is None:
                forms[None] = whole, whole
            else:
                kept = entry.sampled.budget, entry.sampled.bits
                saved, _ = bytes_a_token(entry.product, *kept)
                forms[kept] = whole, rows * saved
        before = sum(max(whole for whole, _ in forms.values()) for forms in inputs.values())
        after = sum(saved for forms in inputs.values() for _, saved in forms.values())
        return round(before), round(after)

    def rows_a_token(self, entry: Entry) -> float:
        """How many rows a layer reads for each token. A head that reads one row of each sequence has shown that in a
        training pass; before it, every layer is taken to read all tokens."""
        if entry.product.kind == "experts":
            config = getattr(entry.module, "config", None)
            counts = [getattr(config, name, None) for name in EXPERTS_A_TOKEN]
            return next((count for count in counts if isinstance(count, int)), entry.product.matrices)
        own = self.sampling.sampled.get(entry.name)
        return own.rows / self._most_rows if own is not None and own.rows else 1

    def operations(self, entry: Entry) -> float:
        """Multiplications a token in which the weight takes part and trains; 0 where they are not a linear layer's."""
        if entry.product is None or not entry.trains:
            # A subclass of nn.Linear multiplies as nn.Linear does, or nearly so.
            return entry.elements if isinstance(entry.module, nn.Linear) else 0
        return entry.product.in_features * entry.product.out_features * self.rows_a_token(entry)
