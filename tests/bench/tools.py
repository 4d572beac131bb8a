"""What other people's ways need, fetched on this machine beforehand, outside the clock."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from lading import debian, net, process, uv
from lading.debian import repository
from lading.errors import LadingError
from lading.store import Artifact, Store
from tests.bench.workshop import Workshop


def install(workshop: Workshop, packages: Sequence[str], folder: Path) -> None:
    """Python packages for the base's Python, unpacked into `folder`; wheels only."""
    facts = workshop.base_lock().facts
    target = uv.Target.of(facts, workshop.declared().platform, None)
    environ = workshop.environ()
    command = ["pip", "install", "--quiet", "--target", str(folder), "--only-binary", ":all:"]
    finished = uv.here(
        [*command, *target.arguments(), *packages], workshop.folder, net.uv_environment(environ)
    )
    if finished.code:
        raise LadingError(f"{', '.join(packages)} can't be fetched", why=finished.errors)


def buildx(workshop: Workshop, suite: str, folder: Path) -> Path:
    """Debian's docker-buildx as a plugin of a docker client: the folder for DOCKER_CONFIG."""
    mirrors = debian.mirrors(workshop.environ())
    machine = process.run(["dpkg", "--print-architecture"]).output.strip()
    debs = debian.resolve(suite, ("docker-buildx",), machine, mirrors)
    deb = next(deb for deb in debs if deb.name == "docker-buildx")
    artifact = Artifact(name=deb.file, sha256=deb.sha256, size=deb.size)
    found = debian.locate([deb], mirrors)
    workshop.store.fetch([artifact], lambda _: found)
    plugin = folder / "cli-plugins" / "docker-buildx"
    plugin.parent.mkdir(parents=True)
    plugin.write_bytes(_program(workshop.store, artifact, "docker-buildx"))
    plugin.chmod(0o755)
    return folder


def _program(store: Store, artifact: Artifact, name: str) -> bytes:
    """A program out of a .deb."""
    with store.path(artifact.sha256).open("rb") as file:
        for member, size in repository.members(file):
            if member.startswith("data.tar"):
                data = file.read(size)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for entry in tar:
            if entry.isfile() and entry.name.rpartition("/")[2] == name:
                opened = tar.extractfile(entry)
                assert opened is not None
                return opened.read()
    raise LadingError(f"{artifact.name} has no program {name}")
