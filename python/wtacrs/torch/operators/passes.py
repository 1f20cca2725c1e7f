"""What stands between the products, on torch tensors: activations, gated units, dropout, softmax and norms.

An operator is a plan of the library for one shape. Its forward pass writes what the backward pass needs, in few bits;
`apply` puts both passes into torch's graph.
"""

from __future__ import annotations

import functools
import typing

import torch
from torch.autograd.function import once_differentiable

from ..._native import Error, OperatorPlan
from .. import devices
from ..devices import address
from ..modes import admitting_state, traced
from ..packing import OVERHEAD, bits_of, row_bytes
from ..randomness import from_torch

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class Operators:
    """What the converted operators of a model share: how they save, and where their random bits come from.

    Where checkpointing runs a segment again, dropout must repeat its mask. So its offsets come from torch's generator
    on the host, whose state checkpointing restores. Dithers alone need not repeat, and do not move that generator: so a
    pass without gradients, which saves nothing, moves it as far as a pass with them.
    """

    def __init__(self, randomness, mode, bits, tensor_mul=None, engine="auto"):
        self.randomness, self.mode = randomness, mode
        self.packing = bits if mode == "packed" else "native"
        # An error in Q, K or V enters the gradients of every row that attends to it.
        self.operand_packing = 8 if mode == "packed" else "native"
        self.tensor_mul, self.engine = tensor_mul, engine

    def __deepcopy__(self, memo):
        return self

    @property
    def packs(self):
        return self.mode == "packed"

    def draw(self, plan):
        """The seed and the offset of one forward pass."""
        if plan.dropout:
            return self.randomness.key, from_torch()
        return self.randomness.key, self.randomness.advance(plan.draws)


class Description(typing.NamedTuple):
    """What an operator computes and how it saves, whatever the number of rows. `columns` is a row's length."""

    operation: str
    columns: int
    gated: bool = False
    packing: int | str = "native"
    dropout: float = 0.0
    epsilon: float = 1e-5

    def __str__(self):
        return " ".join(map(str, self))

    @classmethod
    @functools.cache
    def parse(cls, text):
        operation, columns, gated, packing, dropout, epsilon = text.split(" ")
        return cls(operation, int(columns), gated == "True", bits_of(packing), float(dropout), float(epsilon))


@functools.lru_cache(maxsize=1024)
def plan_for(device, shape, dtype, operation, gated=False, packing="native", dropout=0.0, epsilon=1e-5):
    """The plan of an operator on arrays of `shape` (rows, columns); equal arguments share one."""
    return Plan(device, shape, dtype, operation, gated, packing, dropout, epsilon)


class Plan:
    """The passes of an operator on contiguous tensors with as many elements as its shape, whatever their axes."""

    def __init__(self, device, shape, dtype, operation, gated, packing, dropout, epsilon):
        self.device, self.dropout, self.gated = device, dropout, gated
        self.elements, self.dtype = shape[0] * shape[1], dtype
        self.native, self.captured = device.plans(
            lambda further_offset: OperatorPlan(
                device.context,
                shape=shape,
                operation=operation,
                gated=gated,
                packing=packing,
                dropout=dropout,
                epsilon=epsilon,
                dtype=str(dtype).removeprefix("torch."),
                further_offset=further_offset,
            )
        )
        self.draws, self.saved_bytes = self.native.draws, self.native.saved_bytes
        self.keeps_input, self.keeps_gate = self.native.keeps_input, self.native.keeps_gate
        self.keeps_output = self.native.keeps_output

    def forward(self, x, y, seed, offset, gate=None, weight=None, bias=None):
        """Writes y, which may be x or None. Returns what the backward pass needs as a tensor of bytes, or None."""
        saved = self.device.memory(self.saved_bytes) if self.saved_bytes else None
        operands = self.of(x), self.of(gate), address(weight), address(bias), self.of(y)
        native, seed, offset = self.device.drawing(self, seed, offset)
        with self.device.current():
            native.forward(*operands, seed, offset, address(saved), self.device.stream())
        self.device.drawn(self)
        return saved

    def backward(self, saved, dy, dx, *, x=None, gate=None, y=None, weight=None, dgate=None, dweight=None, dbias=None):
        """Writes the gradients. dx may be dy."""
        bytes_needed = self.native.backward_scratch_bytes
        scratch = self.device.memory(bytes_needed) if bytes_needed else None
        read = self.of(x), self.of(gate), self.of(y), address(weight), self.of(dy)
        written = self.of(dx), self.of(dgate), address(dweight), address(dbias)
        with self.device.current():
            self.native.backward(*read, *written, address(saved), address(scratch), self.device.stream())

    def restore(self, saved, y):
        """Writes y again from what the forward pass saved. Returns y."""
        with self.device.current():
            self.native.restore(address(saved), self.of(y), self.device.stream())
        return y

    def of(self, tensor):
        """The address of an operand. The size is checked here, since the library cannot see it."""
        if tensor is None:
            return None
        if (
            tensor.dtype != self.dtype
            or tensor.numel() != self.elements
            or not tensor.is_contiguous()
            or tensor.is_neg()
        ):
            found = f"{tensor.numel()} of {tensor.dtype}"
            raise Error(f"an operator on {self.elements} contiguous elements of {self.dtype} was given {found}")
        return tensor.data_ptr()


def serves(x):
    """Whether the library has operators for such tensors."""
    return devices.why_not_plain(x) is None and x.dtype in DTYPES and x.device.type in devices.SERVED and x.numel() > 0


def plan_of(x, description):
    """The plan of an operator on x."""
    operation, columns, *options = description
    shape = (int(x.numel() // columns), columns)
    return plan_for(devices.device_of(x.device), shape, x.dtype, operation, *options)


def takes_less(x, description, arrays=1):
    """Whether a packed operator on x saves less than `arrays` arrays of x's size. Without the library, so that torch
    can trace it."""
    columns = description.columns
    if description.operation == "relu":
        row = (columns + 7) // 8
    else:
        row = row_bytes(columns, x.element_size(), description.packing) * (2 if description.gated else 1)
        # A norm also saves a number for each row.
        row += 4 if description.operation.endswith("norm") else 0
    return x.numel() // columns * row + OVERHEAD < arrays * x.numel() * x.element_size()


def apply(shared, x, description, gate=None, weight=None, bias=None):
    """The operator on x, in torch's graph."""
    if traced(x):
        return apply_traced(shared, x, description, gate, weight, bias)
    plan = plan_of(x, description)
    return OperatorFunction.apply(x, gate, weight, bias, plan, *shared.draw(plan))


def apply_traced(shared, x, description, gate, weight, bias):
    randomness, text = shared.randomness.words, str(description)
    passes = torch.ops.wtacrs
    with admitting_state(x):
        key = passes.mask_key(randomness) if description.dropout else passes.dither(randomness, x, text)
    return passes.operator(x, gate, weight, bias, key, text)[0]


class OperatorFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gate, weight, bias, plan, seed, offset):
        x = x.resolve_neg().contiguous()
        gate = None if gate is None else gate.resolve_neg().contiguous()
        y = torch.empty_like(x)
        saved = plan.forward(x, y, seed, offset, gate, floats(weight), floats(bias))
        ctx.plan = plan
        keep(ctx, plan, saved, x, gate, y, weight, bias)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        found = gradients(ctx.plan, dy, *ctx.saved_tensors, *ctx.needs_input_grad[2:4])
        return *needed(ctx, *found), None, None, None


def keep(ctx, plan, saved, x, gate, y, weight, bias):
    """What the backward pass needs, on torch's graph."""
    ctx.save_for_backward(
        saved,
        x if plan.keeps_input else None,
        gate if plan.keeps_gate else None,
        y if plan.keeps_output else None,
        weight,
    )
    ctx.weight_dtype = None if weight is None else weight.dtype
    ctx.bias_dtype = None if bias is None else bias.dtype


def gradients(plan, dy, saved, x, gate, y, weight, with_weight, with_bias):
    """Of x, the gate, the weight and the bias, the last two in f32; None for what there is not."""
    dy = dy.resolve_neg().contiguous()
    dx = torch.empty_like(dy)
    # A gated unit's two gradients are made together.
    dgate = torch.empty_like(dy) if plan.gated else None
    dweight, dbias = (
        torch.empty(weight.shape, dtype=torch.float32, device=dy.device) if wanted else None
        for wanted in (with_weight, with_bias)
    )
    plan.backward(saved, dy, dx, x=x, gate=gate, y=y, weight=floats(weight), dgate=dgate, dweight=dweight, dbias=dbias)
    return dx, dgate, dweight, dbias


def needed(ctx, dx, dgate, dweight, dbias):
    """Those that torch asks for, in the parameters' dtypes."""
    _, needs_gate, needs_weight, needs_bias = ctx.needs_input_grad[:4]
    return (
        dx,
        dgate if needs_gate else None,
        dweight.to(ctx.weight_dtype) if needs_weight else None,
        dbias.to(ctx.bias_dtype) if needs_bias else None,
    )


def floats(parameter):
    """A weight or bias in the form that the library requires: contiguous, in f32."""
    return None if parameter is None else parameter.detach().float().contiguous()
