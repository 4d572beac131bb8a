"""The steps of the lesson, and the table of what each costs, as recipes/README.md has it (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.bench.figures import Figure

STEPS = {
    "pip 1 docker": "pip, Dockerfile 1: `pip install`, on Docker",
    "pip 1 podman": "pip, Dockerfile 1: the same on Podman",
    "pip 2": "pip, Dockerfile 2: `--no-cache-dir`",
    "pip freeze": "pip, Reproducible, way 1: `pip install` and `pip freeze`, against the lock",
    "pip-compile": "pip, Reproducible, way 2: `pip-compile --generate-hashes`, against the lock",
    "pip-compile, none": "pip, Reproducible, way 2: without hashes, which a lock here always has",
    "pip 3": "pip, Dockerfile 3: a frozen requirements.txt",
    "pip 4": "pip, Dockerfile 4: another version by `--build-arg`, against a variant",
    "mkl": "pip, Intel's Python: numpy with Intel's packages from PyPI",
    "conda 1": "conda, Dockerfile 1: `conda install`",
    "conda 2": "conda, Dockerfile 2: `conda clean`",
    "conda 3": "conda, Dockerfile 3: an environment.yaml",
    "conda freeze": "conda, Dockerfile 4: `conda install` and `conda list --explicit`, "
    "against the lock",
    "conda 4": "conda, Dockerfile 4: installed from the explicit file",
    "activation": "conda, the variables that activation sets",
    "mpi": "MPI, MPICH and mpi4py: the first image",
    "mpi again": "MPI, MPICH and mpi4py: a second image with the same MPICH, against all of it "
    "again",
}
"""What each row of the table is called, by what the figures call it."""
NOTHING = "nothing of its own"
FREE = {"activation": (NOTHING, "–", NOTHING, "–")}
"""Steps that are part of another one here, and a person's work by hand."""
SIZE, TIME = "MB", "s"
TIMES_ONLY = ("pip freeze", "pip-compile", "pip-compile, none", "conda freeze", "mpi again")
"""Steps that make no image, or none of their own."""
OPEN = "…"
"""What was not measured."""
HEAD = (
    "| step of the lesson | size here | by hand | time here | by hand |",
    "|---|---|---|---|---|",
)


def table(figures: Iterable[Figure]) -> str:
    """A row for each step; what none of the figures has measured is left open."""
    found = {(figure.step, figure.unit): figure for figure in figures if figure.step}
    return "\n".join([*HEAD, *(_row(label, _cells(step, found)) for step, label in STEPS.items())])


def _cells(step: str, found: dict[tuple[str, str], Figure]) -> Sequence[str]:
    if step in FREE:
        return FREE[step]
    sizes = ("–", "–") if step in TIMES_ONLY else _pair(found.get((step, SIZE)))
    return (*sizes, *(f"{one} s" if one != OPEN else one for one in _pair(found.get((step, TIME)))))


def _pair(figure: Figure | None) -> tuple[str, str]:
    if figure is None:
        return (OPEN, OPEN)
    ours, theirs = (
        _number(one.median) if one is not None else OPEN for one in (figure.ours, figure.theirs)
    )
    return (ours, theirs)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _row(label: str, cells: Iterable[str]) -> str:
    return f"| {' | '.join([label, *cells])} |"
