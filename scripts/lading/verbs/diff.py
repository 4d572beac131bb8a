"""diff: what moved in the locks between two commits, or a commit and the working tree."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lading.diff.git import WORKING_TREE, Repository, Revision, opened
from lading.diff.reading import Found, Place, pins, place_of, read
from lading.diff.words import FORMATS, Moved
from lading.errors import DeclarationError, LadingError
from lading.layers.pip import UNKNOWN
from lading.moved import Pinned, compare
from lading.names import images_of, meant
from lading.platforms import dashed
from lading.project import Image
from lading.state import State

Key = tuple[str, str, str]
"""Whose locks: an image's, a base's or a source's; its name, and the platform."""


def told(state: State, arguments: Sequence[str], form: str) -> str:
    """What moved, in one of `FORMATS`. arguments: [NAME] [REV [REV2]].

    Raises `LadingError` where git can't say it, `DeclarationError` for arguments that mean nothing.
    """
    repository = opened(state.project.root)
    wanted, rest = _split(state, repository, arguments)
    old, new = _ends(repository, rest)
    found = between(state, repository, old, new, wanted)
    return FORMATS[form](found, old, new)


def names(state: State) -> Mapping[str, set[Key]]:
    """What can be asked for: images, base:NAME, source:NAME, all also for other platforms; and
    whose locks are meant: of an image, those of its base and its sources too.
    """
    found: dict[str, set[Key]] = {}
    for name, here in images_of(state.everywhere).items():
        found[name] = {key for one, image in here for key in _keys(one, image)}
    for one in state.everywhere:
        platform = dashed(one.project.platform)
        for base in one.project.bases:
            found[f"base:{base}{one.at}"] = {("base", base, platform)}
        for source in one.project.sources:
            found[f"source:{source}{one.at}"] = {("source", source, platform)}
    return found


def _keys(state: State, image: Image) -> Iterator[Key]:
    platform = dashed(state.project.platform)
    yield "image", image.name, platform
    yield "base", image.base, platform
    for source in state.sources_of(image):
        yield "source", source.name, platform


def _split(
    state: State, repository: Repository, arguments: Sequence[str]
) -> tuple[set[Key] | None, Sequence[str]]:
    """Whose locks are meant, if there is a name that says so, and the revisions."""
    first, known = arguments[0] if arguments else "", names(state)
    if first in known:
        return known[first], arguments[1:]
    if len(arguments) > 2:
        raise DeclarationError(
            f"'{first}' is neither an image, nor base:NAME or source:NAME{meant(first, known)}"
        )
    if first and ".." not in first and repository.commit(first) is None:
        raise DeclarationError(
            f"'{first}' is neither an image nor a commit{meant(first, known)}",
            do=repository.hint(first),
        )
    if behind := [name for name in arguments[1:] if name in known and not repository.commit(name)]:
        raise DeclarationError(
            f"'{behind[0]}' is no commit, and a name stands in front of the commits",
            do=f"doit diff {behind[0]} {' '.join(one for one in arguments if one != behind[0])}",
        )
    return None, arguments


def _ends(repository: Repository, rest: Sequence[str]) -> tuple[Revision, Revision]:
    """What is compared with what: REV, REV REV2, REV..REV2, or REV...REV2, as git has them."""
    if len(rest) > 2:
        raise DeclarationError("two commits at most: `doit diff NAME REV REV2`")
    if len(rest) == 1 and "..." in rest[0]:
        one, other = (_known(repository, part or "HEAD") for part in rest[0].split("...", 1))
        return repository.common(one, other), other
    if len(rest) == 1 and ".." in rest[0]:
        rest = [part or "HEAD" for part in rest[0].split("..", 1)]
    old = _known(repository, rest[0] if rest else "HEAD")
    return old, _known(repository, rest[1]) if len(rest) == 2 else WORKING_TREE


def _known(repository: Repository, name: str) -> Revision:
    found = repository.commit(name)
    if found is None:
        raise DeclarationError(f"there is no commit '{name}' here", do=repository.hint(name))
    return found


def between(
    state: State,
    repository: Repository,
    old: Revision,
    new: Revision,
    wanted: set[Key] | None = None,
) -> list[Moved]:
    """What became of each place whose lock files differ, images first."""
    changed = {place_of(path) for path in repository.changed(old, new, "locks")}
    places = sorted(
        place
        for place in changed
        if place is not None
        and (wanted is None or (place.whose, place.name, place.platform) in wanted)
    )
    places.sort(key=lambda place: ("image", "base", "source").index(place.whose))
    called = {base.name: base.image for base in state.project.bases.values() if base.image}
    with tempfile.TemporaryDirectory(prefix="lading-diff-") as name:
        before = _laid_out(repository, old, places, Path(name) / "old")
        after = state.project.root
        if new.commit:
            after = _laid_out(repository, new, places, Path(name) / "new")
        own = dashed(state.project.platform)
        return [_moved(place, before, after, called, own) for place in places]


def _laid_out(
    repository: Repository, revision: Revision, places: Sequence[Place], folder: Path
) -> Path:
    """The lock files of these places as they are in a commit, in a folder of their own."""
    if places:
        paths = repository.files(revision, [f"{place.folder}/" for place in places])
        for path, text in repository.texts(revision, paths).items():
            target = folder / path
            if not target.resolve().is_relative_to(folder.resolve()):
                raise LadingError(f"{path} in {revision} leads out of the project")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    return folder


def _moved(place: Place, before: Path, after: Path, called: Mapping[str, str], own: str) -> Moved:
    was, now = read(place, before, called), read(place, after, called)
    old, new = pins(was, now), pins(now, was)
    how = "changed"
    if not _any(was) or not _any(now):
        how = "added" if _any(now) else "removed" if _any(was) else "changed"
    return Moved(
        place=place,
        at="" if place.platform == own else f"@{place.platform}",
        how=how,  # type: ignore[arg-type]
        changes=compare(old, new),
        bytes=(_bytes(old), _bytes(new)),
        problems=(*was.problems, *now.problems),
    )


def _any(found: Found) -> bool:
    return bool(found.parts or found.problems)


def _bytes(listed: Sequence[Pinned]) -> int | None:
    """The size of all files together, each once; None where one is of a version, not of a file."""
    if any(one.sha256 == UNKNOWN.sha256 for one in listed):
        return None
    return sum({one.sha256 or one.name: one.size or 0 for one in listed}.values())
