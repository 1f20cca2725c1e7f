"""Linear layers for PyTorch that keep only a few rows of their input for the backward pass.

    sampling = wtacrs_torch.convert(model, budget=0.3, skip=["classifier"])

Then train as ever. WTACRS_LIBRARY names libwtacrs.so where the loader does not find it.
"""

from wtacrs_ctypes import Error

from .layer import SampledLinear
from .memory import SavedBytes
from .sampling import Sampling, convert

__all__ = ["Error", "SampledLinear", "Sampling", "SavedBytes", "convert"]
