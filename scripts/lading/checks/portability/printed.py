"""A report as a table of plain lines, for a terminal and for a log."""

from __future__ import annotations

import textwrap

from lading.checks.portability.findings import LEVELS, Finding, Level, Report, shown
from lading.console import counted

WIDTH = 80
_INDENT = 12


def table(report: Report, width: int = WIDTH, least: Level = "info") -> list[str]:
    """Each finding: level, id and where; what will happen; how to mend it. Then the summary.

    least: the least level that is shown.
    """
    lines = []
    for finding in report.findings:
        if LEVELS.index(finding.level) <= LEVELS.index(least):
            lines += _finding(finding, max(width, 40))
    for one in report.unused:
        lines += _wrapped(
            f"{'unused':<7}{one.id:<4}", shown(f"{one.path} is allowed, and not found"), width
        )
    return [*lines, *summary(report, width)]


def summary(report: Report, width: int = WIDTH) -> list[str]:
    """One line: how many of what; and one about MPI, where the image has it."""
    counts = [counted(len(report.errors), "error"), counted(len(report.warnings), "warning")]
    let_through = sum(finding.allowed is not None for finding in report.findings)
    if let_through:
        counts.append(f"{let_through} allowed")
    verdict = "not ready for Apptainer" if report.errors else "ready for Apptainer"
    lines = _wrapped("", f"{report.archive}: {verdict} ({', '.join(counts)})", width)
    mpi = report.facts.get("mpi")
    if mpi:
        text = f"a host's MPI can take its place: {mpi['swap']} ({mpi['why']})"
        lines = [*_wrapped("", text, width), *lines]
    return lines


def _finding(finding: Finding, width: int) -> list[str]:
    level = "allowed" if finding.allowed is not None else finding.level
    first = finding.paths[0]
    more = f" and {finding.count - 1} more" if finding.count > 1 else ""
    lines = _wrapped(f"{level:<7} {finding.id:<3}", first + more, width)
    for path in finding.paths[1:]:
        lines += _wrapped("", path, width, _INDENT)
    lines += _wrapped("", finding.effect, width, _INDENT + 2)
    if finding.allowed is not None:
        lines += _wrapped(
            "", f"allowed: {finding.allowed or 'no reason given'}", width, _INDENT + 2
        )
    else:
        lines += _wrapped("", f"-> {finding.mend}", width, _INDENT + 2)
    return lines


def _wrapped(head: str, text: str, width: int, indent: int = 0) -> list[str]:
    """The text in lines of `width`; a path that is longer is broken, so that nothing sticks out."""
    head = f"{head} " if head else " " * indent
    return textwrap.wrap(
        text,
        width,
        initial_indent=head,
        subsequent_indent=" " * max(len(head), indent),
        break_on_hyphens=False,
    ) or [head.rstrip()]
