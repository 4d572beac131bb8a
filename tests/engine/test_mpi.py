"""A host's MPI in the place of an image's, in real containers; and the four ways to break it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lading.checks.mpi import MpiReport, finder, run
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


@pytest.fixture
def checked(
    engine: Engine, store: Store, parts: tuple[Path, Path], tmp_path: Path
) -> Callable[[str], MpiReport]:
    """Checks an image of one kind."""

    def check(kind: str) -> MpiReport:
        image = mpi.made(kind, tmp_path, *parts)
        image.write(tmp_path / "image.tar")
        identity = engine.load(tmp_path / "image.tar")
        return run(engine, identity, "mpich", finder("mpich", mpi.PLATFORM, store, os.environ))

    return check


def test_a_hosts_mpi_takes_over_in_each_way(checked: Callable[[str], MpiReport]) -> None:
    report = checked("well")
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


# What is concluded does not depend on the engine.
@pytest.mark.parametrize("running", ["podman"], indirect=True)
@pytest.mark.parametrize(
    ("kind", "why", "do"),
    [
        ("rpath", "has a DT_RPATH that leads to /opt/venv/lib/libmpi.so.12", "RUNPATH"),
        ("static", "no MPI library is loaded at all: MPI is linked into", "shared library"),
        ("debian", "by Debian's name for it, where a host has libmpi.so.12", "libmpi.so.12"),
        ("by-path", "opened by its full path, by mpi4py's wheel", "ENV MPI4PY_MPIABI=mpich"),
    ],
    ids=["rpath", "static", "debian", "by-path"],
)
def test_each_way_to_break_it_is_reported(
    checked: Callable[[str], MpiReport], kind: str, why: str, do: str
) -> None:
    report = checked(kind)
    assert all(one.passed for one in report.outcomes)  # by itself it runs, and nothing is seen
    assert report.swap == "no"
    assert not report.passed
    first = report.swaps[0]
    assert (first.way, first.verdict) == ("by LD_LIBRARY_PATH", "no")
    assert first.version == f"MPICH {mpi.OWN}"
    assert why in first.why
    assert do in first.do
