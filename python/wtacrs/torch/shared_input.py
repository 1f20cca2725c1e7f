"""One H, and one selection of its rows, for all layers that read it.

Layers share a selection when they are given the very same tensor: Q, K and V of self-attention, gate and up
projections, the cross-attentions of a decoder. Names play no part.
"""

from __future__ import annotations

import weakref

import torch
from torch.utils.weak import TensorWeakRef, WeakIdKeyDictionary


class Reader:
    """A layer's part in a backward pass to come; it lives as long as the layer's node in the graph."""


class SharedInput:
    def __init__(self, guess, batch, dtype, version):
        self.guess, self.batch = guess, batch
        self.dtype, self.version = dtype, version
        self.backward_begun = False
        self._readers, self._norms = weakref.WeakSet(), []
        self._block = self._held = None

    @property
    def block(self):
        """The selected rows, or None if nobody holds them any more."""
        return None if self._block is None else self._block()

    @property
    def awaited(self):
        """Whether the backward pass of some layer is still to come."""
        return len(self._readers) > 0

    def hold(self, block):
        self._block, self._held = TensorWeakRef(block), block

    def let_go(self):
        """From here on the graph alone holds the block, unless checkpointing or offloading has taken it from there."""
        self._held = None

    def join(self):
        # A graph that is dropped, such as that of a recomputation, takes its readers with it.
        reader = Reader()
        self._readers.add(reader)
        return reader

    def begin_backward(self):
        self.backward_begun = True
        self.let_go()

    def finish_backward(self, reader, plan, block, norms, deferred):
        """The last reader to finish teaches the guess, by the joint norms of all. If one never finishes though its
        graph is kept, nothing is learned from this step."""
        self._readers.discard(reader)
        if not self.guess.learns:
            return
        self._norms.append(norms)
        if not self.awaited:
            joint = (
                self._norms[0] if len(self._norms) == 1 else torch.linalg.vector_norm(torch.stack(self._norms), dim=0)
            )
            self.guess.learn(plan, block, joint, self.batch, deferred)


class SharedInputs:
    """Those of all tensors that are alive."""

    def __init__(self):
        self._by_tensor = WeakIdKeyDictionary()
        self._newest = lambda: None

    def of(self, tensor, dtype):
        found = self._by_tensor.get(tensor)
        # A tensor that was changed in place is another H.
        return found if found is not None and (found.dtype, found.version) == (dtype, tensor._version) else None

    def hold(self, tensor, shared, block):
        """The newest block alone is held beside the graph, for the layers that read the same H next: where
        checkpointing or offloading takes what the graph saves, they find it here."""
        newest = self._newest()
        if newest is not None:
            newest.let_go()
        shared.hold(block)
        self._by_tensor[tensor] = shared
        self._newest = weakref.ref(shared)
