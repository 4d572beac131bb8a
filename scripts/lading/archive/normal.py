"""What a build leaves in an image besides what was built, and the image without that.

Two builds of one Dockerfile differ in mtimes, in what engines and package managers leave behind,
and in how the files are spread over layers: not in what anyone asked for.
"""

from __future__ import annotations

import csv
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lading.archive.entries import Entry, entries, without_host
from lading.archive.growing import blocks, equal
from lading.archive.saved import SavedLayer
from lading.archive.trees import Tree, apply, complete, difference, parts, with_folders


@dataclass(frozen=True, kw_only=True)
class Normal:
    """How an image is made the same file by every build and every engine.

    `base`: the diff_ids ("sha256:…") of the base's layers, from the lowest up; they stay as they
    are. `epoch`: the mtime of all that is put on it, and the image's date, in seconds since 1970.
    `parts`: absolute folders that become a layer each, in this order, above one of all the rest.

    An earlier mtime is not kept either: what COPY brings has, on Docker, the one that it has on
    the builder's disk, which says when it was checked out there. Bytecode must not ask for
    mtimes, then (PEP 552): no later clamping could have kept the ones of what a build writes.

    `archive` may have the base's layers sooner than the engine; without it, or if they are not
    in it, nothing is different but the time it takes.
    """

    base: tuple[str, ...]
    epoch: int
    parts: tuple[str, ...] = ()
    archive: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """A layer to be written: what its history calls it, and its entries in order."""

    name: str
    entries: tuple[Entry, ...]


_MOUNTED = re.compile(r"(dev|proc|sys|run)(/.*)?|\.dockerenv")
"""What an engine mounts, or leaves behind, while it builds: not even deleting it was asked for."""

_HANDED_IN = re.compile(r"etc/(hosts|hostname|resolv\.conf|mtab)")
"""What an engine puts its own over while it builds; an empty file may be left below."""

_MTAB = "/proc/mounts"
"""Where Docker lets /etc/mtab lead, in a container of an image that has none."""

_LEFT = re.compile(
    r"etc/machine-id|var/lib/dbus/machine-id"
    r"|var/log/.*"
    r"|var/cache/ldconfig/aux-cache|var/cache/apt/.*|var/cache/debconf/.*-old"
    r"|var/lib/dpkg/.*-old|var/lib/apt/lists/.*"
)
"""Files that tell of the build and not of what was built."""

_CONFIG = {
    *("Cmd", "Entrypoint", "Env", "ExposedPorts", "Labels", "StopSignal", "User", "Volumes"),
    "WorkingDir",
}
_FOREIGN_LABELS = ("io.buildah.version",)


def base_tree(
    layers: Sequence[SavedLayer],
    *,
    strict: bool = False,
    extends: Callable[[], None] = lambda: None,
) -> Tree:
    """The base's files. Raises `DamagedError` for a layer that isn't sound (`strict` and
    `extends`: see `entries`).
    """
    base: Tree = {}
    for layer in layers:
        found = entries(layer.content, strict=strict, extends=extends)
        apply(base, map(without_host, found))
    complete(base, 0)
    return base


def is_handed_in(path: str) -> bool:
    """Whether an engine may show a file of its own in this one's place."""
    return _HANDED_IN.fullmatch(path) is not None


def layered(base: Tree, layers: Sequence[SavedLayer]) -> Tree:
    """The files of an image, of which the base's are known. Raises `DamagedError` likewise."""
    tree = dict(base)
    for layer in layers:
        apply(tree, map(without_host, entries(layer.content)))
    return tree


def plan(settings: Mapping[str, Any], normal: Normal, base: Tree, tree: Tree) -> tuple[Part, ...]:
    """The layers to be put on the base's, to get the files of `tree`, which it changes.

    `settings` are the image's.
    """
    _clean(base, tree)
    _with_workdir(tree, settings, normal.epoch)
    complete(tree, normal.epoch)
    changed = difference(base, tree, normal.epoch, _same)
    return tuple(
        Part(name=name or "system", entries=tuple(with_folders(part, changed, tree)))
        for name, whole in parts(changed, normal.parts)
        for name, part in _added_by_pip(name, whole)
    )


def _added_by_pip(prefix: str, part: Tree) -> Iterator[tuple[str, Tree]]:
    """A conda prefix without, and then with nothing but, what pip's packages brought into it.

    These change more often than conda's, which are most of it. Which they are is told by what uv,
    where it installs, leaves beside them: INSTALLER and RECORD (PEP 376). Bytecode goes with its
    module. Any other part is one whole.
    """
    below = prefix.strip("/")
    added: set[str] = set()
    if below and f"{below}/conda-meta/history" in part:
        for path, entry in part.items():
            folder, _, name = path.rpartition("/")
            small = name == "INSTALLER" and entry.kind == "file" and entry.size <= len(b"uv\r\n")
            if small and entry.read().strip() == b"uv":
                added |= _recorded(folder, part.get(f"{folder}/RECORD"))
    if not added:
        yield prefix, part
        return
    mine = {path: entry for path, entry in part.items() if _module(path) in added}
    # A folder with nothing else in it was not there before; the others come back with their files.
    mine |= {above: part[above] for path in list(mine) for above in _above(path) if above in part}
    yield prefix, {path: entry for path, entry in part.items() if path not in mine}
    yield f"{prefix}, pip", mine


def _recorded(info: str, record: Entry | None) -> set[str]:
    """The paths that a RECORD lists, relative to the folder that its own folder is in."""
    if record is None or record.kind != "file":
        return set()
    site = info.rpartition("/")[0]
    rows = csv.reader(record.read().decode("utf-8", "surrogateescape").splitlines())
    return {posixpath.normpath(f"{site}/{row[0]}") for row in rows if row}


def _module(path: str) -> str:
    """The module that bytecode is made from; any other path itself."""
    folder, _, name = path.rpartition("/")
    if name.endswith(".pyc") and folder.endswith("/__pycache__"):
        return f"{folder.removesuffix('/__pycache__')}/{name.partition('.')[0]}.py"
    return path


def _above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def normal_settings(
    found: Mapping[str, Any], normal: Normal, diff_ids: Sequence[str], names: Sequence[str]
) -> dict[str, Any]:
    """The image's configuration: what a Dockerfile can ask for, and one entry of history a layer.

    `names` are those of the layers above the base.
    """
    created = datetime.fromtimestamp(normal.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    called = ["base"] * (len(diff_ids) - len(names)) + list(names)
    platform = {key: found.get(key) for key in ("architecture", "os", "variant")}
    return {
        **{key: value for key, value in platform.items() if value},
        "config": _config(found.get("config")),
        "created": created,
        "history": [{"created": created, "created_by": f"lading: {name}"} for name in called],
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }


def _config(found: Any) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        return {}
    config = {key: value for key, value in found.items() if key in _CONFIG and value}
    if config.get("WorkingDir") == "/":  # BuildKit says so, others say nothing
        del config["WorkingDir"]
    if isinstance(config.get("Labels"), Mapping):
        labels = config["Labels"].items()
        config["Labels"] = {key: text for key, text in labels if key not in _FOREIGN_LABELS}
    if isinstance(config.get("Env"), list):
        last = {str(each).partition("=")[0]: str(each) for each in config["Env"]}
        config["Env"] = [last[name] for name in sorted(last)]
    return config


def _clean(base: Tree, tree: Tree) -> None:
    """Gives what the build left behind the state that it has in the base."""
    for path in [path for path, entry in tree.items() if _is_left(path, entry, base.get(path))]:
        if path in base:
            tree[path] = base[path]
        else:
            del tree[path]
    for path in sorted(base):  # folders first
        if path not in tree and (_MOUNTED.fullmatch(path) or _HANDED_IN.fullmatch(path)):
            folder = path.rpartition("/")[0]
            if not folder or (folder in tree and tree[folder].kind == "folder"):
                tree[path] = base[path]


def _with_workdir(tree: Tree, settings: Mapping[str, Any], epoch: int) -> None:
    """Adds the folder that commands run in: BuildKit makes it at once, Podman when one runs."""
    config = settings.get("config")
    named = config.get("WorkingDir") if isinstance(config, Mapping) else None
    parts = [part for part in str(named or "").split("/") if part not in ("", ".")]
    above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    there = all(path not in tree or tree[path].kind == "folder" for path in above)
    if above and above[-1] not in tree and there and ".." not in parts:
        tree[above[-1]] = Entry(path=above[-1], kind="folder", mtime=epoch)


def _is_left(path: str, entry: Entry, below: Entry | None) -> bool:
    if entry is below:
        return False
    if _MOUNTED.fullmatch(path):
        # An image that has none gets its mount points from whoever runs it.
        return below is None or below.kind == entry.kind
    if _HANDED_IN.fullmatch(path):
        return entry.target == _MTAB if entry.kind == "symlink" else not entry.size
    return entry.kind == "file" and _LEFT.fullmatch(path) is not None


def _same(one: Entry, other: Entry) -> bool:
    """Whether two entries of one kind and size have one content."""
    return one.kind != "file" or all(map(equal, _pieces(one), _pieces(other)))


def _pieces(entry: Entry) -> Iterator[memoryview]:
    return blocks(entry.content.handle, entry.offset, entry.size) if entry.content else iter(())
