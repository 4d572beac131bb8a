"""One run over one project: what is there already, asked once and remembered.

What is up to date follows from state that travels (committed files, the archive's record, labels
in an engine), never from a local database.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from lading import archive, claims, compose, keys, locks
from lading.compose import Layer, Locked
from lading.console import Console
from lading.errors import LadingError
from lading.layers import apt, kinds, source_image, source_section
from lading.layers import base as bases
from lading.layers import source as sources
from lading.layers.apt import AptLock
from lading.layers.base import BaseLock
from lading.layers.kind import AnyKind, Lock, Request, Subject
from lading.layers.source import SourceLock
from lading.layers.source_image import Compiled
from lading.layers.source_section import SourceBuild
from lading.parts import Start
from lading.plan import AGAIN, KEY_LABEL, Part, Plan
from lading.platforms import dashed
from lading.project import Base, Image, Project
from lading.store import Artifact, Store

if TYPE_CHECKING:
    from lading.engines import Engine
    from lading.engines.hosts import Pool
    from lading.registry.asking import Answer, Wanted

T = TypeVar("T")


class State:
    """A project, and what is known of it in this run; shared by all tasks, also by threads."""

    def __init__(
        self,
        project: Project,
        *,
        environ: Mapping[str, str] | None = None,
        console: Console | None = None,
        connect: Callable[[], Engine] | None = None,
    ) -> None:
        self.project = project
        self.environ = os.environ if environ is None else environ
        self.console = console or Console(environ=self.environ)
        self.store = Store.default(self.environ, project.root)
        self.frozen = self.environ.get("CI", "").lower() not in ("", "0", "false", "no")
        self.goals: frozenset[str] = frozenset()
        """The tasks that were asked for by name, or that are in a group asked for by name."""
        self.named: frozenset[str] = frozenset()
        """The tasks that were asked for by name alone."""
        self.involved: frozenset[str] = frozenset()
        """The goals and all they stand on."""
        self.only: frozenset[str] = frozenset()
        """Of an upgrade, the packages that are to move; all of them if it is empty."""
        self._elsewhere: list[State] = []
        self._connect = connect or self._connect_for_real
        self._known: dict[tuple[Any, ...], Any] = {}
        self._assumed: dict[tuple[str, ...], Lock | BaseLock | SourceLock] = {}
        self._asking: dict[tuple[Any, ...], threading.RLock] = {}
        self._forgotten: dict[Any, int] = {}
        """How often what is known under a name was forgotten."""
        self._lock = threading.RLock()
        """For what is known, and never while something is asked: an engine can take minutes."""

    # -- memory -----------------------------------------------------------------------------

    def once(self, name: tuple[Any, ...], ask: Callable[[], T]) -> T:
        """What `ask` answers; it is asked once a run. Who wants the same meanwhile waits for it,
        and nobody else does.
        """
        found: T
        with suppress(KeyError):
            found = self._known[name]
            return found
        with self._lock:
            asking = self._asking.setdefault(name, threading.RLock())
        with asking:
            with self._lock:
                if name in self._known:
                    found = self._known[name]
                    return found
                before = self._forgotten.get(name[0], 0)
            found = ask()
            with self._lock:
                # An answer to what was asked before something was made is none for who asks next.
                if self._forgotten.get(name[0], 0) == before:
                    self._known[name] = found
            return found

    def alone(self, *name: str) -> threading.RLock:
        """A lock for what two tasks at once must not both do."""
        return self.once(("alone", *name), threading.RLock)

    def forget(self, *names: str) -> None:
        """Lets what is known under these names be asked again: something has been made."""
        with self._lock:
            for name in names:
                self._forgotten[name] = self._forgotten.get(name, 0) + 1
            for known in [known for known in self._known if known[0] in names]:
                del self._known[known]
            self._known.update(
                {name: lock for name, lock in self._assumed.items() if name[0] in names}
            )

    # -- the engine -------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """The engine, found on first use. Raises `EnvironmentProblem` where there is none.

        That, too, is found out once: an engine that does not answer can take its time for it.
        """

        def ask() -> Engine | LadingError:
            try:
                return self._connect()
            except LadingError as error:
                return error

        found = self.once(("engine",), ask)
        if isinstance(found, LadingError):
            raise found
        return found

    def on(self, platform: str) -> State:
        """The same run, for another of the project's platforms."""
        for known in self._elsewhere:
            if known.project.platform == platform:
                return known
        made = _Elsewhere(self, platform)
        self._elsewhere.append(made)
        return made

    @property
    def everywhere(self) -> list[State]:
        """The run for each of the project's platforms, its own first."""
        return [self, *map(self.on, self.project.others)]

    def say_on(self, stream: IO[str]) -> None:
        """Says it there, what is said on the way: standard output is for the answer."""
        self.console.to(stream, self.environ)

    def told(
        self,
        *,
        frozen: bool,
        goals: Iterable[str],
        named: Iterable[str],
        involved: Iterable[str],
        only: Iterable[str] = (),
    ) -> None:
        """What this run is asked for, tasks by their names; for other platforms, theirs."""
        self.frozen, self.only = frozen, frozenset(only)
        self.goals, self.named, self.involved = map(frozenset, (goals, named, involved))
        for other in self._elsewhere:
            mine = (
                [name.removesuffix(other.at) for name in names if name.endswith(other.at)]
                for names in (self.goals, self.named, self.involved)
            )
            other.frozen, other.only = self.frozen, self.only
            other.goals, other.named, other.involved = map(frozenset, mine)

    def _connect_for_real(self) -> Engine:
        from lading import engines

        return engines.connect(self.environ, self.console.note)

    def close(self) -> None:
        """Lets go of the engine, and of the terminal."""
        self.console.close()
        with self._lock:
            starting = self._asking.get(("engine",))
        # One that another thread is just starting would be left behind; one that is silent is not
        # waited for.
        if starting is not None and starting.acquire(timeout=2):
            starting.release()
        with self._lock:
            engine = self._known.pop(("engine",), None)
            pool = self._known.pop(("builders",), None)
        if pool is not None:
            pool.close()
        if engine is not None and not isinstance(engine, LadingError):
            engine.close()

    def images_by_key(self) -> Mapping[str, str]:
        """The image IDs that the engine has, by key: one listing a run.

        Without those that a comparison was about to look at when it was killed.
        """
        return self.once(("images",), lambda: self.engine.images(KEY_LABEL, apart=AGAIN))

    def claim_image(self, key: str, name: str) -> None:
        """Writes down that the image of this key, by this name, is this project's doing."""
        self.store.claim(claims.IMAGE, [(key, name)])

    def in_engine(self, image: Image) -> bool:
        """Whether the engine has the image with today's key; no engine has none."""
        key = self.key(image)
        try:
            return key is not None and key in self.images_by_key()
        except LadingError:
            return False

    # -- other machines that build ----------------------------------------------------------

    @property
    def builders(self) -> Pool:
        """The builders that have been wanted in this run."""
        from lading.engines import hosts

        def ask() -> Pool:
            return hosts.Pool(lambda name: hosts.opened(name, self.environ), self.console.note)

        return self.once(("builders",), ask)

    def builders_of(self, image: Image) -> tuple[str, ...]:
        """Where an image is built, if not in this run's engine; any of them will do."""
        return image.builder or self.project.builder

    # -- the registry -----------------------------------------------------------------------

    def in_registry(self, image: Image) -> Answer | None:
        """What the registry has under the image's key; None also where there is no registry, or
        it can't be asked. All that a run may need is asked for at once.
        """
        if not self.project.registry:
            return None
        return self.once(("pushed",), self._pushed).get(f"image:{image.name}")

    def part_in_registry(self, part: Part) -> Answer | None:
        """What the registry has of something that is built by itself, likewise."""
        if not self.project.registry:
            return None
        return self.once(("pushed",), self._pushed).get(f"part:{part.key}")

    def not_in_registry(self, what: str) -> None:
        """Forgets what the registry said it had, and then did not give."""
        with self._lock:
            known = self._known.get(("pushed",), {})
            self._known["pushed",] = {name: known[name] for name in known if name != what}

    def now_in_registry(self, what: str, answer: Answer) -> None:
        """Remembers what was pushed, also for later runs: nothing else is asked for again."""
        self.store.claim(claims.PUSHED, [(answer.kept.key, answer.kept.content)])
        with self._lock:
            if ("pushed",) in self._known:  # else it is asked, and says so itself
                self._known["pushed",] = {**self._known["pushed",], what: answer}

    def _pushed(self) -> Mapping[str, Answer]:
        from lading.registry.asking import Wanted

        wanted: dict[str, Wanted] = {}
        for image in self.project.images.values():
            to_push = self.asked_for("push", image)
            if f"lock:{image.name}" not in self.involved:
                wanted.update(self._sources_alone(image))
                continue
            if self.archived(image) and not to_push:
                continue
            key = self._key_or_none(image)
            if key is None:
                continue
            where, tag = self.pushed_as(image)
            wanted[f"image:{image.name}"] = Wanted(
                repository=where, key=key, tag=tag if to_push else ""
            )
            for source in self.all_locked(image).sources:
                wanted[f"part:{source.part.key}"] = self._wanted_part(source.part)
        return self.ask_registry(wanted, self.console.note)

    def ask_registry(
        self, wanted: Mapping[str, Wanted], note: Callable[[str], None]
    ) -> dict[str, Answer]:
        """What the registry has of these, by the same names. What is not what this machine has
        pushed under its key, or found there first, is not believed, which is said by `note`.
        """
        from lading.registry.asking import ask

        answers = ask(wanted, self.environ, note)
        before = claims.pushed(self.store.root) if answers else {}
        new = []
        for name, answer in list(answers.items()):
            key, content = answer.kept.key, answer.kept.content
            if key not in before:
                new.append((key, content))
            elif content not in before[key]:
                del answers[name]
                where = f"{wanted[name].repository}:{key[:12]}"
                note(f"  {where} is not taken: this machine has seen other content under this key")
        if new:
            self.store.claim(claims.PUSHED, new)
        return answers

    def _sources_alone(self, image: Image) -> dict[str, Wanted]:
        """What of the image's sources is asked for although the image is not."""
        base, found = self.base_of(image), {}
        for source in self.sources_of(image) if image.source else ():
            if f"build:source:{source.name}@{base.name}" in self.involved:
                with suppress(LadingError):  # said by the task that needs it
                    made = self.compiled_on(source, base)
                    if made is not None:
                        found[f"part:{made.part.key}"] = self._wanted_part(made.part)
        return found

    def _wanted_part(self, part: Part) -> Wanted:
        from lading.registry.asking import Wanted

        return Wanted(repository=self.part_repository(part), key=part.key, product=True)

    def _key_or_none(self, image: Image) -> str | None:
        try:
            return self.key(image)
        except LadingError:
            return None  # said by the task that needs it

    def part_repository(self, part: Part) -> str:
        """Where in the registry is what one part's builds left: no image can be called so."""
        return f"{self.project.registry.rstrip('/')}/part/{part.plan.name}"

    # -- locks and keys ---------------------------------------------------------------------

    def base_of(self, image: Image) -> Base:
        return self.project.bases[image.base]

    def base_lock(self, base: Base) -> BaseLock | None:
        """The base's lock as it lies there, current or not."""

        def ask() -> BaseLock | None:
            return bases.read(bases.path(self.project.root, base.name, self.project.platform))

        return self.once(("base", base.name), ask)

    def kinds(self, image: Image) -> tuple[AnyKind, ...]:
        """The kinds of layers that the image has, in the order they are locked."""
        base = self.base_lock(self.base_of(image))
        return kinds.of(image, self.project, base.facts if base is not None else None)

    def lock_folder(self, image: Image) -> Path:
        return locks.folder(self.project.root, "images", image.name, self.project.platform)

    def layer_lock(self, image: Image, kind: AnyKind) -> Lock | None:
        """The lock of one layer of the image as it lies there, current or not."""

        def ask() -> Lock | None:
            folder = self.lock_folder(image)
            try:
                found: Lock | None = kind.read(folder)
            except LadingError as error:
                if kind.adopted(folder) is not None:
                    error.do = f"`doit lock:{image.name}{self.at}` takes its versions as pins"
                raise
            return found

        return self.once(("layer", image.name, kind.name), ask)

    def lock_or_pins(self, image: Image, kind: AnyKind) -> tuple[Lock | None, bool]:
        """The lock of one layer of the image, and whether it is no lock of lading's, but can be
        taken as pins. Raises `LadingError` where nothing can be made of it.
        """
        try:
            return self.layer_lock(image, kind), False
        except LadingError:
            found: Lock | None = kind.adopted(self.lock_folder(image))
            if found is None:
                raise
            return found, True

    def request(self, image: Image, kind: AnyKind) -> Request:
        """What the lock of one layer has to answer; what it stands on must be locked."""

        def ask() -> Request:
            found: Request = kind.request(self._subject(image, kind))
            return found

        return self.once(("request", image.name, kind.name), ask)

    def _subject(self, image: Image, kind: AnyKind) -> Subject:
        base = self.base_lock(self.base_of(image))
        if base is None:
            raise LadingError(
                f"the base {image.base} is not locked", do=f"doit lock:base:{image.base}{self.at}"
            )
        facts = base.facts
        below: dict[str, Lock] = {}
        for other in self.kinds(image):
            if other is kind:
                break
            lock = self.layer_lock(image, other)
            if lock is None:
                raise LadingError(
                    f"{image.name} is not locked yet", do=f"doit lock:{image.name}{self.at}"
                )
            below[other.name] = lock
            facts = other.facts(lock, facts)
        return Subject(project=self.project, image=image, base=base, facts=facts, locks=below)

    def locked(self, image: Image) -> Locked | None:
        """All locks of the image; None while one of them is missing."""

        def ask() -> Locked | None:
            base = self.base_lock(self.base_of(image))
            if base is None:
                return None
            layers: list[Layer] = []
            for kind in self.kinds(image):
                lock = self.layer_lock(image, kind)
                if lock is None:
                    return None
                layers.append(Layer(kind=kind, request=self.request(image, kind), lock=lock))
            compiled = self.compiled(image)
            if compiled is None:
                return None
            return Locked(base=base, layers=tuple(layers), sources=compiled)

        return self.once(("locked", image.name), ask)

    # -- sources ----------------------------------------------------------------------------

    def sources_of(self, image: Image) -> list[SourceBuild]:
        """The sources that an image has, each behind what it stands on."""
        return source_section.in_order(image.source, self.project.sources)

    def source_lock(self, source: SourceBuild) -> SourceLock | None:
        """The lock of a source's tarball as it lies there, current or not."""
        path = self.source_folder(source) / sources.FILE
        return self.once(("source", source.name), lambda: sources.read(path))

    def source_folder(self, source: SourceBuild) -> Path:
        return sources.folder(self.project.root, source.name, self.project.platform)

    def tools_request(self, source: SourceBuild, base: Base) -> apt.Request | None:
        """What a source is built with on a base; None where nothing is to be installed."""
        lock = self.base_lock(base)
        if lock is None:
            raise LadingError(
                f"the base {base.name} is not locked", do=f"doit lock:base:{base.name}{self.at}"
            )
        needs = source_section.in_order(source.needs, self.project.sources)
        return source_image.request(source, needs, lock, self.project.platform)

    def tools_file(self, source: SourceBuild, base: Base) -> Path:
        return self.source_folder(source) / f"apt-{base.name}.yaml"

    def tools_lock(self, source: SourceBuild, base: Base) -> AptLock | None:
        """The locked packages that a source is built with on a base."""

        def ask() -> AptLock | None:
            path = self.tools_file(source, base)
            text = locks.read(path)
            return None if text is None else apt.parse(text, str(path))

        return self.once(("source-tools", source.name, base.name), ask)

    def compiled(self, image: Image) -> tuple[Compiled, ...] | None:
        """How the image's sources are made on its base; None while one is not locked."""
        base = self.base_of(image)
        found: list[Compiled] = []
        for source in self.sources_of(image):
            one = self.compiled_on(source, base)
            if one is None:
                return None
            found.append(one)
        return tuple(found)

    def compiled_on(self, source: SourceBuild, base: Base) -> Compiled | None:
        """How one source is made on a base; None while it is not locked there."""

        def ask() -> Compiled | None:
            base_lock, lock = self.base_lock(base), self.source_lock(source)
            if base_lock is None or lock is None:
                return None
            tools = None
            if self.tools_request(source, base) is not None:
                tools = self.tools_lock(source, base)
                if tools is None:
                    return None
            start = Start(
                reference=bases.reference(base, base_lock),
                platform=self.project.platform,
                root=self.project.root,
                epoch=base_lock.header.epoch,
                user=base_lock.facts.user,
            )
            for below in source_section.in_order(source.needs, self.project.sources):
                needed = self.compiled_on(below, base)
                if needed is None:
                    return None
                start = start.with_tools(needed.contribution())
            return source_image.compiled(source, lock, tools, start, base.name)

        return self.once(("compiled", source.name, base.name), ask)

    def all_locked(self, image: Image) -> Locked:
        """All locks of the image. Raises `LadingError` while one is missing."""
        found = self.locked(image)
        if found is None:
            raise LadingError(
                f"{image.name} is not locked yet", do=f"doit lock:{image.name}{self.at}, then again"
            )
        return found

    def plan(self, image: Image) -> Plan:
        """What the image is built from."""
        return self.once(
            ("plan", image.name),
            lambda: compose.plan(self.project, image, self.all_locked(image)),
        )

    def artifacts(self, image: Image) -> tuple[Artifact, ...]:
        """What has to be fetched to make the image. Raises `LadingError` while it is not locked."""
        return self.once(
            ("artifacts", image.name),
            lambda: compose.artifacts(self.all_locked(image), self.plan(image)),
        )

    def key(self, image: Image) -> str | None:
        """The image's key; None while it is not locked."""

        def ask() -> str | None:
            found = self.locked(image)
            if found is None:
                return None
            project = self.project
            return keys.key_of(self.plan(image), found.texts, project.platform, project.root)

        return self.once(("key", image.name), ask)

    def name(self, image: Image) -> str:
        """What the image is called: [REGISTRY/]NAME:VERSION."""
        return compose.name(self.project, image, self.all_locked(image))

    def pushed_as(self, image: Image) -> tuple[str, str]:
        """Where in the registry the image is, and its tag: each platform of several has one."""
        where, _, tag = self.name(image).rpartition(":")
        return where, f"{tag}-{dashed(self.project.platform)}" if self.project.others else tag

    def locks_changed(self) -> None:
        """To be called when a lock was written: what follows from locks is worked out anew."""
        self.forget("base", "layer", "request", "locked", "plan", "key", "located", "archived")
        self.forget("pushed")
        self.forget("artifacts", "source", "source-tools", "compiled")

    def assume(self, name: tuple[str, ...], lock: Lock | BaseLock | SourceLock) -> None:
        """Takes a lock for the one that lies there, although it is not written (yet): what stands
        on it is worked out as if it were. `name` is what it is remembered by.
        """
        with self._lock:
            self._assumed[name] = lock
            self.locks_changed()

    def assume_nothing(self) -> None:
        """What lies there counts again."""
        with self._lock:
            self._assumed.clear()
            self.locks_changed()

    # -- where things lie -------------------------------------------------------------------

    at = ""
    """What the names of tasks and files end with that are for another platform."""

    def tag(self, image: Image) -> str:
        """What the engine calls the image: of two platforms each has a name of its own there."""
        return self.name(image)

    def build_folder(self, image: Image) -> Path:
        return self.project.root / "build" / f"{image.name}{self.at}"

    def context(self, image: Image) -> Path:
        return self.build_folder(image) / "context"

    def check_file(self, image: Image) -> Path:
        return self.project.root / f"build/{image.name}{self.at}/check.json"

    def candidate(self, image: Image) -> Path:
        return self.build_folder(image) / "candidate.tar"

    def archive(self, image: Image) -> Path:
        return self.project.root / f"dist/{image.name}{self.at}.tar"

    def record(self, image: Image) -> Path:
        return self.project.root / f"dist/{image.name}{self.at}.json"

    # -- what is up to date -----------------------------------------------------------------

    def archived(self, image: Image) -> bool:
        """Whether `dist/` has the archive of today's key; no engine is asked."""

        def ask() -> bool:
            key = self.key(image)
            return key is not None and archive.current(self.archive(image), self.record(image), key)

        return self.once(("archived", image.name), ask)

    def asked_for(self, verb: str, image: Image) -> bool:
        """Whether this was asked for by name, and is not just on the way to something else."""
        return f"{verb}:{image.name}" in self.goals

    def exists(self, image: Image) -> bool:
        """Whether the image with today's key is somewhere, so that nothing before it is needed.

        One with a lock that can't be read is nowhere: what it stands on is asked for as ever.
        """
        if self._key_or_none(image) is None:
            return False
        # A fresh runner's engine has nothing, and takes seconds to say so.
        if self.frozen or self.asked_for("push", image):
            return self.archived(image) or bool(self.in_registry(image)) or self.in_engine(image)
        return self.archived(image) or self.in_engine(image) or bool(self.in_registry(image))


class _Elsewhere(State):
    """A run as it concerns another platform: it has locks, keys and files of its own, and shares
    the engine, and what was asked for.
    """

    def __init__(self, run: State, platform: str) -> None:
        super().__init__(
            replace(run.project, platform=platform, others=(run.project.platform,)),
            environ=run.environ,
            console=run.console,
            connect=lambda: run.engine,
        )
        self._run = run
        self.at = f"@{dashed(platform)}"

    def tag(self, image: Image) -> str:
        return f"localhost/lading/{self.at[1:]}/{self.name(image)}"

    @property
    def everywhere(self) -> list[State]:
        return self._run.everywhere

    @property
    def builders(self) -> Pool:
        return self._run.builders

    def images_by_key(self) -> Mapping[str, str]:
        return self._run.images_by_key()

    def forget(self, *names: str) -> None:
        super().forget(*names)
        if "images" in names:
            self._run.forget("images")
