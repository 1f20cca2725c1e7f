"""What stands for the norms of dZ in a forward pass: nothing, a norm predictor, or a norm cache.

Each is for one layer, or for layers that read the same H. `learn` follows the backward pass. With ranks, what is learned is first
collected in `pending`, and comes in only when the ranks have exchanged it.
"""

import ctypes as c
import weakref

import torch
from wtacrs_ctypes import Error, size

from .native import library, pointer


class Input:
    """Weights are the norms of H alone."""

    source = "input"
    predictor = None

    def __init__(self, in_features):
        pass

    def prior(self, batch, rows, device):
        return None

    def learn(self, plan, block, norms, batch, deferred):
        pass

    def to_bytes(self):
        return torch.empty(0, dtype=torch.uint8)


class Handle:
    """An object of the library that learns, and is saved as bytes."""

    kind = None

    def _own(self, handle):
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

    def from_bytes(self, data):
        data = data.cpu().contiguous()
        loaded = library().make(self.kind, pointer(data), size(data.numel()), by="load")
        self._release()
        self._own(loaded)


class Predicted(Handle):
    """A regression of log |dZ_i| on h_i, learned from the kept rows."""

    source = "predicted"
    kind = "norm_predictor"

    def __init__(self, in_features):
        self._own(library().make("norm_predictor", size(in_features)))
        self.pending = None

    @property
    def predictor(self):
        return self.handle

    def prior(self, batch, rows, device):
        return None

    def learn(self, plan, block, norms, batch, deferred):
        # A loss scaler that has overflowed teaches nothing.
        if not torch.isfinite(norms).all():
            return
        step = (plan.handle, pointer(block), size(plan.saved_bytes), pointer(norms))
        if not deferred:
            library().norm_predictor_update(self.handle, *step)
            return
        sums = self.no_statistics()
        library().norm_predictor_statistics(self.handle, *step, pointer(sums), size(len(sums)))
        self.pending = sums if self.pending is None else self.pending + sums

    def no_statistics(self):
        return torch.zeros(library().ask("norm_predictor_statistics_count", self.handle), dtype=torch.float64)

    def apply(self, sums):
        library().norm_predictor_apply(self.handle, pointer(sums), size(len(sums)))


class Cached(Handle):
    """Each sample's norms from its last visit, by the ids that `Sampling.batch` was given."""

    source = "cached"
    kind = "norm_cache"
    predictor = None

    def __init__(self, in_features):
        self._own(library().make("norm_cache"))
        self.pending = []

    def prior(self, batch, rows, device):
        """For every row its token's norm, -1 where the sample is new, and 0 for padding."""
        layout = layout_of(batch, rows)
        norms = torch.empty(layout.total, dtype=torch.float32)
        library().norm_cache_fetch(self.handle, *layout.samples(), pointer(norms), size(layout.total))
        return layout.spread(norms).to(device)

    def learn(self, plan, block, norms, batch, deferred):
        if not torch.isfinite(norms).all():
            return
        layout = layout_of(batch, len(norms))
        norms = layout.gather(norms.cpu())
        if deferred:
            self.pending.append((layout.ids, layout.lengths, norms))
        else:
            self.store(layout.ids, layout.lengths, norms)

    def store(self, ids, lengths, norms):
        norms = norms.contiguous()
        library().norm_cache_store(
            self.handle, pointer(ids), pointer(lengths), size(len(ids)), pointer(norms), size(len(norms))
        )


def layout_of(batch, rows):
    if batch is None:
        raise Error("source='cached' needs to know the samples: run the forward pass within `sampling.batch(ids, mask)`")
    return batch.layout(rows)


SOURCES = {"input": Input, "predicted": Predicted, "cached": Cached}
