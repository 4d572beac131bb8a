"""The base of images: locked, and for a `debian:` base made, loaded and kept in the store."""

from __future__ import annotations

import shlex
from pathlib import Path

from lading import archive, debian, moved, platforms, store
from lading.console import size
from lading.errors import LadingError
from lading.facts import Facts
from lading.files import disk_errors, write_text
from lading.layers import base as bases
from lading.layers.base import BaseLock
from lading.project import Base, DebianBase
from lading.state import State

ARCHIVE = "base.tar"
ROOT = "0:0"
"""Who looks into a base, and installs into it."""


def lock_current(state: State, base: Base) -> bool:
    """Whether the base's lock answers its declaration, and what it names can still be had."""
    return lock_reason(state, base) == ""


def lock_reason(state: State, base: Base) -> str:
    """Why the lock has to be made again; empty if it has not."""
    if why := unanswered(state, base):
        return why
    lock = state.base_lock(base)
    assert lock is not None
    gone = missing_upstream(state, base, lock)
    if gone:
        shown = ", ".join(gone[:5]) + (f" and {len(gone) - 5} more" if len(gone) > 5 else "")
        return f"the mirror no longer has {shown}"
    return ""


def unanswered(state: State, base: Base) -> str:
    """Why the lock does not answer the declaration; empty if it does. No server is asked."""
    lock = state.base_lock(base)
    if lock is None:
        return "there is none yet"
    if lock.header.inputs != bases.inputs(base, state.project.platform):
        return "its declaration has changed"
    return ""


def missing_upstream(state: State, base: Base, lock: BaseLock) -> list[str]:
    """.debs that neither the store nor the mirror has; asked only if the base is needed.

    A mirror that can't be reached says nothing about what it has.
    """
    if base.debian is None or made(state, base, lock) or not needed(state, base):
        return []
    lacking = state.store.lacking(lock.artifacts)
    if not lacking:
        return []
    wanted = {artifact.sha256 for artifact in lacking}
    try:
        sources = debian.locate(
            [deb for deb in lock.debs if deb.sha256 in wanted], debian.mirrors(state.environ)
        )
        gone = store.available(sources, state.environ)
    except LadingError:
        return []
    return sorted(deb.name for deb in lock.debs if deb.sha256 in gone)


def needed(state: State, base: Base) -> bool:
    """Whether anything is to be made from this base: asked for by name, or by an image."""
    if state.named & {f"build:base:{base.name}", f"lock:base:{base.name}"}:
        return True
    images = [image for image in state.project.images.values() if image.base == base.name]
    return any(
        f"build:{image.name}" in state.involved and not state.exists(image) for image in images
    )


def lock(state: State, base: Base) -> str:
    """Locks the base; says what moved. Frozen, it is an error that names the lock."""
    path = bases.path(state.project.root, base.name, state.project.platform)
    if state.frozen:
        raise LadingError(
            f"{path.relative_to(state.project.root)} is not current",
            why=f"{lock_reason(state, base)}; with CI or frozen=1 set, locks are not changed",
            do=f"run `doit lock:base:{base.name}{state.at}` without them, and commit the lock",
        )
    try:
        old = state.base_lock(base)
    except LadingError:
        old = None
    text, what = resolved(state, base, old)
    write_text(path, text)
    state.locks_changed()
    if old is not None:
        new = bases.parse(text, str(path))
        moved.say(
            state.console, moved.compare(bases.contents(base, old), bases.contents(base, new))
        )
    return what


def resolved(state: State, base: Base, old: BaseLock | None) -> tuple[str, str]:
    """The text of the base's lock as of today, and what was found, for the console."""
    platform = state.project.platform
    if base.debian is not None:
        debs = _debs(state, base.debian, base.debian.packages)
        facts = debian.facts_of(debs)
        if facts.python and debian.lacks_distutils(facts.python_version):
            debs = _debs(state, base.debian, (*base.debian.packages, "python3-distutils"))
        text = bases.text_of(base, platform, facts, old, debs=debs)
        return text, f"{len(debs)} packages, {size(sum(deb.size for deb in debs))}"
    from lading import registry

    assert base.image is not None
    digest = registry.resolve(base.image, platform, environ=state.environ).digest
    if old is not None and old.digest == digest and not platforms.runs(platform):
        facts = old.facts  # which can't be looked for here, and are those of these bytes
    else:
        facts = facts_of_image(state, bases.pinned(base.image, digest))
    return bases.text_of(base, platform, facts, old, digest=digest), digest[:19]


def _debs(state: State, base: DebianBase, packages: tuple[str, ...]) -> tuple[debian.Deb, ...]:
    architecture = state.project.platform.partition("/")[2]
    mirrors = debian.mirrors(state.environ)
    return debian.resolve(
        base.suite, packages, architecture, mirrors, cache=state.store.root / "apt"
    )


LOOK = r"""
python=; for p in python3 python; do python=$(command -v $p) && break; done
[ -n "$python" ] && "$python" -c 'import platform, sys
if sys.version_info[0] > 2:
    print("python=" + sys.executable)
    print("python_version=" + platform.python_version())
if platform.libc_ver()[0] == "glibc":
    print("glibc=" + platform.libc_ver()[1])'
getconf GNU_LIBC_VERSION 2>/dev/null | sed -n 's/^glibc /glibc=/p'
for l in /lib/*/libc.so.6 /lib64/libc.so.6 /usr/lib/libc.so.6 /lib/libc.so.6; do
  [ -x "$l" ] && "$l" 2>/dev/null </dev/null |
    sed -n 's/^GNU C Library .*version \([0-9.]*[0-9]\).*/glibc=\1/p'
done
for l in /lib/ld-musl-*.so.1; do
  [ -x "$l" ] && "$l" 2>&1 </dev/null | sed -n 's/^Version /musl=/p'
done
for p in apt-get dnf yum microdnf zypper apk; do
  command -v $p >/dev/null && echo "package_manager=$p" && break
done
conda=$(command -v conda) && conda=$(readlink -f "$conda") && conda=${conda%/*/conda} &&
  [ -d "$conda/conda-meta" ] && set -- $(conda --version 2>&1) && [ "$1" = conda ] &&
  echo "conda=$conda" && echo "conda_version=$2" ||
  for p in "$CONDA_PREFIX" "$CONDA_DIR" "$MAMBA_ROOT_PREFIX" /opt/conda /opt/*; do
    [ -n "$p" ] && [ -d "$p/conda-meta" ] && echo "conda=$p" && break
  done
[ -r /etc/os-release ] && . /etc/os-release && echo "os=$ID $VERSION_ID"
exit 0
"""


def facts_of_image(state: State, reference: str) -> Facts:
    """A base's facts, by running it once with no network, as root, whoever else it runs as."""
    with state.console.lines(f"pull {reference}") as show:
        state.engine.pull(reference, platform=state.project.platform, log=show)
    platform = state.project.platform
    what = f"{reference} can't be looked into"
    try:
        result = state.engine.run(reference, ["/bin/sh", "-c", LOOK], user=ROOT)
    except LadingError as error:
        raise platforms.refused(what, platform, error.why or error.what) or error from None
    if result.code:
        if problem := platforms.refused(what, platform, result.output):
            raise problem
        raise LadingError(
            f"{reference} can't be looked into", why=result.output, do="a base needs /bin/sh"
        )
    found = dict(line.split("=", 1) for line in result.output.splitlines() if "=" in line)
    manager = found.get("package_manager", "")
    info = state.engine.inspect(reference)
    user = info.user if info is not None else ""
    return Facts(
        python=found.get("python", ""),
        python_version=found.get("python_version", ""),
        glibc=found.get("glibc", ""),
        os=found.get("os", "").strip(),
        package_manager="apt" if manager == "apt-get" else manager,
        conda=found.get("conda", ""),
        conda_version=found.get("conda_version", ""),
        musl="" if found.get("glibc") else found.get("musl", ""),
        user="" if user.partition(":")[0] in ("", "0", "root") else user,
        entrypoint=shlex.join(info.entrypoint) if info is not None else "",
    )


# -- making ---------------------------------------------------------------------------------


def archive_of(state: State, base: Base, lock: BaseLock) -> Path | None:
    """Where the store has a Debian base as an archive, or would have it."""
    return state.store.made(lock.key, ARCHIVE) if base.debian is not None else None


def made(state: State, base: Base, lock: BaseLock) -> bool:
    """Whether the store has the base as it is locked."""
    return base.debian is None or state.store.has_derived(lock.key, ARCHIVE)


def build_current(state: State, base: Base) -> bool:
    """Whether nobody needs the base here, or the engine has it."""
    lock = state.base_lock(base)
    if lock is None:
        return False
    if not needed(state, base):
        return True
    try:
        return state.engine.inspect(bases.reference(base, lock)) is not None
    except LadingError:
        return False


def build(state: State, base: Base) -> str:
    """Makes the base and gives it to the engine; a base from a registry is pulled."""
    ensure(state, base)
    lock = state.base_lock(base)
    assert lock is not None
    info = state.engine.inspect(bases.reference(base, lock))
    return size(info.size) if info is not None else ""


def ensure(state: State, base: Base) -> str:
    """What FROM names, there in the engine."""
    lock = state.base_lock(base)
    if lock is None:
        raise LadingError(
            f"the base {base.name} is not locked", do=f"doit lock:base:{base.name}{state.at}"
        )
    reference = bases.reference(base, lock)
    # Several tasks want it at once: one brings it, the others wait.
    with state.alone("base", reference):
        if state.engine.inspect(reference) is None:
            _bring(state, base, lock, reference)
    return reference


def _bring(state: State, base: Base, lock: BaseLock, reference: str) -> None:
    if base.debian is None:
        with state.console.lines(f"pull {base.name}") as show:
            state.engine.pull(reference, platform=state.project.platform, log=show)
        return
    found = archived(state, base, lock)
    state.claim_image(lock.key, reference)
    try:
        state.engine.load(found)
    except LadingError as refused:
        _refuse_damaged(base, found, refused)
        raise


def archived(state: State, base: Base, lock: BaseLock) -> Path:
    """A Debian base as an archive in the store; made if it is not there."""
    return state.store.derived(lock.key, ARCHIVE, lambda out: assemble(state, base, lock, out))


def _refuse_damaged(base: Base, found: Path, refused: LadingError) -> None:
    """Raises `LadingError` if a base in the store is no longer what was put there."""
    try:
        archive.read(found)
    except LadingError as damaged:
        with disk_errors(found):
            found.unlink(missing_ok=True)
        raise LadingError(
            f"the base {base.name} was damaged on this machine's disk",
            why=f"{damaged}\n{refused}",
            do="it was thrown away: run it again, and it is made anew",
        ) from refused


def assemble(state: State, base: Base, lock: BaseLock, out: Path) -> None:
    """A Debian base from its .debs, as a canonical docker-archive at `out`."""
    platform = state.project.platform
    if not platforms.runs(platform):
        raise platforms.cant_run(f"the base {base.name} can't be made for {platform}", platform)
    lacking = state.store.lacking(lock.artifacts)
    if lacking:
        total = sum(artifact.size or 0 for artifact in lacking)
        mirrors = debian.mirrors(state.environ)
        with state.console.transfer(f"fetch base {base.name}", total) as advance:
            state.store.fetch(lacking, lambda _: debian.locate(lock.debs, mirrors), advance)
    root = out.with_name(out.name + ".root")
    try:
        try:
            with state.console.lines(f"build base {base.name}") as show:
                debian.assemble(
                    lock.debs,
                    lock.suite,
                    lock.header.epoch,
                    {deb.sha256: state.store.path(deb.sha256) for deb in lock.debs},
                    root,
                    show,
                )
        except LadingError as failed:
            state.store.refuse_damaged(lock.artifacts, failed)
            raise
        config = debian.image_config(state.project.platform.partition("/")[2], lock.header.epoch)
        archive.write(out, config, [root], bases.reference(base, lock))
    finally:
        root.unlink(missing_ok=True)


def clean(state: State, base: Base) -> None:
    """Takes the base out of the engine; the store keeps it."""
    lock = state.base_lock(base)
    if lock is not None and base.debian is not None:
        state.engine.remove(bases.reference(base, lock))
