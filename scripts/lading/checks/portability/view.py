"""The file system that an image's layers make: merged in memory, with what a check may ask of it.

OCI image specification v1.1, 'Layer': a whiteout `.wh.NAME` removes what lower layers have, an
opaque `.wh..wh..opq` all that they have in its folder. Links are followed inside the image only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from lading.archive.tarfiles import DamagedError
from lading.checks.portability.archives import Layer
from lading.checks.portability.elf import MAGIC, Elf
from lading.checks.portability.elf import read as read_elf
from lading.checks.portability.findings import Found
from lading.checks.portability.tape import PATH_MAX, Entry, Tape, entries

PATHS = 1_000_000
"""Paths that an image may have; large ones have 300,000."""
TEXT = 128 << 20
"""Characters of what is kept of an image's files, in all, and of all its paths; large images have
some twenty million.
"""
STEPS = 100_000_000
"""Steps from a folder to the next, in all: half a minute; large images take some million."""
_HOPS = 40
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_LINE = 256
"""Bytes that the kernel reads of a script's first line (execve(2))."""
_CACHE_LIMIT = 8 << 20
_SMALL_LIMIT = 1 << 16

_KEPT = (b"pyvenv.cfg", b".bashrc", b"bash.bashrc", b"ld.so.conf", b".profile")


class Node:
    """What is at one path. `target` is a link's; `children` a folder's.

    `content` is as much of a file as the checks need: a script's first line, the start of bytecode,
    some small files of configuration; `elf` is what it is as a program or a library.
    """

    __slots__ = (
        "capable",
        "children",
        "content",
        "elf",
        "gid",
        "kind",
        "mode",
        "mtime",
        "size",
        "target",
        "uid",
    )

    def __init__(self, kind: str, mode: int = 0o755) -> None:
        self.kind = kind
        self.mode = mode
        self.uid = 0
        self.gid = 0
        self.size = 0
        self.mtime = 0
        self.target = ""
        self.capable = False
        self.content = b""
        self.elf: Elf | None = None
        self.children: dict[str, Node] | None = {} if kind == "folder" else None

    @property
    def kept(self) -> int:
        """How much is kept of what the file holds, or the link."""
        return len(self.target) + len(self.content) + (self.elf.kept if self.elf else 0)


class Placed(NamedTuple):
    """A node with its path, all links in its folders followed."""

    path: str
    node: Node


class View:
    """The merged file system. Paths are absolute, and what is not UTF-8 in them is escaped.

    `problems`: what unpacking would stumble over. Its methods raise `DamagedError` where memory or
    time would not suffice.
    """

    def __init__(self, problems: list[Found]) -> None:
        self.root = Node("folder")
        self._problems = problems
        self._count = 0
        self._kept = 0
        self._steps = 0

    def keep(self, size: int) -> None:
        """Counts what is kept in memory of the image."""
        self._kept += size
        if self._kept > TEXT:
            raise DamagedError("its links, settings and libraries say more than an image's can")

    def step(self, count: int) -> None:
        """Counts what time is taken for."""
        self._steps += count
        if self._steps > STEPS:
            raise DamagedError("its links lead on and on")

    def problem(self, found: Found) -> None:
        self.keep(len(found.path) + len(found.effect))
        self._problems.append(found)

    def put(self, folder: Node, name: str, node: Node) -> None:
        """Puts a node into a folder."""
        assert folder.children is not None
        if name not in folder.children:
            self._count += 1
            if self._count > PATHS:
                raise DamagedError("it has more paths than an image can have")
        folder.children[name] = node

    def walk(
        self, top: str = "/", enter: Callable[[Placed], bool] = lambda folder: True
    ) -> Iterator[Placed]:
        """Everything below a folder, the folder first; links are not followed.

        Of a folder into which `enter` does not lead, only the folder.
        """
        found = self.find(top)
        stack = [found] if found else []
        length = 0
        while stack:
            placed = stack.pop()
            yield placed
            children = placed.node.children
            if children and len(placed.path) < PATH_MAX and enter(placed):
                base = placed.path.rstrip("/")
                length += (len(base) + 1) * len(children) + sum(map(len, children))
                if length > TEXT:
                    raise DamagedError("its paths are longer than those of an image can be")
                stack += [Placed(f"{base}/{k}", v) for k, v in children.items()]

    def find(self, path: str, *, follow: bool = True) -> Placed | None:
        """What a path leads to, or None. Without `follow`, a link at its end stays one.

        As Linux, it follows none that is too long.
        """
        if len(path) > PATH_MAX:
            return None
        todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        self.step(1 + len(todo))
        trail: list[tuple[str, Node]] = []
        hops = 0
        while todo:
            part = todo.pop()
            if part == "..":
                del trail[-1:]
                continue
            here = trail[-1][1] if trail else self.root
            node = here.children.get(part) if here.children is not None else None
            if node is None:
                return None
            if node.kind == "symlink" and (follow or todo):
                hops += 1
                if hops > _HOPS:
                    return None
                if node.target.startswith("/"):
                    trail = []
                more = [p for p in reversed(node.target.split("/")) if p not in ("", ".")]
                self.step(1 + len(more))
                todo += more
                continue
            trail.append((part, node))
        if not trail:
            return Placed("/", self.root)
        placed = Placed("/" + "/".join(name for name, _ in trail), trail[-1][1])
        return placed if len(placed.path) <= PATH_MAX else None

    def file(self, path: str) -> Placed | None:
        """The file that a path leads to."""
        found = self.find(path)
        return found if found is not None and found.node.kind == "file" else None

    def names(self, path: str) -> list[str]:
        """The names in a folder, sorted; none if it is none."""
        found = self.find(path)
        children = (found.node.children if found is not None else None) or ()
        self.step(len(children))
        return sorted(children)


def merged(layers: Iterable[Layer], problems: list[Found]) -> View:
    """Reads the layers from the lowest up. What unpacking would stumble over goes to `problems`.

    Raises `DamagedError` for a layer that is not a tar, or an image that has too many paths.
    """
    view = View(problems)
    count = 0
    for layer in layers:
        listed: list[tuple[list[str], Node]] = []
        try:
            tape = layer.tape()
            for entry in entries(tape):
                count += 1 + entry.name.count(b"/")
                if count > 4 * PATHS:
                    raise DamagedError("it has more paths than an image can have")
                parts = _parts(entry.name, view)
                if parts is None:
                    continue
                node = _node(entry, tape)
                view.keep(node.kept)
                listed.append((parts, node))
            tape.drain()
        except DamagedError as error:
            raise DamagedError(f"the layer {layer.name}: {error}") from None
        _apply(view, listed)
    return view


def _apply(view: View, listed: list[tuple[list[str], Node]]) -> None:
    # Whiteouts speak of lower layers only, wherever in the layer they stand.
    rest = []
    for parts, node in listed:
        name = parts[-1] if parts else ""
        if not name.startswith(_WHITEOUT):
            rest.append((parts, node))
            continue
        folder = view.find("/".join(parts[:-1]))
        if folder is None or folder.node.children is None:
            continue
        if name == _OPAQUE:
            folder.node.children.clear()
        else:
            folder.node.children.pop(parts[-1][len(_WHITEOUT) :], None)
    seen: set[str] = set()
    for parts, node in rest:
        path = "/" + "/".join(parts)
        if node.kind != "folder" and path in seen:
            view.problem(
                Found(
                    "F13",
                    "info",
                    path,
                    "a layer has it twice: which one counts depends on who unpacks it",
                    "make the layer anew",
                )
            )
        seen.add(path)
        _place(view, parts, node)


def _place(view: View, parts: list[str], node: Node) -> None:
    if not parts:
        if node.kind == "folder":
            view.root.mode = node.mode
        return
    if node.kind == "hardlink":
        other = view.find(node.target, follow=False)
        if other is None or other.node.kind == "folder":
            view.problem(
                Found(
                    "F14",
                    "error",
                    "/" + "/".join(parts),
                    f"a hard link to {node.target}, which is not in the image: unpacking it fails",
                    "make the layer anew; a copy instead of the link does as well",
                )
            )
            return
        node = other.node
    folder = _folder(view, parts[:-1])
    assert folder.children is not None
    before = folder.children.get(parts[-1])
    if before is not None and before.children is not None and node.children is not None:
        node.children = before.children
    view.put(folder, parts[-1], node)


def _folder(view: View, parts: list[str]) -> Node:
    """The folder at a path, through links as far as they lead to one; made where there is none."""
    here = view.root
    for depth, part in enumerate(parts):
        assert here.children is not None
        node = here.children.get(part)
        if node is not None and node.kind == "symlink":
            found = view.find("/".join(parts[: depth + 1]))
            if found is not None:
                node = found.node
        if node is None or node.children is None:
            node = Node("folder")
            view.put(here, part, node)
        here = node
    return here


def _parts(name: bytes, view: View) -> list[str] | None:
    """The names of a path; None for one that can't be in an image."""
    text = name.decode("utf-8", "surrogateescape")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    shown = "/" + "/".join(parts[:20])[:200]
    if ".." in parts:
        view.problem(
            Found(
                "F13",
                "error",
                shown,
                "its name leads out of the image: Apptainer puts it elsewhere inside",
                "remove it",
            )
        )
        return None
    if len(name) > PATH_MAX or any(len(part) > 255 for part in parts):
        view.problem(
            Found(
                "F13",
                "error",
                shown,
                "a path that is too long for Linux: unpacking it fails",
                "give it a shorter name",
            )
        )
        return None
    if not text.isascii() and any("\udc80" <= c <= "\udcff" for c in text):
        # pax names are UTF-8 (POSIX.1-2001); tools differ in what they make of others.
        view.problem(
            Found(
                "F13",
                "info",
                "/" + "/".join(parts),
                "its name is not UTF-8: not every tool can name it",
                "give it a name in UTF-8",
            )
        )
    return parts


def _node(entry: Entry, tape: Tape) -> Node:
    node = Node(entry.kind, entry.mode)
    node.uid, node.gid = entry.uid, entry.gid
    node.size, node.mtime = entry.size, entry.mtime
    node.capable = entry.capable
    if entry.kind in ("symlink", "hardlink"):
        # Linux follows none that is longer.
        node.target = entry.target[:PATH_MAX].decode("utf-8", "surrogateescape")
    elif entry.kind == "file" and entry.size and not entry.sparse:
        _look_into(node, entry, tape)
    return node


def _look_into(node: Node, entry: Entry, tape: Tape) -> None:
    name = entry.name.rpartition(b"/")[2]
    head = tape.first(min(entry.size, _LINE))
    if head.startswith(MAGIC):
        body = tape.body(entry.size)
        node.elf = read_elf(body) if body is not None else None
    elif name == b"ld.so.cache":
        node.content = tape.first(min(entry.size, _CACHE_LIMIT))
    elif name.endswith(b".pyc"):
        node.content = head[:16]
    elif name in _KEPT or b"ld.so.conf.d/" in entry.name or b"/activate.d/" in entry.name:
        node.content = tape.first(min(entry.size, _SMALL_LIMIT))
    elif head.startswith(b"#!"):
        node.content = head.partition(b"\n")[0]
