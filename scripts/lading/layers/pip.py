"""The pip layer: requirement files, locked to one file a package, installed into /opt/venv.

The lock is in pip's own hash-checking form (`requirements.txt`); beside it stand the installer
(uv, for the image's platform) and, for what has no wheel, the locked build requirements.
"""

from __future__ import annotations

import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from lading import locks, requirements, uv
from lading.errors import EnvironmentProblem, LadingError
from lading.facts import Facts
from lading.files import digest_of, write_text
from lading.layers.pip_section import PipSection
from lading.locks import Header
from lading.requirements import Pin, Sources
from lading.steps import Content, Contribution, Mount, Run, Stage, Step, Stored, Unpacked
from lading.store import Artifact, Source, Store

VENV = "/opt/venv"
LENT = "/dev/shm/lading"
"""Where a build lends files to a step: a mount point below / would stay behind in the layer."""


@dataclass(frozen=True, kw_only=True)
class PipLock:
    """A pip lock as read: what is installed, with what, and what builds what has no wheel."""

    header: Header
    pins: tuple[Pin, ...]
    installer: Pin
    build: Mapping[str, tuple[Pin, ...]]
    texts: Mapping[str, str]

    @property
    def all_pins(self) -> tuple[Pin, ...]:
        found = {pin.artifact.sha256: pin for pin in (*self.pins, self.installer)}
        for pins in self.build.values():
            found.update({pin.artifact.sha256: pin for pin in pins})
        return tuple(found.values())

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        return tuple(pin.artifact for pin in self.all_pins)


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything a pip lock is made from."""

    image: str
    section: PipSection
    sources: Sources
    facts: Facts
    platform: str
    as_of: date | None

    @property
    def target(self) -> uv.Target:
        return uv.Target.of(self.facts, self.platform, self.as_of)

    @property
    def digest(self) -> str:
        """The sha256 of the inputs: neither lading's nor uv's version is among them."""
        return digest_of(
            {
                "files": {path: data.decode() for path, data in self.sources.files.items()},
                "roots": self.sources.roots,
                "constraints": self.sources.constraints,
                "no-binary": self.section.no_binary,
                "build-constraints": self.section.build_constraints,
                "python": self.facts.python_version,
                "glibc": self.facts.glibc,
                "platform": self.platform,
                "as-of": str(self.as_of or ""),
            }
        )


def request(
    root: Path, image: str, section: PipSection, facts: Facts, platform: str, as_of: date | None
) -> Request:
    """Reads the requirement files, once. Raises `DeclarationError` for what can't be locked."""
    return Request(
        image=image,
        section=section,
        sources=requirements.read(root, section.requirements, section.constraints),
        facts=facts,
        platform=platform,
        as_of=as_of,
    )


# -- the lock's files -----------------------------------------------------------------------


def read(folder: Path) -> PipLock | None:
    """The lock in this folder; None if there is none. Raises `LadingError` if it is damaged."""
    texts: dict[str, str] = {}
    for name in ("requirements.txt", "installer.txt"):
        text = locks.read(folder / name)
        if text is None:
            return None
        texts[name] = text
    for path in sorted(folder.glob("build-*.txt")):
        texts[path.name] = locks.read(path) or ""
    headers = {name: locks.split(text, str(folder / name))[0] for name, text in texts.items()}
    pins = {name: requirements.parse(text, str(folder / name)) for name, text in texts.items()}
    installer = pins.pop("installer.txt")
    if len(installer) != 1:
        raise LadingError(f"{folder / 'installer.txt'}: one package is expected there")
    return PipLock(
        header=headers["requirements.txt"],
        pins=pins.pop("requirements.txt"),
        installer=installer[0],
        build={name[len("build-") : -len(".txt")]: found for name, found in pins.items()},
        texts=texts,
    )


def readable(folder: Path) -> PipLock | None:
    """The lock in this folder; None also if it is damaged, for then it is made anew."""
    try:
        return read(folder)
    except LadingError:
        return None


def write(folder: Path, lock: PipLock) -> None:
    """Writes the lock's files; the one that makes it valid, requirements.txt, last."""
    for path in folder.glob("build-*.txt"):
        if path.name not in lock.texts:
            path.unlink()
    for name in sorted(lock.texts, key=lambda name: name == "requirements.txt"):
        write_text(folder / name, lock.texts[name])


# -- resolving ------------------------------------------------------------------------------


def lock(
    asked: Request,
    old: PipLock | None,
    store: Store,
    environment: Mapping[str, str],
    in_base: Callable[[], uv.Runner],
) -> PipLock:
    """Resolves a request; pins of `old` are kept where they still fit.

    `in_base` gives a way to run uv in a throwaway container of the base; it is called only
    where a package has no wheel. Raises `LadingError` with uv's explanation.
    """
    if not asked.facts.python:
        raise LadingError(
            f"images.{asked.image}: its base has no Python",
            do="choose a base that has one (for a `debian:` base: packages: [python3])",
        )
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as beside:
        asked_for_tool = beside.submit(_tool, asked, old, store, environment)
        versions = _versions(asked, old, environment, in_base)
        pins = _pinned(
            asked, versions, asked.section.no_binary, environment, demanded=asked.sources.hashes()
        )
        tool = asked_for_tool.result()
    build = {
        pin.name: _build_requirements(asked, pin, store, environment)
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
    if old is not None:
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
) -> tuple[uv.Version, ...]:
    """Wheels are preferred: an sdist is built, for what it needs, only where nothing else fits."""
    pinned = old.pins if old is not None else ()
    section = asked.section
    try:
        if not section.no_binary:
            try:
                return uv.resolve(
                    asked.sources, asked.target, pinned=pinned, environment=environment
                )
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
            return uv.resolve(
                asked.sources,
                asked.target,
                pinned=pinned,
                no_binary=section.no_binary,
                build_constraints=section.build_constraints,
                environment=environment,
                runner=runner,
                builds=True,
            )
        except uv.NotResolved as error:
            both = f"{wheels_only}\n\nand from source:\n{error.explanation}"
            raise uv.NotResolved(both.strip()) from error
    except uv.NotResolved as error:
        raise _explained(asked, error, environment) from error


def _explained(
    asked: Request, error: uv.NotResolved, environment: Mapping[str, str]
) -> LadingError:
    """A resolution that failed: the image, the line that asks for it, and what would fit."""
    said = error.explanation
    guilty = [
        line
        for line in asked.sources.lines()
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
    return LadingError(
        f"images.{asked.image}: no versions fit {asked.target}{where}",
        why=said,
        do="; ".join(hints) or f"change {asked.section.requirements}",
    )


def _pinned(
    asked: Request,
    versions: Sequence[uv.Version],
    no_binary: Sequence[str],
    environment: Mapping[str, str],
    *,
    demanded: Mapping[str, frozenset[str]],
) -> tuple[Pin, ...]:
    """Each version's one file for the target, with its hash and size.

    `demanded` are the sha256 of files that may be taken, by package, where the user names some.
    """
    files = uv.locate(
        versions,
        asked.target,
        index_options=asked.sources.index_options(),
        no_binary=no_binary,
        environment=environment,
    )
    pins: list[Pin] = []
    for version in versions:
        allowed = demanded.get(version.name)
        fitting = [file for file in files if file.name == version.name]
        if allowed:
            # One without a hash yet is measured below, and refused there.
            fitting = [file for file in fitting if file.sha256 in ("", *allowed)]
        file = uv.best(fitting, asked.target)
        artifact = _artifact(file) if file is not None else None
        if file is None or artifact is None or (allowed and artifact.sha256 not in allowed):
            wanted = " with one of the hashes that are asked for" if allowed else ""
            raise LadingError(
                f"images.{asked.image}: no file of {version.requirement}{wanted} "
                f"fits {asked.target}",
                do=f"ask for another version in {asked.section.requirements}",
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
    kept = old is not None and (
        store.has(old.installer.artifact) or bool(sources(asked, [old.installer], environment))
    )
    return installer(asked, old if kept else None, environment)


def installer(asked: Request, old: PipLock | None, environment: Mapping[str, str]) -> Pin:
    """uv for the image's platform: the one that is locked already, else the one lading runs."""
    from importlib.metadata import version as version_of

    if old is not None:
        return old.installer
    target = uv.Target.of(asked.facts, asked.platform, None)
    wanted = uv.Version(name="uv", version=version_of("uv"))
    file = uv.best(uv.locate([wanted], target, environment=environment), target)
    if file is None:
        raise LadingError(f"uv {wanted.version} has no wheel for {target}")
    return Pin(name="uv", version=wanted.version, artifact=_artifact(file))


# -- what has no wheel ----------------------------------------------------------------------


def _build_requirements(
    asked: Request, pin: Pin, store: Store, environment: Mapping[str, str]
) -> tuple[Pin, ...]:
    """The locked build requirements (PEP 518) of an sdist; wheels only."""
    target = asked.target
    if not store.has(pin.artifact):
        store.fetch([pin.artifact], lambda _: sources(asked, [pin], environment))
    wanted = build_system(store.path(pin.artifact.sha256), pin.artifact.name)
    path = f"build-{pin.name}.in"
    data = "\n".join([*wanted, *asked.sources.index_options()]) + "\n"
    files = {path: data.encode()}
    constraints: tuple[str, ...] = ()
    if asked.section.build_constraints:
        constraints = ("build-constraints.txt",)
        files[constraints[0]] = ("\n".join(asked.section.build_constraints) + "\n").encode()
    needs = Sources(roots=(path,), constraints=constraints, files=files)
    try:
        versions = uv.resolve(needs, target, environment=environment)
    except uv.NotResolved as error:
        raise LadingError(
            f"images.{asked.image}: what builds {pin.name} {pin.version} can't be had",
            why=error.explanation,
            do="see `build-constraints` and `as-of`, or ask for a version that has a wheel",
        ) from error
    return _pinned(asked, versions, (), environment, demanded={})


def build_system(path: Path, name: str) -> list[str]:
    """What an sdist says it is built with; setuptools where it says nothing (PEP 517).

    Older setuptools ask for `wheel` only when they run, so it is always with them.
    """
    text = _pyproject(path, name)
    wanted = ["setuptools>=40.8.0"]
    if text is not None:
        import tomllib

        from packaging.requirements import InvalidRequirement, Requirement

        try:
            found: Any = (
                tomllib.loads(text.decode()).get("build-system", {}).get("requires", wanted)
            )
            if not isinstance(found, list):
                raise ValueError("build-system.requires is not a list")
            # Read here, for it goes into a requirement file, where it could be an option.
            wanted = [str(Requirement(entry)) for entry in found]
        except (ValueError, TypeError, AttributeError, RecursionError, InvalidRequirement) as error:
            raise LadingError(
                f"{name}: its pyproject.toml can't be read", why=str(error)
            ) from error
    if any(re.match(r"setuptools\b", entry) for entry in wanted):
        wanted.append("wheel")
    return wanted


BROKEN = (
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
)
"""What reading a damaged, encrypted or odd archive can raise, beside its module's own errors."""


def _pyproject(path: Path, name: str) -> bytes | None:
    """The pyproject.toml at the top of an sdist, which is a tar or, of old, a zip."""
    try:
        if name.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                members = [
                    n for n in archive.namelist() if re.fullmatch(r"[^/]+/pyproject\.toml", n)
                ]
                return archive.read(members[0]) if members else None
        with tarfile.open(path) as archive:
            for member in archive:
                if re.fullmatch(r"(\./)?[^/]+/pyproject\.toml", member.name) and member.isfile():
                    file = archive.extractfile(member)
                    return file.read() if file else None
    except (tarfile.TarError, zipfile.BadZipFile, *BROKEN) as error:
        raise LadingError(f"{name}: not an archive of sources", why=str(error)) from error
    return None


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


# -- what it adds to the image --------------------------------------------------------------


def contribute(base: str, facts: Facts, lock: PipLock, roots: Sequence[str]) -> Contribution:
    """The layer's stages, steps, variables and files. `base` is what FROM names."""
    built = [pin for pin in lock.pins if not pin.is_wheel]
    wheels = [pin for pin in lock.pins if pin.is_wheel]
    files: dict[str, Content] = {
        "pip/bin/uv": Unpacked(sha256=lock.installer.artifact.sha256),
        "pip/requirements.txt": _plain(wheels, hashes=True),
        **{f"pip/wheels/{p.artifact.name}": Stored(sha256=p.artifact.sha256) for p in wheels},
    }
    stages: tuple[Stage, ...] = ()
    if built:
        files["pip/built.txt"] = _plain(built, hashes=False)
        for pin in built:
            # A folder of its own each: archives by URL can have the same name.
            name = f"pip/sdists/{pin.name}/{pin.artifact.name}"
            files[name] = Stored(sha256=pin.artifact.sha256)
            for needed in lock.build[pin.name]:
                name = f"pip/build-{pin.name}/{needed.artifact.name}"
                files[name] = Stored(sha256=needed.artifact.sha256)
        stages = (_build_stage(base, facts, built),)
    wanted = {pin.name: pin.version for pin in lock.pins}
    return Contribution(
        stages=stages,
        steps=(_install(facts, wheels, built),),
        env={"VIRTUAL_ENV": VENV, "PATH": f"{VENV}/bin:$PATH"},
        labels={
            "python.version": facts.python_version,
            "python.packages": " ".join(_exactly(n, wanted[n]) for n in roots if n in wanted),
        },
        files=files,
    )


def _exactly(name: str, version: str) -> str:
    """NAME==VERSION; of some archives by URL the version shows only when they are built."""
    return f"{name}=={version}" if version else name


def _plain(pins: Iterable[Pin], *, hashes: bool) -> bytes:
    """What the installer is given: names and versions, no URL, since nothing is downloaded."""
    lines = (
        _exactly(pin.name, pin.version)
        + (f" --hash=sha256:{pin.artifact.sha256}" if hashes else "")
        for pin in pins
    )
    return "".join(line + "\n" for line in lines).encode()


QUIET = (
    "umask 022",
    "export HOME=/dev/shm UV_NO_CACHE=1 UV_OFFLINE=1 UV_NO_CONFIG=1 UV_NO_PROGRESS=1\n"
    "UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=hardlink",
)
"""For every step that runs uv: no network, nothing left behind, no byte written twice."""


COMPILE = (
    f"{{ {VENV}/bin/python -m compileall -qq -j 0 -x '/tests?/'\n"
    f"--invalidation-mode unchecked-hash {VENV}/lib || true; }}"
)
"""Files that no Python can compile are found in many packages, and do no harm."""

FORGET_TIMES = (
    f"find {VENV} -name uv_cache.json -delete && find {VENV} -path '*.dist-info/RECORD'\n"
    "-exec sed -i '/uv_cache\\.json,/d' {} +"
)
"""uv notes beside each package when its wheel's inode last changed, which no build can repeat."""


def _build_stage(base: str, facts: Facts, built: Sequence[Pin]) -> Stage:
    steps: list[Step] = [
        Run(
            why=f"{pin.name} {pin.version} has no wheel: it is built here, from locked build "
            "requirements, and only the wheel leaves this stage.",
            mounts=(
                Mount(source="pip/bin", target=f"{LENT}/bin"),
                Mount(source=f"pip/sdists/{pin.name}", target=f"{LENT}/sdists"),
                Mount(source=f"pip/build-{pin.name}", target=f"{LENT}/build"),
            ),
            commands=(
                *QUIET,
                f"{LENT}/bin/uv build --wheel --quiet --python {facts.python}\n"
                f"--no-index --find-links {LENT}/build\n"
                f"--out-dir /wheels {LENT}/sdists/{pin.artifact.name}",
            ),
        )
        for pin in built
    ]
    return Stage(
        name="wheels",
        base=base,
        steps=tuple(steps),
        why="A stage for what has to be built; what it needs for that stays behind.",
    )


def _install(facts: Facts, wheels: Sequence[Pin], built: Sequence[Pin]) -> Run:
    mounts = [Mount(source="pip", target=f"{LENT}/pip")]
    install = f"{LENT}/pip/bin/uv pip install --quiet --python {VENV}\n--no-index --no-deps"
    commands = [*QUIET, f"{LENT}/pip/bin/uv venv --quiet --python {facts.python} {VENV}"]
    if wheels:
        commands.append(
            f"{install} --require-hashes\n"
            f"--find-links {LENT}/pip/wheels\n"
            f"--requirements {LENT}/pip/requirements.txt"
        )
    if built:
        mounts.append(Mount(source="/wheels", target=f"{LENT}/built", stage="wheels"))
        commands.append(f"{install}\n--find-links {LENT}/built --requirements {LENT}/pip/built.txt")
    if wheels or built:
        commands += [COMPILE, FORGET_TIMES]
    return Run(
        why="The Python packages, into a virtual environment of their own. The wheels are lent to "
        "this one step and are never a layer; the hashes are checked once more; bytecode is "
        "compiled, but for the packages' own tests, so that a read-only image starts fast.",
        mounts=tuple(mounts),
        commands=tuple(commands),
    )
