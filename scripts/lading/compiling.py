"""How the Python modules of an image are compiled: by `bytecode.py`, which is lent to a step."""

from __future__ import annotations

import shlex
from pathlib import Path

from lading import bytecode

NAME = "bytecode.py"
NOTED = "/dev/shm/modules"
"""Where a step notes which modules it has yet to compile."""


def program() -> bytes:
    """What is lent, and runs in the image."""
    return Path(bytecode.__file__).read_bytes()


def command(python: str, lent: str, *folders: str) -> str:
    """Compiles all modules below folders, or what standard input names; `lent` has the program."""
    # Without the modules of site-packages, and with no bytecode of what it imports to start.
    words = [python, "-S", "-B", f"{lent}/{NAME}", *folders]
    return f"PYTHONHASHSEED=0 {shlex.join(words)}"


def of_noted(python: str, lent: str) -> str:
    """Compiles the modules that the step has noted."""
    return f"{command(python, lent)} <{NOTED}"
