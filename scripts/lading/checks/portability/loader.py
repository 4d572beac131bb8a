"""How glibc's loader finds a library in the image, and F8: libraries that it will not find.

ld.so(8), 'NOTES' and the order of the search; ldconfig(8); the cache's format is glibc's
sysdeps/generic/dl-cache.h ("glibc-ld.so.cache1.1").
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
import struct
from collections.abc import Iterable, Iterator
from functools import cached_property

from lading.checks.portability.findings import Found
from lading.checks.portability.subject import MOST, Subject
from lading.checks.portability.view import Placed

CACHE = "/etc/ld.so.cache"
_MAGIC = b"glibc-ld.so.cache1.1"
_MULTIARCH = {
    "amd64": "x86_64-linux-gnu",
    "arm64": "aarch64-linux-gnu",
    "ppc64le": "powerpc64le-linux-gnu",
    "s390x": "s390x-linux-gnu",
    "riscv64": "riscv64-linux-gnu",
}
_LIBRARY = re.compile(r"lib[^/]*\.so(\..*)?", re.DOTALL)
_ENTRIES = 100_000


class Loader:
    """The folders and the cache of one image."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._view = subject.view
        self._known: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Placed | None] = {}

    @cached_property
    def multiarch(self) -> str:
        parts = self._subject.platform.split("/")
        return _MULTIARCH.get(parts[1] if len(parts) > 1 else "", "")

    @cached_property
    def trusted(self) -> list[str]:
        """The folders that are searched without a cache; Debian's has its multiarch ones too."""
        tops = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"]
        more = [f"{top}/{self.multiarch}" for top in ("/lib", "/usr/lib")] if self.multiarch else []
        return self._real([*more, *tops])

    @cached_property
    def configured(self) -> list[str]:
        """The folders that ldconfig looks into beside the trusted ones."""
        folders = self._real(self._listed())
        return [folder for folder in folders if folder not in self.trusted]

    @cached_property
    def variable(self) -> list[str]:
        """LD_LIBRARY_PATH of the image."""
        folders = re.split("[:;]", self._subject.env.get("LD_LIBRARY_PATH", ""))
        return [folder for folder in folders if folder][:MOST]

    @cached_property
    def cache(self) -> dict[str, list[str]] | None:
        """Sonames and their paths; None where there is no cache, or it can't be read."""
        found = self._view.file(CACHE)
        return parsed(found.node.content) if found is not None else None

    def find(
        self, name: str, before: Iterable[str] = (), after: Iterable[str] = ()
    ) -> Placed | None:
        """The library of a soname: in RPATH (`before`), the variable, RUNPATH (`after`), the rest.

        ld.so(8): DT_RPATH, LD_LIBRARY_PATH, DT_RUNPATH, the cache, the trusted folders.
        """
        asked = (name, tuple(before), tuple(after))
        if asked not in self._known:
            self._known[asked] = self._found(*asked)
        return self._known[asked]

    def _found(self, name: str, before: tuple[str, ...], after: tuple[str, ...]) -> Placed | None:
        if "/" in name:
            return self._view.file(name)
        cached = [posixpath.dirname(path) for path in (self.cache or {}).get(name, ())]
        for folder in (*before, *self.variable, *after, *cached, *self.trusted):
            found = self._view.file(f"{folder}/{name}") if folder.startswith("/") else None
            if found is not None:
                return found
        return None

    def expanded(self, paths: Iterable[str], origin: str) -> list[str]:
        """RPATH or RUNPATH of a file in the folder `origin`: $ORIGIN and $LIB put in."""
        values = {"ORIGIN": origin, "LIB": f"lib/{self.multiarch}" if self.multiarch else "lib64"}
        found = []
        for path in paths:
            text = re.sub(
                r"\$(?:\{(\w+)\}|(\w+))",
                lambda match: values.get(match[1] or match[2], match[0]),
                path,
            )
            self._view.step(1 + len(text) // 8)
            if text.startswith("/"):
                found.append(posixpath.normpath(text))
        return found

    def _listed(self) -> list[str]:
        """What ldconfig's files list: /etc/ld.so.conf, and what is included, each file once."""
        folders: list[str] = []
        todo = dict.fromkeys(["/etc/ld.so.conf"])
        seen: set[str] = set()
        while todo:
            found = self._view.file(todo.popitem()[0])
            if found is None or found.path in seen:
                continue
            seen.add(found.path)
            for line in found.node.content.decode("utf-8", "replace").splitlines()[:1000]:
                words = line.partition("#")[0].replace(",", " ").split()
                if words[:1] == ["include"]:
                    for pattern in words[1:]:
                        todo |= dict.fromkeys(self._included(posixpath.join("/etc", pattern)))
                elif words and words[0].startswith("/"):
                    folders.append(words[0])
        return folders

    def _included(self, pattern: str) -> list[str]:
        base, _, pattern = pattern.rpartition("/")
        folder = self._view.find(base)
        if folder is None or len(pattern) > 255:
            return []
        names = self._view.names(folder.path)
        # About what it takes to compile a pattern, to compare it, and to write a path.
        self._view.step((100 + len(names)) * (len(pattern) + len(folder.path)))
        return [f"{folder.path}/{name}" for name in names if fnmatch.fnmatchcase(name, pattern)]

    def _real(self, folders: Iterable[str]) -> list[str]:
        """The folders that are there, without links, each once."""
        found = (self._view.find(folder) for folder in folders)
        return list(dict.fromkeys(p.path for p in found if p is not None and p.node.children))


def parsed(data: bytes) -> dict[str, list[str]] | None:
    """ld.so.cache: sonames and their paths. None if it is not one, or cut off."""
    start = data.find(_MAGIC)
    if start < 0 or len(data) < start + 48:
        return None
    data = data[start:]
    order = ">" if data[28] & 3 == 3 else "<"
    (count,) = struct.unpack_from(order + "I", data, 20)
    if count > _ENTRIES or 48 + 24 * count > len(data):
        return None
    found: dict[str, list[str]] = {}
    size = 0
    for at in range(48, 48 + 24 * count, 24):
        _, key, value = struct.unpack_from(order + "iII", data, at)
        if max(key, value) >= len(data):
            return None
        soname, path = _text(data, key), _text(data, value)
        size += len(soname) + len(path)
        if size > 4 * len(data):  # texts that share all but their first letters
            return None
        found.setdefault(soname, []).append(path)
    return found


def _text(data: bytes, at: int) -> str:
    return data[at : max(data.find(b"\0", at, at + 4096), at)].decode("utf-8", "replace")


def check(subject: Subject, loader: Loader) -> Iterator[Found]:
    """F8: what lies in ldconfig's folders and is not in the cache.

    The trusted folders are searched anyhow; elsewhere the cache alone decides. What it lists is
    compared, not times: those of an archive may all be the same.
    """
    in_variable = {p.path for f in loader.variable if (p := subject.view.find(f)) is not None}
    for folder in loader.configured:
        if folder in in_variable:
            continue
        for name in subject.view.names(folder):
            found = subject.view.file(f"{folder}/{name}")
            if found is None or found.node.elf is None or not _LIBRARY.fullmatch(name):
                continue
            soname = found.node.elf.soname or name
            if loader.cache is None or soname not in loader.cache:
                yield Found(
                    "F8",
                    "error",
                    f"{folder}/{name}",
                    "the loader does not find this library: "
                    + (
                        "there is no ld.so.cache"
                        if loader.cache is None
                        else "ldconfig ran before it came"
                    ),
                    "RUN ldconfig, as the last step that installs libraries",
                )
