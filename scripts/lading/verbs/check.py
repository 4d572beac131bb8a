"""check: run the image's tests, and export the candidate of its archive once they pass."""

from __future__ import annotations

import json
from typing import Any

from lading import archive
from lading.console import counted, duration, shortened
from lading.errors import LadingError
from lading.files import digest_of, write_text
from lading.project import Image
from lading.state import State
from lading.verbs import build as build_verb

CHECKS = 1
"""The version of the checks: raised when an image that passed might not pass any more."""


def current(state: State, image: Image) -> bool:
    """Whether check.json says that the image with today's key passed today's checks."""
    key = state.key(image)
    if key is None:
        return False
    found = read(state, image)
    wanted = {"key": key, "checks": checks(image), "passed": True}
    return {name: found.get(name) for name in wanted} == wanted


def checks(image: Image) -> str:
    """What an image has to pass: today's checks, and the tests that it declares."""
    return digest_of([CHECKS, list(image.test)])


def read(state: State, image: Image) -> dict[str, Any]:
    """check.json as it lies there; empty if there is none, or half of one."""
    try:
        found = json.loads(state.check_file(image).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def make(state: State, image: Image) -> str:
    """Runs the tests; the first that fails is shown with what it printed."""
    from lading.checks import declared

    identity = _shipped(state, image) or build_verb.ensure(state, image)
    with state.console.lines(f"check {image.name}") as show:
        show(counted(len(image.test), "test"))
        results = declared.run(state.engine, identity, image.test)
    failed = [result for result in results if result.code]
    for result in results:
        verdict = "passed" if not result.code else f"failed ({result.code})"
        line = f"  {verdict}  {duration(result.seconds)}  {image.name}: {result.command}"
        state.console.note(shortened(line, 80))
    # Where only the tests have changed, the archive is there already.
    if not failed and not state.archived(image):
        export(state, image)
    record = {
        "key": state.key(image),
        "image": identity,
        "checks": checks(image),
        "passed": not failed,
        "tests": [
            {
                "command": result.command,
                "code": result.code,
                "seconds": round(result.seconds, 3),
                "output": result.output[-10_000:],
            }
            for result in results
        ],
    }
    write_text(state.check_file(image), json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    if failed:
        first = failed[0]
        raise LadingError(
            f"a test of {image.name} failed: {first.command} (exit code {first.code})",
            why="\n".join(first.output.splitlines()[-30:]) or "it printed nothing",
            do=f"all output is in build/{image.name}/check.json; no archive is written",
        )
    return f"{counted(len(results), 'test')} passed"


def _shipped(state: State, image: Image) -> str:
    """The ID of the image in dist/, there in the engine; empty while dist/ has none.

    The engine may have another build of the same key, and no build is quite like another.
    """
    if not state.archived(image):
        return ""
    config = archive.config_of(state.record(image))
    if state.engine.inspect(config) is None:
        state.engine.load(state.archive(image))
        state.forget("images")
    return config


def export(state: State, image: Image) -> None:
    """Writes the candidate: the bytes that will be the archive, if nothing speaks against it."""
    key = state.key(image)
    assert key is not None
    identity = build_verb.ensure(state, image)
    name = state.name(image)
    info = state.engine.inspect(identity)
    total = info.size if info is not None else 0
    candidate = state.candidate(image)
    with state.console.transfer(f"export {image.name}", total) as advance:
        made = archive.export(
            state.engine.save(name),
            candidate,
            name=name,
            platform=state.project.platform,
            advance=advance,
        )
    archive.record(candidate.with_suffix(".json"), made, key=key, name=name)


def clean(state: State, image: Image) -> None:
    """Removes check.json and the candidate."""
    candidate = state.candidate(image)
    for path in (state.check_file(image), candidate, candidate.with_suffix(".json")):
        path.unlink(missing_ok=True)
