"""What project.yaml has already, read leniently: what is wrong in it is said by `load`, later."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from lading import references
from lading.errors import DeclarationError
from lading.schema import nodes

DEBIAN = {"debian": {"suite": "trixie", "packages": ["python3"]}}
DEBIAN_NAME = "debian-13"


class Known(Struct, frozen=True, kw_only=True):
    """bases: by name, the image's reference or nothing; sources: by name, the version; images: by
    name, the base.
    """

    bases: Mapping[str, str]
    sources: Mapping[str, str]
    images: Mapping[str, str]

    @property
    def usual(self) -> str:
        """The base that most images start from, else the first one."""
        used = Counter(base for base in self.images.values() if base in self.bases)
        most = used.most_common(1)
        return most[0][0] if most else next(iter(self.bases), DEBIAN_NAME)


def read(text: str) -> Known:
    """Raises `DeclarationError` where it is no YAML."""
    try:
        tree = _map(nodes.read(text.removeprefix("\ufeff")))
    except nodes.UnreadableError as error:
        raise DeclarationError(f"project.yaml:{error.line}: {error.message}") from None

    def each(section: str, key: str) -> dict[str, str]:
        return {name: _text(_map(one).get(key)) for name, one in _map(tree.get(section)).items()}

    return Known(
        bases=each("bases", "image"),
        sources=each("sources", "version"),
        images=each("images", "base"),
    )


def _map(node: nodes.Node | None) -> dict[str, nodes.Node]:
    pairs = node.pairs if isinstance(node, nodes.MapNode) else []
    return {key.text: value for key, value in pairs if isinstance(key, nodes.ScalarNode)}


def _text(node: nodes.Node | None) -> str:
    return node.text if isinstance(node, nodes.ScalarNode) else ""


def base(known: Known, wanted: str) -> tuple[str, dict[str, Any] | None]:
    """The name of the base that is wanted, by its name or as an image's reference, and its
    definition if it has to be declared. Raises `DeclarationError` for what is neither.
    """
    if not wanted:
        wanted = known.usual
    if wanted in known.bases:
        return wanted, None
    if wanted == DEBIAN_NAME and not known.bases:
        return wanted, DEBIAN
    reference = references.parse(wanted)
    for name, declared in known.bases.items():
        if declared and _same(declared, reference):
            return name, None
    if not re.search("[:/@]", wanted):
        names = ", ".join(known.bases) or "none"
        raise DeclarationError(
            f"there is no base called {wanted!r}",
            why=f"the bases in project.yaml: {names}",
            do=f"an image in a registry is named with its tag, as {wanted}:latest",
        )
    whole = f"{reference.registry}/{reference.repository}:{reference.tag}"
    if reference.digest:
        whole += f"@{reference.digest}"
    last = reference.repository.rpartition("/")[2]
    plain = re.sub(r"[^a-z0-9.]+", "-", f"{last}-{reference.tag}".lower())
    made = re.sub(r"([.-])[.-]+", r"\1", plain).strip(".-")[:60].strip(".-")
    name, number = made, 1
    while name in known.bases:
        number += 1
        name = f"{made}-{number}"
    return name, {"image": whole}


def _same(declared: str, wanted: references.Reference) -> bool:
    try:
        found = references.parse(declared)
    except DeclarationError:
        return False
    names = [(one.registry, one.repository, one.tag, one.digest) for one in (found, wanted)]
    return names[0] == names[1]
