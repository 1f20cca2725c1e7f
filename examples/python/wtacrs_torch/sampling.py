"""`convert`, and what the converted layers of a model have in common: randomness, guesses, ranks, and their state."""

import contextlib
import fnmatch

import torch
from wtacrs_ctypes import DESIGNS, Error

from . import native, ranks
from .batch import Batch
from .guess import SOURCES
from .layer import SampledLinear
from .reading import Reading, Readings

MASK = 2**64 - 1


def convert(
    model,
    budget=0.3,
    design="wta-pivotal",
    source="predicted",
    skip=(),
    seed=None,
    process_group=None,
    samples=None,
    tokens_per_sample=None,
):
    """Makes the nn.Linear layers of `model` keep only a share `budget` of the rows of their input, in place. Returns a
    `Sampling`. Parameters, their names and the model's state_dict stay as they are.

    `skip` has names, or patterns such as "encoder.*.key", or is a function of name and module. Subclasses of nn.Linear
    are left alone. `seed` comes from torch's generator if it is None. With a `process_group` each rank draws for
    itself, and `Sampling.exchange` must follow every backward pass. For source="cached" `samples` and
    `tokens_per_sample` tell how many samples the data set has, whose ids are then 0 to `samples` - 1, and the most tokens
    of one: on a GPU, where the norms lie in its memory, both are needed.
    """
    if not 0 < budget <= 1:
        raise Error(f"a budget of {budget}; it is a share of the rows, above 0 and at most 1")
    for name, value, known in [("design", design, DESIGNS), ("source", source, SOURCES)]:
        if value not in known:
            raise Error(f"no {name} {value!r}; there are {', '.join(known)}")
    if (samples is None) != (tokens_per_sample is None):
        raise Error("samples and tokens_per_sample are needed both, or neither")
    room = None if samples is None else (samples, tokens_per_sample)
    patterns = [skip] if isinstance(skip, str) else skip
    skipped = skip if callable(skip) else lambda name, _: any(fnmatch.fnmatchcase(name, p) for p in patterns)
    found = {n: m for n, m in model.named_modules() if type(m) is torch.nn.Linear and not skipped(n, m)}
    if not found:
        raise Error("the model has no nn.Linear to convert")
    sampling = Sampling(found, budget, design, source, seed, process_group, room)
    for name, module in found.items():
        # The module stays the same object, with its hooks, its parameters and whoever refers to it.
        module.__class__ = SampledLinear
        module.sampling, module.sampled_as = sampling, name
    return sampling


class Sampling:
    """What converted layers of a model share. Not part of the model's state_dict: save `state_dict()` beside it."""

    def __init__(self, layers, budget, design, source, seed, process_group, room):
        self.budget, self.design, self.source = budget, design, source
        self.seed = int(torch.randint(2**62, ())) if seed is None else seed & MASK
        self.offset = 0
        self.layers = layers
        # By the name of the layer that reads an H first.
        self.guesses = {}
        self.group = process_group
        self._room = room
        # That a rank's message about cached norms took at most so far.
        self.message_words = 0
        self._rank = 0 if process_group is None else torch.distributed.get_rank(process_group)
        self._readings = Readings()
        self._batch = None

    def __repr__(self):
        return f"budget={self.budget}, design={self.design!r}, source={self.source!r}"

    def __deepcopy__(self, memo):
        # A copy of a model, as for averaged weights, goes on with the same randomness and guesses.
        return self

    def __reduce__(self):
        raise Error("a Sampling is not pickled: save its state_dict() and the model's")

    @property
    def deferred(self):
        return self.group is not None

    @contextlib.contextmanager
    def batch(self, samples, mask=None):
        """Forward passes within are of these samples: their ids, and a mask (samples x length) that is true for tokens.
        Needed for source="cached"."""
        batch = Batch(samples, mask)
        if self._room is not None:
            batch.check(*self._room)
        before, self._batch = self._batch, batch
        try:
            yield
        finally:
            self._batch = before

    def read(self, layer, given, h):
        """The layer's plan, and the reading and the selected rows of h, shared by all that were `given` the same tensor."""
        rows = h.reshape(-1, h.shape[-1])
        shape = (len(rows), layer.in_features, layer.out_features)
        # As torch itself multiplies f32 on a GPU.
        precision = "f32" if torch.get_float32_matmul_precision() == "highest" else "tf32"
        plan = native.plan(native.place(h.device), *shape, h.dtype, self.budget, self.design, self.source, precision)
        reading = self._readings.of(given, h.dtype)
        if reading is None or reading.over:
            reading = self._read_anew(layer, h.dtype, given._version, reading)
        block = reading.block
        if block is None:
            block = self._draw(plan, reading, rows)
            self._readings.hold(given, reading, block)
        return plan, reading, block

    def _read_anew(self, layer, dtype, version, before):
        """Where layers of the tensor's last reading still wait for their backward pass, one of them runs again: another
        may have come first then, and `batch` is left."""
        if before is None or not before.awaited:
            return Reading(self.guess(layer), self._batch, dtype, version)
        return Reading(before.guess, self._batch or before.batch, dtype, version)

    def _draw(self, plan, reading, rows):
        reading.guess.move(plan.place)
        prior = reading.guess.prior(reading.batch, len(rows))
        # Ranks draw under keys of their own.
        seed, offset = (self.seed + self._rank) & MASK, self.offset
        block = plan.forward(rows, prior, reading.guess.predictor, seed, offset)
        self.offset = (offset + plan.draws) & MASK
        return block

    def guess(self, layer):
        if layer.sampled_as not in self.guesses:
            self.guesses[layer.sampled_as] = SOURCES[self.source](layer.in_features, self._room)
        return self.guesses[layer.sampled_as]

    def exchange(self):
        """Brings together what the ranks have learned; after each step's backward passes, by all ranks."""
        if self.group is not None:
            ranks.exchange(self)

    def state_dict(self):
        """Seed, offset, and predictors or caches as tensors of bytes."""
        guesses = {name: guess.to_bytes() for name, guess in self.guesses.items()}
        return {"source": self.source, "seed": self.seed, "offset": self.offset, "guesses": guesses}

    def load_state_dict(self, state):
        if state["source"] != self.source:
            raise Error(f"a state of source {state['source']!r} for source {self.source!r}")
        unknown = sorted(set(state["guesses"]) - set(self.layers))
        if unknown:
            raise Error(f"a state of layers that are not converted here: {', '.join(unknown)}")
        loaded = {}
        for name, data in state["guesses"].items():
            loaded[name] = SOURCES[self.source](self.layers[name].in_features, self._room)
            if self.source != "input":
                loaded[name].from_bytes(data)
        self.guesses, self.seed, self.offset = loaded, state["seed"], state["offset"]
        self._readings = Readings()

    def revert(self):
        """Makes the layers nn.Linear again."""
        for module in self.layers.values():
            module.__class__ = torch.nn.Linear
            del module.sampling, module.sampled_as
