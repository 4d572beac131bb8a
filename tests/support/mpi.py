"""An image with an MPI, put together from this machine's Python and from wheels, without a build.

Python, a shell and a few tools, MPICH's wheel in a virtual environment, which the loader knows;
and mpi4py.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lading import net, uv
from lading.checks.mpi import host
from lading.store import Artifact, Source, Store
from tests.support import images

PLATFORM = "linux/amd64"
VENV = "opt/venv"
MPI4PY = "4.1.2"
OWN = "4.3.2"
"""The image's MPICH: an older one that `host-mpi.txt` locks, so that the newest is the host's."""
TOOLS = ("sh", "env", "getconf", "printenv", "readlink", "sed", "timeout")
LEFT_OUT = {"test", "site-packages", "dist-packages", "idlelib", "ensurepip", "lib2to3", "tkinter"}


@dataclass(frozen=True, kw_only=True)
class Made:
    """An image's layers as files, and its name."""

    name: str
    layers: tuple[Path, ...]
    env: Mapping[str, str]

    def write(self, path: Path) -> None:
        """Writes it as a docker-archive."""
        digests = [hashlib.sha256(layer.read_bytes()).hexdigest() for layer in self.layers]
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Env": [f"{name}={value}" for name, value in self.env.items()]},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{one}" for one in digests]},
                "history": [{"created": "1970-01-01T00:00:00Z"} for _ in digests],
            }
        ).encode()
        config_name = f"{hashlib.sha256(config).hexdigest()}.json"
        names = [f"{one}.tar" for one in digests]
        manifest = [{"Config": config_name, "RepoTags": [self.name], "Layers": names}]
        with tarfile.open(path, "w") as tar:
            for name, data in ((config_name, config), ("manifest.json", json.dumps(manifest))):
                content = data if isinstance(data, bytes) else data.encode()
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            for name, layer in zip(names, self.layers, strict=True):
                tar.add(layer, name)


def wheel_of_mpi4py(store: Store) -> Path:
    """mpi4py's wheel for the Python that runs the tests, in the store."""
    version = ".".join(map(str, sys.version_info[:3]))
    target = uv.Target(python_version=version, glibc="2.28", platform=PLATFORM)
    wanted = uv.Version(name="mpi4py", version=MPI4PY)
    files = uv.locate([wanted], target, environment=net.uv_environment(os.environ))
    file = uv.best(files, target)
    assert file is not None
    artifact = Artifact(name=file.file, sha256=file.sha256, size=file.size)

    def sources(_: object) -> Mapping[str, list[Source]]:
        return uv.sources_of([file])

    store.fetch([artifact], sources)
    return store.path(artifact.sha256)


def own_mpi(store: Store) -> host.HostMpi:
    """MPICH as the image has it."""
    pin = host.choose(
        [pin for pin in host.locked() if pin.version == OWN], "mpich", PLATFORM, "", ""
    )
    assert not isinstance(pin, host.NoHost)
    return host.fetched(pin, "mpich", PLATFORM, store, os.environ)


def base_layer(folder: Path, mpi: host.HostMpi) -> Path:
    """Python, tools and MPICH, with a cache for the loader that knows the environment's lib."""
    root = folder / "root"
    for name in ("dev", "etc", "home/user", "proc", "sys", "tmp", "var/tmp", "host"):
        (root / name).mkdir(parents=True)
    for tool in TOOLS:
        program = shutil.which(tool)
        assert program is not None
        _with_libraries(root, Path(program), f"usr/bin/{tool}")
    (root / "bin").mkdir(exist_ok=True)
    (root / "bin/sh").symlink_to("/usr/bin/sh")
    _python(root)
    venv = root / VENV
    (venv / "lib").mkdir(parents=True)
    for name in ("mpiexec", "hydra_pmi_proxy"):
        _with_libraries(root, mpi.folder / "bin" / name, f"{VENV}/bin/{name}")
    unused = shutil.ignore_patterns("libmpi_abi.*")
    shutil.copytree(mpi.folder / "lib", venv / "lib", dirs_exist_ok=True, ignore=unused)
    for library in _libraries(mpi.library):
        if not library.is_relative_to(mpi.folder):
            _copy(root, library, str(library).lstrip("/"))
    (root / "etc/ld.so.conf").write_text(f"/{VENV}/lib\n")
    ldconfig = shutil.which("ldconfig", path="/usr/sbin:/sbin")
    assert ldconfig is not None
    subprocess.run([ldconfig, "-r", root], check=True, capture_output=True)
    return _tar(root, folder / "base.tar")


def _python(root: Path) -> None:
    """The Python that runs this, where it is here; and a virtual environment of it."""
    base = Path(sys.base_prefix)
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    program = base / "bin" / name
    _with_libraries(root, program, str(program).lstrip("/"))
    library = Path(sysconfig.get_path("stdlib", vars={"base": str(base)}))
    shutil.copytree(
        library,
        root / str(library).lstrip("/"),
        ignore=lambda _, names: [
            one for one in names if one in LEFT_OUT or one.startswith("config-")
        ],
    )
    for extension in ("_ctypes", "zlib"):
        for path in library.glob(f"lib-dynload/{extension}.*"):
            _with_libraries(root, path, str(path).lstrip("/"))
    venv = root / VENV
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to(program)
    (venv / "pyvenv.cfg").write_text(f"home = {program.parent}\n")


def _with_libraries(root: Path, path: Path, name: str) -> None:
    _copy(root, path, name)
    for library in _libraries(path):
        _copy(root, library, str(library).lstrip("/"))


def _libraries(path: Path) -> list[Path]:
    linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    return [Path(library) for library in re.findall(r"(/\S+) \(0x", linked)]


def _copy(root: Path, source: Path, name: str) -> None:
    target = root / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def _tar(root: Path, path: Path) -> Path:
    def readable(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = 0
        info.mtime = int(info.mtime)  # else the bytecode is stale
        info.uname = info.gname = ""
        info.mode |= 0o555 if info.isdir() else 0o444
        return info

    with tarfile.open(path, "w") as tar:
        for one in sorted(root.iterdir()):
            tar.add(one, one.name, filter=readable)
    return path


def made(folder: Path, base: Path, wheel: Path) -> Made:
    """The image."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    root = folder / "mpi4py"
    packages = root / VENV / "lib" / name / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    return Made(
        name=f"{images.BASE.rpartition('/')[0]}/test-mpi:1",
        layers=(base, _tar(root, folder / "mpi4py.tar")),
        env={"PATH": f"/{VENV}/bin:/usr/bin", "MPI4PY_MPIABI": "mpich"},
    )
