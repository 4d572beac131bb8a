"""check: run the image's tests, export the candidate of its archive, and look into it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lading import archive
from lading.console import counted, duration, shortened
from lading.errors import LadingError
from lading.files import digest_of, write_text
from lading.project import Image
from lading.state import State
from lading.verbs import base as base_verb
from lading.verbs import build as build_verb

if TYPE_CHECKING:
    from lading.checks.mpi import MpiReport
    from lading.checks.portability import Report

CHECKS = 2
"""The version of the checks: raised when an image that passed might not pass any more."""


def current(state: State, image: Image) -> bool:
    """Whether check.json says that the image with today's key passed today's checks."""
    key = state.key(image)
    if key is None:
        return False
    found = read(state, image)
    if state.asked_for("sif", image) and not state.check_file(image).exists():
        # Only what was checked is ever in dist/: a SIF is made of it where there is no engine.
        return state.archived(image)
    wanted = {"key": key, "checks": checks(image), "passed": True}
    if {name: found.get(name) for name in wanted} == wanted:
        return True
    return pushed(state, image)


def pushed(state: State, image: Image) -> bool:
    """Whether the registry has the image with today's key, and it passed today's checks: only what
    passed is ever pushed.
    """
    there = state.in_registry(image)
    return there is not None and there.kept.checks == checks(image)


def checks(image: Image) -> str:
    """What an image has to pass: today's checks, and the tests that it declares."""
    return digest_of([CHECKS, list(image.test), image.mpi, dict(image.allow)])


def read(state: State, image: Image) -> dict[str, Any]:
    """check.json as it lies there; empty if there is none, or half of one."""
    try:
        found = json.loads(state.check_file(image).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def make(state: State, image: Image) -> str:
    """Runs the tests, exports the candidate, and checks it for Apptainer; what speaks against it
    is shown with what to do.
    """
    from lading.checks import declared, portability

    identity = build_verb.ensure(state, image)
    with state.console.lines(f"check {image.name}") as show:
        show(counted(len(image.test), "test"))
        results = declared.run(state.engine, identity, image.test)
    failed = [result for result in results if result.code]
    for result in results:
        verdict = "passed" if not result.code else f"failed ({result.code})"
        line = f"  {verdict}  {duration(result.seconds)}  {image.name}: {result.command}"
        state.console.note(shortened(line, 80))
    ranks = _ranks(state, image, identity) if image.mpi else None
    report, shipped = (None, "") if failed else _examined(state, image)
    record = {
        "key": state.key(image),
        "image": identity,
        "archive": shipped,
        "checks": checks(image),
        "passed": report is not None and not report.errors and (ranks is None or ranks.passed),
        "tests": [
            {
                "command": result.command,
                "code": result.code,
                "seconds": round(result.seconds, 3),
                "output": result.output[-10_000:],
            }
            for result in results
        ],
        "mpi": ranks.to_dict() if ranks is not None else None,
        "portability": report.to_dict() if report is not None else None,
    }
    write_text(state.check_file(image), json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    if report is None:
        first = failed[0]
        raise LadingError(
            f"a test of {image.name} failed: {first.command} (exit code {first.code})",
            why="\n".join(first.output.splitlines()[-30:]) or "it printed nothing",
            do=f"all output is in build/{image.name}{state.at}/check.json; no archive is written",
        )
    told = any(finding.level != "info" for finding in report.findings)
    if told or report.unused or report.facts.get("mpi"):
        lines = portability.table(report, least="warn")
        state.console.note("\n".join(f"  {line}" for line in lines))
    if report.errors:
        raise LadingError(
            f"{image.name} would not work under Apptainer: "
            f"{counted(len(report.errors), 'error')}, above",
            do="mend them, or, where one is meant, say why: "
            f'images.{image.name}.allow: {{"{report.errors[0].id}:PATH": the reason}}; '
            "no archive is written",
        )
    if ranks is not None and not ranks.passed:
        raise LadingError(
            f"the MPI of {image.name} is not as it has to be",
            why="\n".join(ranks.problems),
            do=f"all of it is in build/{image.name}{state.at}/check.json; no archive is written",
        )
    return f"{counted(len(results), 'test')} passed, ready for Apptainer"


def _ranks(state: State, image: Image, identity: str) -> MpiReport:
    """What running its MPI says, also with a host's in its place; shown as it is found."""
    from lading.checks import mpi

    find = mpi.finder(image.mpi, state.project.platform, state.store, state.environ)
    with state.console.lines(f"check {image.name}") as show:
        show("MPI")
        report = mpi.run(state.engine, identity, image.mpi, find)
    state.console.note("\n".join(f"  {line}" for line in report.lines()))
    return report


def _examined(state: State, image: Image) -> tuple[Report, str]:
    """What the portability checks say of the bytes that will ship, and the ID they have. Where
    only the tests have changed, they have shipped already.
    """
    from lading.checks import portability

    archived = state.archived(image)
    shipped = archive.config_of(state.record(image)) if archived else export(state, image)
    report = portability.examine(
        state.archive(image) if archived else state.candidate(image),
        platform=state.project.platform,
        mpi=image.mpi,
        allow=[portability.allowed(what, reason) for what, reason in image.allow.items()],
        digests=False,  # they were verified while it was written
    )
    return replace(report, archive=image.name), shipped


PARTS = ("/opt/conda", "/opt/venv")


def parts(image: Image) -> tuple[str, ...]:
    """What gets a layer of its own in the archive: the cut does not depend on the engine."""
    conda = image.conda
    prefixes = (conda.prefix, *(one.prefix for one in conda.environments.values())) if conda else ()
    return (*PARTS, *(prefix for prefix in prefixes if prefix not in PARTS))


def export(state: State, image: Image) -> str:
    """Writes the candidate: the bytes that will be the archive, if nothing speaks against it.

    Returns the ID that the image has in it.
    """
    key = state.key(image)
    assert key is not None
    build_verb.ensure(state, image)
    candidate = state.candidate(image)
    made = exported(state, image, state.tag(image), candidate)
    archive.record(candidate.with_suffix(".json"), made, key=key, name=state.name(image))
    return made.config


def exported(state: State, image: Image, tag: str, out: Path) -> archive.Archive:
    """Writes what the engine has built under a tag as the archive that every build gives."""
    info = state.engine.inspect(tag)
    if info is None:
        raise LadingError(f"the engine has no {tag} any more", do="run it again")
    with state.console.transfer(f"export {image.name}", info.size) as advance:
        return archive.export(
            state.engine.save(tag),
            out,
            name=state.name(image),
            platform=state.project.platform,
            advance=advance,
            normal=normal(state, image),
            merged=archive.Merged(files=state.engine.files(info.id), settings=info.settings),
        )


def normal(state: State, image: Image) -> archive.Normal:
    """What makes the archive the same, whichever engine built the image, and when."""
    base = state.base_of(image)
    lock = state.base_lock(base)
    assert lock is not None
    below = state.engine.inspect(base_verb.ensure(state, base))
    assert below is not None
    kept = base_verb.archive_of(state, base, lock)
    return archive.Normal(
        base=below.diff_ids,
        epoch=state.all_locked(image).header.epoch,
        parts=parts(image),
        archive=kept if kept is not None and kept.exists() else None,
    )


def clean(state: State, image: Image) -> None:
    """Removes check.json and the candidate."""
    candidate = state.candidate(image)
    for path in (state.check_file(image), candidate, candidate.with_suffix(".json")):
        path.unlink(missing_ok=True)
