"""One selection of rows of one H, for all layers that read it.

Layers share a selection when they are given the very same tensor: Q, K and V of self-attention, gate and up
projections, the cross-attentions of a decoder. Names play no part.
"""

import torch
from torch.utils.weak import WeakIdKeyDictionary


class Reading:
    def __init__(self, block, guess, batch, dtype, version):
        # Held until the first backward pass asks for it, for layers that come later; then the graph alone holds it.
        self.block = block
        self.guess, self.batch = guess, batch
        self.dtype, self.version = dtype, version
        self._readers, self._norms = 0, []

    def join(self):
        self._readers += 1
        return self.block

    def finish(self, plan, block, norms, deferred):
        """A layer's backward pass is through. The last one of all that share H teaches the guess; where one never
        comes, as for an output that nobody used, nothing is learned from this step."""
        self._norms.append(norms)
        if len(self._norms) == self._readers:
            joint = self._norms[0] if self._readers == 1 else torch.linalg.vector_norm(torch.stack(self._norms), dim=0)
            self.guess.learn(plan, block, joint, self.batch, deferred)


class Readings:
    """Those of tensors that live and whose backward pass has not begun."""

    def __init__(self):
        self._by_tensor = WeakIdKeyDictionary()

    def of(self, tensor, dtype):
        found = self._by_tensor.get(tensor)
        fits = found is not None and found.block is not None
        # A tensor that was changed in place is another H.
        return found if fits and found.dtype == dtype and found.version == tensor._version else None

    def add(self, tensor, reading):
        self._by_tensor[tensor] = reading
