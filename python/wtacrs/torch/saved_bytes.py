"""How many bytes torch holds for the backward pass, by what holds them: storages of saved tensors, each once, without
parameters."""

from __future__ import annotations

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from . import devices
from .choosing.transformers_layers import is_conv1d, is_experts
from .operators import recognition
from .operators.modules import Converted

LINEAR, ATTENTION, WEIGHTS, OTHER = "linear layers", "attention", "copies of weights", "other"
CATEGORIES = (LINEAR, ATTENTION, "activations", "gated units", "norms", "dropout", WEIGHTS, OTHER)
# Categories of torch's other modules, by the file that defines them.
OF_FILES = {"activation": "activations", "batchnorm": "norms", "dropout": "dropout", "normalization": "norms"}


class SavedBytes:
    """
    with SavedBytes(model) as saved:
        loss = model(batch)
    loss.backward()
    saved.total, saved.linear, saved.by_operator, saved.left()
    print(saved.table())

    A tensor counts for the innermost module that saves it first. A linear layer's input counts for linear layers,
    whatever else saves it. Under autocast, exact linear layers save copies of their weights, and each a copy of its
    input, if that has another dtype.
    """

    def __init__(self, model):
        self.model = model
        self._storages, self._references = {}, {}
        self.total = self.linear = 0
        self.by_operator = dict.fromkeys(CATEGORIES, 0)

    def __enter__(self):
        # By the storage's number, with its bytes and its category. References keep numbers from being given twice.
        self._storages, self._inputs, self._references, self._within = {}, set(), {}, []
        self._parameters = {id(parameter) for parameter in self.model.parameters()}
        self._hooks = []
        for module in self.model.modules():
            category = category_of(module)
            if category is not None:
                enter = self._enter(module, category)
                self._hooks.append(module.register_forward_pre_hook(enter, with_kwargs=True))
                self._hooks.append(module.register_forward_hook(self._leave, always_call=True))
        self._packing = torch.autograd.graph.saved_tensors_hooks(self._note_saved, lambda tensor: tensor)
        self._packing.__enter__()
        return self

    def __exit__(self, *exception):
        self._packing.__exit__(*exception)
        for hook in self._hooks:
            hook.remove()
        for tensor in list(self.model.parameters()) + list(self.model.buffers()):
            self._storages.pop(self._number(tensor), None)
        self.by_operator = dict.fromkeys(CATEGORIES, 0)
        for number, (count, category) in self._storages.items():
            self.by_operator[LINEAR if number in self._inputs else category] += count
        self.total = sum(self.by_operator.values())
        self.linear = self.by_operator[LINEAR]
        # Weak references keep no memory but the storage's own few bytes.
        self._references = {number: self._references[number] for number in self._storages}

    def left(self):
        """The bytes of `total` that are still in memory: fewer and fewer in the course of the backward pass."""
        references = self._references.items()
        return sum(self._storages[number][0] for number, reference in references if not reference.expired())

    def _enter(self, module, category):
        def enter(_, arguments, named):
            if torch.compiler.is_compiling():
                return
            self._within.append((module, category))
            given = next((value for value in (*arguments, *named.values()) if isinstance(value, torch.Tensor)), None)
            if category == LINEAR and given is not None and not is_cast(given):
                self._inputs.add(self._number(given))

        return enter

    def _leave(self, *_):
        if not torch.compiler.is_compiling():
            self._within.pop()

    def _number(self, tensor):
        """Of the tensor's storage, and None for a tensor without one, which is not counted."""
        storage = devices.storage_of(tensor)
        if storage is None:
            return None
        if storage._cdata not in self._references:
            self._references[storage._cdata] = StorageWeakRef(storage)
        return storage._cdata

    def _note_saved(self, tensor):
        module, category = self._within[-1] if self._within else (None, OTHER)
        if category == LINEAR and self._is_weight(tensor, module):
            category = WEIGHTS
        # A block is kept as it is: layers that read the same H later look for it.
        tensor = tensor if tensor.grad_fn is None else tensor.detach()
        number = self._number(tensor)
        if number is not None:
            self._storages.setdefault(number, (tensor.untyped_storage().nbytes(), category))
        return tensor

    def _is_weight(self, tensor, layer):
        """Whether the tensor is a view of a parameter, or of its copy under autocast."""
        node = tensor.grad_fn
        while node is not None and node.name().startswith(VIEWS_AND_CASTS):
            node = node.next_functions[0][0]
        if node is not None:
            return id(getattr(node, "variable", None)) in self._parameters
        # Nothing leads from a frozen weight's copy to the weight.
        weights = [p for p in layer.parameters(recurse=False) if p.ndim == 2 and not p.requires_grad]
        return any(tensor.shape in (weight.shape, weight.shape[::-1]) for weight in weights)

    def table(self, name="held", **others):
        """Bytes by operator, as text. `others` are measurements for columns before this one; shares are of the first:
        print(packed.table("packed", exact=exact))."""
        return table({**others, name: self})

    def figure(self, path, name="held", **others):
        """Draws the same as a figure, in the format of the path's ending. Requires matplotlib."""
        draw({**others, name: self}, path)


# Names of nodes in torch's graph that lead from a parameter to what a layer saves of it.
VIEWS_AND_CASTS = (
    "TBackward",
    "TransposeBackward",
    "PermuteBackward",
    "ViewBackward",
    "AliasBackward",
    "ToCopyBackward",
)


def category_of(module):
    if isinstance(module, nn.Linear) or is_conv1d(module) or is_experts(module):
        return LINEAR
    kind = module.kind if isinstance(module, Converted) else recognition.kind_of(module)
    if kind is not None:
        return kind.category
    if "Attention" in type(module).__name__:
        return ATTENTION
    package, _, file = type(module).__module__.rpartition(".")
    return OF_FILES.get(file) if package == "torch.nn.modules" else None


def is_cast(tensor):
    """Whether autocast makes a copy of a product's operand, in whose place the copy is saved."""
    dtype = devices.autocast_dtype(tensor.device.type)
    return dtype is not None and tensor.dtype.is_floating_point and tensor.dtype not in (dtype, torch.float64)


def table(measurements):
    whole = max(1, next(iter(measurements.values())).total)
    rows = [["", *measurements]]
    for category in held(measurements):
        rows.append([category, *(cell(m.by_operator[category], whole) for m in measurements.values())])
    rows.append(["all", *(cell(m.total, whole) for m in measurements.values())])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *cells = (
            text.rjust(width) if at else text.ljust(width) for at, (text, width) in enumerate(zip(row, widths))
        )
        lines.append("  ".join([first, *cells]).rstrip())
    return "\n".join(lines)


def held(measurements):
    """The categories of which any measurement holds bytes."""
    return [c for c in CATEGORIES if any(m.by_operator[c] for m in measurements.values())]


def cell(count, whole):
    return f"{count / 1e6:.2f} MB {count / whole:6.3f}"


def draw(measurements, path):
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "wtacrs"
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(9, 0.5 * len(measurements) + 1.4), layout="constrained")
    colours = pyplot.get_cmap("tab10").colors
    shown = held(measurements)
    for place, measured in enumerate(measurements.values()):
        left = 0
        for category, colour in zip(CATEGORIES, colours):
            if category not in shown:
                continue
            megabytes = measured.by_operator[category] / 1e6
            axis.barh(-place, megabytes, left=left, height=0.7, color=colour, label=category if place == 0 else None)
            left += megabytes
        axis.text(left, -place, f" {left:.1f}", va="center", fontsize=9)
    axis.set_yticks([-place for place in range(len(measurements))], list(measurements))
    axis.set_xlabel("MB held for the backward pass")
    axis.margins(x=0.08)
    figure.legend(loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.savefig(path, dpi=110, metadata={"Date": None} if str(path).endswith(".svg") else None)
    pyplot.close(figure)
