"""The programs that make a SIF: Apptainer or SingularityCE, and mksquashfs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from lading import process
from lading.errors import EnvironmentProblem
from lading.process import Finished

NAMES = ("apptainer", "singularity", "singularity-ce")
OLDEST = {"apptainer": (1, 1), "singularity-ce": (3, 10)}
"""What each of the two calls itself, and the oldest that will do."""
_VERSION = re.compile(r"(apptainer|singularity(?:-ce)?) version v?((\d+)\.(\d+)\S*)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


class Program(Struct, frozen=True, kw_only=True):
    """Apptainer or SingularityCE, as it is called and as it calls itself: "apptainer 1.4.5"."""

    command: tuple[str, ...]
    version: str

    def run(
        self,
        *arguments: str | Path,
        env: Mapping[str, str | None],
        cwd: Path | None = None,
        line: Callable[[str], None] | None = None,
    ) -> Finished:
        """Runs it, its output and errors in one stream. `env` is added to `cleaned`."""
        finished = process.run(
            # Its own files in an image have the modes that the umask leaves them.
            ["/bin/sh", "-c", 'umask 022; exec "$@"', "sh", *self.command, *map(str, arguments)],
            cwd=cwd,
            env={**cleaned(os.environ), **env},
            line=(lambda text: line(_COLOUR.sub("", text))) if line else (lambda _: None),
        )
        return finished._replace(output=_COLOUR.sub("", finished.output))


def cleaned(environ: Mapping[str, str]) -> dict[str, str | None]:
    """What Apptainer is not told of the caller's settings: binds, variables for the inside, a home.

    Where its configuration and keys lie, it is told.
    """
    kept = ("_CONFIGDIR", "_KEYSDIR")
    return {
        name: None
        for name in environ
        if name.startswith(("APPTAINER", "SINGULARITY")) and not name.endswith(kept)
    }


def find(command: str, environ: Mapping[str, str], instead: str) -> Program:
    """The Apptainer of `sif: {command: …}`, or the one on PATH.

    `instead` is what to do without. Raises `EnvironmentProblem` for none, or one that is too old.
    """
    if command:
        first, *others = shlex.split(command)
        # It is run in other folders than this one.
        found = shutil.which(first, path=environ.get("PATH"))
        return _asked((str(Path(found).absolute()) if found else first, *others), instead)
    for name in NAMES:
        if found := shutil.which(name, path=environ.get("PATH")):
            return _asked((str(Path(found).absolute()),), instead)
    raise EnvironmentProblem(
        "there is no Apptainer on this machine",
        why="neither apptainer nor singularity is on PATH; a SIF takes one, an archive none",
        do="install Apptainer 1.1 or newer, or say where it is: sif: {command: …} in project.yaml."
        f"\n     {instead}",
    )


def _asked(command: Sequence[str], instead: str) -> Program:
    finished = process.run([*command, "--version"])
    found = _VERSION.search(finished.output)
    if finished.code or found is None:
        raise EnvironmentProblem(
            f"{shlex.join(command)} is no Apptainer that works",
            why=(finished.errors or finished.output).strip() or f"exit code {finished.code}",
            do=f"mend it, or name another: sif: {{command: …}} in project.yaml.\n     {instead}",
        )
    kind, version = found[1], found[2]
    least = OLDEST.get(kind)
    if least is None or (int(found[3]), int(found[4])) < least:
        raise EnvironmentProblem(
            f"{kind} {version} is too old to make a SIF of an archive",
            why=f"{shlex.join(command)} is it; Apptainer 1.1 and SingularityCE 3.10 can",
            do="install a newer one, or name it: sif: {command: …} in project.yaml.\n"
            f"     {instead}",
        )
    return Program(command=tuple(command), version=f"{kind} {version}")


def mksquashfs(environ: Mapping[str, str]) -> str:
    """mksquashfs, which Apptainer needs too. An ordinary user's PATH may be without sbin."""
    path = os.pathsep.join((environ.get("PATH", os.defpath), *_SBIN))
    found = shutil.which("mksquashfs", path=path)
    if found is None:
        raise EnvironmentProblem(
            "mksquashfs is not installed, which packs the file system of a SIF",
            do="install the package squashfs-tools (on SUSE: squashfs)",
        )
    return found
