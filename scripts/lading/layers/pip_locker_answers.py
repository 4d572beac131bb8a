"""Reading what pip-compile wrote, or what pip froze, and who wants what of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lading import requirements, uv
from lading.errors import LadingError
from lading.layers.pip import Request
from lading.requirements import normalised


def sha256_in(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", text))


def compiled(text: str) -> tuple[tuple[uv.Version, ...], dict[str, frozenset[str]]]:
    """The versions in the file that pip-compile wrote, and the sha256 that each may have."""
    hashes = {}
    for part in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE):
        name = re.match(r"[A-Za-z0-9._-]+", part)
        if name:
            hashes[normalised(name[0])] = sha256_in(part)
    # As uv writes it, but for the hashes.
    return uv.versions(text), {name: found for name, found in hashes.items() if found}


def frozen(asked: Request, answer: Mapping[str, Any]) -> tuple[uv.Version, ...]:
    """The versions that pip froze; who wants each follows from what is installed."""
    wanted = _direct_urls(asked)
    via = who_wants(asked, answer["installed"], answer["environment"])
    found = []
    for line in answer["frozen"].splitlines():
        match = re.match(r"([A-Za-z0-9._-]+)(?:===?(\S+)| @ (\S+))$", line.strip())
        if match is None:
            raise LadingError(
                f"images.{asked.image}: pip freeze says what can't be locked: {line.strip()}",
                do="locker: uv",
            )
        name = normalised(match[1])
        url = wanted.get(name, match[3] or "") if match[3] else ""
        version = "" if url else _version(match[2])
        found.append(uv.Version(name=name, version=version, url=url, via=via.get(name, ())))
    return tuple(sorted(found, key=lambda version: version.name))


def _version(text: str) -> str:
    """A version as indexes and uv have it (PEP 440); metadata may have it in other words."""
    from packaging.version import InvalidVersion, Version

    try:
        return str(Version(text))
    except InvalidVersion:
        return text


def _direct_urls(asked: Request) -> dict[str, str]:
    """The URLs in the requirement files, by name, as they stand there."""
    found = {}
    for line in asked.sources.lines:
        direct = requirements.DIRECT.match(line.text)
        if direct:
            found[line.name] = direct["place"]
    return found


def who_wants(
    asked: Request, installed: Sequence[Sequence[Any]], environment: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Who wants each package, as uv says it: `-c FILE` for a line of constraints, `-r FILE` for one
    of requirements, and the packages that require it.

    `installed` are name, version and requirements (PEP 508) of each; `environment` is what their
    markers are compared with.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    needs: dict[str, list[Requirement]] = {}
    extras: dict[str, set[str]] = {}
    via: dict[str, list[str]] = {}

    def read(text: str) -> Requirement | None:
        try:
            return Requirement(text)
        except InvalidRequirement:
            return None  # of old; pip takes it in its own way, and nobody is told who wants it

    def holds(requirement: Requirement, extra: str) -> bool:
        marker = requirement.marker
        return marker is None or marker.evaluate({**environment, "extra": extra})

    for name, _, wanted in installed:
        needs[normalised(name)] = [one for one in map(read, wanted) if one is not None]
    todo: list[tuple[str, str]] = []

    def add(requirement: Requirement, who: str) -> None:
        name = normalised(requirement.name)
        if name not in needs:
            return
        if who not in via.setdefault(name, []):
            via[name].append(who)
        for extra in ("", *map(normalised, requirement.extras)):
            if extra not in extras.setdefault(name, set()):
                extras[name].add(extra)
                todo.append((name, extra))

    sources = asked.sources
    for line in sources.lines:
        requirement = read(re.sub(r"\s+--\S.*$", "", line.text)) if line.name else None
        if requirement is None or not holds(requirement, ""):
            continue
        if line.path in sources.roots:
            add(requirement, f"-r {line.path}")
        elif line.name in needs and f"-c {line.path}" not in via.setdefault(line.name, []):
            via[line.name].append(f"-c {line.path}")
    while todo:
        name, extra = todo.pop()
        for requirement in needs[name]:
            if holds(requirement, extra):
                add(requirement, name)
    given = {*sources.asked, *sources.constraints}

    def order(who: str) -> tuple[int, bool, str]:
        # What files include stands before what uv is given itself.
        option, _, path = who.partition(" ")
        return (0 if option == "-c" else 1 if option == "-r" else 2), path in given, who

    return {name: tuple(sorted(who, key=order)) for name, who in via.items()}
