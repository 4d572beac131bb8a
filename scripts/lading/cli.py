"""`lading`: what there is to do where no project is yet; in a project it is doit's to do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lading.errors import EnvironmentProblem, LadingError


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 not done, 2 the environment or a wrong option, 3 a declaration."""
    from importlib.metadata import version

    parser = argparse.ArgumentParser(
        prog="lading", description="Scientific Python containers for HPC systems, by declaration."
    )
    parser.add_argument("--version", action="version", version=f"lading {version('lading')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    init = commands.add_parser(
        "init", help="start a project", description="Starts a project: project.yaml, dodo.py …"
    )
    init.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER")
    given = parser.parse_args(arguments)
    from lading.new.project import start

    try:
        start(given.folder, lambda text: print(text))
    except LadingError as error:
        sys.stderr.write(f"ERROR: {error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"ERROR: {error}\n")
        return EnvironmentProblem.exit_code
    return 0
