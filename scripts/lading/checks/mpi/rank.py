"""One rank, run by an image's own Python (3.6 or newer) with the image's own mpi4py.

It passes a block of 1 MiB around a ring until each rank has its own again, and prints one line of
JSON: who it is, of how many, which MPI that is, and which files of an MPI are in its memory.
"""

import json
import os
import re
import time

from mpi4py import MPI  # type: ignore[import-not-found]

MIB = 1 << 20
LIBRARY = re.compile(r"lib(p?mpi|mpich|open-(pal|rte))\w*\.so")


def mapped() -> "list[str]":
    """The paths of the MPI libraries in this process's memory; proc(5)."""
    with open("/proc/self/maps") as lines:  # noqa: PTH123
        fields = [line.rstrip("\n").split(None, 5) for line in lines]
    paths = {field[5] for field in fields if len(field) == 6}
    return sorted(path for path in paths if LIBRARY.match(path.rpartition("/")[2]))


def ring(comm: "MPI.Comm") -> "float | None":
    """The seconds it took to pass a block once around; None if another one came back."""
    sent = os.urandom(MIB)
    block, start = bytearray(sent), time.time()
    for _ in range(comm.size):
        got = bytearray(MIB)
        comm.Sendrecv(
            [block, MPI.BYTE],
            dest=(comm.rank + 1) % comm.size,
            recvbuf=[got, MPI.BYTE],
            source=(comm.rank - 1) % comm.size,
        )
        block = got
    return time.time() - start if bytes(block) == sent else None


def main() -> None:
    comm = MPI.COMM_WORLD
    said = {
        "rank": comm.rank,
        "size": comm.size,
        "version": " ".join(MPI.Get_library_version().split())[:200],
        "module": MPI.__file__,
        "mapped": mapped(),
        "ring": ring(comm),
    }
    # In one piece, or the lines of two ranks run into each other.
    os.write(1, ("\n@rank " + json.dumps(said) + "\n").encode())


main()
