"""The conda layer, whole: from a channel to an image that Apptainer runs with no activation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Copy
from tests.engine.test_conda import ACTIVATE, MODULE
from tests.support.apptainer import Apptainer
from tests.support.channels import PLACEHOLDER, Channel, python

PROJECT = """\
lading: 1
name: lab
bases:
  debian-13: {debian: {suite: trixie, packages: [python3]}}
images:
  lab:
    base: debian-13
    conda: {channels: [lab], file: recipes/lab/environment.yaml}
    test: [tool, python -c "import module"]
"""


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    found = Channel(tmp_path / "channel")
    python(found)
    found.package(
        "module",
        "1.0",
        {"site-packages/module/__init__.py": MODULE},
        noarch="python",
        depends=["python"],
    )
    found.crafted(
        "tool",
        "2.0",
        [
            ("bin/tool", f"#!/bin/sh\necho {PLACEHOLDER} $TOOL_HOME\n".encode()),
            ("etc/conda/activate.d/tool.sh", ACTIVATE.encode()),
        ],
        placeholders={"bin/tool": "text"},
        depends=["module"],
    )
    return found


def test_from_a_channel_to_apptainer(
    on_docker: Copy, apptainer: Apptainer, channel: Channel, tmp_path: Path
) -> None:
    on_docker.write("project.yaml", PROJECT)
    on_docker.write("recipes/lab/environment.yaml", "name: lab\ndependencies: [tool=2, python]\n")
    with channel:
        output = on_docker.done("archive:lab", CONDA_CHANNEL_ALIAS=channel.alias)
        assert "name: ignored" in output
        # A second run finds nothing to do, and asks no channel.
        asked = len(channel.requests)
        assert "nothing to do" in on_docker.done("archive:lab", CONDA_CHANNEL_ALIAS=channel.alias)
        assert len(channel.requests) == asked
    report = json.loads((on_docker.root / "build/lab/check.json").read_text())
    assert report["passed"]
    # No server's name went along.
    assert "127.0.0.1" not in (on_docker.root / "build/lab/context/Dockerfile").read_text()

    sif = tmp_path / "lab.sif"
    quick = ("--mksquashfs-args", "-comp zstd -Xcompression-level 1")
    apptainer.run("build", *quick, str(sif), f"docker-archive:{on_docker.root}/dist/lab.tar")
    assert apptainer.run("exec", str(sif), "tool") == "/opt/conda /opt/conda/share/tool\n"
    look = "import module, sys; print(module.PREFIX, sys.executable)"
    assert apptainer.run("exec", str(sif), "python", "-c", look).split() == [
        "/opt/conda",
        "/opt/conda/bin/python",
    ]

    # From the locks alone, with the channel gone, a prefix is staged anew out of the store.
    on_docker.run("rm", "-rf", "build", "dist", *derived(on_docker))
    on_docker.done("dockerfile:lab", CONDA_CHANNEL_ALIAS="http://127.0.0.1:9")
    assert (on_docker.root / "build/lab/context/conda/prefix.tar").exists()


def derived(project: Copy) -> list[str]:
    return [str(path) for path in Path(project.environ["LADING_CACHE"]).rglob("prefix.tar")]
