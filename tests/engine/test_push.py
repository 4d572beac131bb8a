"""A real registry: what one machine has built and compiled, another one takes from there."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import docker
import requests

from tests.e2e.conftest import DOIT, plain_environ
from tests.engine.test_sources import project, with_modes, with_tools
from tests.support import images
from tests.support.engines import Running

YAML = """\
lading: 1
name: trial
registry: {registry}/group
bases: {{box: {{image: "{registry}/box:1"}}}}
sources:
  small:
    version: "1"
    urls: "file://{served}/small-{{version}}.tar.gz"
    configure: ""
images:
  one: {{base: box, source: small, test: [cat /usr/lib/small]}}
  two: {{base: box, source: small, env: {{A: B}}, default: false}}
"""
FILES = {
    "small-1/configure": b"#!/bin/sh\n",
    "small-1/Makefile": (
        b"all:\n\techo compiled >small\n"
        b"install:\n\tmkdir -p $(DESTDIR)/usr/lib && cp small $(DESTDIR)/usr/lib/small\n"
    ),
}


def referring(registry: str, tag: str) -> list[bytes]:
    """The documents that refer to what a tag names. This registry keeps no list of them itself: it
    is under a tag (distribution specification v1.1, 'Referrers Tag Schema').
    """

    def got(path: str) -> requests.Response:
        kinds = [f"application/vnd.oci.image.{kind}.v1+json" for kind in ("manifest", "index")]
        headers = {"Accept": ", ".join(kinds)}
        answer = requests.get(f"http://{registry}/v2/group/one/{path}", headers=headers, timeout=30)
        answer.raise_for_status()
        return answer

    image = got(f"manifests/{tag}")
    digest = image.headers["Docker-Content-Digest"]
    listed = got(f"manifests/{digest.replace(':', '-')}").json()["manifests"]
    found = []
    for entry in listed:
        assert entry["artifactType"] == "application/vnd.cyclonedx+json"
        manifest = got(f"manifests/{entry['digest']}").json()
        assert manifest["subject"]["digest"] == digest
        found.append(got(f"blobs/{manifest['layers'][0]['digest']}").content)
    return found


def test_from_one_machine_to_the_next(running: Running, registry: str, tmp_path: Path) -> None:
    digest = images.push(with_tools(), registry, "box", "1")
    (tmp_path / "small-1.tar.gz").write_bytes(with_modes(FILES))
    yaml = YAML.format(registry=registry, served=tmp_path)
    first = tmp_path / "first"
    project(first, yaml, digest, str(tmp_path / "first.cache"))
    environ = {**plain_environ(), "DOCKER_HOST": running.url}

    def doit(root: Path, *arguments: str, **more: str) -> str:
        done = subprocess.run(
            [DOIT, *arguments],
            cwd=root,
            env={**environ, "LADING_CACHE": f"{root}.cache", **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    # What was compiled can go alone, before the images that it is for.
    output = doit(first, "push:source:small@box")
    assert "build      source:small@box" in output
    assert "push       source:small@box" in output
    assert not (first / "dist").exists()
    assert "nothing to do" in doit(first, "push:source:small@box")
    output = doit(first, "push:one")
    assert "build      one" in output
    assert "push       one" in output
    assert "nothing to do" in doit(first, "push:one")
    sbom = (first / "dist/one.cdx.json").read_bytes()
    assert referring(registry, json.loads((first / "dist/one.json").read_text())["key"]) == [sbom]

    # A runner that has nothing, and no engine either.
    (tmp_path / "small-1.tar.gz").unlink()
    second = tmp_path / "second"
    shutil.copytree(first, second, ignore=shutil.ignore_patterns("build", "dist", ".doit.db"))
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/none", "CI": "1"}
    assert "nothing to do" in doit(second, "push:source:small@box", **nowhere)
    assert "build      source:small@box" in doit(second, "build:source:small@box", **nowhere)
    shutil.rmtree(f"{second}.cache")
    assert "nothing to do" in doit(second, "push:one", **nowhere)
    assert "out of the registry" in doit(second, "archive:one", **nowhere)
    archives = [(root / "dist/one.tar").read_bytes() for root in (first, second)]
    assert hashlib.sha256(archives[0]).digest() == hashlib.sha256(archives[1]).digest()
    assert (second / "dist/one.cdx.json").read_bytes() == sbom

    # Another image on the same source: nothing is compiled, nor is its tarball wanted.
    output = doit(second, "archive:two", CI="1")
    assert "build      two" in output
    assert not list((second / "build/parts").glob("*/build.log"))
    # Docker and Podman pull what was pushed.
    name = json.loads((first / "dist/one.json").read_text())["name"]
    client = docker.DockerClient(base_url=running.url)
    try:
        image = client.images.pull(name)
        assert image.labels["lading.key"]
        client.images.remove(name, force=True)
    finally:
        client.close()
