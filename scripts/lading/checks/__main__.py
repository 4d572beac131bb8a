"""`python -m lading.checks ARCHIVE` says what becomes of any image's archive under Apptainer.

The exit code is 0 if nothing stands against it, 1 for errors or a damaged archive, 2 if the
machine can't read it, 3 if what was asked can't be meant, 130 if it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lading.checks.portability import SONAMES, allowed, examine, table
from lading.console import Console
from lading.errors import DeclarationError, LadingError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise DeclarationError(message, do=f"{self.prog} --help lists what there is")


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks one archive; prints the table, or JSON."""
    try:
        parser = _parser()
        asked = parser.parse_args(arguments)
        if "/" not in asked.platform:
            parser.error(f"{asked.platform} is no platform: OS/ARCHITECTURE, as linux/amd64")
        report = examine(
            asked.archive,
            platform=asked.platform,
            mpi=asked.mpi,
            allow=[allowed(text, "on the command line") for text in asked.allow],
        )
    except LadingError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    lines = [json.dumps(report.to_dict(), indent=2)] if asked.json else table(report)
    Console().note("\n".join(lines))
    return 1 if report.errors else 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m lading.checks", description=__doc__)
    parser.add_argument("archive", type=Path, help="a docker-archive, or the tar of an OCI layout")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--allow",
        metavar="ID:PATH",
        action="append",
        default=[],
        help="let a finding through; * in PATH stands for anything",
    )
    parser.add_argument("--platform", default="linux/amd64", help="the target (linux/amd64)")
    parser.add_argument("--mpi", choices=sorted(SONAMES), default="", help="what it is built for")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
