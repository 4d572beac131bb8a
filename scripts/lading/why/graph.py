"""Packages of one lock, and who wants them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from msgspec import Struct, field


class Node(Struct, frozen=True, kw_only=True):
    """A locked package: its version, the one file of it that is used, and its size in bytes."""

    name: str
    version: str
    file: str = ""
    size: int | None = None


class Want(Struct, frozen=True, kw_only=True):
    """That something asks for a package.

    by: the package that does; empty for a declaration. where: the declaration's place, as
    "recipes/x/requirements.in:3". text: what is asked, as "numpy>=2"; empty where it is not known.
    """

    by: str = ""
    where: str = ""
    text: str = ""


class Graph(Struct, frozen=True, kw_only=True):
    """The packages of one lock by name, and for each who wants it.

    layer: whose they are, in words: "pip". lock: the lock's path in the project.
    limits: what holds for a package without asking for it, as a line of constraints does.
    note: what can't be known from what is here, and how it can.
    """

    layer: str
    lock: str
    nodes: Mapping[str, Node]
    wants: Mapping[str, tuple[Want, ...]]
    limits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    note: str = ""


Chain = tuple[Want, ...]
"""From a declaration to a package: what is declared, then what each package on the way asks."""


def chains(graph: Graph, name: str) -> list[Chain]:
    """One chain for each that wants the package itself, the shortest there is; shorter ones first.

    One that no declaration leads to, as far as is known, begins with a package, and comes last.
    """
    reached = _reached(graph)
    found: list[Chain] = []
    for want in graph.wants.get(name, ()):
        chain: list[Want] = [want]
        seen = {name}
        while chain[0].by and chain[0].by not in seen and chain[0].by in reached:
            seen.add(chain[0].by)
            chain.insert(0, reached[chain[0].by])
        found.append(tuple(chain))
    return sorted(
        found, key=lambda chain: (bool(chain[0].by), len(chain), chain[-1].by, chain[-1].where)
    )


def _reached(graph: Graph) -> dict[str, Want]:
    """Of each package that a declaration leads to, the want on the shortest way there."""
    below: dict[str, list[tuple[str, Want]]] = {}
    for name, wants in graph.wants.items():
        for want in wants:
            below.setdefault(want.by, []).append((name, want))
    reached: dict[str, Want] = {}
    waiting = deque([""])
    while waiting:
        for name, want in sorted(below.get(waiting.popleft(), ()), key=lambda pair: pair[0]):
            if name not in reached:
                reached[name] = want
                waiting.append(name)
    return reached


def collected(wants: Iterable[tuple[str, Want]]) -> dict[str, tuple[Want, ...]]:
    """Wants by the package that is wanted, each once."""
    found: dict[str, dict[Want, None]] = {}
    for name, want in wants:
        found.setdefault(name, {})[want] = None
    return {name: tuple(each) for name, each in found.items()}
