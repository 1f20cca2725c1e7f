"""Which samples a batch holds, and which rows of H are their tokens."""

import torch
from wtacrs_ctypes import Error, size

from .native import pointer


class Batch:
    """`samples` are ids; `mask` is samples x length, true for tokens and not for padding, or None for one row each."""

    def __init__(self, samples, mask=None):
        # The library's ids are unsigned; these are the same bits.
        self.samples = torch.as_tensor(samples, dtype=torch.int64).cpu().contiguous()
        if self.samples.ndim != 1:
            raise Error(f"sample ids have {self.samples.ndim} axes where one is needed")
        self.mask = None if mask is None else torch.as_tensor(mask).cpu().bool()
        if self.mask is not None and (self.mask.ndim != 2 or len(self.mask) != len(self.samples)):
            raise Error(f"a mask of shape {tuple(self.mask.shape)} for {len(self.samples)} samples")

    def layout(self, rows):
        """For a layer that reads `rows` rows: one for each token of the mask, or one for each sample."""
        if self.mask is not None and rows == self.mask.numel():
            return Layout(self.samples, self.mask)
        if rows == len(self.samples):
            return Layout(self.samples, torch.ones(rows, 1, dtype=torch.bool))
        shape = "no mask" if self.mask is None else f"a mask of {self.mask.numel()} tokens"
        raise Error(f"a layer reads {rows} rows, but the batch has {len(self.samples)} samples and {shape}")


class Layout:
    def __init__(self, ids, mask):
        self.ids, self._mask = ids, mask.reshape(-1)
        self.lengths = mask.sum(1)
        self.total = int(self.lengths.sum())

    def samples(self):
        """Arguments of the library's calls on samples."""
        return pointer(self.ids), pointer(self.lengths), size(len(self.ids))

    def spread(self, norms):
        rows = torch.zeros(len(self._mask), dtype=torch.float32)
        rows[self._mask] = norms
        return rows

    def gather(self, rows):
        return rows[self._mask]
