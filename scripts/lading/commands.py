"""doit's own commands, as lading has them: a lock around a run, suggestions, a clean end."""

from __future__ import annotations

import gc
import io
import json
import os
import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

from doit import doit_cmd
from doit.cmd_base import DoitCmdBase
from doit.cmd_clean import Clean as DoitClean
from doit.cmd_dumpdb import DumpDB as DoitDumpDB
from doit.cmd_forget import Forget as DoitForget
from doit.cmd_ignore import Ignore as DoitIgnore
from doit.cmd_info import Info as DoitInfo
from doit.cmd_list import List as DoitList
from doit.cmd_run import Run as DoitRun
from doit.exceptions import BaseFail, InvalidCommand, UnmetDependency
from doit.runner import MThreadRunner
from doit.task import Task

from lading import claims, files, process, tasks, together
from lading.annotations import annotate
from lading.console import unread
from lading.errors import EnvironmentProblem, LadingError
from lading.names import fitting, meant
from lading.state import State

LOCK = ".lading.lock"


class Reporter:
    """What doit says of a run: a line a task that did something, and one when nothing had to."""

    desc = "one line a task, as lading has it"

    def __init__(self, outstream: Any, options: object) -> None:
        self.state = tasks.opened()
        self.start = time.monotonic()
        self.began = False
        self.codes: list[int] = []
        self.up_to_date = 0
        self.first = ""
        """What is to be said before the first task that does something."""

    def initialize(self, tasks: object, selected_tasks: object) -> None: ...

    def get_status(self, task: Task) -> None: ...

    def execute_task(self, task: Task) -> None:
        self.began = self.began or bool(task.actions)
        if self.began and self.first:
            text, self.first = self.first, ""
            self._note(text)

    def skip_uptodate(self, task: Task) -> None:
        self.up_to_date += bool(task.actions)

    def skip_ignore(self, task: Task) -> None:
        self._note(f"ignored: {task.name} (`doit forget {task.name}` ends that)")

    def teardown_task(self, task: Task) -> None: ...

    def add_success(self, task: Task) -> None:
        result = task.result
        if isinstance(result, dict) and self.state is not None:
            verb, _, name = task.name.partition(":")
            self.state.console.done(verb, name, result["seconds"], result["what"])

    def add_failure(self, task: Task, fail: BaseFail) -> None:
        if isinstance(fail, UnmetDependency):
            if task.actions:
                self._note(f"left out: {task.name}, which stands on what failed")
            return
        error = getattr(fail, "lading", None)
        self.codes.append(error.exit_code if error is not None else 1)
        if not fail.report or self.state is None:
            return
        verb, _, name = task.name.partition(":")
        text = str(error) if error is not None else fail.get_msg()
        self.state.console.failed(verb, name, getattr(fail, "seconds", 0.0), text)
        project = self.state.project
        image = project.images.get(name.partition("@")[0])
        line = image.line if image is not None else 0
        annotate(text, project.root, title=f"{verb} {name}", line=line)

    def cleanup_error(self, exception: BaseFail) -> None:
        self._note(exception.get_msg())

    def runtime_error(self, msg: str) -> None:
        self._note(msg)

    def complete_run(self) -> None:
        if self.codes or self.began or self.state is None:
            return
        seconds = time.monotonic() - self.start
        self._note(f"nothing to do: {self.up_to_date} tasks are up to date ({seconds:.2f} s)")

    def _note(self, text: str) -> None:
        if self.state is not None:
            self.state.console.note(text)


class Run(DoitRun):  # type: ignore[misc]
    """`doit [TASK …]`: takes turns with other runs in the project, and ends cleanly on SIGTERM."""

    def execute(self, params: Any, args: list[str]) -> int:
        """The exit code: 0 done, 1 a task failed, 2 the environment, 3 a declaration."""
        with guarded() as ended:
            ended.code = super().execute(params, args)
        if self.idle:
            end_here(ended.code)
        return ended.code

    idle = False
    """Whether all was up to date, and nothing has been done."""

    @wraps(DoitRun._execute)  # doit reads the names of the options from the signature
    def _execute(self, outfile: Any, **options: Any) -> int:
        state = tasks.opened()
        if state is None:
            return int(super()._execute(outfile, **options))
        known = {task.name: task for task in self.task_list}
        check_names(self.sel_tasks, known)
        if options.get("num_process", 0) < 0:
            raise InvalidCommand(f"-n is how many at once: not {options['num_process']}")
        goals = frozenset(_goals(self.sel_tasks, known))
        state.told(
            frozen=frozen(state),
            only=filter(None, (doit_cmd.get_var("package") or "").split(",")),
            goals=goals,
            named=_named(self.sel_tasks, known),
            involved=_closure(goals, known),
        )
        mine = None
        if options.get("reporter") == "console":
            options["reporter"] = mine = Reporter(outfile, {})
        if options.get("num_process", 0) > 1:
            from lading import room

            root, builders = state.project.root, state.project.builder
            fits, why = room.side_by_side(options["num_process"], root, state.environ, builders)
            options["num_process"] = fits
            MThreadRunner.Queue = staticmethod(Attentive)
            if mine is not None:
                mine.first = why
        with _said_in(outfile, state if mine is not None else None) as out, turn(state):
            clear_leftovers(state.project.root)
            if state.only:
                from lading.verbs import upgrade

                upgrade.refuse_unknown(state)
            code = int(super()._execute(out, **options))
        self.idle = mine is not None and not mine.began and not mine.codes
        return max(mine.codes, default=code) if mine is not None and code else code


@contextmanager
def _said_in(outfile: Any, state: State | None) -> Iterator[Any]:
    """Where doit's reporter writes: the console, or a file by its name (`doit -o FILE`), which the
    console of `state` then writes to.
    """
    if state is None or not isinstance(outfile, str):
        yield outfile
        return
    before = state.console.stream
    with Path(outfile).open("w", encoding="utf-8") as file:
        state.console.to(file, state.environ)
        try:
            yield file
        finally:
            state.console.to(before, state.environ)


class Guarded(DoitCmdBase):  # type: ignore[misc]
    """A command that ends without a traceback, and lets go of the engine."""

    def execute(self, params: Any, args: list[str]) -> int:
        """The exit code."""
        with guarded() as ended:
            ended.code = super().execute(params, args) or 0
        return ended.code


class Clean(Guarded, DoitClean):  # type: ignore[misc]
    """`doit clean`: waits for its turn too, and lets go of the engine."""

    @wraps(DoitClean._execute)
    def _execute(self, *args: Any, **options: Any) -> int:
        state = tasks.opened()
        if state is None:
            return int(super()._execute(*args, **options) or 0)
        check_names(options.get("pos_args") or [], {task.name: task for task in self.task_list})
        with turn(state):
            return int(super()._execute(*args, **options) or 0)

    def clean_tasks(self, tasks: list[Task], dryrun: bool, cleanforget: bool) -> None:
        """Says in a line each what is cleaned, or would be; doit itself would show objects."""
        for task in {task.name: task for task in tasks}.values():
            if task.clean_actions:
                self.outstream.write(f"{'would clean' if dryrun else 'clean'}  {task.name}\n")
                task.clean(io.StringIO(), dryrun)
            if cleanforget and not dryrun:
                self.dep_manager.remove(task.name)
        self.dep_manager.close()


class List(Guarded, DoitList):  # type: ignore[misc]
    """`doit list`: with `--status`, a group is up to date when all in it is."""

    @wraps(DoitList._execute)
    def _execute(self, *args: Any, **options: Any) -> int:
        check_names(options.get("pos_args") or [], {task.name: task for task in self.task_list})
        return int(super()._execute(*args, **options) or 0)

    def _print_task(
        self, template: str, task: Task, status: bool, list_deps: bool, tasks: dict[str, Task]
    ) -> None:
        if not (status and task.has_subtask):
            super()._print_task(template, task, status, list_deps, tasks)
            return
        found = {self.dep_manager.get_status(tasks[name], tasks).status for name in task.task_dep}
        letter = self.STATUS_MAP["up-to-date" if found <= {"up-to-date"} else "run"]
        self.outstream.write(template.format(name=task.name, doc=task.doc, status=letter))


class Info(Guarded, DoitInfo):  # type: ignore[misc]
    """`doit info TASK`: in words, and without a traceback for a name that does not exist."""

    @wraps(DoitInfo._execute)
    def _execute(self, *args: Any, **options: Any) -> int:
        check_names(options.get("pos_args") or [], {task.name: task for task in self.task_list})
        return int(super()._execute(*args, **options) or 0)

    @staticmethod
    def get_reasons(reasons: Any) -> str:
        """Why a task has to run; doit itself would show functions and their addresses."""
        return " * what it makes is not there, or is not what today's inputs would make"


class Forget(Guarded, DoitForget):  # type: ignore[misc]
    """`doit forget`: with suggestions for a name that does not exist."""

    @wraps(DoitForget._execute)
    def _execute(self, *args: Any, **options: Any) -> int:
        check_names(self.sel_tasks or (), {task.name: task for task in self.task_list})
        return int(super()._execute(*args, **options) or 0) or _unwritten(self.dep_manager)


class Ignore(Guarded, DoitIgnore):  # type: ignore[misc]
    """`doit ignore`: with suggestions for a name that does not exist."""

    @wraps(DoitIgnore._execute)
    def _execute(self, *args: Any, **options: Any) -> int:
        check_names(options.get("pos_args") or (), {task.name: task for task in self.task_list})
        return int(super()._execute(*args, **options) or 0) or _unwritten(self.dep_manager)


def _unwritten(dep_manager: Any) -> int:
    """The exit code of what does nothing but write into doit's database."""
    return EnvironmentProblem.exit_code if getattr(dep_manager.backend, "unwritten", "") else 0


class DumpDB(DoitDumpDB):  # type: ignore[misc]
    """`doit dumpdb`: what doit remembers; its own reads other kinds of files than this one."""

    def execute(self, params: Any, args: list[str]) -> int:
        """0; 3 where doit has not run yet."""
        from doit.dependency import JSONCodec

        from lading.database import Database

        path = params["dep_file"]
        if not Path(path).is_file():
            raise InvalidCommand(f"there is no {path}: nothing has been run here yet")
        with guarded() as ended:
            for name, known in sorted(Database(path, JSONCodec()).rows().items()):
                sys.stdout.write(f"{name} -> {json.dumps(known, sort_keys=True)}\n")
        return ended.code


class Shell(Guarded):
    """`doit shell NAME`: a shell in an image, or where its build stops."""

    doc_purpose = "open a shell in an image, or where a build stops"
    doc_usage = "NAME | source:NAME[@BASE]"
    doc_description = (
        "An image that is not there is built. Where a build fails, of an image or a compiled\n"
        "source, the shell is in what the steps before have made, with the files that the failed\n"
        "step is lent. Nothing done in it stays. Its exit code is the shell's; commands can be\n"
        "piped into it. Without a name: what there is to look into."
    )
    cmd_options = ()

    def _execute(self, pos_args: list[str]) -> int:
        from lading.verbs import shell

        state = tasks.opened()
        if state is None:
            raise InvalidCommand("there is no project here")
        known = shell.names(state)
        if not pos_args:
            self.outstream.write("".join(f"{name}\n" for name in known))
            return 0
        if len(pos_args) > 1:
            raise InvalidCommand("one shell at a time: `doit shell NAME`")
        if pos_args[0] not in known:
            raise InvalidCommand(
                f"there is nothing called '{pos_args[0]}'{meant(pos_args[0], known)}"
            )
        # Standard output is the shell's own.
        state.say_on(sys.stderr)
        with turn(state):
            clear_leftovers(state.project.root)
            place = shell.opened(state, pos_args[0])
        return shell.run(state, place)


class Ended:
    """How a command ended: its exit code."""

    code = 0


class Attentive(queue.Queue[Any]):
    """A queue whose reader is not deaf to signals.

    One that comes just before the main thread begins to wait, or comes to another thread, is heard
    by Python when the wait ends: of a build, in hours.
    """

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """As of any queue."""
        if not block or timeout is not None:
            return super().get(block, timeout)
        while True:
            with suppress(queue.Empty):
                return super().get(timeout=1)


@contextmanager
def guarded() -> Iterator[Ended]:
    """SIGTERM ends a command as Ctrl-C does, so that doit keeps what it did; no traceback."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
    ended = Ended()
    # Tasks by the thousand, and hardly any garbage: Python's own 700 costs a fifth of the time.
    gc.set_threshold(100_000)
    try:
        yield ended
    except KeyboardInterrupt:
        _unheard(before)
        sys.stderr.write("stopped; what was done stays done, the rest is for the next run\n")
        process.end_all()
        ended.code = 130
    except LadingError as error:
        sys.stderr.write(f"ERROR: {error}\n")
        annotate(error, Path.cwd())
        ended.code = error.exit_code
    except BrokenPipeError:
        unread(sys.stdout)
    except OSError as error:
        sys.stderr.write(f"ERROR: {error}\n")
        ended.code = EnvironmentProblem.exit_code
    finally:
        _unheard(before)
        state = tasks.opened()
        if state is not None:
            state.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def end_here(code: int) -> None:
    """Ends the process, if it is doit's own: for Python to take thousands of tasks apart again is a
    tenth of a run in which nothing is to do.
    """
    if Path(sys.argv[0]).name == "doit" and threading.active_count() == 1:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _unheard(numbers: Iterable[signal.Signals]) -> None:
    """A second signal (`timeout` and schedulers send two) must not disturb the end of a run."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def frozen(state: State) -> bool:
    """Whether locks must not change: `doit frozen=1`, or CI; `frozen=0` overrules CI."""
    said = doit_cmd.get_var("frozen")
    return state.frozen if said is None else said.lower() not in ("", "0", "no", "false")


@contextmanager
def turn(state: State) -> Iterator[None]:
    """Two runs in one project take turns; who waits is told for whom."""
    holder = f"process {os.getpid()}: doit {' '.join(sys.argv[1:])}".rstrip()

    def waiting(who: str) -> None:
        state.console.note(f"waiting for another run in this project ({who})")

    with files.locked(state.project.root / LOCK, holder, waiting):
        together.settle(state.project.root)
        claims.register(state.store.root, state.project.root)
        yield


LEFTOVERS = {
    "dist": 2,
    "build": 2,
    "build/parts": 2,
    "locks/images": 5,
    "locks/bases": 3,
    "locks/sources": 3,
}
"""Where what is not whole yet is written, and how many levels deep that can be."""


def clear_leftovers(root: Path) -> None:
    """Removes what a run that was killed had not finished; nobody else is running."""
    for folder, levels in LEFTOVERS.items():
        _clear(f"{root}/{folder}", levels)


def _clear(folder: str, levels: int) -> None:
    for entry in _inside(folder):
        if entry.name.startswith(".") and entry.name.endswith(files.PART):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink(missing_ok=True)
        elif levels > 1 and entry.is_dir():
            _clear(entry.path, levels - 1)


def _inside(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder. By pathlib's glob it takes longer than all else at the beginning."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []


def check_names(selected: Iterable[str], known: dict[str, Task]) -> None:
    """Raises doit's own error for a name that is no task, or a pattern that none fits, with what
    may have been meant.
    """
    for name in selected:
        if name.startswith("-") or fitting(name, known):
            continue
        hint = meant(name, known) or "; `doit list --all` shows all"
        said = f"no task fits '{name}'" if "*" in name else f"there is no task '{name}'"
        raise InvalidCommand(f"{said}{hint}")


def _named(selected: Iterable[str], known: dict[str, Task]) -> Iterator[str]:
    """The tasks asked for by name, or by a pattern."""
    for name in selected:
        yield from fitting(name, known)


def _goals(selected: Iterable[str], known: dict[str, Task]) -> Iterator[str]:
    """The tasks asked for by name, groups as what is in them."""
    for name in _named(selected, known):
        yield name
        task = known.get(name)
        if task is not None and task.has_subtask:
            # In a group of a matrix's variants, which is no group of doit's, is nothing else.
            every = task.subtask_of is not None
            yield from (sub for sub in task.task_dep if every or known[sub].subtask_of == name)


def _closure(names: Iterable[str], known: dict[str, Task]) -> set[str]:
    """These tasks and all they stand on."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found and name in known:
            found.add(name)
            waiting += known[name].task_dep
    return found
