"""What stands for the norms of dZ in a forward pass: nothing, a norm predictor, or a norm cache.

Each is for one layer, or for layers that read the same H. `learn` follows the backward pass. With ranks, what is
learned is first collected in `pending`, and comes in only when the ranks have exchanged it.
"""

import ctypes as c
import weakref

import torch
from wtacrs_ctypes import Error, size

from .native import context, current, library, pointer, stream


class Input:
    """Weights are the norms of H alone."""

    source = "input"
    predictor = None

    def __init__(self, in_features):
        pass

    def prior(self, batch, rows, device):
        return None

    def move(self, device):
        pass

    def learn(self, plan, block, norms, batch, deferred):
        pass

    def to_bytes(self):
        return torch.empty(0, dtype=torch.uint8)


class Handle:
    """An object of the library that learns, and is saved as bytes."""

    kind = None
    _release = None

    def move(self, device):
        """To where the layer's tensors are."""

    def _own(self, handle):
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

    def from_bytes(self, data):
        data = data.cpu().contiguous()
        self._own(self._load(pointer(data), size(data.numel())))

    def _load(self, *data):
        return library().make(self.kind, *data, by="load")


class Predicted(Handle):
    """A regression of log |dZ_i| on h_i, learned from the kept rows."""

    source = "predicted"
    kind = "norm_predictor"

    def __init__(self, in_features):
        self._device = torch.device("cpu")
        self._own(library().make("norm_predictor", context(self._device), size(in_features), by="create_on"))
        self.pending = None

    @property
    def predictor(self):
        return self.handle

    def prior(self, batch, rows, device):
        return None

    def move(self, device):
        if device != self._device:
            data = self.to_bytes()
            self._device = device
            self.from_bytes(data)

    def _load(self, *data):
        with current(self._device):
            return library().make(self.kind, context(self._device), *data, by="load_on")

    def learn(self, plan, block, norms, batch, deferred):
        # A loss scaler that has overflowed teaches nothing. A GPU finds out for itself, and nobody waits for it.
        if norms.device.type == "cpu" and not torch.isfinite(norms).all():
            return
        step = (self.handle, plan.handle, pointer(block), size(plan.saved_bytes), pointer(norms))
        with current(self._device):
            if not deferred:
                library().norm_predictor_update_on(*step, stream(self._device))
                return
            sums = self.no_statistics()
            library().norm_predictor_statistics_on(*step, pointer(sums), size(len(sums)), stream(self._device))
        self.pending = sums if self.pending is None else self.pending + sums

    def no_statistics(self):
        count = library().ask("norm_predictor_statistics_count", self.handle)
        return torch.zeros(count, dtype=torch.float64, device=self._device)

    def apply(self, sums):
        with current(self._device):
            library().norm_predictor_apply_on(self.handle, pointer(sums), size(len(sums)), stream(self._device))


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
        raise Error(
            "source='cached' needs the samples: run the forward pass within `sampling.batch(ids, mask)`, and under "
            "gradient checkpointing the backward pass as well"
        )
    return batch.layout(rows)


SOURCES = {"input": Input, "predicted": Predicted, "cached": Cached}
