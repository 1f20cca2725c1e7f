"""When a layer is not worth sampling, beside passes over few rows, and rows that would take no less memory than the
input (`linear.plans`).

Narrow layers, which `convert` leaves as they are: a row of the input takes few bytes, so that there is little to save,
and the estimate costs the same noise as for a wide one. The second halves of adapters are of this kind.

Inputs that are kept anyway: torch's attention saves its output, ReLU its result. A layer that reads one of these saves
no memory, and would hold its sample besides. Which inputs these are depends on the kernel that torch chooses, on
dropout and on the model's code, so it is measured: in the model's first training pass.
"""

from __future__ import annotations

import sys

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from ..devices import storage_of
from ..modes import tracing

LEAST_ROW_BYTES = 64
# An adapter's second half reads few features and writes many.
ADAPTER_FEATURES, ADAPTER_EXPANSION = 64, 8
KEPT = "another operator keeps its input anyway, as torch's attention keeps its output and ReLU its result"


def why_narrow(in_features: int, out_features: int, element_bytes: int) -> str | None:
    """Why a layer's input is too narrow for sampling; None if it is not."""
    row = in_features * element_bytes
    if row < LEAST_ROW_BYTES:
        return f"a row of its input takes {row} bytes, and layers below {LEAST_ROW_BYTES} are exact"
    if in_features <= ADAPTER_FEATURES and out_features >= ADAPTER_EXPANSION * in_features:
        return f"it makes {out_features} features of {in_features}, as the second half of an adapter does"
    return None


def innermost_hooks():
    """The two functions that torch passes saved tensors to, when they are saved and when they are needed; the
    identity where nobody has set any."""
    return torch._C._autograd._top_saved_tensors_default_hooks(False) or (as_it_is, lambda tensor: tensor)


def as_it_is(tensor):
    return tensor if tensor.grad_fn is None else tensor.detach()


class InputsOfPass:
    """Finds in the first training pass of a model which layers read the same input, and which inputs torch's graph
    keeps anyway.

    Hooks on the model see every tensor that torch saves in that pass, as they do for `SavedBytes`, and then go. What
    other hooks put in a tensor's place, as for offloading, does not keep it. Layers in a checkpointed segment are
    sampled, and a traced pass is not measured. Without a model nothing is measured.
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
        return InputsOfPass()

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

    def note(self, sampled, given: torch.Tensor, h: torch.Tensor) -> None:
        """A sampled layer is given a tensor, and reads h, its cast to the dtype in which torch would keep it."""
        # Within other hooks, as in a checkpointed segment, it is not seen what torch saves. A segment must also save
        # when it runs again what it saved before, so its layers are sampled in all passes.
        if self._tensor_hooks is None:
            return
        first = self._readers.setdefault(StorageWeakRef(given.untyped_storage()), sampled)
        sampled.shares_input_of = first.name
        if innermost_hooks()[0] == self._note_saved:
            self._inputs[sampled] = StorageWeakRef(h.untyped_storage())

    def _enter(self, model, arguments) -> None:
        # A trace must not depend on what is measured.
        if tracing():
            return
        measures = self._model_hooks and self._tensor_hooks is None and model.training and torch.is_grad_enabled()
        if not measures or not torch._C._autograd._saved_tensors_hooks_is_enabled():
            return
        self._readers, self._inputs, self._saved = {}, {}, set()
        self._save, restore = innermost_hooks()
        self._tensor_hooks = saved_tensors_hooks(self._note_saved, restore)
        self._tensor_hooks.__enter__()

    def _note_saved(self, tensor):
        saved = self._save(tensor)
        storage = storage_of(saved) if isinstance(saved, torch.Tensor) else None
        if storage is not None:
            # A weak reference keeps a storage's identity from being given to another one, but not its memory.
            self._saved.add(StorageWeakRef(storage))
        return saved

    def _leave(self, model, arguments, output) -> None:
        if tracing() or self._tensor_hooks is None:
            return
        self._tensor_hooks.__exit__()
        self._tensor_hooks = None
        # A pass that has failed shows nothing, and torch still goes through the hooks that `finish` would remove.
        failed = sys.exception() is not None
        for sampled, storage in () if failed else self._inputs.items():
            kept = storage in self._saved and not storage.expired()
            if kept and not sampled.sampling.settings.sample_kept_inputs:
                sampled.input_kept = True
                sampled.sampling.leave_exact(sampled.name, KEPT)
        self._save = None
        if self._readers and not failed:
            self.finish()
        self._readers, self._inputs, self._saved = {}, {}, set()
