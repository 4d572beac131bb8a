"""Who wants a source: the image, or another source that needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from lading.layers.source import SourceLock
from lading.layers.source_section import SourceBuild
from lading.why.graph import Graph, Node, Want, collected


def of(
    asked: Iterable[str],
    sources: Iterable[SourceBuild],
    locks: Mapping[str, SourceLock],
    *,
    folder: str,
    place: Callable[[str], str],
    declared: Callable[[str], str],
) -> Graph:
    """The sources of an image. asked: those that it names; `place` says where it does, `declared`
    where a source's version stands. folder: where sources have their locks in the project.
    """
    sources = list(sources)
    nodes = {
        one.name: Node(
            name=one.name,
            version=locks[one.name].version,
            file=locks[one.name].artifact.name,
            size=locks[one.name].artifact.size,
        )
        for one in sources
        if one.name in locks
    }
    wants = [(name, Want(where=place(name), text=name)) for name in asked]
    wants += [(name, Want(by=one.name, text=name)) for one in sources for name in one.needs]
    return Graph(
        layer="compiled from source",
        lock=folder,
        nodes=nodes,
        wants=collected(wants),
        limits={one.name: (f"{declared(one.name)}: version {one.version}",) for one in sources},
    )
