"""Making a part: building it in the engine, and keeping what came out in the store."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from lading import engines
from lading.console import size
from lading.errors import LadingError
from lading.files import disk_errors
from lading.parts import FILES, PRODUCT
from lading.plan import Part, Share
from lading.state import State
from lading.steps import Stored, Unpacked
from lading.store import Artifact
from lading.verbs import building, pushed


def there(state: State, part: Part) -> bool:
    """Whether the store has all that is taken from a part."""
    return compiled(state, part) and all(
        state.store.has_derived(share.key, share.name) for share in part.shares
    )


def compiled(state: State, part: Part) -> bool:
    """Whether the store has what a part left; what is taken from it needs nothing else."""
    return state.store.has_derived(part.key, PRODUCT)


def folder(state: State, part: Part) -> Path:
    """Where its context and its log are; parts of one name can be built at the same time."""
    return state.project.root / "build" / "parts" / f"{part.plan.name}-{part.key[:8]}"


def ensure(state: State, part: Part) -> str:
    """The part is there: made if it is not, never twice. Returns how much it is."""
    if not there(state, part):
        if not taken(state, part):
            for needed in part.parts:
                ensure(state, needed)
        product = state.store.derived(part.key, PRODUCT, lambda out: make(state, part, out))
        try:
            for share in part.shares:
                _take(state, part, share, product)
        except LadingError:
            refuse_damaged(state, part)
            raise
    return size(state.store.made(part.key, PRODUCT).stat().st_size)


def taken(state: State, part: Part) -> bool:
    """Whether the store has what was built, or gets it out of the registry, where another machine
    has put it.
    """
    return compiled(state, part) or pushed.take(state, part)


def refuse_damaged(state: State, part: Part) -> None:
    """Raises `LadingError` if what the store has of a part is no longer what was put there."""
    from lading import prefix

    product = state.store.made(part.key, PRODUCT)
    try:
        prefix.refuse_damaged(product)
    except LadingError as damaged:
        with disk_errors(product):
            product.unlink(missing_ok=True)
        raise LadingError(
            f"{part.what} was damaged on this machine's disk since it was made",
            why=str(damaged),
            do="it was thrown away: run it again, and it is made anew",
        ) from damaged


def in_registry(state: State, part: Part) -> bool:
    """Whether another machine has made it, and the registry has it."""
    return state.part_in_registry(part) is not None


def _take(state: State, part: Part, share: Share, product: Path) -> None:
    from lading import prefix

    def write(out: Path) -> None:
        if share.name == FILES:
            prefix.unpack(product, out)
        else:
            prefix.choose(product, out, part.epoch, share.keep, share.drop)

    state.store.derived(share.key, share.name, write)


def _fetched(part: Part) -> list[Artifact]:
    """What its context has of what was downloaded."""
    return [
        Artifact(name=PurePosixPath(at).name, sha256=what.sha256)
        for at, what in part.plan.files.items()
        if isinstance(what, Stored | Unpacked)
    ]


def make(state: State, part: Part, out: Path, *, cache: bool = True) -> None:
    """Builds the part, and writes what it left as a tar. The engine keeps none of it."""
    from lading import context, prefix

    place = folder(state, part)
    context.make(part.plan, part.key, state.project.root, state.store, place / "context")
    name = f"localhost/lading/part/{part.plan.name}:{part.key[:16]}"
    try:
        building.build(
            state,
            place / "context",
            name,
            key=part.key,
            log=place / "build.log",
            what=part.what,
            cache=cache,
            builders=state.project.builder,
        )
    except engines.BuildFailed as failed:
        building.refuse_damaged(state, _fetched(part), failed, place / "context")
        raise
    saved = out.with_name(f"{out.name}.saved")
    try:
        with disk_errors(saved), saved.open("wb") as file:
            for chunk in state.engine.save(name):
                file.write(chunk)
        with disk_errors(out):
            prefix.write(saved, out, part.epoch)
    finally:
        saved.unlink(missing_ok=True)
        state.engine.remove(name)
        state.forget("images")
