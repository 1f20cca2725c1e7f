"""Linear layers for PyTorch that save only a sample of their input's rows, in few bits, for the backward pass.

    sampling = wtacrs.torch.convert(model, budget=0.3, bits=4, skip=["classifier"])

Then train as before: docs/pytorch.md says what is converted and what is not. In the order in which one would read it:

    sampling        `convert`, and `Sampling`: what the converted layers of a model share
    layer           `SampledLinear`, and its passes in torch's graph
    shared_input    one selection for all layers that read the same tensor
    plans           the passes themselves, in the library, and whether they save memory
    devices         contexts, streams and memory on the host and on a GPU
    guesses         what stands for the norms of dZ in a forward pass
    batch_layout    which samples a batch holds, for cached norms
    rank_exchange   what several processes exchange after a step
    saved_bytes     `SavedBytes`: what torch holds for the backward pass
"""

from .._native import Error
from .layer import SampledLinear
from .sampling import Sampling, convert
from .saved_bytes import SavedBytes

__all__ = ["Error", "SampledLinear", "Sampling", "SavedBytes", "convert"]
