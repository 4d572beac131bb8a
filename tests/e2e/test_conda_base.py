"""A base that has conda: a real one, of 4.3.16, installs the locked packages, with no network."""

from __future__ import annotations

import json
import re
import sys
import tarfile
from collections.abc import Iterator
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import IO, cast

import pytest

from lading.store import Store
from tests.e2e.conftest import Copy
from tests.engine.test_conda import ACTIVATE, AFTER, MODULE
from tests.support import images, miniconda
from tests.support.channels import PLACEHOLDER, Channel

SHORT = ".".join(map(str, sys.version_info[:2]))
PROJECT = """\
lading: 1
name: lab
bases:
  miniconda3: {{image: "{registry}/continuumio/miniconda3:4.3.16"}}
images:
  installed:
    base: miniconda3
    conda: {{channels: [lab], packages: [tool=2], installer: conda}}
    test:
      - test "$(tool)" = "/opt/conda /opt/conda/share/tool"
      - test "$(cat /opt/conda/made)" = "tool 2.0 in /opt/conda"
      - test "$CONDA_PREFIX" = /opt/conda
      - python -c "import module; open(module.__cached__); assert module.PREFIX == '/opt/conda'"
      - test "$(conda list tool | sed -n '/^tool/p')"
  topped:
    base: miniconda3
    conda:
      channels: [lab]
      packages: [tool=2]
      installer: conda
      environments: {{aside: {{packages: [tool=1]}}}}
    pip: {{requirements: requirements.in}}
    test:
      - test "$(command -v python)" = /opt/conda/bin/python
      - python -c "import module, requests_toolbelt as top; assert '/opt/conda/' in top.__file__"
      - test "$(conda list tool | sed -n '/^tool/p')"
      - test "$(/opt/aside/bin/tool)" = "/opt/aside /opt/conda/share/tool"
  exported:
    base: miniconda3
    conda: {{channels: [lab], packages: [tool<2], installer: conda, locker: conda-export}}
    test:
      - test "$(tool)" = "/opt/conda /opt/conda/share/tool"
"""


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Channel]:
    """conda itself, and what it is to install: as `.tar.bz2`, which 4.3 reads."""
    with Channel(tmp_path_factory.mktemp("channel")) as found:
        # As it is on the channel, its bytecode is valid by times that an archive does not keep.
        module = f"lib/python{SHORT}/site-packages/module"
        stale = f"{module}/__pycache__/__init__.cpython-{SHORT.replace('.', '')}.pyc"
        files = {f"{module}/__init__.py": MODULE, stale: MAGIC_NUMBER + bytes(12)}
        found.package("module", "1.0", files, format=".tar.bz2")
        for version in ("1.0", "2.0"):
            found.crafted(
                "tool",
                version,
                [
                    ("bin/tool", f"#!/bin/sh\necho {PLACEHOLDER} $TOOL_HOME\n".encode()),
                    ("bin/.tool-post-link.sh", AFTER.encode()),
                    ("etc/conda/activate.d/tool.sh", ACTIVATE.encode()),
                ],
                placeholders={"bin/tool": "text"},
                depends=["module"],
            )
        yield found


@pytest.fixture(scope="module")
def miniconda3(channel: Channel, cache: Path) -> images.TinyImage:
    """The base."""
    miniconda.packages(channel, Store(cache))
    image = miniconda.image(channel, Store(cache))
    # What the base has stays what it has: it is not locked anew.
    for name in [*miniconda.FETCHED, *miniconda.OURS]:
        for file in list(channel.records["linux-64"]):
            if file.startswith(f"{name}-"):
                channel.drop(file)
    return image


@pytest.fixture
def lab(project: Copy, channel: Channel, miniconda3: images.TinyImage, registry: str) -> Copy:
    """A project on the base, which a registry has."""
    images.push(miniconda3, registry, "continuumio/miniconda3", "4.3.16")
    project.write("project.yaml", PROJECT.format(registry=registry))
    project.write("requirements.in", "requests-toolbelt==1.0.0\n")
    return Copy(
        root=project.root,
        environ={**project.environ, "CONDA_CHANNEL_ALIAS": channel.alias},
    )


def lines(path: Path) -> list[str]:
    """The packages of an explicit.txt, without their hashes."""
    return [
        line.partition("#")[0].removeprefix("channel:///")
        for line in path.read_text().splitlines()
        if "#sha256:" in line
    ]


ARCHIVES: set[str] = set()
"""The sha256 of what each engine's build came to."""


def test_the_bases_own_conda_installs(lab: Copy) -> None:
    lab.done("archive:installed")
    facts = (lab.root / "locks/bases/miniconda3/linux-amd64/base.yaml").read_text()
    assert 'conda: "/opt/conda"' in facts
    assert f'conda_version: "{miniconda.VERSION}"' in facts
    text = (lab.root / "build/installed/context/Dockerfile").read_text()
    assert "conda install -y -p /opt/conda --no-deps --offline" in text
    assert 'CONDA_PREFIX="/opt/conda"' in text
    with tarfile.open(lab.root / "dist/installed.tar") as archive:
        added = layers(archive)[-1]
    meta = json.loads(added["opt/conda/conda-meta/module-1.0-0.json"])
    assert meta["channel"] == "lab"
    assert meta["url"] == "channel:///lab/linux-64/module-1.0-0.tar.bz2"
    history = added["opt/conda/conda-meta/history"].decode()
    assert len(set(re.findall("^==> .*", history, re.MULTILINE))) == 1
    assert "+lab::tool-2.0-0\n" in history, history
    cached = next(name for name in added if "/module/__pycache__/" in name)
    assert added[cached][4:8] == b"\1\0\0\0"  # PEP 552: by hash, not to be checked
    # Nothing of the build is left in it.
    left = ("root", "dev", "opt/conda/pkgs/cache")
    assert not [name for name in added if name.startswith(left)]
    assert not [name for name in added if name.endswith((".tar.bz2", ".conda"))]
    assert not [name for name, data in added.items() if b"/dev/shm" in data]

    ARCHIVES.add(json.loads((lab.root / "dist/installed.json").read_text())["sha256"])
    assert len(ARCHIVES) == 1

    said = lab.done("env:installed")
    assert "+TOOL_HOME=/opt/conda/share/tool  # etc/conda/activate.d/tool.sh\n" in said
    assert "+PATH=/opt/conda/share/tool/bin:$PATH  # " in said


def test_a_trial_install_is_locked(lab: Copy, channel: Channel) -> None:
    lab.done("check:exported")
    folder = lab.root / "locks/images/exported/linux-amd64"
    assert sorted(lines(folder / "explicit.txt")) == [
        "lab/linux-64/module-1.0-0.tar.bz2",
        "lab/linux-64/tool-1.0-0.tar.bz2",
    ]
    assert "127.0.0.1" not in (folder / "conda.lock").read_text()
    assert "nothing to do" in lab.done("lock:exported")


def test_pip_on_top_of_what_the_bases_own_conda_has(lab: Copy) -> None:
    said = lab.done("check:topped")
    assert "F10" not in said, "its bytecode is there"
    folder = lab.root / "locks/images/topped/linux-amd64"
    # What it needs the base has, from a conda package that is not locked.
    pins = re.findall("^([a-z-]+)==", (folder / "requirements.txt").read_text(), re.MULTILINE)
    assert pins == ["requests-toolbelt"]
    said = (folder / "prefix.yaml").read_text()
    assert '\n  requests: "' in said
    assert '\n  module: "' not in said  # the package has no metadata of Python's
    assert "nothing to do" in lab.done("check:topped")

    lab.write("requirements.in", "requests[socks]\n")
    refused = lab.doit("lock:topped")
    assert refused.code == 3
    assert "conda installs requests" in refused.output


def layers(archive: tarfile.TarFile) -> list[dict[str, bytes]]:
    """What the layers of a docker-archive hold: the files' contents by name."""
    file = archive.extractfile("manifest.json")
    assert file is not None
    found = []
    for name in json.loads(file.read())[0]["Layers"]:
        with tarfile.open(fileobj=archive.extractfile(name)) as layer:
            members = [member for member in layer if member.isfile()]
            found.append({m.name: cast(IO[bytes], layer.extractfile(m)).read() for m in members})
    return found
