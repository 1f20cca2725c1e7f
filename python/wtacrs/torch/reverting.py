"""Takes back what `convert` has changed: classes of modules, and the names of attention functions in configs."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from .._native import Error
from .attention import interface
from .choosing.choice import change_class, sampled_as
from .choosing.rules import InputsOfPass
from .choosing.transformers_layers import is_sampled_class
from .linear.layer import SampledLinear
from .linear.tracing import Traces
from .operators import modules

OUR_HOOKS = (InputsOfPass, Traces)


def revert(model: nn.Module) -> None:
    """Makes the modules of a model again what they were before `convert`: of the model itself, or of a copy, which
    its `Sampling` does not know. Modules that are not converted stay as they are.

    Raises `Error` if the class of a converted module has been changed since by others, and names it; then nothing has
    been taken back.
    """
    take_back(dict(model.named_modules()))
    interface.revert_configs(model)
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(getattr(hook, "__self__", None), OUR_HOOKS)]:
                del hooks[key]


def take_back(by_name: Mapping[str, nn.Module]) -> None:
    """Restores the classes of those modules that are converted: of all of them, or of none."""
    converted = {name: module for name, module in by_name.items() if is_converted(module)}
    for name, module in converted.items():
        if not class_is_ours(module):
            raise Error(
                f"{name or 'the model'} is a {type(module).__name__} now, whose class others have made from the "
                "converted one (a parametrization, fully_shard): take that back first, then revert"
            )
    for module in {id(module): module for module in converted.values()}.values():
        if isinstance(module, modules.Converted):
            modules.revert(module)
        else:
            change_class(module, sampled_as(module))
            del module.sampled


def is_converted(module: nn.Module) -> bool:
    return isinstance(module, modules.Converted) or sampled_as(module) is not None


def class_is_ours(module: nn.Module) -> bool:
    kind = type(module)
    return kind is SampledLinear or is_sampled_class(kind) or kind.__bases__[:1] in ours


ours = [(kind,) for kind in modules.CONVERTED.values()]
