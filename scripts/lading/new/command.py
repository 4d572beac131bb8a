"""`doit new NAME`: adds an image to the project."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, NoReturn

from doit.cmd_base import Command
from doit.exceptions import InvalidCommand

from lading.commands import guarded
from lading.errors import DeclarationError, LadingError
from lading.new.draft import Draft

_EPILOG = """\
Writes the image's section into project.yaml, and recipes/NAME. With a name alone, or none, on a
terminal, it asks; each question has a default. --from takes what is there already: a requirements
file, environment.yml, pyproject.toml, uv.lock, pylock.toml, or a Dockerfile; what could not be
carried over is listed. Nothing that is there is overwritten.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidCommand(f"{message}; `doit help new` shows how")


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    made = _Parser(
        prog="doit new",
        usage="doit new [NAME] [--from FILE] [options]",
        add_help=False,
        allow_abbrev=False,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    several: dict[str, Any] = {
        "nargs": "+",
        "action": "extend",
        "default": [],
        "metavar": "PACKAGE",
    }
    add("name", nargs="?", default="", metavar="NAME", help="what the image is called")
    add("--from", dest="file", default="", metavar="FILE", help="what is there already")
    add("--base", default="", help="the name of a base, or an image, as python:3.13-slim")
    add("--pip", **several, help="Python packages, as 'astropy>=6'")
    add("--conda", **several, help="conda packages, as python=3.12")
    add(
        "--channel", "-c", **{**several, "metavar": "CHANNEL"},
        help="where conda's are; else conda-forge",
    )  # fmt: skip
    add("--apt-run", **several, help="Debian packages in the image")
    add("--apt-build", **several, help="Debian packages to build with")
    add("--as-of", metavar="DAY", help="resolve packages as of this day, as 2021-08-15")
    add("--test", action="append", default=[], help="a command that has to succeed in it")
    add("--description", default="", metavar="TEXT", help="what it is for")
    add("--default", action=argparse.BooleanOptionalAction, help="made by `doit` alone; else not")
    add(
        "--extra", **{**several, "metavar": "EXTRA"},
        help="of pyproject.toml's optional dependencies",
    )  # fmt: skip
    add(
        "--build-arg", action="append", default=[], metavar="NAME=VALUE",
        help="a value for an ARG of the Dockerfile",
    )  # fmt: skip
    add("--help", "-h", action="store_true", help="shows this")
    return made


def as_typed(arguments: Sequence[str], typed: Sequence[str]) -> list[str]:
    """The command's arguments with those that doit takes for variables of its own, as 'a=1'.

    `typed` are the process's; where they are not the ones that led here, `arguments` stay.
    """
    kept = [text for text in typed if text.startswith("-") or "=" not in text]
    for at, word in enumerate(typed):
        rest = list(typed[at + 1 :])
        if word == "new" and kept[-len(arguments) - 1 :] == ["new", *arguments]:
            return rest
    return list(arguments)


class New(Command):  # type: ignore[misc]
    """`doit new NAME`: asks, or takes options; needs no project without problems to begin with."""

    doc_purpose = "add an image: its section in project.yaml, and its recipe"
    doc_usage = "[NAME] [--from FILE] [options]"
    doc_description = _EPILOG
    cmd_options = ()

    def help(self) -> str:
        return parser().format_help()

    def parse_execute(self, in_args: Sequence[str]) -> int:
        """0, or the exit code of what went wrong."""
        given = parser().parse_args(as_typed(in_args, sys.argv[1:]))
        return self.execute(vars(given), [])

    def execute(self, params: Any, args: Sequence[str]) -> int:
        if params["help"]:
            sys.stdout.write(self.help())
            return 0
        root = Path((self.opt_vals or {}).get("cwdPath") or ".").absolute()
        with guarded() as ended:
            self._new(root, params)
        return ended.code

    def _new(self, root: Path, params: dict[str, Any]) -> None:
        from lading.new import reading, writing

        name, draft = params["name"], Draft()
        said = any(value for key, value in params.items() if key not in ("name", "default"))
        said = said or params["default"] is not None
        if not said and sys.stdin.isatty() and sys.stdout.isatty():
            name = _asked(root, name, draft)
        if not name:
            raise DeclarationError("the new image needs a name: `doit new NAME`")
        writing.check_name(root, name)
        if said:
            draft.base, arguments = params["base"], _arguments(params)
            if params["file"]:
                reading.read(draft, Path(params["file"]), params["extra"], arguments)
            elif params["extra"] or arguments:
                whose = "--build-arg belongs to a Dockerfile"
                if params["extra"]:
                    whose = "--extra belongs to a pyproject.toml"
                raise DeclarationError(f"{whose}: name the file in --from")
            _fill(draft, params)
        written = writing.write(root, name, draft)
        writing.report(_say, name, draft, written)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _asked(root: Path, name: str, draft: Draft) -> str:
    from lading.new.asking import ask_all

    try:
        return ask_all(root, name, draft, input, _say)
    except EOFError:
        raise LadingError("nobody answers; nothing was written") from None


def _arguments(params: dict[str, Any]) -> dict[str, str]:
    given = {}
    for text in params["build_arg"]:
        name, equals, value = text.partition("=")
        if not equals:
            raise DeclarationError(f"--build-arg {text}: write it as NAME=VALUE")
        given[name] = value
    return given


def _fill(draft: Draft, params: dict[str, Any]) -> None:
    """What the options say, on top of what a file brought."""
    from lading.new.requirement_files import checked

    draft.requirements += [checked(text) for text in params["pip"]]
    if params["conda"] and draft.conda_file:
        raise DeclarationError(f"conda's packages stand in one place: in {params['file']}")
    draft.conda += params["conda"]
    draft.channels += params["channel"]
    if draft.conda and not draft.channels:
        draft.channels.append("conda-forge")
    draft.apt_run += params["apt_run"]
    draft.apt_build += params["apt_build"]
    draft.test += params["test"]
    draft.description = params["description"] or draft.description
    if params["default"] is not None:
        draft.default = params["default"]
    if params["as_of"]:
        try:
            draft.as_of = date.fromisoformat(params["as_of"])
        except ValueError:
            raise DeclarationError(f"--as-of {params['as_of']}: a day, as 2021-08-15") from None
