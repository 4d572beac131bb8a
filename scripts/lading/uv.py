"""What is asked of uv: which versions fit, and which file of a version it is.

uv runs on this machine but resolves for the *base's* Python, glibc and platform; it never
runs a Python of this machine. Only where a package has no wheel does it need that base's own
Python, in a throwaway container (see `Runner`).
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from lading import process
from lading.errors import DeclarationError, EnvironmentProblem, LadingError
from lading.facts import Facts
from lading.files import sha256_of
from lading.requirements import Pin, Sources, normalised, written_out
from lading.store import Artifact, Source, Store

MANYLINUX = [(2, 17), (2, 28), *((2, minor) for minor in range(31, 41))]
"""The glibc versions that uv has platforms for."""

_ASKING = threading.Lock()

MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}

Runner = Callable[[Sequence[str], Path, Mapping[str, str]], process.Finished]
"""Runs uv with these arguments, in this folder, with these additions to the environment."""


FOREIGN = re.compile(
    r"UV_(?!(?:DEFAULT_INDEX|INDEX|EXTRA_INDEX|FIND_LINKS|NO_INDEX|OFFLINE|KEYRING|CREDENTIALS"
    r"|INSECURE_HOST|NATIVE_TLS|SYSTEM_CERTS|HTTP|REQUEST|CONCURRENT|CACHE|NO_CACHE|LOCK))"
)
"""The user's variables that change what uv answers, not whom and how it asks: UV_RESOLUTION,
UV_EXCLUDE_NEWER, UV_CONSTRAINT … A lock depends on what is declared, and on nothing of these."""


def numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version, for comparing; none where there are none."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


class Target(Struct, frozen=True, kw_only=True):
    """What is resolved for: a base's Python and glibc, a platform, and as of which day."""

    python_version: str
    glibc: str
    platform: str
    as_of: date | None = None

    @staticmethod
    def of(facts: Facts, platform: str, as_of: date | None) -> Target:
        return Target(
            python_version=facts.python_version,
            glibc=facts.glibc,
            platform=platform,
            as_of=as_of,
        )

    @property
    def uv_platform(self) -> str:
        """uv's name of the platform: of the glibc versions it knows, the largest that fits."""
        machine = MACHINES[self.platform]
        fitting = [known for known in MANYLINUX if known <= numbers(self.glibc)]
        if not fitting:
            raise LadingError(
                f"no wheel is made for a base with glibc {self.glibc or '(none)'}",
                do="choose a base with glibc 2.17 or newer",
            )
        return f"{machine}-manylinux_{fitting[-1][0]}_{fitting[-1][1]}"

    def arguments(self) -> list[str]:
        """The options that make uv resolve for this target."""
        options = ["--python-version", self.python_version, "--python-platform", self.uv_platform]
        if self.as_of is not None:
            # A bare day would be taken in local time; say which instant is meant.
            options += ["--exclude-newer", f"{self.as_of + timedelta(days=1)}T00:00:00Z"]
        return options

    def __str__(self) -> str:
        text = f"Python {self.python_version}, glibc {self.glibc}, {self.platform}"
        return f"{text}, as of {self.as_of}" if self.as_of else text


class Version(Struct, frozen=True, kw_only=True):
    """One package that uv chose: name, version (or the URL asked for), who wants it."""

    name: str
    version: str
    url: str = ""
    via: tuple[str, ...] = ()

    @property
    def requirement(self) -> str:
        return f"{self.name} @ {self.url}" if self.url else f"{self.name}=={self.version}"


class File(Struct, frozen=True, kw_only=True):
    """A file that uv knows of: its name, sha256, size in bytes (None: not told) and URL."""

    name: str
    version: str
    file: str
    sha256: str
    size: int | None
    url: str


class NotResolved(LadingError):
    """uv found no answer; `explanation` is what it said."""

    def __init__(self, explanation: str) -> None:
        super().__init__("no set of versions fits", why=explanation)
        self.explanation = explanation

    @property
    def wants_builds(self) -> bool:
        """Whether there might be an answer if sdists could be built."""
        found = re.search(
            r"building from source is disabled|Building source distributions", self.explanation
        )
        return found is not None


class NotAnswered(EnvironmentProblem):
    """uv could not ask: an index is down, a certificate unknown, a password wrong."""


def here(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> process.Finished:
    """Runs the uv that lading depends on, on this machine.

    It is shown the Python that runs lading, for it wants to see one; looking for others can take
    seconds, and building anything with any of them is out of the question.
    """
    clean = {name: None for name in os.environ if FOREIGN.match(name)}
    never = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
    command = [program(), *arguments[:2], "--python", sys.executable, *arguments[2:]]
    return process.run(command, cwd=folder, env={**clean, **environment, **never})


def _asking(environment: Mapping[str, str]) -> list[str]:
    """How what is asked of it begins."""
    # It has an option, but no variable, for what is asked of none but folders and pages of links.
    nowhere = ["--no-index"] if environment.get("UV_NO_INDEX") else []
    return ["pip", "compile", "--no-header", *nowhere]


def program() -> str:
    """The path of the uv that lading depends on."""
    import uv

    # It asks sysconfig, which for a moment is half set up when two threads ask first.
    with _ASKING:
        return uv.find_uv_bin()


def resolve(
    sources: Sources,
    target: Target,
    *,
    pinned: Iterable[Pin] = (),
    no_binary: Sequence[str] = (),
    build_constraints: Sequence[str] = (),
    environment: Mapping[str, str],
    runner: Runner = here,
    builds: bool = False,
    installed: Mapping[str, str] | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[Version, ...]:
    """The versions that satisfy the requirement files on the target, sorted by name.

    `pinned` are kept where they still fit. What is `installed` there, version by name, is all that
    there is of these packages; they need nothing more, and are not in the answer; `note` is told
    of an extra that somebody wants of them. With `builds`, sdists may be built to learn what they
    need: then the `runner` must be one with the target's own Python. Raises `NotResolved` with
    uv's explanation, `NotAnswered` where an index can't be asked.
    """
    with tempfile.TemporaryDirectory(prefix="lading-uv-") as name:
        folder = Path(name)
        texts = {path: written_out(path, data) for path, data in sources.files.items()}
        for path, text in texts.items():
            at = folder / read_as(path)
            at.parent.mkdir(parents=True, exist_ok=True)
            at.write_text(text)
        answer = folder / "answer.txt"
        answer.write_text("".join(pin.requirement + "\n" for pin in pinned))
        arguments = [*_asking(environment), "--annotation-style", "split"]
        arguments += ["--no-config", *target.arguments(), "--output-file", answer.name]
        arguments += [] if builds else ["--no-build"]
        for package in no_binary:
            arguments += ["--no-binary", package]
        for constraint in sources.constraints:
            arguments += ["--constraints", constraint]
        if installed:
            arguments += ["--constraints", _stand_ins(installed, folder)]
        if build_constraints:
            (folder / "build-constraints.txt").write_text("\n".join(build_constraints) + "\n")
            arguments += ["--build-constraints", "build-constraints.txt"]
        arguments += map(read_as, sources.asked)
        if installed:
            # Not told to be quiet, it says what nobody brings along.
            finished = runner(arguments, folder, environment)
            said = f"{finished.output}\n{finished.errors}"
            lacking = _LACKING.findall(said) if not finished.code else []
            for name, extra in dict.fromkeys(lacking):
                note(
                    f"  {name}[{extra}] is wanted, and {name} is conda's: what that extra needs "
                    "is not locked; name it, if it is needed"
                )
        if not installed or finished.code:
            finished = runner([*arguments, "--quiet"], folder, environment)
        _asked(finished, texts)
        return versions(answer.read_text())


_LACKING = re.compile(r"package `([\w.-]+) @ [^`]*` does not have an extra named `([^`]+)`")
_YAML = re.compile(r"(\.ya?ml)\.in\b")


def read_as(path: str) -> str:
    """What uv reads a file of requirements as: by its name it would refuse environment.yml."""
    return f"{path}.in" if path.endswith((".yaml", ".yml")) else path


STAND_INS = ".installed"
"""Where, in the folder that uv works in, the wheels of what is installed stand."""


def _stand_ins(installed: Mapping[str, str], folder: Path) -> str:
    """Writes stand-ins for what is installed, and the file of constraints that names them; returns
    its name.

    As constraints by path they are all that uv finds of these packages: no index is asked for one,
    which need not have it at all, and no day of `as-of` is too early for it.
    """
    written = stand_ins(installed, folder)
    lines = [f"{name} @ ./{STAND_INS}/{path.name}\n" for name, path in written.items()]
    (folder / f"{STAND_INS}.txt").write_text("".join(lines))
    return f"{STAND_INS}.txt"


def stand_ins(installed: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Writes a wheel for each package that holds nothing but its name and version; by name."""
    import zipfile

    from packaging.version import InvalidVersion, Version

    (folder / STAND_INS).mkdir()
    written: dict[str, Path] = {}
    for name, version in sorted(installed.items()):
        try:
            Version(version)
        except InvalidVersion:
            continue  # nothing can be compared with it
        stem = f"{name.replace('-', '_')}-{version}"
        path = folder / STAND_INS / f"{stem}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for file, text in {
                "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
                "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
                "RECORD": "",
            }.items():
                wheel.writestr(f"{stem}.dist-info/{file}", text)
        written[name] = path
    return written


def _asked(finished: process.Finished, texts: Mapping[str, str] | None = None) -> str:
    """What uv answered; its ways of failing are three errors.

    `texts` are the files that it was given to read. No error shows a credential.
    """
    if finished.code == 0:
        return finished.output
    from lading import net

    said = _YAML.sub(r"\1", net.redact((finished.errors or finished.output).strip()))
    unsolved = r"No solution found|requirements are unsatisfiable|Building source distributions"
    # An index that wants a password has, for uv, none of the packages, and so has one that may
    # not be asked at all (UV_OFFLINE); it says so in a hint.
    unasked = r"could not be queried|network was disabled"
    if re.search(unsolved, said) and not re.search(unasked, said):
        raise NotResolved(said)
    where = _position(said, texts or {})
    if where:
        raise DeclarationError(f"{where}: this can't be read", why=said)
    do = net.settings_hint()
    if "network was disabled" in said:
        do = "unset UV_OFFLINE: uv's cache does not hold all that has to be asked for"
    raise NotAnswered("uv could not get an answer", why=said, do=do)


def _position(said: str, texts: Mapping[str, str]) -> str:
    """FILE:LINE of a requirement that uv can't read; empty if that is not the problem."""
    for found in re.finditer(r"(?<!included file) in `([^`]+)` at position (\d+)", said):
        path = posixpath.normpath(found[1])
        if path in texts:
            line = texts[path].encode()[: int(found[2])].count(b"\n") + 1
            return f"{path}:{line}"
    for path in texts:
        by_line = re.search(rf"(?:^|[\s`/]){re.escape(path)}:(\d+):\d+", said)
        if by_line:
            return f"{path}:{by_line[1]}"
    return ""


def versions(text: str) -> tuple[Version, ...]:
    """Reads the file that `uv pip compile` wrote, or pip-compile."""
    found_ones: list[Version] = []
    entry = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(?:==(?P<version>\S+)| @ (?P<url>\S+))")
    via: list[str] = []
    head: re.Match[str] | None = None

    def close() -> None:
        if head is not None:
            found_ones.append(
                Version(
                    name=normalised(head["name"]),
                    version=head["version"] or "",
                    url=head["url"] or "",
                    via=tuple(dict.fromkeys(via)),
                )
            )

    for line in text.splitlines():
        found = entry.match(line)
        if found or line.startswith(f"./{STAND_INS}/"):
            close()
            head, via = found, []
        elif line.startswith("    #"):
            said = _YAML.sub(r"\1", line.strip("# ").removeprefix("via").strip())
            if said:
                via.append(said)
    close()
    return tuple(sorted(found_ones, key=lambda version: version.name))


def default_index(environment: Mapping[str, str]) -> str:
    """The index that is asked first where none goes before it: the user's, or uv's own."""
    with tempfile.TemporaryDirectory(prefix="lading-uv-") as name:
        (Path(name) / "none.in").write_text("")
        arguments = ["pip", "compile", "--quiet", "--no-header", "--no-config"]
        said = _asked(here([*arguments, "--emit-index-url", "none.in"], Path(name), environment))
    found = re.search(r"^--index-url (\S+)", said, flags=re.MULTILINE)
    return found[1] if found else ""


def locate(
    wanted: Sequence[Version | Pin],
    target: Target,
    *,
    index_options: Sequence[str] = (),
    no_binary: Sequence[str] = (),
    environment: Mapping[str, str],
    just_resolved: bool = False,
) -> tuple[File, ...]:
    """The files that the indexes have of exactly these versions and that fit the target.

    Nothing is resolved and no metadata is read, so that an sdist is never built for it; what is
    wanted by URL is not asked for at all. Where `resolve` has `just_resolved` them here, uv's
    cache has the pages that it took them from, and the indexes are not asked for each once more.
    Raises `NotResolved` when an index no longer has a version.
    """
    direct = tuple(_direct(version) for version in wanted if version.url)
    wanted = [version for version in wanted if not version.url]
    if not wanted:
        return direct
    ask = partial(_exactly, wanted, target, index_options, no_binary, environment, quiet=True)
    answer = ask(offline=True) if just_resolved else None
    if answer is None or answer.code:  # a user may have turned the cache off
        answer = ask()
    return direct + _files(_asked(answer))


_YANKED = re.compile(r'`([\w.-]+)==\S+` is yanked(?: \(reason: "(.*)"\))?', re.DOTALL)


def yanked(
    wanted: Sequence[Pin],
    target: Target,
    *,
    index_options: Sequence[str] = (),
    environment: Mapping[str, str],
) -> Mapping[str, str]:
    """Of these versions those that were yanked (PEP 592): by name, the reason, which may be empty.

    Raises `NotResolved` when an index no longer has a version at all.
    """
    found: dict[str, str] = {}
    wanted = [pin for pin in wanted if not pin.url]
    built = [pin.name for pin in wanted if not pin.is_wheel]
    if wanted:
        finished = _exactly(wanted, target, index_options, built, environment, quiet=False)
        _asked(finished)
        for warning in finished.errors.split("warning: ")[1:]:
            said = _YANKED.match(warning)
            if said:
                found[normalised(said[1])] = " ".join((said[2] or "").split())
    return found


def near(
    name: str,
    version: str,
    target: Target,
    *,
    index_options: Sequence[str] = (),
    environment: Mapping[str, str],
) -> tuple[str, ...]:
    """The version before and the one behind, of those that are there and not yanked."""
    found: list[str] = []
    for choice, sign in (("highest", "<"), ("lowest", ">")):
        one = _one(f"{name}{sign}{version}", choice, target, index_options, environment)
        found += [one] if one else []
    return tuple(found)


def _exactly(
    wanted: Sequence[Version | Pin],
    target: Target,
    index_options: Sequence[str],
    no_binary: Sequence[str],
    environment: Mapping[str, str],
    *,
    quiet: bool,
    offline: bool = False,
) -> process.Finished:
    """uv asked for exactly these versions: a pylock.toml, and, if not quiet, what it warns of;
    offline, only its cache.
    """
    with tempfile.TemporaryDirectory(prefix="lading-uv-") as name:
        folder = Path(name)
        lines = [*index_options, *(version.requirement for version in wanted)]
        (folder / "pins.txt").write_text("\n".join(lines) + "\n")
        # Told that each needs nothing, uv asks no file for its metadata.
        known = ", ".join(
            f'{{name = "{version.name}", version = "{version.version}", requires-dist = []}}'
            for version in wanted
        )
        (folder / "uv.toml").write_text(f"dependency-metadata = [{known}]\n")
        arguments = [*_asking(environment), "--no-deps"]
        arguments += ["--quiet"] if quiet else []
        arguments += ["--offline"] if offline else []
        arguments += ["--format", "pylock.toml", "--config-file", "uv.toml", *target.arguments()]
        for package in no_binary:
            arguments += ["--no-binary", package]
        return here([*arguments, "pins.txt"], folder, environment)


def _direct(version: Version | Pin) -> File:
    """The file that a URL names; what its name tells of the version, if anything."""
    url, _, fragment = version.url.partition("#")
    name = unquote(PurePosixPath(urlsplit(url).path).name)
    demanded = re.search(r"(?:^|&)sha256=([0-9A-Fa-f]{64})(?:&|$)", fragment)
    return File(
        name=version.name,
        version=version.version or version_in(name, version.name),
        file=name,
        sha256=demanded[1].lower() if demanded else "",
        size=None,
        url=url,
    )


def version_in(file: str, package: str) -> str:
    """The version in the name of a wheel or an sdist (PEP 427, PEP 625); empty in any other."""
    from packaging import utils

    parse = utils.parse_wheel_filename if file.endswith(".whl") else utils.parse_sdist_filename
    try:
        name, version, *_ = parse(file)
    except (utils.InvalidWheelFilename, utils.InvalidSdistFilename):
        return ""
    return str(version) if name == package else ""


def _files(pylock: str) -> tuple[File, ...]:
    """Reads a pylock.toml (PEP 751): all wheels first, then the sdist, of each package."""
    import tomllib

    files: list[File] = []
    for package in tomllib.loads(pylock).get("packages", []):
        entries: list[dict[str, Any]] = [*package.get("wheels", [])]
        entries += [package[kind] for kind in ("sdist", "archive") if kind in package]
        for entry in entries:
            path = urlsplit(entry.get("url") or entry.get("path", "")).path
            files.append(
                File(
                    name=normalised(package["name"]),
                    version=str(package.get("version", "")),
                    file=entry.get("name") or unquote(PurePosixPath(path).name),
                    sha256=entry.get("hashes", {}).get("sha256", ""),
                    size=entry.get("size"),
                    url=entry.get("url") or Path(entry["path"]).resolve().as_uri(),
                )
            )
    return tuple(files)


def best(files: Iterable[File], target: Target) -> File | None:
    """The file an installer takes for the target: the best wheel by its tags, else the sdist."""
    from packaging.tags import Tag, compatible_tags, cpython_tags
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    files = list(files)
    machine = MACHINES[target.platform]
    glibc = numbers(target.glibc)
    legacy = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}
    platforms = [f"linux_{machine}"]
    for minor in range(glibc[1], 4, -1):
        platforms.append(f"manylinux_2_{minor}_{machine}")
        if (2, minor) in legacy:
            platforms.append(f"{legacy[2, minor]}_{machine}")
    python = [int(part) for part in target.python_version.split(".")[:2]]
    interpreter = f"cp{python[0]}{python[1]}"
    # The ABI is named, or `packaging` would look at the Python that runs here.
    order: dict[Tag, int] = {}
    for tag in [
        *cpython_tags(python_version=python, abis=[interpreter], platforms=platforms),
        *compatible_tags(python_version=python, interpreter=interpreter, platforms=platforms),
    ]:
        order.setdefault(tag, len(order))
    ranked: list[tuple[int, tuple[int, str], File]] = []
    for file in files:
        try:
            _, _, build, tags = parse_wheel_filename(file.file)
        except InvalidWheelFilename:
            continue
        fitting = [order[tag] for tag in tags if tag in order]
        if fitting:
            # Of two builds of one wheel the later one (PEP 427).
            ranked.append((-min(fitting), build or (0, ""), file))
    if ranked:
        return max(ranked, key=lambda row: (row[0], row[1], row[2].file))[2]
    return next((file for file in files if not file.file.endswith(".whl")), None)


def sources_of(files: Iterable[File]) -> dict[str, list[Source]]:
    """Where each file can be had, by its sha256, with the credentials of the user's index."""
    from lading import net

    found: dict[str, list[Source]] = {}
    for file in files:
        found.setdefault(file.sha256, []).append(
            Source(url=file.url, auth=net.credentials(file.url))
        )
    return found


def measured(file: File) -> tuple[str, int]:
    """The sha256 and the size in bytes of a file, by reading all of it."""
    import hashlib

    import requests

    from lading import net

    digest, size = hashlib.sha256(), 0
    if urlsplit(file.url).scheme == "file":
        path = net.local_path(file.url)
        try:
            return sha256_of(path), path.stat().st_size
        except OSError as error:
            raise EnvironmentProblem(f"{path} can't be read", why=str(error)) from error
    with net.session() as session:
        answer = net.ask(session, file.url, auth=net.credentials(file.url), stream=True)
        if not answer.ok:
            raise net.answer_problem(answer.status_code, file.url)
        try:
            for chunk in answer.iter_content(1 << 20):
                digest.update(chunk)
                size += len(chunk)
        except (requests.RequestException, OSError) as error:
            raise net.problem(error, file.url) from error
    return digest.hexdigest(), size


def url_sources(url: str) -> list[Source]:
    """Where a requirement by URL is had: there."""
    from lading import net

    return [Source(url=url.partition("#")[0], auth=net.credentials(url))]


def with_wheels(
    name: str, target: Target, environment: Mapping[str, str]
) -> tuple[str, str] | None:
    """The oldest and the newest version of a package that has a wheel for the target."""
    ends = [_one(name, choice, target, (), environment) for choice in ("lowest", "highest")]
    return (ends[0], ends[1]) if all(ends) else None


def _one(
    requirement: str,
    choice: str,
    target: Target,
    index_options: Sequence[str],
    environment: Mapping[str, str],
) -> str:
    """The lowest or highest version with a wheel that answers a requirement; empty without one."""
    with tempfile.TemporaryDirectory(prefix="lading-uv-") as folder:
        (Path(folder) / "one.in").write_text("\n".join([*index_options, requirement]) + "\n")
        arguments = [*_asking(environment), "--quiet", "--no-annotate", "--no-config"]
        arguments += ["--no-deps", "--no-build", "--resolution", choice, *target.arguments()]
        finished = here([*arguments, "one.in"], Path(folder), environment)
    found = versions(finished.output)
    return "" if finished.code or not found else found[0].version


def unpacked(store: Store, sha256: str) -> Path:
    """The program out of its wheel in the store, in the store, too. Raises `LadingError` where the
    wheel is no longer what was downloaded; it is thrown away.
    """
    from zipfile import BadZipFile
    from zlib import error as ZlibError  # noqa: N812

    wheel = store.path(sha256)
    try:
        return store.derived(sha256, "uv", lambda out: extract_binary(wheel, out))
    except (BadZipFile, ZlibError, EOFError, ValueError, StopIteration, RuntimeError) as bad:
        whole = store.verify(Artifact(name="uv", sha256=sha256))
        raise LadingError(
            "the wheel of uv can't be unpacked",
            why=f"{wheel}: {bad}",
            do="have another uv in the index, and `doit upgrade` it"
            if whole
            else "it was damaged on this machine's disk, and thrown away: run it again, and it is "
            "fetched anew",
        ) from bad


def extract_binary(wheel: Path, out: Path) -> None:
    """Takes the `uv` program out of its wheel."""
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        member = next(n for n in archive.namelist() if n.endswith(".data/scripts/uv"))
        with archive.open(member) as source, out.open("wb") as target:
            shutil.copyfileobj(source, target)
    out.chmod(0o755)
