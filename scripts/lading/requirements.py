"""Requirement files: what people write, and the pinned ones that lading writes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lading.errors import DeclarationError, LadingError
from lading.store import Artifact

INCLUDE = re.compile(
    r"^(?:-r|-c|--requirements?|--constraints?)[ =]\s*(?P<path>\S+)|^-[rc](?P<p2>\S+)"
)
INDEX_OPTION = re.compile(
    r"^(?:-i|-f|--(?:index-url|extra-index-url|find-links|no-index|index|default-index))\b"
)
VCS = re.compile(r"(?:^|@\s*)(?:git|hg|svn|bzr)\+")
LOCAL = re.compile(r"^(?:-e\b|--editable\b|\.{0,2}/|file:)|@\s*(?:file:|\.{0,2}/)")
NAME = re.compile(r"^(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One logical line of a requirement file: where it stands, and its text without comment."""

    path: str
    number: int
    text: str

    @property
    def name(self) -> str:
        """The normalised name (PEP 503) of the required package; empty for an option."""
        found = NAME.match(self.text)
        return normalised(found["name"]) if found and not self.text.startswith("-") else ""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Requirement files as read, once: each path in the project and its bytes, roots first."""

    roots: tuple[str, ...]
    constraints: tuple[str, ...]
    files: Mapping[str, bytes]

    def lines(self) -> Iterator[Line]:
        """All logical lines of all files, in the order of reading."""
        for path, data in self.files.items():
            yield from lines_of(path, data)

    def names(self) -> tuple[str, ...]:
        """The packages that the root files themselves ask for, sorted."""
        return tuple(
            sorted({line.name for line in self.lines() if line.name and line.path in self.roots})
        )

    def index_options(self) -> tuple[str, ...]:
        """The lines that name indexes: the user's own configuration, needed to find files."""
        return tuple(line.text for line in self.lines() if INDEX_OPTION.match(line.text))


def normalised(name: str) -> str:
    """A package's name as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lines_of(path: str, data: bytes) -> Iterator[Line]:
    """Logical lines: continuations joined, comments and blank lines left out."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DeclarationError(f"{path}: not UTF-8", why=str(error)) from error
    joined, start = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        start = start or number
        joined += raw
        if raw.endswith("\\"):
            joined = joined[:-1] + " "
            continue
        content = re.sub(r"(^|\s)#.*$", "", joined).strip()
        if content:
            yield Line(path=path, number=start, text=content)
        joined, start = "", 0
    if joined.strip():
        yield Line(path=path, number=start, text=joined.strip())


def read(root: Path, requirements: str, constraints: Iterable[str] = ()) -> Sources:
    """Reads a requirement file of the project at `root` and every file it includes.

    Raises `DeclarationError`, naming file and line, for what can't be locked: editable and
    local packages, checkouts of a version control system, files outside the project.
    """
    files: dict[str, bytes] = {}
    problems: list[str] = []
    constraints = tuple(constraints)

    def add(path: str, said_by: str) -> None:
        if path in files:
            return
        real = (root / path).resolve()
        if not real.is_relative_to(root.resolve()):
            problems.append(f"{said_by}: {path} leads out of the project")
            return
        try:
            files[path] = real.read_bytes()
        except OSError as error:
            problems.append(f"{said_by}: {path} can't be read: {error.strerror}")
            return
        for line in lines_of(path, files[path]):
            at = f"{line.path}:{line.number}"
            include = INCLUDE.match(line.text)
            if include:
                name = include["path"] or include["p2"]
                add(_joined(path, name), at)
            elif VCS.search(line.text):
                problems.append(
                    f"{at}: a checkout has no sha256 that could be locked: {line.text}\n"
                    "  -> name the commit's archive by URL (package @ https://…/COMMIT.tar.gz)"
                )
            elif LOCAL.search(line.text):
                problems.append(
                    f"{at}: a local or editable package can't be locked: {line.text}\n"
                    "  -> make a wheel of it and name its URL, or bring it in with `files:`"
                )

    add(requirements, requirements)
    for path in constraints:
        add(path, requirements)
    if problems:
        raise DeclarationError("\n".join(problems))
    return Sources(roots=_roots(requirements, files), constraints=constraints, files=files)


def _joined(path: str, include: str) -> str:
    """The path in the project of what a file includes (relative to that file, as pip has it)."""
    parts: list[str] = []
    for part in (PurePosixPath(path).parent / include).parts:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return str(PurePosixPath(*parts)) if parts else "."


def _roots(requirements: str, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """The requirement file and what it includes with -r; constraints ask for nothing."""
    roots: list[str] = []

    def add(path: str) -> None:
        if path not in files or path in roots:
            return
        roots.append(path)
        for line in lines_of(path, files[path]):
            include = INCLUDE.match(line.text)
            if include and re.match(r"^(?:-r|--requirement)", line.text):
                add(_joined(path, include["path"] or include["p2"]))

    add(requirements)
    return tuple(roots)


@dataclass(frozen=True, kw_only=True)
class Pin:
    """One package of a lock: its exact version, the one file that is used, and who wants it.

    `url` stands only where the user's own requirement names one.
    """

    name: str
    version: str
    artifact: Artifact
    url: str = ""
    via: tuple[str, ...] = ()

    @property
    def is_wheel(self) -> bool:
        return self.artifact.name.endswith(".whl")

    @property
    def requirement(self) -> str:
        """The requirement that asks for exactly this, without its hash."""
        return f"{self.name} @ {self.url}" if self.url else f"{self.name}=={self.version}"


def render(pins: Iterable[Pin]) -> str:
    """A requirements file in pip's hash-checking form; what is not pip's stands in comments."""
    text = ""
    for pin in pins:
        text += f"{pin.requirement} \\\n    --hash=sha256:{pin.artifact.sha256}\n"
        version = f" {pin.version}" if pin.url else ""
        text += f"    # file: {pin.artifact.name} {pin.artifact.size}{version}\n"
        if pin.via:
            text += f"    # via: {', '.join(pin.via)}\n"
    return text


PINNED = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)(?:==(?P<version>\S+)| @ (?P<url>\S+)) \\\n"
    r"    --hash=sha256:(?P<sha256>[0-9a-f]{64})\n"
    r"    # file: (?P<file>\S+) (?P<size>\d+)(?: (?P<version2>\S+))?\n"
    r"(?:    # via: (?P<via>.*)\n)?",
    re.MULTILINE,
)


def parse(text: str, path: str) -> tuple[Pin, ...]:
    """The pins of a file that `render` wrote (behind any header of comments).

    Raises `LadingError` for anything else: a lock edited by hand is made again, not guessed at.
    """
    pins: list[Pin] = []
    at = 0
    while text.startswith("#", at) or text.startswith("\n", at):
        at = text.index("\n", at) + 1 if "\n" in text[at:] else len(text)
    while at < len(text):
        found = PINNED.match(text, at)
        if found is None:
            line = text.count("\n", 0, at) + 1
            raise LadingError(
                f"{path}:{line}: not a line of a lock",
                do="undo the edit, or delete the file and lock again",
            )
        via = tuple(found["via"].split(", ")) if found["via"] else ()
        pins.append(
            Pin(
                name=found["name"],
                version=found["version"] or found["version2"] or "",
                url=found["url"] or "",
                artifact=Artifact(
                    name=found["file"], sha256=found["sha256"], size=int(found["size"])
                ),
                via=via,
            )
        )
        at = found.end()
    return tuple(pins)
