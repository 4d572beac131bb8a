"""The one family of errors that a person sees.

Each says what failed, why, and what to do; none is ever shown with a traceback. The
exit code of a run is the one of the gravest kind that occurred.
"""

from __future__ import annotations


class LadingError(Exception):
    """A step failed: exit code 1.

    `what` failed, in one line; `why`, as many lines as it takes; what to `do` about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, why: str = "", do: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.do = do

    def __str__(self) -> str:
        text = self.what
        if self.why:
            text += "\n" + "\n".join("  " + line for line in self.why.rstrip().splitlines())
        if self.do:
            text += f"\n  -> {self.do}"
        return text


class EnvironmentProblem(LadingError):
    """The machine can't do it (no engine, no disk, no network): exit code 2."""

    exit_code = 2


class DeclarationError(LadingError):
    """What the user wrote can't be meant: exit code 3, before anything has run."""

    exit_code = 3
