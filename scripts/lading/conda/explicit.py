"""The list of packages that follows from a LockFile: `@EXPLICIT`, as `conda install --file` has it.

In place of a server each URL has `channel:///` and the channel's name: which server that is, the
user's configuration says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lading.errors import LadingError
from lading.store import Artifact

BASE = "channel:///"
_FILE = r"[A-Za-z0-9_.][A-Za-z0-9_.+!~-]*-[A-Za-z0-9_.+!~]+-[A-Za-z0-9_.]+\.(?:conda|tar\.bz2)"
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_URL = rf"{re.escape(BASE)}(?P<channel>{_PART}(?:/{_PART})*)/(?P<subdir>{_PART})/(?P<file>{_FILE})"
_LINE = re.compile(rf"{_URL}#sha256:(?P<sha256>[0-9a-f]{{64}})")
# Digits alone, or with one e among them, would be a number to YAML: they stand in quotes.
_LOCKED = re.compile(r"(?m)^(?:- conda: (\S+)|  (sha256|md5|size): '?([^\s']+)'?)$")
_URL_IN_LOCK = re.compile(_URL)
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Package:
    """A locked package: its channel's name, its folder there and its file; `size` in bytes."""

    channel: str
    subdir: str
    file: str
    sha256: str
    size: int | None = None
    md5: str = ""

    @property
    def url(self) -> str:
        return f"{BASE}{self.channel}/{self.subdir}/{self.file}"

    @property
    def stem(self) -> str:
        """NAME-VERSION-BUILD."""
        return self.file.removesuffix(".conda").removesuffix(".tar.bz2")

    @property
    def name(self) -> str:
        return self.stem.rsplit("-", 2)[0]

    @property
    def version(self) -> str:
        return self.stem.rsplit("-", 2)[1]

    @property
    def artifact(self) -> Artifact:
        return Artifact(name=self.file, sha256=self.sha256, size=self.size)


def render(packages: Iterable[Package], subdir: str) -> str:
    """The body of explicit.txt."""
    lines = [f"{package.url}#sha256:{package.sha256}\n" for package in packages]
    return f"# platform: {subdir}\n@EXPLICIT\n{''.join(lines)}"


def listed(text: str, path: str) -> tuple[tuple[str, str], ...]:
    """URL and sha256 of each package that explicit.txt names.

    Raises `LadingError`, with the line, for any line that is none of `render`'s.
    """
    found: list[tuple[str, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#") or line == "@EXPLICIT":
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            lacks = re.fullmatch(rf"{_URL}(?:#[0-9a-f]{{32}})?", line)
            raise LadingError(
                f"{path}:{number}: "
                + ("a package without a sha256" if lacks else "not a line of a conda lock"),
                why=line[:200],
                do="undo the edit, or delete the file and lock again",
            )
        found.append((line.partition("#")[0], match["sha256"]))
    return tuple(found)


def locked(text: str, path: str) -> tuple[Package, ...]:
    """The packages of a LockFile for one platform, in its order.

    Read by the lines that py-rattler writes, many times faster than as YAML. Raises `LadingError`
    for a package without a sha256, or with a URL that names a server.
    """
    entries: list[tuple[str, dict[str, str]]] = []
    for url, key, value in _LOCKED.findall(text, text.find("\npackages:\n") + 1):
        if url:
            entries.append((url, {}))
        elif entries:
            entries[-1][1][key] = value
    found: list[Package] = []
    for url, keys in entries:
        match = _URL_IN_LOCK.fullmatch(url)
        sha256, size = keys.get("sha256", ""), keys.get("size", "")
        if match is None or not _SHA256.fullmatch(sha256):
            at = text.find(f"\n- conda: {url}\n", text.find("\npackages:\n"))
            raise LadingError(
                f"{path}:{text.count(chr(10), 0, at + 1) + 1}: not a conda lock",
                why=f"{url[:200]}: "
                + ("no sha256" if match else f"a URL is {BASE}CHANNEL/SUBDIR/FILE here"),
                do="undo the edit, or delete the file and lock again",
            )
        found.append(
            Package(
                channel=match["channel"],
                subdir=match["subdir"],
                file=match["file"],
                sha256=sha256,
                size=int(size) if size.isdigit() else None,
                md5=keys.get("md5", ""),
            )
        )
    return tuple(found)
