"""Models in PyTorch that save little for the backward pass: of the inputs of linear layers a sample of rows, in few
bits, and on request few bits of what stands between them.

    sampling = wtacrs.torch.convert(model, budget=0.3, bits=4, activations="packed", skip=["classifier"])

Then train as before: docs/pytorch.md says what is converted and what is not. In the order in which one would read it:

    settings        `Settings`: everything that `convert` takes and that is data
    convert         `convert`: puts sampled layers in the place of a model's own
    choice          which matrices of a model can be sampled, and why others are left
    rules           when a layer is not worth sampling
    census          every matrix of a model, whether it is sampled, and what follows for bytes
    report          `Report`: what is sampled, what is not and why, and what that saves
    reverting       `revert`: takes back what `convert` has changed
    sampling        `Sampling`: what the converted layers of a model share
    layer           `SampledLinear`, and its passes in torch's graph
    transformers_layers  Conv1D and experts of transformers' models
    shared_input    one selection for all layers that read the same tensor
    plans           the passes themselves, in the library, and whether they save memory
    devices         contexts, streams and memory on the host and on a GPU
    guesses         what stands for the norms of dZ in a forward pass
    batch_layout    which samples a batch holds, for cached norms
    rank_exchange   what several processes exchange after a step
    trainer         `TrainerCallback`: the state in the checkpoints of transformers' Trainer

Between the linear layers:

    recognition     what a module computes, by its class or by the code of its forward pass
    modules         the modules that save few bits
    operators       their passes in the library and in torch's graph, and where they draw
    attention       the function that transformers' models call for attention
    probabilities   attention that saves its probabilities
    attention_operands  what its products save of Q, K and V
    scaled_dot_product  torch's own attention, with what it saves packed
    packed_tensors  tensors that torch's graph saves, packed

    saved_bytes     `SavedBytes`: what torch holds for the backward pass, by operator
"""

from .._native import Error
from . import attention_ops as attention_ops
from .convert import convert
from .layer import LayerSampling, SampledLinear
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
