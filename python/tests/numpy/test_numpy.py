"""Selections that every client reproduces to the bit, and the weight gradient of a recorded layer."""

import json
import pathlib
import struct
import unittest

import numpy as np

from wtacrs.numpy import Error, Linear, row_norms, select

TESTDATA = pathlib.Path(__file__).parents[3] / "testdata"


def read_layer(file):
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]

    def matrix(name):
        begin, end = header[name]["data_offsets"]
        return np.frombuffer(body[begin:end], np.float32).reshape(header[name]["shape"])

    return matrix("h"), matrix("dz")


class Selections(unittest.TestCase):
    def test_recorded_selections_to_the_bit(self):
        cases = 0
        for problem in json.loads((TESTDATA / "vectors" / "selections.json").read_text())["problems"]:
            for case in problem["cases"]:
                with self.subTest(problem=problem["name"], case=case):
                    found = select(
                        problem["weights"],
                        case["budget"],
                        design=case["design"],
                        seed=case["seed"],
                        offset=case["offset"],
                        item=case["stream"],
                    )
                    self.assertEqual(found.indices.tolist(), case["indices"])
                    self.assertEqual(found.scales.tolist(), case["scales"])
                    self.assertEqual(found.winners, case["winners"])
                cases += 1
        self.assertGreater(cases, 0)

    def test_refusals_name_what_is_wrong(self):
        with self.assertRaisesRegex(Error, "no design 'wta'; there are uniform, "):
            select([1, 2, 3], 2, design="wta", seed=1)
        with self.assertRaisesRegex(Error, "norm 1 is NaN"):
            select([1, np.nan, 3], 2, seed=1)
        with self.assertRaisesRegex(Error, "budget"):
            select([1, 2, 3], 4, seed=1)


class RecordedLayer(unittest.TestCase):
    def setUp(self):
        self.h, self.dz = read_layer(TESTDATA / "minilm_l3_value_imdb_1024.safetensors")
        self.exact = self.h.T.astype(np.float64) @ self.dz
        self.shape = len(self.h), self.h.shape[1], self.dz.shape[1]

    def error(self, dw):
        return np.linalg.norm(dw - self.exact) / np.linalg.norm(self.exact)

    def test_an_estimate_with_exact_norms(self):
        layer = Linear(*self.shape, budget=307, source="norms", bits="native")
        # dz is handed over transposed, by its strides.
        dz = np.asfortranarray(self.dz)
        saved = layer.forward(self.h, row_norms(dz), seed=42)
        self.assertLess(saved.nbytes, 0.32 * self.h.nbytes)
        self.assertLess(self.error(saved.backward(dz)), 0.14)

    def test_a_budget_of_all_is_exact(self):
        for dtype, bound in (("float32", 1e-6), ("float64", 1e-14)):
            h, dz = self.h.astype(dtype), self.dz.astype(dtype)
            saved = Linear(*self.shape, budget=1.0, bits="native", dtype=dtype).forward(h, seed=1)
            dw = saved.backward(dz)
            self.assertEqual(dw.dtype, dtype)
            self.assertLess(self.error(dw), bound)

    def test_packed_rows(self):
        """In 4 bits unless asked otherwise. Where all are packed, norms play no part."""
        norms = row_norms(self.dz)
        share = lambda saved: saved.nbytes / self.h.nbytes
        saved = Linear(*self.shape, budget=0.3, source="norms").forward(self.h, norms, seed=42)
        self.assertLess(share(saved), 0.045)
        self.assertLess(self.error(saved.backward(self.dz)), 0.15)
        for bits, bytes_most, error_most in ((8, 0.26, 0.003), (4, 0.135, 0.045), (2, 0.072, 0.22)):
            saved = Linear(*self.shape, budget=1.0, bits=bits).forward(self.h, seed=3)
            self.assertLess(share(saved), bytes_most)
            dw = saved.backward(self.dz)
            self.assertLess(self.error(dw), error_most)
            same, other = (Linear(*self.shape, budget=1.0, bits=bits).forward(self.h, seed=seed) for seed in (3, 4))
            self.assertTrue((same.backward(self.dz) == dw).all())
            self.assertFalse((other.backward(self.dz) == dw).all())

    def test_other_bits_are_refused(self):
        with self.assertRaisesRegex(Error, "no number of bits 3; there are native, 8, 4, 2"):
            Linear(*self.shape, budget=0.3, bits=3)

    def test_norms_of_another_length_are_refused(self):
        with self.assertRaisesRegex(Error, "1023"):
            Linear(*self.shape, budget=0.3, source="cached").forward(self.h, row_norms(self.dz[1:]), seed=1)


if __name__ == "__main__":
    unittest.main()
