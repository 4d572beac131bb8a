"""The pip layer: requirement files, locked to one file a package, installed into /opt/venv.

The lock is in pip's own hash-checking form (`requirements.txt`); beside it stand the installer
(uv, for the image's platform) and, for what has no wheel, the locked build requirements.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from lading import locks, requirements, uv
from lading.errors import DeclarationError, EnvironmentProblem, LadingError
from lading.facts import Facts
from lading.files import digest_of, write_text
from lading.layers.apt_lent import Lent
from lading.layers.pip_section import LOCKERS, PipSection
from lading.locks import Header
from lading.moved import Withdrawn
from lading.requirements import Pin, Sources
from lading.store import Artifact, Source, Store

if TYPE_CHECKING:
    from lading.layers.kind import Tools


UNKNOWN = Artifact(name="unknown", sha256="0" * 64)
"""The file of a pin of which no more than the version is known (see pip_adopted)."""


class PipLock(Struct, frozen=True, kw_only=True):
    """A pip lock as read: what is installed, with what, and what builds what has no wheel.

    installer_moves: whether a lock that is made anew takes today's installer.
    hashes: of one that something else has written into (see pip_adopted), which has no texts: the
    sha256 of the files that each package may be.
    """

    header: Header
    pins: tuple[Pin, ...]
    installer: Pin
    build: Mapping[str, tuple[Pin, ...]]
    texts: Mapping[str, str]
    installer_moves: bool = False
    hashes: Mapping[str, frozenset[str]] = {}

    @property
    def all_pins(self) -> tuple[Pin, ...]:
        found = {pin.artifact.sha256: pin for pin in (*self.pins, self.installer)}
        for pins in self.build.values():
            found.update({pin.artifact.sha256: pin for pin in pins})
        return tuple(found.values())

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        return tuple(pin.artifact for pin in self.all_pins)


class Below(Struct, frozen=True, kw_only=True):
    """The conda prefix that pip's packages go into.

    distributions: the Python packages that conda installs there, normalised name (PEP 503) to
    version. key: what the store has of the prefix is under it; `stage` brings it there as a tar,
    unless the base itself has the prefix.
    """

    prefix: str
    distributions: Mapping[str, str]
    key: str
    stage: Callable[[Tools], Path] | None


class Request(Struct, frozen=True, kw_only=True):
    """Everything a pip lock is made from; `below` only where it is on top of conda's packages,
    `lent` only where Debian's packages bring the Python.
    """

    image: str
    section: PipSection
    sources: Sources
    facts: Facts
    platform: str
    as_of: date | None
    below: Below | None = None
    lent: Lent | None = None

    @property
    def target(self) -> uv.Target:
        return uv.Target.of(self.facts, self.platform, self.as_of)

    @property
    def installed(self) -> Mapping[str, str]:
        """The Python packages that are there before, and stay as they are."""
        return self.below.distributions if self.below is not None else {}

    @property
    def digest(self) -> str:
        """The sha256 of the inputs: neither lading's nor uv's version is among them."""
        section = self.section
        how = {"build-env": dict(section.build_env), "shared": section.no_build_isolation}
        how["locker"] = "" if section.locker == LOCKERS[0] else section.locker
        if self.below is not None:
            how["installed"] = dict(self.installed)
        return digest_of(
            {
                **{name: value for name, value in how.items() if value},
                "files": {path: data.decode() for path, data in self.sources.files.items()},
                "roots": self.sources.roots,
                "constraints": self.sources.constraints,
                "no-binary": section.no_binary,
                "build-constraints": section.build_constraints,
                "python": self.facts.python_version,
                "glibc": self.facts.glibc,
                "platform": self.platform,
                "as-of": str(self.as_of or ""),
            }
        )


def request(
    root: Path,
    image: str,
    section: PipSection,
    facts: Facts,
    platform: str,
    as_of: date | None,
    below: Below | None = None,
    given: Mapping[str, bytes] | None = None,
    lent: Lent | None = None,
    values: Mapping[str, str] | None = None,
) -> Request:
    """Reads the requirement files, once; `given` are further ones, path to content; `values` are
    a variant's, by axis. Raises `DeclarationError` for what can't be locked.
    """
    found = requirements.read(root, section.requirements, section.constraints, given, values)
    if below is not None:
        _refuse_over_conda(found, below)
    return Request(
        image=image,
        section=section,
        sources=found,
        facts=facts,
        platform=platform,
        as_of=as_of,
        below=below,
        lent=lent,
    )


def _refuse_over_conda(found: Sources, below: Below) -> None:
    """Raises `DeclarationError` for lines that conda's own package of that name can't answer: also
    a constraint can name a file that it is not, but ask for nothing more of it.
    """
    for line in found.lines:
        if line.name not in below.distributions:
            continue
        where = f"{line.path}:{line.number}: {line.text}"
        has = f"conda installs {line.name} {below.distributions[line.name]} already"
        if requirements.DIRECT.match(line.text):
            raise DeclarationError(
                f"{where}: {has}", do="take it from one of the two: out of here, or out of conda's"
            )
        asking = line.path in found.roots
        if asking and re.match(r"[A-Za-z0-9._-]+\s*\[\s*[^\]\s]", line.text):
            raise DeclarationError(
                f"{where}: {has}, and what an extra of it needs is not known",
                do="name the packages that the extra needs, here or among conda's",
            )


# -- the lock's files -----------------------------------------------------------------------


def read(folder: Path) -> PipLock | None:
    """The lock in this folder; None if there is none. Raises `LadingError` if it is damaged."""
    texts: dict[str, str] = {}
    at = str(folder)
    for name in ("requirements.txt", "installer.txt"):
        text = locks.read(f"{at}/{name}")
        if text is None:
            return None
        texts[name] = text
    header, pins = _parsed(f"{at}/requirements.txt", texts["requirements.txt"])
    _, installer = _parsed(f"{at}/installer.txt", texts["installer.txt"])
    if len(installer) != 1:
        raise LadingError(f"{folder / 'installer.txt'}: one package is expected there")
    build: dict[str, tuple[Pin, ...]] = {}
    # By name, not what lies there: what is left from an earlier lock is no part of this one.
    for pin in pins:
        if pin.is_wheel:
            continue
        name = f"build-{pin.name}.txt"
        text = locks.read(f"{at}/{name}")
        if text is None:
            raise LadingError(
                f"{at}/requirements.txt: what builds {pin.name} is not locked beside it",
                why=f"there is no {name}",
                do="bring it back, or lock again",
            )
        texts[name], build[pin.name] = text, _parsed(f"{at}/{name}", text)[1]
    return PipLock(header=header, pins=pins, installer=installer[0], build=build, texts=texts)


def _parsed(path: str, text: str) -> tuple[Header, tuple[Pin, ...]]:
    return locks.split(text, path)[0], requirements.parse(text, path)


def write(folder: Path, lock: PipLock) -> None:
    """Writes the lock's files; the one that makes it valid, requirements.txt, last, and only then
    takes away what that one no longer names: killed in between, it is a whole lock, old or new.
    """
    for name in sorted(lock.texts, key=lambda name: name == "requirements.txt"):
        write_text(folder / name, lock.texts[name])
    for name in left(folder, lock):
        (folder / name).unlink()


def left(folder: Path, lock: PipLock) -> set[str]:
    """The files in this folder that built what this lock builds no more."""
    return {path.name for path in folder.glob("build-*.txt")} - set(lock.texts)


# -- resolving ------------------------------------------------------------------------------

AsksFor = Callable[[Path, Pin, Sequence[Pin]], Sequence[str]]
"""What a package's build backend wants beyond what its pyproject.toml says (PEP 517,
get_requires_for_build_wheel): asked of the sdist at a path, with these packages installed.
"""


def nothing_more(_sdist: Path, _pin: Pin, _installed: Sequence[Pin]) -> Sequence[str]:
    """For where no container can be asked."""
    return ()


class Answer(Struct, frozen=True, kw_only=True):
    """What another locker than uv answers: versions, and the sha256 that a file of each may have,
    by name.
    """

    versions: tuple[uv.Version, ...]
    hashes: Mapping[str, frozenset[str]]


def lock(
    asked: Request,
    old: PipLock | None,
    store: Store,
    environment: Mapping[str, str],
    in_base: Callable[[], uv.Runner],
    asks_for: AsksFor = nothing_more,
    note: Callable[[str], None] = lambda _: None,
    by: Callable[[], Answer] | None = None,
) -> PipLock:
    """Resolves a request; pins of `old` are kept where they still fit.

    `by` asks another locker than uv for the versions. `in_base` gives a way to run uv in a
    throwaway container of the base, and `asks_for` asks a package's own build backend there; they
    are called only where a package has no wheel. Raises `LadingError` with the locker's own
    explanation.
    """
    from concurrent.futures import ThreadPoolExecutor

    from lading.layers import pip_problems

    if not asked.facts.python or asked.facts.musl:
        raise pip_problems.unfit(asked.image, asked.facts)
    with ThreadPoolExecutor(1) as beside:
        asked_for_tool = beside.submit(_tool, asked, old, store, environment)
        demanded = asked.sources.hashes()
        if by is None:
            versions, here = _versions(asked, old, environment, in_base, note)
        else:
            answer = _answer(asked, by, environment)
            versions, here, demanded = answer.versions, False, {**answer.hashes, **demanded}
        _refuse_twice(asked, versions)
        pins = pinned(
            asked,
            versions,
            asked.section.no_binary,
            environment,
            demanded=demanded,
            listed=_listed(old, versions),
            note=note,
            just_resolved=here,
        )
        tool = asked_for_tool.result()
    build = {
        pin.name: _build_requirements(asked, pin, pins, old, store, environment, asks_for)
        for pin in pins
        if not pin.is_wheel
    }
    bodies = {
        "requirements.txt": requirements.render(pins),
        "installer.txt": requirements.render([tool]),
        **{f"build-{name}.txt": requirements.render(found) for name, found in build.items()},
    }
    about = {
        "requirements.txt": f"What goes into the image {asked.image}: {asked.target}.",
        "installer.txt": f"What installs it in the image {asked.image}.",
    }
    command = f"doit lock:{asked.image}"
    before = None
    if old is not None and old.texts:
        before = (old.header, "".join(locks.split(t, "")[1] for _, t in sorted(old.texts.items())))
    header = locks.renewed(
        before, asked.digest, "".join(f"\n{body}" for _, body in sorted(bodies.items())), command
    )
    texts = {
        name: locks.text_of(
            header, body, about.get(name, f"What builds {name[6:-4]} for the image {asked.image}.")
        )
        for name, body in bodies.items()
    }
    return PipLock(header=header, pins=pins, installer=tool, build=build, texts=texts)


def _versions(
    asked: Request,
    old: PipLock | None,
    environment: Mapping[str, str],
    in_base: Callable[[], uv.Runner],
    note: Callable[[str], None],
) -> tuple[tuple[uv.Version, ...], bool]:
    """Wheels are preferred: an sdist is built, for what it needs, only where nothing else fits.
    Whether they were resolved here, and not in a container, is said, too.
    """
    before = old.pins if old is not None else ()
    section = asked.section
    try:
        if not section.no_binary:
            try:
                found = uv.resolve(
                    asked.sources,
                    asked.target,
                    pinned=before,
                    environment=environment,
                    installed=asked.installed,
                    note=note,
                )
                return found, True
            except uv.NotResolved as error:
                if not error.wants_builds:
                    raise
                wheels_only = error.explanation
        else:
            wheels_only = ""
        try:
            runner = in_base()
        except EnvironmentProblem as error:
            raise EnvironmentProblem(
                f"images.{asked.image}: what has no wheel is asked for its needs in the base, "
                "which takes an engine",
                why=f"{error.what}\n{error.why}\n{wheels_only}".strip(),
                do=error.do,
            ) from error
        try:
            found = uv.resolve(
                asked.sources,
                asked.target,
                pinned=before,
                no_binary=section.no_binary,
                build_constraints=section.build_constraints,
                environment=environment,
                runner=runner,
                builds=True,
                installed=asked.installed,
                note=note,
            )
            return found, False
        except uv.NotResolved as error:
            both = f"{wheels_only}\n\nand from source:\n{error.explanation}"
            raise uv.NotResolved(both.strip()) from error
    except uv.NotResolved as error:
        raise _explained(asked, error, environment) from error


def _answer(asked: Request, by: Callable[[], Answer], environment: Mapping[str, str]) -> Answer:
    try:
        return by()
    except uv.NotResolved as error:
        raise _explained(asked, error, environment) from error


def _refuse_twice(asked: Request, versions: Iterable[uv.Version]) -> None:
    """Raises `LadingError` for what would be installed over conda's package of the same name."""
    twice = [version for version in versions if version.name in asked.installed]
    if twice:
        raise LadingError(
            f"images.{asked.image}: pip would install {twice[0].requirement} over conda's "
            f"{twice[0].name} {asked.installed[twice[0].name]}",
            why=f"wanted by {', '.join(twice[0].via)}",
            do="take it from one of the two",
        )


def _explained(
    asked: Request, error: uv.NotResolved, environment: Mapping[str, str]
) -> LadingError:
    """A resolution that failed: the image, the line that asks for it, and what would fit."""
    said = error.explanation
    guilty = [
        line
        for line in asked.sources.lines
        if line.name and re.search(rf"(?<![\w.-]){re.escape(line.name)}(?![\w-])", said.lower())
    ]
    where = f" ({guilty[0].path}:{guilty[0].number}: {guilty[0].text})" if guilty else ""
    hints: list[str] = []
    lacking = r"([a-z0-9][a-z0-9._-]*?)(?:[=<>!~,]\S*)? (?:has|have) no (?:usable )?wheels"
    for name in sorted(set(re.findall(lacking, said))):
        ends = uv.with_wheels(name, asked.target, environment)
        hints.append(
            f"{name} has wheels for this Python from {ends[0]} to {ends[1]}"
            if ends
            else f"no version of {name} has a wheel for {asked.target}"
        )
    clashing = [
        f"{name} {version}"
        for name, version in asked.installed.items()
        if re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", said.lower())
    ]
    if clashing:
        return LadingError(
            f"images.{asked.image}: what pip is asked for{where} does not fit what conda installs "
            f"({', '.join(clashing)})",
            why=said,
            do="ask conda for another version, or pip for one that fits it; what conda has locked "
            "stands, and is not installed a second time",
        )
    return LadingError(
        f"images.{asked.image}: no versions fit {asked.target}{where}",
        why=said,
        do="; ".join(hints) or f"change {asked.sources.roots[0]}",
    )


def pinned(
    asked: Request,
    versions: Sequence[uv.Version],
    no_binary: Sequence[str],
    environment: Mapping[str, str],
    *,
    demanded: Mapping[str, frozenset[str]],
    listed: Mapping[str, frozenset[str]] | None = None,
    note: Callable[[str], None] = lambda _: None,
    just_resolved: bool = False,
) -> tuple[Pin, ...]:
    """Each version's one file for the target, with its hash and size.

    `demanded` are the sha256 of files that may be taken, by package, where the user names some;
    `listed` those that stood in a lock of somebody else's, and may be of another version.
    """
    files = uv.locate(
        versions,
        asked.target,
        index_options=asked.sources.index_options(),
        no_binary=no_binary,
        environment=environment,
        just_resolved=just_resolved,
    )
    pins: list[Pin] = []
    for version in versions:
        allowed = demanded.get(version.name)
        fitting = [file for file in files if file.name == version.name]
        if allowed:
            # One without a hash yet is measured below, and refused there.
            fitting = [file for file in fitting if file.sha256 in ("", *allowed)]
        known = (listed or {}).get(version.name, frozenset())
        if any(file.sha256 in known for file in fitting):
            fitting = [file for file in fitting if file.sha256 in known]
        elif known:
            note(f"  {version.requirement}: the hashes beside it were of no file of this version")
        file = uv.best(fitting, asked.target)
        artifact = _artifact(file) if file is not None else None
        if file is None or artifact is None or (allowed and artifact.sha256 not in allowed):
            wanted = " with one of the hashes that are asked for" if allowed else ""
            raise LadingError(
                f"images.{asked.image}: no file of {version.requirement}{wanted} "
                f"fits {asked.target}",
                do=f"ask for another version in {asked.sources.roots[0]}",
            )
        pins.append(
            Pin(
                name=version.name,
                version=file.version or version.version,
                url=version.url,
                artifact=artifact,
                via=version.via,
            )
        )
    return tuple(pins)


def _listed(old: PipLock | None, versions: Iterable[uv.Version]) -> dict[str, frozenset[str]]:
    """The hashes that stood beside the versions which are kept, in a lock of somebody else's."""
    kept = {pin.name: pin.version for pin in old.pins} if old is not None else {}
    hashes = old.hashes if old is not None else {}
    return {
        one.name: hashes[one.name]
        for one in versions
        if hashes.get(one.name) and kept.get(one.name) == one.version
    }


def _artifact(file: uv.File) -> Artifact:
    """The file's name, hash and size; what the index did not tell is read from the file itself."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+!-]*", file.file):
        raise LadingError(f"{file.file!r}, of {file.name}, is no name that a file can have here")
    if not file.sha256 or file.size is None:
        sha256, size = uv.measured(file)
        if file.sha256 not in ("", sha256):
            raise LadingError(
                f"{file.file}: its index says sha256 {file.sha256}, its content has {sha256}"
            )
        return Artifact(name=file.file, sha256=sha256, size=size)
    return Artifact(name=file.file, sha256=file.sha256, size=file.size)


def _tool(asked: Request, old: PipLock | None, store: Store, environment: Mapping[str, str]) -> Pin:
    """The installer for a new lock: the one locked before, unless it can be had no more."""
    kept = (
        old is not None
        and not old.installer_moves
        and (
            old.installer.artifact == UNKNOWN
            or store.has(old.installer.artifact)
            or bool(sources(asked, [old.installer], environment))
        )
    )
    return installer(asked, old if kept else None, environment)


def installer(asked: Request, old: PipLock | None, environment: Mapping[str, str]) -> Pin:
    """uv for the image's platform: the one that is locked already, else the one lading runs."""
    from importlib.metadata import version as version_of

    if old is not None and old.installer.artifact != UNKNOWN:
        return old.installer
    target = uv.Target.of(asked.facts, asked.platform, None)
    said = old.installer.version if old is not None else ""
    wanted = uv.Version(name="uv", version=said or version_of("uv"))
    file = uv.best(uv.locate([wanted], target, environment=environment), target)
    if file is None:
        raise LadingError(f"uv {wanted.version} has no wheel for {target}")
    return Pin(name="uv", version=wanted.version, artifact=_artifact(file))


# -- what has no wheel ----------------------------------------------------------------------


def _build_requirements(
    asked: Request,
    pin: Pin,
    pins: Sequence[Pin],
    old: PipLock | None,
    store: Store,
    environment: Mapping[str, str],
    asks_for: AsksFor,
) -> tuple[Pin, ...]:
    """The locked build requirements of an sdist (PEP 517, PEP 518); wheels only. Those of the old
    lock are kept where they still fit.

    One that is built without isolation has all wheels of the image among them.
    """
    from lading.layers import sdist

    if not store.has(pin.artifact):
        store.fetch([pin.artifact], lambda _: sources(asked, [pin], environment))
    sdist_file = store.path(pin.artifact.sha256)
    wanted = sdist.build_system(sdist_file, pin.artifact.name)
    fixed: list[str] = []
    if pin.name in map(requirements.normalised, asked.section.no_build_isolation):
        # What conda installs is at hand there, too.
        wanted = [one for one in wanted if _name_of(one) not in asked.installed]
        shared = [other for other in pins if other.is_wheel and not other.url]
        built = {other.name for other in pins if not other.is_wheel}
        fixed = [f"{other.name}=={other.version}" for other in shared]
        wanted = [*(one for one in wanted if _name_of(one) not in built), *fixed]
    kept = old.build.get(pin.name, ()) if old is not None else ()
    found = _built_with(asked, pin, wanted, fixed, kept, environment)
    more = [one for one in asks_for(sdist_file, pin, found) if one not in wanted]
    if not more:
        return found
    return _built_with(asked, pin, [*wanted, *more], fixed, kept, environment)


def _name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return requirements.normalised(found[0]) if found else ""


def _built_with(
    asked: Request,
    pin: Pin,
    wanted: Sequence[str],
    fixed: Sequence[str],
    kept: Sequence[Pin],
    environment: Mapping[str, str],
) -> tuple[Pin, ...]:
    target = asked.target
    path = f"build-{pin.name}.in"
    data = "\n".join([*wanted, *asked.sources.index_options()]) + "\n"
    files = {path: data.encode()}
    constraints: tuple[str, ...] = ()
    if asked.section.build_constraints or fixed:
        constraints = ("build-constraints.txt",)
        lines = [*asked.section.build_constraints, *fixed]
        files[constraints[0]] = ("\n".join(lines) + "\n").encode()
    needs = Sources(roots=(path,), constraints=constraints, files=files)
    try:
        versions = uv.resolve(needs, target, pinned=kept, environment=environment)
    except uv.NotResolved as error:
        raise LadingError(
            f"images.{asked.image}: what builds {pin.name} {pin.version} can't be had",
            why=error.explanation,
            do="see `build-constraints` and `as-of`, or ask for a version that has a wheel",
        ) from error
    return pinned(asked, versions, (), environment, demanded={}, just_resolved=True)


# -- artifacts ------------------------------------------------------------------------------


def sources(
    asked: Request, wanted: Iterable[Pin], environment: Mapping[str, str]
) -> dict[str, list[Source]]:
    """Where the files of these pins can be had today, by sha256; what is gone is left out.

    The index is asked for the pinned versions only; URLs stand in no lock.
    """
    wanted = list(wanted)
    target = uv.Target.of(asked.facts, asked.platform, None)
    found: list[uv.File] = []
    groups: dict[bool, list[Pin]] = {True: [], False: []}
    for pin in wanted:
        groups[pin.is_wheel].append(pin)
    for is_wheel, pins in groups.items():
        names: dict[str, list[Pin]] = {}
        for pin in pins:
            names.setdefault(pin.name, []).append(pin)
        # One question holds one version of a package; build requirements can hold others.
        while names:
            batch = [same.pop() for same in names.values()]
            names = {name: same for name, same in names.items() if same}
            found += _located(asked, batch, target, is_wheel, environment)
    return uv.sources_of(file for file in found if file.sha256) | {
        pin.artifact.sha256: uv.url_sources(pin.url) for pin in wanted if pin.url
    }


def _located(
    asked: Request,
    batch: Sequence[Pin],
    target: uv.Target,
    is_wheel: bool,
    environment: Mapping[str, str],
) -> tuple[uv.File, ...]:
    indexed = [pin for pin in batch if not pin.url]
    try:
        return uv.locate(
            indexed,
            target,
            index_options=asked.sources.index_options(),
            no_binary=() if is_wheel else [pin.name for pin in indexed],
            environment=environment,
        )
    except uv.NotResolved:
        if len(batch) == 1:
            return ()
        # One of them is gone: ask for each alone, to learn which.
        return tuple(
            file for pin in batch for file in _located(asked, [pin], target, is_wheel, environment)
        )


# -- what was taken back --------------------------------------------------------------------


def withdrawn(
    asked: Request, pins: Sequence[Pin], environment: Mapping[str, str]
) -> tuple[Withdrawn, ...]:
    """The pins that were yanked, or that the index has no more, with what is near. Raises
    `EnvironmentProblem` where it can't be asked.
    """
    target = uv.Target.of(asked.facts, asked.platform, None)
    options = asked.sources.index_options()

    def of(pin: Pin, how: Literal["yanked", "deleted"], reason: str = "") -> Withdrawn:
        near = uv.near(
            pin.name, pin.version, target, index_options=options, environment=environment
        )
        return Withdrawn(name=pin.name, version=pin.version, how=how, reason=reason, near=near)

    def asked_for(some: Sequence[Pin]) -> Iterator[Withdrawn]:
        try:
            yanked = uv.yanked(some, target, index_options=options, environment=environment)
        except uv.NotResolved:
            if len(some) == 1:
                yield of(some[0], "deleted")
                return
            # One of them is gone: halves are asked for, to learn which.
            half = len(some) // 2
            yield from asked_for(some[:half])
            yield from asked_for(some[half:])
        else:
            yield from (of(pin, "yanked", yanked[pin.name]) for pin in some if pin.name in yanked)

    return tuple(asked_for(pins))
