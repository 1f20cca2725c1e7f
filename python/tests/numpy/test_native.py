"""`_native`: what it knows of the header, predictors, and DLPack's capsules."""

import ctypes
import pathlib
import re
import unittest
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import wtacrs
from wtacrs import _native

ROOT = pathlib.Path(__file__).parents[3]


class Header:
    """The declarations of wtacrs.h, with the types that ctypes has for them."""

    def __init__(self):
        text = (ROOT / "crates/wtacrs-ffi/include/wtacrs.h").read_text()
        self.text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
        self.constants = {name: int(number) for name, number in re.findall(r"#define (WTACRS_\w+) (\d+)\n", self.text)}
        self.enumerations = {
            name: {member: int(number) for member, number in re.findall(r"(\w+) = (\d+)", body)}
            for name, body in re.findall(r"typedef enum (\w+) \{(.*?)\}", self.text, re.DOTALL)
        }
        self.scalars = dict.fromkeys(self.enumerations, ctypes.c_int32) | {
            "size_t": ctypes.c_size_t,
            "double": ctypes.c_double,
            "int32_t": ctypes.c_int32,
            "wtacrs_status": ctypes.c_int32,
            "uint32_t": ctypes.c_uint32,
            "uint64_t": ctypes.c_uint64,
        }

    def variable(self, declaration):
        """Name and type of a field or an argument, such as `const float *norms`."""
        kind, name = re.fullmatch(r"\s*(.*\W)(\w+)\s*", declaration, re.DOTALL).groups()
        return name, ctypes.c_void_p if "*" in kind else self.scalars[kind.strip()]

    def arguments(self, function):
        words = re.search(rf"\b{function}\(([^)]*)\);", self.text).group(1)
        return [] if words == "void" else [self.variable(word)[1] for word in words.split(",")]

    def struct(self, name):
        body = re.search(rf"typedef struct {name} \{{(.*?)\}} {name};", self.text, re.DOTALL).group(1)
        fields = [self.variable(declaration) for declaration in body.split(";")[:-1]]
        return type(name, (ctypes.Structure,), {"_fields_": fields})


class Interface(unittest.TestCase):
    """What `_native` knows of the C interface is what the header says."""

    @classmethod
    def setUpClass(cls):
        cls.header = Header()

    def test_arguments_of_functions(self):
        for name, function in vars(_native._c).items():
            with self.subTest(name=name):
                found = [ctypes.c_void_p if a is ctypes.c_char_p else a for a in function.argtypes]
                self.assertEqual(found, self.header.arguments(f"wtacrs_{name}"))

    def test_fields_of_structs(self):
        structs = _native._Struct.__subclasses__()
        self.assertGreater(len(structs), 0)
        for struct in structs:
            words = re.findall("[A-Z][a-z]+", struct.__name__)
            expected = self.header.struct("_".join(["wtacrs", *words]).lower())
            with self.subTest(name=expected.__name__):
                self.assertEqual(struct._fields_, expected._fields_)
                places = [
                    [(name, getattr(layout, name).offset, getattr(layout, name).size) for name, _ in layout._fields_]
                    for layout in (struct, expected)
                ]
                self.assertEqual(*places)
                self.assertEqual(ctypes.sizeof(struct), ctypes.sizeof(expected))
                self.assertEqual((struct._fields_[0][0], struct().size), ("size", ctypes.sizeof(expected)))

    def test_members_of_enumerations(self):
        short = {"FLOAT32": "F32", "FLOAT16": "F16", "BFLOAT16": "BF16", "FLOAT64": "F64"}
        short |= {str(bits): f"BITS{bits}" for bits in (8, 4, 2)}
        for kind, table in {
            "device": _native.DEVICES,
            "dtype": _native.DTYPES,
            "design": _native.DESIGNS,
            "source": _native.SOURCES,
            "budget": _native.BUDGETS,
            "precision": _native.PRECISIONS,
            "axis": _native.AXES,
            "side": _native.SIDES,
            "packing": _native.PACKINGS,
            "operation": _native.OPERATIONS,
        }.items():
            with self.subTest(kind=kind):
                names = {name: str(name).upper().replace("-", "_") for name in table}
                members = {short.get(names[name], names[name]): number for name, number in table.items()}
                # As wide as the integers that functions take.
                members["FORCE_32_BITS"] = 2**31 - 1
                expected = {f"WTACRS_{kind.upper()}_{name}": number for name, number in members.items()}
                self.assertEqual(self.header.enumerations[f"wtacrs_{kind}"], expected)

    def test_constants(self):
        self.assertEqual(self.header.constants["WTACRS_ABI_VERSION"], _native.ABI_VERSION)
        self.assertEqual(self.header.constants["WTACRS_STATUS_OK"], 0)

    def test_threads_fill_options_of_their_own(self):
        addresses = lambda: [ctypes.addressof(struct) for struct in vars(_native._options).values()]
        with ThreadPoolExecutor(1) as thread:
            self.assertFalse(set(addresses()) & set(thread.submit(addresses).result()))

    def test_the_packages_version_is_the_librarys(self):
        self.assertEqual(wtacrs.__version__, _native.version())


class Predictors(unittest.TestCase):
    def setUp(self):
        self.context = _native.Context("cpu")

    def test_default_settings_are_the_librarys(self):
        settings = _native.PredictorSettings()
        without, given = _native.NormPredictor(self.context, 5), _native.NormPredictor(self.context, 5, settings)
        self.assertEqual(without.save(), given.save())
        other = _native.NormPredictor(self.context, 5, settings._replace(seed=1))
        self.assertNotEqual(without.save(), other.save())

    def test_a_setting_of_zero_is_not_the_default(self):
        for name in ("features", "forgetting", "ridge", "clamp", "rows_per_update"):
            settings = _native.PredictorSettings()._replace(**{name: 0})
            with self.assertRaisesRegex(_native.Error, f"{name} is 0"):
                _native.NormPredictor(self.context, 5, settings)


class Capsule:
    """Something that NumPy takes a capsule from."""

    def __init__(self, capsule):
        self.capsule = capsule

    def __dlpack__(self, **_):
        return self.capsule

    def __dlpack_device__(self):
        return 1, 0


class Capsules(unittest.TestCase):
    def setUp(self):
        self.x = np.arange(6, dtype=np.float32).reshape(2, 3)
        self.context = _native.Context("cpu")

    def norms(self, capsule):
        norms = np.zeros(2, np.float32)
        self.context.row_norms(_native.Tensor(capsule), norms.ctypes.data, 2)
        return norms

    def test_with_a_version_and_without(self):
        fixed = self.x.copy()
        fixed.flags.writeable = False
        expected = np.linalg.norm(self.x, axis=1)
        for capsule in (
            self.x.__dlpack__(),
            self.x.__dlpack__(max_version=(1, 0)),
            # NumPy gives read-only arrays with a version alone.
            fixed.__dlpack__(max_version=(1, 0)),
        ):
            np.testing.assert_allclose(self.norms(capsule), expected, rtol=1e-6)

    def test_read_only_outputs_are_refused(self):
        tokens, in_features, out_features = 8, 16, 4
        plan = _native.LayerPlan(
            self.context, (tokens, in_features, out_features), budget=1.0, design="wta-pivotal", source="input"
        )
        h, dz = np.ones((tokens, in_features), np.float32), np.ones((tokens, out_features), np.float32)
        dw = np.zeros((in_features, out_features), np.float32)
        tensor = lambda array: _native.Tensor(array.__dlpack__(max_version=(1, 0)))
        saved, scratch = (np.zeros(count + 64, np.uint8) for count in (plan.saved_bytes, plan.backward_scratch_bytes))
        aligned = lambda block: block.ctypes.data + -block.ctypes.data % 64
        plan.forward(tensor(h), None, None, 1, 0, aligned(saved), None)
        backward = lambda: plan.backward(aligned(saved), tensor(dz), tensor(dw), None, None, aligned(scratch))
        for array in (h, dz, dw):
            array.flags.writeable = False
        with self.assertRaisesRegex(_native.Error, "dw is read-only"):
            backward()
        self.assertFalse(dw.any())
        # Inputs may be.
        dw.flags.writeable = True
        backward()
        np.testing.assert_allclose(dw, h.T @ dz, rtol=1e-6)

    def test_used_capsules_are_refused(self):
        for options in ({}, {"max_version": (1, 0)}):
            used = self.x.__dlpack__(**options)
            np.from_dlpack(Capsule(used))
            with self.assertRaisesRegex(_native.Error, "used_dltensor"):
                _native.Tensor(used)

    def test_other_versions_are_refused(self):
        capsule = self.x.__dlpack__(max_version=(1, 0))
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        major = ctypes.c_uint32.from_address(get(capsule, b"dltensor_versioned"))
        major.value = 2
        with self.assertRaisesRegex(_native.Error, "version 2"):
            _native.Tensor(capsule)
        major.value = 1


if __name__ == "__main__":
    unittest.main()
