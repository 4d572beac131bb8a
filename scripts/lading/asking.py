"""What lading's own commands for doit share that only ask, and make nothing."""

from __future__ import annotations

import getopt
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from doit.exceptions import InvalidCommand

from lading import tasks
from lading.commands import Guarded
from lading.names import Here, images_of, meant
from lading.state import State


def chosen(states: Sequence[State], names: Sequence[str]) -> list[Here]:
    """The images of these names, each once; without names, those that plain `doit` makes.

    Raises doit's own error for a name that is none.
    """
    if not names:
        every = ((one, image) for one in states for image in one.project.images.values())
        return [(one, image) for one, image in every if image.default]
    known = images_of(states)
    found: dict[str, Here] = {}
    for name in names:
        if name not in known:
            raise InvalidCommand(f"there is no image '{name}'{meant(name, known)}")
        found |= {f"{image.name}{state.at}": (state, image) for state, image in known[name]}
    return list(found.values())


class Asking(Guarded):
    """A command of which options may stand anywhere, and that ends without a traceback."""

    def parse_execute(self, in_args: list[str]) -> Any:
        """As doit has it, but for options behind names, which doit would take for names."""
        with suppress(getopt.GetoptError):  # what is wrong with them, doit says
            options, names = getopt.gnu_getopt(
                in_args, self.cmdparser.get_short(), self.cmdparser.get_long()
            )
            given = [
                [f"{name}={value}"] if value and name.startswith("--") else [name, value]
                for name, value in options
            ]
            in_args = [*(part for pair in given for part in pair if part), "--", *names]
        return super().parse_execute(in_args)

    def execute(self, params: Any, args: list[str]) -> int:
        """The exit code."""
        # doit would make its database, which only says what tasks did: none is run.
        self.dep_manager = False
        return super().execute(params, args)

    @staticmethod
    def opened() -> State:
        """The project's state. Raises doit's own error where there is no project."""
        state = tasks.opened()
        if state is None:
            raise InvalidCommand("there is no project here")
        return state
