"""`Report`: which layers of a model are sampled, which are not and why, and what that saves.

Bytes are those of linear layers' inputs, for a forward pass over batch x length tokens in the weights' dtype: an input
that several layers read counts once, as soon as a training pass has shown which do. What other modules hold is not
counted; `SavedBytes` measures everything. Shares are of weights that train: a frozen weight makes torch keep nothing.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterable

from torch import nn

from .._native import Error
from .choice import SKIPPED, Product, forward_is_replaced, matrices, products
from .layer import LayerSampling
from .plans import bytes_a_token


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Layers of one shape that are sampled alike. `kind` is nn.Linear, Conv1D or experts, with `matrices` weights in
    each. `elements` is the number of their weights' elements. Frozen layers save nothing until they train."""

    names: tuple[str, ...]
    kind: str
    in_features: int
    out_features: int
    matrices: int
    budget: float
    bits: int | str
    frozen: bool
    elements: int


@dataclasses.dataclass(frozen=True)
class Exact:
    """Modules of one kind that are as they were, for one reason. `elements` is the number of their matrices' elements
    that train."""

    names: tuple[str, ...]
    kind: str
    reason: str
    elements: int


@dataclasses.dataclass(frozen=True)
class Report:
    """`held_before` and `held_after` are bytes. `weights_served` and `flops_served` are the shares of the elements of
    all matrices that train, and of the operations in which linear layers multiply by them, that sampled layers have."""

    batch: int
    length: int
    sampled: tuple[Sampled, ...]
    exact: tuple[Exact, ...]
    held_before: int
    held_after: int
    weights_served: float
    flops_served: float
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, typing.Any]:
        """The same as dictionaries and lists, for JSON and tables."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        counts = {frozen: sum(len(g.names) for g in self.sampled if g.frozen is frozen) for frozen in (False, True)}
        lines = [f"{counted(counts[False], 'layer')} sampled"]
        if counts[True]:
            lines[0] += f"; {counted(counts[True], 'converted layer')} frozen, and nothing is saved for these"
        rows = [
            (
                str(len(group.names)),
                group.kind,
                f"{group.in_features} to {group.out_features}",
                f"{group.matrices} weights" if group.matrices > 1 else "",
                f"budget {group.budget}",
                f"{group.bits} bits" if group.bits != "native" else "native rows",
                "frozen" if group.frozen else "",
                shown(group.names),
            )
            for group in self.sampled
        ]
        lines += aligned(rows)
        if self.exact:
            lines.append("exact, or not served:")
            rows = [(str(len(g.names)), g.kind, millions(g.elements), shown(g.names)) for g in self.exact]
            for group, line in zip(self.exact, aligned(rows)):
                lines += [line, f"      {group.reason}"]
        tokens = f"{self.batch} x {self.length} tokens" if self.batch * self.length > 1 else "a token"
        share = self.held_after / self.held_before if self.held_before else 1
        lines.append(
            f"linear layers' inputs hold, for {tokens}: {size(self.held_before)} before, {size(self.held_after)} after "
            f"({share:.3f})"
        )
        lines.append(
            f"sampled: {self.weights_served:.3f} of the matrix weights that train, {self.flops_served:.3f} of the "
            "linear layers' operations"
        )
        return "\n".join([*lines, *self.notes])


def report(sampling, batch: int = 1, length: int = 1) -> Report:
    for name, value in (("batch", batch), ("length", length)):
        if value < 1:
            raise Error(f"{name}={value}; a report is for at least one")
    tokens = batch * length
    served, exact = [], []
    for name, product in sampling.products.items():
        reason = why_exact_now(sampling, name, product)
        if reason is None:
            served.append((product, sampling.sampled[name]))
        else:
            exact.append((name, product.module, reason, product.weight))
    for name, left in sampling.left.items():
        found = {product.name: product.weight for product in products(name, left.module)}
        for weight in [found[name]] if name in found else matrices(left.module).values():
            exact.append((name, left.module, left.reason, weight))
    exact += appeared(sampling)
    before, after = held(sampling, served, exact, tokens)
    trains = lambda weight: weight.requires_grad
    elements = sum(p.weight.numel() for p, _ in served if trains(p.weight))
    missed = sum(elements_of(weight) for *_, weight in exact)
    work = sum(operations(sampling, p) for p, _ in served if trains(p.weight))
    linear = [(m, w) for _, m, _, w in exact if trains(w) and (isinstance(m, nn.Linear) or products("", m))]
    work_left = sum(
        sum(operations(sampling, p) for p in products("", m) if p.weight is w) or elements_of(w) for m, w in linear
    )
    return Report(
        batch,
        length,
        grouped_sampled(served),
        grouped_exact(exact),
        before,
        after,
        elements / max(1, elements + missed),
        work / max(1, work + work_left),
        notes(sampling),
    )


def why_exact_now(sampling, name: str, product: Product) -> str | None:
    """Why a converted layer is exact; None if it is sampled."""
    sampled = sampling.sampled[name]
    if forward_is_replaced(product.module):
        return "its forward was replaced after convert"
    noted = dict(sampling.left_exact).get(name)
    return noted if noted is not None and (sampled.input_kept or not sampled.has_saved) else None


def appeared(sampling) -> list:
    """Linear layers that are in the model and were not when it was converted."""
    known = {id(p.module) for p in sampling.products.values()} | {id(left.module) for left in sampling.left.values()}
    return [
        (name, module, "it came into the model after convert: add adapters first, then convert", module.weight)
        for name, module in sampling.model.named_modules()
        if isinstance(module, nn.Linear) and id(module) not in known
    ]


def held(sampling, served, exact, tokens: int) -> tuple[int, int]:
    """Bytes of linear layers' inputs, before and after."""
    before = after = 0.0
    inputs = {}
    for product, sampled in served:
        if product.weight.requires_grad:
            # Layers that share an input, and differ in what they keep of it, hold a sample each.
            shared = inputs.setdefault(sampled.shares_input_of or sampled.name, {})
            saved, whole = bytes_a_token(product, sampled.budget, sampled.bits)
            rows = rows_a_token(sampling, product)
            shared[sampled.budget, sampled.bits] = saved * rows, whole * rows
    for forms in inputs.values():
        before += max(whole for _, whole in forms.values())
        after += sum(saved for saved, _ in forms.values())
    rows = {}
    for name, module, _, weight in exact:
        for product in products(name, module):
            if product.weight is weight and weight.requires_grad:
                sampled = sampling.sampled.get(name)
                shared = sampled.shares_input_of if sampled is not None else None
                row = product.in_features * weight.element_size()
                rows[shared or name] = row * rows_a_token(sampling, product)
    before, after = before + sum(rows.values()), after + sum(rows.values())
    return round(before * tokens), round(after * tokens)


def elements_of(weight) -> int:
    """The elements that train, as far as they exist: a lazy weight has none yet."""
    return weight.numel() if weight.requires_grad and not nn.parameter.is_lazy(weight) else 0


def reached(product: Product) -> float:
    """How many of a projection's matrices a token is multiplied by."""
    if product.kind != "experts":
        return 1
    config = getattr(product.module, "config", None)
    for name in ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts"):
        if isinstance(found := getattr(config, name, None), int):
            return found
    return product.matrices


def rows_a_token(sampling, product: Product) -> float:
    """How many rows the layer reads for each token. A head that reads one row of each sequence has shown that in a
    training pass; before it, every layer is taken to read all tokens."""
    most = max((s.rows or 0 for s in sampling.sampled.values() if s.matrices == 1), default=0)
    sampled = sampling.sampled.get(product.name)
    if sampled is None or not sampled.rows or product.kind == "experts":
        return reached(product)
    return sampled.rows / most


def operations(sampling, product: Product) -> float:
    """Multiplications a token."""
    return product.in_features * product.out_features * rows_a_token(sampling, product)


def grouped_sampled(served: Iterable[tuple[Product, LayerSampling]]) -> tuple[Sampled, ...]:
    groups = {}
    for product, sampled in served:
        frozen = not product.weight.requires_grad
        key = product.kind, product.in_features, product.out_features, product.matrices
        groups.setdefault((*key, sampled.budget, sampled.bits, frozen), []).append(product)
    found = [
        Sampled(tuple(p.name for p in group), *key, sum(p.weight.numel() for p in group))
        for key, group in groups.items()
    ]
    return tuple(sorted(found, key=lambda group: -group.elements))


def grouped_exact(exact) -> tuple[Exact, ...]:
    groups = {}
    for name, module, reason, weight in exact:
        kind = "nn.Linear" if any(p.kind == "nn.Linear" for p in products("", module)) else type(module).__name__
        names, counts = groups.setdefault((kind, reason), ({}, []))
        names[name or kind] = None
        counts.append(elements_of(weight))
    found = [Exact(tuple(names), kind, reason, sum(counts)) for (kind, reason), (names, counts) in groups.items()]
    return tuple(sorted(found, key=lambda group: -group.elements))


def notes(sampling) -> tuple[str, ...]:
    return tuple(sampling.summary_of_operators()) if sampling.operators is not None else ()


def too_little(report: Report) -> str | None:
    """A warning where less than half of what trains is sampled; None otherwise. What `skip` names is not missed."""
    served = sum(group.elements for group in report.sampled if not group.frozen)
    missed = [group for group in report.exact if group.reason != SKIPPED and group.elements]
    whole = served + sum(group.elements for group in missed)
    if not whole or served >= whole / 2:
        return None
    largest = "; ".join(f"{shown(group.names)} ({group.kind}): {group.reason}" for group in missed[:3])
    return (
        f"{served / whole:.0%} of the matrix weights' elements are in layers that are sampled. The largest others are "
        f"{largest}. print(sampling) lists all"
    )


def shown(names: Iterable[str]) -> str:
    """Names, with * for the numbers in them; three of them at most."""
    patterns = list(dict.fromkeys(re.sub(r"\d+", "*", name) if len(names) > 1 else name for name in names))
    return ", ".join(patterns[:3]) + (f" and {len(patterns) - 3} more" if len(patterns) > 3 else "")


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    # A column that no row uses takes no room.
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths) if width).rstrip() for row in rows]


def counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'s are' if number > 1 else ' is'}"


def size(count: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count:.0f} bytes"


def millions(elements: int) -> str:
    return f"{elements / 1e6:.2f} M" if elements >= 1e4 else str(elements)
