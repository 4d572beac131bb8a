"""Where builds run that are not this run's engine: other engines, and builders of docker buildx.

Each makes an image out of a context, and gives it back as a docker-archive. What is built from is
lent to it: it has none of the images that are here.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from lading.engines import buildkit, contexts, found
from lading.engines.failure import failing_step, last_lines
from lading.engines.model import BuildFailed, Engine
from lading.engines.wire import went_away
from lading.errors import EnvironmentProblem, LadingError
from lading.files import disk_errors
from lading.plan import KEY_LABEL

HERE = "default"
"""What this run's own engine is called among builders."""

_UNREACHABLE = re.compile(
    r"code = (?:Unavailable|Canceled)|waiting for connection|context deadline exceeded"
    r"|connection (?:refused|reset)|broken pipe|error reading from server|\bEOF\b"
)
"""How buildx says that the builder has gone, and not that a step has failed."""


class Below(Struct, frozen=True, kw_only=True):
    """What a build stands on: what FROM names, and how to have it as a docker-archive and as an
    OCI image layout; without these it is in a registry.
    """

    reference: str
    archive: Callable[[], Path] | None = None
    layout: Callable[[], Path] | None = None


class Job(Struct, frozen=True, kw_only=True):
    """One build: what `Engine.build` takes, the key that the image will have, and what it stands
    on.
    """

    context: Path
    tag: str
    key: str
    platform: str
    log: Callable[[str], None]
    cache: bool = True
    below: tuple[Below, ...] = ()


class Host(Protocol):
    """A place to build. Its methods raise `EnvironmentProblem` when it has gone away."""

    def build(self, job: Job, out: Path) -> None:
        """Builds, and writes the image to `out`. Raises `BuildFailed` too."""
        ...

    def answers(self) -> bool:
        """Whether it is there."""
        ...

    def close(self) -> None: ...


class EngineHost:
    """Another engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()

    def build(self, job: Job, out: Path) -> None:
        engine = self._engine
        with self._lock:  # of several builds one brings what they share
            for below in job.below:
                self._bring(below, job)
        info = engine.inspect(job.tag) if job.cache else None
        # A run that was killed may have left it: what is done is not done twice.
        if info is None or info.labels.get(KEY_LABEL) != job.key:
            engine.build(job.context, job.tag, platform=job.platform, log=job.log, cache=job.cache)
        with disk_errors(out), out.open("wb") as file:
            for piece in engine.save(job.tag):
                file.write(piece)
        with suppress(LadingError):
            engine.remove(job.tag)

    def _bring(self, below: Below, job: Job) -> None:
        if self._engine.inspect(below.reference) is not None:
            return
        if below.archive is None:
            self._engine.pull(below.reference, platform=job.platform, log=job.log)
        else:
            self._engine.load(below.archive())

    def answers(self) -> bool:
        try:
            self._engine.inspect("localhost/lading/none")
        except EnvironmentProblem:
            return False
        except LadingError:
            pass
        return True

    def close(self) -> None:
        self._engine.close()


class BuildxHost:
    """A builder that docker buildx knows: BuildKit in a container, in Kubernetes, or anywhere."""

    def __init__(self, name: str, client: buildkit.Client) -> None:
        self._name = name
        self._client = client

    def build(self, job: Job, out: Path) -> None:
        words = [
            *self._client.build,
            *("--builder", self._name),
            *("--output", f'type=docker,compression=uncompressed,"dest={out}"'),
            *self._below(job),
            *buildkit.what_to_build(self._client, job.tag, job.platform, job.cache),
            str(job.context),
        ]
        code, lines = buildkit.told(self._client, words, buildkit.CLIENT_ENVIRONMENT, job.log)
        if not code:
            return
        said = next((line for line in reversed(lines) if line.startswith("ERROR: ")), "")
        ran = "did not complete successfully: exit code" in said
        if not ran and (_UNREACHABLE.search(said) or not self.answers()):
            raise went_away(f"builder {self._name}", f"building {job.tag}", said)
        raise BuildFailed(job.tag, failing_step(lines), last_lines(lines))

    def _below(self, job: Job) -> Iterator[str]:
        """It has none of the images that are here: they are lent to the build by name."""
        from lading.archive import layout

        for below in job.below:
            if below.layout is not None:
                yield "--build-context"
                yield f"{below.reference}={layout.reference(below.layout())}"

    def answers(self) -> bool:
        from lading import process

        said = process.run([str(self._client.path), "buildx", "inspect", self._name])
        return said.code == 0 and re.search(r"^Status: +running", said.output, re.M) is not None

    def close(self) -> None:
        pass


def opened(name: str, environ: Mapping[str, str]) -> Host:
    """What a builder's name stands for: an engine's address, a context of docker's, or a builder
    of docker buildx. Raises `EnvironmentProblem` when it is none of them, or does not answer.
    """
    endpoint = contexts.place(name, environ)
    if endpoint is not None:
        try:
            return EngineHost(found.opened(endpoint, environ))
        except found.NoAnswer as problem:
            raise EnvironmentProblem(
                f"no engine answers at {endpoint.where}", why=str(problem)
            ) from problem
    from lading import process

    clients = [client for client in buildkit.clients(environ) if client.buildx]
    for client in clients:
        if process.run([str(client.path), "buildx", "inspect", name]).code == 0:
            return BuildxHost(name, client)
    lacking = "" if clients else ", and no docker client here has the plugin buildx"
    raise EnvironmentProblem(
        f"there is no builder '{name}'",
        why=f"neither docker's contexts nor `docker buildx ls` know it{lacking}",
    )


class Slot:
    """One builder in a run: how many builds it has, and why it takes no more."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.busy = 0
        self.lost = ""
        self.lock = threading.Lock()
        self.host: Host | None = None


class Pool:
    """The builders of a run, shared by its threads; each is opened when it is first wanted."""

    def __init__(self, open_one: Callable[[str], Host], note: Callable[[str], None]) -> None:
        self._open = open_one
        self._note = note
        self._slots: dict[str, Slot] = {}
        self._lock = threading.Lock()

    @contextmanager
    def lent(self, names: Sequence[str], what: str) -> Iterator[Slot]:
        """The one of these with the least to do; one behind the other where that is the same.

        Raises `EnvironmentProblem` when none is left.
        """
        with self._lock:
            slots = [self._slots.setdefault(name, Slot(name)) for name in names]
            left = [slot for slot in slots if not slot.lost]
            if not left:
                raise EnvironmentProblem(
                    f"no builder is left for {what}",
                    why="\n".join(f"{slot.name}: {slot.lost}" for slot in slots),
                    do=f"see whether they run; `{HERE}` among `builder:` is this run's own engine",
                )
            slot = min(left, key=lambda one: one.busy)
            slot.busy += 1
        try:
            yield slot
        finally:
            with self._lock:
                slot.busy -= 1

    def host(self, slot: Slot) -> Host:
        """What is behind it. Raises `EnvironmentProblem`."""
        with slot.lock:
            if slot.host is None:
                if slot.lost:
                    raise EnvironmentProblem(slot.lost)
                slot.host = self._open(slot.name)
            return slot.host

    def lose(self, slot: Slot, why: str) -> None:
        """It takes no more builds in this run, which is said once."""
        with self._lock:
            if slot.lost:
                return
            slot.lost = why
        self._note(f"builder {slot.name} is not used any more in this run: {why}")

    def close(self) -> None:
        """Lets go of all."""
        with self._lock:
            slots = list(self._slots.values())
        for slot in slots:
            if slot.host is not None:
                with suppress(Exception):
                    slot.host.close()
