"""What stands for the norms of dZ in a forward pass: nothing, a norm predictor, or a norm cache.

Each is for one layer, or for layers that read the same H. `learn` follows the backward pass. With ranks, what is
learned is first collected in `pending`, and comes in only when the ranks have exchanged it.
"""

import ctypes as c
import warnings
import weakref

import torch
from wtacrs_ctypes import Error, size

from . import native
from .native import library, memory, numbers, pointer


class Input:
    """Weights are the norms of H alone."""

    source = "input"
    predictor = None

    def __init__(self, in_features, room):
        pass

    def move(self, place):
        pass

    def prior(self, batch, rows):
        return None

    def learn(self, plan, block, norms, batch, deferred):
        pass

    def to_bytes(self):
        return torch.empty(0, dtype=torch.uint8)


class Handle:
    """An object of the library that learns, lives where the layer's tensors are, and is saved as bytes."""

    kind = None
    _release = None

    def __init__(self):
        self.place = native.place(torch.device("cpu"))

    def move(self, place):
        if place is not self.place:
            data = self.to_bytes()
            self.place = place
            self.from_bytes(data)

    def _make(self, *arguments, by):
        with self.place.current():
            handle = library().make(self.kind, *arguments, by=by)
        if self._release is not None:
            self._release()
        self.handle = handle
        # The finalizer holds no reference to self.
        self._release = weakref.finalize(self, getattr(library(), self.kind + "_destroy"), handle)

    def to_bytes(self):
        needed = c.c_size_t()
        save = getattr(library(), self.kind + "_save")
        save(self.handle, None, size(0), c.byref(needed))
        data = torch.empty(needed.value, dtype=torch.uint8)
        save(self.handle, pointer(data), size(needed.value), c.byref(needed))
        return data

    def no_lesson(self, norms):
        """A loss scaler that has overflowed teaches nothing. A GPU finds out for itself, and nobody waits for it."""
        return not self.place.on_gpu and not torch.isfinite(norms).all()


class Predicted(Handle):
    """A regression of log |dZ_i| on h_i, learned from the kept rows."""

    source = "predicted"
    kind = "norm_predictor"

    def __init__(self, in_features, room):
        super().__init__()
        self._make(self.place.context, size(in_features), by="create_on")
        self.pending = None

    @property
    def predictor(self):
        return self.handle

    def prior(self, batch, rows):
        return None

    def from_bytes(self, data):
        data = data.cpu().contiguous()
        self._make(self.place.context, pointer(data), size(data.numel()), by="load_on")

    def learn(self, plan, block, norms, batch, deferred):
        if self.no_lesson(norms):
            return
        step = (self.handle, plan.handle, pointer(block), size(plan.saved_bytes), pointer(norms))
        with self.place.current():
            if not deferred:
                library().norm_predictor_update_on(*step, self.place.stream())
                return
            sums = self.no_statistics()
            library().norm_predictor_statistics_on(*step, pointer(sums), size(len(sums)), self.place.stream())
        self.pending = sums if self.pending is None else self.pending + sums

    def no_statistics(self):
        count = library().ask("norm_predictor_statistics_count", self.handle)
        return memory(8 * count, self.place).view(torch.float64).zero_()

    def apply(self, sums):
        sums = numbers(sums, self.place)
        with self.place.current():
            library().norm_predictor_apply_on(self.handle, pointer(sums), size(len(sums)), self.place.stream())


class Cached(Handle):
    """Each sample's norms from its last visit, by the ids that `Sampling.batch` was given. `room` is for how many samples
    of how many tokens, which a GPU needs to know."""

    source = "cached"
    kind = "norm_cache"
    predictor = None

    def __init__(self, in_features, room):
        super().__init__()
        self._room = room
        if room is None:
            self._make(by="create")
        else:
            self._make(self.place.context, *map(size, room), by="create_on")
        self.pending = []

    def move(self, place):
        if place.on_gpu and self._room is None:
            raise Error(
                "source='cached' on a GPU needs to know the data set, whose norms it keeps there: "
                "convert(..., samples=, tokens_per_sample=)"
            )
        super().move(place)

    def from_bytes(self, data):
        data = data.cpu().contiguous()
        bytes_of_it = (pointer(data), size(data.numel()))
        if self._room is None:
            self._make(*bytes_of_it, by="load")
        else:
            self._make(self.place.context, *map(size, self._room), *bytes_of_it, by="load_on")

    def to_bytes(self):
        # Saving waits for the GPU in any case.
        if self.place.on_gpu:
            self._tell_what_was_left_out()
        return super().to_bytes()

    def prior(self, batch, rows):
        """For every row its token's norm, -1 where the sample is new, and 0 for padding."""
        layout = layout_of(batch, rows, self.place)
        norms = torch.empty(layout.shape, dtype=torch.float32, device=self.place.device)
        self._call("fetch_on", layout.ids, layout.lengths, norms)
        return layout.spread(norms)

    def learn(self, plan, block, norms, batch, deferred):
        if self.no_lesson(norms):
            return
        layout = layout_of(batch, len(norms), self.place)
        visit = (layout.ids, layout.lengths, layout.gather(norms))
        if deferred:
            self.pending.append(visit)
        else:
            self.store(*visit)

    def store(self, ids, lengths, norms):
        """`norms` has a row for each sample, its tokens first."""
        self._call("store_on", ids, lengths, norms)

    def _call(self, name, ids, lengths, norms):
        batch = (pointer(ids), pointer(lengths), size(len(ids)), size(norms.shape[1]))
        with self.place.current():
            call = getattr(library(), "norm_cache_" + name)
            call(self.handle, *batch, pointer(norms), size(norms.numel()), self.place.stream())

    def _tell_what_was_left_out(self):
        fault, sample = c.c_uint32(), c.c_uint64()
        library().norm_cache_outcome(self.handle, c.byref(fault), c.byref(sample))
        # A norm that is not finite is a loss scaler's, and no fault.
        why = {1: "its id is out of range", 2: "it has too many tokens", 3: "it is known with another length"}
        if fault.value in why:
            warnings.warn(f"a norm cache has left out sample {sample.value}: {why[fault.value]}", stacklevel=2)


def layout_of(batch, rows, place):
    if batch is None:
        raise Error(
            "source='cached' needs the samples: run the forward pass within `sampling.batch(ids, mask)`, and under "
            "gradient checkpointing the backward pass as well"
        )
    return batch.layout(rows, place.device)


SOURCES = {"input": Input, "predicted": Predicted, "cached": Cached}
