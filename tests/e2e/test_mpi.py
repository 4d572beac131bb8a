"""MPI, from the tarball of MPICH to a SIF in which the host's own MPI answers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.e2e.conftest import Copy
from tests.support.apptainer import Apptainer
from tests.support.engines import Running

PROJECT = """\
lading: 1
name: mpi
bases:
  debian-11: {debian: {suite: bullseye, packages: [python3]}}
sources:
  mpich:
    version: 4.0.2
    urls: ["debian:pool/main/m/mpich/mpich_{version}.orig.tar.xz"]
    configure: >-
      --prefix=/usr --with-device=ch3 --disable-fortran --disable-cxx --disable-romio
      --disable-static --disable-qmpi --disable-dependency-tracking --without-hwloc
      --enable-fast=nochkmsg,notiming,ndebug
    env: {CFLAGS: -O0, CONFIG_SHELL: /bin/dash}
    then: ./libtool --mode=install install -m 755 examples/cpi $DESTDIR/usr/bin/cpi
images:
  mpi4py:
    base: debian-11
    apt: {build: [build-essential]}
    source: [mpich]
    pip:
      requirements: recipes/mpi4py.in
      no-binary: [mpi4py]
      build-constraints: ["setuptools<69"]
      build-env: {CFLAGS: -O0}
    mpi: mpich
    test:
      - mpiexec -n 2 python -m mpi4py.bench helloworld
      - mpiexec -n 2 cpi
  other:
    base: debian-11
    source: [mpich]
    test: [mpiexec -n 2 cpi]
"""

WHO = "from mpi4py import MPI; print(MPI.Get_library_version().splitlines()[0])"


@pytest.mark.longest
@pytest.mark.timeout(1800)
def test_mpi4py_and_the_hosts_own_mpi(
    on_docker: Copy, podman: Running, apptainer: Apptainer
) -> None:
    project = replace(on_docker, patience=1400)
    project.write("project.yaml", PROJECT)
    project.write("recipes/mpi4py.in", "mpi4py==3.1.3\n")
    output = project.done("archive:mpi4py")
    assert "build      source:mpich@debian-11" in output
    assert "swap: yes" in output
    for line in ("passed  mpiexec -n 2: ranks of 2", "by LD_LIBRARY_PATH", "under a vendor's name"):
        assert line in output, output
    lock = project.root / "locks/images/mpi4py/linux-amd64/build-mpi4py.txt"
    assert "\nsetuptools==68." in lock.read_text()

    # What compiled it stays behind; a second image on the same MPICH compiles nothing.
    checked = json.loads((project.root / "build/mpi4py/check.json").read_text())
    assert checked["mpi"]["soname"] == "libmpi.so.12"
    assert checked["mpi"]["swap"] == "yes"
    second = project.doit("archive:other")
    assert second.code == 0
    assert "source:mpich" not in second.output
    # Neither does another version of mpi4py, nor another engine.
    project.write("recipes/mpi4py.in", "mpi4py==3.1.4\n")
    output = project.done("archive:mpi4py", DOCKER_HOST=podman.url)
    assert "build      source:mpich" not in output
    assert "build      mpi4py" in output

    # In the SIF: its own without the bind, the host's with it.
    output = project.done("sif:mpi4py", DOCKER_HOST=podman.url, PATH=apptainer.path)
    host = checked["mpi"]["host"].rpartition(" ")[2]
    assert host not in ("", "4.0.2")
    assert f"mpi4py, with a host's MPI: whose MPI answers: {host}" in output
    record = json.loads((project.root / "dist/mpi4py.sif.json").read_text())
    assert record["tests"][-1]["how"] == "with a host's MPI"
    assert host in record["tests"][-1]["output"]
    sif = str(project.root / "dist/mpi4py.sif")
    assert "4.0.2" in apptainer.run("exec", sif, "python", "-c", WHO)
