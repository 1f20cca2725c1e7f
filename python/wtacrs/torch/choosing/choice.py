"""Which matrices of a model can be sampled, and why others are left.

A module is looked at if it has a parameter of its own with two or more axes, embeddings and norms aside, which multiply
by no matrix.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import nn

from ..linear.layer import LayerSampling, SampledLinear
from ..linear.plans import why_layer_exact
from ..settings import Settings
from . import transformers_layers
from .rules import why_narrow

NOT_MULTIPLIED = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm, nn.utils.parametrize.ParametrizationList)
SKIPPED = "skip names it"
CONVOLUTIONS = nn.modules.conv._ConvNd


@dataclasses.dataclass(frozen=True)
class Product:
    """z = h Wᵀ, with `matrices` such W in one parameter of a module: one in a linear layer, one for each expert."""

    name: str
    module: nn.Module
    kind: str
    parameter: str
    in_features: int
    out_features: int
    matrices: int = 1

    @property
    def weight(self) -> torch.Tensor:
        return getattr(self.module, self.parameter)


@dataclasses.dataclass(frozen=True)
class Left:
    """A module that stays as it is, or one `product` of it. With `rule` it could be sampled, but would save little."""

    module: nn.Module
    reason: str
    product: Product | None = None
    rule: bool = False


def products(name: str, module: nn.Module) -> list[Product]:
    """What the module of this name multiplies and wtacrs serves, converted or not; none for other modules."""
    if type(module) is nn.Linear or isinstance(module, SampledLinear):
        return [Product(name, module, "nn.Linear", "weight", module.in_features, module.out_features)]
    if transformers_layers.is_conv1d(module):
        return [Product(name, module, "Conv1D", "weight", module.nx, module.nf)]
    if transformers_layers.is_experts(module):
        found = []
        for parameter in transformers_layers.projections(module):
            if getattr(module, parameter).ndim != 3:
                return []
            matrices, out_features, in_features = getattr(module, parameter).shape
            if module.is_transposed:
                in_features, out_features = out_features, in_features
            whole = f"{name}.{parameter}".removeprefix(".")
            found.append(Product(whole, module, "experts", parameter, in_features, out_features, matrices))
        return found
    return []


def choose(model: nn.Module, settings: Settings) -> tuple[list[Product], dict[str, Left]]:
    """What is to be sampled, and the modules that are left, by name."""
    chosen, left = [], {}
    for name, module in with_matrices(model):
        found = products(name, module)
        if settings.skips(name, module):
            left[name] = Left(module, SKIPPED)
        elif (reason := why_not_served(module, found, settings)) is not None:
            left[name] = Left(module, reason)
        else:
            for product in found:
                reason = why_exact(product, settings)
                if settings.skips(product.name, module):
                    left[product.name] = Left(module, SKIPPED, product)
                elif reason is not None:
                    left[product.name] = Left(module, reason, product, rule=True)
                else:
                    chosen.append(product)
    return chosen, left


def with_matrices(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that have matrices of their own, and their names. A parametrized weight counts for its module."""
    for name, module in model.named_modules():
        if isinstance(module, NOT_MULTIPLIED):
            continue
        if products(name, module) or matrices(module):
            yield name, module


def matrices(module: nn.Module) -> dict[str, torch.Tensor]:
    """The module's own parameters with at least two axes longer than one, by name."""
    found = dict(module.named_parameters(recurse=False))
    if nn.utils.parametrize.is_parametrized(module):
        for name, originals in module.parametrizations.items():
            found |= {f"{name}.{part}": p for part, p in originals.named_parameters(recurse=False)}
    return {name: p for name, p in found.items() if is_matrix(p)}


def is_matrix(parameter: torch.Tensor) -> bool:
    # A lazy module's parameter has no shape yet.
    return nn.parameter.is_lazy(parameter) or parameter.ndim == 2 or sum(size > 1 for size in parameter.shape) > 1


def why_not_served(module: nn.Module, found: list[Product], settings: Settings) -> str | None:
    """Why no product of the module can be sampled; None if one can."""
    kind = type(module).__name__
    if found:
        if forward_is_replaced(module):
            return "its forward was replaced"
        if found[0].kind == "experts":
            return transformers_layers.why_not_served(module, settings.source)
        return None
    if nn.utils.parametrize.is_parametrized(module):
        return "its weight is parametrized: convert first, then parametrize"
    if isinstance(module, nn.Linear) and type(module).__name__.startswith("FSDP"):
        return "fully_shard has changed its class: convert first, then shard"
    if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return "nn.MultiheadAttention reads its weight without calling it"
    if isinstance(module, nn.MultiheadAttention):
        return "nn.MultiheadAttention multiplies Q, K and V by one function of torch's"
    if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
        return "it is lazy: run a forward pass before convert"
    if isinstance(module, nn.Linear):
        return f"it is a subclass of nn.Linear, {kind}, which may compute something else"
    if isinstance(module, CONVOLUTIONS):
        return "its products are those of a convolution"
    return f"{kind} is none of the modules that are served: nn.Linear, and Conv1D and experts of transformers"


def why_exact(product: Product, settings: Settings) -> str | None:
    """Why sampling this product would save too little; None if it pays."""
    reason = why_layer_exact(product, *settings.of(product.name))
    return reason or why_narrow(product.in_features, product.out_features, product.weight.element_size())


def forward_is_replaced(module: nn.Module) -> bool:
    """Whether a call of the module does not run its class's forward pass. accelerate's hooks put a function in its
    place that calls the former one."""
    if "forward" not in vars(module):
        return False
    return not goes_through(module, vars(module)["forward"]) and not hooked(module)


def hooked(module: nn.Module) -> bool:
    """Whether accelerate's hooks stand before the forward pass of the module's class, or of a class before it was
    converted."""
    return hasattr(module, "_hf_hook") and goes_through(module, vars(module).get("_old_forward"))


def goes_through(module: nn.Module, function) -> bool:
    """Whether the function is the forward method of the module's class, bound to it."""
    return getattr(function, "__self__", None) is module and function.__func__ is type(module).forward


def change_class(module: nn.Module, to: type) -> None:
    """The module stays the same object, with its hooks, its parameters and whoever refers to it. Bound methods that
    accelerate's hooks keep follow."""
    bound = [name for name in ("forward", "_old_forward") if goes_through(module, vars(module).get(name))]
    module.__class__ = to
    for name in bound:
        setattr(module, name, to.forward.__get__(module))


def sample(product: Product, own: LayerSampling) -> None:
    """Puts the sampled class in the place of the module's own."""
    module = product.module
    to = SampledLinear
    if product.kind != "nn.Linear":
        # Both projections of experts are of one module, which the first of them converts.
        to = transformers_layers.sampled_class(sampled_as(module) or type(module))
    if product.kind == "experts":
        vars(module).setdefault("sampled", {})[product.parameter] = own
    else:
        module.sampled = own
    if type(module) is not to:
        change_class(module, to)


def sampled_as(module: nn.Module) -> type | None:
    """The class that the module had before it was converted; None if it is not converted. A subclass of a sampled
    class, as of a parametrized module, counts as converted."""
    for base in type(module).__mro__:
        if base is SampledLinear:
            return nn.Linear
        if transformers_layers.is_sampled_class(base):
            return base.__bases__[1]
    return None
