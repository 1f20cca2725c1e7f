"""Tests of `wtacrs.numpy` and of the layer over the C interface, which need NumPy and libwtacrs alone."""
