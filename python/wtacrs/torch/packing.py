"""The size of packed rows, as the library packs them (docs/packing.md)."""

from __future__ import annotations

GROUP, LEAST_GROUP = 128, 16
# More than a block has beside its rows.
OVERHEAD = 256


def bits_of(text):
    """The number of bits that a text names, or "native"."""
    return text if text == "native" else int(text)


def row_bytes(in_features, element_bytes, bits):
    """A row as it is, or packed."""
    if bits == "native":
        return in_features * element_bytes
    elements, groups = packed_elements(in_features)
    return elements * bits // 8 + 4 * groups


def packed_elements(in_features):
    """The elements and the groups of a packed row. What is left of a row behind whole groups is a group of a smaller
    power of two. Each group takes 4 bytes beside its codes."""
    whole, left = in_features // GROUP, in_features % GROUP
    padded = max(LEAST_GROUP, 1 << (left - 1).bit_length()) if left else 0
    return whole * GROUP + padded, whole + bool(left)
