"""Who wants a conda package: out of the lock itself, which has what each package depends on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from lading.conda.environment import Environment
from lading.layers.conda import CondaLock
from lading.why.graph import Graph, Node, Want, collected

_LINE = re.compile(r"(?m)^(?:- conda: \S+/(?P<file>[^/\s]+)|  (?P<key>\w+):.*|  - (?P<item>.+))$")


def of(
    lock: CondaLock,
    wanted: Environment,
    *,
    layer: str,
    folder: str,
    place: Callable[[str, str], str],
    above: Iterable[tuple[str, Want]] = (),
) -> Graph:
    """The packages of a prefix. folder: where the lock is in the project. `place` says where a
    spec stands, from what the environment says of it and its text. above: what else is asked of
    them, by pip's packages on top.
    """
    nodes = {
        package.name: Node(
            name=package.name, version=package.version, file=package.file, size=package.size
        )
        for package in lock.packages
    }
    wants = [
        (spec.name, Want(where=place(spec.where, spec.text), text=spec.text))
        for spec in wanted.specs
        if spec.name in nodes
    ]
    wants += above
    limits: dict[str, tuple[str, ...]] = {}
    for package, key, text in entries(lock.texts["conda.lock"]):
        name = text.partition(" ")[0]
        if key == "depends":
            wants.append((name, Want(by=package, text=text)))
        elif key == "constrains":
            said = f"{package} {nodes[package].version}: {text}" if package in nodes else text
            limits[name] = (*limits.get(name, ()), said)
    return Graph(
        layer=layer,
        lock=f"{folder}/conda.lock",
        nodes=nodes,
        wants={name: found for name, found in collected(wants).items() if name in nodes},
        limits=limits,
    )


def entries(text: str) -> list[tuple[str, str, str]]:
    """Of a LockFile's packages: the package's name, "depends" or "constrains", and a spec."""
    found: list[tuple[str, str, str]] = []
    package = key = ""
    for line in _LINE.finditer(text, text.find("\npackages:\n") + 1):
        if line["file"]:
            package, key = line["file"].rsplit("-", 2)[0], ""
        elif line["key"]:
            key = line["key"]
        elif key in ("depends", "constrains"):
            found.append((package, key, line["item"].strip("'\"")))
    return found
