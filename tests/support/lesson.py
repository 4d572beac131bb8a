"""The lesson's bases, as stand-ins that take seconds: what of each one lading looks at.

Their files, users and variables are where the real images have them; what they have of a system is
this machine's shell and libraries, and their Python is this one.
"""

from __future__ import annotations

import io
import json
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from lading.store import Store
from tests.support import images, miniconda
from tests.support.channels import Channel

TOOLS = (*images.TOOLS, "bash", "find", "readlink", "sed")
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PASSWD = b"root:x:0:0::/root:/bin/sh\njovyan:x:1000:100::/home/jovyan:/bin/sh\n"


class StandIn(Struct, frozen=True, kw_only=True):
    """A base: its name and tag in the registry, what it has, and what its configuration says.

    os: ID and VERSION_ID of os-release. manager: its package manager's program. python: the prefix
    of a Python; conda: whether a conda is there, too.
    """

    name: str
    tag: str
    os: tuple[str, str]
    manager: str = "apt-get"
    python: str = ""
    conda: bool = False
    path: str = SYSTEM
    env: Mapping[str, str] = {}
    user: str = ""
    home: str = ""
    entrypoint: tuple[str, ...] = ()


CONDA = f"/opt/conda/bin:{SYSTEM}"
INTEL = {"ACCEPT_INTEL_PYTHON_EULA": "yes", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
NOTEBOOK = {"CONDA_DIR": "/opt/conda", "NB_USER": "jovyan", "NB_UID": "1000", "NB_GID": "100"}
ROWS = (
    StandIn(name="library/python", tag="3.9", os=("debian", "12"), python="/usr/local"),
    StandIn(name="library/python", tag="3.9-slim", os=("debian", "12"), python="/usr/local"),
    StandIn(
        name="continuumio/miniconda3", tag="4.10.3", os=("debian", "10"), conda=True, path=CONDA
    ),
    *(
        StandIn(
            name=f"intelpython/intelpython3_{which}",
            tag="2020.2",
            os=("debian", "10"),
            conda=True,
            path=CONDA,
            env=INTEL,
        )
        for which in ("core", "full")
    ),
    StandIn(
        name="jupyter/scipy-notebook",
        tag="latest",
        os=("ubuntu", "22.04"),
        conda=True,
        path=CONDA,
        env={**NOTEBOOK, "LC_ALL": "C.UTF-8", "HOME": "/home/jovyan"},
        user="1000",
        home="/home/jovyan",
        entrypoint=("tini", "-g", "--"),
    ),
    StandIn(name="library/debian", tag="buster", os=("debian", "10")),
    StandIn(name="library/ubuntu", tag="18.04", os=("ubuntu", "18.04")),
    StandIn(name="library/centos", tag="7", os=("centos", "7"), manager="yum"),
)


def pushed(registry: str, channel: Channel, store: Store) -> None:
    """Puts all of them into a registry. `channel` gets a Python, conda and what it needs."""
    miniconda.packages(channel, store)
    library = Path(sysconfig.get_path("stdlib")) / "lib-dynload"
    needed = [Path(sys.prefix) / "bin/uv", *sorted(library.glob("*.so"))]
    system = images.tiny_image(TOOLS, needed).layer
    with tempfile.TemporaryDirectory() as folder:
        conda = miniconda.joined(system, *miniconda.prefix(channel, store, Path(folder)))
        python = miniconda.joined(system, miniconda.laid(channel, store, "/usr/local", ["python"]))
    for row in ROWS:
        below = conda if row.conda else python if row.python else system
        images.push(image(row, below), registry, row.name, row.tag)


def image(row: StandIn, below: bytes) -> images.TinyImage:
    """The image of a row, on the files that rows of its kind share."""
    release = f"ID={row.os[0]}\nVERSION_ID={json.dumps(row.os[1])}\n".encode()
    files = {
        "etc/os-release": (release, 0o644),
        "etc/passwd": (PASSWD, 0o664),
        "etc/group": (b"root:x:0:\nusers:x:100:\n", 0o664),
        f"usr/bin/{row.manager}": (b"#!/bin/sh\nexit 100\n", 0o755),
        # It starts what it is told to behind its options.
        **{
            f"usr/bin/{name}": (b'#!/bin/sh\nshift 2\nexec "$@"\n', 0o755)
            for name in row.entrypoint[:1]
        },
    }
    over = _tar(files, [row.home.strip("/")] if row.home else [])
    environ = {**row.env, "PATH": row.path}
    config = {
        "Env": [f"{name}={value}" for name, value in environ.items()],
        "Cmd": ["/bin/bash"],
        **({"User": row.user} if row.user else {}),
        **({"WorkingDir": row.home} if row.home else {}),
        **({"Entrypoint": list(row.entrypoint)} if row.entrypoint else {}),
    }
    described = {
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [images.digest(one) for one in (below, over)]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "tests"}] * 2,
    }
    return images.TinyImage(config=json.dumps(described).encode(), layer=below, over=over)


def _tar(files: Mapping[str, tuple[bytes, int]], homes: Sequence[str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for home in homes:
            info = tarfile.TarInfo(home)
            info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, 0o755, 1000, 100
            tar.addfile(info)
        for name, (data, mode) in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), mode
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
