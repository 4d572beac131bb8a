"""As a child process: exports an image, and prints how long that took and how much memory.

    python -m tests.bench.inside.export IMAGE PLATFORM FILE [PROJECT NAME]

With a project, the image is the one of that name there, and is normalised as doit does it. The last
line has the seconds from the request to the archive's name; then, in bytes, the most that
the process ever held before anything of lading's was imported, and at the end.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def most() -> int:
    """The largest resident size of this process so far, in bytes (proc(5), VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def main() -> int:
    """0 when the archive was written."""
    before = most()
    from lading import archive
    from lading.engines import connect
    from lading.project import load
    from lading.state import State
    from lading.verbs import check

    image, platform, out, *declared = sys.argv[1:]
    engine = connect(os.environ)
    normal = merged = None
    if declared:
        folder, name = declared
        state = State(load(Path(folder) / "project.yaml"), connect=lambda: engine)
        normal = check.normal(state, state.project.images[name])
        info = engine.inspect(image)
        assert info is not None
        merged = archive.Merged(files=engine.files(info.id), settings=info.settings)
    try:
        start = time.monotonic()
        archive.export(
            engine.save(image),
            Path(out),
            name=image,
            platform=platform,
            normal=normal,
            merged=merged,
        )
        seconds = time.monotonic() - start
    finally:
        engine.close()
    print(f"{seconds:.4f} {before} {most()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
