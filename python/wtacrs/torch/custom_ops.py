"""How the passes become custom operators of torch, `torch.ops.wtacrs`, for what traces a model: torch.compile,
torch.export, make_fx, tensors without memory.

In eager mode the package calls the library directly, which is faster; the passes and the bits are the same. What a pass
changes is an argument that the schema declares as mutated:

    randomness    int64, [seed, offset]: a pass that draws advances the offset
    site          int64, [number of a converted layer, updates so far]: stands for the layer's guess, which learns

A graph contains no Python objects. So plans are described by strings, and a layer is found by its number. Each operator
that a gradient goes through has a formula in `register_autograd`, made of other operators.
"""

from __future__ import annotations

import torch

from .randomness import MASK

library = torch.library.Library("wtacrs", "DEF")


def define(schema, *, tags=()):
    """Defines an operator by its schema, with one function for every device."""

    def register(function):
        library.define(schema, tags=tags)
        library.impl(function.__name__, function, "CompositeExplicitAutograd")
        return getattr(torch.ops.wtacrs, function.__name__).default

    return register


def fake(operator):
    """What the operator returns for tensors without memory."""
    return torch.library.register_fake(operator._name, lib=library)


def taken(randomness, draws):
    """Seed and offset of a pass, and the next pass begins `draws` further."""
    seed, offset = words(randomness)
    randomness[1] += draws
    return seed, offset


def words(pair):
    """Seed and offset from a tensor of both."""
    seed, offset = pair.tolist()
    return seed & MASK, offset & MASK


def key_of(seed, offset):
    """Both as one tensor."""
    return keys_of([(seed, offset)])[0]


def keys_of(draws):
    """The seeds and offsets of passes, a pair in each row."""
    words = [[signed(seed), signed(offset)] for seed, offset in draws]
    return torch.tensor(words, dtype=torch.int64, device="cpu").reshape(-1, 2)


def signed(word):
    return word - 2**64 if word >= 2**63 else word


def or_nothing(tensor, like, dtype=None):
    """An operator of torch returns no None."""
    return like.new_empty(0, dtype=dtype) if tensor is None else tensor


def contiguous(tensor):
    return None if tensor is None else tensor.resolve_neg().contiguous()
