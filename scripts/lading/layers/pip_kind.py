"""The pip layer, as the pipeline asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from lading import debian, net
from lading.console import counted, size
from lading.errors import DeclarationError
from lading.layers import pip, pip_image
from lading.layers.apt import AptLock
from lading.layers.apt_lent import Lent
from lading.layers.kind import Kind, Moves, Subject, Tools
from lading.layers.pip import Below, PipLock, Request
from lading.layers.pip_section import LOCKERS, PipSection
from lading.moved import Pinned, Withdrawn
from lading.parts import Start
from lading.plan import Contribution
from lading.project import Image, Project
from lading.requirements import Pin, normalised
from lading.store import Artifact, Source


class Pip(Kind[Request, PipLock]):
    """Python packages: `requirements.in`, and the `pip:` of an environment.yaml, locked with uv;
    installed into /opt/venv, or, where conda brings the Python, into its prefix.
    """

    name = "pip"
    changed = "the requirements, the base's Python or the options have changed"

    def wanted(self, image: Image, project: Project) -> bool:
        return image.pip is not None or bool(of_environment(image, project))

    def request(self, subject: Subject) -> Request:
        image = subject.image
        return pip.request(
            subject.project.root,
            image.name,
            image.pip or PipSection(),
            subject.facts,
            subject.project.platform,
            image.as_of,
            below=_below(subject),
            given=of_environment(image, subject.project),
            lent=_lent(subject),
            values=image.matrix,
        )

    def read(self, folder: Path) -> PipLock | None:
        return pip.read(folder)

    def adopted(self, folder: Path) -> PipLock | None:
        """The versions in it, where Dependabot, Renovate or a person has written into it."""
        from lading.layers import pip_adopted

        return pip_adopted.read(folder)

    def completed(self, old: PipLock, new: PipLock) -> PipLock:
        from lading.layers import pip_adopted

        return pip_adopted.completed(old, new)

    def lock(self, request: Request, old: PipLock | None, tools: Tools) -> PipLock:
        from lading.layers import pip_in_base

        environment = net.uv_environment(tools.environ)
        by = None
        if request.section.locker != LOCKERS[0]:
            from lading.layers import pip_locker

            by = partial(pip_locker.answered, request, old, tools)
        new = pip.lock(
            request,
            old,
            tools.store,
            environment,
            in_base=lambda: pip_in_base.runner(request, old, tools),
            asks_for=pip_in_base.asks_for(request, old, tools),
            note=tools.note,
            by=by,
        )
        expected = set(map(normalised, request.section.no_binary))
        for pin in new.pins:
            if not pin.is_wheel and not expected & {pin.name, ":all:"}:
                tools.note(f"  {pin.name} {pin.version} has no wheel here: it will be built")
        return new

    def loosened(self, lock: PipLock, moves: Moves) -> PipLock:
        def kept(pins: Iterable[Pin]) -> tuple[Pin, ...]:
            return tuple(pin for pin in pins if not moves(pin.name))

        return replace(
            lock,
            pins=kept(lock.pins),
            build={name: kept(pins) for name, pins in lock.build.items()},
            installer_moves=moves(lock.installer.name),
        )

    def write(self, folder: Path, lock: PipLock) -> None:
        pip.write(folder, lock)

    def left(self, folder: Path, lock: PipLock) -> set[str]:
        return pip.left(folder, lock)

    def sources(
        self, request: Request, lock: PipLock, lacking: Sequence[Artifact], tools: Tools
    ) -> Mapping[str, Sequence[Source]]:
        wanted = {artifact.sha256 for artifact in lacking}
        pins = [pin for pin in lock.all_pins if pin.artifact.sha256 in wanted]
        return pip.sources(request, pins, net.uv_environment(tools.environ))

    def contribute(self, request: Request, lock: PipLock, start: Start) -> Contribution:
        return pip_image.contribute(start, request.facts, lock, request)

    def pinned(self, lock: PipLock) -> Sequence[Pinned]:
        found = [*pinned(lock.pins), *pinned([lock.installer], "to install them")]
        for name, pins in sorted(lock.build.items()):
            found += pinned(pins, f"to build {name}")
        return found

    def withdrawn(self, request: Request, lock: PipLock, tools: Tools) -> Sequence[Withdrawn]:
        return pip.withdrawn(request, lock.pins, net.uv_environment(tools.environ))

    def summary(self, request: Request, lock: PipLock) -> str:
        total = sum(pin.artifact.size or 0 for pin in lock.pins)
        return f"{counted(len(lock.pins), 'package')}, {size(total)}"


def of_environment(image: Image, project: Project) -> dict[str, bytes]:
    """The `pip:` section of the image's environment.yaml, as a file of requirements."""
    if image.conda is None or not image.conda.file.endswith((".yaml", ".yml")):
        return {}
    from lading.layers.conda_kind import pip_requirements

    try:
        found = pip_requirements(project, image)
    except DeclarationError:
        return {}  # the conda layer, which is asked first, says what is wrong with it
    return dict([found]) if found is not None else {}


def _below(subject: Subject) -> Below | None:
    """The conda prefix that pip's packages go into: where conda brings the Python."""
    if "conda" not in subject.locks:
        return None
    from lading.layers.conda_kind import below

    return below(subject)


def _lent(subject: Subject) -> Lent | None:
    """The Debian packages of the image that bring the Python; none where something below does."""
    lock = subject.locks.get("apt")
    if not isinstance(lock, AptLock) or subject.base.facts.python:
        return None
    debs = lock.sets.get("run", ())
    python, _ = debian.python_of(debs)
    return Lent(base=subject.base, debs=debs) if python == subject.facts.python != "" else None


def pinned(pins: Iterable[Pin], part: str = "") -> Iterator[Pinned]:
    """What a lock of Python packages pins; `part` says what they are for, if not for the image."""
    for pin in pins:
        file = pin.artifact
        yield Pinned(
            what="pip",
            part=part,
            name=pin.name,
            # A URL need not tell a version.
            forms=(pin.version or file.name, file.name),
            sha256=file.sha256,
            size=file.size,
        )


PIP = Pip()
