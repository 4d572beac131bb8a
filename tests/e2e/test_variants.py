"""A matrix, made and tested for real, and locked for a platform that does not run here."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.e2e.conftest import Copy

PROJECT = """\
lading: 1
name: variants
platform: [linux/amd64, linux/arm64]
bases:
  debian-13: {debian: {suite: trixie, packages: [python3]}}
images:
  tiny:
    matrix:
      six: [1.16.0, 1.17.0]
      yaml: [6.0.2, 6.0.3]
      name: tiny-{six}
      exclude: [{six: 1.16.0, yaml: 6.0.3}, {six: 1.17.0, yaml: 6.0.2}]
    base: debian-13
    pip: {requirements: recipes/tiny.in}
    labels: {org.example.six: "{six}"}
    test:
      - python -c "import six; assert six.__version__ == '{six}'"
      - python -c "import yaml; assert yaml.__version__ == '{yaml}'"
"""
NOWHERE = "unix:///nonexistent/engine.sock"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="its other platform is linux/arm64")
def test_variants_are_made_here_and_locked_for_elsewhere(on_docker: Copy) -> None:
    shutil.rmtree(on_docker.root / "locks/images")
    on_docker.write("project.yaml", PROJECT)
    on_docker.write("recipes/tiny.in", "six=={six}\npyyaml=={yaml}\n")

    # No engine is asked for it.
    output = on_docker.done("lock:tiny@linux-arm64", DOCKER_HOST=NOWHERE)
    assert "lock       tiny-1.17.0@linux-arm64  " in output
    wheel = "pyyaml-6.0.3-cp313-cp313-manylinux2014_aarch64"
    lock = on_docker.root / "locks/images/tiny-1.17.0/linux-arm64/requirements.txt"
    assert wheel in lock.read_text()

    output = on_docker.done("archive:tiny")
    assert "2 tests passed" in output
    found = {path.name for path in (on_docker.root / "dist").glob("*.tar")}
    assert found == {"tiny-1.16.0.tar", "tiny-1.17.0.tar"}
    for six in ("1.16.0", "1.17.0"):
        said = labels(on_docker.root / f"dist/tiny-{six}.tar")
        assert said["org.example.six"] == six
        assert f"six=={six}" in said["python.packages"]
    assert "nothing to do" in on_docker.done("archive:tiny", DOCKER_HOST=NOWHERE)

    # What has to run there is refused, where it can not.
    if not any(os.scandir("/proc/sys/fs/binfmt_misc")):
        outcome = on_docker.doit("archive:tiny-1.17.0@linux-arm64")
        assert outcome.code == 2
        assert "programs for linux/arm64 do not run here" in outcome.output


def labels(archive: Path) -> dict[str, str]:
    """The labels of the image in an archive."""
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        config = tar.extractfile(json.loads(manifest.read())[0]["Config"])
        assert config is not None
        found: dict[str, str] = json.loads(config.read())["config"]["Labels"]
    return found
