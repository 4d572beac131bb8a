"""Who wants a Python package: out of a pip lock, requirement files, and wheels in the store."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from email.parser import BytesHeaderParser
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from lading.errors import LadingError
from lading.facts import Facts
from lading.layers import sdist
from lading.layers.pip import PipLock
from lading.layers.pip_section import PipSection
from lading.layers.sdist import BROKEN
from lading.requirements import Line, Pin, Sources, normalised
from lading.store import Store
from lading.uv import MACHINES
from lading.why.graph import Graph, Node, Want, collected

Place = Callable[[str, str], str]
"""Where in project.yaml a value of a key stands, in words."""


def of(
    lock: PipLock,
    asked: Sources,
    section: PipSection,
    facts: Facts,
    platform: str,
    store: Store,
    *,
    folder: str,
    fetch: str,
    place: Place,
) -> list[Graph]:
    """What goes in, what builds what has no wheel, and what installs it: a graph each.

    folder: where the lock is in the project. fetch: the command that gets the wheels.
    """
    reader = _Reader(store, facts, platform)
    wants = collected(
        (pin.name, want) for pin in lock.pins for want in _wants(pin, lock.pins, asked, reader)
    )
    graphs = [
        Graph(
            layer="pip",
            lock=f"{folder}/requirements.txt",
            nodes=_nodes(lock.pins),
            wants=wants,
            limits=_limits(asked),
            note=reader.note(fetch),
        )
    ]
    for name, pins in lock.build.items():
        reader = _Reader(store, facts, platform)
        of_it = next((pin for pin in lock.pins if pin.name == name), None)
        begins = reader.build_system(of_it) if of_it is not None else {}
        who = f"to build {name} {of_it.version if of_it else ''}".rstrip()
        graphs.append(
            Graph(
                layer=f"pip, {who}",
                lock=f"{folder}/build-{name}.txt",
                nodes=_nodes(pins),
                wants=collected(
                    (pin.name, want)
                    for pin in pins
                    for want in _to_build(pin, pins, who, begins, reader)
                ),
                limits=_build_limits(section, place),
                note=reader.note(fetch),
            )
        )
    why = Want(where="lading", text="uv installs the packages, with no network")
    return [
        *graphs,
        Graph(
            layer="pip, to install",
            lock=f"{folder}/installer.txt",
            nodes=_nodes([lock.installer]),
            wants={lock.installer.name: (why,)},
        ),
    ]


def of_conda(
    lock: PipLock, names: Iterable[str], facts: Facts, platform: str, store: Store
) -> list[tuple[str, Want]]:
    """What pip's packages ask of those that conda has below them; `names` are those of conda's
    packages.
    """
    reader = _Reader(store, facts, platform)
    called = {normalised(name): name for name in names}
    return [
        (called[name], Want(where=f"pip's {pin.name} {pin.version}", text=text))
        for pin in lock.pins
        for name, text in reader.requirements(pin)
        if name in called
    ]


def _nodes(pins: Sequence[Pin]) -> dict[str, Node]:
    return {
        pin.name: Node(
            name=pin.name, version=pin.version, file=pin.artifact.name, size=pin.artifact.size
        )
        for pin in pins
    }


def _wants(pin: Pin, pins: Sequence[Pin], asked: Sources, reader: _Reader) -> Iterator[Want]:
    """Who wants a package, as its `# via` has it, in the words of who does."""
    by_name = {other.name: other for other in pins}
    for via in pin.via:
        option, _, path = via.partition(" ")
        if option == "-c":
            continue  # it asks for nothing
        if option == "-r":
            lines = [line for line in asked.lines if line.path == path and line.name == pin.name]
            for line in lines:
                yield Want(where=f"{path}:{line.number}", text=line.text)
            if not lines:
                yield Want(where=path, text=pin.url)  # a bare URL, which names no package
            continue
        name = normalised(via.partition("[")[0])
        parent = by_name.get(name)
        yield Want(by=name, text=reader.asks(parent, pin.name) if parent is not None else "")


def _to_build(
    pin: Pin, pins: Sequence[Pin], who: str, begins: Mapping[str, str], reader: _Reader
) -> Iterator[Want]:
    by_name = {other.name: other for other in pins}
    for via in pin.via:
        if via.startswith("-r "):
            yield Want(where=who, text=begins.get(pin.name, pin.name))
        elif not via.startswith("-c "):
            name = normalised(via.partition("[")[0])
            parent = by_name.get(name)
            yield Want(by=name, text=reader.asks(parent, pin.name) if parent is not None else "")


def _limits(asked: Sources) -> dict[str, tuple[str, ...]]:
    """The lines of constraints: of files named with -c, also from within requirement files."""
    found: dict[str, tuple[str, ...]] = {}
    for line in asked.lines:
        if line.name and line.path not in asked.roots:
            found[line.name] = (*found.get(line.name, ()), _said(line))
    return found


def _said(line: Line) -> str:
    return f"{line.path}:{line.number}: {line.text}"


def _build_limits(section: PipSection, place: Place) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for text in section.build_constraints:
        try:
            name = normalised(Requirement(text).name)
        except InvalidRequirement:
            continue
        where = place("build-constraints", text)
        found[name] = (*found.get(name, ()), f"{where}: {text}")
    return found


class _Reader:
    """Reads what packages ask for out of the files in the store; remembers which were not there."""

    def __init__(self, store: Store, facts: Facts, platform: str) -> None:
        self.store = store
        python = facts.python_version
        self.environment = {
            "implementation_name": "cpython",
            "os_name": "posix",
            "platform_machine": MACHINES.get(platform, ""),
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": python,
            "python_version": ".".join(python.split(".")[:2]),
            "sys_platform": "linux",
        }
        self.lacking = False
        self._known: dict[str, tuple[Sequence[str], Sequence[str]]] = {}

    def note(self, fetch: str) -> str:
        if not self.lacking:
            return ""
        return f"what some of them ask stands in files that are not in the store: `{fetch}` gets it"

    def asks(self, parent: Pin, name: str) -> str:
        """What a package asks of another, as "numpy>=1.24"; empty where that is not known."""
        said = [text for wanted, text in self.requirements(parent) if wanted == name]
        return ", ".join(dict.fromkeys(said))

    def requirements(self, pin: Pin) -> Iterator[tuple[str, str]]:
        """All that a wheel asks for here: normalised name, and the requirement in full."""
        required, extras = self._metadata(pin) if pin.is_wheel else ((), ())
        for text in required:
            try:
                one = Requirement(text)
                if not self._holds(one, extras):
                    continue
            except (InvalidRequirement, ValueError):
                continue
            inside = f"[{','.join(sorted(one.extras))}]" if one.extras else ""
            yield normalised(one.name), f"{one.name}{inside}{one.specifier}"

    def _holds(self, one: Requirement, extras: Sequence[str]) -> bool:
        """Whether a requirement is meant here; for whoever asks for which extra is not known."""
        marker = one.marker
        if marker is None:
            return True
        return any(marker.evaluate({**self.environment, "extra": e}) for e in ("", *extras))

    def _metadata(self, pin: Pin) -> tuple[Sequence[str], Sequence[str]]:
        """A wheel's requirements and extras (core metadata: Requires-Dist, Provides-Extra)."""
        sha256 = pin.artifact.sha256
        if sha256 not in self._known:
            self._known[sha256] = (), ()
            if self.store.has(pin.artifact):
                self._known[sha256] = _metadata(self.store.path(sha256))
            else:
                self.lacking = True
        return self._known[sha256]

    def build_system(self, pin: Pin) -> dict[str, str]:
        """What an sdist says that builds it, by name."""
        if not self.store.has(pin.artifact):
            self.lacking = True
            return {}
        try:
            wanted = sdist.build_system(self.store.path(pin.artifact.sha256), pin.artifact.name)
        except LadingError:
            return {}
        return {normalised(Requirement(text).name): text for text in wanted}


def _metadata(wheel: Path) -> tuple[Sequence[str], Sequence[str]]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            name = next(
                n for n in archive.namelist() if n.count("/") == 1 and n.endswith("/METADATA")
            )
            headers = BytesHeaderParser().parsebytes(archive.read(name))
    except (zipfile.BadZipFile, StopIteration, *BROKEN):
        return (), ()
    return headers.get_all("Requires-Dist") or (), headers.get_all("Provides-Extra") or ()
