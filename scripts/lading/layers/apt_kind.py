"""The apt layer, as the pipeline asks for it."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from lading import debian
from lading.console import counted, size
from lading.facts import Facts
from lading.layers import apt, apt_image
from lading.layers.apt import AptLock, Request
from lading.layers.apt_section import AptSection
from lading.layers.kind import Kind, Moves, Subject, Tools
from lading.layers.pip import PipLock
from lading.layers.source_section import in_order
from lading.moved import Pinned
from lading.parts import Start
from lading.plan import Contribution
from lading.project import Image, Project
from lading.store import Artifact, Source

DISTUTILS = "python3-distutils"


class Apt(Kind[Request, AptLock]):
    """Debian packages, resolved by the base's own apt, installed with no network."""

    name = "apt"
    changed = "the packages, or what is installed on the base, have changed"

    def wanted(self, image: Image, project: Project) -> bool:
        if image.apt is not None or not image.source:
            return image.apt is not None
        return bool(section_of(image, project).run)

    def request(self, subject: Subject) -> Request:
        return Request(
            image=subject.image.name,
            section=section_of(subject.image, subject.project),
            base=subject.base,
            platform=subject.project.platform,
            implied=implied(subject),
            as_of=subject.image.as_of,
            declared=declared(subject.image, subject.project),
            for_pip=for_pip(subject),
        )

    def read(self, folder: Path) -> AptLock | None:
        return apt.read(folder)

    def lock(self, request: Request, old: AptLock | None, tools: Tools) -> AptLock:
        from lading.layers import apt_resolve

        if request.as_of is not None:
            tools.note(
                f"  {request.image}: as-of does not reach Debian's packages: its mirrors have "
                "only today's"
            )

        def resolved(sets: Mapping[str, Sequence[str]]) -> apt_resolve.Resolved:
            return apt_resolve.resolve(
                sets,
                request.base,
                tools,
                old=old.debs if old else (),
                what=", ".join(request.declared),
            )

        found = resolved(request.sets)
        _, version = debian.python_of(found.sets.get("run", ()))
        if request.for_pip and version and debian.lacks_distutils(version):
            more = {name: (*asked, DISTUTILS) for name, asked in request.sets.items() if asked}
            found = resolved(more)
        if found.unpinned:
            tools.note(
                f"  {request.image}: the locked versions no longer fit; all are resolved anew"
            )
        for name, (was, now) in sorted(found.replaced.items()):
            tools.note(f"  {name}: the base's {was} is replaced by {now}")
        return apt.made(
            found.sets,
            old,
            inputs=request.digest,
            command=f"doit lock:{request.image}",
            what=request.image,
        )

    def loosened(self, lock: AptLock, moves: Moves) -> AptLock:
        return loosened(lock, moves)

    def write(self, folder: Path, lock: AptLock) -> None:
        apt.write(folder, lock)

    def sources(
        self, request: Request, lock: AptLock, lacking: Sequence[Artifact], tools: Tools
    ) -> Mapping[str, Sequence[Source]]:
        from lading.layers import apt_resolve

        wanted = {artifact.sha256 for artifact in lacking}
        debs = [deb for deb in lock.debs if deb.sha256 in wanted]
        return debian.locate(debs, apt_resolve.mirrors_of(request.base, tools))

    def artifacts(self, lock: AptLock, used: Container[str]) -> Sequence[Artifact]:
        """Packages to build with only where something is built with them."""
        return [one for one in lock.artifacts if one.sha256 in used]

    def contribute(self, request: Request, lock: AptLock, start: Start) -> Contribution:
        return apt_image.contribute(lock)

    def facts(self, lock: AptLock, facts: Facts) -> Facts:
        """With the Python that these packages bring to what has none."""
        python, version = debian.python_of(lock.sets.get("run", ()))
        if facts.python or not python:
            return facts
        return replace(facts, python=python, python_version=version)

    def pinned(self, lock: AptLock) -> Sequence[Pinned]:
        return pinned(lock)

    def summary(self, request: Request, lock: AptLock) -> str:
        total = sum(deb.size for deb in lock.debs)
        kept = len(lock.sets.get("run", ()))
        among = f" ({kept} in the image)" if "build" in lock.sets else ""
        return f"{counted(len(lock.debs), 'Debian package')}{among}, {size(total)}"


def section_of(image: Image, project: Project) -> AptSection:
    """The packages of an image, with those that its sources need to run."""
    declared = image.apt or AptSection()
    needed = [
        package
        for source in in_order(image.source, project.sources)
        for package in source.apt.run
        if package not in declared.run
    ]
    return replace(declared, run=(*declared.run, *dict.fromkeys(needed)))


def declared(image: Image, project: Project) -> tuple[str, ...]:
    """Where the packages of an image are declared: with it, and with its sources."""
    own = (f"images.{image.name}.apt",) if image.apt is not None else ()
    known = set(image.apt.run) if image.apt is not None else set()
    return own + tuple(
        f"sources.{source.name}.apt.run"
        for source in in_order(image.source, project.sources)
        if not known.issuperset(source.apt.run)
    )


def for_pip(subject: Subject) -> bool:
    """Whether pip's packages are for the Python that is among these: nothing below brings one."""
    return subject.image.pip is not None and not subject.facts.python


def implied(subject: Subject) -> tuple[str, ...]:
    """What is needed to build Python packages, where there is something to build with: the
    headers of Debian's own Python. Where that is yet to come, so are pip's packages, of which
    nobody knows whether one is built.
    """
    image, pip = subject.image, subject.locks.get("pip")
    if image.apt is None or not image.apt.build or subject.base.facts.package_manager != "apt":
        return ()
    built = image.pip is not None and bool(image.pip.no_binary)
    if isinstance(pip, PipLock):
        built = built or any(not pin.is_wheel for pin in pip.pins)
    named = {package.partition("=")[0] for package in (*image.apt.build, *image.apt.run)}
    debians = subject.facts.python == "/usr/bin/python3"
    if not (for_pip(subject) or (built and debians)) or "python3-dev" in named:
        return ()
    return ("python3-dev",)


def loosened(lock: AptLock, moves: Moves) -> AptLock:
    """The lock without the packages that are to move."""
    kept = {
        name: tuple(deb for deb in debs if not moves(deb.name)) for name, debs in lock.sets.items()
    }
    return replace(lock, sets=kept)


def pinned(lock: AptLock, part: str = "") -> tuple[Pinned, ...]:
    """What a lock of Debian packages pins; `part` says what they are for, if not for the image."""
    found: list[Pinned] = []
    for deb in lock.debs:
        sets = ", ".join(name for name in apt.SETS if deb in lock.sets.get(name, ()))
        found.append(
            Pinned(
                what="apt",
                part=part,
                name=deb.name,
                forms=(deb.version, f"{deb.version} ({sets})"),
                sha256=deb.sha256,
                size=deb.size,
            )
        )
    return tuple(found)


APT = Apt()
