"""Results of fresh processes, one JSON file for each, so that a study goes on where it was interrupted."""

import collections
import json
import os
import pathlib
import re
import subprocess
import sys


def result_of(file, script, *arguments, environment=None):
    """What the script prints as JSON, from the file if an earlier run has left it there. The study ends where the
    script fails."""
    if not file.exists():
        command = [sys.executable, *map(str, (script, *arguments))]
        done = subprocess.run(command, env=os.environ | (environment or {}), stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: exit {done.returncode}")
        write(file, json.loads(done.stdout))
    return json.loads(file.read_text())


def by_name(folder, order):
    """The results in a folder by their names, in this order, without names that have not run."""
    found = collections.defaultdict(list)
    for file in sorted(folder.glob("*.json")):
        run = json.loads(file.read_text())
        found[run["name"]].append(run)
    if not found:
        raise SystemExit(f"no results in {folder}")
    return {name: found[name] for name in order if name in found}


def write(file, result):
    """Whole or not at all, for the study that goes on."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(file)


def process_status(what):
    """Bytes, from the kernel's account of this process: VmRSS, what is resident now, or VmHWM, its peak."""
    text = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{what}:\s+(\d+) kB", text)[1])


def forget_peak():
    """VmHWM begins anew at what is resident now."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")
