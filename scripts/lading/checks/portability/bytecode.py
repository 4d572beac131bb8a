"""F10 and F11: Python's bytecode, which nobody can write in a read-only image.

Without it every start compiles every module again (containers/bubblewrap#638 and
pangeo-data/pangeo-docker-images#426 have figures). PEP 3147: its place; PEP 552: its header.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from lading.checks.portability.findings import Found
from lading.checks.portability.subject import Subject
from lading.checks.portability.view import Node, Placed, View

_SKIPPED = {"test", "tests", "testing", "__pycache__", "idlelib", "lib2to3", "templates"}
_FEW = 10
"""Modules below which a package without bytecode is not worth a word."""

_VERSION = re.compile(r"\.cpython-(\d+)\.pyc$")


def check(subject: Subject) -> Iterator[Found]:
    """Packages most of whose modules have no bytecode, and bytecode that Python throws away."""
    nested = {path for path, _, _ in subject.libraries}
    for path, _, version in subject.libraries:
        found = subject.view.find(path)
        if found is None:
            continue
        tag = version.replace(".", "")
        tops = [
            (name, child)
            for name, child in sorted((found.node.children or {}).items())
            if f"{path}/{name}" not in nested and name not in _SKIPPED
        ]
        modules = {n: c for n, c in tops if c.kind == "file"}
        caches = (found.node.children or {}).get("__pycache__")
        yield from _folder(path, [(path, modules, caches)], tag)
        for name, child in tops:
            if child.children is not None:
                top = f"{path}/{name}"
                yield from _folder(top, list(_packages(subject.view, top, nested)), tag)


# A folder with modules: its path, what is in it, and its __pycache__.
_Folder = tuple[str, dict[str, Node], Node | None]


def _packages(view: View, top: str, nested: set[str]) -> Iterator[_Folder]:
    def enter(folder: Placed) -> bool:
        return folder.path == top or not skipped(folder.path)

    def skipped(path: str) -> bool:
        # A folder of modules that lies in a package is looked into by itself.
        return path.rpartition("/")[2] in _SKIPPED or path in nested

    for path, node in view.walk(top, enter):
        if node.children is not None and enter(Placed(path, node)):
            yield path, node.children, node.children.get("__pycache__")


def _folder(top: str, folders: list[_Folder], tag: str) -> Iterator[Found]:
    modules = missing = 0
    for path, children, cache in folders:
        known: dict[str, Node] = {}
        for name, node in ((cache.children if cache is not None else None) or {}).items():
            match = _VERSION.search(name)
            if match and match[1] == (tag or match[1]):
                known[name[: match.start()]] = node
        for name, node in children.items():
            stem = name.removesuffix(".py")
            if stem == name or node.kind != "file" or not node.size or not stem.isidentifier():
                continue
            modules += 1
            compiled = known.get(stem)
            if compiled is None:
                missing += 1
            elif _stale(compiled, node):
                yield Found(
                    "F11",
                    "warn",
                    f"{path}/{name}",
                    "its bytecode is of another time or size, so Python compiles it again at "
                    "each start",
                    "compile with --invalidation-mode unchecked-hash (uv: "
                    "PYC_INVALIDATION_MODE=UNCHECKED_HASH), or after times are set",
                )
    if modules >= _FEW and missing * 2 > modules:
        yield Found(
            "F10",
            "warn",
            top,
            "most of its modules have no bytecode: Python compiles them at each start, for it "
            "can't write into the image",
            "compile it when it is installed: uv's --compile-bytecode, python -m compileall",
        )


def _stale(compiled: Node, source: Node) -> bool:
    if len(compiled.content) < 16:
        return False
    flags, mtime, size = struct.unpack_from("<III", compiled.content, 4)
    return flags == 0 and (mtime, size) != (source.mtime & 0xFFFFFFFF, source.size & 0xFFFFFFFF)
