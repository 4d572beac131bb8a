"""Machines that there are not: commands run as if somewhere else, by someone else, at another time.

What a container's engine and the kernel say stays as it is: no clock but that of programs of this
machine is another one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What of a machine and of a user must not show in an archive. `later` is faketime's offset."""

    hostname: str
    umask: str
    later: str
    settings: Mapping[str, str]

    def command(self, *command: str | Path) -> list[str]:
        """A command as it is run there."""
        script = 'hostname "$1"; umask "$2"; shift 2; exec "$@"'
        words: Sequence[str | Path] = (
            *("unshare", "--uts", "sh", "-c", script, "sh", self.hostname, self.umask),
            *("faketime", "-f", self.later, *command),
        )
        return [str(word) for word in words]

    def environ(self, home: Path) -> dict[str, str]:
        """What its user has set, and their home, which is made."""
        home.mkdir(parents=True, exist_ok=True)
        # With it, the times of files would be shifted too, which no other clock does.
        return {"HOME": str(home), "NO_FAKE_STAT": "1", **self.settings}


HERE = Machine(
    hostname="here",
    umask="022",
    later="+0",
    settings={"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "1", "USER": "root"},
)
THERE = Machine(
    hostname="there.cluster.example",
    umask="077",
    later="+1600d",
    settings={"TZ": "Asia/Tokyo", "LC_ALL": "POSIX", "PYTHONHASHSEED": "2", "USER": "me"},
)
ELSEWHERE = Machine(
    hostname="laptop",
    umask="002",
    later="+13h",
    settings={"TZ": "America/St_Johns", "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "3"},
)


def missing() -> str:
    """Why there are no such machines here; "" where there are."""
    lacking = [name for name in ("unshare", "hostname", "faketime") if not shutil.which(name)]
    if lacking:
        return f"{', '.join(lacking)} not installed"
    return "" if os.geteuid() == 0 else "only root can be on another machine"
