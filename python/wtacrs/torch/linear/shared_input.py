"""One H, and one selection of its rows, for all layers that read it.

Layers share a selection when they are given the same elements: Q, K and V of self-attention, gate and up projections,
the cross-attentions of a decoder. Each may make a view of its own, as `x.view(-1, d)` does. Names play no part.
"""

from __future__ import annotations

import weakref

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import TensorWeakRef


class Reader:
    """A layer's part in a backward pass to come; it lives as long as the layer's node in the graph."""

    __slots__ = ("shared",)

    def __init__(self, shared):
        self.shared = shared
        shared.awaited += 1

    def leave(self):
        if self.shared is not None:
            self.shared.awaited -= 1
            self.shared = None

    __del__ = leave


class SharedInput:
    """`form` is how rows are kept: their dtype, the budget and the bits. `version` is that of the tensor."""

    def __init__(self, guess, batch, form, version):
        self.guess, self.batch = guess, batch
        self.form, self.version = form, version
        self.backward_begun = False
        # Whether the guess learns from the backward pass, and so needs the norms of dZ.
        self.teaches = False
        # What the forward pass has shown, if it is one that is watched (`planning`).
        self.watched = None
        # How many layers have their backward pass still to come.
        self.awaited = 0
        self._norms = []
        self._block = self._held = None

    @property
    def block(self):
        """The selected rows, or None if nobody holds them any more."""
        return None if self._block is None else self._block()

    def hold(self, block):
        self._block, self._held = TensorWeakRef(block), block

    def let_go(self):
        """From here on the graph alone holds the block, unless checkpointing or offloading has taken it from there."""
        self._held = None

    @property
    def wants_norms(self):
        """Whether somebody needs the norms of dZ."""
        return self.teaches or self.watched is not None

    def join(self):
        # A graph that is dropped, such as that of a recomputation, takes its readers with it.
        return Reader(self)

    def begin_backward(self):
        if not self.backward_begun:
            self.backward_begun, self.teaches = True, self.guess.learns_now()
        self.let_go()

    def finish_backward(self, reader, plan, block, norms, deferred):
        """The last reader to finish teaches the guess, by the joint norms of all. If one never finishes though its
        graph is kept, nothing is learned from this step."""
        reader.leave()
        if not self.guess.learns:
            return
        if norms is not None:
            self._norms.append(norms)
        if not self.awaited:
            norms, self._norms = self._norms, []
            self.guess.learn(plan, block, joint_norms(norms) if norms else None, self.batch, deferred)


def joint_norms(norms):
    """√(Σ_l norms_l²) of the layers' norms of dZ, each a number for every token. Squares of f32 are in f64's range."""
    if len(norms) == 1:
        return norms[0]
    return torch.linalg.vector_norm(torch.stack(norms), dim=0, dtype=torch.float64).float()


class SharedInputs:
    """Those of all tensors whose storage is alive, by the place of their rows: views of one storage with equal
    offset, rows, strides and dtype are one H, whichever objects they are."""

    # As many places are looked through for storages that are gone before the first time that their number doubles.
    _FEW = 64

    def __init__(self):
        # By place and form. The weak reference keeps the number of a storage from being given to another one.
        self._by_place = {}
        self._sweep_at = self._FEW
        self._newest = lambda: None

    def of(self, tensor, form):
        """What layers share that keep the tensor's rows in this form, or None."""
        storage, found = self._by_place.get((place_of(tensor), form), (None, None))
        if found is None or storage.expired():
            return None
        # A tensor that was changed in place is another H. Views have the version of what they are views of.
        return found if found.version == tensor._version else None

    def hold(self, tensor, shared, block):
        """The newest block alone is held beside the graph, for the layers that read the same H next: where
        checkpointing or offloading takes what the graph saves, they find it here."""
        newest = self._newest()
        if newest is not None:
            newest.let_go()
        shared.hold(block)
        self._sweep()
        self._by_place[place_of(tensor), shared.form] = StorageWeakRef(tensor.untyped_storage()), shared
        self._newest = weakref.ref(shared)

    def _sweep(self):
        if len(self._by_place) >= self._sweep_at:
            self._by_place = self._alive()
            self._sweep_at = max(self._FEW, 2 * len(self._by_place))

    def _alive(self):
        return {place: pair for place, pair in self._by_place.items() if not pair[0].expired()}

    def __len__(self):
        return len(self._alive())


def place_of(tensor):
    """Where the rows lie, and in which order: those of a dense tensor are the same, whatever axes stand before them."""
    begin = tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.dtype, tensor.is_neg()
    if tensor.is_contiguous():
        return *begin, tensor.numel(), tensor.shape[-1]
    return *begin, tensor.shape, tensor.stride()
