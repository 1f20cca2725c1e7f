"""`convert`, and what the converted modules of a model share: randomness, guesses, ranks, and their state."""

from __future__ import annotations

import collections
import contextlib
import fnmatch
import weakref

import torch

from .._native import DESIGNS, PACKINGS, Error, look_up
from . import attention, devices, modules, rank_exchange
from .batch_layout import Batch
from .guesses import SOURCES, Input
from .layer import SampledLinear
from .operators import MASK, Operators, Randomness
from .packed_tensors import packed_saved_tensors
from .plans import bytes_a_token, packs_all, plan_for, why_layer_exact
from .shared_input import SharedInput, SharedInputs

# How operators save, and in how many bits.
ACTIVATIONS = {None: (8, 4), "exact": (8, 4), "packed": (8, 4)}


def convert(
    model,
    budget=0.3,
    design="wta-pivotal",
    source="predicted",
    bits=4,
    skip=(),
    seed=None,
    process_group=None,
    samples=None,
    tokens_per_sample=None,
    activations=None,
    activation_bits=8,
):
    """Makes the nn.Linear layers of `model` save only a share `budget` of the rows of their input, packed in `bits`
    bits an element, in place. Returns a `Sampling`. Parameters, their names and the model's state_dict stay as they
    are.

    `bits` is 8, 4 or 2, or "native" for exact copies of the rows in the input's own dtype. Fewer rows save time, fewer
    bits memory. With budget=1.0 all rows are packed: nothing is chosen, and `design`, `source` and what belongs to it
    play no part. Layers that would save no less than their input stay exact; `Sampling.left_exact` has their names and
    the reasons.

    `skip` contains names, or patterns such as "encoder.*.key", or is a function of name and module. Subclasses of
    nn.Linear are left alone. If `seed` is None, it comes from torch's generator. With a `process_group` each rank draws
    for itself, and `Sampling.exchange` must follow every backward pass.

    For source="cached", `samples` is the number of samples of the data set, whose ids are then 0 to `samples` - 1, and
    `tokens_per_sample` the largest number of tokens in one of them. A GPU requires both, since the norms lie in its
    memory.

    `activations` is for what stands between the linear layers: activations, gated units, dropouts, norms, and the
    attention of transformers' models. "exact" saves no more than their gradients need, "packed" saves that in
    `activation_bits` bits, 8 or 4, and Q, K and V in 8. None leaves them as they are.
    """
    if not 0 < budget <= 1:
        raise Error(f"a budget of {budget}; it is a share of the rows, above 0 and at most 1")
    look_up(DESIGNS, design, "design")
    look_up(SOURCES, source, "source")
    look_up(PACKINGS, bits, "number of bits")
    look_up(ACTIVATIONS, activations, "way to save activations")
    if activation_bits not in ACTIVATIONS[activations]:
        raise Error(f"activation_bits={activation_bits!r}; there are 8 and 4")
    if (samples is None) != (tokens_per_sample is None):
        raise Error("samples and tokens_per_sample are needed both, or neither")
    room = None if samples is None else (samples, tokens_per_sample)
    patterns = [skip] if isinstance(skip, str) else skip
    skipped = skip if callable(skip) else lambda name, _: any(fnmatch.fnmatchcase(name, p) for p in patterns)
    found = {n: m for n, m in model.named_modules() if type(m) is torch.nn.Linear and not skipped(n, m)}
    if not found and activations is None:
        raise Error("the model has no nn.Linear to convert")
    reasons = {name: why_layer_exact(module, budget, bits) for name, module in found.items()}
    left_exact = {name: reason for name, reason in reasons.items() if reason is not None}
    sampled = {name: module for name, module in found.items() if name not in left_exact}
    sampling = Sampling(sampled, left_exact, budget, bits, design, source, seed, process_group, room)
    for name, module in sampled.items():
        # The module stays the same object, with its hooks, its parameters and whoever refers to it.
        module.__class__ = SampledLinear
        module.sampling, module.sampled_as = sampling, name
    if activations is not None:
        sampling.convert_operators(model, skipped, activations, activation_bits)
    return sampling


class Sampling:
    """What converted layers of a model share. Not part of the model's state_dict: save `state_dict()` beside it."""

    def __init__(self, layers, left_exact, budget, bits, design, source, seed, process_group, room):
        self.budget, self.bits, self.design, self.source = budget, bits, design, source
        rank = 0 if process_group is None else torch.distributed.get_rank(process_group)
        self.randomness = Randomness(int(torch.randint(2**62, ())) if seed is None else seed & MASK, rank)
        self.layers = layers
        # Converted modules beside the linear layers and what they compute, by name, and why others were left.
        self.modules, self._left_modules = {}, {}
        self.operators = None
        self._attention = []
        self._left_exact = left_exact
        # By the name of the layer that reads an H first.
        self.guesses = {}
        self.group = process_group
        self._room = room
        # The most that a rank's message about cached norms has taken so far.
        self.message_words = 0
        self._inputs = SharedInputs()
        self._batch = None

    def __repr__(self):
        return f"Sampling({self.settings()}, layers={len(self.layers)}, left_exact={len(self._left_exact)})"

    @property
    def seed(self):
        return self.randomness.seed

    @property
    def offset(self):
        return self.randomness.offset

    def settings(self):
        settings = f"budget={self.budget}, bits={self.bits!r}"
        return settings if self.packs_all else f"{settings}, design={self.design!r}, source={self.source!r}"

    @property
    def packs_all(self):
        """Whether all rows are packed: then nothing is chosen, guessed or exchanged."""
        return packs_all(self.budget, self.bits)

    @property
    def left_exact(self):
        """Pairs of a layer's name and the reason why it stayed nn.Linear, or was exact in a pass over few tokens."""
        return list(self._left_exact.items())

    def summary(self):
        """How many layers save what, and which do not."""
        rows = "all rows" if self.budget == 1 else f"{self.budget} of the rows"
        how = "as exact copies" if self.bits == "native" else f"in {self.bits} bits an element"
        lines = [f"{len(self.layers)} layers save {rows} of their input, {how}"]
        tokens = [bytes_a_token(layer, self.budget, self.bits) for layer in self.layers.values()]
        shares = [saved / exact for saved, exact in tokens]
        if shares:
            lines[0] += f": {min(shares):.3f} to {max(shares):.3f} of its bytes"
        lines += [f"{name} is exact: {reason}" for name, reason in self.left_exact]
        if self.operators is not None:
            lines += self._summary_of_operators()
        return "\n".join(lines)

    def _summary_of_operators(self):
        counts = collections.Counter(kind.category for _, kind in self.modules.values())
        served = [f"{count} {category}" for category, count in counts.items()]
        served += [f"the attention of {len(self._attention)} models"] if self._attention else []
        packing = self.operators.packing
        how = "what their gradients need" if packing == "native" else f"{packing} bits an element"
        lines = [f"{', '.join(served) or 'no operators'} save {how}"]
        by_reason = collections.defaultdict(list)
        for name, reason in self._left_modules.items():
            by_reason[reason].append(name)
        return lines + [f"left as they are, since {reason}: {', '.join(names)}" for reason, names in by_reason.items()]

    def convert_operators(self, model, skipped, mode, bits):
        self.operators, self._model = Operators(self.randomness, mode, bits), weakref.ref(model)
        found, self._left_modules = modules.find(model, skipped, mode)
        self.modules = found
        for module, kind in found.values():
            modules.convert(module, kind, self.operators)
        self._attention, left = attention.convert(model, self.operators, skipped)
        self._left_modules |= left

    @property
    def left_modules(self):
        """Pairs of name and reason: modules, and the attention of models, that save as they did."""
        return list(self._left_modules.items())

    @contextlib.contextmanager
    def packed_saved_tensors(self, bits=None):
        """Within, what torch's own functions save is packed as well, where it is large: in `bits` bits, by default
        those of the activations. A gradient that is not linear in what is packed is then not exactly without bias."""
        if self.operators is None or not self.operators.packs:
            raise Error('packed_saved_tensors belongs to convert(..., activations="packed")')
        with packed_saved_tensors(self._model(), self.operators, bits or self.operators.packing):
            yield

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
        source="cached" requires it."""
        batch = Batch(samples, mask)
        if self._room is not None:
            batch.check(*self._room)
        before, self._batch = self._batch, batch
        try:
            yield
        finally:
            self._batch = before

    def read(self, layer, given, h):
        """The layer's plan, and the saved rows of h, which all layers share that were `given` the same tensor; None if
        h itself takes no more memory."""
        rows = h.reshape(-1, h.shape[-1])
        shape = (len(rows), layer.in_features, layer.out_features)
        # As torch itself multiplies f32 on a GPU.
        precision = "f32" if torch.get_float32_matmul_precision() == "highest" else "tf32"
        device = devices.device_of(h.device)
        plan = plan_for(device, shape, h.dtype, self.budget, self.bits, self.design, self.source, precision)
        reason = plan.why_exact()
        if reason is not None:
            self._left_exact.setdefault(layer.sampled_as, reason)
            return None
        shared = self._inputs.of(given, h.dtype)
        if shared is None or shared.backward_begun:
            shared = self._share_anew(plan, layer, h.dtype, given._version, shared)
        block = shared.block
        if block is None:
            block = self._draw(plan, shared, rows)
            self._inputs.hold(given, shared, block)
        return plan, shared, block

    def _share_anew(self, plan, layer, dtype, version, before):
        """Where layers that shared the tensor before still wait for their backward pass, this layer is one of them and
        runs again, as under checkpointing. It need not be the one that ran first, and `batch` may have been left."""
        if before is None or not before.awaited:
            guess = Input() if self.packs_all else self.guess(layer)
            # A rank with few tokens, all of which it packs, still has the guesses that others exchange.
            return SharedInput(Input() if plan.packs_all else guess, self._batch, dtype, version)
        return SharedInput(before.guess, self._batch or before.batch, dtype, version)

    def _draw(self, plan, shared, rows):
        shared.guess.move(plan.device)
        prior = shared.guess.prior(shared.batch, len(rows))
        seed, offset = self.randomness.key, self.randomness.advance(plan.draws)
        return plan.forward(rows, prior, shared.guess.predictor, seed, offset)

    def guess(self, layer):
        if layer.sampled_as not in self.guesses:
            self.guesses[layer.sampled_as] = SOURCES[self.source](layer.in_features, self._room)
        return self.guesses[layer.sampled_as]

    def exchange(self):
        """Brings together what the ranks have learned. All ranks call it after each step's backward passes."""
        if self.group is not None:
            rank_exchange.exchange(self)

    def state_dict(self):
        """Seed, offset, and predictors or caches as tensors of bytes."""
        guesses = {name: guess.to_bytes() for name, guess in self.guesses.items()}
        return {"source": self.source, "seed": self.seed, "offset": self.offset, "guesses": guesses}

    def load_state_dict(self, state):
        if state["source"] != self.source:
            raise Error(f"a state of source {state['source']!r} for source {self.source!r}")
        # With other bits or another budget other layers may have been left exact.
        guesses = {
            name: data for name, data in state["guesses"].items() if name in self.layers or name not in self._left_exact
        }
        unknown = sorted(set(guesses) - set(self.layers))
        if unknown:
            raise Error(f"a state of layers that are not converted here: {', '.join(unknown)}")
        loaded = {}
        for name, data in guesses.items():
            loaded[name] = SOURCES[self.source](self.layers[name].in_features, self._room)
            if self.source != "input":
                loaded[name].from_bytes(data)
        self.guesses = loaded
        self.randomness.seed, self.randomness.offset = state["seed"], state["offset"]
        self._inputs = SharedInputs()

    def revert(self):
        """Makes the modules again what they were."""
        for module in self.layers.values():
            module.__class__ = torch.nn.Linear
            del module.sampling, module.sampled_as
        for module, _ in self.modules.values():
            modules.revert(module)
        attention.revert(self._attention)
