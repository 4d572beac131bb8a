"""The MPI checks by running: ranks find each other, and a host's MPI takes the image's place.

    check ── inside (what is run in containers) ── host (the stand-in for a host's MPI)
        └── judge (what came out, and why) ── report (plain data)

`rank.py` is no part of lading: the image's own Python runs it, as one rank.
"""

from __future__ import annotations

from lading.checks.mpi.check import run
from lading.checks.mpi.host import Finder, HostMpi, NoHost, finder
from lading.checks.mpi.report import MpiReport, Outcome, Swap

__all__ = ["Finder", "HostMpi", "MpiReport", "NoHost", "Outcome", "Swap", "finder", "run"]
