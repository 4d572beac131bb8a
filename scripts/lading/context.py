"""The build context: one folder that holds the Dockerfile and all it needs."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from lading.files import disk_errors, tree
from lading.plan import Plan
from lading.steps import Content, Derived, Stored, Unpacked
from lading.store import Store


def make(plan: Plan, key: str, root: Path, store: Store, folder: Path) -> None:
    """Makes the context in `folder`, beside it first: there is never half of one.

    Artifacts are hard links into the store where the file system allows it.
    """
    fresh = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    with disk_errors(fresh):
        for at, content in flattened(plan.files, root, store):
            put(content, fresh / at, root, store)
        put(plan.text(key).encode(), fresh / "Dockerfile", root, store)
        # COPY takes the modes along, and a user's umask must not reach an image.
        for path in (fresh, *fresh.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)


def is_whole(plan: Plan, key: str, root: Path, store: Store, folder: Path) -> bool:
    """Whether the context in `folder` is the one that `make` would make.

    Files out of the store are held against it by size and mode, all others by content and mode.
    """
    wanted = dict(flattened(plan.files, root, store)) | {"Dockerfile": plan.text(key).encode()}
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    try:
        return there == set(wanted) and all(
            _same(content, folder / at, root, store) for at, content in wanted.items()
        )
    except OSError:
        return False


def _same(content: Content, path: Path, root: Path, store: Store) -> bool:
    match content:
        case bytes():
            return _mode(path) == 0o644 and path.read_bytes() == content
        case Stored():
            return _alike(path, store.path(content.sha256))
        case Unpacked():
            return _alike(path, store.root / "derived" / content.sha256 / "uv")
        case Derived():
            return _alike(path, store.made(content.key, content.name))
        case PurePosixPath():
            source = root / content
            return _mode(path) == mode_of(source) and filecmp.cmp(path, source, shallow=False)


def _alike(path: Path, stored: Path) -> bool:
    """Whether a file is a hard link into the store, or a whole copy."""
    if path.samefile(stored):
        return True
    return _mode(path) == _mode(stored) and filecmp.cmp(path, stored, shallow=False)


def flattened(
    files: Mapping[str, Content], root: Path, store: Store
) -> Iterator[tuple[str, Content]]:
    """Each file of the context; a folder is its files, in order."""
    for at, content in sorted(files.items()):
        if isinstance(content, PurePosixPath):
            for inside, path in tree(root / content, root).items():
                yield f"{at}/{inside}".rstrip("/"), PurePosixPath(path.relative_to(root))
        elif (
            isinstance(content, Derived)
            and (made := store.made(content.key, content.name)).is_dir()
        ):
            for path in sorted(made.iterdir()):
                yield (
                    f"{at}/{path.name}",
                    Derived(key=content.key, name=f"{content.name}/{path.name}"),
                )
        else:
            yield at, content


def put(content: Content, path: Path, root: Path, store: Store) -> None:
    """One file of the context. Modes follow from the content, never from a umask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match content:
        case bytes():
            path.write_bytes(content)
            path.chmod(0o644)
        case Stored():
            link(store.path(content.sha256), path)
        case Unpacked():
            from lading import uv

            link(uv.unpacked(store, content.sha256), path)
        case Derived():
            link(store.made(content.key, content.name), path)
        case PurePosixPath():
            shutil.copyfile(root / content, path)
            path.chmod(mode_of(root / content))


def mode_of(source: Path) -> int:
    """The mode that a file of the project has in an image: only who may run it counts."""
    return 0o755 if _mode(source) & 0o100 else 0o644


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def link(source: Path, target: Path) -> None:
    """A hard link where that can be, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        target.chmod(source.stat().st_mode & 0o777)
