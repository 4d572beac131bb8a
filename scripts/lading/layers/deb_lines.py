"""A .deb as one line of a lock, so that two locks compare well."""

from __future__ import annotations

import json
import re

from lading.debian import Deb

QUOTED = r'"(?:[^"\\]|\\.)*"'
FIELDS = (
    rf"name: (?P<name>[^\s,]+), version: (?P<version>{QUOTED}), "
    rf"architecture: (?P<architecture>[^\s,]+), path: (?P<path>{QUOTED}), "
    r"size: (?P<size>\d+), sha256: (?P<sha256>[0-9a-f]{64})"
)
"""What `fields` writes, as a regular expression."""


def fields(deb: Deb) -> str:
    """The fields of a package, as they stand in a YAML mapping in one line."""
    return (
        f"name: {deb.name}, version: {json.dumps(deb.version)}, "
        f"architecture: {deb.architecture}, path: {json.dumps(deb.path)}, "
        f"size: {deb.size}, sha256: {deb.sha256}"
    )


def deb_of(found: re.Match[str]) -> Deb:
    """The package that `FIELDS` found. Raises ValueError for a text that JSON does not know."""
    return Deb(
        name=found["name"],
        version=json.loads(found["version"]),
        architecture=found["architecture"],
        path=json.loads(found["path"]),
        size=int(found["size"]),
        sha256=found["sha256"],
    )
