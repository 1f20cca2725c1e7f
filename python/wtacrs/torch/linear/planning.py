"""One budget of memory, or of noise, for all layers of a model (`Settings.memory`, `Settings.noise`).

A pass that is watched shows of a layer what its rows were chosen by, and the exact norms of H and dZ. From time to time
the library's planner takes in what was seen, and gives every layer a budget and bits of its own. All layers are watched
in the first passes, later each of them in one of EVERY.
"""

from __future__ import annotations

import dataclasses
import math

import torch

from ..._native import INVALID_BUDGET, Error, Planned, Planner
from ..devices import address, autocast_dtype
from .plans import budget_within

EVERY = 16
# Rows by which the noise of packing is measured, in so many of a layer's observations.
NOISE_ROWS, NOISE_OBSERVATIONS = 32, 3
# Random directions by which the change of a gradient is measured.
DIRECTIONS = 16


def is_due(passes: int) -> bool:
    """Whether budgets are made anew after so many passes: in the first ones whenever their number has doubled."""
    return passes % EVERY == 0 if passes > EVERY else passes & (passes - 1) == 0


def spread_out(tokens: int, device: torch.device) -> torch.Tensor:
    """NOISE_ROWS of so many rows, or all, from everywhere: steps of the golden ratio, since equal ones would find each
    sentence's first token wherever sentences have one length. Of little more than NOISE_ROWS some may come twice."""
    if tokens <= NOISE_ROWS:
        return torch.arange(tokens, device=device)
    places = torch.arange(NOISE_ROWS, dtype=torch.float64, device=device) * 0.6180339887498949 % 1
    return (places * tokens).long()


@dataclasses.dataclass
class Watched:
    """What the forward pass of an H has shown, for the backward passes of its readers. `weights` is None where all rows
    were packed, and nothing says how they would have been chosen."""

    weights: torch.Tensor | None
    norms: torch.Tensor
    rows: torch.Tensor | None
    kept: int
    bits: int | str


@dataclasses.dataclass
class Seen:
    """What one reader's backward pass has added. All tensors are where the layer's are, until `settle` takes them."""

    watched: Watched
    dz_norms: torch.Tensor
    squared_norm: torch.Tensor
    sketch: torch.Tensor | None


class Planning:
    def __init__(self, sampling):
        settings = sampling.settings
        self.target = "memory" if settings.memory is not None else "noise"
        self.share = settings.memory if settings.memory is not None else settings.noise
        self._sampling = sampling
        # The first pass makes it, or loads it from these bytes.
        self.native, self._bytes = None, None
        # By the layers' names: their numbers, how often they were measured, their gradients' last sketches.
        self._numbers, self._noise_observations, self._sketches = {}, {}, {}
        self._seen: list[tuple[str, Seen]] = []
        self.passes = self.exchanges = 0
        for name, sampled in self._planned():
            sampled.budget, sampled.bits = self._at_first(sampled, sampling.products[name].weight.dtype)
        self._hook = sampling.model.register_forward_pre_hook(self._enter, prepend=True)

    def _at_first(self, sampled, dtype):
        """Before anything was seen, layers have an equal share of the memory, or all rows."""
        bits = self._sampling.settings.bits
        if self.target == "noise":
            return 1.0, 4 if bits == "native" else bits
        return budget_within(self.share, sampled.in_features, dtype.itemsize, bits), bits

    def summary(self) -> str:
        what = "of the layers' inputs, in bytes" if self.target == "memory" else "of the variance among batches"
        return f"budgets and bits come from one budget, {self.target}={self.share} {what}, after {self.passes} passes"

    def remove(self):
        self._hook.remove()

    def _enter(self, model, arguments):
        if not (model.training and torch.is_grad_enabled()) or torch.compiler.is_compiling():
            return
        if self.native is None:
            self._begin()
        if self.passes and not self._sampling.deferred and is_due(self.passes):
            self.settle()
            self.apply(self.statistics())
        self.passes += 1

    def _begin(self):
        """In the first pass, which shows the dtype of inputs under autocast."""
        self.native = Planner()
        for name, sampled in self._planned():
            weight = self._sampling.products[name].weight
            dtype = autocast_dtype(weight.device.type)
            if dtype is None or weight.dtype == torch.float64:
                dtype = weight.dtype
            self._numbers[name] = self.native.add_layer(sampled.in_features, str(dtype).removeprefix("torch."))
            if self.passes == 0:
                sampled.budget, sampled.bits = self._at_first(sampled, dtype)
        if self._bytes is not None:
            self.native = Planner.load(address(self._bytes), len(self._bytes))

    def _planned(self):
        for name, sampled in self._sampling.sampled.items():
            if self._sampling.settings.plans(name, sampled.matrices):
                yield name, sampled

    def watches(self, sampled) -> bool:
        """Whether this pass of the layer is watched."""
        number = self._numbers.get(sampled.name)
        return number is not None and (self.passes <= EVERY // 2 or (self.passes + number) % EVERY == 0)

    def watch(self, name, rows, weights, plan, bits):
        """Notes what the forward pass of an H shows, tokens x in_features."""
        h = rows.detach()
        norms = torch.linalg.vector_norm(h, dim=1, dtype=torch.promote_types(h.dtype, torch.float32)).float()
        measured = self._noise_observations.get(name, 0)
        some = None
        if measured < NOISE_OBSERVATIONS:
            self._noise_observations[name] = measured + 1
            some = h[spread_out(len(h), h.device)].to(torch.float32)
        return Watched(weights, norms, some, plan.native.budget_rows, bits)

    def note(self, sampled, watched, dz_norms, dw):
        """Notes what the backward pass of a reader shows; dw is out_features x in_features."""
        sketch = None
        if self.target == "noise":
            generator = torch.Generator(device="cpu").manual_seed(0)
            signs = torch.randint(0, 2, (dw.shape[1], DIRECTIONS), generator=generator, device="cpu") * 2 - 1
            sketch = dw @ signs.to(dw.device, dw.dtype)
        self._seen.append((sampled.name, Seen(watched, dz_norms, dw.square().sum(dtype=torch.float64), sketch)))

    def settle(self):
        """Tells the planner what was seen. It waits for a GPU that still computes it."""
        seen, self._seen = self._seen, []
        self._share_inputs()
        measured = set()
        for name, one in seen:
            # As the first pass has shown.
            if self._sampling.sampled[name].input_kept:
                continue
            number, watched = self._numbers[name], one.watched
            norms, dz_norms = watched.norms.cpu(), one.dz_norms.cpu()
            squared_norm = float(one.squared_norm)
            # A loss scaler that has overflowed teaches nothing.
            if not (math.isfinite(squared_norm) and norms.isfinite().all() and dz_norms.isfinite().all()):
                continue
            if watched.rows is not None and id(watched) not in measured:
                measured.add(id(watched))
                rows = watched.rows.cpu().contiguous()
                self.native.observe_rows(number, len(rows), address(rows), rows.shape[1])
            weights = None if watched.weights is None else watched.weights.cpu()
            self.native.observe(
                number,
                len(norms),
                address(weights),
                address(norms),
                address(dz_norms),
                watched.kept,
                watched.bits,
                squared_norm,
                self._change(name, one.sketch),
            )

    def _change(self, name, sketch):
        if sketch is None:
            return -1.0
        before = self._sketches.get(name)
        self._sketches[name] = sketch = sketch.cpu()
        return -1.0 if before is None else float((sketch - before).square().sum(dtype=torch.float64)) / DIRECTIONS

    def _share_inputs(self):
        """Layers that a pass has shown to read one H, by the number of the first of them."""
        firsts = {}
        for name, number in self._numbers.items():
            shared = self._sampling.sampled[name].shares_input_of
            if shared is not None and firsts.setdefault(shared, number) != number:
                self.native.share_input(number, firsts[shared])

    def due_statistics(self) -> torch.Tensor | None:
        """Of one of several processes: what it adds to this exchange; None if budgets stay for now."""
        self.exchanges += 1
        if not is_due(self.exchanges):
            return None
        if self.native is None:
            self._begin()
        self.settle()
        return self.statistics()

    def statistics(self) -> torch.Tensor:
        """The sums of what was seen since the last time, which ranks add."""
        sums = torch.empty(self.native.statistics_count, dtype=torch.float64, device="cpu")
        self.native.statistics(address(sums), len(sums))
        return sums

    def apply(self, sums: torch.Tensor):
        """Takes in the sums, and gives the layers new budgets."""
        sums = sums.cpu().contiguous()
        self.native.apply(address(sums), len(sums))
        try:
            self.native.solve(self.target, self.share)
        except Error as error:
            if error.status == INVALID_BUDGET:
                raise error.within(f"{self.target}={self.share}") from error
            # As long as too little was seen, the budgets stay.
            return
        for name in self._numbers:
            planned = self.planned(name)
            if planned is not None:
                sampled = self._sampling.sampled[name]
                sampled.budget, sampled.bits = planned.share, planned.bits

    def planned(self, name: str) -> Planned | None:
        """What the planner has last found for a layer; None before that. Its squared error is that of all layers that
        read the same H together."""
        number = self._numbers.get(name)
        return None if number is None else self.native.budget(number)

    def state_dict(self):
        """What the planner has seen, and the budgets that it has given."""
        if self.native is not None:
            self.settle()
            self._bytes = torch.frombuffer(self.native.save(), dtype=torch.uint8)
        return {
            "planner": self._bytes,
            "sketches": dict(self._sketches),
            "noise_observations": dict(self._noise_observations),
            "layers": {name: (sampled.budget, sampled.bits) for name, sampled in self._planned()},
            "passes": self.passes,
            "exchanges": self.exchanges,
        }

    def load_state_dict(self, state):
        planned = dict(self._planned())
        if state["layers"].keys() != planned.keys():
            raise Error("a state of one budget for other layers")
        self.native, self._numbers, self._seen = None, {}, []
        self._bytes = None if state["planner"] is None else state["planner"].cpu().contiguous()
        self._sketches, self._noise_observations = dict(state["sketches"]), dict(state["noise_observations"])
        self.passes, self.exchanges = state["passes"], state["exchanges"]
        for name, (budget, bits) in state["layers"].items():
            planned[name].budget, planned[name].bits = budget, bits

    def __deepcopy__(self, memo):
        return self

    def __getstate__(self):
        self.state_dict()
        return vars(self) | {"native": None, "_numbers": {}, "_seen": []}
