"""`Report`: which layers of a model are sampled, which are not and why, and what that saves.

Bytes are those of linear layers' inputs, for a forward pass over batch x length tokens in the weights' dtype: an input
that several layers read counts once, as soon as a training pass has shown which do. What other modules hold is not
counted; `SavedBytes` measures everything. Shares are of weights that train: a frozen weight makes torch keep nothing.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Iterable

from .._native import Error
from .choosing.census import Census, Entry
from .choosing.choice import SKIPPED


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
        part = self.held_after / self.held_before if self.held_before else 1
        lines.append(
            f"linear layers' inputs hold, for {tokens}: {size(self.held_before)} before, {size(self.held_after)} after "
            f"({part:.3f})"
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
    census = Census(sampling)
    before, after = census.held(batch * length)
    return Report(
        batch,
        length,
        grouped_sampled(census.sampled),
        grouped_exact(census.exact),
        before,
        after,
        share(census, lambda entry: entry.elements),
        share(census, census.operations),
        tuple(notes(sampling)),
    )


def notes(sampling) -> list[str]:
    """What else there is to say, a line each."""
    lines = [] if sampling.planning is None else [sampling.planning.summary()]
    return lines + (sampling.summary_of_operators() if sampling.operators is not None else [])


def share(census: Census, of: Callable[[Entry], float]) -> float:
    """What the sampled layers have of all that the entries have."""
    return sum(map(of, census.sampled)) / max(1, sum(map(of, census.entries)))


def grouped_sampled(entries: Iterable[Entry]) -> tuple[Sampled, ...]:
    groups = {}
    for entry in entries:
        product, sampled = entry.product, entry.sampled
        shape = product.kind, product.in_features, product.out_features, product.matrices
        groups.setdefault((*shape, sampled.budget, sampled.bits, not entry.trains), []).append(entry)
    found = [
        Sampled(tuple(e.name for e in group), *key, sum(e.weight.numel() for e in group))
        for key, group in groups.items()
    ]
    return tuple(sorted(found, key=lambda group: -group.elements))


def grouped_exact(entries: Iterable[Entry]) -> tuple[Exact, ...]:
    groups = {}
    for entry in entries:
        groups.setdefault((entry.kind, entry.reason), []).append(entry)
    found = [
        # A module may have several matrices.
        Exact(tuple(dict.fromkeys(e.name or e.kind for e in group)), *key, sum(e.elements for e in group))
        for key, group in groups.items()
    ]
    return tuple(sorted(found, key=lambda group: -group.elements))


def too_little(sampling, report: Report) -> str | None:
    """A warning where less than half of what trains is sampled; None otherwise. What `skip` names is not missed, and
    beside sampled layers neither is what saves nothing by a rule, such as an adapter's second half."""
    served = sum(group.elements for group in report.sampled if not group.frozen)
    missed = [group for group in report.exact if group.reason != SKIPPED and group.elements]
    if served:
        by_rule = {name for name, left in sampling.left.items() if left.rule}
        missed = [group for group in missed if not by_rule.issuperset(group.names)]
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
