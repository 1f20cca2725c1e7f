"""Which samples a batch holds, and which rows of H are their tokens."""

from __future__ import annotations

import torch

from ..._native import Error


class Batch:
    """`samples` are ids; `masks` are samples x length, true for tokens and not for padding, of layers that read a row
    for each place of one: those of an encoder and of a decoder have lengths of their own. Layers without a mask read
    one row each. All may be on the host or on a GPU."""

    def __init__(self, samples, *masks):
        # The library's ids are unsigned; these are the same bits.
        self.samples = on_host(samples).long().contiguous()
        if self.samples.ndim != 1:
            raise Error(f"sample ids have {self.samples.ndim} axes where one is needed")
        self.masks = [on_host(mask).bool() for mask in masks if mask is not None]
        for place, mask in enumerate(self.masks):
            if mask.ndim != 2 or len(mask) != len(self.samples):
                raise Error(f"a mask of shape {tuple(mask.shape)} for {len(self.samples)} samples")
            if any(mask.shape == other.shape for other in self.masks[:place]):
                raise Error(
                    f"two masks of shape {tuple(mask.shape)}: a layer's rows do not show which of them it reads"
                )
        self._layouts = {}

    def check(self, samples, tokens_per_sample):
        """Refuses what a cache has no room for, if it is on the host; for what is on a GPU nobody waits."""
        if self.samples.device.type == "cpu":
            outside = self.samples[(self.samples < 0) | (self.samples >= samples)].tolist()
            if outside:
                raise Error(f"sample {outside[0]} in a batch, but samples={samples}: ids are 0 to {samples - 1}")
        for mask in self.masks:
            longest = max(mask.sum(1).tolist(), default=0) if mask.device.type == "cpu" else 0
            if longest > tokens_per_sample:
                raise Error(f"a sample of {longest} tokens in a batch, but tokens_per_sample={tokens_per_sample}")

    def layout(self, rows, device):
        """For a layer that reads `rows` rows: one for each token of a mask, or one for each sample."""
        if (rows, device) not in self._layouts:
            self._layouts[rows, device] = Layout(moved(self.samples, device), moved(self._mask_of(rows), device))
        return self._layouts[rows, device]

    def mask_of(self, rows):
        """The mask of a layer that reads so many rows; the only one whatever it reads, so that a trace does not depend
        on lengths."""
        if len(self.masks) <= 1:
            return next(iter(self.masks), None)
        return next((mask for mask in self.masks if mask.numel() == rows), None)

    def _mask_of(self, rows):
        mask = self.mask_of(rows)
        if mask is not None and rows == mask.numel():
            return mask
        if rows == len(self.samples):
            return torch.ones(rows, 1, dtype=torch.bool, device="cpu")
        tokens = " and ".join(str(mask.numel()) for mask in self.masks)
        masks = f"masks of {tokens} tokens" if len(self.masks) > 1 else f"a mask of {tokens} tokens"
        raise Error(
            f"a layer reads {rows} rows, but the batch has {len(self.samples)} samples and "
            f"{masks if self.masks else 'no mask'}"
        )


def on_host(values):
    """A tensor where it is; other numbers on the host, whatever torch's default device."""
    return values if isinstance(values, torch.Tensor) else torch.as_tensor(values, device="cpu")


def moved(tensor, device):
    # To a GPU without waiting for it; from there the host has to.
    return tensor.to(device, non_blocking=device.type == "cuda")


class Layout:
    """Norms in rows of a batch, padding anywhere, and as norm caches have them: a row for each sample, its tokens
    first."""

    def __init__(self, ids, mask):
        self.ids, self._mask = ids, mask
        self.lengths = mask.sum(1)
        self._tokens_first = mask.logical_not().byte().argsort(dim=1, stable=True)
        self._places = (mask.cumsum(1) - 1).clamp(min=0)

    @property
    def shape(self):
        return self._mask.shape

    def spread(self, norms):
        """0 for padding."""
        return torch.where(self._mask, norms.gather(1, self._places), 0).flatten()

    def gather(self, rows):
        return rows.reshape(self.shape).gather(1, self._tokens_first)
