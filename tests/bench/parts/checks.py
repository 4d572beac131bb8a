"""checks: how long the portability checks of an archive take, as a process of their own."""

from __future__ import annotations

import io
import json
import struct
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from lading import archive as archives
from tests.bench import clock
from tests.bench.figures import Figure, Goal
from tests.bench.workshop import IMAGE, Workshop
from tests.support import images

RUNS = 5
FILES = 20_000
WITHIN = 2.0
"""Seconds that an image of so many files may take."""
_SIZE = 2000
"""The size in bytes of each of them."""
_UNCHECKED = struct.pack("<IIQ", 0, 1, 0)
"""The header of bytecode that is taken as it is (PEP 552)."""
_SITE = "opt/venv/lib/python3.13/site-packages"


def measure(workshop: Workshop) -> Iterator[Figure]:
    """With all digests verified, as `python -m lading.checks` does for archives made by anyone."""
    many = image_of(workshop.folder, FILES)
    yield _checked(workshop, f"{FILES:,} files", many)
    many.unlink()
    running = workshop.with_base(workshop.any_engine().kind)
    project = workshop.project("checks")
    workshop.doit(project, f"archive:{IMAGE}", engine=running)
    made = project / "dist" / f"{IMAGE}.tar"
    yield _checked(workshop, IMAGE, made)
    made.unlink()


def _checked(workshop: Workshop, what: str, archive: Path) -> Figure:
    command: list[str | Path] = [sys.executable, "-m", "lading.checks", archive, "--json"]
    environ = workshop.environ()
    (found,) = clock.alternating(RUNS, lambda: clock.timed(command, env=environ))
    paths = json.loads(found[0].output)["facts"]["paths"]
    return Figure(
        what=what,
        ours=clock.seconds(found),
        cpu=clock.cpu(found),
        goal=Goal(kind="within", limit=WITHIN),
        note=f"{paths:,} paths, {archive.stat().st_size / 1e6:.0f} MB",
    )


def image_of(folder: Path, count: int) -> Path:
    """The archive of an image that has so many files more than a shell and a few tools: modules
    with their bytecode, as a virtual environment has them.
    """
    tiny = images.tiny_image()
    layers = [folder / "tools.tar", folder / "modules.tar"]
    layers[0].write_bytes(tiny.layer)
    with tarfile.open(layers[1], "w") as tar:
        for number in range(count // 2):
            package, module = f"{_SITE}/p{number // 100}", f"m{number}"
            for name, start in (
                (f"{module}.py", b""),
                (f"__pycache__/{module}.cpython-313.pyc", _UNCHECKED),
            ):
                info = tarfile.TarInfo(f"{package}/{name}")
                info.size = _SIZE
                tar.addfile(info, io.BytesIO(start.ljust(_SIZE, b"#")))
    out = folder / "many.tar"
    try:
        archives.write(out, json.loads(tiny.config), layers, "localhost/lading/many:1")
    finally:
        for layer in layers:
            layer.unlink()
    return out
