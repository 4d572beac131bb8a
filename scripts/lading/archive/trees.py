"""Layers merged to a tree, and the canonical difference between two trees.

OCI image specification v1.1, 'Image Layer Filesystem Changeset': a whiteout hides what lower
layers have, wherever it stands in its own. What comes out follows from the two trees alone: not
from how many layers there were, nor from the order or the form of their entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from lading.archive.entries import Entry
from lading.archive.tarfiles import DamagedError

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"

Tree = dict[str, Entry]
"""Each path with its entry. Hard links are entries of kind file that share content and offset."""


def apply(tree: Tree, layer: Iterable[Entry]) -> None:
    """Changes a tree as a layer says. Raises `DamagedError` for a hard link to nothing."""
    added: list[Entry] = []
    gone: set[str] = set()  # with all that is below
    emptied: set[str] = set()
    for entry in layer:
        folder, _, name = entry.path.rpartition("/")
        if name == OPAQUE:
            emptied.add(folder)
        elif name.startswith(WHITEOUT):
            gone.add(_join(folder, name.removeprefix(WHITEOUT)))
        else:
            added.append(entry)
    if gone or emptied:
        for path in [path for path in tree if _hidden(path, gone, emptied)]:
            del tree[path]
    links = []
    for entry in added:
        if entry.kind == "hardlink":
            links.append(entry)
        else:
            _put(tree, entry)
    while links:  # to a link that comes later in the layer, too
        left = [entry for entry in links if not _linked(tree, entry)]
        if len(left) == len(links):
            raise DamagedError(f"{left[0].path!r} is a hard link to nothing: {left[0].target!r}")
        links = left


def difference(base: Tree, tree: Tree, epoch: int, same: Callable[[Entry, Entry], bool]) -> Tree:
    """What has to be put on `base` to get `tree`; whiteouts are empty files of their name.

    What is the base's but for its mtime is left out, and is the base's in `tree` from then on;
    `same` tells whether two files of one size have one content. All else has the mtime `epoch`.
    """
    changed: Tree = {}
    for path, entry in tree.items():
        below = base.get(path)
        if below is entry:
            continue
        if below is not None and alike(below, entry) and same(below, entry):
            tree[path] = below
            continue
        changed[path] = replace(entry, mtime=epoch)
    for path in base:
        if path not in tree:
            folder, _, name = path.rpartition("/")
            above = tree.get(folder)
            if not folder or (above is not None and above.kind == "folder"):
                hidden = _join(folder, WHITEOUT + name)
                changed[hidden] = Entry(path=hidden, kind="file", mode=0o644, mtime=epoch)
    return changed


def complete(tree: Tree, mtime: int) -> None:
    """Adds the folders that nobody mentions though something is in them, as engines make them."""
    for path in list(tree):
        while (path := path.rpartition("/")[0]) and path not in tree:
            tree[path] = Entry(path=path, kind="folder", mtime=mtime)


def with_folders(part: Tree, changed: Tree, tree: Tree) -> list[Entry]:
    """A layer's entries in order, with all folders that they are in.

    Without those, engines make them up anew in every layer, and their modes would be lost. One
    that is the base's stays as it is there, with its mtime.
    """
    needed = dict(part)
    for path in part:
        while (path := path.rpartition("/")[0]) and path not in needed:
            needed[path] = changed.get(path) or tree[path]
    return _linked_again(needed[path] for path in sorted(needed, key=_bytes))


def _linked_again(entries: Iterable[Entry]) -> list[Entry]:
    """Files that are one file: the first holds it, the others are hard links to that."""
    found: list[Entry] = []
    first: dict[tuple[int, int], str] = {}
    for entry in entries:
        if entry.kind == "file" and entry.content is not None:
            inode = (id(entry.content), entry.offset)
            holder = first.setdefault(inode, entry.path)
            if holder != entry.path:
                entry = replace(entry, kind="hardlink", target=holder, size=0, content=None)
        found.append(entry)
    return found


def alike(one: Entry, other: Entry) -> bool:
    """Whether all but their mtimes and contents is the same."""
    return (one.kind, one.mode, one.uid, one.gid, one.size, one.target, one.device, one.xattrs) == (
        other.kind,
        other.mode,
        other.uid,
        other.gid,
        other.size,
        other.target,
        other.device,
        other.xattrs,
    )


def _put(tree: Tree, entry: Entry) -> None:
    old = tree.get(entry.path)
    if old is not None and old.kind == "folder" and entry.kind != "folder":
        _remove_below(tree, entry.path)
    tree[entry.path] = entry


def _linked(tree: Tree, link: Entry) -> bool:
    """Puts a hard link, which is the file it leads to under another name, if that is there."""
    found = tree.get(link.target)
    if found is None:
        return False
    if found.kind == "folder":
        raise DamagedError(f"{link.path!r} is a hard link to a folder")
    _put(tree, replace(found, path=link.path))
    return True


def _hidden(path: str, gone: set[str], emptied: set[str]) -> bool:
    """Whether a path is one of those gone, or below such a one, or below one emptied."""
    while path:
        if path in gone:
            return True
        path = path.rpartition("/")[0]
        if path in emptied:
            return True
    return False


def _remove_below(tree: Tree, folder: str) -> None:
    for path in [path for path in tree if path.startswith(f"{folder}/")]:
        del tree[path]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def parts(changed: Tree, prefixes: Iterable[str]) -> Iterator[tuple[str, Tree]]:
    """What is below none of the prefixes, under ""; then each prefix's, where there is any.

    The longest prefix has it; a whiteout lies where that which it hides would.
    """
    known = {prefix.strip("/"): prefix for prefix in prefixes}
    cut: dict[str, Tree] = {"": {}, **{prefix: {} for prefix in known.values()}}
    longest = sorted(known, key=len, reverse=True)
    for path, entry in changed.items():
        folder, _, name = path.rpartition("/")
        stands_for = _join(folder, name.removeprefix(WHITEOUT))
        inside = next((x for x in longest if stands_for == x or stands_for.startswith(x + "/")), "")
        cut[known.get(inside, "")][path] = entry
    return ((prefix, part) for prefix, part in cut.items() if part)
