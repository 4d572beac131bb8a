"""One build in the engine: its log in a file and on the console, and what came of it, checked."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from lading import engines, platforms
from lading.console import Line, duration
from lading.errors import EnvironmentProblem, LadingError
from lading.plan import KEY_LABEL
from lading.process import NO_ROOM
from lading.state import State
from lading.steps import BY_HAND
from lading.store import Artifact

NOISE = re.compile(r"#\d+ (sha256:|DONE|CACHED|\.\.\.|exporting|naming|writing)")
"""What BuildKit prints besides its steps and what they print."""


def build(
    state: State,
    context: Path,
    name: str,
    *,
    key: str,
    log: Path,
    what: str,
    cache: bool = True,
    builders: Sequence[str] = (),
) -> engines.ImageInfo:
    """Builds a context and tags it `name`; the whole output goes to `log`. With builders, it is
    built on one of them, and comes back.

    Raises `BuildFailed`, which says where the log is.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w", encoding="utf-8") as file,
        state.console.lines(f"build {what}", keep="step ") as show,
    ):
        start = time.monotonic()
        state.claim_image(key, name)
        try:
            identity = _made(
                state,
                context,
                name,
                key=key,
                what=what,
                log=lambda line: _both(file, show, line, start),
                cache=cache,
                builders=builders,
            )
        except engines.BuildFailed as failed:
            platform = state.project.platform
            problem = platforms.refused(
                f"{what} can't be built for {platform}", platform, failed.why
            )
            if problem is not None:
                raise problem from None
            failed.context = context
            whole = f"all of its output is in {log.relative_to(state.project.root)}"
            if any(NO_ROOM.search(line) for line in failed.lines):
                failed.exit_code = EnvironmentProblem.exit_code
                whole = f"free some room where the engine builds, then run it again; {whole}"
            failed.do = failed.do or whole
            raise
    info = state.engine.inspect(identity)
    if info is not None and info.labels.get(KEY_LABEL, "").startswith(f"{key}{BY_HAND}"):
        raise LadingError(
            f"{what}: one of its `args:` has the name of a variable that its base or a layer sets",
            do="call it something else",
        )
    if info is None or info.labels.get(KEY_LABEL) != key:
        raise LadingError(
            f"{name} was built, but the engine shows another image under that name",
            do="someone else is building with the same engine: run it again",
        )
    state.forget("images")
    return info


def _made(
    state: State,
    context: Path,
    name: str,
    *,
    key: str,
    what: str,
    log: Line,
    cache: bool,
    builders: Sequence[str],
) -> str:
    if not builders:
        platform = state.project.platform
        return state.engine.build(context, name, platform=platform, log=log, cache=cache)
    from lading.verbs import elsewhere

    return elsewhere.build(
        state, context, name, key=key, what=what, log=log, cache=cache, builders=builders
    )


STEP = re.compile(r"(?:STEP (\d+/\d+): |#\d+ \[(?:\S+ +)?(\d+/\d+)\] )RUN (.*)")
"""A step that runs something, as Podman's log and BuildKit's begin it; what it runs."""
FILLER = re.compile(
    r"(?:--mount=\S+ +|: lent \w+ +&& +|umask 022 +&& +|cd \S+ +&& +|export [^&]*&& +|[ \\])+"
)
"""What stands before the command that a step is there for."""


def _both(file: IO[str], show: Line, line: str, start: float) -> None:
    file.write(line + "\n")
    file.flush()
    if found := STEP.search(line):
        seconds = duration(time.monotonic() - start)
        command = FILLER.match(found[3])
        told = found[3][command.end() if command else 0 :]
        show(f"step {found[1] or found[2]} after {seconds}: {told}")
    elif not NOISE.match(line):
        show(line)


def refuse_damaged(
    state: State, files: Iterable[Artifact], failed: LadingError, context: Path
) -> None:
    """Raises `LadingError` if a build failed of files that are no longer what the store took in:
    these are thrown away, with the context that has them, too.
    """
    try:
        state.store.refuse_damaged(files, failed)
    except LadingError:
        shutil.rmtree(context, ignore_errors=True)
        raise
