"""Runs in an image, by the Python that uv has just installed packages for, and nothing else there.

Compiles the modules of what uv installed, not what was there before, and takes out what no build
can repeat. It is given the folder of the packages, and knows Pythons from 3.8 on.
"""

from __future__ import annotations

import compileall
import csv
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from py_compile import PycInvalidationMode

NOTED = "uv_cache.json"
"""Beside each package uv notes when its wheel's inode last changed."""


def settled(folder: Path) -> list[str]:
    """The modules that uv installed there; its notes are gone."""
    found: list[str] = []
    for info in sorted(folder.glob("*.dist-info")):
        if not by_uv(info):
            continue
        record = info / "RECORD"
        with record.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
        if (info / NOTED).exists():
            (info / NOTED).unlink()
            rows = [row for row in rows if row[0] != f"{info.name}/{NOTED}"]
            with record.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)
        found += [os.path.normpath(f"{folder}/{row[0]}") for row in rows]
    # As for all packages, but for their own tests.
    return [path for path in found if path.endswith(".py") and not re.search("/tests?/", path)]


def by_uv(info: Path) -> bool:
    """Whether uv installed what this folder describes."""
    try:
        return (info / "INSTALLER").read_text(encoding="utf-8").strip() == "uv"
    except OSError:
        return False


def compiled(path: str) -> None:
    """Compiles a module as far as it can be; bytecode that asks for no time of a file."""
    mode = PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_file(path, quiet=2, invalidation_mode=mode)


if __name__ == "__main__":
    modules = settled(Path(sys.argv[1]))
    with ProcessPoolExecutor() as workers:
        list(workers.map(compiled, modules, chunksize=32))
