"""CPU tensors in the place of a GPU's: the client takes its CUDA path, and the library's emulator runs the kernels."""

import contextlib
import ctypes as c
import functools
import os
import unittest
from unittest import mock

import torch
from wtacrs_ctypes import CUDA
from wtacrs_torch import native


class EmulatedGpu(native.Gpu):
    @functools.cached_property
    def context(self):
        return native.library().make("context", CUDA, 0)

    def current(self):
        return contextlib.nullcontext()

    def stream(self):
        return None

    def tensor(self, of):
        made = super().tensor(of)
        # A DLTensor begins with its data; then come the device's type, 2 for CUDA, and its number.
        c.c_int32.from_address(made.pointer.value + c.sizeof(c.c_void_p)).value = 2
        return made


GPU = EmulatedGpu(torch.device("cpu"))
place_of_torch = native.place


def on_gpu():
    """While it is entered, the client takes the CPU's tensors for a GPU's."""
    return mock.patch.object(native, "place", lambda device: GPU)


def on_host():
    """Within the other: as torch says."""
    return mock.patch.object(native, "place", place_of_torch)


needed = unittest.skipUnless(
    os.environ.get("WTACRS_CUDA_STANDIN") == "emulator",
    "the emulator is not asked for: WTACRS_CUDA_STANDIN=emulator, with WTACRS_LIBRARY built with --features emulator",
)


class Emulated:
    """Before a test case in the bases of a class, it makes it run on the emulator."""

    # What a block may have beyond its rows: its parts begin at multiples of 256.
    slack = 6 * 256

    def setUp(self):
        self.enterContext(on_gpu())
        super().setUp()
