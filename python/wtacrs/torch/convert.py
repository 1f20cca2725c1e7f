"""`convert`: which layers of a model are sampled, and which stay as they are."""

from __future__ import annotations

import dataclasses
import typing

import torch

from .._native import Error
from .layer import LayerSampling, SampledLinear
from .plans import why_layer_exact
from .sampling import Sampling
from .settings import Options, Settings


def convert(
    model: torch.nn.Module,
    budget: float | Settings | None = None,
    design: str | None = None,
    source: str | None = None,
    *,
    process_group: torch.distributed.ProcessGroup | None = None,
    **options: typing.Unpack[Options],
) -> Sampling:
    """Makes the nn.Linear layers of `model` save only a share `budget` of the rows of their input, packed in `bits`
    bits an element, in place. Returns a `Sampling`. Parameters, their names and the model's state_dict stay as they
    are.

    The options are the fields of `Settings`, whose documentation explains them: `convert(model, 0.3, bits=4)` equals
    `convert(model, Settings(budget=0.3, bits=4))`. Options beside a `Settings` replace its fields.

    Layers that would save no less than their input stay exact; `Sampling.left_exact` has their names and the reasons.
    Subclasses of nn.Linear are left alone. With a `process_group` each rank draws for itself, and `Sampling.exchange`
    must follow every backward pass.

    Raises `Error` for a value that is refused, and for a model without nn.Linear, unless `activations` is given.
    """
    settings = settings_of(budget, design, source, options)
    found = {
        name: module
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear and not settings.skips(name, module)
    }
    if not found and settings.activations is None:
        raise Error("the model has no nn.Linear to convert")
    sampling = Sampling(settings, process_group)
    for name, module in found.items():
        reason = why_layer_exact(module, settings.budget, settings.bits)
        if reason is not None:
            sampling.leave_exact(name, reason)
            continue
        # The module stays the same object, with its hooks, its parameters and whoever refers to it.
        module.__class__ = SampledLinear
        module.sampled = LayerSampling(sampling, name, settings.budget, settings.bits)
        sampling.layers[name] = module
    if settings.activations is not None:
        sampling.convert_operators(model)
    return sampling


def settings_of(budget, design, source, options) -> Settings:
    names = [field.name for field in dataclasses.fields(Settings)]
    for name in options:
        if name not in names:
            raise TypeError(f"convert() has no option {name!r}; there are {', '.join(names)}")
    given = isinstance(budget, Settings)
    leading = {"budget": None if given else budget, "design": design, "source": source}
    options = options | {name: value for name, value in leading.items() if value is not None}
    return dataclasses.replace(budget if given else Settings(), **options)
