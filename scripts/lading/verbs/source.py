"""Sources: locked to a tarball and the packages they are built with, compiled once on each base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from lading import debian, net
from lading.console import counted, size
from lading.errors import EnvironmentProblem, LadingError
from lading.files import write_text
from lading.layers import apt, apt_kind
from lading.layers import source as sources
from lading.layers.base import BaseLock
from lading.layers.source_image import Compiled
from lading.layers.source_section import SourceBuild
from lading.moved import compare, say
from lading.project import Base, Project
from lading.state import State
from lading.store import Artifact, Gone, Source, available
from lading.verbs import base as base_verb
from lading.verbs import in_base
from lading.verbs import part as part_verb


class OnBase(Struct, frozen=True, kw_only=True):
    """A source on one of the bases that images want it on."""

    source: SourceBuild
    base: Base
    default: bool


def on_bases(project: Project) -> Iterator[OnBase]:
    """Every source on every base that an image wants it on, each once."""
    from lading.layers.source_section import in_order

    found: dict[tuple[str, str], bool] = {}
    for image in project.images.values():
        for source in in_order(image.source, project.sources):
            pair = (source.name, image.base)
            found[pair] = found.get(pair, False) or image.default
    for (source_name, base), default in found.items():
        yield OnBase(source=project.sources[source_name], base=project.bases[base], default=default)


def bases_of(state: State, source: SourceBuild) -> list[Base]:
    """The bases that it is wanted on in this run: those of all its images where it is asked for
    by name, else of the images that are to be made.
    """
    every = [one.base for one in on_bases(state.project) if one.source.name == source.name]
    if f"lock:source:{source.name}" in state.named:
        return every
    wanted = {
        image.base
        for image in state.project.images.values()
        if f"lock:{image.name}" in state.involved and source in state.sources_of(image)
    }
    return [base for base in every if base.name in wanted] or every


# -- lock -----------------------------------------------------------------------------------


def lock_current(state: State, source: SourceBuild) -> bool:
    """Whether the locks answer the declaration, and what they name can still be had."""
    return reason(state, source) == ""


def reason(state: State, source: SourceBuild, on: Sequence[Base] = ()) -> str:
    """Why the source has to be locked again, for the bases of this run or for others; empty if it
    has not.
    """
    if why := _tarball_unanswered(state, source):
        return why
    for base in on or bases_of(state, source):
        why = _tools_reason(state, source, base)
        if why:
            return f"on {base.name}: {why}"
    return ""


def unanswered(state: State, source: SourceBuild, base: Base) -> str:
    """Why the locks do not answer the declaration on a base; empty if they do."""
    return _tarball_unanswered(state, source) or _tools_unanswered(state, source, base)


def _tarball_unanswered(state: State, source: SourceBuild) -> str:
    lock = state.source_lock(source)
    if lock is None:
        return "there is none yet"
    return "its declaration has changed" if lock.header.inputs != sources.inputs(source) else ""


def _tools_reason(state: State, source: SourceBuild, base: Base) -> str:
    if why := _tools_unanswered(state, source, base):
        return why
    gone = _missing_upstream(state, source, base)
    return f"the mirror no longer has {', '.join(gone)}" if gone else ""


def _tools_unanswered(state: State, source: SourceBuild, base: Base) -> str:
    if state.base_lock(base) is None:
        return "the base is not locked"
    asked = state.tools_request(source, base)
    if asked is None:
        return ""
    lock = state.tools_lock(source, base)
    if lock is None:
        return "the packages it is built with are not locked yet"
    if lock.header.inputs != asked.digest:
        return "the packages it is built with, or the base's, have changed"
    return ""


def _missing_upstream(state: State, source: SourceBuild, base: Base) -> list[str]:
    """Packages that neither the store nor the mirror has; asked only if it has to be compiled."""
    lock, made = state.tools_lock(source, base), state.compiled_on(source, base)
    if lock is None or made is None or part_verb.compiled(state, made.part):
        return []
    if not _wanted(state, source, base) or part_verb.in_registry(state, made.part):
        return []
    lacking = {artifact.sha256 for artifact in state.store.lacking(lock.artifacts)}
    if not lacking:
        return []
    try:
        places = debian.locate(
            [deb for deb in lock.debs if deb.sha256 in lacking], debian.mirrors(state.environ)
        )
        gone = available(places, state.environ)
    except LadingError:
        return []
    return sorted(deb.name for deb in lock.debs if deb.sha256 in gone)


def lock(state: State, source: SourceBuild) -> str:
    """Locks the tarball and, on each base, the packages it is built with; says what moved."""
    folder = state.source_folder(source)
    if state.frozen:
        raise LadingError(
            f"{folder.relative_to(state.project.root)} is not current",
            why=f"{reason(state, source)}; with CI or frozen=1 set, locks are not changed",
            do=f"run `doit lock:source:{source.name}{state.at}` without them, and commit the lock",
        )
    old = _readable(state, source)
    if old is None or old.header.inputs != sources.inputs(source):
        artifact = tarball(state, source, old)
        write_text(folder / sources.FILE, sources.text_of(source, artifact, old))
        state.locks_changed()
        new = state.source_lock(source)
        if old is not None and new is not None:
            say(state.console, compare(sources.pinned(source, old), sources.pinned(source, new)))
    said = []
    for base in bases_of(state, source):
        if not _tools_current(state, source, base):
            said.append(_lock_tools(state, source, base))
    found = state.source_lock(source)
    assert found is not None
    return ", ".join([f"{found.artifact.name}, {size(found.artifact.size or 0)}", *said])


def _tools_current(state: State, source: SourceBuild, base: Base) -> bool:
    try:
        return _tools_reason(state, source, base) == ""
    except LadingError:
        return False  # a damaged lock is made anew


def _readable(state: State, source: SourceBuild) -> sources.SourceLock | None:
    try:
        return state.source_lock(source)
    except LadingError:
        return None


def tarball(state: State, source: SourceBuild, old: sources.SourceLock | None) -> Artifact:
    """The tarball: by the sha256 that is declared, or by what is found at its first lock.

    A version keeps its sha256: one whose content has changed upstream is not taken silently.
    """
    name = sources.file_of(source)
    expected = source.sha256
    if not expected and old is not None:
        same = (old.version, old.artifact.name) == (source.version, name)
        expected = old.artifact.sha256 if same else ""
    places = sources.places(source, state.environ, net.credentials)
    try:
        with state.console.transfer(f"fetch {name}", 0) as advance:
            if expected:
                artifact = Artifact(name=name, sha256=expected)
                state.store.fetch([artifact], lambda _: {expected: places}, advance)
            else:
                artifact = state.store.fetch_new(name, places, advance, environ=state.environ)
    except Gone as error:
        error.do = f"name a place that has it in sources.{source.name}.urls"
        raise
    except EnvironmentProblem:
        raise
    except LadingError as error:
        error.do = f"if the new content is meant, write its sha256 to sources.{source.name}.sha256"
        raise
    path = state.store.path(artifact.sha256)
    sources.check_tarball(source, path, name)
    return Artifact(name=name, sha256=artifact.sha256, size=path.stat().st_size)


def tools_part(source: SourceBuild, base: Base) -> str:
    """What the packages are for that a source is built with on a base."""
    return f"to compile {source.name} on {base.name}"


def _lock_tools(state: State, source: SourceBuild, base: Base) -> str:
    try:
        old = state.tools_lock(source, base)
    except LadingError:
        old = None
    new = tools_resolved(state, source, base, old)
    write_text(state.tools_file(source, base), new.text)
    state.locks_changed()
    if old is not None:
        part = tools_part(source, base)
        say(state.console, compare(apt_kind.pinned(old, part), apt_kind.pinned(new, part)))
    return f"{counted(len(new.debs), 'Debian package')} on {base.name}"


def tools_resolved(
    state: State, source: SourceBuild, base: Base, old: apt.AptLock | None
) -> apt.AptLock:
    """The lock of what a source is built with on a base; packages of `old` are kept."""
    from lading.layers import apt_resolve

    asked = state.tools_request(source, base)
    assert asked is not None
    found = apt_resolve.resolve(
        asked.sets,
        asked.base,
        in_base.tools(state, base),
        old=old.debs if old else (),
        what=f"sources.{source.name}.apt",
    )
    return apt.made(
        found.sets,
        old,
        inputs=asked.digest,
        command=f"doit lock:source:{source.name}",
        what=f"what compiles {source.name} on {base.name}",
    )


# -- build ----------------------------------------------------------------------------------


def build_current(state: State, one: OnBase) -> bool:
    """Whether nobody needs it, or the store has it."""
    made = state.compiled_on(one.source, one.base)
    if made is None:
        return False
    return part_verb.there(state, made.part) or not _wanted(state, one.source, one.base)


def _wanted(state: State, source: SourceBuild, base: Base) -> bool:
    """Whether it is to be compiled: asked for by name, or for an image that is still to make."""
    name = f"source:{source.name}@{base.name}"
    if state.named & {f"build:{name}", f"lock:source:{source.name}"}:
        return True
    made = state.compiled_on(source, base)
    if f"push:{name}" in state.named and made is not None:
        return not part_verb.in_registry(state, made.part)
    return any(
        not state.exists(image)
        for image in state.project.images.values()
        if image.base == base.name
        and {f"dockerfile:{image.name}", f"build:{image.name}"} & state.involved
        and source in state.sources_of(image)
    )


def build(state: State, one: OnBase) -> str:
    """Compiles it on its base, unless the store has it."""
    return ensure(state, one.source, one.base)


def ensure(state: State, source: SourceBuild, base: Base) -> str:
    """It is compiled, and in the store."""
    made = state.compiled_on(source, base)
    if made is None:
        raise LadingError(
            f"{source.name} is not locked on {base.name}",
            do=f"doit lock:source:{source.name}{state.at}",
        )
    if not part_verb.taken(state, made.part):
        for name in source.needs:
            ensure(state, state.project.sources[name], base)
        base_verb.ensure(state, base)
        fetch(state, source, base, made)
    return part_verb.ensure(state, made.part)


def lacking(state: State, source: SourceBuild, base: Base) -> list[Artifact]:
    """What the store lacks of the tarball and the packages that it is built with."""
    lock, tools = state.source_lock(source), state.tools_lock(source, base)
    assert lock is not None
    return state.store.lacking([lock.artifact, *(tools.artifacts if tools else ())])


def fetch(state: State, source: SourceBuild, base: Base, made: Compiled) -> None:
    """The tarball and the packages, in the store."""
    from lading.layers import apt_resolve

    lock, tools = state.source_lock(source), state.tools_lock(source, base)
    assert lock is not None
    wanted = lacking(state, source, base)

    def places(_: object) -> dict[str, list[Source]]:
        # Only what is lacking is asked for: to learn of mirrors can take a container.
        hashes = {artifact.sha256 for artifact in wanted}
        found: dict[str, list[Source]] = {}
        if lock.artifact.sha256 in hashes:
            tarball = sources.places(source, state.environ, net.credentials)
            found[lock.artifact.sha256] = tarball
        debs = [deb for deb in tools.debs if deb.sha256 in hashes] if tools is not None else []
        if debs:
            mirrors = apt_resolve.mirrors_of(_locked(state, base), in_base.tools(state, base))
            found |= debian.locate(debs, mirrors)
        return found

    total = sum(artifact.size or 0 for artifact in wanted)
    with state.console.transfer(f"fetch {made.part.what}", total) as advance:
        state.store.fetch(wanted, places, advance)


def _locked(state: State, base: Base) -> BaseLock:
    """The base's lock, which is there."""
    lock = state.base_lock(base)
    assert lock is not None
    return lock


def clean(state: State, one: OnBase) -> None:
    """Removes its contexts and logs, those of other keys too; the store keeps what was compiled."""
    import shutil

    made = state.compiled_on(one.source, one.base)
    if made is not None:
        today = part_verb.folder(state, made.part)
        for folder in today.parent.glob(f"{made.part.plan.name}-{'[0-9a-f]' * 8}"):
            shutil.rmtree(folder, ignore_errors=True)
