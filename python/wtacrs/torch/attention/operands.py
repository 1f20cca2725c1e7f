"""What attention's two products save of Q, K and V: all rows as they are, all rows packed, or samples.

    S = scaling · Q Kᵀ:    dQ = scaling · dS K,  dK = scaling · dSᵀ Q
    O = P V:               dP = dO Vᵀ

`drawing` lists the plans that draw, and `save` takes the seed and the offset of each. It returns three tensors for the
graph. Matrices are f32, one for each key head of each sequence.
"""

from __future__ import annotations

import functools
import typing

import torch

from ... import _native
from ..._native import Error, TensorMulPlan
from ..devices import address
from ..operators.passes import plan_for


class Sizes(typing.NamedTuple):
    """Queries are batch x heads x rows x channels, keys batch x groups x keys x channels, and values batch x groups x
    keys x values."""

    batch: int
    heads: int
    groups: int
    rows: int
    keys: int
    channels: int
    values: int

    @classmethod
    def of(cls, query, key, value):
        batch, heads, rows, channels = query.shape
        return cls(batch, heads, key.shape[1], rows, key.shape[2], channels, value.shape[3])


def operands_of(form, sizes, device):
    """`form` is how attention saves, and `device` the library's."""
    kind = Sampled if form.tensor_mul is not None else Packed if form.packs else Whole
    return kind(form, sizes, device)


class Whole:
    """Saves Q, K and V as they are. Query heads that share a key head are rows of one matrix: so no key is repeated,
    and the gradients of K and V are sums over these heads."""

    whole, drawing = True, ()

    def __init__(self, form, sizes, device):
        self.form, self.device = form, device
        self.batch, self.heads, self.groups, self.rows, keys, channels, values = sizes
        matrices = self.batch * self.groups
        of_queries = (matrices, self.heads // self.groups * self.rows, channels)
        self.shapes = of_queries, (matrices, keys, channels), (matrices, keys, values)

    def queries(self, tensor):
        rows = self.heads // self.groups * self.rows
        return tensor.reshape(self.batch * self.groups, rows, tensor.shape[-1]).float().contiguous()

    def keys(self, tensor):
        return tensor.reshape(self.batch * self.groups, *tensor.shape[2:]).float().contiguous()

    def by_head(self, matrices):
        return matrices.view(self.batch, self.heads, self.rows, matrices.shape[-1])

    def by_group(self, matrices):
        return matrices.reshape(self.batch, self.groups, *matrices.shape[1:])

    def save(self, matrices, dropped, draws):
        """`matrices` are Q, K and V, and `dropped` the probabilities. None stands for an operand that the graph saves
        as it was given."""
        return None, None, None

    def restored(self, saved, which):
        return self.queries(saved[which]) if which == 0 else self.keys(saved[which])

    def of_probabilities(self, saved, doutput):
        return torch.bmm(doutput, self.restored(saved, 2).transpose(1, 2))

    def of_operands(self, saved, dscores, needs_query, needs_key):
        dquery = torch.bmm(dscores, self.restored(saved, 1)) if needs_query else None
        dkey = torch.bmm(dscores.transpose(1, 2), self.restored(saved, 0)) if needs_key else None
        return dquery, dkey


class Packed(Whole):
    whole = False

    def __init__(self, form, sizes, device):
        super().__init__(form, sizes, device)
        self.drawing = [
            plan_for(device, (n, rows * columns), torch.float32, "identity", packing=form.operand_packing)
            for n, rows, columns in self.shapes
        ]

    def save(self, matrices, dropped, draws):
        return [
            plan.forward(matrix, None, *draw) for plan, matrix, draw in zip(self.drawing, matrices, draws, strict=True)
        ]

    def restored(self, saved, which):
        made = torch.empty(self.shapes[which], dtype=torch.float32, device=self.device.torch_device)
        return self.drawing[which].restore(saved[which], made)


class Sampled(Whole):
    """Saves a share of the rows of Q and K, and of the channels of V, chosen by the library. dV is computed from
    dropout(P), which the backward pass makes again: so of its rows the product saves one."""

    whole = False

    def __init__(self, form, sizes, device):
        super().__init__(form, sizes, device)
        (matrices, rows, channels), (_, keys, values) = self.shapes[0], self.shapes[2]
        share, bits, engine = form.tensor_mul, form.operand_packing, form.engine
        self.drawing = [
            product_for(device, (1, matrices, rows, channels, keys), share, share, bits, engine),
            # The smallest budget for V's gradient, which is not used here.
            product_for(device, (1, matrices, rows, keys, values), share, 1, bits, engine),
        ]

    def save(self, matrices, dropped, draws):
        q, k, v = matrices
        (scores, output), (of_scores, of_output) = self.drawing, draws
        return scores.forward(q, k.transpose(1, 2), *of_scores), output.forward(dropped, v, *of_output), None

    def of_probabilities(self, saved, doutput):
        return self.drawing[1].backward(saved[1], doutput)[0]

    def of_operands(self, saved, dscores, needs_query, needs_key):
        dquery, dkey = self.drawing[0].backward(saved[0], dscores)
        return dquery if needs_query else None, dkey.transpose(1, 2) if needs_key else None


@functools.lru_cache(maxsize=256)
def product_for(device, shape, left, right, bits, engine):
    return Product(device, shape, left, right, bits, engine)


class Product:
    """A batched product's passes on tensors."""

    def __init__(self, device, shape, left, right, bits, engine):
        self.device, self.shape = device, shape
        self.native, self.captured = device.plans(
            lambda further_offset: TensorMulPlan(
                device.context,
                shape,
                left=left,
                right=right,
                bits=bits,
                engine=engine,
                further_offset=further_offset,
            )
        )
        self.draws, self.saved_bytes, self.dropout = self.native.draws, self.native.saved_bytes, 0.0

    def forward(self, a, b, seed, offset):
        saved = self.device.memory(self.saved_bytes)
        scratch = self.device.memory(self.native.forward_scratch_bytes)
        if self.device.on_gpu:
            # A GPU reads columns of B.
            b = b.transpose(1, 2).contiguous().transpose(1, 2)
        operands = self.device.matrix(a[None]), self.device.matrix(b[None])
        native, seed, offset = self.device.drawing(self, seed, offset)
        try:
            with self.device.current():
                native.forward(*operands, seed, offset, address(saved), address(scratch), self.device.stream())
        except Error as error:
            # The gradients are then NaN, as torch's are.
            if error.status != _native.INVALID_WEIGHTS or all(torch.isfinite(each).all() for each in (a, b)):
                raise
            _native.mark_refused(address(saved))
        self.device.drawn(self)
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
