"""How many bytes torch holds for the backward pass: storages of saved tensors, each once, without parameters."""

from __future__ import annotations

import torch


class SavedBytes:
    """
    with SavedBytes(model) as saved:
        loss = model(batch)
    loss.backward()
    saved.total, saved.linear
    """

    def __init__(self, model):
        self.model = model
        self.total = self.linear = 0

    def __enter__(self):
        self._storages, self._inputs = {}, []
        layers = [m for m in self.model.modules() if isinstance(m, torch.nn.Linear)]
        self._hooks = [layer.register_forward_pre_hook(self._note_input) for layer in layers]
        self._packing = torch.autograd.graph.saved_tensors_hooks(self._note_saved, lambda tensor: tensor)
        self._packing.__enter__()
        return self

    def __exit__(self, *exception):
        self._packing.__exit__(*exception)
        for hook in self._hooks:
            hook.remove()
        for tensor in list(self.model.parameters()) + list(self.model.buffers()):
            self._storages.pop(tensor.untyped_storage().data_ptr(), None)
        self.total = sum(count for count, _ in self._storages.values())
        inputs = {tensor.untyped_storage().data_ptr() for tensor in self._inputs}
        # An input of a linear layer counts for it whoever else saves it as well.
        self.linear = sum(
            count for address, (count, rows) in self._storages.items() if rows or address in inputs
        )  # fmt: skip
        self._inputs.clear()

    def _note_input(self, layer, arguments):
        # Held until the end, so that no other tensor gets its address.
        self._inputs.append(arguments[0].detach())

    def _note_saved(self, tensor):
        # Rows are kept as they are: layers that read the same H later look for them.
        tensor = tensor if tensor.grad_fn is None else tensor.detach()
        storage = tensor.untyped_storage()
        # Of all that is saved, only sampled rows are bytes.
        self._storages[storage.data_ptr()] = (storage.nbytes(), tensor.dtype == torch.uint8)
        return tensor
