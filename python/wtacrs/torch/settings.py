"""`Settings`: everything that `convert` takes and that is data."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import json
import math
import numbers
import typing
from collections.abc import Callable, Iterable, Mapping

from torch import nn

from .._native import DESIGNS, ENGINES, PACKINGS, Error
from .linear.guesses import SOURCES

ACTIVATIONS = (None, "exact", "packed")
ACTIVATION_BITS = (8, 4)


class Options(typing.TypedDict, total=False):
    """The fields of `Settings`, as keywords of `convert`."""

    budget: float
    design: str
    source: str
    bits: int | str
    layers: Mapping[str, Mapping[str, typing.Any]]
    skip: str | Iterable[str] | Callable[[str, nn.Module], bool]
    seed: int | None
    samples: int | None
    tokens_per_sample: int | None
    activations: str | None
    activation_bits: int
    tensor_mul: float | None
    sample_kept_inputs: bool
    memory: float | None
    noise: float | None
    engine: str


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a model saves what its backward pass needs.

    `budget` is the share of the rows that a layer keeps, and `bits` is 8, 4 or 2 for each element, or "native" for
    exact copies of the rows in the input's own dtype. Fewer rows save time, fewer bits memory. With budget=1.0 all rows
    are packed: nothing is chosen, and `design`, `source` and what belongs to it play no part.

    `layers` has other budgets and bits for some layers, by pattern: {"encoder.*.key": {"budget": 0.1, "bits": 2}}.
    Where several patterns match a layer, the last one that sets a value counts. `skip` contains patterns of modules
    that stay as they are, or is a function of name and module. A pattern is a name, perhaps with `*`, `?` and `[…]`,
    where `*` stands for any characters, dots included. A pattern that matches a module matches all that is inside it.

    If `seed` is None, it comes from torch's generator.

    For source="cached", `samples` is the number of samples of the data set, whose ids are then 0 to `samples` - 1, and
    `tokens_per_sample` the largest number of tokens in one of them. A GPU requires both, since the norms lie in its
    memory.

    `activations` is for what stands between the linear layers: activations, gated units, dropouts, norms, and the
    attention of transformers' models. "exact" saves no more than their gradients need, "packed" saves that in
    `activation_bits` bits, 8 or 4, and Q, K and V in 8. None leaves them as they are. With `tensor_mul`, attention that
    saves its probabilities saves this share of the rows of Q and K and of the channels of V alone.

    A layer whose input another operator keeps anyway saves no memory where it is sampled, and is exact;
    `sample_kept_inputs` samples it all the same, which saves time.

    `memory` is one budget for all layers: the share of the bytes of their inputs that they save together. Rows and bits
    are then shared out among them, by what training steps show of each, so that gradients' relative errors are least.
    `noise` asks for as much memory as it takes to keep what sampling and packing add to the gradients' variance below
    this share of what different batches make. Either takes the place of `budget` and `bits`, but for layers that have
    values of their own in `layers`, and for experts.

    `engine` chooses what multiplies on a GPU: "own" (this package's kernels), "cublaslt" (NVIDIA's cuBLASLt) or "auto"
    (cuBLASLt where it is expected to be faster). Bits of "own" do not depend on the version of cuBLASLt.

    Raises `Error` for a value that is refused.
    """

    budget: float = 0.3
    design: str = "wta-pivotal"
    source: str = "predicted"
    bits: int | str = 4
    layers: Mapping[str, Mapping[str, typing.Any]] = dataclasses.field(default_factory=dict)
    skip: tuple[str, ...] | Callable[[str, nn.Module], bool] = ()
    seed: int | None = None
    samples: int | None = None
    tokens_per_sample: int | None = None
    activations: str | None = None
    activation_bits: int = 8
    tensor_mul: float | None = None
    sample_kept_inputs: bool = False
    memory: float | None = None
    noise: float | None = None
    engine: str = "auto"

    def __post_init__(self) -> None:
        put = functools.partial(object.__setattr__, self)
        put("budget", checked_budget(self.budget))
        put("design", one_of(DESIGNS, self.design, "design"))
        put("source", one_of(SOURCES, self.source, "source"))
        put("bits", one_of(PACKINGS, self.bits, "number of bits"))
        put("engine", one_of(ENGINES, self.engine, "engine"))
        put("activations", one_of(ACTIVATIONS, self.activations, "way to save activations"))
        put("activation_bits", one_of(ACTIVATION_BITS, self.activation_bits, "number of activation bits"))
        one_of((True, False), self.sample_kept_inputs, "answer for sample_kept_inputs:")
        if self.tensor_mul is not None and (
            self.activations is None or not is_number(self.tensor_mul) or not 0 < self.tensor_mul < 1
        ):
            raise Error(f"tensor_mul={described(self.tensor_mul)}; it is a share below 1, and belongs to activations")
        if self.memory is not None and self.noise is not None:
            raise Error("memory and noise are two ways to ask for one budget: give one of them")
        if self.memory is not None and (not is_number(self.memory) or not 0 < self.memory <= 1):
            raise Error(f"memory={described(self.memory)}; it is a share of the layers' inputs, above 0 and at most 1")
        if self.noise is not None and (not is_number(self.noise) or not 0 < self.noise < math.inf):
            raise Error(f"noise={described(self.noise)}; it is a share of the variance among batches, a number above 0")
        for name in ("seed", "samples", "tokens_per_sample"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, numbers.Integral) or isinstance(value, bool):
                raise Error(f"{name}={described(value)}; it is a whole number, or None")
            put(name, int(value))
        if (self.samples is None) != (self.tokens_per_sample is None):
            raise Error("samples and tokens_per_sample are needed both, or neither")
        if not callable(self.skip):
            put("skip", patterns_of(self.skip))
        put("layers", checked_layers(self.layers))

    @property
    def room(self) -> tuple[int, int] | None:
        """How many samples of how many tokens the data set has, where that is known."""
        return None if self.samples is None else (self.samples, self.tokens_per_sample)

    def skips(self, name: str, module: nn.Module) -> bool:
        """Whether the module of this name stays as it is."""
        if callable(self.skip):
            return bool(self.skip(name, module))
        return any(matches(pattern, name) for pattern in self.skip)

    def of(self, name: str) -> tuple[float, int | str]:
        """The budget and the bits of the layer of this name."""
        own = {"budget": self.budget, "bits": self.bits}
        for pattern, values in self.layers.items():
            if matches(pattern, name):
                own |= values
        return own["budget"], own["bits"]

    def plans(self, name: str, matrices: int) -> bool:
        """Whether the layer of this name has a part in the one budget for all layers."""
        planned = self.memory is not None or self.noise is not None
        return planned and matrices == 1 and not any(matches(pattern, name) for pattern in self.layers)

    def changed(self, pattern: str, **values: typing.Any) -> Settings:
        """With other values of "budget" or "bits" for the layers that the pattern matches. "*" is all of them."""
        if pattern != "*":
            before = {p: v for p, v in self.layers.items() if p != pattern}
            # The last pattern counts.
            return dataclasses.replace(self, layers={**before, pattern: {**self.layers.get(pattern, {}), **values}})
        left = {p: {k: v for k, v in own.items() if k not in values} for p, own in self.layers.items()}
        return dataclasses.replace(self, layers={p: own for p, own in left.items() if own}, **values)

    def to_json(self) -> str:
        """As JSON, from which `from_json` makes equal settings. Raises `Error` if `skip` is a function."""
        if callable(self.skip):
            raise Error("skip is a function, which JSON has no form for: use patterns")
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The settings that `to_json` wrote. Fields that are left out have their defaults. Raises `Error` for text that
        is not JSON, and for fields and values that are not of settings."""
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise Error(f"settings that are not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise Error(f"settings in JSON are an object, and this is {described(fields)}")
        check_names(fields)
        return cls(**fields)


def check_names(options: Iterable[str]) -> None:
    """Raises `Error` for a name that is not a field of `Settings`."""
    names = [field.name for field in dataclasses.fields(Settings)]
    for name in options:
        if name not in names:
            raise Error(f"no setting {name!r}; there are {', '.join(names)}")


def matches(pattern: str, name: str) -> bool:
    """Whether the pattern matches a module's name, or the name of a module around it."""
    parts = name.split(".")
    return any(fnmatch.fnmatchcase(".".join(parts[:count]), pattern) for count in range(1, len(parts) + 1))


def patterns_of(skip) -> tuple[str, ...]:
    patterns = (skip,) if isinstance(skip, str) else skip
    patterns = tuple(patterns) if isinstance(patterns, Iterable) else (None,)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise Error(f"skip={described(skip)}; it is a pattern, several of them, or a function of name and module")
    return patterns


def checked_layers(layers) -> dict[str, dict[str, typing.Any]]:
    if not isinstance(layers, Mapping):
        raise Error(f'layers={described(layers)}; it is a dictionary such as {{"encoder.*.key": {{"budget": 0.1}}}}')
    for pattern, values in layers.items():
        if not isinstance(pattern, str) or not isinstance(values, Mapping):
            raise Error(f"layers has {pattern!r}: {described(values)}; it has a dictionary of values for each pattern")
        for name in values:
            if name not in LAYERS_OWN:
                raise Error(f"layers[{pattern!r}] has {name!r}: what layers have of their own is budget and bits")
    return {
        pattern: {name: LAYERS_OWN[name](value) for name, value in values.items()} for pattern, values in layers.items()
    }


def checked_budget(budget) -> float:
    if not is_number(budget) or not 0 < budget <= 1:
        raise Error(f"a budget of {described(budget)}; it is a share of the rows, a number above 0 and at most 1")
    return float(budget)


def is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def described(value) -> str:
    """The value, and its type where the value does not show it."""
    return repr(value) if is_number(value) or value is None else f"{value!r} (a {type(value).__name__})"


def one_of(allowed: Iterable, value, what: str):
    """The member that the value is. NumPy's numbers are those that they equal; True is not 1."""
    allowed = list(allowed)
    for member in allowed:
        if type(member) is type(value) and member == value:
            return member
        if type(member) is int and isinstance(value, numbers.Integral) and not isinstance(value, bool | str):
            if member == value:
                return member
    shown = f"no {what} {value!r}; there are {', '.join(map(str, allowed))}"
    plain = value is None or type(value) in (int, float, bool)
    raise Error(shown if plain else f"{shown} (this is a {type(value).__name__})")


LAYERS_OWN = {"budget": checked_budget, "bits": lambda bits: one_of(PACKINGS, bits, "number of bits")}


def such_as(names: Iterable[str]) -> str:
    """Some of the names, for the end of a message."""
    some = [repr(name) for name, _ in zip(names, range(3))]
    return f"; there are names such as {', '.join(some)}" if some else ""
