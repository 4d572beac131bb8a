"""As a child process: makes a SIF, without its tests, and prints how long that took.

    python -m tests.bench.inside.sif APPTAINER NAME ARCHIVE FILE

The last line has the seconds from the archive to the SIF; then, in bytes, the most that this
process and the largest of its children ever held.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

from lading.sif import making, programs, workplace
from lading.sif.section import SifSection


def main() -> int:
    """0 when the SIF was written."""
    command, name, archive, out = sys.argv[1:]
    record = json.loads(Path(archive).with_suffix(".json").read_text())
    program = programs.find(command, os.environ, "")
    order = making.Order(
        name=name,
        archive=Path(archive),
        sha256=record["sha256"],
        size=record["size"],
        epoch=0,
        platform="linux/amd64",
        labels={"lading.key": record["key"]},
        tests=("true",),
        mpi="",
        compression=SifSection().compression,
        sbom=b"{}",
    )
    start = time.monotonic()
    with workplace.opened(os.environ, 0, "") as folder:
        mksquashfs = programs.mksquashfs(os.environ)
        making.assemble(program, mksquashfs, order, folder, Path(out), lambda _: None)
    seconds = time.monotonic() - start
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    held = [resource.getrusage(one).ru_maxrss * 1024 for one in who]
    print(f"{seconds:.4f} {held[0]} {held[1]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
