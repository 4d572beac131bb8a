"""What a new image will be: what was asked for, or found in a file, before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from msgspec import Struct, field

REQUIREMENTS = "requirements.in"
EMPTY = "# What goes in, as for pip: one requirement a line, as astropy>=6\n"


class Left(Struct, frozen=True, kw_only=True):
    """What could not be carried over: where it stands ("Dockerfile:7"), its text, and why."""

    where: str
    text: str
    why: str


class Draft(Struct, kw_only=True):
    """An image, filled in while files are read and questions answered.

    base: the name of a base, or an image's reference. requirements: lines of a requirement file.
    recipe: the files of the recipe folder by their names there; each its content, or the file to
    copy. taken: requirement files that are in it, by where they were. files: paths in the image,
    and names of the recipe. sources: sections of `sources:`. notes: what was understood and is
    done otherwise here, or not at all.
    """

    base: str = ""
    description: str = ""
    default: bool = True
    as_of: date | None = None
    apt_build: list[str] = field(default_factory=list)
    apt_run: list[str] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    conda: list[str] = field(default_factory=list)
    conda_file: str = ""
    conda_more: dict[str, str] = field(default_factory=dict)
    requirements: list[str] = field(default_factory=list)
    no_binary: list[str] = field(default_factory=list)
    build_env: dict[str, str] = field(default_factory=dict)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    run: list[str] = field(default_factory=list)
    cmd: list[str] = field(default_factory=list)
    mpi: str = ""
    test: list[str] = field(default_factory=list)
    recipe: dict[str, bytes | Path] = field(default_factory=dict)
    taken: dict[Path, str] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def bare(self) -> bool:
        """Whether it is a base and nothing else."""
        found = (
            self.apt_build, self.apt_run, self.conda, self.conda_file, self.requirements,
            self.sources, self.env, self.labels, self.files, self.run, self.cmd,
        )  # fmt: skip
        return not any(found)


def free(name: str, taken: Mapping[str, Any]) -> str:
    """A name that is not taken: `a.txt`, else `a-2.txt` …"""
    stem, dot, ending = name.rpartition(".")
    stem, ending = (stem, f".{ending}") if dot and stem else (name, "")
    number, made = 1, name
    while made in taken:
        number += 1
        made = f"{stem}-{number}{ending}"
    return made


def requirement_file(draft: Draft) -> tuple[str, bytes | None]:
    """The recipe's requirement file, and its content if it is not in the recipe already; no name
    where nothing is asked of pip.
    """
    lines = draft.requirements
    if len(lines) == 1 and lines[0].startswith("-r ") and lines[0][3:] in draft.recipe:
        return lines[0][3:], None
    if lines:
        return free(REQUIREMENTS, draft.recipe), "".join(f"{line}\n" for line in lines).encode()
    # An image of which nothing was said gets a file to write into.
    return (REQUIREMENTS, EMPTY.encode()) if draft.bare else ("", None)


def section(draft: Draft, folder: str, base: str, requirements: str) -> dict[str, Any]:
    """The image's section of project.yaml; `folder` is the recipe's."""
    conda = {
        "channels": draft.channels,
        "packages": draft.conda,
        "file": draft.conda_file and f"{folder}/{draft.conda_file}",
        **draft.conda_more,
    }
    pip = {
        "requirements": requirements and f"{folder}/{requirements}",
        "no-binary": draft.no_binary,
        "build-env": draft.build_env,
    }
    has_conda = draft.conda or draft.conda_file
    made: dict[str, Any] = {
        "description": draft.description,
        "default": None if draft.default else False,
        "base": base,
        "as-of": draft.as_of,
        "apt": _said({"build": draft.apt_build, "run": draft.apt_run}),
        "source": list(draft.sources),
        "conda": _said(conda) if has_conda else None,
        "pip": _said(pip) if requirements else None,
        "env": draft.env,
        "labels": draft.labels,
        "files": {path: f"{folder}/{name}" for path, name in draft.files.items()},
        "run": draft.run,
        "cmd": draft.cmd,
        "mpi": draft.mpi,
        "test": draft.test,
    }
    return _said(made)


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    """What has a value."""
    return {key: value for key, value in values.items() if value or value is False}
