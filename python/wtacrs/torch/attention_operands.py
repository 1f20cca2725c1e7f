"""What attention's two products save of Q, K and V: all rows as they are, all rows packed, or samples.

    S = scaling · Q Kᵀ:    dQ = scaling · dS K,  dK = scaling · dSᵀ Q
    O = P V:               dP = dO Vᵀ

`save` returns three tensors for the graph. Matrices are f32, one for each key head of each sequence.
"""

from __future__ import annotations

import functools

import torch

from .. import _native
from .._native import Error, TensorMulPlan
from . import devices
from .devices import address
from .operators import plan_for


def operands_of(operators, query, key, value):
    kind = Sampled if operators.tensor_mul is not None else Packed if operators.packs else Whole
    return kind(operators, query, key, value)


class Whole:
    """Saves Q, K and V as they are. Query heads that share a key head are rows of one matrix: so no key is repeated,
    and the gradients of K and V are sums over these heads."""

    def __init__(self, operators, query, key, value):
        self.operators = operators
        self.batch, self.heads, self.rows, channels = query.shape
        self.groups = key.shape[1]
        of_queries = (self.batch * self.groups, self.heads // self.groups * self.rows, channels)
        self.shapes = of_queries, *((self.batch * self.groups, *operand.shape[2:]) for operand in (key, value))

    def queries(self, tensor):
        rows = self.heads // self.groups * self.rows
        return tensor.reshape(self.batch * self.groups, rows, tensor.shape[-1]).float().contiguous()

    def keys(self, tensor):
        return tensor.reshape(self.batch * self.groups, *tensor.shape[2:]).float().contiguous()

    def by_head(self, matrices):
        return matrices.view(self.batch, self.heads, self.rows, matrices.shape[-1])

    def by_group(self, matrices):
        return matrices.reshape(self.batch, self.groups, *matrices.shape[1:])

    def save(self, tensors, matrices, dropped):
        """`tensors` are Q, K and V as they were given, `matrices` the same in f32, and `dropped` the probabilities."""
        return tensors

    def restored(self, saved, which):
        return self.queries(saved[which]) if which == 0 else self.keys(saved[which])

    def of_probabilities(self, saved, doutput):
        return torch.bmm(doutput, self.restored(saved, 2).transpose(1, 2))

    def of_operands(self, saved, dscores, needs_query, needs_key):
        dquery = torch.bmm(dscores, self.restored(saved, 1)) if needs_query else None
        dkey = torch.bmm(dscores.transpose(1, 2), self.restored(saved, 0)) if needs_key else None
        return dquery, dkey


class Packed(Whole):
    def save(self, tensors, matrices, dropped):
        return [self._pack(matrix) for matrix in matrices]

    def restored(self, saved, which):
        shape, device = self.shapes[which], saved[which].device
        return self._plan(shape, device).restore(saved[which], torch.empty(shape, dtype=torch.float32, device=device))

    def _pack(self, matrix):
        plan = self._plan(matrix.shape, matrix.device)
        return plan.forward(matrix, None, *self.operators.draw(plan))

    def _plan(self, shape, device):
        packing = self.operators.operand_packing
        lying = (shape[0], shape[1] * shape[2])
        return plan_for(devices.device_of(device), lying, torch.float32, "identity", packing=packing)


class Sampled(Whole):
    """Saves a share of the rows of Q and K, and of the channels of V, chosen by the library. dV is computed from
    dropout(P), which the backward pass makes again: so of its rows the product saves one."""

    def save(self, tensors, matrices, dropped):
        q, k, v = matrices
        scores, output = self._plans(q.device)
        return [scores.forward(q, k.transpose(1, 2), self.operators), output.forward(dropped, v, self.operators), None]

    def of_probabilities(self, saved, doutput):
        return self._plans(doutput.device)[1].backward(saved[1], doutput)[0]

    def of_operands(self, saved, dscores, needs_query, needs_key):
        dquery, dkey = self._plans(dscores.device)[0].backward(saved[0], dscores)
        return dquery if needs_query else None, dkey.transpose(1, 2) if needs_key else None

    def _plans(self, device):
        (matrices, rows, channels), (_, keys, of_values) = self.shapes[0], self.shapes[2]
        share, bits = self.operators.tensor_mul, self.operators.operand_packing
        device = devices.device_of(device)
        return (
            product_for(device, (1, matrices, rows, channels, keys), share, share, bits),
            # The smallest budget for V's gradient, which is not used here.
            product_for(device, (1, matrices, rows, keys, of_values), share, 1, bits),
        )


@functools.lru_cache(maxsize=256)
def product_for(device, shape, left, right, bits):
    return Product(device, shape, left, right, bits)


class Product:
    """A batched product's passes on tensors."""

    def __init__(self, device, shape, left, right, bits):
        self.device, self.shape = device, shape
        self.native = TensorMulPlan(device.context, shape, left=left, right=right, bits=bits)

    def forward(self, a, b, operators):
        saved = self.device.memory(self.native.saved_bytes)
        scratch = self.device.memory(self.native.forward_scratch_bytes)
        if self.device.on_gpu:
            # A GPU reads columns of B.
            b = b.transpose(1, 2).contiguous().transpose(1, 2)
        operands = self.device.matrix(a[None]), self.device.matrix(b[None])
        key, offset = operators.randomness.key, operators.randomness.advance(self.native.draws)
        try:
            with self.device.current():
                self.native.forward(*operands, key, offset, address(saved), address(scratch), self.device.stream())
        except Error as error:
            # The gradients are then NaN, as torch's are.
            if error.status != _native.INVALID_WEIGHTS or all(torch.isfinite(each).all() for each in (a, b)):
                raise
            _native.mark_refused(address(saved))
        return saved

    def backward(self, saved, g):
        _, matrices, rows, inner, columns = self.shape
        made = {"dtype": torch.float32, "device": g.device}
        da, db = torch.empty(matrices, rows, inner, **made), torch.empty(matrices, inner, columns, **made)
        if not self.device.on_gpu and _native.is_refused(address(saved)):
            return da.fill_(torch.nan), db.fill_(torch.nan)
        scratch = self.device.memory(self.native.backward_scratch_bytes)
        places = address(saved), address(g.contiguous()), address(da), address(db), address(scratch)
        with self.device.current():
            self.native.backward(*places, self.device.stream())
        return da, db
