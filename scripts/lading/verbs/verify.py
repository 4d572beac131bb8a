"""verify: build an image again from nothing, and compare what comes out with its archive."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from lading import process
from lading.console import counted
from lading.errors import LadingError
from lading.files import sha256_of
from lading.parts import PRODUCT
from lading.plan import AGAIN, Part
from lading.project import Image
from lading.state import State
from lading.store import Store
from lading.verbs import base as base_verb
from lading.verbs import build as build_verb
from lading.verbs import building, in_base
from lading.verbs import check as check_verb
from lading.verbs import dockerfile as dockerfile_verb
from lading.verbs import part as part_verb
from lading.verbs import source as source_verb


def current(state: State, image: Image) -> bool:
    """Never: it is asked for in order to be done."""
    return False


def make(state: State, image: Image) -> str:
    """Builds all of the image again: its base, what is compiled for it, what is put together of
    packages for it, and itself, with nothing out of a cache; what images share, once a run.

    Raises `LadingError` with what differs.
    """
    folder = state.build_folder(image) / "verify"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    same: set[str] = state.once(("verified",), set)
    with state.alone("verify"):
        _base(state, image, folder, same)
    for compiled in state.all_locked(image).sources:
        source_verb.fetch(state, compiled.source, state.base_of(image), compiled)
    build_verb.fetch_needed(state, image)
    dockerfile_verb.prepare(state, image)
    _prepared(state, image, folder)
    parts = 0
    # Of several images that share a part, one makes it again: it has one place to be made in.
    with state.alone("verify"):
        for part in state.plan(image).parts:
            parts += _part(state, part, folder, same)
    sha256 = _image(state, image, folder)
    shutil.rmtree(folder)
    state.console.note(f"  {image.name}: sha256 {sha256}")
    also = f", and so {'is' if parts == 1 else 'are'} {counted(parts, 'part')}" if parts else ""
    return f"the same again, {sha256[:12]}{also}"


def _base(state: State, image: Image, folder: Path, same: set[str]) -> None:
    base = state.base_of(image)
    lock = state.base_lock(base)
    assert lock is not None
    base_verb.ensure(state, base)
    kept = base_verb.archive_of(state, base, lock)
    if kept is None or not kept.exists() or lock.key in same:
        return
    again = folder / "base.tar"
    base_verb.assemble(state, base, lock, again)
    _compare(f"the base {base.name}", kept, again)
    same.add(lock.key)


def _prepared(state: State, image: Image, folder: Path) -> None:
    """What lading itself makes of packages (conda's prefix), made again in a store that has
    nothing but the downloads.
    """
    store = Store(folder / "store")
    store.root.mkdir()
    (store.root / "sha256").symlink_to(state.store.root / "sha256")
    tools = replace(in_base.tools(state, state.base_of(image)), store=store)
    dockerfile_verb.prepare(state, image, tools)
    for again in sorted((store.root / "derived").glob("*/*")):
        kept = state.store.made(again.parent.name, again.name)
        if kept.is_file():
            _compare(f"{again.name} of {image.name}", kept, again)


def _part(state: State, part: Part, folder: Path, same: set[str]) -> int:
    """Makes a part and those that it needs again; how many these were."""
    if part.key in same:
        return 0
    count = sum(_part(state, needed, folder, same) for needed in part.parts)
    part_verb.ensure(state, part)
    again = folder / f"{part.plan.name}.tar"
    part_verb.make(state, part, again, cache=False)
    _compare(part.what, state.store.made(part.key, PRODUCT), again)
    same.add(part.key)
    return count + 1


def _image(state: State, image: Image, folder: Path) -> str:
    key = state.key(image)
    assert key is not None
    dockerfile_verb.ensure(state, image)
    again, name = folder / f"{image.name}.tar", f"{AGAIN}{image.name}:{key[:16]}"
    # What a comparison left that was killed would lose its name to this one, and be taken for the
    # image itself.
    if state.engine.inspect(name) is not None:
        state.engine.remove(name)
    try:
        building.build(
            state,
            state.context(image),
            name,
            key=key,
            log=folder / "build.log",
            what=f"{image.name} again",
            cache=False,
            builders=state.builders_of(image),
        )
        made = check_verb.exported(state, image, name, again)
    finally:
        with suppress(LadingError):  # an engine that went away has it no more
            state.engine.remove(name)
        state.forget("images")
    _compare(image.name, state.archive(image), again)
    return made.sha256


def _compare(what: str, kept: Path, again: Path) -> None:
    """Removes what is the same again; else raises `LadingError`, and both files stay."""
    if sha256_of(kept) == sha256_of(again):
        again.unlink()
        return
    from lading.archive import compared

    lines = compared.differences(kept, again)
    raise LadingError(
        f"{what} came out otherwise when it was built again",
        why="\n".join(lines) or "the same image, written down in another way",
        do=f"both are kept: {kept} and {again}{_diffoscope(kept, again)}",
    )


def _diffoscope(kept: Path, again: Path) -> str:
    """Where diffoscope's report is, which says more; empty where it is not installed."""
    if not shutil.which("diffoscope"):
        return ""
    report = again.with_suffix(".diff.txt")
    finished = process.run(["diffoscope", "--text", str(report), str(kept), str(again)])
    if report.is_file():
        return f"; all that differs is in {report}"
    said = (finished.errors or finished.output).strip().splitlines()
    return f"; diffoscope failed: {said[-1] if said else f'exit code {finished.code}'}"


def clean(state: State, image: Image) -> None:
    """Removes what a comparison that failed has left."""
    shutil.rmtree(state.build_folder(image) / "verify", ignore_errors=True)
