"""Which step of a Dockerfile failed, read out of what a builder printed."""

from __future__ import annotations

import re
from collections.abc import Sequence

SHOWN = 30
"""How many of the last lines an error shows."""
LONGEST = 400
"""Longer lines are cut off there: builders repeat whole steps, and the log has it all."""

_BUILDKIT_ERROR = re.compile(r"#(\d+) ERROR:? ")
_BUILDKIT_STEP = re.compile(r"#(\d+) (\[.*)")
_PODMAN_STEP = re.compile(r"(?:\[\d+/\d+\] )?STEP \d+/\d+: .*")
_NOISE = re.compile(r"#\d+ sha256:[0-9a-f]{64}$|$")


def failing_step(lines: Sequence[str]) -> str:
    """The step's text, as "[2/4] RUN make" or "STEP 3/7: RUN make"; "" when no step failed.

    BuildKit numbers its steps and may run several at once: the number on the ERROR line is
    the one that counts. Podman prints one after the other: the last is the one.
    """
    failed = next(
        (found[1] for text in reversed(lines) if (found := _BUILDKIT_ERROR.match(text))), ""
    )
    if failed:
        for text in lines:
            step = _BUILDKIT_STEP.match(text)
            if step and step[1] == failed:
                return step[2]
    return next((text for text in reversed(lines) if _PODMAN_STEP.match(text)), "")


def shortened(step: str) -> str:
    """A step's text for a headline: white space folded, its end cut off."""
    text = " ".join(step.split())
    return text if len(text) <= 100 else f"{text[:99]}…"


def last_lines(lines: Sequence[str]) -> list[str]:
    """The last lines that say something."""
    shown = [text for text in lines if not _NOISE.match(text)][-SHOWN:]
    return [shortened(text) if len(text) > LONGEST else text for text in shown]
