"""Models in PyTorch that save little for the backward pass: of the inputs of linear layers a sample of rows, in few
bits, and on request few bits of what stands between them.

    sampling = wtacrs.torch.convert(model, budget=0.3, bits=4, activations="packed", skip=["classifier"])

Then train as before: docs/pytorch.md is the guide. In the order in which one would read it:

    settings        `Settings`: everything that `convert` takes and that is data
    convert         `convert`: puts sampled layers in the place of a model's own
    choosing        which matrices of a model are sampled, and which are left
    sampling        `Sampling`: what the converted layers of a model share
    linear          the layers that save a sample of their input
    operators       what stands between the products: activations, gated units, dropout, norms
    attention       attention of transformers' models
    report          `Report`: what is sampled, what is not and why, and what that saves
    saved_bytes     `SavedBytes`: what torch holds for the backward pass, by operator
    trainer         `TrainerCallback`: the state in the checkpoints of transformers' Trainer
    reverting       `revert`: takes back what `convert` has changed
    pickling        converted models in other processes

What all of them use:

    devices         contexts, streams and memory on the host and on a GPU
    randomness      the seed, and the offset that every draw advances
    packing         the size of packed rows
    modes           whether torch is tracing, as torch.compile does
    custom_ops      how passes become custom operators of torch
"""

from .._extras import imports_of

with imports_of("torch"):
    import torch  # noqa: F401

from .._native import Error
from .convert import convert
from .linear.layer import LayerSampling, SampledLinear
from .report import Report
from .reverting import revert
from .sampling import Sampling
from .saved_bytes import SavedBytes
from .settings import Settings

__all__ = [
    "Error",
    "LayerSampling",
    "Report",
    "SampledLinear",
    "Sampling",
    "SavedBytes",
    "Settings",
    "TrainerCallback",
    "convert",
    "revert",
]


def __getattr__(name):
    # transformers is imported by those who use its Trainer alone.
    if name == "TrainerCallback":
        from .trainer import TrainerCallback

        return TrainerCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
