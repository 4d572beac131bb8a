"""Runs in an image, by the Python that uv has just installed packages for, and nothing else there.

Prints the modules of what uv installed, not of what was there before, and takes out what no build
can repeat. It is given the folder of the packages, and knows Pythons from 3.8 on.
"""

from __future__ import annotations

import csv
import os
import re
import sys
from pathlib import Path

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
        found += [f"/{row[0]}" for row in rows]
    # As for all packages, but for their own tests.
    mine = [path for path in found if path.endswith(".py") and not re.search("/tests?/", path)]
    return [os.path.normpath(f"{folder}{path}") for path in mine]


def by_uv(info: Path) -> bool:
    """Whether uv installed what this folder describes."""
    try:
        return (info / "INSTALLER").read_text(encoding="utf-8").strip() == "uv"
    except OSError:
        return False


if __name__ == "__main__":
    print("\n".join(settled(Path(sys.argv[1]))))
