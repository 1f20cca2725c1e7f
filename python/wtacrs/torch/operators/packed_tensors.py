"""Packs the tensors that torch's graph saves: each storage once, in the order of its elements in memory."""

from __future__ import annotations

import contextlib
import math

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from .. import devices
from .passes import plan_for, serves

# Groups of 128 elements need not end with a row of the tensor.
COLUMNS = (1024, 512, 256, 128)
# Packing a smaller tensor saves too little.
LEAST_ELEMENTS = 4096


class Layout:
    """A tensor's order in memory, and the plan that packs it. Axes of stride 0 are packed once."""

    def __init__(self, shape, strides, dtype, device, packing):
        self.shape, self.dtype, self.device = shape, dtype, device
        axes = range(len(shape))
        self.repeated = [axis for axis in axes if strides[axis] == 0 and shape[axis] > 1]
        sizes = [1 if axis in self.repeated else size for axis, size in enumerate(shape)]
        self.order = sorted(axes, key=lambda axis: (-strides[axis], axis))
        self.sizes = [sizes[axis] for axis in self.order]
        count = math.prod(sizes)
        columns = next((columns for columns in COLUMNS if count % columns == 0), self.sizes[-1])
        plan_shape = (count // columns, columns)
        self.plan = plan_for(devices.device_of(device), plan_shape, dtype, "identity", packing=packing)

    @classmethod
    def of(cls, tensor, packing):
        return cls(tensor.shape, tensor.stride(), tensor.dtype, tensor.device, packing)

    def packed(self, tensor, seed, offset):
        """The tensor as a block of bytes."""
        for axis in self.repeated:
            tensor = tensor.narrow(axis, 0, 1)
        return self.plan.forward(tensor.permute(self.order).contiguous(), None, seed, offset)

    def restore(self, block):
        lying = self.plan.restore(block, torch.empty(self.sizes, dtype=self.dtype, device=self.device))
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return lying.permute(back).expand(self.shape)


@contextlib.contextmanager
def packed_saved_tensors(model, operators, packing):
    """Packs what torch's own functions save in a forward pass within: tensors of f32, f16 and bf16 with at least
    LEAST_ELEMENTS elements, except parameters and buffers. What converted modules have packed is left alone."""
    own = [t for t in [*model.parameters(), *model.buffers()] if devices.why_not_plain(t) is None]
    kept = {t.untyped_storage().data_ptr() for t in own}
    packed = {}

    def pack(tensor):
        if not serves(tensor) or tensor.numel() < LEAST_ELEMENTS or tensor.untyped_storage().data_ptr() in kept:
            return tensor if tensor.grad_fn is None else tensor.detach()
        tensor = tensor.detach().resolve_neg()
        storage = tensor.untyped_storage()
        whole = storage.nbytes() // tensor.element_size()
        view = None
        if tensor.numel() == whole:
            # All views of a storage are views of one packed row of it.
            view = tensor.shape, tensor.stride(), tensor.storage_offset()
        place = (storage.data_ptr(), tensor.dtype, tensor._version) if view else object()
        found = packed.get(place)
        if found is None or found[0].expired():
            layout = Layout.of(tensor, packing)
            block = layout.packed(tensor, *operators.draw(layout.plan))
            found = packed[place] = StorageWeakRef(storage), layout, block, (tensor.shape, tensor.stride())
        return Saved(*found[1:], view)

    try:
        with saved_tensors_hooks(pack, lambda saved: saved.restored() if isinstance(saved, Saved) else saved):
            yield
    finally:
        packed.clear()


class Saved:
    """What the graph holds in a tensor's place."""

    def __init__(self, layout, block, first, view):
        self.layout, self.block, self.first, self.view = layout, block, first, view

    def restored(self):
        tensor = self.layout.restore(self.block)
        if self.view is None or self.view[:2] == self.first:
            return tensor
        # The elements in the order of the storage, from its first one on.
        lying = tensor.permute(self.layout.order).contiguous()
        return lying.as_strided(*self.view)
