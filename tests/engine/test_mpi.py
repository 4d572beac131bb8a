"""A host's MPI in the place of an image's, in real containers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lading.checks.mpi import finder, run
from lading.engines import Engine
from lading.store import Store
from tests.support import mpi


@pytest.fixture(scope="session")
def store() -> Store:
    """The user's own: the wheels are some 35 MB."""
    return Store.default(os.environ)


@pytest.fixture(scope="session")
def parts(store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The layer that all images share, and mpi4py's wheel."""
    folder = tmp_path_factory.mktemp("mpi-base")
    return mpi.base_layer(folder, mpi.own_mpi(store)), mpi.wheel_of_mpi4py(store)


def test_a_hosts_mpi_takes_over_in_each_way(
    engine: Engine, store: Store, parts: tuple[Path, Path], tmp_path: Path
) -> None:
    image = mpi.made(tmp_path, *parts)
    image.write(tmp_path / "image.tar")
    identity = engine.load(tmp_path / "image.tar")
    report = run(engine, identity, "mpich", finder("mpich", mpi.PLATFORM, store, os.environ))
    assert report.problems == ()
    assert (report.mpi, report.abi, report.soname) == (f"MPICH {mpi.OWN}", "MPICH", "libmpi.so.12")
    assert [one.name for one in report.outcomes] == [
        "mpiexec -n 2: ranks of 2",
        "ring exchange of 1 MiB",
        "mpi4py.bench helloworld",
    ]
    assert {swap.way: (swap.verdict, swap.version) for swap in report.swaps} == {
        "by LD_LIBRARY_PATH": ("yes", report.host),
        "under a vendor's name": ("yes", report.host),
        "bound over the image's own": ("yes", report.host),
    }
    by_path, vendors, bound = (swap.mapped for swap in report.swaps)
    assert by_path == ("/host/mpi/lib/libmpi.so.12",)
    assert vendors == ("/host/mpi/vendor/libmpi_gnu_91.so.12",)
    assert bound == ("/opt/venv/lib/libmpi.so.12",)
