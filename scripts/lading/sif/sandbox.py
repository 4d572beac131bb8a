"""What Apptainer wrote into the unpacked image, mended: labels, tests, and nothing of the clock.

Its own files lie in /.singularity.d. `inspect` reads them from a JSON object of the SIF. They are
UTF-8, whatever the locale is here.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lading.files import canonical_json

OWN = ".singularity.d"
HELLO = "mpiexec -n 2 {python} -m mpi4py.bench helloworld"
_MPI4PY = {
    "opt/*/lib/python3*/site-packages/mpi4py": "python",
    "usr/local/lib/python3*/*-packages/mpi4py": "python",
    "usr/lib/python3/dist-packages/mpi4py": "python3",
}
"""Where pip, conda and apt put it, and what the Python there is called."""
_LABEL = "org.label-schema."


def with_mpi4py(root: Path) -> str:
    """What the Python in it is called that has mpi4py; empty for none."""
    found = (python for pattern, python in _MPI4PY.items() if any(root.glob(pattern)))
    return next(found, "")


def tests(declared: Sequence[str], python: str) -> tuple[str, ...]:
    """The declared tests; also two ranks that say hello, where there is a `python` with mpi4py."""
    hello = HELLO.format(python=python)
    return (*declared, hello) if python and hello not in declared else tuple(declared)


def test_script(commands: Sequence[str]) -> str:
    """What `apptainer test` runs: every command by a shell of its own, until one fails."""
    lines = [f"/bin/sh -c {shlex.quote(command)}" for command in commands]
    return "\n".join(["#!/bin/sh", "# From test: in project.yaml.", "set -e", *lines, ""])


def deffile(name: str) -> str:
    """The definition file, without the folder that the archive lay in."""
    return f"bootstrap: docker-archive\nfrom: {name}.tar\n\n"


def labels(
    found: Mapping[str, str], added: Mapping[str, str], name: str, epoch: int
) -> dict[str, str]:
    """The labels that Apptainer wrote, the image's own among them, with ours, and without what
    depends on when and where it ran.
    """
    day = datetime.fromtimestamp(epoch, UTC)
    # As Apptainer writes it: hour, minute and second without leading zeros.
    date = f"{day:%A}_{day.day}_{day:%B}_{day.year}_{day.hour}:{day.minute}:{day.second}_UTC"
    fixed = {
        f"{_LABEL}build-date": date,
        f"{_LABEL}usage.singularity.deffile.bootstrap": "docker-archive",
        f"{_LABEL}usage.singularity.deffile.from": f"{name}.tar",
    }
    return {**found, **{key: fixed[key] for key in fixed if key in found}, **added}


def mend(
    root: Path,
    *,
    name: str,
    epoch: int,
    added: Mapping[str, str],
    commands: Sequence[str],
    since: int,
) -> None:
    """Writes labels, definition file and tests, and sets the times of all that Apptainer wrote.

    That is what has been changed `since` (as `clock` said) and until now: it gets `epoch`. All
    else keeps the archive's own time, by which Python knows whether its bytecode is still good,
    also where that is later than now: the clock here may be wrong.
    """
    own = root / OWN
    path = own / "labels.json"
    made = labels(json.loads(_text(path)), added, name, epoch)
    _write(path, json.dumps(made, indent=1, sort_keys=True, ensure_ascii=False) + "\n", 0o644)
    _write(own / "Singularity", deffile(name), 0o644)
    if commands:
        _write(own / "test", test_script(commands), 0o755)
    set_times(str(root), since, clock(root.parent), epoch)


def clock(folder: Path) -> int:
    """What a file gets for its mtime that is written in a folder now, in nanoseconds since 1970.

    The clock that programs are told may be ahead of it, or a file server's another one.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime_ns


def _write(path: Path, text: str, mode: int) -> None:
    path.unlink(missing_ok=True)  # where it is a link, what that leads to stays as it is
    with path.open("xb") as file:
        file.write(text.encode())
    path.chmod(mode)


def set_times(root: str, since: int, until: int, epoch: int) -> None:
    """Gives everything at or below `root` that was changed between two times (of `clock`) the time
    `epoch` (seconds).
    """
    folders = [root]
    if since <= os.lstat(root).st_mtime_ns <= until:
        os.utime(root, (epoch, epoch))
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if since <= entry.stat(follow_symlinks=False).st_mtime_ns <= until:
                    os.utime(entry.path, (epoch, epoch), follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)


def metadata(root: Path) -> bytes:
    """What `apptainer inspect` shows, as the JSON object that a SIF keeps it in."""
    own = root / OWN
    attributes: dict[str, Any] = {
        "environment": {
            f"/{OWN}/env/{_utf8(os.fsencode(path.name))}": _text(path)
            for pattern in ("10-docker*.sh", "9*-environment.sh")
            for path in sorted((own / "env").glob(pattern))
        },
        "labels": json.loads(_text(own / "labels.json")),
    }
    for key, file in (
        ("runscript", "runscript"),
        ("startscript", "startscript"),
        ("test", "test"),
        ("deffile", "Singularity"),
    ):
        if (own / file).is_file():
            attributes[key] = _text(own / file)
    return canonical_json({"data": {"attributes": attributes}, "type": "container"})


def _text(path: Path) -> str:
    return _utf8(path.read_bytes()).rstrip("\n")


def _utf8(data: bytes) -> str:
    return data.decode("utf-8", "replace")
