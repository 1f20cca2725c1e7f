"""`_native.OperatorPlan`: every operation beside NumPy in float64, what it saves, and what it refuses."""

import math
import unittest

import numpy as np

from wtacrs import _native

ROWS, COLUMNS = 24, 200
SHAPE = (ROWS, COLUMNS)
ACTIVATIONS = ("relu", "gelu", "gelu-tanh", "silu")
NORMS = ("layer-norm", "rms-norm")
TYPES = {"float32": np.float32, "float16": np.float16}


def memory(size):
    """Bytes that are aligned as saved memory is."""
    room = np.zeros(size + 64, np.uint8)
    return room[-room.ctypes.data % 64 :][:size]


def address(array):
    return None if array is None else array.ctypes.data


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def activation(name, x):
    """Its value and its slope."""
    if name == "relu":
        return np.maximum(x, 0), (x > 0).astype(x.dtype)
    if name == "gelu":
        normal = 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
        return x * normal, normal + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    if name == "gelu-tanh":
        c = math.sqrt(2 / math.pi)
        t = np.tanh(c * (x + 0.044715 * x**3))
        return 0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x)
    return x * sigmoid(x), sigmoid(x) * (1 + x * (1 - sigmoid(x)))


class Reference:
    """An operator without dropout in float64: y, and gradients by their names."""

    def __init__(self, operation, gated, arrays, epsilon=1e-5):
        x, dy = (arrays[name].astype(np.float64) for name in ("x", "dy"))
        gate, weight, bias = (arrays[name].astype(np.float64) for name in ("gate", "weight", "bias"))
        self.found = {}
        if operation == "identity":
            self.y, self.found["dx"] = x, dy
        elif operation in ACTIVATIONS:
            value, slope = activation(operation, x)
            self.y = value * gate if gated else value
            self.found["dx"] = dy * slope * (gate if gated else 1)
            if gated:
                self.found["dgate"] = dy * value
        elif operation == "softmax":
            e = np.exp(x - x.max(1, keepdims=True))
            self.y = p = e / e.sum(1, keepdims=True)
            self.found["dx"] = p * (dy - (p * dy).sum(1, keepdims=True))
        else:
            centred = x - x.mean(1, keepdims=True) if operation == "layer-norm" else x
            inverse = 1 / np.sqrt((centred**2).mean(1, keepdims=True) + epsilon)
            normed, g = centred * inverse, dy * weight
            self.y = normed * weight + (bias if operation == "layer-norm" else 0)
            mean = g.mean(1, keepdims=True) if operation == "layer-norm" else 0
            self.found["dx"] = inverse * (g - mean - normed * (g * normed).mean(1, keepdims=True))
            self.found["dweight"] = (dy * normed).sum(0)
            if operation == "layer-norm":
                self.found["dbias"] = dy.sum(0)


class Run:
    """A forward and a backward pass, with what the plan asks for and nothing else."""

    def __init__(self, plan, arrays, operation, gated, seed=1, offset=0, in_place=False):
        gate = arrays["gate"] if gated else None
        weight = arrays["weight"] if operation in NORMS else None
        bias = arrays["bias"] if operation == "layer-norm" else None
        x, dy = arrays["x"].copy(), arrays["dy"].copy()
        self.y = x if in_place else np.zeros_like(x)
        self.saved = memory(plan.saved_bytes)
        saved = address(self.saved) if plan.saved_bytes else None
        plan.forward(address(x), address(gate), address(weight), address(bias), address(self.y), seed, offset, saved)
        self.found = {"dx": dy if in_place else np.zeros_like(x)}
        self.found |= {"dgate": np.zeros_like(x)} if gated else {}
        self.found |= {"dweight": np.zeros_like(weight)} if weight is not None else {}
        self.found |= {"dbias": np.zeros_like(bias)} if bias is not None else {}
        gradients = [address(self.found.get(name)) for name in ("dx", "dgate", "dweight", "dbias")]
        scratch = memory(plan.backward_scratch_bytes)
        plan.backward(
            address(arrays["x"]) if plan.keeps_input else None,
            address(gate) if plan.keeps_gate else None,
            address(self.y) if plan.keeps_output else None,
            address(weight),
            address(dy),
            *gradients,
            saved,
            address(scratch),
        )


class Operators(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.context = _native.Context("cpu")
        generator = np.random.default_rng(5)
        cls.arrays = {name: generator.normal(size=SHAPE).astype(np.float32) for name in ("x", "gate", "dy")}
        cls.arrays |= {name: generator.normal(size=COLUMNS).astype(np.float32) for name in ("weight", "bias")}

    def plan(self, operation, shape=SHAPE, **settings):
        return _native.OperatorPlan(self.context, shape, operation=operation, **settings)

    def kinds(self):
        for operation in _native.OPERATIONS:
            for gated in (False, True) if operation in ACTIVATIONS else (False,):
                yield operation, gated

    def test_native_operators_are_exact(self):
        for dtype, kind in TYPES.items():
            arrays = {name: array.astype(kind) if array.ndim == 2 else array for name, array in self.arrays.items()}
            tolerance = {"float32": 2e-5, "float16": 4e-3}[dtype]
            for operation, gated in self.kinds():
                with self.subTest(operation=operation, gated=gated, dtype=dtype):
                    plan = self.plan(operation, gated=gated, dtype=dtype)
                    expected = Reference(operation, gated, arrays)
                    run = Run(plan, arrays, operation, gated)
                    self.assertEqual(plan.draws, 0)
                    np.testing.assert_allclose(run.y, expected.y, rtol=tolerance, atol=tolerance)
                    self.assertEqual(run.found.keys(), expected.found.keys())
                    for name, found in run.found.items():
                        np.testing.assert_allclose(found, expected.found[name], rtol=tolerance, atol=10 * tolerance)

    def test_packed_operators_are_exact_on_average(self):
        draws = 64
        for operation, gated in self.kinds():
            for bits in (8, 4, 2):
                with self.subTest(operation=operation, gated=gated, bits=bits):
                    plan = self.plan(operation, gated=gated, packing=bits)
                    expected = Reference(operation, gated, self.arrays)
                    self.assertEqual((plan.keeps_input, plan.keeps_gate, plan.keeps_output), (False,) * 3)
                    runs = [Run(plan, self.arrays, operation, gated, offset=i * plan.draws) for i in range(draws)]
                    np.testing.assert_allclose(runs[0].y, expected.y, rtol=2e-5, atol=2e-5)
                    for name, exact in expected.found.items():
                        found = np.array([run.found[name] for run in runs], np.float64)
                        error = lambda a: np.linalg.norm(a - exact) / np.linalg.norm(exact)
                        one, mean = np.mean([error(a) for a in found]), error(found.mean(0))
                        # The mean of 64 draws has an eighth of the error, but for rounding.
                        self.assertLess(mean, 0.2 * one + 1e-6, name)
                        self.assertLess(one, {8: 0.02, 4: 0.3, 2: 1.5}[bits], name)

    def test_what_is_saved_and_kept(self):
        # Behind the header.
        words = lambda plan: plan.saved_bytes // 4 - 16 if plan.saved_bytes else None
        # Groups of 128 and 72 columns, the latter padded to 128.
        codes, grids = 2 * 128 * ROWS, 2 * ROWS
        expected = {
            ("identity", False): (None, codes + 4 * grids, (0, 0, 0)),
            ("relu", False): (7 * ROWS * 4, 7 * ROWS * 4, (0, 0, 0)),
            ("softmax", False): (None, codes + 4 * grids, (0, 0, 1)),
            ("layer-norm", False): (8 * ROWS, codes + 4 * grids + 4 * ROWS, (1, 0, 0)),
            ("rms-norm", False): (4 * ROWS, codes + 4 * grids + 4 * ROWS, (1, 0, 0)),
        }
        for name in ACTIVATIONS[1:]:
            expected[name, False] = (None, codes, (1, 0, 0))
        for name in ACTIVATIONS:
            expected[name, True] = (None, 2 * (codes + 4 * grids), (1, 1, 0))
        for (operation, gated), (native, packed, keeps) in expected.items():
            with self.subTest(operation=operation, gated=gated):
                plan = self.plan(operation, gated=gated)
                self.assertEqual(words(plan), None if native is None else native // 4)
                self.assertEqual((plan.keeps_input, plan.keeps_gate, plan.keeps_output), tuple(map(bool, keeps)))
                plan = self.plan(operation, gated=gated, packing=8)
                self.assertEqual(words(plan), packed // 4)
                self.assertEqual(plan.restores, operation in ("identity", "softmax"))

    def test_dropout(self):
        for operation, gated in self.kinds():
            packing = 8 if operation == "softmax" else "native"
            with self.subTest(operation=operation, gated=gated):
                plan = self.plan(operation, gated=gated, packing=packing, dropout=0.25)
                self.assertEqual(plan.draws, ROWS * 50)
                first, second = (
                    Run(plan, self.arrays, operation, gated, seed=3, offset=i * plan.draws) for i in range(2)
                )
                y = Reference(operation, gated, self.arrays).y
                kept = (first.y != 0) | (y == 0)
                np.testing.assert_allclose(first.y, np.where(kept, y / 0.75, 0), rtol=2e-5, atol=2e-5)
                share = kept[y != 0].mean()
                self.assertLess(abs(share - 0.75), 0.06)
                self.assertFalse((first.y == second.y).all())
                if operation not in NORMS and operation != "softmax":
                    self.assertTrue((first.found["dx"][~kept] == 0).all())
        alone = self.plan("identity", dropout=0.5)
        self.assertEqual(alone.saved_bytes, 64)
        run = Run(alone, self.arrays, "identity", False, seed=9)
        np.testing.assert_array_equal(run.found["dx"], np.where(run.y != 0, 2 * self.arrays["dy"], 0))

    def test_in_place_is_the_same(self):
        for operation, gated in self.kinds():
            with self.subTest(operation=operation, gated=gated):
                plan = self.plan(operation, gated=gated, packing=4, dropout=0.1)
                apart, within = (
                    Run(plan, self.arrays, operation, gated, in_place=in_place) for in_place in (False, True)
                )
                np.testing.assert_array_equal(apart.y, within.y)
                np.testing.assert_array_equal(apart.saved, within.saved)
                for name, found in apart.found.items():
                    np.testing.assert_array_equal(found, within.found[name])

    def test_restoring(self):
        for operation, step in (("identity", 0.05), ("softmax", 1e-3)):
            plan = self.plan(operation, packing=8, dropout=0.2)
            run = Run(plan, self.arrays, operation, False)
            y = np.zeros_like(run.y)
            plan.restore(address(run.saved), address(y))
            np.testing.assert_array_equal(y == 0, run.y == 0)
            self.assertLess(abs(y - run.y).max(), step)
            self.assertFalse((y == run.y).all())

    def test_refusals(self):
        arrays = self.arrays
        x, y, saved = address(arrays["x"]), np.zeros_like(arrays["x"]), None
        with self.assertRaisesRegex(_native.Error, "no operation 'swish'; there are identity, relu"):
            self.plan("swish")
        with self.assertRaisesRegex(_native.Error, "no number of bits 16"):
            self.plan("gelu", packing=16)
        with self.assertRaisesRegex(_native.Error, "cannot be gated"):
            self.plan("softmax", gated=True)
        with self.assertRaisesRegex(_native.Error, "dropout probability of 1"):
            self.plan("gelu", dropout=1)
        with self.assertRaisesRegex(_native.Error, "softmax keeps its output"):
            self.plan("softmax", dropout=0.5)
        with self.assertRaisesRegex(_native.Error, "F64"):
            self.plan("gelu", dtype="float64")
        gelu = self.plan("gelu")
        with self.assertRaisesRegex(_native.Error, "gate was given"):
            gelu.forward(x, x, None, None, address(y), 0, 0, saved)
        with self.assertRaisesRegex(_native.Error, "y shares memory with x"):
            gelu.forward(x, None, None, None, x + 4, 0, 0, saved)
        with self.assertRaisesRegex(_native.Error, "x is NULL"):
            gelu.backward(None, None, None, None, x, address(y), None, None, None, saved, None)
        with self.assertRaisesRegex(_native.Error, "cannot be restored"):
            gelu.restore(saved, address(y))
        packed, other = self.plan("gelu", packing=8), self.plan("silu", packing=8)
        saved = memory(packed.saved_bytes)
        packed.forward(x, None, None, None, address(y), 0, 0, address(saved))
        with self.assertRaisesRegex(_native.Error, "another operator's: Gelu of 24 x 200 elements"):
            other.backward(None, None, None, None, x, address(y), None, None, None, address(saved), None)


if __name__ == "__main__":
    unittest.main()
