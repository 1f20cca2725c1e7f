"""One selection of rows of one H, for all layers that read it.

Layers share a selection when they are given the very same tensor: Q, K and V of self-attention, gate and up
projections, the cross-attentions of a decoder. Names play no part.
"""

import weakref

import torch
from torch.utils.weak import TensorWeakRef, WeakIdKeyDictionary


class Reader:
    """A layer's part in a backward pass to come; it lives as long as the layer's node in the graph."""


class Reading:
    def __init__(self, guess, batch, dtype, version):
        self.guess, self.batch = guess, batch
        self.dtype, self.version = dtype, version
        # Its backward pass has begun.
        self.over = False
        self._readers, self._norms = weakref.WeakSet(), []
        self._block = self._held = None

    @property
    def block(self):
        """The selected rows, or None if nobody holds them any more."""
        return None if self._block is None else self._block()

    @property
    def awaited(self):
        """By layers whose backward pass is still to come."""
        return len(self._readers) > 0

    def hold(self, block):
        self._block, self._held = TensorWeakRef(block), block

    def let_go(self):
        """From here on the graph alone holds the block, if checkpointing and the like have left it there."""
        self._held = None

    def join(self):
        # A graph that is dropped, as is the one of a recomputation, takes its readers with it.
        reader = Reader()
        self._readers.add(reader)
        return reader

    def begin(self):
        self.over = True
        self.let_go()

    def finish(self, reader, plan, block, norms, deferred):
        """A reader's backward pass is through. The last one of all that share H teaches the guess; where one never
        comes, though its graph is kept, nothing is learned from this step."""
        self._readers.discard(reader)
        self._norms.append(norms)
        if not self.awaited:
            joint = self._norms[0] if len(self._norms) == 1 else torch.linalg.vector_norm(torch.stack(self._norms), dim=0)
            self.guess.learn(plan, block, joint, self.batch, deferred)


class Readings:
    """Those of tensors that live."""

    def __init__(self):
        self._by_tensor = WeakIdKeyDictionary()
        self._newest = lambda: None

    def of(self, tensor, dtype):
        found = self._by_tensor.get(tensor)
        # A tensor that was changed in place is another H.
        return found if found is not None and (found.dtype, found.version) == (dtype, tensor._version) else None

    def hold(self, tensor, reading, block):
        """The newest block alone is held beside the graph, for layers that read the same H next: where checkpointing or
        offloading take what the graph saves, they find it here."""
        newest = self._newest()
        if newest is not None:
            newest.let_go()
        reading.hold(block)
        self._by_tensor[tensor] = reading
        self._newest = weakref.ref(reading)
