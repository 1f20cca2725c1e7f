"""What an import loads, and what it says if something is missing: libraries, their versions, and frameworks."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import wtacrs
from wtacrs import _native

PACKAGE = pathlib.Path(wtacrs.__file__).parent
NO_LIBRARY = "import ctypes.util; ctypes.util.find_library = lambda name: None"


class Import(unittest.TestCase):
    """Each test imports a copy of the package, which contains no library unless the test puts one there."""

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.package = self.folder / "wtacrs"
        shutil.copytree(PACKAGE, self.package, ignore=shutil.ignore_patterns("lib", "__pycache__"))

    def run_python(self, code, library=None):
        environment = {k: v for k, v in os.environ.items() if k not in ("WTACRS_LIBRARY", "PYTHONPATH")}
        environment |= {"PYTHONPATH": str(self.folder)} | ({} if library is None else {"WTACRS_LIBRARY": library})
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    def refusal(self, code, library=None):
        run = self.run_python(code, library)
        last = run.stderr.strip().splitlines()[-1]
        self.assertTrue(last.startswith("ImportError"), run.stderr)
        return last

    def loaded(self, library=None):
        """The path of the library that is loaded."""
        run = self.run_python("import wtacrs.numpy; print(wtacrs._native.LIBRARY)", library)
        self.assertEqual(run.returncode, 0, run.stderr)
        return run.stdout.strip()

    def put_library(self):
        path = self.package / "lib" / "libwtacrs.so"
        path.parent.mkdir()
        path.symlink_to(pathlib.Path(_native.LIBRARY).resolve())
        return str(path)

    def test_the_packages_own_library(self):
        self.assertEqual(self.put_library(), self.loaded())

    def test_the_variable_comes_first(self):
        self.put_library()
        self.assertEqual(self.loaded(_native.LIBRARY), _native.LIBRARY)
        self.assertIn("libc.so.6 has no wtacrs_abi_version", self.refusal("import wtacrs.numpy", "libc.so.6"))

    def test_the_packages_own_library_has_its_version(self):
        self.put_library()
        door = self.package / "__init__.py"
        door.write_text(door.read_text().replace(wtacrs.__version__, "0.0.9"))
        words = self.refusal("import wtacrs.numpy")
        self.assertIn(f"has version {wtacrs.__version__}, and this package 0.0.9", words)
        self.assertIn("WTACRS_LIBRARY", words)
        self.loaded(_native.LIBRARY)

    def test_no_library_names_the_variable(self):
        words = self.refusal(f"{NO_LIBRARY}\nimport wtacrs.numpy")
        self.assertIn("set WTACRS_LIBRARY to its path", words)
        self.assertIn("pip install", words)

    def test_the_package_itself_needs_no_library(self):
        run = self.run_python(f"{NO_LIBRARY}\nimport wtacrs; print(wtacrs.__version__)")
        self.assertEqual(run.stdout.strip(), wtacrs.__version__, run.stderr)

    def test_a_path_that_is_not_there(self):
        words = self.refusal("import wtacrs.numpy", "/nowhere/libwtacrs.so")
        self.assertIn("/nowhere/libwtacrs.so", words)
        self.assertIn("WTACRS_LIBRARY", words)

    def test_another_library(self):
        words = self.refusal("import wtacrs.numpy", "libc.so.6")
        self.assertIn("has no wtacrs_abi_version", words)
        self.assertIn("WTACRS_LIBRARY", words)

    def test_a_missing_framework_names_the_extra(self):
        for module, framework in (
            ("numpy", "numpy"),
            ("jax", "jax"),
            ("jax.build", "jax"),
            ("record", "safetensors"),
            ("torch", "torch"),
        ):
            with self.subTest(module=module):
                code = f"import sys; sys.modules[{framework!r}] = None\nimport wtacrs.{module}"
                words = self.refusal(code, _native.LIBRARY)
                extra = module.partition(".")[0]
                self.assertIn(f"wtacrs.{extra} requires {framework}", words)
                self.assertIn(f"pip install './python[{extra}]'", words)


if __name__ == "__main__":
    unittest.main()
