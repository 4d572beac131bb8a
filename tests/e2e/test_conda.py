"""The conda layer, whole: from a channel to an image that Apptainer runs with no activation."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Copy
from tests.engine.test_conda import ACTIVATE, MODULE
from tests.support.apptainer import Apptainer
from tests.support.channels import PLACEHOLDER, Channel, python
from tests.support.index import Index

PROJECT = """\
lading: 1
name: lab
bases:
  debian-13: {debian: {suite: trixie, packages: [python3]}}
images:
  lab:
    base: debian-13
    apt: {run: [bc]}
    conda:
      channels: [lab]
      file: recipes/lab/environment.yaml
      environments:
        aside: {packages: [other]}
    pip: {requirements: recipes/lab/requirements.in}
    test:
      - tool
      - python -c "import module, six, onpip, fromsource"
      - onpip
      - /opt/aside/bin/other
      - echo 1+1 | bc
"""
ENVIRONMENT = """\
name: lab
dependencies:
  - tool=2
  - python
  - six
  - pip:
      - onpip
"""
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
BACKEND = """\
import sys, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "fromsource-1.0-py3-none-any.whl"
    info = "fromsource-1.0.dist-info"
    with zipfile.ZipFile(folder + "/" + name, "w") as made:
        for file, text in {
            "fromsource.py": "BUILT_BY = " + repr(sys.base_prefix),
            info + "/METADATA": "Metadata-Version: 2.1\\nName: fromsource\\nVersion: 1.0\\n",
            info + "/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
            info + "/RECORD": "",
        }.items():
            made.writestr(zipfile.ZipInfo(file), text)
    return name
"""
PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""


@pytest.fixture
def index() -> Iterator[Index]:
    """What pip is asked for: a wheel with a program, and something that has no wheel."""
    with Index() as found:
        found.wheel(
            "onpip",
            "1.0",
            requires=["six>=1.5"],
            files={
                "onpip/__init__.py": b"import six\n\ndef main():\n    print(six.CAME)\n",
                "onpip/tests/__init__.py": b"",
                "onpip-1.0.dist-info/entry_points.txt": b"[console_scripts]\nonpip = onpip:main\n",
            },
        )
        found.wheel("six", "1.17.0")
        found.sdist("fromsource", "1.0", {"pyproject.toml": PYPROJECT, "backend.py": BACKEND})
        yield found


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    """A channel with an older six than pip would take."""
    found = Channel(tmp_path / "channel")
    python(found)
    found.package(
        "module",
        "1.0",
        {"site-packages/module/__init__.py": MODULE},
        noarch="python",
        depends=["python"],
    )
    found.package(
        "six",
        "1.5.1",
        {
            "site-packages/six.py": 'CAME = "from conda"\n',
            "site-packages/six-1.5.1.dist-info/METADATA": "Name: six\nVersion: 1.5.1\n",
        },
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
    found.crafted(
        "other",
        "1.0",
        [("bin/other", f"#!/bin/sh\necho {PLACEHOLDER}\n".encode())],
        placeholders={"bin/other": "text"},
    )
    return found


def test_from_a_channel_to_apptainer(
    on_docker: Copy, apptainer: Apptainer, channel: Channel, index: Index
) -> None:
    on_docker.write("project.yaml", PROJECT)
    on_docker.write("recipes/lab/environment.yaml", ENVIRONMENT)
    on_docker.write("recipes/lab/requirements.in", "fromsource\n")
    with channel:
        own = {"CONDA_CHANNEL_ALIAS": channel.alias, "UV_INDEX": index.url}
        output = on_docker.done("archive:lab", **own)
        assert "name: ignored" in output
        # A second run finds nothing to do, and asks no channel.
        asked = len(channel.requests)
        assert "nothing to do" in on_docker.done("archive:lab", **own)
        assert len(channel.requests) == asked
    report = json.loads((on_docker.root / "build/lab/check.json").read_text())
    assert report["passed"]
    said = {test["command"]: test["output"] for test in report["tests"]}
    assert said["onpip"] == "from conda\n", "what conda has installed satisfies pip"
    # No server's name went along.
    assert "127.0.0.1" not in (on_docker.root / "build/lab/context/Dockerfile").read_text()
    locks = on_docker.root / "locks/images/lab/linux-amd64"
    assert "six" not in (locks / "requirements.txt").read_text()
    assert (locks / "conda/aside/conda.lock").exists()
    # What is in it, and who has brought it; no server's name there either.
    sbom = (on_docker.root / "dist/lab.cdx.json").read_text()
    assert "127.0.0.1" not in sbom
    components = {one["bom-ref"].partition("@")[0]: one for one in json.loads(sbom)["components"]}
    assert {ref for ref in components if ref.startswith("pkg:conda/")} == {
        f"pkg:conda/{name}" for name in ("tool", "six", "other", "module", "python")
    }
    assert "channel=lab" in components["pkg:conda/tool"]["purl"]
    assert components["pkg:conda/tool"]["hashes"]
    assert {ref for ref in components if ref.startswith("pkg:pypi/") and ref != "pkg:pypi/uv"} == {
        "pkg:pypi/onpip",
        "pkg:pypi/fromsource",
    }
    assert "pkg:deb/debian/bc" in components

    assert "lab, with traps: onpip" in on_docker.done("sif:lab", PATH=apptainer.path)
    sif = on_docker.root / "dist/lab.sif"
    assert apptainer.run("exec", str(sif), "tool") == "/opt/conda /opt/conda/share/tool\n"
    assert apptainer.run("exec", str(sif), "/opt/aside/bin/other") == "/opt/aside\n"
    assert apptainer.run("exec", str(sif), "onpip") == "from conda\n"
    look = (
        "import module, onpip, fromsource, sys; "
        "print(module.PREFIX, sys.executable, onpip.__file__, fromsource.BUILT_BY)"
    )
    assert apptainer.run("exec", str(sif), "python", "-c", look).split() == [
        "/opt/conda",
        "/opt/conda/bin/python",
        f"/opt/conda/lib/{PYTHON}/site-packages/onpip/__init__.py",
        "/opt/conda",
    ]

    # Another set of pip's packages: of all layers but theirs (and the locks') the bytes are the
    # same, and no channel is asked.
    before = layers(on_docker)
    on_docker.write("recipes/lab/requirements.in", "\n")
    on_docker.replace("project.yaml", "onpip, fromsource", "onpip")
    on_docker.done("archive:lab", CONDA_CHANNEL_ALIAS="http://127.0.0.1:9", UV_INDEX=index.url)
    after = layers(on_docker)
    assert [one == other for one, other in zip(before, after, strict=True)] == [
        *(True, False),  # the base; the system, with the locks
        *(True, False, True),  # /opt/conda, what pip has there, /opt/aside
    ]

    # From the locks alone, with the channel gone, a prefix is staged anew out of the store.
    on_docker.run("rm", "-rf", "build", "dist", *derived(on_docker))
    on_docker.done("dockerfile:lab", CONDA_CHANNEL_ALIAS="http://127.0.0.1:9")
    assert (on_docker.root / "build/lab/context/conda/prefix.tar").exists()
    assert (on_docker.root / "build/lab/context/conda/aside/prefix.tar").exists()


def layers(project: Copy) -> list[str]:
    record = json.loads((project.root / "dist/lab.json").read_text())
    return [layer["diff_id"] for layer in record["layers"]]


def derived(project: Copy) -> list[str]:
    return [str(path) for path in Path(project.environ["LADING_CACHE"]).rglob("prefix.tar")]
