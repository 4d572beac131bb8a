"""`doit prune`: what would go, as a table; with --force, it goes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lading import claims, files, pruning
from lading.asking import Asking
from lading.commands import LOCK, clear_leftovers, turn
from lading.console import counted, size
from lading.errors import EnvironmentProblem
from lading.pruning import Thing
from lading.state import State

WIDTH = 80
KINDS = ("image", "base", "build", "context", "archive", "artifact", "derived", "half")
"""In the order in which they are shown."""


class Prune(Asking):
    """`doit prune [--force] [--all]`."""

    doc_purpose = "show which images, contexts and downloads no lock names; --force removes them"
    doc_usage = "[--force] [--all]"
    doc_description = (
        "Of what this project made, all that neither its own locks name today nor those of\n"
        "another project that uses the same store: images and bases in the engine, contexts,\n"
        "artifacts and what was compiled or assembled of them in the store, downloads that were\n"
        "cut off more than a day ago. Nothing goes without --force. What a container stands on\n"
        "is left, and said. Archives, SIFs and locks stay."
    )
    cmd_options = (
        {
            "name": "force",
            "long": "force",
            "type": bool,
            "default": False,
            "help": "remove what is shown without it",
        },
        {
            "name": "every",
            "long": "all",
            "short": "a",
            "type": bool,
            "default": False,
            "help": "also what is in the store of projects that are gone, or of nobody knows whom",
        },
    )

    def _execute(self, force: bool, every: bool) -> int:
        from lading.verbs import prune

        state = self.opened()
        state.say_on(sys.stderr)
        with turn(state):
            clear_leftovers(state.project.root)
            if not force:
                outlook = prune.found(state, every=every)
                self._say(table(outlook.things), outlook.left, outlook.notes)
                self.outstream.write(f"{self._advice(outlook.things, outlook.unclaimed)}\n")
                return 0
            with kept_out(state) as busy:
                outlook = prune.found(state, every=every, busy=busy)
                room = _room(outlook.things)
                done = prune.remove(state, outlook.things)
            self._say(table(done.gone), (*outlook.left, *done.left), outlook.notes)
            count = counted(len(done.gone), "thing")
            # What could not go has its part in the room that there would have been.
            self.outstream.write(f"removed: {count}{'' if done.left else f', {room}'}\n")
            return done.code

    def _say(self, table: str, left: Sequence[str], notes: Sequence[str]) -> None:
        self.outstream.write(table)
        for text in left:
            self.outstream.write(f"left: {text}\n")
        for text in notes:
            self.outstream.write(f"{text}\n")

    def _advice(self, things: Sequence[Thing], unclaimed: int) -> str:
        more = f"; --all would find {size(unclaimed)} more in the store" if unclaimed else ""
        if not things:
            return f"nothing to prune{more}"
        count = counted(len(things), "thing")
        return f"{count}, {_room(things)}; `doit prune --force` removes this{more}"


def _room(things: Sequence[Thing]) -> str:
    at_most = "at most " if any(thing.image is not None for thing in things) else ""
    return f"{at_most}{size(pruning.freed(things))}"


def table(things: Sequence[Thing]) -> str:
    """A line each, by kind, the largest first: kind, name, size, since when."""
    order = sorted(things, key=lambda one: (KINDS.index(one.kind), -one.size, one.name))
    lines = []
    for thing in order:
        day = time.strftime("%Y-%m-%d", time.localtime(thing.since)) if thing.since else ""
        lines.append(f"{thing.kind:<10}{thing.name:<48} {size(thing.size):>8}  {day}".rstrip())
    return "".join(f"{line}\n" for line in lines)


@contextmanager
def kept_out(state: State) -> Iterator[list[Path]]:
    """While things go, no run begins in the other projects that use the store; those in which one
    is under way.
    """
    busy: list[Path] = []
    with ExitStack() as held:
        for folder in pruning.others(claims.read(state.store.root), state.project.root):
            if not (folder / LOCK).exists():
                continue
            holder = f"process {os.getpid()}: doit prune in {state.project.root}"
            try:
                held.enter_context(files.locked(folder / LOCK, holder, wait=False))
            except BlockingIOError:
                busy.append(folder)
            except (OSError, EnvironmentProblem):
                continue  # who can't write there can't run there either
        yield busy
