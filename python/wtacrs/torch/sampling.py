"""`Sampling`: what the converted modules of a model share: randomness, guesses, ranks, and their state."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import weakref

import torch
from torch.utils._python_dispatch import _disable_current_modes

from .._native import Error
from . import devices
from .attention import interface
from .choosing.choice import Left, Product
from .choosing.rules import KEPT, InputsOfPass
from .linear import rank_exchange, tracing
from .linear.batch_layout import Batch
from .linear.guesses import SOURCES, Input
from .linear.layer import LayerSampling
from .linear.planning import Planning
from .linear.plans import plan_for, precision, why_pass_exact
from .linear.shared_input import SharedInput, SharedInputs
from .operators import modules
from .operators.packed_tensors import packed_saved_tensors
from .operators.passes import Operators
from .pickling import is_picklable
from .randomness import MASK, Randomness, from_torch
from .report import Report, report
from .reverting import take_back
from .settings import Settings, matches, such_as

why_exact = functools.lru_cache(maxsize=1024)(why_pass_exact)


class Sampling:
    """What converted layers of a model share. Not part of the model's state_dict: save `state_dict()` beside it."""

    def __init__(
        self,
        model: torch.nn.Module,
        settings: Settings,
        process_group: torch.distributed.ProcessGroup | None = None,
    ):
        self.settings = settings
        rank = 0 if process_group is None else torch.distributed.get_rank(process_group)
        with _disable_current_modes():
            seed = from_torch() if settings.seed is None else settings.seed & MASK
        self.randomness = Randomness(seed, rank)
        self._model = weakref.ref(model)
        # Converted layers and how they are sampled, and modules that are left, by name.
        self.products: dict[str, Product] = {}
        self.sampled: dict[str, LayerSampling] = {}
        self.left: dict[str, Left] = {}
        # Converted modules beside the linear layers and what they compute, by name, and why others were left.
        self.modules, self._left_modules = {}, {}
        self.operators = None
        self._attention = []
        self._left_exact = {}
        # By the name of the layer that reads an H first.
        self.guesses = {}
        self.group = process_group
        self.agreement = rank_exchange.Agreement()
        # The most that a rank's message about cached norms has taken so far.
        self.message_words = 0
        self._inputs = SharedInputs()
        self.current_batch = None
        self.traces = None
        # Where one budget is for all layers.
        self.planning = None
        self._inputs_of_pass = InputsOfPass()
        self.reverted = False

    def __repr__(self):
        return f"Sampling(layers={len(self.layers)}, left_exact={len(self._left_exact)}, source={self.source!r})"

    def __str__(self):
        return str(self.report())

    def __enter__(self) -> Sampling:
        return self

    def __exit__(self, *exception) -> None:
        self.revert()

    @property
    def model(self) -> torch.nn.Module:
        """The model, which lives as long as somebody else refers to it. Raises `Error` when it does not."""
        model = self._model()
        if model is None:
            raise Error("nothing refers to the model of this Sampling any more")
        return model

    def report(self, batch: int = 1, length: int = 1) -> Report:
        """What is sampled, what is not and why, and the expected bytes for `batch` x `length` tokens. Raises `Error`
        for a number below 1."""
        return report(self, batch, length)

    def set(self, *, budget: float | None = None, bits: int | str | None = None, pattern: str = "*") -> None:
        """Changes budget or bits of the layers that the pattern matches, from the next forward pass on.

        Layers that `convert` has left exact stay so. With several processes, all of them call it. Raises `Error` for a
        value that is refused, for a pattern that matches no converted layer, and where one budget is for all layers
        (`memory`, `noise`); then nothing has changed.
        """
        values = {name: value for name, value in (("budget", budget), ("bits", bits)) if value is not None}
        if self.reverted:
            raise Error("the model was reverted: convert it again")
        if self.planning is not None:
            raise Error(
                f"budgets and bits come from {self.planning.target}={self.planning.share}; `layers` has those of "
                "layers that are not to take part"
            )
        if not any(matches(pattern, name) for name in self.sampled):
            raise Error(f"{pattern!r} matches no converted layer{such_as(self.sampled)}")
        self.settings = self.settings.changed(pattern, **values)
        for name, sampled in self.sampled.items():
            sampled.budget, sampled.bits = self.settings.of(name)

    def measure_inputs(self) -> None:
        """Measures in the next training pass of the model which layers share an input, and whose input other operators
        keep anyway: for a model whose attention, dropout or modules have changed since its first pass."""
        self._inputs_of_pass.remove()
        for name, sampled in self.sampled.items():
            sampled.input_kept = False
            if self._left_exact.get(name) == KEPT:
                del self._left_exact[name]
        self._inputs_of_pass = InputsOfPass(self.model)

    @property
    def budget(self) -> float:
        return self.settings.budget

    @property
    def bits(self) -> int | str:
        return self.settings.bits

    @property
    def source(self) -> str:
        return self.settings.source

    @property
    def seed(self):
        return self.randomness.seed

    @property
    def offset(self):
        return self.randomness.offset

    @property
    def packs_all(self) -> bool:
        """Whether all layers pack all rows, and go on to: then nothing is chosen, guessed or exchanged."""
        return self.planning is None and all(sampled.packs_all for sampled in self.sampled.values())

    @property
    def layers(self) -> dict[str, torch.nn.Module]:
        """The modules of converted layers, by the layers' names."""
        return {name: product.module for name, product in self.products.items()}

    def add(self, chosen: list[Product], left: dict[str, Left]) -> None:
        """Notes which layers are sampled, and which modules are left, by name."""
        for product in chosen:
            self.products[product.name] = product
            self.sampled[product.name] = LayerSampling(
                self,
                product.name,
                *self.settings.of(product.name),
                in_features=product.in_features,
                out_features=product.out_features,
                matrices=product.matrices,
            )
        self.left = left
        for name, other in left.items():
            if other.rule:
                self.leave_exact(name, other.reason)
        if self.settings.memory is not None or self.settings.noise is not None:
            self.planning = Planning(self)

    def why_exact(self, name: str) -> str | None:
        """Why a layer is exact, or was in a pass; None if it never was."""
        return self._left_exact.get(name)

    def leave_exact(self, name: str, reason: str) -> None:
        """Notes why a layer is exact: its first reason, or that its input is kept anyway, which is so in all passes."""
        if reason == KEPT:
            self._left_exact[name] = reason
        self._left_exact.setdefault(name, reason)

    @property
    def left_exact(self):
        """Pairs of a layer's name and the reason why it stayed nn.Linear, or was exact in a pass over few tokens."""
        return list(self._left_exact.items())

    def summary_of_operators(self) -> list[str]:
        """Lines on which modules between the linear layers save what, and which are left."""
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

    def convert_operators(self, model):
        settings = self.settings
        mode, bits, tensor_mul = settings.activations, settings.activation_bits, settings.tensor_mul
        self.operators = Operators(self.randomness, mode, bits, tensor_mul, settings.engine)
        found, self._left_modules = modules.find(model, settings.skips, mode)
        self.modules = found
        for module, kind in found.values():
            modules.convert(module, kind, self.operators)
        self._attention, left = interface.convert(model, self.operators, settings.skips)
        self._left_modules |= left

    def watch_traces(self) -> None:
        """Lets the model's layers share inputs in a trace."""
        self.traces = tracing.Traces(self.model)

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
        with packed_saved_tensors(self.model, self.operators, bits or self.operators.packing):
            yield

    def __deepcopy__(self, memo):
        # A copy of a model, as for averaged weights, goes on with the same randomness and guesses.
        return self

    def __getstate__(self):
        """Everything but what belongs to this process. A Sampling is pickled with its model, and comes back with it.
        A function as `skip` is left out, if it cannot be imported: `convert` alone has asked it."""
        state = self.__dict__ | {"_model": self._model(), "group": None, "current_batch": None}
        for name in ("agreement", "_inputs"):
            del state[name]
        if not is_picklable(self.settings.skip):
            state["settings"] = dataclasses.replace(self.settings, skip=())
        return state

    def __setstate__(self, state):
        model = state["_model"]
        self.__dict__ |= state
        self._model = (lambda: None) if model is None else weakref.ref(model)
        self.agreement, self._inputs = rank_exchange.Agreement(), SharedInputs()
        interface.register_again()

    @property
    def deferred(self):
        return self.group is not None

    @contextlib.contextmanager
    def batch(self, samples, *masks):
        """Forward passes within are of these samples: their ids, and a mask (samples x length) that is true for tokens.
        source="cached" requires it. A model with an encoder and a decoder has a mask for each, of unlike lengths."""
        batch = Batch(samples, *masks)
        if self.settings.room is not None:
            batch.check(*self.settings.room)
        before, self.current_batch = self.current_batch, batch
        try:
            yield
        finally:
            self.current_batch = before

    def read(self, sampled: LayerSampling, given: torch.Tensor, h: torch.Tensor, out_features: int):
        """The layer's plan, and the saved rows of h, which all layers share that were `given` the same tensor; None if
        h itself takes no more memory."""
        rows = h.reshape(-1, h.shape[-1])
        sampled.rows = len(rows)
        kept = sampled.budget, sampled.bits
        reason = why_exact(*rows.shape, h.element_size(), *kept)
        if reason is not None:
            # Some experts have few rows in nearly every pass.
            if sampled.matrices == 1:
                self.leave_exact(sampled.name, reason)
            return None
        shape = (*rows.shape, out_features)
        device = devices.device_of(h.device)
        settings = self.settings
        plan = plan_for(device, shape, h.dtype, *kept, settings.design, self.source, settings.engine, precision())
        # Layers that keep other rows, or in other bits, share no block.
        form = h.dtype, *kept
        shared = self._inputs.of(given, form)
        if shared is None or shared.backward_begun:
            shared = self._share_anew(plan, sampled, form, given._version, shared)
        block = shared.block
        if block is None:
            block = self._draw(plan, shared, rows, sampled)
            self._inputs.hold(given, shared, block)
        sampled.has_saved = True
        self._inputs_of_pass.note(sampled, given, h)
        return plan, shared, block

    def _share_anew(self, plan, sampled, form, version, before):
        """Where layers that shared the tensor before still wait for their backward pass, this layer is one of them and
        runs again, as under checkpointing. It need not be the one that ran first, and `batch` may have been left."""
        if before is None or not before.awaited:
            # Where budgets may change, the guess goes on learning; on a GPU it cannot from rows that are all packed.
            learns_on = self.planning is not None
            guess = Input() if sampled.packs_all and not learns_on else self.guess(sampled.name, plan.shape[1])
            # A rank with few tokens, all of which it packs, still has the guesses that others exchange.
            unused = plan.packs_all and (plan.device.on_gpu or not learns_on)
            return SharedInput(Input() if unused else guess, self.current_batch, form, version)
        return SharedInput(before.guess, self.current_batch or before.batch, form, version)

    def _draw(self, plan, shared, rows, sampled):
        shared.guess.move(plan.device)
        prior = shared.guess.prior(shared.batch, len(rows))
        seed, offset = self.randomness.key, self.randomness.advance(plan.draws)
        weights = None
        watches = self.planning is not None and self.planning.watches(sampled)
        # A GPU that packs all rows has no weights.
        if watches and not (plan.packs_all and plan.device.on_gpu):
            weights = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
        block = plan.forward(rows, prior, shared.guess.predictor, seed, offset, weights)
        shared.watched = self.planning.watch(sampled.name, rows, weights, plan, sampled.bits) if watches else None
        return block

    def guess(self, name: str, in_features: int):
        """The guess of the layer of this name, which reads rows of `in_features` elements."""
        if name not in self.guesses:
            self.guesses[name] = self._new_guess(in_features)
        return self.guesses[name]

    def _new_guess(self, in_features):
        return SOURCES[self.source](in_features, self.settings.room)

    def exchange(self):
        """Brings together what the ranks have learned. All ranks call it after each step's backward passes."""
        if self.group is not None:
            rank_exchange.exchange(self)

    def state_dict(self):
        """Seed, offset, and predictors or caches as tensors of bytes, with the number of passes that each has seen."""
        guesses = {name: guess.to_bytes() for name, guess in self.guesses.items()}
        kept = [name for name, sampled in self.sampled.items() if sampled.input_kept]
        return {
            "source": self.source,
            "seed": self.seed,
            "offset": self.offset,
            "guesses": guesses,
            "passes": {name: guess.passes for name, guess in self.guesses.items() if guess.learns},
            "planning": None if self.planning is None else self.planning.state_dict(),
            # None before it was measured.
            "kept_inputs": kept if self._inputs_of_pass.measured else None,
            "shared_inputs": {name: sampled.shares_input_of for name, sampled in self.sampled.items()},
        }

    def load_state_dict(self, state):
        """Continues from a `state_dict()`. Raises `Error` for one of another source or of other layers."""
        missing = [name for name in ("source", "seed", "offset", "guesses") if name not in state]
        if missing:
            raise Error(f"this is no state of a Sampling: it lacks {', '.join(missing)}")
        if state["source"] != self.source:
            raise Error(f"a state of source {state['source']!r} for source {self.source!r}")
        # With other settings other layers may have been left.
        guesses = {
            name: data for name, data in state["guesses"].items() if name in self.sampled or name not in self.left
        }
        unknown = sorted(set(guesses) - set(self.sampled))
        if unknown:
            raise Error(f"a state of layers that are not converted here: {', '.join(unknown)}")
        loaded = {}
        for name, data in guesses.items():
            loaded[name] = self._new_guess(self.sampled[name].in_features)
            if self.source != "input":
                loaded[name].from_bytes(data)
                loaded[name].passes = state.get("passes", {}).get(name, 0)
        if self.planning is not None and state.get("planning") is not None:
            self.planning.load_state_dict(state["planning"])
        self.guesses = loaded
        self.randomness.seed, self.randomness.offset = state["seed"], state["offset"]
        self._inputs = SharedInputs()
        for name, first in state.get("shared_inputs", {}).items():
            if name in self.sampled:
                self.sampled[name].shares_input_of = first
        # As in the run that is continued, in which the first pass is over.
        if state.get("kept_inputs") is not None and not self.settings.sample_kept_inputs:
            self._inputs_of_pass.finish()
            for name, sampled in self.sampled.items():
                sampled.input_kept = name in state["kept_inputs"]
                if sampled.input_kept:
                    self.leave_exact(name, KEPT)

    def revert(self) -> None:
        """Makes the modules again what they were. A second call does nothing.

        Raises `Error` if the class of a module has been changed since by others, as parametrizations and fully_shard
        do, and names the module; then nothing has been taken back.
        """
        if self.reverted:
            return
        take_back({**self.layers, **{name: module for name, (module, _) in self.modules.items()}})
        interface.revert(self._attention)
        self._inputs_of_pass.remove()
        self.traces.remove()
        if self.planning is not None:
            self.planning.remove()
        self.reverted = True
