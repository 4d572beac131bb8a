"""Runs in an image, beside lading's bytecode.py: compiles what is compiled there once more.

It is given a folder, and knows half of all the names in it beforehand: a machine that differs.
Prints how many modules there are, and how many come out as other bytes; fails if any do.
"""

import re
import sys
from importlib.util import cache_from_source
from pathlib import Path

import bytecode  # type: ignore[import-not-found]


def main(folder: Path) -> None:
    """Compiles all modules below a folder that are compiled already."""
    bytecode.main([str(folder / "nothing")])
    cached = {source: Path(cache_from_source(str(source))) for source in folder.rglob("*.py")}
    sources = [source for source in cached if cached[source].exists()]
    text = " ".join(source.read_text(errors="replace") for source in sources)
    known = [sys.intern(word) for word in sorted(set(re.findall("[A-Za-z_]\\w+", text)))[::2]]
    others = [
        source
        for source in sources
        if bytecode.bytecode(source.read_bytes(), str(source)) != cached[source].read_bytes()
    ]
    del known
    print(len(sources), len(others))
    if others or not sources:
        sys.exit(f"not the same bytes: {others}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
