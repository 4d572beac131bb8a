"""What a run of CI says of itself, as Markdown: what was made, what it passed, what has moved."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from typing import Any

from lading.ci import stale
from lading.console import counted, size
from lading.diff.words import code, escaped
from lading.errors import LadingError
from lading.project import Image
from lading.state import State
from lading.verbs import check as check_verb

LINES = 20
"""Lines of a failed test's output that are shown."""


def made(state: State, images: Sequence[Image]) -> str:
    """A table of these images as they are in dist/, and what failed below it."""
    rows = ["| image | | size | tests | for Apptainer |", "|---|---|---:|---|---|"]
    below: list[str] = []
    pushed = _pushed(state, images)
    for image in images:
        try:
            row, more = _row(state, image, pushed)
        except LadingError as error:
            row, more = f"| {code(image.name)} | {escaped(error.what)} | | | |", []
        rows.append(row)
        below += more
    return "\n".join([*rows, "", *below, *([""] if below else [])])


def _pushed(state: State, images: Sequence[Image]) -> set[str]:
    """The names of those of which nothing is here, and that the registry has."""
    lacking = [image for image in images if not _here(state, image)]
    if not state.project.registry or not lacking:
        return set()
    found = stale.find(state, lacking).images
    return {item.name for item in found if item.where == "registry"}


def _here(state: State, image: Image) -> bool:
    try:
        return state.archived(image) or bool(_checked(state, image))
    except LadingError:
        return False  # said in its row


def _checked(state: State, image: Image) -> Mapping[str, Any]:
    """What was found when the image with today's key was checked here; empty if it was not."""
    found = check_verb.read(state, image)
    return found if found.get("key") == state.key(image) else {}


def _row(state: State, image: Image, pushed: Container[str]) -> tuple[str, list[str]]:
    found = _checked(state, image)
    archived = state.archived(image)
    if not archived and not found:
        how = f"{code(state.name(image))}, in the registry" if image.name in pushed else "not made"
        return f"| {code(image.name)} | {how} | | | |", []
    how, bytes = "its checks failed", ""
    if archived:
        record = json.loads(state.record(image).read_bytes())
        how = f"{code(record['name'])}, sha256 {code(record['sha256'][:12])}"
        bytes = size(record["size"])
        if not found:
            how += ", as it is in the registry"
    tests, failed = _tests(found.get("tests") or ())
    portability = found.get("portability") or {}
    row = f"| {code(image.name)} | {how} | {bytes} | {tests} | {_verdict(portability)} |"
    more = [line for test in failed for line in _failure(image.name, test)]
    more += _findings(image.name, portability)
    if (found.get("mpi") or {}).get("passed") is False:
        more.append(f"- {code(image.name)}: its MPI is not as it has to be")
    return row, more


def _tests(tests: Sequence[Mapping[str, Any]]) -> tuple[str, list[Mapping[str, Any]]]:
    failed = [test for test in tests if test.get("code")]
    if not tests:
        return "", []
    return f"{len(tests) - len(failed)} of {len(tests)} passed", failed


def _failure(name: str, test: Mapping[str, Any]) -> list[str]:
    output = str(test.get("output", "")).splitlines()[-LINES:]
    said = f"- {code(name)}: {code(str(test['command']))} failed ({test['code']})"
    return [said, "", *(f"      {line}" for line in output), ""]


def _verdict(portability: Mapping[str, Any]) -> str:
    if not portability:
        return ""
    errors, warnings = portability.get("errors", 0), portability.get("warnings", 0)
    said = [counted(errors, "error")] if errors else []
    said += [counted(warnings, "warning")] if warnings else []
    return ", ".join(said) or "ready"


def _findings(name: str, portability: Mapping[str, Any]) -> list[str]:
    return [
        f"- {code(name)}: {finding['level']} {code(_where(finding))}: {escaped(finding['effect'])}"
        for finding in portability.get("findings", ())
        if finding.get("level") in ("error", "warn") and finding.get("allowed") is None
    ]


def _where(finding: Mapping[str, Any]) -> str:
    return f"{finding['id']}:{finding['paths'][0]}" if finding.get("paths") else finding["id"]


def moved(state: State, since: str) -> str:
    """What has moved in the locks since a commit; where it is not here (a branch's first push, a
    run by hand), that is said.
    """
    from lading.diff.git import opened
    from lading.verbs import diff

    try:
        known = bool(since.strip("0")) and opened(state.project.root).commit(since) is not None
    except LadingError:
        known = False
    if not known:
        return "There is no commit before this one to compare the locks with.\n"
    return diff.told(state, [f"{since}...HEAD"], "markdown")
