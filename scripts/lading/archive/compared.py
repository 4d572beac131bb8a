"""What differs between two archives of an image, said file by file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from operator import eq
from pathlib import Path
from typing import Any

from lading.archive import contents
from lading.archive.entries import Entry, entries
from lading.archive.saved import MANIFEST, Content
from lading.archive.tarfiles import DamagedError
from lading.archive.trees import OPAQUE, WHITEOUT

SHOWN = 20
"""Files that are named; the rest is counted."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An archive: the image's configuration, and its layers by their place, "layer 1" the lowest.

    A plain tar has no configuration, and is one layer with no name.
    """

    settings: Mapping[str, Any]
    layers: Mapping[str, Content]


def differences(first: Path, second: Path) -> list[str]:
    """What differs, in lines: the configuration, then files, the first `SHOWN` of them; nothing
    where the archives have the same image. Of text files the lines that differ are shown, of ELF
    files the sections, of others where they begin to differ; wheels are looked into.

    Two archives of lading's, or two plain tars; one that is damaged is said to be so.
    """
    with ExitStack() as stack:
        pair = []
        for path in (first, second):
            try:
                pair.append(_opened(path, stack))
            except (DamagedError, OSError, ValueError, LookupError, TypeError) as error:
                return [f"{path} can't be read: {error}"]
        one, other = pair
        lines = list(_of_settings(one.settings, other.settings))
        count = 0
        try:
            for said in _of_layers(one.layers, other.layers):
                count += 1
                if count <= SHOWN:
                    lines += said
        except (DamagedError, OSError) as error:
            lines.append(f"the rest can't be read: {error}")
        if count > SHOWN:
            lines.append(f"and {count - SHOWN} more")
        return lines


def _opened(path: Path, stack: ExitStack) -> Opened:
    file = stack.enter_context(path.open("rb"))
    whole = Content(
        handle=file.fileno(), offset=0, size=path.stat().st_size, sha256=lambda: "not asked for"
    )
    members = {entry.path: entry for entry in entries(whole)}
    if MANIFEST not in members:
        return Opened(settings={}, layers={"": whole})
    (image,) = json.loads(members[MANIFEST].read())
    layers = {}
    for number, name in enumerate(image["Layers"], 1):
        entry = members[name]
        layers[f"layer {number}"] = Content(
            handle=whole.handle, offset=entry.offset, size=entry.size, sha256=whole.sha256
        )
    return Opened(settings=json.loads(members[image["Config"]].read()), layers=layers)


# -- the configuration ----------------------------------------------------------------------


def _of_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    before, after = dict(_flat(one)), dict(_flat(other))
    for name in sorted({*before, *after}):
        was, now = before.get(name), after.get(name)
        if was is None or now is None:
            yield f"the configuration: {name}: only in the {'second' if was is None else 'first'}"
        elif was != now:
            yield f"the configuration: {name}: {_short(was)} → {_short(now)}"


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Each setting under its path; ENV by its variables. The layers are compared for themselves."""
    if isinstance(value, Mapping):
        for key, inside in value.items():
            if (name, key) != ("", "rootfs"):
                yield from _flat(inside, f"{name}.{key}".lstrip("."))
    elif name == "config.Env" and isinstance(value, list):
        for pair in value:
            key, _, text = str(pair).partition("=")
            yield f"{name}.{key}", text
    elif name == "history" and isinstance(value, list):
        for number, inside in enumerate(value, 1):
            yield from _flat(inside, f"{name} {number}")
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


# -- the files ------------------------------------------------------------------------------


def _of_layers(one: Mapping[str, Content], other: Mapping[str, Content]) -> Iterator[list[str]]:
    """What is said of each thing that differs."""
    for name in {**one, **other}:
        if name not in one or name not in other:
            yield [f"{name}: only in the {'second' if name in other else 'first'}"]
        elif not _same(one[name], other[name]):
            found = False
            for said in _of_entries(name, one[name], other[name]):
                found = True
                yield said
            if not found:
                yield [f"{name or 'it'}: the same files, in another order or form".lstrip()]


def _of_entries(layer: str, one: Content, other: Content) -> Iterator[list[str]]:
    before = {entry.path: entry for entry in entries(one)}
    after = {entry.path: entry for entry in entries(other)}
    for path in sorted({*before, *after}):
        was, now = before.get(path), after.get(path)
        where, what = _named(layer, path)
        if was is None or now is None:
            yield [f"{where}: {what}only in the {'second' if was is None else 'first'}"]
            continue
        changed = list(_traits(was, now))
        other_content = not _same_content(was, now)
        if changed or other_content:
            lines = [f"{where}: {what}{', '.join(changed) or 'content'}"]
            if other_content and max(was.size, now.size) <= contents.LARGEST:
                inside = contents.differences(was.read(), now.read())
                lines += [f"    {line}" for line in inside]
            yield lines


def _named(layer: str, path: str) -> tuple[str, str]:
    """Where it is, and of a whiteout what it says of a path of a lower layer."""
    folder, _, name = path.rpartition("/")
    what = ""
    if name == OPAQUE:
        path, what = folder, "emptied, "
    elif name.startswith(WHITEOUT):
        path, what = f"{folder}/{name.removeprefix(WHITEOUT)}".lstrip("/"), "deleted, "
    shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return f"{layer}:/{shown}".lstrip(":"), what


def _traits(was: Entry, now: Entry) -> Iterator[str]:
    """Each thing but the content in which two entries differ: what it was, and what it is now."""
    for name, before, after in (
        ("kind", was.kind, now.kind),
        ("mode", f"{was.mode:04o}", f"{now.mode:04o}"),
        ("owner", f"{was.uid}:{was.gid}", f"{now.uid}:{now.gid}"),
        ("mtime", was.mtime, now.mtime),
        ("leads to", was.target, now.target),
        ("device", was.device, now.device),
        ("attributes", dict(was.xattrs), dict(now.xattrs)),
        ("size", was.size, now.size),
    ):
        if before != after:
            yield f"{name} {before} → {after}"


def _same_content(was: Entry, now: Entry) -> bool:
    if not was.kind == now.kind == "file":
        return True  # what differs there is said already
    return was.size == now.size and _same(_of(was), _of(now))


def _same(one: Content, other: Content) -> bool:
    return one.size == other.size and all(map(eq, one.blocks(), other.blocks()))


def _of(entry: Entry) -> Content:
    assert entry.content is not None
    return Content(
        handle=entry.content.handle,
        offset=entry.offset,
        size=entry.size,
        sha256=entry.content.sha256,
    )
