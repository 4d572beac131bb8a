"""why: who wants a package that is in an image, and what bounds its version; from locks alone."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lading import requirements
from lading.errors import LadingError
from lading.facts import Facts
from lading.layers import apt, pip_kind, source_section
from lading.layers import base as bases
from lading.layers import conda as conda_layer
from lading.layers.apt import AptLock
from lading.layers.apt import Request as AptRequest
from lading.layers.apt_kind import APT
from lading.layers.apt_section import AptSection
from lading.layers.base import BaseLock
from lading.layers.conda import CondaLock
from lading.layers.kind import Lock
from lading.layers.pip import PipLock
from lading.layers.pip_section import PipSection
from lading.layers.source_section import SourceBuild
from lading.project import Base, Image
from lading.requirements import normalised
from lading.schema.places import Places
from lading.state import State
from lading.why import compiled, condas, debs, python
from lading.why.graph import Graph, Want
from lading.why.words import told


def explained(state: State, image: Image, package: str, every: bool = False) -> str:
    """Why the package is in the image, once for each layer that has it.

    Raises `LadingError` where none has: with names that are near, and the images that have it.
    """
    graphs = list(_graphs(state, image))
    found = [(graph, name) for graph in graphs for name in _named(graph, package)]
    if not found:
        raise _absent(state, image, package, graphs)
    said = [
        # A day is for Python and conda packages only: Debian's mirrors have today's.
        told(graph, name, image.as_of if graph.layer.startswith(("pip", "conda")) else None, every)
        for graph, name in found
    ]
    others = _elsewhere(state, image, package)
    if others:
        said.append(f"also in {', '.join(others)}")
    return "\n\n".join(said)


def _named(graph: Graph, package: str) -> list[str]:
    """The package in a graph, by its own name or another spelling of it (PEP 503)."""
    if package in graph.nodes:
        return [package]
    wanted = normalised(package)
    return [name for name in graph.nodes if normalised(name) == wanted]


def _absent(state: State, image: Image, package: str, graphs: list[Graph]) -> LadingError:
    here = sorted({name for graph in graphs for name in graph.nodes})
    near = difflib.get_close_matches(package.lower(), here, n=3, cutoff=0.6)
    others = _elsewhere(state, image, package)
    hints = [f"did you mean {' or '.join(near)}?"] if near else []
    hints += [f"it is in {', '.join(others)}"] if others else []
    lock = "" if graphs else f"`doit lock:{image.name}{state.at}` locks what goes in"
    base = state.base_of(image)
    why = ""
    if base.debian is None:
        why = f"of the base {base.name}, an image, only the digest is locked: what is in it is not"
        why += " known here"
    return LadingError(
        f"{image.name}{state.at} has no package {package} in its locks",
        why=why,
        do="; ".join(hints) or lock,
    )


def _elsewhere(state: State, image: Image, package: str) -> list[str]:
    """The other images that have the package, each with its version there."""
    found: list[str] = []
    wanted = normalised(package)
    for other in state.project.images.values():
        if other.name == image.name:
            continue
        versions = {
            one.forms[0]
            for kind in state.kinds(other)
            if (lock := _readable(state, other, kind.name)) is not None
            for one in kind.pinned(lock)
            if not one.part and normalised(one.name) == wanted
        }
        if versions:
            found.append(f"{other.name}{state.at} ({', '.join(sorted(versions))})")
    return found


def _readable(state: State, image: Image, kind: str) -> Lock | None:
    found = next(one for one in state.kinds(image) if one.name == kind)
    try:
        return state.layer_lock(image, found)
    except LadingError:
        return None


# -- the graphs of an image -----------------------------------------------------------------


def _graphs(state: State, image: Image) -> Iterator[Graph]:
    """All that is locked for an image, the topmost layer first. Raises `LadingError` for a lock
    that is damaged, or not there.
    """
    places = Places(state.project.root / "project.yaml")
    found = {kind.name: state.layer_lock(image, kind) for kind in state.kinds(image)}
    if None in found.values():
        name = f"{image.name}{state.at}"
        raise LadingError(f"{name} is not locked yet", do=f"doit lock:{name}")
    base, base_lock = state.base_of(image), state.base_lock(state.base_of(image))
    for name, lock in reversed(found.items()):
        if isinstance(lock, PipLock):
            yield from _python(state, image, lock, places)
        elif isinstance(lock, CondaLock):
            pip = found.get("pip") if name == "conda" else None
            yield _conda(state, image, name, lock, pip, places)
        elif isinstance(lock, AptLock):
            yield _apt(state, image, lock, places)
    if image.source:
        yield _compiled(state, image, places)
        for source in state.sources_of(image):
            tools = state.tools_lock(source, base)
            if tools is not None:
                yield _tools(state, source, base, tools, places)
    if base_lock is not None and base.debian is not None:
        yield _debs(
            state,
            base_lock,
            {
                f"bases.{base.name}.debian.packages": base.debian.packages,
                "Debian's minimal system": ("apt",),
            },
            places,
            f"in the base {base.name}",
            bases.path(state.project.root, base.name, state.project.platform),
            f"doit build:base:{base.name}{state.at}",
        )


def _section(image: Image) -> tuple[str, str]:
    """Where project.yaml declares the image: a variant, with all that come of its matrix."""
    return "images", image.variant_of or image.name


def _keys(where: str) -> list[str]:
    """The keys of a path in project.yaml; the name, in its middle, may have dots."""
    section, _, rest = where.partition(".")
    for known in (".debian.packages", ".apt.build", ".apt.run", ".conda.packages"):
        if rest.endswith(known):
            return [section, rest.removesuffix(known), *known[1:].split(".")]
    return [section, rest]


def _inside(state: State, path: Path) -> str:
    """A path as it is in the project."""
    return str(path.relative_to(state.project.root))


def _python(state: State, image: Image, lock: PipLock, places: Places) -> Iterator[Graph]:
    section = image.pip or PipSection()
    given = pip_kind.of_environment(image, state.project)
    yield from python.of(
        lock,
        requirements.read(
            state.project.root, section.requirements, section.constraints, given, image.matrix
        ),
        section,
        _facts(state, image),
        state.project.platform,
        state.store,
        folder=_inside(state, state.lock_folder(image)),
        fetch=f"doit fetch:{image.name}{state.at}",
        place=lambda key, text: places.of(
            ["images", image.variant_of or image.name, "pip", key], text
        ),
    )


def _facts(state: State, image: Image) -> Facts:
    """The facts that hold for pip's packages. Raises `LadingError` where the base is not locked."""
    base_lock = state.base_lock(state.base_of(image))
    if base_lock is None:
        raise LadingError(
            f"the base {image.base} is not locked", do=f"doit lock:base:{image.base}{state.at}"
        )
    facts = base_lock.facts
    for kind in state.kinds(image):
        if kind.name == "conda" and (below := state.layer_lock(image, kind)) is not None:
            facts = kind.facts(below, facts)
    return facts


def _conda(
    state: State, image: Image, name: str, lock: CondaLock, pip: Lock | None, places: Places
) -> Graph:
    assert image.conda is not None
    named = name.partition(":")[2]
    section = image.conda.environments[named] if named else image.conda
    wanted = conda_layer.read_wanted(state.project.root, image.name, section, named, image.matrix)
    folder = _inside(state, state.lock_folder(image))
    above: Sequence[tuple[str, Want]] = ()
    if isinstance(pip, PipLock):
        names = [package.name for package in lock.packages]
        above = python.of_conda(
            pip, names, _facts(state, image), state.project.platform, state.store
        )
    return condas.of(
        lock,
        wanted,
        layer=f"conda, in {lock.prefix}" if named else "conda",
        folder=f"{folder}/conda/{named}" if named else folder,
        place=lambda where, text: _placed(image, where, text, places),
        above=above,
    )


def _placed(image: Image, where: str, text: str, places: Places) -> str:
    """Where a spec stands: a line of a file already, or a key of project.yaml."""
    head = f"images.{image.name}."
    if not where.startswith(head):
        return where
    return places.of(
        ["images", image.variant_of or image.name, *where.removeprefix(head).split(".")], text
    )


def _apt(state: State, image: Image, lock: AptLock, places: Places) -> Graph:
    own = image.apt or AptSection()
    section = ".".join(_section(image))
    wanted = {f"{section}.apt.{key}": getattr(own, key) for key in ("build", "run")}
    for source in state.sources_of(image):
        wanted[f"sources.{source.name}.apt.run"] = source.apt.run
    asked = state.request(image, APT)
    if isinstance(asked, AptRequest):
        wanted["lading, to build Python packages"] = asked.implied
    path = state.lock_folder(image) / apt.FILE
    return _debs(state, lock, wanted, places, "apt", path, f"doit fetch:{image.name}{state.at}")


def _tools(state: State, source: SourceBuild, base: Base, lock: AptLock, places: Places) -> Graph:
    needed = source_section.in_order((source.name,), state.project.sources)
    wanted = {
        f"sources.{one.name}.apt.{key}": tuple(getattr(one.apt, key))
        for one in needed
        for key in ("build", "run")
    }
    asked = state.tools_request(source, base)
    known = {package for packages in wanted.values() for package in packages}
    every = asked.sets["build"] if asked is not None else ()
    wanted[f"lading, to compile {source.name}"] = tuple(one for one in every if one not in known)
    layer = f"apt, to compile {source.name} on {base.name}"
    path = state.tools_file(source, base)
    return _debs(
        state,
        lock,
        wanted,
        places,
        layer,
        path,
        f"doit build:source:{source.name}@{base.name}{state.at}",
    )


def _debs(
    state: State,
    lock: AptLock | BaseLock,
    wanted: Mapping[str, Sequence[str]],
    places: Places,
    layer: str,
    path: Path,
    fetch: str,
) -> Graph:
    def place(where: str, text: str) -> str:
        return places.of(_keys(where), text) if "." in where else where

    return debs.of(
        lock.debs,
        wanted,
        state.store,
        layer=layer,
        lock=_inside(state, path),
        fetch=fetch,
        place=place,
    )


def _compiled(state: State, image: Image, places: Places) -> Graph:
    sources = state.sources_of(image)
    found = {one.name: state.source_lock(one) for one in sources}
    return compiled.of(
        image.source,
        sources,
        {name: lock for name, lock in found.items() if lock is not None},
        folder="locks/sources",
        place=lambda name: places.of([*_section(image), "source"], name),
        declared=lambda name: places.of(["sources", name, "version"]),
    )
