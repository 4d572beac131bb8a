"""What lading's own commands for doit share that only ask, and make nothing."""

from __future__ import annotations

import getopt
from contextlib import suppress
from typing import Any

from doit.cmd_base import DoitCmdBase
from doit.exceptions import InvalidCommand

from lading import tasks
from lading.commands import guarded
from lading.state import State


class Asking(DoitCmdBase):  # type: ignore[misc]
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
        with guarded() as ended:
            ended.code = super().execute(params, args) or 0
        return ended.code

    @staticmethod
    def opened() -> State:
        """The project's state. Raises doit's own error where there is no project."""
        state = tasks.opened()
        if state is None:
            raise InvalidCommand("there is no project here")
        return state
