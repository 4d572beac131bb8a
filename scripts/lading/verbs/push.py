"""push: send what dist/ has to the registry, under its version and its key; when asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from msgspec.structs import replace

from lading import archive
from lading.console import size
from lading.errors import DeclarationError, EnvironmentProblem, LadingError
from lading.parts import PRODUCT
from lading.plan import Part
from lading.project import Image
from lading.registry import kept
from lading.registry.asking import Answer
from lading.registry.kept import Blob, Kept
from lading.registry.repository import Repository
from lading.sbom import MEDIA_TYPE
from lading.state import State
from lading.verbs import check as check_verb
from lading.verbs import part as part_verb
from lading.verbs import sbom
from lading.verbs.source import OnBase

PIECE = 1 << 20


def current(state: State, image: Image) -> bool:
    """Whether the registry has the image with today's key, checked as today, by its version too,
    and what was compiled for it here.
    """
    there = state.in_registry(image)
    if there is None or not there.tagged or there.kept.checks != check_verb.checks(image):
        return False
    if not there.kept.sbom and state.archived(image):
        return False
    return not _products(state, image)


def make(state: State, image: Image) -> str:
    """Sends what the registry lacks; what was cut off is gone on with."""
    registry = state.project.registry
    if not registry:
        raise _no_registry()
    where, version = state.pushed_as(image)
    there = state.in_registry(image)
    sent = 0
    if not state.archived(image):
        if there is None:
            raise LadingError(
                f"there is no archive of {image.name} to push",
                do=f"doit archive:{image.name}{state.at}",
            )
        _tag(state, where, there.kept, version)
        made = there.kept
    else:
        made, sent = _push(state, image, there.kept if there else None, where, version)
    state.now_in_registry(f"image:{image.name}", Answer(kept=made, tagged=True))
    for part in _products(state, image):
        sent += _push_product(state, part)
    return f"{where}:{version}, {size(sent)} sent"


def source_current(state: State, one: OnBase) -> bool:
    """Whether the registry has what a source left when it was compiled on a base."""
    compiled = state.compiled_on(one.source, one.base)
    return compiled is not None and state.part_in_registry(compiled.part) is not None


def push_source(state: State, one: OnBase) -> str:
    """Sends what a source left when it was compiled on a base, for images that others build."""
    compiled = state.compiled_on(one.source, one.base)
    if not state.project.registry:
        raise _no_registry()
    if compiled is None or not state.store.has_derived(compiled.part.key, PRODUCT):
        name = f"source:{one.source.name}@{one.base.name}{state.at}"
        raise LadingError(f"{name} is not compiled here", do=f"doit build:{name}")
    sent = _push_product(state, compiled.part)
    return f"{state.part_repository(compiled.part)}, {size(sent)} sent"


def _no_registry() -> DeclarationError:
    return DeclarationError(
        "project.yaml names no registry to push to", do="registry: registry.example.org/group"
    )


def _tag(state: State, where: str, found: Kept, version: str) -> None:
    with kept.repository(where, state.environ) as repository:
        kept.name(repository, found, [version])


def _push(
    state: State, image: Image, found: Kept | None, where: str, version: str
) -> tuple[Kept, int]:
    path, key = state.archive(image), state.key(image)
    assert key is not None
    config, places = archive.places(path, state.record(image))
    layers = json.loads(state.record(image).read_text())["layers"]
    blobs = {digest: Blob(digest=digest, size=length) for digest, (_, length) in places.items()}
    made = Kept(
        key=key,
        config=blobs[config],
        layers=tuple(blobs[layer["diff_id"]] for layer in layers),
        checks=check_verb.checks(image),
        sbom=f"sha256:{sbom.ensure(state, image)[1]}",
    )
    _refuse_another(image, where, found, made)
    total = sum(blob.size for blob in blobs.values())
    sent = 0
    with (
        kept.repository(where, state.environ) as repository,
        path.open("rb") as file,
        state.console.transfer(f"push {image.name}", total) as advance,
    ):

        def read(blob: Blob, offset: int) -> Iterator[bytes]:
            nonlocal sent
            start, length = places[blob.digest]
            for piece in _pieces(file.fileno(), start + offset, length - offset):
                sent += len(piece)
                advance(len(piece))
                yield piece

        kept.send(repository, read, blobs.values())
        # What has the key as its tag has its bill of materials: nobody has to ask for that.
        kept.name(repository, made, [])
        attached = _attach(state, image, repository, made)
        if attached is None:
            made = replace(made, sbom="")  # the next push tries it again
        # Another runner may have been quicker, since the registry was asked: its image stays.
        _refuse_another(image, where, _found_now(repository, key), made)
        kept.name(repository, made, [key, version])
        # In the same instant nobody is first: whose image has lost its key is told.
        if not kept.named(repository, made, key):
            _refuse_another(image, where, _found_now(repository, key), made)
    return made, sent + (attached or 0)


def _attach(state: State, image: Image, repository: Repository, made: Kept) -> int | None:
    """Attaches the image's SBOM: the bytes that were sent, None where the registry has none of it.
    That is said, and keeps no image from being pushed.
    """
    from lading.registry import referrers

    path, _ = sbom.ensure(state, image)
    document = referrers.Document(
        content=path.read_bytes(),
        media_type=MEDIA_TYPE,
        title=path.name,
        annotations={"org.opencontainers.image.created": _created(state, image)},
    )
    try:
        return referrers.attach(repository, made, document)
    except EnvironmentProblem:
        raise
    except LadingError as error:
        state.console.note(f"  {image.name}: its SBOM is not attached: {error}")
        return None


def _created(state: State, image: Image) -> str:
    return f"{state.all_locked(image).header.date}T00:00:00Z"


def _refuse_another(image: Image, where: str, found: Kept | None, made: Kept) -> None:
    if found is not None and found.config != made.config:
        raise LadingError(
            f"{where} has another image under the key of {image.name}",
            why=f"there   {found.config.digest}\nhere    {made.config.digest}",
            do=f"`doit verify:{image.name}` shows whether it is the same from every build",
        )


def _found_now(repository: Repository, key: str, *, product: bool = False) -> Kept | None:
    try:
        return kept.found(repository, key, product=product)
    except EnvironmentProblem:
        raise
    except LadingError:
        return None  # it is not believed, and what is pushed takes its place


def _pieces(handle: int, offset: int, length: int) -> Iterator[bytes]:
    end = offset + length
    while offset < end:
        piece = os.pread(handle, min(PIECE, end - offset), offset)
        if not piece:
            raise LadingError("the archive was cut short while it was pushed")
        offset += len(piece)
        yield piece


# -- what was compiled ----------------------------------------------------------------------


def _products(state: State, image: Image) -> list[Part]:
    """What was compiled for the image, is here, and is not in the registry."""
    return [
        compiled.part
        for compiled in state.all_locked(image).sources
        if state.store.has_derived(compiled.part.key, PRODUCT)
        and state.part_in_registry(compiled.part) is None
    ]


def _push_product(state: State, part: Part) -> int:
    from lading.files import sha256_of

    part_verb.refuse_damaged(state, part)  # no other machine is to have it
    path = state.store.made(part.key, PRODUCT)
    tar = Blob(digest=f"sha256:{sha256_of(path)}", size=path.stat().st_size)
    sent = 0
    with (
        kept.repository(state.part_repository(part), state.environ) as repository,
        path.open("rb") as file,
        state.console.transfer(f"push {part.what}", tar.size) as advance,
    ):

        def read(blob: Blob, offset: int) -> Iterator[bytes]:
            nonlocal sent
            if blob == kept.EMPTY:
                yield kept.EMPTY_CONTENT[offset:]
                return
            for piece in _pieces(file.fileno(), offset, blob.size - offset):
                sent += len(piece)
                advance(len(piece))
                yield piece

        made = kept.product(part.key, tar)
        kept.send(repository, read, [kept.EMPTY, tar])
        _refuse_another_build(state, part, repository, made)
        kept.name(repository, made, [part.key])
        if not kept.named(repository, made, part.key):
            _refuse_another_build(state, part, repository, made)
    state.now_in_registry(f"part:{part.key}", Answer(kept=made, tagged=False))
    return sent


def _refuse_another_build(state: State, part: Part, repository: Repository, made: Kept) -> None:
    found = _found_now(repository, part.key, product=True)
    if found is not None and found.layers != made.layers:
        raise LadingError(
            f"{state.part_repository(part)} has another build under the key of {part.what}",
            why=f"there   {found.content}\nhere    {made.content}",
            do="`doit verify:NAME` of an image with it shows whether it is the same from every "
            "build",
        )
