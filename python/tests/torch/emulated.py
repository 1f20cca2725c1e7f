"""CPU tensors in the place of a GPU's: the package takes its CUDA path, and the library's emulator runs the kernels."""

import contextlib
import ctypes
import functools
import os
import unittest
from unittest import mock

import torch

from wtacrs import _native
from wtacrs.torch import devices


class EmulatedGpu(devices.Gpu):
    @functools.cached_property
    def context(self):
        return _native.Context("cuda", 0)

    def current(self):
        return contextlib.nullcontext()

    def stream(self):
        return None

    def captures(self):
        return False

    def matrix(self, tensor):
        made = super().matrix(tensor)
        # A DLTensor begins with the address of its data; then come the device's type, 2 for CUDA, and its number.
        ctypes.c_int32.from_address(made._as_parameter_ + ctypes.sizeof(ctypes.c_void_p)).value = 2
        return made


GPU = EmulatedGpu(torch.device("cpu"))
device_of_torch = devices.device_of


def on_gpu():
    """While it is entered, the package takes the CPU's tensors for a GPU's."""
    return mock.patch.object(devices, "device_of", lambda torch_device: GPU)


def on_host():
    """Within the other: as torch says."""
    return mock.patch.object(devices, "device_of", device_of_torch)


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
