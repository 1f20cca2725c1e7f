"""Compiles the handlers of `wtacrs.jax`: `python -m wtacrs.jax.build`.

They are C++ (handlers.cc), and are compiled against the headers of the installed JAX and of libwtacrs. The result goes
where an import of `wtacrs.jax` looks for it: into the package's folder, or if that cannot be written to, into
$XDG_CACHE_HOME/wtacrs (~/.cache/wtacrs). Its name contains the versions and a checksum of the sources, so it has to be
compiled again after an update of JAX or of this package. CXX names another compiler than c++.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

from .. import __version__, _native
from .._extras import imports_of

with imports_of("jax"):
    import jax.ffi

SOURCE = pathlib.Path(__file__).with_name("handlers.cc")


def include_folder() -> pathlib.Path | None:
    """The folder of wtacrs.h that belongs to the loaded libwtacrs, or None: then the compiler has to find it."""
    folder = pathlib.Path(_native.LIBRARY).parent.parent / "include"
    return folder if (folder / "wtacrs.h").is_file() else None


def folders() -> list[pathlib.Path]:
    """Where compiled handlers may lie, in the order in which they are looked for."""
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return [_native.PACKAGED.parent, pathlib.Path(cache) / "wtacrs"]


def file_name() -> str:
    """The name that handlers for the installed JAX and the loaded libwtacrs have."""
    include = include_folder()
    sources = [SOURCE] if include is None else [SOURCE, include / "wtacrs.h"]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:8]
    return f"libwtacrs_jax-{__version__}-jax{jax.__version__}-{digest}.so"


def compiled_handlers() -> pathlib.Path:
    """The compiled handlers, or where they would be if they are not compiled yet."""
    files = [folder / file_name() for folder in folders()]
    return next((file for file in files if file.exists()), files[0])


def main() -> None:
    """Compiles the handlers, and prints where they are.

    Raises `SystemExit` with a sentence if there is no compiler, if it fails, or if no folder can be written to.
    """
    folder = next(filter(_writable, folders()), None)
    if folder is None:
        sys.exit(
            f"no folder can be written to: {' and '.join(map(str, folders()))}. Set XDG_CACHE_HOME to one that can"
        )
    include = include_folder()
    flags = ["-std=c++17", "-O2", "-shared", "-fPIC", "-isystem", jax.ffi.include_dir()]
    flags += [] if include is None else ["-I", str(include)]
    library = _native.LIBRARY if os.sep in _native.LIBRARY else f"-l:{_native.LIBRARY}"
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    file = folder / file_name()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # Another process may import the module meanwhile.
        unfinished = pathlib.Path(scratch, file.name)
        try:
            run = subprocess.run([*compiler, *flags, SOURCE, library, "-Wl,-z,defs", "-o", unfinished])
        except FileNotFoundError:
            sys.exit(f"{compiler[0]} is not installed: install a C++ compiler, such as g++, or set CXX to one")
        if run.returncode != 0:
            sys.exit(f"{compiler[0]} does not compile {SOURCE}: its messages are above")
        unfinished.replace(file)
    print(f"wtacrs.jax has its handlers for JAX {jax.__version__}: {file}")


def _writable(folder: pathlib.Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    main()
