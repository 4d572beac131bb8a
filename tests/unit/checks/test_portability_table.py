"""Every check in a table: an image that has the fault, and one that nearly has it."""

from __future__ import annotations

import re
import struct
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lading.checks import portability
from tests.unit.checks import archive_table
from tests.unit.checks.elves import elf
from tests.unit.checks.made import (
    Item,
    Layer,
    binary,
    cache_of,
    examined,
    folder,
    hard,
    link,
    script,
    where,
)

SITE = "opt/venv/lib/python3.13/site-packages"
PYTHON: Layer = {
    "usr/bin/python3.13": binary(elf(program=True)),
    "usr/bin/python3": link("python3.13"),
}
VENV: Layer = {
    **PYTHON,
    "opt/venv/pyvenv.cfg": Item(data=b"home = /usr/bin\nversion_info = 3.13.5\n"),
    "opt/venv/bin/python": link("/usr/bin/python3"),
    "opt/venv/bin/python3": link("python"),
}
MPICH = elf(soname="libmpi.so.12", defines=["MPI_Init", "PMPI_Init", "MPI_Send"])
OPENMPI = elf(
    soname="libmpi.so.40", defines=["MPI_Init", "PMPI_Init"], strings=["ompi_mpi_comm_self"]
)
USER = elf(needed=["libmpi.so.12", "libc.so.6"], wants=["MPI_Init"])
LOCAL: Layer = {
    "usr/local/lib/libmpi.so.12": binary(MPICH),
    "etc/ld.so.conf": Item(data=b"include /etc/ld.so.conf.d/*.conf\n"),
    "etc/ld.so.conf.d/local.conf": Item(data=b"# local\n/usr/local/lib\n"),
    "etc/ld.so.cache": Item(data=cache_of({"libmpi.so.12": "/usr/local/lib/libmpi.so.12"})),
}
WHEEL: Layer = {
    f"{SITE}/mpi4py/MPI.mpich.cpython-313-x86_64-linux-gnu.so": binary(USER),
    f"{SITE}/mpi4py/MPI.openmpi.cpython-313-x86_64-linux-gnu.so": binary(
        elf(needed=["libmpi.so.40"], strings=["ompi_mpi_comm_self"])
    ),
}
IN_VENV: Layer = {"opt/venv/lib/libmpi.so.12": binary(MPICH)}
CAPABILITY = {"SCHILY.xattr.security.capability": "\x01"}


@dataclass(frozen=True, kw_only=True)
class Image:
    files: Layer = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    mpi: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)


def files(*layers: Layer, **more: Any) -> Image:
    return Image(files={k: v for layer in layers for k, v in layer.items()}, **more)


def env(*layers: Layer, **values: str) -> Image:
    return files(*layers, env=values)


def config(*layers: Layer, **values: Any) -> Image:
    return files(*layers, config=values)


def modules(count: int, compiled: int, *, flags: int = 3, mtime: int = 7, size: int = 1) -> Layer:
    """A package of so many modules, the first of which have bytecode of this header."""
    head = struct.pack("<IIII", 0, flags, mtime, size)
    found = {f"{SITE}/p/m{i}.py": Item(mtime=7) for i in range(count)}
    for i in range(compiled):
        found[f"{SITE}/p/__pycache__/m{i}.cpython-313.pyc"] = Item(data=head)
    return found


CONDA: Layer = {"opt/conda/conda-meta/history": Item(), "opt/conda/bin/python": Item(mode=0o755)}
CONDA_MPI: Layer = {"opt/conda/lib/libmpi.so.12": binary(MPICH)}
CONDA_MODULE = "opt/conda/lib/python3.13/site-packages/mpi4py/MPI.so"
UP = "$ORIGIN/../../../"
IN_CONDA = {"PATH": "/opt/conda/bin:/usr/bin"}
ACTIVATE = "opt/conda/etc/conda/activate.d/proj.sh"

# id, level, what is named, the fault, and what nearly is one.
TABLE: list[tuple[str, str, str, Image, Image]] = [
    ("A4", "error", "architecture", Image(more={"architecture": "arm64"}), Image()),
    ("A4", "error", "os", Image(more={"os": "windows"}), Image()),
    (
        "A4",
        "error",
        "/usr/bin/tool",
        files({"usr/bin/tool": binary(elf(machine=183))}),
        files({"usr/bin/tool": binary(elf(machine=62)), "usr/bin/old": binary(elf(machine=3))}),
    ),
    (
        "A4",
        "info",
        "/opt/data/firmware",
        files({"opt/data/firmware": binary(elf(machine=183))}),
        files({"opt/data/gpu": binary(elf(machine=224))}),
    ),
    (
        "A4",
        "error",
        f"/{SITE}/x.so",
        # Python imports it, wherever it lies.
        files({f"{SITE}/x.so": binary(elf(machine=183))}),
        files({f"{SITE}/x.bin": binary(elf(machine=183)), "opt/x.so": binary(elf(machine=183))}),
    ),
    (
        "A5",
        "info",
        "/usr/lib/libQt.so.6",
        files({"usr/lib/libQt.so.6": binary(elf(kernel=(4, 18, 0)))}),
        files({"usr/lib/libQt.so.6": binary(elf(kernel=(3, 10, 0)))}),
    ),
    (
        "A5",
        "warn",
        "/usr/lib/libQt.so.6",
        files({"usr/lib/libQt.so.6": binary(elf(kernel=(5, 4, 0)))}),
        files({"usr/lib/libQt.so.6": binary(elf(kernel=(3, 2, 0)))}),
    ),
    ("E1", "error", "ENV X", env(X="a`id`b"), env(X="a'id'b")),
    ("E2", "warn", "ENV X", env(X="cost $5"), env(X="cost 5 %")),
    ("E2", "warn", "ENV X", env(X='a"b'), env(X="a'b")),
    ("E2", "warn", "ENV X", env(X="a\\b"), env(X="a/b")),
    ("E2", "warn", "ENV X", env(X="a\nb"), env(X="a\tb")),
    ("E2", "error", "ENV PATH", env(PATH="/usr/bin:$HOME/bin"), env(PATH="/usr/bin:/home/bin")),
    (
        "E2",
        "error",
        "ENV LD_LIBRARY_PATH",
        env(LD_LIBRARY_PATH="$HOME/lib"),
        env(LD_LIBRARY_PATHS="$HOME/lib"),
    ),
    ("E2", "error", "ENV PYTHONPATH", env(PYTHONPATH="/x$y"), env(PYTHONPATHS="/x$y")),
    ("E3", "warn", "ENV a.b", env(**{"a.b": "1"}), env(a_b="1")),
    ("E3", "warn", "ENV HOME", env(HOME="/work"), env(HOMES="/work")),
    ("E4", "warn", "ENV PYTHONNOUSERSITE", env(PYTHON, PYTHONNOUSERSITE=""), env(PYTHON)),
    (
        "E4",
        "warn",
        "ENV PYTHONNOUSERSITE",
        env(PYTHON, PYTHONNOUSERSITE="-"),
        env(PYTHONNOUSERSITE="-"),
    ),
    ("E5", "warn", "ENV PYTHONPATH", env(PYTHON, PYTHONPATH="-"), env(PYTHON, PYTHONPATH="")),
    ("E6", "warn", "ENV LD_PRELOAD", env(LD_PRELOAD="/usr/lib/x.so"), env(LD_PRELOAD="")),
    (
        "E7",
        "warn",
        "ENV LANG",
        env(LANG="de_DE.UTF-8"),
        env({"usr/lib/locale/de_DE.utf8/LC_CTYPE": Item()}, LANG="de_DE.UTF-8"),
    ),
    ("E7", "warn", "ENV LC_ALL", env(LC_ALL="de_DE.UTF-8"), env(LC_ALL="C.UTF-8")),
    ("E7", "info", "ENV LANG", env(LANG="-"), env(LANG="-", LC_ALL="C")),
    ("E8", "warn", "ENV MPLCONFIGDIR", env(MPLCONFIGDIR="/opt/mpl"), env(MPLCONFIGDIR="/tmp/mpl")),
    (
        "E8",
        "warn",
        "ENV NUMBA_CACHE_DIR",
        env(NUMBA_CACHE_DIR="/tmpx"),
        env(NUMBA_CACHE_DIR="/tmp"),
    ),
    *(
        ("E8", "warn", f"ENV {name}", env(**{name: "/opt/x"}), env(**{name: "/var/tmp/x"}))
        for name in (
            *("PYTHONPYCACHEPREFIX", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TRITON_CACHE_DIR"),
            *("HF_HOME", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"),
        )
    ),
    (
        "E9",
        "info",
        f"/{SITE}/numba",
        files({f"{SITE}/numba/__init__.py": Item()}),
        env({f"{SITE}/numba/__init__.py": Item()}, NUMBA_CACHE_DIR="/tmp"),
    ),
    ("E10", "warn", "/opt/conda", files(CONDA), env(CONDA, **IN_CONDA)),
    (
        "E10",
        "warn",
        "/opt/conda/envs/a",
        env(CONDA, {"opt/conda/envs/a/conda-meta/history": Item()}, **IN_CONDA),
        env(
            CONDA,
            {"opt/conda/envs/a/conda-meta/history": Item()},
            PATH="/opt/conda/envs/a/bin:/opt/conda/bin",
        ),
    ),
    (
        "E10",
        "warn",
        f"/{ACTIVATE}",
        env(CONDA, {ACTIVATE: Item(data=b"export PROJ_DATA=/x\n")}, **IN_CONDA),
        env(CONDA, {ACTIVATE: Item(data=b"export PROJ_DATA=/x\n")}, **IN_CONDA, PROJ_DATA="/y"),
    ),
    (
        "E11",
        "warn",
        "ENV TZ",
        env(TZ="Europe/Berlin"),
        env({"usr/share/zoneinfo/Europe/Berlin": Item()}, TZ="Europe/Berlin"),
    ),
    (
        "E12",
        "warn",
        "ENV LD_LIBRARY_PATH",
        env(LD_LIBRARY_PATH="/opt/lib:"),
        env(LD_LIBRARY_PATH="/opt/lib"),
    ),
    ("E12", "warn", "ENV PATH", env(PATH="/usr/bin:bin"), env(PATH="/usr/bin:/bin")),
    (
        "F1",
        "error",
        "/opt/x",
        files({"opt/x": Item(mode=0o640)}),
        files({"opt/x": Item(mode=0o604)}),
    ),
    (
        "F1",
        "error",
        "/app",
        files({"app": folder(0o750), "app/x": Item()}),
        files({"app": folder(0o755)}),
    ),
    ("F1", "error", "/usr/x", files({"usr/x": folder(0o751)}), files({"usr/x": folder(0o755)})),
    (
        "F1",
        "warn",
        "/srv/x",
        files({"srv/x": Item(mode=0o600)}),
        files({"etc/shadow": Item(mode=0o600)}),
    ),
    (
        "F1",
        "error",
        "/usr/bin/run",
        files({"usr/bin/run": Item(mode=0o744)}),
        files({"usr/share/run": Item(mode=0o744)}),
    ),
    ("F2", "error", "/root/app/x", files({"root/app/x": Item()}), files({"root/.bashrc": Item()})),
    (
        "F2",
        "error",
        "/root/.local/lib/x",
        files({"root/.local/lib/x": Item()}),
        files({"root/.cache/x": Item()}),
    ),
    (
        "F2",
        "error",
        "/usr/bin/tool",
        files({"usr/bin/tool": script("#!/root/venv/bin/python")}),
        files({"usr/bin/tool": script("#!/opt/root/bin/python")}),
    ),
    ("F2", "error", "ENV PATH", env(PATH="/usr/bin:/root/bin"), env(PATH="/usr/bin:/rootless/bin")),
    ("F2", "error", "WORKDIR", config(WorkingDir="/root"), config(WorkingDir="/opt/root")),
    (
        "F2",
        "error",
        "ENTRYPOINT",
        config(Entrypoint=["/root/run"]),
        config(Entrypoint=["/opt/run"]),
    ),
    ("F2", "error", "CMD", config(Cmd=["sh", "/root/run"]), config(Cmd=["sh", "/opt/run"])),
    (
        "F3",
        "error",
        "/tmp/x",
        files({"tmp": folder(0o1777), "tmp/x": Item()}),
        files({"tmp/x": folder()}),
    ),
    ("F3", "error", "/var/tmp/x", files({"var/tmp/x": Item()}), files({"var/tmpx/x": Item()})),
    ("F3", "error", "/dev/shm/x", files({"dev/shm/x": link("y")}), files({"dev/shm": folder()})),
    ("F3", "warn", "/home/me/x", files({"home/me/x": Item()}), files({"home/me/.bashrc": Item()})),
    (
        "F4",
        "error",
        "/etc/resolv.conf",
        files({"etc/resolv.conf": link("../run/resolv.conf")}),
        files({"etc/resolv.conf": link("../run/resolv.conf"), "run/resolv.conf": Item()}),
    ),
    (
        "F4",
        "error",
        "/etc/hosts",
        files({"etc/hosts": link("/run/hosts"), "run/hosts": Item()}),
        files({"etc/hosts": Item()}),
    ),
    (
        "F5",
        "info",
        "/usr/bin/su2",
        files({"usr/bin/su2": Item(mode=0o4755)}),
        files({"usr/bin/su2": Item(mode=0o755)}),
    ),
    (
        "F5",
        "info",
        "/usr/bin/wall",
        files({"usr/bin/wall": Item(mode=0o2755)}),
        files({"usr/bin/wall": folder(0o2755)}),
    ),
    (
        "F5",
        "warn",
        "/usr/bin/x",
        files({"usr/bin/x": Item(pax=CAPABILITY)}),
        files({"usr/bin/ping": Item(pax=CAPABILITY)}),
    ),
    (
        "F6",
        "info",
        "/dev/null",
        files({"dev/null": Item(kind=tarfile.CHRTYPE)}),
        files({"dev/fifo": Item(kind=tarfile.FIFOTYPE)}),
    ),
    (
        "F6",
        "info",
        "/dev/sda",
        files({"dev/sda": Item(kind=tarfile.BLKTYPE)}),
        files({"dev/sda": folder()}),
    ),
    (
        "F7",
        "warn",
        "/bin/sh",
        files({"usr/bin/sh": Item(mode=0o744)}),
        files({"usr/bin/sh": Item(mode=0o755)}),
    ),
    (
        "F7",
        "warn",
        "/bin/sh",
        files({"usr/bin/.wh.sh": Item()}),
        files({"usr/bin/.wh.shx": Item()}),
    ),
    (
        "F8",
        "error",
        "/usr/local/lib/libx.so.1",
        files(LOCAL, {"usr/local/lib/libx.so.1": binary(elf(soname="libx.so.1"))}),
        files(LOCAL),
    ),
    (
        "F8",
        "error",
        "/usr/local/lib/libmpi.so.12",
        files(LOCAL, {"etc/ld.so.cache": Item(data=b"cut off")}),
        env(LOCAL, {"etc/ld.so.cache": Item(data=b"cut off")}, LD_LIBRARY_PATH="/usr/local/lib"),
    ),
    (
        "F9",
        "warn",
        "/etc/passwd",
        files({"etc/passwd": link("/run/passwd")}),
        files({"etc/passwd": Item(data=b"")}),
    ),
    (
        "F9",
        "warn",
        "/etc/group",
        files({"etc/.wh.group": Item()}),
        files({"etc/.wh.groups": Item()}),
    ),
    ("F10", "warn", f"/{SITE}/p", files(modules(12, 5)), files(modules(12, 7))),
    (
        "F11",
        "warn",
        f"/{SITE}/p/m0.py",
        files(modules(1, 1, flags=0, mtime=8)),
        files(modules(1, 1, flags=0)),
    ),
    (
        "F11",
        "warn",
        f"/{SITE}/p/m0.py",
        files(modules(1, 1, flags=0, size=2)),
        files(modules(1, 1, mtime=8)),
    ),
    (
        "F12",
        "error",
        "/home",
        files({"home": link("/opt/home"), "opt/home": folder()}),
        files({"home": link("opt/home"), "opt/home": folder()}),
    ),
    (
        "F12",
        "error",
        "/var",
        files({"var": link("srv")}),
        files({"var": folder(), "srv": link("x")}),
    ),
    ("F12", "error", "/proc", files({"proc": Item()}), files({"process": Item()})),
    (
        "F12",
        "warn",
        "/var/tmp",
        files({"var/tmp": link("/tmp")}),
        files({"var/tmp": folder(0o1777)}),
    ),
    (
        "F14",
        "error",
        "/opt/x",
        files({"opt/x": hard("opt/y")}),
        files({"opt/y": Item(), "opt/x": hard("opt/y")}),
    ),
    ("F15", "info", "/opt/x", files({"opt/x": folder(0o555)}), files({"opt/x": folder(0o755)})),
    ("C1", "warn", "USER", config(User="1000:1000"), config(User="root:root")),
    ("C1", "warn", "WORKDIR", config(WorkingDir="/work"), config(WorkingDir="/")),
    ("C1", "warn", "VOLUME", config(Volumes={"/data": {}}), config(Volumes={})),
    (
        "C1",
        "warn",
        "HEALTHCHECK",
        config(Healthcheck={"Test": ["CMD", "x"]}),
        config(Healthcheck={"Test": ["NONE"]}),
    ),
    (
        "C2",
        "warn",
        "ENTRYPOINT",
        config(Entrypoint=["/usr/bin/gosu", "me"]),
        config(Entrypoint=["/usr/bin/gosus"]),
    ),
    *(
        ("C2", "warn", "ENTRYPOINT", config(Entrypoint=[name]), config(Entrypoint=[f"x{name}"]))
        for name in ("su-exec", "sudo", "runuser", "setpriv", "chroot", "/sbin/init")
    ),
    ("C2", "warn", "CMD", config(Cmd=["/init"]), config(Cmd=["/opt/init"])),
    (
        "C3",
        "warn",
        "CMD",
        config({"work/app.py": Item()}, Cmd=["python", "app.py"], WorkingDir="/work"),
        config({"work/app.py": Item()}, Cmd=["python", "/work/app.py"], WorkingDir="/work"),
    ),
    (
        "M1",
        "error",
        "/usr/bin/hpl",
        files({"usr/bin/hpl": binary(elf(needed=["libmpich.so.12"]))}),
        files(LOCAL, {"usr/bin/hpl": binary(USER)}),
    ),
    (
        "M1",
        "error",
        "/usr/bin/hpl",
        files(
            {
                "usr/bin/hpl": binary(
                    elf(program=True, static=True, defines=["PMPI_Init", "MPI_Init"])
                )
            }
        ),
        files({"usr/bin/hpl": binary(elf(program=True, static=True, wants=["MPI_Init"]))}),
    ),
    (
        "M1",
        "error",
        "/opt/x.so",
        files({"opt/x.so": binary(elf(defines=["MPI_Send"]))}),
        # A tool that wraps MPI, and a user of MPI that is not one.
        files({"opt/x.so": binary(elf(defines=["MPI_Send"], wants=["PMPI_Init"]))}),
    ),
    (
        "M2",
        "error",
        "/opt/x.so",
        files({"opt/x.so": binary(USER)}),
        files(LOCAL, {"opt/x.so": binary(USER)}),
    ),
    ("M2", "error", "libmpi.so.12", Image(mpi="mpich"), files(LOCAL, mpi="mpich")),
    (
        "M2",
        "error",
        "libmpi.so.40",
        files(LOCAL, mpi="openmpi"),
        files({"usr/lib/libmpi.so.40": binary(OPENMPI)}, mpi="openmpi"),
    ),
    (
        "M2",
        "error",
        f"/{SITE}/mpi4py/MPI.mpich.cpython-313-x86_64-linux-gnu.so",
        files(WHEEL, VENV),
        files(WHEEL, VENV, LOCAL),
    ),
    (
        "M3",
        "error",
        "/opt/x.so",
        files(LOCAL, {"opt/x.so": binary(elf(needed=["libmpi.so.12"], rpath="/usr/local/lib"))}),
        files(LOCAL, {"opt/x.so": binary(elf(needed=["libmpi.so.12"], runpath="/usr/local/lib"))}),
    ),
    (
        "M3",
        "error",
        "/usr/local/bin/x",
        files(
            LOCAL, {"usr/local/bin/x": binary(elf(needed=["libmpi.so.12"], rpath="$ORIGIN/../lib"))}
        ),
        files(
            LOCAL, {"usr/local/bin/x": binary(elf(needed=["libmpi.so.12"], rpath="$ORIGIN/lib"))}
        ),
    ),
    (
        "M3",
        "error",
        "/usr/local/bin/x",
        files(
            LOCAL,
            {
                "usr/local/bin/x": binary(
                    elf(needed=["libmpi.so.12"], rpath="/nowhere:${ORIGIN}/../lib")
                )
            },
        ),
        # A RUNPATH beside it makes the loader pass over RPATH.
        files(
            LOCAL,
            {
                "usr/local/bin/x": binary(
                    elf(needed=["libmpi.so.12"], rpath="$ORIGIN/../lib", runpath="/x")
                )
            },
        ),
    ),
    (
        "M3",
        "error",
        "/usr/local/lib/libhdf5.so.1",
        # The program's RPATH counts for what its libraries need.
        files(
            LOCAL,
            {
                "usr/local/lib/libhdf5.so.1": binary(
                    elf(soname="libhdf5.so.1", needed=["libmpi.so.12"])
                ),
                "usr/bin/h5": binary(
                    elf(program=True, needed=["libhdf5.so.1"], rpath="/usr/local/lib")
                ),
            },
        ),
        files(
            LOCAL,
            {
                "usr/local/lib/libhdf5.so.1": binary(
                    elf(soname="libhdf5.so.1", needed=["libmpi.so.12"], runpath="/usr/local/lib")
                ),
                "usr/bin/h5": binary(
                    elf(program=True, needed=["libhdf5.so.1"], rpath="/usr/local/lib")
                ),
            },
        ),
    ),
    (
        "M3",
        "error",
        f"/{SITE}/x.so",
        # conda's Python has an RPATH, and imports the module.
        files(
            VENV,
            LOCAL,
            {
                f"{SITE}/x.so": binary(USER),
                "usr/bin/python3.13": binary(elf(program=True, rpath="$ORIGIN/../local/lib")),
            },
        ),
        files(
            VENV,
            LOCAL,
            {
                f"{SITE}/x.so": binary(USER),
                "usr/bin/python3.13": binary(elf(program=True, runpath="$ORIGIN/../local/lib")),
            },
        ),
    ),
    (
        "M3",
        "error",
        "/opt/conda/lib/python3.13/site-packages/mpi4py/MPI.so",
        # As conda builds it: the RPATH leads to the prefix.
        files(CONDA, CONDA_MPI, {CONDA_MODULE: binary(elf(needed=["libmpi.so.12"], rpath=UP))}),
        files(CONDA, CONDA_MPI, {CONDA_MODULE: binary(elf(needed=["libmpi.so.12"], runpath=UP))}),
    ),
    (
        "M4",
        "error",
        f"/{SITE}/mpi4py",
        files(VENV, WHEEL, {"opt/venv/lib/libmpi.so.12": binary(MPICH)}),
        env(VENV, WHEEL, {"opt/venv/lib/libmpi.so.12": binary(MPICH)}, MPI4PY_MPIABI="mpich"),
    ),
    (
        "M4",
        "error",
        f"/{SITE}/mpi4py",
        env(
            VENV,
            WHEEL,
            {"opt/venv/lib/libmpi.so": binary(MPICH)},
            MPI4PY_LIBMPI="/opt/venv/lib/libmpi.so",
        ),
        files(VENV, WHEEL, LOCAL),
    ),
    (
        "M4",
        "error",
        f"/{SITE}/mpi4py",
        # What a bare name leads to, the loader says.
        env(VENV, WHEEL, IN_VENV, MPI4PY_LIBMPI="./libmpi.so.12"),
        env(VENV, WHEEL, IN_VENV, MPI4PY_LIBMPI="libmpi.so.12"),
    ),
    (
        "M4",
        "error",
        f"/{SITE}/mpi4py",
        files(VENV, WHEEL, {"opt/venv/lib/libmpi.so.12": binary(MPICH)}),
        # Built from its sdist, it has one module and no search of its own.
        files(
            VENV,
            {f"{SITE}/mpi4py/MPI.cpython-313-x86_64-linux-gnu.so": binary(USER)},
            {"opt/venv/lib/libmpi.so.12": binary(MPICH)},
        ),
    ),
    (
        "M5",
        "warn",
        "/usr/local/lib/libmpi.so.12",
        files(LOCAL, {"usr/lib/libmpi.so.40": binary(OPENMPI)}),
        files(LOCAL, {"usr/lib/libmpi.so.12": binary(MPICH)}),
    ),
    (
        "M5",
        "warn",
        "/var/lib/dpkg/info/libmpich-dev:amd64.list",
        files(LOCAL, {"var/lib/dpkg/info/libmpich-dev:amd64.list": Item()}),
        files(LOCAL, {"var/lib/dpkg/info/libmpich12:amd64.list": Item()}),
    ),
    (
        "M5",
        "warn",
        "/var/lib/dpkg/info/libopenmpi-dev.list",
        files(LOCAL, {"var/lib/dpkg/info/libopenmpi-dev.list": Item()}),
        files(LOCAL, {"var/lib/dpkg/info/libopenmpi3.list": Item()}),
    ),
    (
        "M6",
        "info",
        "glibc",
        files(
            LOCAL,
            {
                "usr/lib/libc.so.6": binary(
                    elf(soname="libc.so.6", strings=["GLIBC_2.2.5", "GLIBC_2.41"])
                )
            },
        ),
        files({"usr/lib/libc.so.6": binary(elf(soname="libc.so.6", strings=["GLIBC_2.41"]))}),
    ),
    ("M7", "info", "ENV LD_LIBRARY_PATH", env(LD_LIBRARY_PATH="/opt/lib"), env(LD_LIBRARY_PATH="")),
    ("F1", "error", "/opt/d", files({"opt/d": folder(0o754)}), files({"opt/d": folder(0o705)})),
    (
        "F8",
        "error",
        "/usr/local/lib/libx.so.1.2",
        files(LOCAL, {"usr/local/lib/libx.so.1.2": binary(elf(soname="libx.so.1"))}),
        # The cache has the soname, not the file's name.
        files(
            LOCAL,
            {
                "usr/local/lib/libx.so.1.2": binary(elf(soname="libx.so.1")),
                "etc/ld.so.cache": Item(data=cache_of({"libx.so.1": "/usr/local/lib/libx.so.1"})),
            },
        ),
    ),
    (
        "M3",
        "error",
        "/usr/local/lib/liba.so",
        files(
            LOCAL,
            {
                "usr/local/lib/liba.so": binary(elf(needed=["libmpi.so.12"])),
                "usr/bin/a": binary(elf(needed=["liba.so"], rpath="/usr/local/lib")),
            },
        ),
        # The RUNPATH of what loads it makes the loader pass over that one's RPATH.
        files(
            LOCAL,
            {
                "usr/local/lib/liba.so": binary(elf(needed=["libmpi.so.12"])),
                "usr/bin/a": binary(elf(needed=["liba.so"], rpath="/usr/local/lib", runpath="/x")),
            },
        ),
    ),
]


@pytest.mark.parametrize(
    ("name", "level", "place", "faulty", "sound"),
    TABLE,
    ids=[f"{row[0]}-{row[2]}" for row in TABLE],
)
def test_a_fault_is_found_and_what_nearly_is_one_is_not(
    tmp_path: Path, name: str, level: str, place: str, faulty: Image, sound: Image
) -> None:
    def report(image: Image) -> list[str]:
        found = examined(
            tmp_path, image.files, config=image.config, env=image.env, mpi=image.mpi, **image.more
        )
        return where(found, name, level)

    assert place in report(faulty)
    assert place not in report(sound)


@pytest.mark.parametrize(
    ("closed", "near"),
    [
        ("etc/gshadow-", "etc/ssl/gshadow"),
        ("etc/.pwd.lock", "etc/.pwd.locks"),
        ("etc/ssl/private/x", "etc/ssl/privacy"),
        ("var/cache/ldconfig/aux-cache", "var/cache/ldconf"),
        ("var/cache/apt/archives/lock", "var/cache/aptitude"),
    ],
)
def test_what_is_closed_in_every_distribution_is_no_finding(
    tmp_path: Path, closed: str, near: str
) -> None:
    report = examined(tmp_path, {closed: Item(mode=0o600), near: Item(mode=0o600)})
    assert where(report, "F1") == [f"/{near}"]


def test_what_runs_on_another_architecture_too(tmp_path: Path) -> None:
    """A4: 32-bit programs; each machine runs its own family's."""
    programs = {"usr/bin/arm": binary(elf(machine=40)), "usr/bin/x86": binary(elf(machine=3))}
    examined(tmp_path, programs)
    for platform, other in (("linux/arm64", "/usr/bin/x86"), ("linux/amd64", "/usr/bin/arm")):
        report = portability.examine(tmp_path / "image.tar", platform=platform)
        assert [path for path in where(report, "A4", "error") if "/" in path] == [other]


@pytest.mark.parametrize(
    ("layers", "do"),
    [
        ((CONDA, CONDA_MPI), "bind the host's library over /opt/conda/lib/libmpi.so.12"),
        ((CONDA_MPI,), "link with -Wl,--enable-new-dtags"),
    ],
)
def test_what_to_do_about_an_rpath(tmp_path: Path, layers: tuple[Layer, ...], do: str) -> None:
    module = {CONDA_MODULE: binary(elf(needed=["libmpi.so.12"], rpath=UP))}
    report = examined(tmp_path, files(*layers, module).files)
    (found,) = [finding for finding in report.findings if finding.id == "M3"]
    assert "its DT_RPATH leads to /opt/conda/lib/libmpi.so.12" in found.effect
    assert do in found.mend


def test_an_image_without_fault_has_no_findings(tmp_path: Path) -> None:
    assert examined(tmp_path).findings == ()


def test_every_check_has_an_image_with_the_fault_and_one_that_nearly_has_it() -> None:
    """Counted by the ids that stand in the checks themselves; each row of a table has both."""
    package = Path(portability.__file__).parent
    texts = [path.read_text() for path in sorted(package.glob("*.py"))]
    checks = {name for text in texts for name in re.findall(r'"([AEFCM][1-9][0-9]?)"', text)}
    assert checks == {
        f"{family}{number}"
        for family, last in (("A", 5), ("E", 12), ("F", 15), ("C", 3), ("M", 7))
        for number in range(1, last + 1)
    }
    assert {row[0] for row in TABLE} | {row[0] for row in archive_table.TABLE} == checks
