"""When a layer is not worth sampling, beside the rows that would take no less memory than its input (`plans`).

Narrow layers, which `convert` leaves as they are: a row of the input takes few bytes, so that there is little to save,
and the estimate costs the same noise as for a wide one. The second halves of adapters are of this kind.

Short passes: heads and poolers read a handful of rows, of which a sample says little.

Inputs that are kept anyway: torch's attention saves its output, ReLU its result. A layer that reads one of these saves
no memory, and would hold its sample besides. Which inputs these are depends on the kernel that torch chooses, on
dropout and on the model's code, so it is measured: in the model's first training pass.
"""

from __future__ import annotations

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from .devices import storage_of
from .modes import tracing

LEAST_ROW_BYTES = 64
# An adapter's second half reads few features and writes many.
ADAPTER_FEATURES, ADAPTER_EXPANSION = 64, 8
LEAST_ROWS = 64
KEPT = "another operator keeps its input anyway, as torch's attention keeps its output and ReLU its result"


def why_narrow(in_features: int, out_features: int, element_bytes: int) -> str | None:
    """Why a layer's input is too narrow for sampling; None if it is not."""
    row = in_features * element_bytes
    if row < LEAST_ROW_BYTES:
        return f"a row of its input takes {row} bytes, and layers below {LEAST_ROW_BYTES} are exact"
    if in_features <= ADAPTER_FEATURES and out_features >= ADAPTER_EXPANSION * in_features:
        return f"it makes {out_features} features of {in_features}, as the second half of an adapter does"
    return None


def why_short(rows: int) -> str | None:
    """Why a pass over so few rows is exact; None if it is not."""
    return f"a pass over {rows} rows, and passes below {LEAST_ROWS} are exact" if rows < LEAST_ROWS else None


def top_hooks():
    """The functions that pack and unpack what torch saves now, or None."""
    return torch._C._autograd._top_saved_tensors_default_hooks(False)


class KeptInputs:
    """Finds the layers whose input torch's graph keeps anyway, in the first training pass of the model.

    Hooks on the model see every tensor that torch saves in that pass, as they do for `SavedBytes`, and then go. A pass
    is not measured where other hooks for saved tensors are at work, or where it is traced. Within a checkpointed
    segment nothing is seen, and layers are sampled. Without a model nothing is measured.
    """

    def __init__(self, model: torch.nn.Module | None = None):
        self._model_hooks = []
        self._tensor_hooks = None
        self.measured = False
        if model is not None:
            enter = model.register_forward_pre_hook(self._enter, prepend=True)
            self._model_hooks = [enter, model.register_forward_hook(self._leave, always_call=True)]

    def __deepcopy__(self, memo):
        # The model measures, and its copies share what it finds.
        return KeptInputs()

    def __getstate__(self):
        # The handles of hooks on the model are pickled with it.
        return {"measured": self.measured, "_model_hooks": self._model_hooks, "_tensor_hooks": None}

    def remove(self) -> None:
        """Measures nothing from here on."""
        for hook in self._model_hooks:
            hook.remove()
        self._model_hooks = []

    def finish(self) -> None:
        self.remove()
        self.measured = True

    def note(self, sampled, h: torch.Tensor) -> None:
        """A sampled layer reads h, in the dtype in which torch would keep it."""
        # Within a checkpointed segment, what is saved is thrown away, and the segment's input is kept for another reason.
        if self._tensor_hooks is not None and top_hooks() == self._mine:
            self._inputs[sampled] = StorageWeakRef(h.untyped_storage())

    def _enter(self, model, arguments) -> None:
        if tracing() or not model.training or not torch.is_grad_enabled():
            return
        if not self._model_hooks or self._tensor_hooks is not None:
            return
        if top_hooks() is None:
            self._inputs, self._saved = {}, set()
            self._tensor_hooks = saved_tensors_hooks(self._note_saved, lambda tensor: tensor)
            self._tensor_hooks.__enter__()
            self._mine = top_hooks()

    def _note_saved(self, tensor):
        # Weak references keep a storage's identity, not its memory, and no other storage gets an identity that is held.
        storage = storage_of(tensor)
        if storage is not None:
            self._saved.add(StorageWeakRef(storage))
        return tensor if tensor.grad_fn is None else tensor.detach()

    def _leave(self, model, arguments, output) -> None:
        if self._tensor_hooks is None:
            return
        self._tensor_hooks.__exit__()
        self._tensor_hooks = None
        for sampled, storage in self._inputs.items():
            sampled.input_kept = storage in self._saved and not storage.expired()
            if sampled.input_kept:
                sampled.sampling.leave_exact(sampled.name, KEPT)
        if self._inputs:
            self.finish()
        self._inputs, self._saved = {}, set()
