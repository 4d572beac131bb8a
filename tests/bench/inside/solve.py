"""In a process of its own: resolves a spec on a channel in a folder, as `doit lock` does.

python3 solve.py FOLDER SPEC CACHE

Prints the number of packages, the seconds, and the most memory that a process of it held, in
bytes; the cache is filled by the first run.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

from lading.conda import explicit
from lading.conda.channels import Channels
from lading.errors import LadingError
from lading.facts import Facts
from lading.layers import conda, conda_resolve
from lading.layers.conda_section import CondaSection
from lading.layers.kind import InBase, Tools
from lading.store import Store


def main() -> int:
    """0 when it was resolved."""
    folder, spec, cache = sys.argv[1:]
    section = CondaSection(channels=(Path(folder).as_uri(),), packages=(spec,))
    asked = conda.request(Path(), "x", section, Facts(glibc="2.36"), "linux/amd64", None)
    tools = Tools(
        environ=os.environ, store=Store(Path(cache)), note=lambda _: None, in_base=_nowhere
    )
    start = time.monotonic()
    text = conda_resolve.solved(asked, None, Channels(environ=os.environ, named=asked.urls), tools)
    seconds = time.monotonic() - start
    held = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"\n{len(explicit.locked(text, ''))} {seconds:.3f} {held}")
    return 0


def _nowhere() -> InBase:
    raise LadingError("nothing is run in a base here")


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except LadingError as error:
        raise SystemExit(f"ERROR: {error}") from None
