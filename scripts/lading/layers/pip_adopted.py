"""A lock of Python packages that something else has written into, taken as pins.

Dependabot and Renovate know requirements.txt, and renew a version in it in pip's own form: with the
hashes of all files of the release, without lading's comments, or with stale ones. So does a person
who moves a pin by hand. What such a file says of versions counts, where it still fits; which file
of a release is meant for the image, lading finds out anew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from lading import locks, requirements
from lading.errors import DeclarationError, LadingError
from lading.layers.pip import UNKNOWN, PipLock
from lading.locks import Header
from lading.requirements import Pin

_PINNED = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[^]]*\])?\s*"
    r"(?:===?\s*(?P<version>[A-Za-z0-9][A-Za-z0-9._+!-]*)|@\s*(?P<url>[A-Za-z][A-Za-z0-9+.-]*://\S+))"
    r"\s*(?:;.*?)?(?P<hashes>(?:\s+--hash[= ]\S+)*)"
)


def read(folder: Path) -> PipLock | None:
    """What can be kept of the lock in this folder, which is none of lading's any more; None where
    it is no list of pinned packages either.
    """
    try:
        text = locks.read(folder / "requirements.txt")
        tool = locks.read(folder / "installer.txt")
        found = None if text is None else pins(text, str(folder / "requirements.txt"))
        tools = None if tool is None else pins(tool, str(folder / "installer.txt"))
    except LadingError:
        return None
    if not found:
        return None
    hashes = {pin.name: listed for pin, listed in found}
    return PipLock(
        header=Header(command="", date=locks.today(), inputs=""),
        pins=tuple(pin for pin, _ in found),
        installer=_installer(folder, tools or ()),
        build={},
        texts={},
        hashes=hashes,
    )


def _installer(folder: Path, tools: Sequence[tuple[Pin, frozenset[str]]]) -> Pin:
    """The one that is locked, or its version; one with no version where nothing is known."""
    try:
        text = locks.read(folder / "installer.txt") or ""
        (pin,) = requirements.parse(text, "")
        return pin
    except (LadingError, ValueError):
        version = next((pin.version for pin, _ in tools if pin.name == "uv"), "")
        return Pin(name="uv", version=version, artifact=UNKNOWN)


def pins(text: str, path: str) -> tuple[tuple[Pin, frozenset[str]], ...] | None:
    """The pins of a requirements file in pip's form, each with the sha256 of the files that it
    may be; None where a line pins nothing.
    """
    found: dict[str, tuple[Pin, frozenset[str]]] = {}
    try:
        for line in requirements.lines_of(path, text.encode()):
            if line.text.startswith("-"):
                continue  # an option, as pip-compile writes them: the user's configuration counts
            one = _PINNED.fullmatch(line.text)
            if one is None:
                return None
            name = requirements.normalised(one["name"])
            pin = Pin(
                name=name, version=one["version"] or "", url=one["url"] or "", artifact=UNKNOWN
            )
            listed = requirements.HASH.findall(one["hashes"])
            found[name] = pin, frozenset(sha256.lower() for sha256 in listed)
    except DeclarationError:
        return None
    return tuple(found.values())


def completed(old: PipLock, new: PipLock) -> PipLock:
    """The lock with the files that the same versions have in the one made from it: what has not
    moved is not said to have.
    """
    pins = [*new.pins, new.installer]
    now = {(pin.name, pin.version, pin.url): pin for pin in pins}
    by_url = {pin.url: pin for pin in pins if pin.url}

    def known(pin: Pin) -> Pin:
        if pin.artifact != UNKNOWN:
            return pin
        return by_url.get(pin.url) or now.get((pin.name, pin.version, "")) or pin

    tool = known(old.installer) if old.installer.version else new.installer
    return replace(old, pins=tuple(map(known, old.pins)), installer=tool, build=new.build)
