"""Where random bits come from: a seed, and an offset that every draw advances."""

from __future__ import annotations

import ctypes

import torch

from .modes import state

MASK = 2**64 - 1


def from_torch():
    """A number from torch's generator on the host."""
    return int(torch.randint(2**62, (), device="cpu"))


class Randomness:
    """The seed, and the offset that every draw of rows or dithers advances. Each rank has its own key.

    Both lie in a tensor, `words`, which traced passes advance. Eager passes read the same memory as integers.
    """

    def __init__(self, seed, rank=0):
        self.rank = rank
        self.words = state(0, 0)
        self._memory = (ctypes.c_uint64 * 2).from_address(self.words.data_ptr())
        self.seed = seed

    def __reduce__(self):
        return self.continued, (self.seed, self.rank, self.offset)

    @classmethod
    def continued(cls, seed, rank, offset):
        """From where another has come to."""
        made = cls(seed, rank)
        made.offset = offset
        return made

    @property
    def key(self):
        return self._memory[0]

    @property
    def seed(self):
        return (self.key - self.rank) & MASK

    @seed.setter
    def seed(self, seed):
        self._memory[0] = (seed + self.rank) & MASK

    @property
    def offset(self):
        return self._memory[1]

    @offset.setter
    def offset(self, offset):
        self._memory[1] = offset & MASK

    def advance(self, draws):
        """The offset of a pass; the next pass begins `draws` further."""
        offset = self._memory[1]
        self._memory[1] = (offset + draws) & MASK
        return offset
