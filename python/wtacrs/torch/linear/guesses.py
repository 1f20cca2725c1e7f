"""What stands for the norms of dZ in a forward pass: nothing, a norm predictor, or a norm cache.

Each guess serves one layer, or all layers that read the same H. `learn` follows the backward pass. With several
processes, what is learned waits in `pending` until they have exchanged it.
"""

from __future__ import annotations

import math
import warnings

import torch

from ..._native import Error, NormCache, NormPredictor
from .. import devices
from ..devices import address

# A predictor learns from each of its first passes, then from every second, fourth and eighth: the statistics of many
# passes change little by one more.
WARM_UP, SELDOM = 64, 8


def learns_from(passes):
    """Whether a predictor learns from a backward pass after so many others."""
    return passes < WARM_UP or passes % min(SELDOM, 1 << (passes // WARM_UP).bit_length()) == 0


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

    def learns_now(self):
        return False

    def learn(self, plan, block, norms, batch, deferred):
        pass

    def to_bytes(self):
        return torch.empty(0, dtype=torch.uint8, device="cpu")


class Learned:
    """A guess that learns: an object of the library, which lives where the layer's tensors are."""

    learns = True

    def __init__(self, in_features, room):
        self.in_features, self.room = in_features, room
        self.device = devices.device_of(torch.device("cpu"))
        self.native = None
        # How many backward passes it has seen; with several processes, how many exchanges, which all of them see.
        self.passes = 0

    def __reduce__(self):
        # The bytes of either device are loaded on any.
        data = bytes(self.to_bytes().numpy())
        return restored, (type(self), self.in_features, self.room, data, self.pending, self.passes)

    def learns_now(self):
        """Whether it learns from the next backward pass."""
        return True

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
        return not self.device.on_gpu and not math.isfinite(norms.detach().max())


class Predicted(Learned):
    """A regression of log |dZ_i| on h_i, learned from the kept rows."""

    def __init__(self, in_features, room):
        super().__init__(in_features, room)
        self.native = NormPredictor(self.device.context, in_features)
        self.pending = None

    @property
    def predictor(self):
        return self.native

    def prior(self, batch, rows):
        return None

    def _load(self, data, length):
        return NormPredictor.load(self.device.context, data, length)

    def learns_now(self):
        # A CUDA graph repeats what it captures in all passes.
        return learns_from(self.passes) or self.device.captures()

    def learn(self, plan, block, norms, batch, deferred):
        """Learns from a backward pass, if it is one that teaches; `norms` may be None if it is not."""
        learns_now = self.learns_now()
        if not deferred:
            self.passes += 1
        if not learns_now or norms is None or self.learns_nothing(norms):
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
        self.passes += 1
        sums = self.device.aligned_copy(sums)
        with self.device.current():
            self.native.apply(address(sums), len(sums), self.device.stream())


class Cached(Learned):
    """Each sample's norms from its last visit, by the ids that `Sampling.batch` was given. `room` is how many samples
    of how many tokens there are, which a GPU needs to know."""

    predictor = None

    def __init__(self, in_features, room):
        super().__init__(in_features, room)
        self._require_room(self.device)
        self.native = NormCache(self.device.context, room)
        self.pending = []

    def _require_room(self, device):
        if device.on_gpu and self.room is None:
            raise Error(
                "source='cached' on a GPU needs to know the data set, whose norms it keeps there: "
                "convert(..., samples=, tokens_per_sample=)"
            )

    def move(self, device):
        self._require_room(device)
        super().move(device)

    def _load(self, data, length):
        return NormCache.load(self.device.context, data, length, self.room)

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


def restored(kind, in_features, room, data, pending, passes):
    """A guess on the host from its bytes."""
    guess = kind(in_features, room)
    guess.from_bytes(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    guess.pending, guess.passes = pending, passes
    return guess


def layout_of(batch, rows, device):
    if batch is None:
        raise Error(
            "source='cached' needs the samples: run the forward pass within `sampling.batch(ids, mask)`, and under "
            "gradient checkpointing the backward pass as well"
        )
    return batch.layout(rows, device.torch_device)


SOURCES = {"input": Input, "predicted": Predicted, "cached": Cached}
