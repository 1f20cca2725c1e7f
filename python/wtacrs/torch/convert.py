"""`convert`: puts sampled layers in the place of a model's own."""

from __future__ import annotations

import dataclasses
import typing
import warnings

import torch

from .._native import Error
from .choosing.choice import SKIPPED, choose, sample
from .report import too_little
from .reverting import is_converted
from .sampling import Sampling
from .settings import Options, Settings, check_names, matches, such_as


def convert(
    model: torch.nn.Module,
    budget: float | Settings | None = None,
    design: str | None = None,
    source: str | None = None,
    *,
    process_group: torch.distributed.ProcessGroup | None = None,
    **options: typing.Unpack[Options],
) -> Sampling:
    """Makes the linear layers of `model` save only a share `budget` of the rows of their input, packed in `bits` bits
    an element, in place: nn.Linear, and Conv1D and experts of transformers' models. Returns a `Sampling`. Parameters,
    their names and the model's state_dict stay as they are.

    The options are the fields of `Settings`, whose documentation explains them: `convert(model, 0.3, bits=4)` equals
    `convert(model, Settings(budget=0.3, bits=4))`. Options beside a `Settings` replace its fields, `budget` aside.

    `print(sampling)` and `Sampling.report` say what is sampled, what is not, and why. Convert a model with adapters
    after they were added. With a `process_group` each rank draws for itself, and `Sampling.exchange` must follow every
    backward pass.

    Warns if less than half of the weights that train are in layers that are sampled. Raises `Error` for a value that is
    refused, a pattern that matches nothing, a model that is converted already, and a model without linear layers,
    unless `activations` is given; then the model is as before.
    """
    if not isinstance(model, torch.nn.Module):
        raise Error(f"a {type(model).__name__} in the place of the model, an nn.Module")
    settings = settings_of(budget, design, source, options)
    for name, module in model.named_modules():
        if is_converted(module):
            raise Error(
                f"the model is converted already ({name or type(module).__name__}): revert() the Sampling first, or "
                "change budget and bits by Sampling.set"
            )
    chosen, left = choose(model, settings)
    names = [name for name, _ in model.named_modules() if name]
    check_patterns(settings.skip, "skip", names + [name for name in left if name not in names])
    if not chosen and not any(other.rule for other in left.values()) and settings.activations is None:
        if any(other.reason == SKIPPED for other in left.values()):
            raise Error("skip covers all layers of the model that could be sampled")
        raise Error("the model has no nn.Linear to convert, nor Conv1D or experts of transformers")
    check_patterns(settings.layers, "layers", [product.name for product in chosen] + list(left))
    sampling = Sampling(model, settings, process_group)
    sampling.add(chosen, left)
    for product in chosen:
        sample(product, sampling.sampled[product.name])
    if settings.activations is not None:
        sampling.convert_operators(model)
    sampling.measure_inputs()
    sampling.watch_traces()
    warning = too_little(sampling, sampling.report())
    # Exact copies of all rows sample nothing on purpose.
    if warning is not None and (settings.budget, settings.bits) != (1, "native"):
        warnings.warn(warning, stacklevel=2)
    return sampling


def settings_of(budget, design, source, options) -> Settings:
    check_names(options)
    given = isinstance(budget, Settings)
    leading = {"budget": None if given else budget, "design": design, "source": source}
    options = options | {name: value for name, value in leading.items() if value is not None}
    return dataclasses.replace(budget if given else Settings(), **options)


def check_patterns(patterns, option: str, names: list[str]) -> None:
    """Raises `Error` for a pattern that matches none of the names."""
    if callable(patterns):
        return
    for pattern in patterns:
        if not any(matches(pattern, name) for name in names):
            raise Error(f"{option} has {pattern!r}, which matches nothing in the model{such_as(names)}")
