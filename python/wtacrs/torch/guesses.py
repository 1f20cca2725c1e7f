"""What stands for the norms of dZ in a forward pass: nothing, a norm predictor, or a norm cache.

Each guess serves one layer, or all layers that read the same H. `learn` follows the backward pass. With several
processes, what is learned waits in `pending` until they have exchanged it.
"""

from __future__ import annotations

import warnings

import torch

from .._native import Error, NormCache, NormPredictor
from . import devices
from .devices import address


class Input:
    """Weights are the norms of H alone, or there are no weights, since all rows are packed."""

    learns = False
    predictor = None

    def __init__(self, in_features=None, room=None):
        self.in_features = in_features

    def move(self, device):
        pass

    def prior(self, batch, rows):
        return None

    def learn(self, plan, block, norms, batch, deferred):
        pass

    def to_bytes(self):
        return torch.empty(0, dtype=torch.uint8, device="cpu")


class Learned:
    """A guess that learns: an object of the library, which lives where the layer's tensors are."""

    learns = True

    def __init__(self, in_features):
        self.in_features = in_features
        self.device = devices.device_of(torch.device("cpu"))
        self.native = None

    def move(self, device):
        if device is not self.device:
            data = self.to_bytes()
            self.device = device
            self.from_bytes(data)

    def to_bytes(self):
        return torch.frombuffer(self.native.save(), dtype=torch.uint8)

    def from_bytes(self, data):
        data = data.cpu().contiguous()
        with self.device.current():
            self.native = self._load(address(data), data.numel())

    def learns_nothing(self, norms):
        """A loss scaler that has overflowed teaches nothing. A GPU finds out for itself, and nobody waits for it."""
        return not self.device.on_gpu and not torch.isfinite(norms).all()


class Predicted(Learned):
    """A regression of log |dZ_i| on h_i, learned from the kept rows."""

    def __init__(self, in_features, room):
        super().__init__(in_features)
        self.native = NormPredictor(self.device.context, in_features)
        self.pending = None

    @property
    def predictor(self):
        return self.native

    def prior(self, batch, rows):
        return None

    def _load(self, data, length):
        return NormPredictor.load(self.device.context, data, length)

    def learn(self, plan, block, norms, batch, deferred):
        if self.learns_nothing(norms):
            return
        step = plan.native, address(block), address(norms)
        with self.device.current():
            if not deferred:
                self.native.update(*step, self.device.stream())
                return
            sums = self.no_statistics()
            self.native.statistics(*step, address(sums), len(sums), self.device.stream())
        self.pending = sums if self.pending is None else self.pending + sums

    def no_statistics(self):
        return self.device.memory(8 * self.native.statistics_count).view(torch.float64).zero_()

    def apply(self, sums):
        sums = self.device.aligned_copy(sums)
        with self.device.current():
            self.native.apply(address(sums), len(sums), self.device.stream())


class Cached(Learned):
    """Each sample's norms from its last visit, by the ids that `Sampling.batch` was given. `room` is how many samples
    of how many tokens there are, which a GPU needs to know."""

    predictor = None

    def __init__(self, in_features, room):
        super().__init__(in_features)
        self._room = room
        self._require_room(self.device)
        self.native = NormCache(self.device.context, room)
        self.pending = []

    def _require_room(self, device):
        if device.on_gpu and self._room is None:
            raise Error(
                "source='cached' on a GPU needs to know the data set, whose norms it keeps there: "
                "convert(..., samples=, tokens_per_sample=)"
            )

    def move(self, device):
        self._require_room(device)
        super().move(device)

    def _load(self, data, length):
        return NormCache.load(self.device.context, data, length, self._room)

    def to_bytes(self):
        # Saving waits for the GPU in any case.
        if self.device.on_gpu and (left_out := self.native.left_out()):
            sample, why = left_out
            warnings.warn(f"a norm cache has left out sample {sample}: {why}", stacklevel=2)
        return super().to_bytes()

    def prior(self, batch, rows):
        """For every row its token's norm, -1 where the sample is new, and 0 for padding."""
        layout = layout_of(batch, rows, self.device)
        norms = torch.empty(layout.shape, dtype=torch.float32, device=self.device.torch_device)
        self._visit(self.native.fetch, layout.ids, layout.lengths, norms)
        return layout.spread(norms)

    def learn(self, plan, block, norms, batch, deferred):
        if self.learns_nothing(norms):
            return
        layout = layout_of(batch, len(norms), self.device)
        visit = (layout.ids, layout.lengths, layout.gather(norms))
        if deferred:
            self.pending.append(visit)
        else:
            self.store(*visit)

    def store(self, ids, lengths, norms):
        """`norms` has a row for each sample, its tokens first."""
        self._visit(self.native.store, ids, lengths, norms)

    def _visit(self, call, ids, lengths, norms):
        count, row_tokens = norms.shape
        with self.device.current():
            call(address(ids), address(lengths), count, row_tokens, address(norms), norms.numel(), self.device.stream())


def layout_of(batch, rows, device):
    if batch is None:
        raise Error(
            "source='cached' needs the samples: run the forward pass within `sampling.batch(ids, mask)`, and under "
            "gradient checkpointing the backward pass as well"
        )
    return batch.layout(rows, device.torch_device)


SOURCES = {"input": Input, "predicted": Predicted, "cached": Cached}
