"""Between doit and the verbs: what dodo.py makes its tasks with, and what doit calls back.

A task is up to date when its verb says so; doit's own database only remembers that it ran.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from inspect import Signature
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeAlias

from doit.action import BaseAction
from doit.exceptions import BaseFail, InvalidDodoFile, TaskError, TaskFailed
from doit.task import Task, dict_to_task

from lading.annotations import annotate
from lading.errors import LadingError
from lading.files import of_the_disk, write_text
from lading.net import redact
from lading.project import Image, load
from lading.state import State
from lading.verbs import source
from lading.verbs.source import OnBase

Entry: TypeAlias = dict[str, Any] | Any  # a doit Task, which has no types

OF_LOCKS = ("lock", "upgrade")
"""The verbs that change locks, of which every machine makes those for all platforms."""


class Work(BaseAction):  # type: ignore[misc]
    """An action that calls Python and leaves sys.stdout alone, so that threads can share it.

    Its result is what the console says of it; an error becomes doit's own failure.
    """

    def __init__(self, do: Callable[[], str], root: Path) -> None:
        self.do = do
        self.root = root
        self.task: Task | None = None
        self.out = self.err = ""
        self.result: dict[str, Any] | None = None
        self.values: dict[str, Any] = {}

    def execute(self, out: object = None, err: object = None) -> BaseFail | None:
        """None when it was done; else the failure, which holds the error and the seconds."""
        start = time.monotonic()
        try:
            what = self.do()
        except LadingError as error:
            return self._failure(error, start)
        except Exception as error:
            # What writes files by itself: a log, a temporary folder, a library.
            if isinstance(error, OSError) and (problem := of_the_disk(error)) is not None:
                return self._failure(problem, start)
            log = self.root / "build" / "unexpected-error.log"
            with suppress(OSError, LadingError):
                write_text(log, redact(traceback.format_exc()))
            unexpected = LadingError(
                redact(f"an error that lading does not know: {type(error).__name__}: {error}"),
                do=f"please report it with build/{log.name}",
            )
            return self._failure(unexpected, start)
        self.result = {"what": what, "seconds": time.monotonic() - start}
        return None

    def _failure(self, error: LadingError, start: float) -> BaseFail:
        verb, _, name = self.task.name.partition(":") if self.task is not None else ("", "", "")
        hint = f"; `doit shell {name}` opens a shell where it stopped"
        # What is built once more to be compared was built before: it stops nowhere.
        if "RUN " in getattr(error, "step", "") and verb != "verify" and hint not in error.do:
            error.do += hint
        failure: BaseFail = (TaskError if error.exit_code == 2 else TaskFailed)(str(error))
        failure.lading = error
        failure.seconds = time.monotonic() - start
        return failure

    def __str__(self) -> str:
        return "lading"


P = ParamSpec("P")


def _on_every_platform(
    method: Callable[Concatenate[Pipeline, P], Iterator[Entry]],
) -> Callable[Concatenate[Pipeline, P], Iterator[Entry]]:
    """The tasks for this run's own platform, and then those for the project's others."""

    def every(self: Pipeline, /, *args: P.args, **options: P.kwargs) -> Iterator[Entry]:
        yield from method(self, *args, **options)
        for other in self.others:
            yield from method(other, *args, **options)

    return every


class Pipeline:
    """The tasks of a project's bases and images, a verb at a time.

    Those for another platform than this run's own end in @ and its name; of these only what is
    done to locks is in its group, the rest is made when it is named.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        # One of those has no others: this one has.
        others = () if state.at else state.project.others
        self.others = [Pipeline(state.on(platform)) for platform in others]

    @_on_every_platform
    def bases(
        self,
        verb: str,
        *,
        make: Callable[[State, Any], str],
        current: Callable[[State, Any], bool],
        clean: Callable[[State, Any], None] | None = None,
        after: Sequence[str] = (),
    ) -> Iterator[Entry]:
        """VERB:base:NAME for every base; in the group VERB if a default image stands on it."""
        images = self.state.project.images.values()
        used = {image.base for image in images if image.default}
        for base in self.state.project.bases.values():
            names = {"name": f"base:{base.name}", "base": base.name}
            kind = f"Debian {base.debian.suite}" if base.debian else f"{base.image}"
            # An image moves its base along. Where that can't be done here for another platform,
            # what can be done for this one has been done before.
            in_group = base.name in used and not (verb == "upgrade" and self.state.at)
            yield self._task(
                verb, names, base, in_group, make, current, clean, after,
                doc=f"the base {base.name}: {kind}",
            )  # fmt: skip

    @_on_every_platform
    def sources(
        self,
        *,
        make: Callable[[State, Any], str],
        current: Callable[[State, Any], bool],
    ) -> Iterator[Entry]:
        """lock:source:NAME for every source that an image has."""
        found: dict[str, list[OnBase]] = {}
        for one in source.on_bases(self.state.project):
            found.setdefault(one.source.name, []).append(one)
        for name, on in found.items():
            yield self._task(
                "lock", {"name": f"source:{name}"}, on[0].source, any(x.default for x in on),
                make, current, None, [f"lock:base:{x.base.name}" for x in on],
                doc=f"the source {name} {on[0].source.version}",
            )  # fmt: skip

    @_on_every_platform
    def compiled(
        self,
        verb: str = "build",
        *,
        make: Callable[[State, Any], str],
        current: Callable[[State, Any], bool],
        clean: Callable[[State, Any], None] | None = None,
    ) -> Iterator[Entry]:
        """VERB:source:NAME@BASE for every source, on each base that an image wants it on: built, or
        what comes behind that.
        """
        for one in source.on_bases(self.state.project):
            base, needs = one.base.name, one.source.needs
            name = f"source:{one.source.name}@{base}"
            after = [f"lock:source:{one.source.name}", f"build:base:{base}"]
            after += [f"build:source:{name}@{base}" for name in needs]
            task: Any = self._task(
                verb, {"name": name}, one, False,
                make, current, clean, after if verb == "build" else [f"build:{name}"],
                doc=f"{one.source.name} {one.source.version}, compiled on {base}",
            )  # fmt: skip
            if one.default and not self.state.at and verb == "build":
                # What takes so long stands in `doit list` by itself; images bring it along.
                task.subtask_of = None
            yield task

    @_on_every_platform
    def images(
        self,
        verb: str,
        module: Any,
        after: Sequence[str] = (),
        of_sources: Sequence[str] = (),
        section: str = "",
    ) -> Iterator[Entry]:
        """VERB:NAME for every image; in the group VERB unless it says `default: false`.

        of_sources: what comes before for each of the image's sources. section: the layer that an
        image has to have for it.
        """
        every = self.state.project.images.values()
        images = [image for image in every if not section or getattr(image, section) is not None]
        if not any(image.default for image in images) and not self.state.at:
            # doit makes a group of what is in it; this one is empty, and there all the same.
            about = module.__doc__.partition(": ")[2].splitlines()[0].rstrip(".")
            yield Task(verb, None, doc=about, has_subtask=True)
        for image in images:
            names = {"name": image.name, "base": image.base}
            compiled = [
                task.format(source=one.name, base=image.base)
                for task in of_sources
                for one in self.state.sources_of(image)
            ]
            clean = getattr(module, "clean", None)
            yield self._task(
                verb, names, image, image.default, module.make, module.current, clean,
                [*after, *compiled],
                doc=image.description or f"the image {image.name}, on {image.base}",
            )  # fmt: skip
        yield from variants_of(verb, images, self.state)

    def _task(
        self,
        verb: str,
        names: dict[str, str],
        thing: Any,
        in_group: bool,
        make: Callable[[State, Any], str],
        current: Callable[[State, Any], bool],
        clean: Callable[[State, Any], None] | None,
        after: Sequence[str],
        doc: str,
    ) -> Entry:
        state = self.state
        name = f"{names['name']}{state.at}"
        task: dict[str, Any] = {
            "name": name,
            "doc": doc,
            "actions": [Work(lambda: make(state, thing), state.project.root)],
            "uptodate": [_UpToDate(current, state, thing)],
            "task_dep": [one.format(**names) + state.at for one in after],
        }
        if clean is not None:
            task["clean"] = [_Clean(clean, state, thing)]
        if in_group and (not state.at or verb in OF_LOCKS):
            return task
        # Hidden from `doit list` like any subtask, but not one of its group: made when named.
        alone = dict_to_task({**task, "name": f"{verb}:{name}"})
        alone.subtask_of = verb
        return alone


def variants_of(verb: str, images: Sequence[Image], state: State) -> Iterator[Task]:
    """VERB:NAME for every matrix: all its variants, made when it is named."""
    groups: dict[str, list[str]] = {}
    for image in images:
        if image.variant_of and image.variant_of not in state.project.images:
            groups.setdefault(image.variant_of, []).append(f"{verb}:{image.name}{state.at}")
    for of, names in groups.items():
        about = f"all {len(names)} variants of {of}"
        task = Task(f"{verb}:{of}{state.at}", None, task_dep=names, doc=about, has_subtask=True)
        task.subtask_of = verb
        yield task


class _UpToDate:
    """What doit asks whether there is nothing to do."""

    __signature__ = Signature()
    """doit wants to know it of each task; worked out by inspect it takes longer than the rest."""

    def __init__(self, current: Callable[[State, Any], bool], state: State, thing: Any) -> None:
        self.current, self.state, self.thing = current, state, thing

    def __call__(self) -> bool:
        try:
            return self.current(self.state, self.thing)
        except LadingError:
            # What is wrong is said by the task itself, when it runs.
            return False


class _Clean(BaseAction):  # type: ignore[misc]
    """What `doit clean` does: an engine that is not there has nothing to clean."""

    def __init__(self, clean: Callable[[State, Any], None], state: State, thing: Any) -> None:
        self.clean, self.state, self.thing = clean, state, thing

    def execute(self, out: object = None, err: object = None) -> None:
        """Never a failure: what can't be cleaned is said."""
        try:
            self.clean(self.state, self.thing)
        except LadingError as error:
            self.state.console.note(f"not cleaned: {error}")

    def __str__(self) -> str:
        return "clean"


_state: State | None = None


def open_project(path: str = "project.yaml") -> Pipeline:
    """The project of this folder. A problem in it ends doit with exit code 3, as doit reports."""
    global _state
    file = Path(path).absolute()
    try:
        _state = State(load(file))
    except LadingError as error:
        annotate(error, file.parent.resolve())
        raise InvalidDodoFile(str(error)) from None
    return Pipeline(_state)


def opened() -> State | None:
    """The state of the project that dodo.py opened, for doit's commands."""
    return _state
