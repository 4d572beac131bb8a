"""Building on the project's builders: what they are lent, what comes back, who takes over."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from lading.engines import BuildFailed, hosts
from lading.engines.wire import WentAway
from lading.errors import EnvironmentProblem, LadingError
from lading.files import PART, disk_errors
from lading.layers import base as bases
from lading.layers.base import BaseLock
from lading.plan import LENT
from lading.process import NO_ROOM
from lading.project import Base
from lading.state import State
from lading.verbs import base as base_verb

FROM = re.compile(r"^FROM (\S+)", re.MULTILINE)
LAYOUT = "oci-layout"
NO_ROOM_LEFT = "no room is left on its disk"
LITTLE = 1 << 20
"""Bytes that are left on a disk that is full."""


def build(
    state: State,
    context: Path,
    name: str,
    *,
    key: str,
    what: str,
    log: Callable[[str], None],
    cache: bool,
    builders: Sequence[str],
) -> str:
    """Builds on one of these builders, and gives this run's engine the image; its ID there.

    A builder that goes away, or has no room, gets no more: what it had begun is built on another.
    One that is back already may try it once more. Raises what `Engine.build` does, and
    `EnvironmentProblem` when no builder is left.
    """
    # On an engine that others build with, too, only a key is a name that nobody else takes.
    private = name if name.startswith("localhost/lading/") else f"{LENT}{key[:16]}"
    job = hosts.Job(
        context=context,
        tag=private,
        key=key,
        platform=state.project.platform,
        log=log,
        cache=cache,
        below=tuple(_below(state, context)),
    )
    back: set[str] = set()
    while True:
        with state.builders.lent(builders, what) as slot:
            log(f"building on {slot.name}")
            if slot.name == hosts.HERE:
                identity = _built_here(state, slot, job, name)
            else:
                state.console.note(f"  build {what}: on {slot.name}")
                identity = _built(state, slot, job, name, back)
            if identity is not None:
                return identity


def _built_here(state: State, slot: hosts.Slot, job: hosts.Job, name: str) -> str | None:
    """The ID that the image has; None when this run's engine has no room to build."""
    try:
        return state.engine.build(
            job.context, name, platform=job.platform, log=job.log, cache=job.cache
        )
    except BuildFailed as failed:
        if not _no_room(failed):
            raise
        state.builders.lose(slot, NO_ROOM_LEFT)
        return None


def _built(state: State, slot: hosts.Slot, job: hosts.Job, name: str, back: set[str]) -> str | None:
    """The ID that the image has here; None when the builder is lost, or came back: it is in `back`
    then.
    """
    pool = state.builders
    try:
        host = pool.host(slot)
    except EnvironmentProblem as problem:
        pool.lose(slot, _shortly(problem))
        return None
    with (
        disk_errors(job.context),
        tempfile.NamedTemporaryFile(
            dir=state.project.root / "build", prefix=".built.", suffix=PART
        ) as file,
    ):
        out = Path(file.name)
        try:
            host.build(job, out)
        except BuildFailed as failed:
            if not _no_room(failed):
                raise
            _refuse_full(out, failed)
            pool.lose(slot, NO_ROOM_LEFT)
            return None
        except EnvironmentProblem as problem:
            _refuse_full(out, problem)
            if host.answers():
                if not isinstance(problem, WentAway) or slot.name in back:
                    raise
                state.console.note(f"  builder {slot.name} went away, and is back: once more")
                back.add(slot.name)
                return None
            pool.lose(slot, _shortly(problem))
            return None
        state.claim_image(job.key, job.tag)  # where this ends in the next moment, prune removes it
        identity = state.engine.load(out)
    if job.tag != name:
        state.engine.tag(identity, name)
        state.engine.remove(job.tag)
    return identity


def _no_room(failed: BuildFailed) -> bool:
    return any(NO_ROOM.search(line) for line in failed.lines)


def _refuse_full(out: Path, failed: LadingError) -> None:
    """Raises `OSError` where it is this machine's disk that has no room, for what comes back: a
    program that writes it says so as if it were the builder's.
    """
    said = any(out.name in line and NO_ROOM.search(line) for line in failed.why.splitlines())
    if said or shutil.disk_usage(out.parent).free < LITTLE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out)) from failed


def _shortly(problem: EnvironmentProblem) -> str:
    why = " ".join(problem.why.split())
    return f"{problem.what} ({why})" if why else problem.what


def _below(state: State, context: Path) -> Iterator[hosts.Below]:
    """What the Dockerfile's stages stand on that is no stage itself."""
    named = set(FROM.findall((context / "Dockerfile").read_text(encoding="utf-8")))
    for base in state.project.bases.values():
        lock = state.base_lock(base)
        if lock is None or bases.reference(base, lock) not in named:
            continue
        reference = bases.reference(base, lock)
        if base.debian is None:
            yield hosts.Below(reference=reference)
        else:
            yield hosts.Below(
                reference=reference,
                archive=partial(base_verb.archived, state, base, lock),
                layout=partial(_layout, state, base, lock),
            )


def _layout(state: State, base: Base, lock: BaseLock) -> Path:
    """The base as an OCI image layout, kept in the store beside its archive."""
    from lading.archive import layout

    archive = base_verb.archived(state, base, lock)
    return state.store.derived(lock.key, LAYOUT, lambda out: layout.write(archive, out))
