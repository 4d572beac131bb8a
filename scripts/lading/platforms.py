"""The platforms that images can be for: which one this machine is, and which it can run."""

from __future__ import annotations

import os
from pathlib import Path

from lading.errors import EnvironmentProblem

PLATFORMS = ("linux/amd64", "linux/arm64")
MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
"""What the kernel calls them."""

BINFMT = "/proc/sys/fs/binfmt_misc"


def native() -> str:
    """This machine's platform; empty where no image can be for it."""
    machine = os.uname().machine
    return next((platform for platform, name in MACHINES.items() if name == machine), "")


def dashed(platform: str) -> str:
    """A platform in the names of files and tasks: linux-arm64."""
    return platform.replace("/", "-")


def emulated(platform: str) -> bool:
    """Whether this machine's kernel hands programs of another platform to an emulator
    (binfmt_misc, as qemu-user registers itself there).
    """
    machine = MACHINES[platform]
    try:
        found = [entry for entry in Path(BINFMT).iterdir() if entry.name.endswith(machine)]
        return any(entry.read_text().startswith("enabled") for entry in found)
    except OSError:
        return False


def runs(platform: str) -> bool:
    """Whether programs of a platform run on this machine, natively or emulated."""
    return platform == native() or emulated(platform)


HELP = (
    "register an emulator with this machine's kernel (Debian: apt-get install qemu-user-static "
    "arch-test), or do it on such a machine: the committed locks are the same there"
)
"""What to do where a program of another platform has to run."""


def refused(what: str, platform: str, said: str = "") -> EnvironmentProblem | None:
    """The error for what failed because nothing here runs a platform's programs; None where what
    was `said` does not tell of that.
    """
    if "exec format error" not in said.lower():
        return None
    return cant_run(what, platform, said)


def cant_run(what: str, platform: str, said: str = "") -> EnvironmentProblem:
    """The error for what takes programs of a platform that do not run here."""
    why = f"programs for {platform} do not run here, and no emulator is registered for them"
    return EnvironmentProblem(what, why="\n".join([why, *said.splitlines()[-5:]]), do=HELP)
