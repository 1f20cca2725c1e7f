"""Has cargo build libwtacrs and the command `wtacrs`, and puts both and the headers into the wheel.

Where the environment variable WTACRS_PREBUILT names a folder that contains them already, nothing is built:

    lib/libwtacrs.so, include/wtacrs.h, include/wtacrs.hpp    from `cargo xtask install --prefix DIR`
    bin/wtacrs                                                from `cargo install --path crates/wtacrs-cli --root DIR`

An editable install has the library and its headers in the source folder, where git ignores them.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sysconfig

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HEADERS = ("wtacrs.h", "wtacrs.hpp")
# As `cargo xtask install` has them, and why: xtask/src/install.rs. In the same order, cargo does not build the library
# again that either has built. The handlers of `wtacrs.jax` find it by its SONAME.
LIBRARY_FLAGS = ["-Clink-arg=-Wl,-soname,libwtacrs.so.0", "-Cstrip=debuginfo", "-Clink-arg=-Wl,-z,nodelete"]


class NativeParts(BuildHookInterface):
    def initialize(self, version, build_data):
        prebuilt = os.environ.get("WTACRS_PREBUILT")
        parts = prefix_parts(pathlib.Path(prebuilt)) if prebuilt else self.built_parts()
        missing = [str(file) for file in parts.values() if not file.is_file()]
        if missing:
            self.app.abort(f"WTACRS_PREBUILT={prebuilt}: there is no {', '.join(missing)}")
        command = parts.pop("bin/wtacrs")
        build_data["shared_scripts"] = {str(command): "wtacrs"}
        # ctypes depends on the machine, and on no version of Python.
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
        if version == "editable":
            for place, file in parts.items():
                copy = pathlib.Path(self.root, "wtacrs", place)
                copy.parent.mkdir(exist_ok=True)
                # A process that has the old library open keeps it.
                copy.unlink(missing_ok=True)
                shutil.copy(file, copy)
        else:
            build_data["force_include"] = {str(file): f"wtacrs/{place}" for place, file in parts.items()}

    def built_parts(self):
        """What cargo builds from the clone that this folder lies in, by its place below a prefix."""
        clone = pathlib.Path(self.root).parent
        include = clone / "crates/wtacrs-ffi/include"
        if not include.is_dir():
            self.app.abort(
                f"{self.root} is not in a clone of wtacrs, so there is no Rust code to build: "
                "set WTACRS_PREBUILT to a folder that contains lib/libwtacrs.so, include/ and bin/wtacrs"
            )
        library = self.cargo(clone, ".so", ["-p", "wtacrs-ffi", "--lib", "--", *LIBRARY_FLAGS])
        command = self.cargo(clone, "", ["-p", "wtacrs-cli", "--bin", "wtacrs", "--", "-Cstrip=debuginfo"])
        headers = {f"include/{header}": include / header for header in HEADERS}
        return {"lib/libwtacrs.so": library, "bin/wtacrs": command} | headers

    def cargo(self, clone, suffix, arguments):
        """The file with the suffix among those that cargo builds, in its own target folder or that of
        CARGO_TARGET_DIR."""
        cargo = os.environ.get("CARGO", "cargo")
        options = ["--locked", "--release", "--message-format", "json-render-diagnostics"]
        try:
            run = subprocess.run([cargo, "rustc", *options, *arguments], cwd=clone, stdout=subprocess.PIPE, text=True)
        except FileNotFoundError:
            self.app.abort(
                f"{cargo} is not installed, and wtacrs is written in Rust: install Rust from https://rustup.rs, or set "
                "WTACRS_PREBUILT to a folder that contains lib/libwtacrs.so, include/ and bin/wtacrs"
            )
        if run.returncode != 0:
            self.app.abort("cargo does not build wtacrs: its messages are above")
        messages = [json.loads(line) for line in run.stdout.splitlines()]
        built = [message for message in messages if message["reason"] == "compiler-artifact"][-1]
        return next(file for file in map(pathlib.Path, built["filenames"]) if file.suffix == suffix)


def prefix_parts(prefix):
    """The files of a prefix, by their places below it."""
    places = ["lib/libwtacrs.so", "bin/wtacrs", *(f"include/{header}" for header in HEADERS)]
    return {place: (prefix / place).resolve() for place in places}
