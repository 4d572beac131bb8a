"""The four known ways to keep a host's MPI out, as images of a project: `doit check` says which."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from lading.store import Store
from tests.e2e.conftest import Copy
from tests.support.engines import Running

SITE = "/opt/venv/lib/python3.9/site-packages"
MODULE = f"{SITE}/mpi4py/MPI.mpich.*.so"
PROJECT = f"""\
lading: 1
name: broken
bases:
  debian-11: {{debian: {{suite: bullseye, packages: [python3]}}}}
sources:
  cpi:
    version: "1"
    urls: ["file://SERVED/cpi-{{version}}.tar.gz"]
    apt: {{build: [gcc, libc6-dev]}}
    commands:
      - cc -c mpi.c && ar rcs libmpi.a mpi.o
      - mkdir -p $DESTDIR/usr/bin && cc -o $DESTDIR/usr/bin/cpi cpi.c -L. -lmpi
images:
  well:
    base: debian-11
    pip: {{requirements: recipes/wheels.in}}
    mpi: mpich
  rpath:
    base: debian-11
    pip: {{requirements: recipes/wheels.in}}
    run: [patchelf --force-rpath --set-rpath /opt/venv/lib {MODULE}]
    mpi: mpich
  static:
    base: debian-11
    source: [cpi]
    pip: {{requirements: recipes/launcher.in}}
    mpi: mpich
  debian:
    base: debian-11
    apt: {{run: [mpich]}}
    pip: {{requirements: recipes/module.in}}
    run: [patchelf --replace-needed libmpi.so.12 libmpich.so.12 {MODULE}]
    mpi: mpich
  by-path:
    base: debian-11
    pip: {{requirements: recipes/launcher.in}}
    files: {{/usr/share/wheel: recipes/wheel}}
    run: [python -m zipfile -e /usr/share/wheel/*.whl {SITE}]
    mpi: mpich
"""


@dataclass(frozen=True, kw_only=True)
class Broken:
    """What is said of an image: by running it, by looking into it (and of which file), and how to
    mend it.
    """

    id: str
    path: str
    ran: str
    seen: str
    mend: str


BROKEN = {
    "rpath": Broken(
        id="M3",
        path=MODULE,
        ran="has a DT_RPATH that leads to /opt/venv/lib/libmpi.so.12 of the image before "
        "LD_LIBRARY_PATH is looked at",
        seen="the host's MPI is passed over, and nothing says so",
        mend="-> link with -Wl,--enable-new-dtags (RUNPATH), or patchelf --set-rpath",
    ),
    "static": Broken(
        id="M1",
        path="/usr/bin/cpi",
        ran="cpi asks for no MPI library: MPI is linked into it",
        seen="MPI is linked into it: a host's can't take its place",
        mend="-> link it against the shared libmpi",
    ),
    "debian": Broken(
        id="M1",
        path=MODULE,
        ran="by Debian's name for it, where a host has libmpi.so.12",
        seen="it needs libmpich.so.12, Debian's name",
        mend="-> build it against an MPICH of its own build, not the distribution's",
    ),
    "by-path": Broken(
        id="M4",
        path=f"{SITE}/mpi4py",
        ran="is opened by its full path, by mpi4py's wheel",
        seen="this wheel opens /opt/venv/lib/libmpi.so.12 by its full path",
        mend="-> ENV MPI4PY_MPIABI=mpich, or install MPI into /usr/local",
    ),
}
IMAGES = ("well", *BROKEN)
# Of MPI it has the least that a launcher can start: who it is comes from MPICH's own launcher.
MPI = b"""\
#include <stdlib.h>
static int told(const char *name) { return getenv(name) ? atoi(getenv(name)) : 0; }
int MPI_Init(int *argc, char ***argv) { return 0; }
int MPI_Comm_rank(int comm, int *rank) { *rank = told("PMI_RANK"); return 0; }
int MPI_Comm_size(int comm, int *size) { *size = told("PMI_SIZE"); return 0; }
int MPI_Finalize(void) { return 0; }
"""
CPI = b"""\
#include <stdio.h>
int MPI_Init(int *, char ***), MPI_Comm_rank(int, int *), MPI_Comm_size(int, int *);
int MPI_Finalize(void);
int main(int argc, char **argv) {
  int rank, size;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(0, &rank);
  MPI_Comm_size(0, &size);
  printf("Process %d of %d\\n", rank, size);
  return MPI_Finalize();
}
"""
REQUIREMENTS = {
    "wheels": "mpi4py==4.1.2\nmpich==4.3.2\npatchelf\n",
    "module": "mpi4py==4.1.2\npatchelf\n",
    "launcher": "mpich==4.3.2\n",
}


def made(copy: Copy) -> None:
    """The project with its five images, on the base that is locked already."""
    for name in ("locks/images", "locks/sources", "recipes"):
        shutil.rmtree(copy.root / name)
    served = copy.root / "served"
    served.mkdir()
    with tarfile.open(served / "cpi-1.tar.gz", "w:gz") as tar:
        for name, data in {"mpi.c": MPI, "cpi.c": CPI}.items():
            info = tarfile.TarInfo(f"cpi-1/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    copy.write("project.yaml", PROJECT.replace("SERVED", str(served)))
    for name, text in REQUIREMENTS.items():
        copy.write(f"recipes/{name}.in", text)
    (copy.root / "recipes/wheel").mkdir()
    copy.done("lock:well", "fetch:well")
    # mpi4py's wheel, which this image unpacks by itself: lading does not know of it.
    pinned = (copy.root / "locks/images/well/linux-amd64/requirements.txt").read_text()
    found = re.search(r"sha256:(\S+)\n\s+# file: (mpi4py\S+)", pinned)
    assert found is not None, pinned
    stored = Store(Path(copy.environ["LADING_CACHE"])).path(found[1])
    shutil.copy(stored, copy.root / "recipes/wheel" / found[2])


@pytest.mark.timeout(900)
def test_what_keeps_a_hosts_mpi_out_is_said(project: Copy, running: Running) -> None:
    made(project)
    # What is concluded does not depend on the engine; where it is concluded from might.
    names = IMAGES if running.kind == "docker" else ("well", "static")
    project.done(*(f"build:{name}" for name in names))
    for name in names:
        outcome = project.doit(f"check:{name}")
        said = " ".join(outcome.output.split())
        found = json.loads((project.root / f"build/{name}/check.json").read_text())
        assert "Traceback" not in said
        assert found["mpi"]["outcomes"]
        assert all(one["passed"] for one in found["mpi"]["outcomes"]), "by itself, it runs"
        assert found["mpi"]["host"] == "MPICH 5.0.2"
        if name == "well":
            assert outcome.code == 0
            assert found["passed"]
            assert found["mpi"]["swap"] == "yes"
            assert "swap: yes (MPICH 5.0.2)" in said
            continue
        assert outcome.code == 1
        assert not found["passed"]
        assert found["mpi"]["swap"] == "no"
        assert found["portability"]["facts"]["mpi"]["swap"] == "no"
        assert "swap: no (MPICH 5.0.2) no by LD_LIBRARY_PATH: " in said
        assert f"{name} would not work under Apptainer" in said
        broken = BROKEN[name]
        assert broken.ran in said
        assert broken.seen in said
        assert broken.mend in said
        paths = errors(found)[broken.id]
        assert any(fnmatch(path, broken.path) for path in paths), paths
    assert not (project.root / "dist").exists()


def errors(found: dict[str, Any]) -> dict[str, list[str]]:
    """The errors among the findings: the paths, by what was found."""
    said: dict[str, list[str]] = {}
    for one in found["portability"]["findings"]:
        if one["level"] == "error":
            said.setdefault(one["id"], []).extend(one["paths"])
    return said
