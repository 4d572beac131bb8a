"""lock: resolve an image's requirements, on its base, and pin what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from lading import net, process, store, uv
from lading.console import size
from lading.errors import LadingError
from lading.layers import pip
from lading.layers.pip import PipLock
from lading.project import Image
from lading.requirements import Pin
from lading.state import State
from lading.store import Artifact, Source
from lading.verbs import base as base_verb


def current(state: State, image: Image) -> bool:
    """Whether the lock answers today's inputs, and what it names can still be had."""
    return reason(state, image) == ""


def reason(state: State, image: Image) -> str:
    """Why the lock has to be made again; empty if it has not."""
    if image.pip is None:
        return ""
    if state.base_lock(state.base_of(image)) is None:
        return "its base is not locked"
    lock = state.pip_lock(image)
    if lock is None:
        return "there is none yet"
    if lock.header.inputs != state.request(image).digest:
        return "the requirements, the base's Python or the options have changed"
    gone = missing_upstream(state, image)
    if gone:
        return f"no longer to be had: {', '.join(gone)}"
    return ""


def missing_upstream(state: State, image: Image) -> list[str]:
    """Files of the lock that neither the store nor any index has; asked at most once a run.

    An image that exists already needs none of its files; an index that can't be reached says
    nothing about what it has.
    """
    lock = state.pip_lock(image)
    assert lock is not None
    lacking = state.store.lacking(lock.artifacts)
    if not lacking or not _needed(state, image):
        return []

    try:
        found = located(state, image)
        gone = store.available({a.sha256: found.get(a.sha256, []) for a in lacking}, state.environ)
    except LadingError:
        return []
    return sorted(artifact.name for artifact in lacking if artifact.sha256 in gone)


def _needed(state: State, image: Image) -> bool:
    """Whether any file of the lock is needed: asked for by name, or for an image still to make."""
    asked = any(state.asked_for(verb, image) for verb in ("lock", "fetch", "dockerfile"))
    return asked or not state.exists(image)


def located(state: State, image: Image) -> Mapping[str, Sequence[Source]]:
    """Where the files that the store lacks can be had today; the indexes are asked once a run."""

    def ask() -> Mapping[str, Sequence[Source]]:
        lock = state.pip_lock(image)
        assert lock is not None
        wanted = [pin for pin in lock.all_pins if not state.store.has(pin.artifact)]
        return pip.sources(state.request(image), wanted, net.uv_environment(state.environ))

    return state.once(("located", image.name), ask)


def make(state: State, image: Image) -> str:
    """Locks the image; says what moved. Frozen, it is an error that names the lock."""
    assert image.pip is not None
    base = state.base_of(image)
    folder = state.lock_folder(image)
    if state.frozen:
        raise LadingError(
            f"{folder.relative_to(state.project.root)} is not current",
            why=f"{reason(state, image)}; with CI or frozen=1 set, locks are not changed",
            do=f"run `doit lock:{image.name}` without them, and commit the lock",
        )
    old = readable(lambda: state.pip_lock(image))
    asked = state.request(image)
    new = pip.lock(
        asked,
        old,
        state.store,
        net.uv_environment(state.environ),
        in_base=lambda: runner_in_base(state, image),
    )
    pip.write(folder, new)
    state.locks_changed()
    for line in moved(old.pins if old else (), new.pins):
        state.console.note(f"  {line}")
    total = sum(pin.artifact.size or 0 for pin in new.pins)
    return f"{len(new.pins)} packages, {size(total)}, on {base.name}"


def readable(read: Callable[[], PipLock | None]) -> PipLock | None:
    """A lock that is damaged is made anew, as if there were none."""
    try:
        return read()
    except LadingError:
        return None


def moved(old: Iterable[Pin], new: Iterable[Pin]) -> list[str]:
    """What changed between two sets of pins, a line each; nothing for a first lock."""
    before = {pin.name: pin for pin in old}
    after = {pin.name: pin for pin in new}
    if not before:
        return []
    lines: list[str] = []
    for name in sorted({*before, *after}):
        was, now = before.get(name), after.get(name)
        if was is None and now is not None:
            lines.append(f"+ {name} {now.version}")
        elif now is None and was is not None:
            lines.append(f"- {name} {was.version}")
        elif was is not None and now is not None and was.artifact != now.artifact:
            same = was.version == now.version
            lines.append(
                f"{name} {was.artifact.name} → {now.artifact.name}"
                if same
                else f"{name} {was.version} → {now.version}"
            )
    return lines


def runner_in_base(state: State, image: Image) -> uv.Runner:
    """Runs uv in a throwaway container of the image's base, with the user's network settings.

    Only there may an sdist be built to learn what it needs: with the base's own Python.
    """
    lock = state.base_lock(state.base_of(image))
    assert lock is not None
    reference = base_verb.ensure(state, state.base_of(image))
    binary = installer_binary(state, image)
    python = lock.facts.python

    def run(
        arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> process.Finished:
        from lading.engines import Mount

        options = without_target(arguments)
        mounts = [
            Mount(source=binary, target="/lading/uv"),
            Mount(source=folder, target="/lading/work", read_only=False),
        ]
        inside = dict(environment) | {
            "HOME": "/tmp",
            "UV_NO_CACHE": "1",
            "UV_PYTHON_DOWNLOADS": "never",
        }
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
            for variable in (name, name.lower()):
                if variable in state.environ:
                    inside[variable] = state.environ[variable]
        bundle = net.ca_bundle(state.environ)
        if bundle is not None:
            mounts.append(Mount(source=Path(bundle[1]), target="/lading/ca.pem"))
            inside["SSL_CERT_FILE"] = "/lading/ca.pem"
        netrc = Path(state.environ.get("NETRC", "~/.netrc")).expanduser()
        if netrc.is_file():
            mounts.append(Mount(source=netrc, target="/lading/netrc"))
            inside["NETRC"] = "/lading/netrc"
        result = state.engine.run(
            reference,
            ["/lading/uv", *options[:2], "--python", python, *options[2:]],
            user="0:0",
            read_only=False,
            tmpfs=(),
            network="host",
            mounts=mounts,
            env=inside,
            workdir="/lading/work",
            line=None,
        )
        return process.Finished(code=result.code, output=result.output, errors="")

    return run


def without_target(arguments: Sequence[str]) -> list[str]:
    """uv's arguments without the target: inside the base, its own Python and glibc are it."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in ("--python-version", "--python-platform"):
            skip = True
        else:
            kept.append(argument)
    return kept


def installer_binary(state: State, image: Image) -> Path:
    """The uv program for the image's platform, out of its wheel, in the store."""
    artifact = fetched_installer(state, image)
    wheel = state.store.path(artifact.sha256)
    return state.store.derived(artifact.sha256, "uv", lambda out: uv.extract_binary(wheel, out))


def fetched_installer(state: State, image: Image) -> Artifact:
    """uv's wheel for the image's platform, in the store."""
    asked = state.request(image)
    environment = net.uv_environment(state.environ)
    pin = pip.installer(asked, readable(lambda: state.pip_lock(image)), state.store, environment)
    if not state.store.has(pin.artifact):
        found = pip.sources(asked, [pin], environment)
        state.store.fetch([pin.artifact], lambda _: found)
    return pin.artifact
