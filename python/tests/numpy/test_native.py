"""`_native`: its table against the header, what an import without the library says, and DLPack's capsules."""

import ctypes
import os
import pathlib
import re
import subprocess
import sys
import unittest

import numpy as np

import wtacrs
from wtacrs import _native

ROOT = pathlib.Path(__file__).parents[3]


class Functions(unittest.TestCase):
    def test_arguments_are_the_headers(self):
        header = (ROOT / "crates/wtacrs-ffi/include/wtacrs.h").read_text()
        scalars = {
            "size_t": ctypes.c_size_t,
            "double": ctypes.c_double,
            "int32_t": ctypes.c_int32,
            "wtacrs_status": ctypes.c_int32,
            "uint32_t": ctypes.c_uint32,
            "uint64_t": ctypes.c_uint64,
        }
        for name, function in vars(_native._c).items():
            with self.subTest(name=name):
                words = re.search(rf"\bwtacrs_{name}\(([^)]*)\);", header).group(1)
                arguments = [] if words == "void" else words.split(",")
                # A pointer's star stands before its name, and a scalar's type too.
                expected = [ctypes.c_void_p if "*" in a else scalars[a.split()[-2]] for a in arguments]
                found = [ctypes.c_void_p if a is ctypes.c_char_p else a for a in function.argtypes]
                self.assertEqual(found, expected)

    def test_enumerations_are_the_headers(self):
        header = (ROOT / "crates/wtacrs-ffi/include/wtacrs.h").read_text()
        defined = {name: int(value) for name, value in re.findall(r"#define WTACRS_(\w+) (\d+)\n", header)}
        short = {"FLOAT32": "F32", "FLOAT16": "F16", "BFLOAT16": "BF16", "FLOAT64": "F64"}
        for table, prefix in (
            (_native.DEVICES, ""),
            (_native.DTYPES, ""),
            (_native.DESIGNS, ""),
            (_native.SOURCES, "SOURCE_"),
            (_native.PRECISIONS, "PRECISION_"),
        ):
            for name, value in table.items():
                name = name.upper().replace("-", "_")
                self.assertEqual(defined[prefix + short.get(name, name)], value, name)
        self.assertEqual(defined["ABI_VERSION"], _native.ABI_VERSION)

    def test_the_packages_version_is_the_librarys(self):
        self.assertEqual(wtacrs.__version__, _native.version())


class Import(unittest.TestCase):
    def refusal(self, library=None, before=""):
        environment = {k: v for k, v in os.environ.items() if k != "WTACRS_LIBRARY"}
        environment |= {"PYTHONPATH": str(ROOT / "python")} | ({} if library is None else {"WTACRS_LIBRARY": library})
        run = subprocess.run(
            [sys.executable, "-c", f"{before}\nimport wtacrs\nimport wtacrs.numpy"],
            env=environment,
            capture_output=True,
            text=True,
        )
        last = run.stderr.strip().splitlines()[-1]
        self.assertTrue(last.startswith("ImportError"), run.stderr)
        return last

    def test_no_library_names_the_variable(self):
        nowhere = "import ctypes.util; ctypes.util.find_library = lambda name: None"
        self.assertIn("set WTACRS_LIBRARY to its path", self.refusal(before=nowhere))

    def test_a_path_that_is_not_there(self):
        words = self.refusal("/nowhere/libwtacrs.so")
        self.assertIn("/nowhere/libwtacrs.so", words)
        self.assertIn("WTACRS_LIBRARY", words)

    def test_another_library(self):
        words = self.refusal("libc.so.6")
        self.assertIn("has no wtacrs_abi_version", words)
        self.assertIn("WTACRS_LIBRARY", words)


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
