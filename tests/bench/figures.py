"""The figures of a benchmark and the table they are printed in; nothing here measures."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

WIDTH = 80
_WHAT, _OURS, _CPU, _THEIRS, _RATIO = 24, 17, 6, 17, 7


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What was measured in several runs, in one unit; never empty."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("nothing was measured")

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        """The median; of more than one run with the least and the most."""
        if len(self.values) == 1:
            return number(self.median)
        return f"{number(self.median)} ({number(min(self.values))}–{number(max(self.values))})"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is to be reached.

    "faster": theirs is at least `limit` times ours. "share": ours is at most `limit` times
    theirs. "within": ours is at most `limit`, whatever theirs is.
    """

    kind: Literal["faster", "share", "within"]
    limit: float

    def reached(self, ours: float, theirs: float | None) -> bool:
        """Whether these medians reach it. Without theirs, a ratio is not reached."""
        if self.kind == "within":
            return ours <= self.limit
        if theirs is None:
            return False
        if self.kind == "faster":
            return theirs >= self.limit * ours
        return ours <= self.limit * theirs

    def __str__(self) -> str:
        sign = "≥" if self.kind == "faster" else "≤"
        return f"{sign}{self.limit:g}"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table.

    `ours` and `theirs` are in `unit`; `cpu` is the processor time of our process and its
    children, in seconds, median. `missing` says why there is nothing; `note` what to know. `step`
    is the step of the lesson whose cost it is, as `costs` calls it.
    """

    what: str
    ours: Samples | None = None
    theirs: Samples | None = None
    cpu: float | None = None
    unit: str = "s"
    goal: Goal | None = None
    missing: str = ""
    note: str = ""
    step: str = ""

    @property
    def ratio(self) -> str:
        """How the two compare, the way round that the goal has it: "21.3×"; else empty."""
        if self.ours is None or self.theirs is None:
            return ""
        ours, theirs = self.ours.median, self.theirs.median
        if self.goal is not None and self.goal.kind == "share":
            return f"{ours / theirs:.2f}×" if theirs else ""
        return f"{theirs / ours:.1f}×" if ours else ""

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without a goal, or where nothing was measured."""
        if self.goal is None or self.ours is None:
            return None
        if self.goal.kind != "within" and self.theirs is None:
            return None
        return self.goal.reached(self.ours.median, self.theirs.median if self.theirs else None)


def number(value: float) -> str:
    """Three digits that count: 0.312, 4.21, 12.8, 248."""
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def heading() -> str:
    """The lines above the table."""
    columns = (
        f"{'':<{_WHAT}}{'ours':<{_OURS}}{'CPU':<{_CPU}}{'theirs':<{_THEIRS}}"
        f"{'ratio':<{_RATIO}}target"
    )
    return f"{columns}\n{'-' * WIDTH}"


def line(figure: Figure) -> str:
    """One line of the table, or several where it does not fit into one."""
    if figure.missing or figure.ours is None:
        said = f"  {figure.what}: not measured: {figure.missing}"
        return textwrap.fill(said, WIDTH, subsequent_indent="      ")
    what = f"  {figure.what}" + (f", {figure.unit}" if figure.unit != "s" else "")
    cpu = number(figure.cpu) if figure.cpu is not None else ""
    verdict = {True: " ok", False: " NO", None: ""}[figure.reached]
    target = f"{figure.goal}{verdict}" if figure.goal is not None else ""
    theirs = str(figure.theirs or "")
    cells = (
        f"{figure.ours!s:<{_OURS}}{cpu:<{_CPU}}{theirs:<{_THEIRS}}{figure.ratio:<{_RATIO}}{target}"
    )
    # A long name has a line of its own.
    head = f"{what:<{_WHAT}}" if len(what) < _WHAT else f"{what}\n{'':<{_WHAT}}"
    rows = f"{head}{cells}".rstrip()
    if figure.note:
        note = textwrap.fill(
            figure.note, WIDTH, initial_indent="      ", subsequent_indent="      "
        )
        rows += f"\n{note}"
    return rows


def conclusion(figures: Iterable[Figure]) -> str:
    """What is said below the table: how many targets were reached, and which were not."""
    found = list(figures)
    judged = [figure for figure in found if figure.reached is not None]
    missed = [figure.what for figure in judged if not figure.reached]
    unknown = [figure.what for figure in found if figure.goal and figure.reached is None]
    lines = [f"{len(judged) - len(missed)} of {len(judged)} targets reached"]
    lines += _listed("missed", missed)
    lines += _listed("not measured", unknown)
    return "\n".join(lines)


def busy(load: float, processors: int) -> str:
    """A warning where others kept the machine busy when this began; else empty.

    Half of the processors busy is where what uses all of them begins to look slow.
    """
    if load <= processors / 2:
        return ""
    said = (
        f"The machine was busy (load {load:.1f} on {processors} CPUs): elapsed times are too long,"
        " most of all of what uses every CPU, as the builds do. Repeat it when it is quiet."
    )
    return textwrap.fill(said, WIDTH) + "\n"


def _listed(head: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    return [textwrap.fill(f"{head}: {'; '.join(names)}", WIDTH, subsequent_indent="  ")]
