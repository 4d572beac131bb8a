"""The conda layer, as the pipeline asks for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from lading.conda.activation import Variable
from lading.conda.explicit import Package
from lading.console import counted, size
from lading.errors import DeclarationError
from lading.facts import Facts
from lading.layers import conda, conda_image
from lading.layers.conda import CondaLock, Request
from lading.layers.conda_section import LOCKERS
from lading.layers.kind import Kind, Moves, Subject, Tools
from lading.layers.pip import Below
from lading.moved import Pinned
from lading.parts import Start
from lading.plan import Contribution
from lading.project import Image, Project
from lading.store import Artifact, Source


class Conda(Kind[Request, CondaLock]):
    """conda packages: resolved and installed by py-rattler, into /opt/conda."""

    name = "conda"
    changed = "the packages, the channels, the base's glibc or the options have changed"

    def request(self, subject: Subject) -> Request:
        section = subject.image.conda
        assert section is not None
        return conda.request(
            subject.project.root,
            subject.image.name,
            section,
            subject.facts,
            subject.project.platform,
            subject.image.as_of,
            tuple(subject.image.env),
            below_pip=subject.base.digest if _has_pip(subject) else "",
            values=subject.image.matrix,
        )

    def read(self, folder: Path) -> CondaLock | None:
        return conda.read(folder)

    def lock(self, request: Request, old: CondaLock | None, tools: Tools) -> CondaLock:
        from lading.layers import conda_resolve

        new = conda_resolve.lock(request, old, tools)
        for name, _ in new.scripts:
            tools.note(f"  {name} has a script of its own, which runs while the image is built")
        for variable in new.variables:
            tools.note(f"  {variable.name}={variable.value}, set by {variable.script}")
        return new

    def loosened(self, lock: CondaLock, moves: Moves) -> CondaLock:
        return replace(lock, packages=tuple(p for p in lock.packages if not moves(p.name)))

    def write(self, folder: Path, lock: CondaLock) -> None:
        conda.write(folder, lock)

    def outlook(self, request: Request, old: CondaLock | None, tools: Tools) -> Sequence[Pinned]:
        """Not what packages bring along, for which they would have to be fetched: the variables
        are taken to be the same.
        """
        if request.section.locker != LOCKERS[0]:
            return super().outlook(request, old, tools)
        from lading.conda import explicit
        from lading.conda.channels import Channels
        from lading.layers import conda_resolve

        channels = Channels(environ=tools.environ, named=request.urls)
        body = conda_resolve.solved(request, old, channels, tools)
        packages = explicit.locked(body, "conda.lock")
        variables = old.variables if old is not None else ()
        return tuple(pinned(packages, variables, request.environment))

    def sources(
        self, request: Request, lock: CondaLock, lacking: Sequence[Artifact], tools: Tools
    ) -> Mapping[str, Sequence[Source]]:
        from lading.conda.channels import Channels
        from lading.layers import conda_store

        channels = Channels(environ=tools.environ, named=request.urls)
        return conda_store.sources(lock.packages, lacking, channels)

    def prepare(self, request: Request, lock: CondaLock, tools: Tools) -> None:
        """Makes the prefix that goes in as a whole, of packages that are in the store."""
        from lading.layers import conda_store

        if request.section.installer == "rattler":
            conda_store.prepared(request, lock, tools)

    def prepared(self, request: Request, lock: CondaLock, tools: Tools) -> bool:
        """Whether there is nothing left to prepare: one stat."""
        by_conda = request.section.installer == "conda"
        return by_conda or tools.store.has_derived(lock.key, conda.TAR)

    def contribute(self, request: Request, lock: CondaLock, start: Start) -> Contribution:
        return conda_image.contribute(request, lock)

    def pinned(self, lock: CondaLock) -> Sequence[Pinned]:
        return tuple(pinned(lock.packages, lock.variables))

    def summary(self, request: Request, lock: CondaLock) -> str:
        total = sum(package.size or 0 for package in lock.packages)
        return f"{counted(len(lock.packages), 'conda package')}, {size(total)}"

    def facts(self, lock: CondaLock, facts: Facts) -> Facts:
        if not lock.python_version:
            return facts
        return replace(
            facts, python=f"{lock.prefix}/bin/python", python_version=lock.python_version
        )


def pinned(
    packages: Iterable[Package], variables: Iterable[Variable], part: str = ""
) -> Iterator[Pinned]:
    """What a conda lock pins, and the variables that follow from it; `part` is the environment, of
    several.
    """
    for package in packages:
        yield Pinned(
            what="conda",
            part=part,
            name=package.name,
            forms=(package.version, package.file, f"{package.channel}/{package.file}"),
            sha256=package.sha256,
            size=package.size,
        )
    for variable in variables:
        name = f"${variable.name}"
        yield Pinned(what="conda", part=part, name=name, forms=(f'"{variable.value}"',))


def below(subject: Subject) -> Below | None:
    """What pip's packages go on top of; None where conda brings no Python, and they go into an
    environment of the base's. Raises `DeclarationError` for a prefix that they can't go into.
    """
    image, lock = subject.image, subject.locks.get("conda")
    if image.conda is None or not isinstance(lock, CondaLock):
        return None
    where = f"images.{image.name}"
    facts = subject.base.facts
    own = conda.own(conda.placed(f"{where}.conda", image.conda, facts), facts)
    python = next((package for package in lock.packages if package.name == "python"), None)
    if python is None and not (own and subject.facts.python.startswith(f"{lock.prefix}/")):
        if pip_requirements(subject.project, image) is not None:
            raise DeclarationError(
                f"{where}: {image.conda.file} has a section `pip:`, but conda installs no Python",
                do="add python to its dependencies",
            )
        return None
    if python and re.search(r"pypy|_cp[0-9]+t(?:_|$)", python.stem.rsplit("-", 1)[1]):
        raise DeclarationError(
            f"{where}: pip's packages are locked for CPython with its lock, and conda installs "
            f"{python.stem}",
            do="ask for another python, as python=3.12=*_cpython",
        )

    def stage(tools: Tools) -> Path:
        from lading.conda.channels import Channels
        from lading.layers import conda_store

        asked = CONDA.request(subject)
        conda_store.fetched(lock.packages, Channels(environ=tools.environ, named=asked.urls), tools)
        return conda_store.prepared(asked, lock, tools)

    return Below(
        prefix=lock.prefix,
        distributions=constraints(lock),
        key=lock.key,
        stage=None if own else stage,
    )


def _has_pip(subject: Subject) -> bool:
    return subject.image.pip is not None or (
        pip_requirements(subject.project, subject.image) is not None
    )


def constraints(lock: CondaLock) -> Mapping[str, str]:
    """The Python packages that a conda layer installs, normalised name (PEP 503) to version: what
    pip on top of it takes for installed. Read from the packages' own metadata.
    """
    return lock.distributions


def pip_requirements(project: Project, image: Image) -> tuple[str, bytes] | None:
    """The `pip:` section of an image's environment.yaml as a file of requirements: the YAML's path,
    and its lines where they stand there; None without one. Raises `DeclarationError`.
    """
    if image.conda is None or not image.conda.file:
        return None
    wanted = conda.read_wanted(project.root, image.name, image.conda, values=image.matrix)
    text = ""
    for line, where in wanted.pip:
        number = int(where.rpartition(":")[2])
        text += "\n" * (number - 1 - text.count("\n")) + line + "\n"
    return (image.conda.file, text.encode()) if text else None


def comparison(lock: CondaLock) -> str:
    """What activation would set and the image sets instead, for `doit env:NAME` to print."""
    if not lock.variables:
        return "no package sets variables when conda activates\n"

    def line(variable: Variable) -> str:
        rest = ":$PATH" if variable.name == "PATH" else ""
        return f"+{variable.name}={variable.value}{rest}  # {variable.script}\n"

    return "".join(map(line, lock.variables))


CONDA = Conda()
