"""What Debian packages ask of each other, out of their control fields (Debian policy 7)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_RELATION = re.compile(r"\s*(?P<name>[a-z0-9][a-z0-9+.-]*)(?::\w+)?\s*(?:\((?P<range>[^)]*)\))?")


def relations(control: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """The packages that a control file depends on, each alternative by itself, with the whole
    relation (Debian policy 7.1).
    """
    for key in ("Pre-Depends", "Depends"):
        for relation in filter(None, map(str.strip, control.get(key, "").split(","))):
            for alternative in relation.split("|"):
                found = _RELATION.match(alternative)
                if found:
                    yield found["name"], " ".join(relation.split())


def provided(controls: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """Virtual packages, and who provides them."""
    found: dict[str, list[str]] = {}
    for name, control in controls.items():
        for text in filter(None, control.get("Provides", "").split(",")):
            match = _RELATION.match(text)
            if match:
                found.setdefault(match["name"], []).append(name)
    return found
