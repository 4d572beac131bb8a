"""What comes out of the registry instead of being made here: archives, and what was compiled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lading import archive
from lading.errors import LadingError
from lading.parts import PRODUCT
from lading.plan import Part
from lading.project import Image
from lading.registry import asking, kept
from lading.registry.kept import Kept
from lading.state import State


class _Lost(LadingError):
    """The registry failed while it was read from."""


def _served(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """What a registry sends; its failures are told from a disk's."""
    try:
        yield from pieces
    except LadingError as error:
        raise _Lost(error.what, why=error.why, do=error.do) from error


def download(state: State, image: Image, target: Path, record: Path) -> bool:
    """Writes the archive out of the registry, the same bytes as where it was made, and its record;
    whether the registry had it. One that fails in the middle has nothing, which is said.
    """
    found, key = state.in_registry(image), state.key(image)
    if found is None or key is None:
        return False
    name, here = state.name(image), found.kept
    total = sum(layer.size for layer in here.layers)
    with (
        kept.repository(name.rpartition(":")[0], state.environ) as repository,
        state.console.transfer(f"download {image.name}", total) as advance,
    ):

        def pieces(layer: archive.Layer) -> Iterator[bytes]:
            for piece in _served(repository.pieces(layer.diff_id, layer.size)):
                advance(len(piece))
                yield piece

        try:
            config = b"".join(_served(repository.pieces(here.config.digest, here.config.size)))
            layers = [archive.Layer(diff_id=one.digest, size=one.size) for one in here.layers]
            record.unlink(missing_ok=True)
            made = archive.received(target, config, layers, pieces, name)
        except _Lost as error:
            _given_up(state, f"image:{image.name}", image.name, error)
            return False
    archive.record(record, made, key=key, name=name)
    state.forget("archived")
    return True


def take(state: State, part: Part) -> bool:
    """Puts what a part's build left into the store, out of the registry; whether the registry had
    it, and gave it.
    """
    found = state.part_in_registry(part)
    if found is None or len(found.kept.layers) != 1:
        return False
    try:
        state.store.derived(part.key, PRODUCT, lambda out: _write(state, part, found.kept, out))
    except _Lost as error:
        _given_up(state, f"part:{part.key}", part.what, error)
        return False
    return True


def _write(state: State, part: Part, found: Kept, out: Path) -> None:
    from lading import prefix

    (tar,) = found.layers
    with (
        kept.repository(state.part_repository(part), state.environ) as repository,
        state.console.transfer(f"download {part.what}", tar.size) as advance,
        out.open("wb") as file,
    ):
        for piece in _served(repository.pieces(tar.digest, tar.size)):
            file.write(piece)
            advance(len(piece))
    try:
        prefix.refuse_damaged(out)
    except LadingError as error:
        raise _Lost(
            f"what the registry has of {part.what} is no archive", why=str(error)
        ) from error


def _given_up(state: State, answer: str, what: str, error: LadingError) -> None:
    state.console.note(f"  {what}: {asking.said(error)}")
    state.not_in_registry(answer)
