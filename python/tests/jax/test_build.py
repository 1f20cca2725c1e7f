"""`wtacrs.jax.build`: where it puts the handlers that it compiles, and what it says if it cannot."""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

import wtacrs.jax
from wtacrs import _native
from wtacrs.jax import build

# In the compiler's place: makes an empty file of the last argument.
TOUCH = f"{sys.executable} -c 'import pathlib, sys; pathlib.Path(sys.argv[-1]).touch()'"


class Build(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        # A file cannot contain a folder, not even root's.
        (self.folder / "file").touch()
        self.unwritable, self.cache = self.folder / "file" / "lib", self.folder / "cache" / "wtacrs"

    def compile_into(self, *folders, compiler=TOUCH):
        with (
            mock.patch.object(build, "folders", lambda: list(folders)),
            mock.patch.dict(os.environ, {"CXX": compiler}),
        ):
            build.main()
            return build.compiled_handlers()

    def test_the_first_folder_that_can_be_written_to(self):
        made = self.compile_into(self.unwritable, self.cache)
        self.assertEqual((list(self.cache.iterdir()), made.name), ([made], build.file_name()))

    def test_folders(self):
        with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": "/nowhere"}):
            self.assertEqual(build.folders(), [_native.PACKAGED.parent, pathlib.Path("/nowhere/wtacrs")])

    def test_the_name_says_what_they_were_compiled_against(self):
        name = build.file_name()
        self.assertIn(f"-{wtacrs.__version__}-jax{build.jax.__version__}-", name)
        with mock.patch.object(build.jax, "__version__", "0.0.9"):
            self.assertNotEqual(build.file_name(), name)

    def test_refusals(self):
        with self.assertRaisesRegex(SystemExit, "no folder can be written to.*XDG_CACHE_HOME"):
            self.compile_into(self.unwritable)
        with self.assertRaisesRegex(SystemExit, "/nowhere/compiler is not installed.*CXX"):
            self.compile_into(self.cache, compiler="/nowhere/compiler -g")
        with self.assertRaisesRegex(SystemExit, "python.* does not compile .*handlers.cc"):
            self.compile_into(self.cache, compiler=f"{shlex.quote(sys.executable)} -c 1/0")
        self.assertEqual(list(self.cache.iterdir()), [])

    def test_an_import_names_the_command_that_it_needs(self):
        """In a copy of the package without compiled handlers."""
        package = self.folder / "wtacrs"
        shutil.copytree(pathlib.Path(wtacrs.__file__).parent, package, ignore=shutil.ignore_patterns("lib"))
        environment = {k: v for k, v in os.environ.items() if k != "WTACRS_JAX_LIBRARY"} | {
            "PYTHONPATH": os.pathsep.join([str(self.folder), *sys.path]),
            "WTACRS_LIBRARY": _native.LIBRARY,
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "CXX": TOUCH,
        }

        def python(*arguments):
            return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)

        last = python("-c", "import wtacrs.jax").stderr.strip().splitlines()[-1]
        self.assertRegex(last, "^ImportError: .*WTACRS_JAX_LIBRARY.*`python -m wtacrs.jax.build`")
        made = python("-m", "wtacrs.jax.build")
        self.assertIn(str(package / "lib" / build.file_name()), made.stdout, made.stderr)
        # Not the compiler's work, but what the import then finds.
        self.assertIn("too short", python("-c", "import wtacrs.jax").stderr)


if __name__ == "__main__":
    unittest.main()
