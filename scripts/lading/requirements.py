"""Requirement files: what people write, and the pinned ones that lading writes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path, PurePosixPath

from msgspec import Struct

from lading.errors import DeclarationError, LadingError
from lading.files import content_of, resolved
from lading.net import redact
from lading.schema import axes
from lading.store import Artifact

INCLUDE = re.compile(r"^(?P<option>-[rc]|--(?:requirement|constraint)(?=[\s=]))[\s=]*(?P<path>.+)")
INDEX_OPTION = re.compile(r"^(?:-i|-f|--(?:index-url|extra-index-url|find-links|no-index)\b)")
EDITABLE = re.compile(r"^(?:-e|--editable\b)")
KNOWN_OPTION = re.compile(r"^--(?:only-binary|require-hashes)\b")
VCS = re.compile(r"(?:^|@\s*|\s)(?:git|hg|svn|bzr)\+")
NAME = re.compile(r"^(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)")
DIRECT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*\s*(?:\[[^]]*\])?\s*@\s*(?P<place>\S+)")
URL = re.compile(r"^(?!file:)[A-Za-z][A-Za-z0-9+.-]*://")
ARCHIVE = re.compile(r"\.(?:whl|zip|tar|tar\.gz|tgz|tar\.bz2|tar\.xz)$", re.IGNORECASE)
HASH = re.compile(r"--hash[= ]sha256:([0-9A-Fa-f]{64})\b")
SECRET = re.compile(r"://[^\s/@]*@")
VARIABLE = re.compile(r"\$\{[A-Z0-9_]+\}")
SUBDIRECTORY = re.compile(r"#(?:\S*&)?subdirectory=")
SEPARATORS = re.compile(r"[-_.]+")
LINE_END = re.compile(r"\r\n|\r|\n")
COMMENT = re.compile(r"(^|\s)#.*$")
HEAD_END = re.compile(r"[\s;<>=!~\[(]")


class Line(Struct, frozen=True, kw_only=True):
    """One logical line of a requirement file: where it stands, and its text without comment."""

    path: str
    number: int
    text: str

    @property
    def name(self) -> str:
        """The normalised name (PEP 503) of the required package; empty for an option or a URL."""
        found = NAME.match(self.text)
        return normalised(found["name"]) if found and not URL.match(self.text) else ""


class Sources(Struct, frozen=True, kw_only=True, dict=True):
    """Requirement files as read, once: each path in the project and its bytes, roots first.

    more: beside the first root, those that no other file includes.
    """

    roots: tuple[str, ...]
    constraints: tuple[str, ...]
    files: Mapping[str, bytes]
    more: tuple[str, ...] = ()

    @property
    def asked(self) -> tuple[str, ...]:
        """The files that are asked for by themselves."""
        return (self.roots[0], *self.more)

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """All logical lines of all files, in the order of reading."""
        return tuple(line for path, data in self.files.items() for line in lines_of(path, data))

    def names(self) -> tuple[str, ...]:
        """The packages that the root files themselves ask for, sorted."""
        return tuple(
            sorted({line.name for line in self.lines if line.name and line.path in self.roots})
        )

    def index_options(self) -> tuple[str, ...]:
        """The lines that name indexes: the user's own configuration, needed to find files."""
        return tuple(line.text for line in self.lines if INDEX_OPTION.match(line.text))

    def hashes(self) -> Mapping[str, frozenset[str]]:
        """The sha256 that the files themselves demand of a package's file, by its name."""
        found: dict[str, frozenset[str]] = {}
        for line in self.lines:
            demanded = frozenset(text.lower() for text in HASH.findall(line.text))
            if line.name and demanded:
                found[line.name] = found.get(line.name, frozenset()) | demanded
        return found


def normalised(name: str) -> str:
    """A package's name as PEP 503 has it."""
    return SEPARATORS.sub("-", name).lower()


def lines_of(path: str, data: bytes) -> Iterator[Line]:
    """Logical lines as pip has them: continuations joined, comments and blank lines left out.

    Raises `DeclarationError` for a file that is not UTF-8.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DeclarationError(f"{path}: not UTF-8", why=str(error)) from error
    joined, start = "", 0
    lines = LINE_END.split(text)
    for number, raw in enumerate(lines, 1):
        start = start or number
        # A line that is all comment is never continued, but it ends what was.
        comment = raw.lstrip().startswith("#")
        if raw.endswith("\\") and not comment:
            joined += raw.rstrip("\\")
            if number < len(lines):
                continue
            raw = ""
        content = COMMENT.sub("", f"{joined} {raw}" if comment else joined + raw).strip()
        if content:
            yield Line(path=path, number=start, text=content)
        joined, start = "", 0


def written_out(path: str, data: bytes) -> str:
    """The file for readers that know less than pip: no continuations, quotes and comments.

    What is said stands in the line in which it began, so that positions stay the same.
    """
    lines: list[str] = []
    for line in lines_of(path, data):
        lines += [""] * (line.number - 1 - len(lines))
        include = INCLUDE.match(line.text)
        lines.append(f"{include['option']} {included(include)}" if include else line.text)
    return "".join(line + "\n" for line in lines)


def read(
    root: Path,
    requirements: str,
    constraints: Iterable[str] = (),
    given: Mapping[str, bytes] | None = None,
    values: Mapping[str, str] | None = None,
) -> Sources:
    """Reads a requirement file of the project at `root` and every file it includes. Files that
    are `given` are requirements, too, and not read; there may be nothing but them. `values` are
    those of a variant, by axis, and stand in the files' places of `{axis}`.

    Raises `DeclarationError`, naming file and line, for what can't be locked: editable and
    local packages, checkouts of a version control system, files outside the project, options
    that would be passed over, credentials.
    """
    files: dict[str, bytes] = {}
    required: dict[str, list[str]] = {}
    problems: list[str] = []
    constraints = tuple(constraints)
    given = given or {}
    home = _home(root)

    def add(path: str, said_by: str, within: tuple[str, ...] = ()) -> None:
        if path in files:
            return
        try:
            # In strings: it is done for each image of each run, and pathlib is slow.
            real = resolved(home, path)
            first = path.partition("/")[0]
            outside = first in ("", ".", "..") and PurePosixPath(path).parts[:1] in _OUTSIDE
            if outside or not f"{real}/".startswith(f"{home.rstrip('/')}/"):
                problems.append(f"{said_by}: {path} leads out of the project")
                return
            if real in within:
                problems.append(f"{said_by}: {path} includes itself by way of a symbolic link")
                return
            files[path] = (
                given[path] if path in given else axes.filled_bytes(content_of(real), values or {})
            )
        except (OSError, RuntimeError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            problems.append(f"{said_by}: {path} can't be read: {why}")
            return
        for line in lines_of(path, files[path]):
            at = f"{line.path}:{line.number}"
            include = INCLUDE.match(line.text)
            problem = refused(line.text)
            if include and not URL.match(included(include)):
                other = _joined(path, included(include))
                if include["option"] in ("-r", "--requirement"):
                    required.setdefault(path, []).append(other)
                add(other, at, (*within, real))
            elif problem:
                what, instead = problem
                problems.append(f"{at}: {what}: {redact(line.text)}\n  -> {instead}")

    asked = tuple(filter(None, (requirements, *given)))
    for path in asked:
        add(path, path)
    for path in constraints:
        add(path, requirements)
    if problems:
        raise DeclarationError("\n".join(problems))
    roots = _roots(asked, required)
    return Sources(roots=roots, constraints=constraints, files=files, more=asked[1:])


_OUTSIDE: tuple[tuple[str, ...], ...] = ((), ("/",), ("..",))


@cache
def _home(root: Path) -> str:
    return os.path.realpath(root)


def refused(text: str) -> tuple[str, str] | None:
    """Why a line can't be locked, and what to write instead; None if it can."""
    if VCS.search(text):
        return (
            "a checkout has no sha256 that could be locked",
            "name the commit's archive by URL (package @ https://…/COMMIT.tar.gz)",
        )
    if SECRET.search(text):
        return (
            "credentials would get into the image",
            "give them in your own configuration: UV_INDEX or PIP_INDEX_URL, or ~/.netrc",
        )
    if INCLUDE.match(text):
        return "a file elsewhere can't be locked", "copy it into the project"
    if INDEX_OPTION.match(text):
        place = re.sub(r"^(?:-f|--find-links)[\s=]*", "", text)
        if place != text and not URL.match(place) and not place.startswith(("/", "file:", "$")):
            return (
                "a folder of the project is no index",
                "name it as a URL or an absolute path, or in UV_FIND_LINKS",
            )
        return None
    if EDITABLE.match(text) or _is_local(text):
        return (
            "a local or editable package can't be locked",
            "make a wheel of it and name its URL, or bring it in with `files:`",
        )
    if text.startswith("-") and not KNOWN_OPTION.match(text):
        return (
            "an option that has no effect here",
            "project.yaml has `no-binary`; ask for a pre-release by its version; "
            "the rest is your own configuration",
        )
    if SUBDIRECTORY.search(text):
        return (
            "only the top of an archive can be built",
            "name an archive that has the package there",
        )
    if VARIABLE.search(text):
        return "a variable can't be locked", "write out what it stands for"
    return None


def _is_local(text: str) -> bool:
    """Whether a requirement names a file or folder of this machine (PEP 508 and pip's paths)."""
    direct = DIRECT.match(text)
    if direct:
        return not URL.match(direct["place"]) and not direct["place"].startswith("${")
    if text.startswith("-") or URL.match(text):
        return False
    head = HEAD_END.split(text, maxsplit=1)[0]
    return head.startswith((".", "file:")) or "/" in head or bool(ARCHIVE.search(head))


def included(include: re.Match[str]) -> str:
    """The path behind -r or -c, which may stand in quotes."""
    path = include["path"].strip()
    return path[1:-1] if len(path) > 1 and path[0] == path[-1] and path[0] in "'\"" else path


def _joined(path: str, include: str) -> str:
    """The path in the project of what a file includes (relative to that file, as pip has it)."""
    parts: list[str] = []
    for part in (PurePosixPath(path).parent / include).parts:
        if part == ".." and parts and parts[-1] not in ("..", "/"):
            parts.pop()
        elif part != ".":
            parts.append(part)
    return str(PurePosixPath(*parts)) if parts else "."


def _roots(asked: Iterable[str], required: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """The requirement files and what they include with -r; constraints ask for nothing."""
    roots: list[str] = []

    def add(path: str) -> None:
        if path in roots:
            return
        roots.append(path)
        for other in required.get(path, ()):
            add(other)

    for path in asked:
        add(path)
    return tuple(roots)


class Pin(Struct, frozen=True, kw_only=True):
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
        version = f" {pin.version}" if pin.url and pin.version else ""
        text += f"    # file: {pin.artifact.name} {pin.artifact.size}{version}\n"
        if pin.via:
            text += f"    # via: {', '.join(pin.via)}\n"
    return text


PINNED = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)(?:==(?P<version>\S+)| @ (?P<url>\S+)) \\\n"
    r"    --hash=sha256:(?P<sha256>[0-9a-f]{64})\n"
    r"    # file: (?P<file>\S+) (?P<size>\d{1,18})(?: (?P<version2>\S+))?\n"
    r"(?:    # via: (?P<via>.*)\n)?",
    re.MULTILINE,
)


def parse(text: str, path: str) -> tuple[Pin, ...]:
    """The pins of a file that `render` wrote (behind any header of comments).

    Raises `LadingError` for anything else, also for a version that is not the file's: a lock that
    was edited is made again, from the versions in it.
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
                do="undo the edit, or lock again: versions in it that fit are kept",
            )
        if found["version"] and not _is_of(found["version"], found["file"]):
            line = text.count("\n", 0, at) + 1
            raise LadingError(
                f"{path}:{line}: {found['name']} {found['version']} is not what its file is of",
                why=found["file"],
                do="undo the edit, or lock again: versions in it that fit are kept",
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


def _is_of(version: str, file: str) -> bool:
    """Whether a file can be of this version, by its name."""
    if f"-{version}-" in file or f"-{version}." in file:
        return True
    # An older file can have its version in another spelling: 2020.01.02 for 2020.1.2.
    from packaging import utils
    from packaging.version import InvalidVersion, Version

    parse = utils.parse_wheel_filename if file.endswith(".whl") else utils.parse_sdist_filename
    try:
        return parse(file)[1] == Version(version)
    except (utils.InvalidWheelFilename, utils.InvalidSdistFilename, InvalidVersion):
        return True  # an archive by any name
