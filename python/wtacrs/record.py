"""Records linear layers of a PyTorch model while it trains, in files that `wtacrs compare` and `wtacrs replay` read.

    with record(model, ["encoder.layer.3.attention.self.value"]) as passes:
        loss(batch).backward()
    save_layers("layers", passes)               # layers/encoder.layer.3.attention.self.value.safetensors, for compare

    steps = Steps()
    for batch in data:
        with record(model, ["*.value"]) as passes:
            loss(batch).backward()
        steps.add(passes)
        ...                                     # the optimizer's step, as ever
    steps.save("steps")                         # a file for each layer, for replay

Requires torch and safetensors, but not libwtacrs. docs/record.md shows both from the model to the table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ._extras import imports_of

with imports_of("record"):
    import safetensors.torch
    import torch

__all__ = ["Pass", "Steps", "record", "save_layers"]


@dataclasses.dataclass(frozen=True)
class Pass:
    """One linear layer in one backward pass, on the host: its input H (tokens x in_features) and the gradient dZ of its
    output (tokens x out_features), row for row, in the dtype that the layer computes in; f64 is rounded to f32."""

    h: torch.Tensor
    dz: torch.Tensor

    def dz_norms(self) -> torch.Tensor:
        """The norm of each row of dZ."""
        return self.dz.float().norm(dim=1)


@contextlib.contextmanager
def record(model: torch.nn.Module, layers: str | Sequence[str]) -> Iterator[dict[str, Pass]]:
    """Within the block, records the nn.Linear layers whose names match one of the patterns `layers`. When the block
    ends, the dictionary has a `Pass` for each of them, by name.

    A layer that is called several times gets the rows of all calls, in their order. Calls that no gradient reaches are
    left out, as are the first runs of checkpointed segments.
    """
    chosen = choose(model, layers)
    passes: dict[str, Pass] = {}
    calls: dict[str, list[_Call]] = {name: [] for name in chosen}
    hooks = [module.register_forward_hook(_observer(calls[name])) for name, module in chosen.items()]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()
    for name in chosen:
        passes[name] = _joined(name, calls[name])


def choose(model: torch.nn.Module, layers: str | Sequence[str]) -> dict[str, torch.nn.Linear]:
    """The nn.Linear layers of the model whose names match one of the patterns."""
    named = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    chosen: dict[str, torch.nn.Linear] = {}
    for pattern in [layers] if isinstance(layers, str) else layers:
        matching = fnmatch.filter(named, pattern)
        if not matching:
            raise ValueError(f"no nn.Linear matches {pattern!r}: the model has {', '.join(named) or 'none'}")
        chosen |= {name: named[name] for name in matching}
    if not chosen:
        raise ValueError("name at least one layer")
    return chosen


class _Call:
    """One call of a layer, whose dZ is None until the backward pass has been there."""

    def __init__(self, h: torch.Tensor, dtype: torch.dtype):
        # A copy: nobody forbids to change H in place where the weight is frozen.
        self.h, self.dtype = _rows(h, dtype), dtype
        self.dz: torch.Tensor | None = None

    def receive(self, dz: torch.Tensor) -> None:
        self.dz = _rows(dz, self.dtype)


def _observer(calls: list[_Call]):
    def observe(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if output.requires_grad:
            # Under autocast the output has the dtype of the product, and the input need not.
            calls.append(_Call(inputs[0], output.dtype))
            output.register_hook(calls[-1].receive)

    return observe


def _rows(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A copy on the host, with one row for each token."""
    dtype = torch.float32 if dtype == torch.float64 else dtype
    return x.detach().reshape(-1, x.shape[-1]).to("cpu", dtype, copy=True)


def _joined(name: str, calls: list[_Call]) -> Pass:
    reached = [call for call in calls if call.dz is not None]
    if not reached:
        why = "no gradient reached it" if calls else "it was not called with gradients enabled"
        raise RuntimeError(
            f"nothing to record of {name}: {why}. The forward and the backward pass must run in the block"
        )
    h, dz = (torch.cat([getattr(call, side) for call in reached]) for side in ("h", "dz"))
    for side, rows in (("H", h), ("dZ", dz)):
        finite = rows.isfinite().all(dim=1)
        if not finite.all():
            raise RuntimeError(f"{side} of {name} is not finite in row {int(finite.logical_not().nonzero()[0])}")
    return Pass(h, dz)


def save_layers(
    folder: str | os.PathLike[str], passes: Mapping[str, Pass], previous: Mapping[str, Pass] | None = None
) -> list[pathlib.Path]:
    """Writes a file for each layer, which `wtacrs compare` reads: `h`, `dz`, and, with the passes of the same batch at
    an earlier time as `previous`, `dz_norm_prev`. Returns the files."""
    files = []
    for name, layer in passes.items():
        tensors = {"h": layer.h, "dz": layer.dz}
        if previous is not None:
            if name not in previous:
                raise ValueError(f"the previous passes do not have {name}")
            tensors["dz_norm_prev"] = previous[name].dz_norms()
            if len(tensors["dz_norm_prev"]) != len(layer.dz):
                was, now = len(tensors["dz_norm_prev"]), len(layer.dz)
                raise ValueError(
                    f"{name} had {was} tokens in the previous pass and has {now} now: is it the same batch?"
                )
        files.append(_save(folder, name, tensors))
    return files


class _Step(NamedTuple):
    """What a step leaves of a layer, under the names that replay reads."""

    h: torch.Tensor
    dz_norm: torch.Tensor
    g_norm: torch.Tensor


class Steps:
    """The steps of a training run, for `wtacrs replay`. They stay in the host's memory until they are saved.

    All steps must have equally many tokens. With `tokens`, only the first so many rows of each step are kept, and ‖dW‖
    is the one of these rows.
    """

    def __init__(self, tokens: int | None = None):
        if tokens is not None and tokens < 1:
            raise ValueError(f"tokens={tokens}: at least one row must be kept")
        self.tokens = tokens
        self._steps: list[dict[str, _Step]] = []

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, passes: Mapping[str, Pass]) -> None:
        """Adds the passes of one step, which must be of the same layers as those before."""
        first = self._steps[0] if self._steps else None
        if first is not None and passes.keys() != first.keys():
            raise ValueError(f"step {len(self)} is of {', '.join(passes)}, but step 0 of {', '.join(first)}")
        step = {}
        for name, layer in passes.items():
            found = len(layer.h)
            needed = self.tokens or (found if first is None else len(first[name].h))
            if found < needed or (self.tokens is None and found > needed):
                raise ValueError(
                    f"step {len(self)} has {found} tokens of {name} where {needed} are needed: all steps need equally "
                    f"many; Steps(tokens=N) keeps the first N of each"
                )
            h, dz = layer.h[:needed], layer.dz[:needed].float()
            step[name] = _Step(h.clone(), dz.norm(dim=1), (h.float().T @ dz).norm())
        self._steps.append(step)

    def save(self, folder: str | os.PathLike[str]) -> list[pathlib.Path]:
        """Writes a file for each layer: `h` (steps x tokens x in_features), `dz_norm` (steps x tokens) and `g_norm`
        (steps). Returns the files."""
        if not self._steps:
            raise ValueError("no step was added")
        files = []
        for name in self._steps[0]:
            steps = [step[name]._asdict() for step in self._steps]
            tensors = {key: torch.stack([step[key] for step in steps]) for key in _Step._fields}
            files.append(_save(folder, name, tensors))
        return files


def _save(folder: str | os.PathLike[str], name: str, tensors: dict[str, torch.Tensor]) -> pathlib.Path:
    file = pathlib.Path(folder) / f"{name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file)
    return file
