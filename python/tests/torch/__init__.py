"""Tests of `wtacrs.torch`."""
