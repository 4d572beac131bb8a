"""verify: build an image again from nothing, and compare what comes out with its archive."""

from __future__ import annotations

import shutil
from pathlib import Path

from lading import archive, process
from lading.errors import LadingError
from lading.files import sha256_of
from lading.parts import PRODUCT, Part
from lading.project import Image
from lading.state import State
from lading.verbs import base as base_verb
from lading.verbs import build as build_verb
from lading.verbs import building
from lading.verbs import check as check_verb
from lading.verbs import dockerfile as dockerfile_verb
from lading.verbs import part as part_verb
from lading.verbs import source as source_verb


def current(state: State, image: Image) -> bool:
    """Never: it is asked for in order to be done."""
    return False


def make(state: State, image: Image) -> str:
    """Builds all of the image again: its base, what is compiled for it, and itself, with nothing
    out of a cache. Raises `LadingError` with what differs.
    """
    folder = state.build_folder(image) / "verify"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _base(state, image, folder)
    for compiled in state.all_locked(image).sources:
        source_verb.fetch(state, compiled.source, state.base_of(image), compiled)
    build_verb.fetch_needed(state, image)
    dockerfile_verb.prepare(state, image)
    seen: set[str] = set()
    for part in state.plan(image).parts:
        _part(state, part, folder, seen)
    sha256 = _image(state, image, folder)
    shutil.rmtree(folder)
    return f"the same again, {sha256[:12]}"


def _base(state: State, image: Image, folder: Path) -> None:
    base = state.base_of(image)
    lock = state.base_lock(base)
    assert lock is not None
    kept = base_verb.archive_of(state, base, lock)
    if kept is None:
        return
    again = folder / "base.tar"
    base_verb.ensure(state, base)
    base_verb.assemble(state, base, lock, again)
    if kept.exists() and sha256_of(kept) != sha256_of(again):
        raise _differs(f"the base {base.name}", kept, again)
    again.unlink()


def _part(state: State, part: Part, folder: Path, seen: set[str]) -> None:
    if part.key in seen:
        return
    seen.add(part.key)
    for needed in part.parts:
        _part(state, needed, folder, seen)
    part_verb.ensure(state, part)
    kept, again = state.store.made(part.key, PRODUCT), folder / f"{part.plan.name}.tar"
    part_verb.make(state, part, again, cache=False)
    if sha256_of(kept) != sha256_of(again):
        raise _differs(part.what, kept, again)
    again.unlink()


def _image(state: State, image: Image, folder: Path) -> str:
    key = state.key(image)
    assert key is not None
    dockerfile_verb.ensure(state, image)
    again, name = folder / f"{image.name}.tar", f"localhost/lading/verify/{image.name}:{key[:16]}"
    try:
        building.build(
            state,
            state.context(image),
            name,
            key=key,
            log=folder / "build.log",
            what=f"{image.name} again",
            cache=False,
        )
        made = archive.export(
            state.engine.save(name),
            again,
            name=state.name(image),
            platform=state.project.platform,
            normal=check_verb.normal(state, image),
        )
    finally:
        state.engine.remove(name)
        state.forget("images")
    kept = state.archive(image)
    if sha256_of(kept) != made.sha256:
        raise _differs(image.name, kept, again)
    return made.sha256


def _differs(what: str, kept: Path, again: Path) -> LadingError:
    from lading.archive import compared

    report = ""
    if shutil.which("diffoscope"):
        text = again.with_suffix(".diff.txt")
        process.run(["diffoscope", "--text", str(text), str(kept), str(again)])
        report = f"; all that differs is in {text}"
    return LadingError(
        f"{what} came out otherwise when it was built again",
        why="\n".join(compared.differences(kept, again))
        or "the layers agree; the configuration differs",
        do=f"both are kept: {kept} and {again}{report}",
    )


def clean(state: State, image: Image) -> None:
    """Removes what a comparison that failed has left."""
    shutil.rmtree(state.build_folder(image) / "verify", ignore_errors=True)
