"""`Settings`: everything that `convert` takes and that is data."""

from __future__ import annotations

import dataclasses
import fnmatch
import typing
from collections.abc import Callable, Iterable

from torch import nn

from .._native import DESIGNS, PACKINGS, Error, look_up
from .guesses import SOURCES

ACTIVATIONS = dict.fromkeys((None, "exact", "packed"))
ACTIVATION_BITS = dict.fromkeys((8, 4))


class Options(typing.TypedDict, total=False):
    """The fields of `Settings`, as keywords of `convert`."""

    budget: float
    design: str
    source: str
    bits: int | str
    skip: str | Iterable[str] | Callable[[str, nn.Module], bool]
    seed: int | None
    samples: int | None
    tokens_per_sample: int | None
    activations: str | None
    activation_bits: int
    tensor_mul: float | None


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a model saves what its backward pass needs.

    `budget` is the share of the rows that a layer keeps, and `bits` is 8, 4 or 2 for each element, or "native" for
    exact copies of the rows in the input's own dtype. Fewer rows save time, fewer bits memory. With budget=1.0 all rows
    are packed: nothing is chosen, and `design`, `source` and what belongs to it play no part.

    `skip` contains names, or patterns such as "encoder.*.key", or is a function of name and module. If `seed` is None,
    it comes from torch's generator.

    For source="cached", `samples` is the number of samples of the data set, whose ids are then 0 to `samples` - 1, and
    `tokens_per_sample` the largest number of tokens in one of them. A GPU requires both, since the norms lie in its
    memory.

    `activations` is for what stands between the linear layers: activations, gated units, dropouts, norms, and the
    attention of transformers' models. "exact" saves no more than their gradients need, "packed" saves that in
    `activation_bits` bits, 8 or 4, and Q, K and V in 8. None leaves them as they are. With `tensor_mul`, attention that
    saves its probabilities saves this share of the rows of Q and K and of the channels of V alone.

    Raises `Error` for a value that is refused.
    """

    budget: float = 0.3
    design: str = "wta-pivotal"
    source: str = "predicted"
    bits: int | str = 4
    skip: tuple[str, ...] | Callable[[str, nn.Module], bool] = ()
    seed: int | None = None
    samples: int | None = None
    tokens_per_sample: int | None = None
    activations: str | None = None
    activation_bits: int = 8
    tensor_mul: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.budget <= 1:
            raise Error(f"a budget of {self.budget}; it is a share of the rows, above 0 and at most 1")
        look_up(DESIGNS, self.design, "design")
        look_up(SOURCES, self.source, "source")
        look_up(PACKINGS, self.bits, "number of bits")
        look_up(ACTIVATIONS, self.activations, "way to save activations")
        look_up(ACTIVATION_BITS, self.activation_bits, "number of activation bits")
        if self.tensor_mul is not None and (self.activations is None or not 0 < self.tensor_mul < 1):
            raise Error(f"tensor_mul={self.tensor_mul}; it is a share below 1, and belongs to activations")
        if (self.samples is None) != (self.tokens_per_sample is None):
            raise Error("samples and tokens_per_sample are needed both, or neither")
        if not callable(self.skip):
            patterns = (self.skip,) if isinstance(self.skip, str) else tuple(self.skip)
            object.__setattr__(self, "skip", patterns)

    @property
    def room(self) -> tuple[int, int] | None:
        """How many samples of how many tokens the data set has, where that is known."""
        return None if self.samples is None else (self.samples, self.tokens_per_sample)

    def skips(self, name: str, module: nn.Module) -> bool:
        """Whether the module of this name stays as it is."""
        if callable(self.skip):
            return bool(self.skip(name, module))
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.skip)
