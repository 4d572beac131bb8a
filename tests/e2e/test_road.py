"""The whole road, as the README has it: from requirements.in to what three tools load."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from lading import archive
from lading.engines import connect
from tests.e2e.conftest import Copy, copied, plain_environ
from tests.support import engines
from tests.support.apptainer import Apptainer

NOWHERE = "unix:///nonexistent/engine.sock"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_the_road(project: Copy, running: engines.Running, tmp_path: Path) -> None:
    output = project.done("archive:astropy")
    for verb in ("build", "check", "archive"):
        assert f"\n{verb:<10} astropy  " in f"\n{output}"
    record = json.loads((project.root / "dist/astropy.json").read_text())
    tar = project.root / "dist/astropy.tar"
    assert record["sha256"] == sha256(tar)
    assert record["size"] == tar.stat().st_size
    assert sum(layer["size"] for layer in record["layers"]) < record["size"]

    # Neither what installs nor what it would keep is in a layer.
    names = added(tar)
    assert any(name.endswith("/site-packages/astropy/__init__.py") for name in names)
    for left in ("/.cache", ".whl", "/uv", "/pip/__init__.py"):
        assert not [name for name in names if f"{left}/" in f"/{name}/"]

    # Again: nothing happens, and nobody asks an engine, which is proved by there being none.
    again = project.doit("archive:astropy", DOCKER_HOST=NOWHERE)
    assert again.code == 0
    assert "nothing to do" in again.output

    # What says so is the content: not doit's database, and no time of a file.
    (project.root / ".doit.db").unlink()
    for path in (project.root / "recipes").rglob("*"):
        os.utime(path, (1, 1))
    assert "nothing to do" in project.done("archive:astropy", DOCKER_HOST=NOWHERE)

    # Another clone on the same engine builds nothing, and writes the same archive.
    other = Copy(root=copied(tmp_path / "other"), environ=project.environ)
    shutil.copytree(project.root / "locks", other.root / "locks", dirs_exist_ok=True)
    output = other.done("archive:astropy")
    assert "build " not in output
    assert "fetch " not in output
    assert sha256(other.root / "dist/astropy.tar") == record["sha256"]
    # Asked for by name, the engine has to have it: it has, and is asked for nothing else.
    assert "nothing to do" in other.done("build:astropy")

    # By hand, without lading, from the context alone: the same contents under the same key.
    context = project.root / "build/astropy/context"
    project.done("dockerfile:astropy")
    build_by_hand(running, context, "localhost/by-hand:1")
    engine = connect(running.environ)
    info = engine.inspect("localhost/by-hand:1")
    assert info is not None
    assert info.labels["lading.key"] == record["key"]
    assert info.labels["maintainer"]
    assert info.labels["python.version"].startswith("3.13.")
    assert "astropy==" in info.labels["python.packages"]
    engine.close()


def added(tar: Path) -> list[str]:
    """The names of all that an archive has above its base, which is one layer."""
    names: list[str] = []
    with tarfile.open(tar) as whole:
        manifest = whole.extractfile("manifest.json")
        assert manifest is not None
        for layer in json.loads(manifest.read())[0]["Layers"][1:]:
            with tarfile.open(fileobj=whole.extractfile(layer)) as opened:
                names += opened.getnames()
    return names


def build_by_hand(running: engines.Running, context: Path, tag: str) -> None:
    """`docker build` with BuildKit, or `podman build`, with no network."""
    # Debian's own docker client has BuildKit; another one may stand first on PATH.
    podman = ["podman", "--url", running.url]
    client = podman if running.kind == "podman" else ["/usr/bin/docker"]
    subprocess.run(
        [*client, "build", "--network", "none", "--no-cache", "-t", tag, str(context)],
        env={**running.environ, "DOCKER_BUILDKIT": "1"},
        check=True,
    )


@pytest.fixture(scope="module")
def astropy(tmp_path_factory: pytest.TempPathFactory, cache: Path, docker: engines.Running) -> Path:
    """dist/astropy.tar, made on Docker."""
    root = copied(tmp_path_factory.mktemp("astropy") / "project")
    environ = {**plain_environ(), "DOCKER_HOST": docker.url, "LADING_CACHE": str(cache)}
    Copy(root=root, environ=environ).done("archive:astropy")
    return root / "dist/astropy.tar"


def test_both_engines_load_it_and_give_the_same_bytes_back(
    astropy: Path, running: engines.Running, tmp_path: Path
) -> None:
    made = archive.read(astropy)
    recorded = json.loads(astropy.with_suffix(".json").read_text())
    engine = connect(running.environ)
    try:
        assert engine.load(astropy) == made.config
        result = engine.run(made.config, ["python", "-c", "import astropy, sys; print(sys.prefix)"])
        assert result.code == 0
        assert result.output.strip() == "/opt/venv"
        # Podman calls it localhost/…: it is asked for by the name that it gave.
        name = "localhost/again:1"
        engine.tag(made.config, name)
        again = tmp_path / "again.tar"
        archive.export(engine.save(name), again, name=recorded["name"], platform="linux/amd64")
    finally:
        engine.close()
    assert sha256(again) == sha256(astropy)


def test_apptainer_runs_it(astropy: Path, apptainer: Apptainer, tmp_path: Path) -> None:
    sif = tmp_path / "astropy.sif"
    apptainer.run("build", str(sif), f"docker-archive:{astropy}")
    home = tmp_path / "home"
    trap = home / ".local/lib/python3.13/site-packages/numpy"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text("raise ImportError('the numpy of the host')\n")
    output = apptainer.run(
        *("exec", "--home", str(home), str(sif)),
        *("python", "-c", "import astropy; print(astropy.__file__)"),
        PYTHONPATH=str(trap.parent),
    )
    assert output.strip().endswith("/opt/venv/lib/python3.13/site-packages/astropy/__init__.py")


def test_the_lesson_as_of_its_day(on_docker: Copy) -> None:
    """astropy 4.3 with what fitted it in August 2021, on Python 3.9."""
    on_docker.done("archive:astropy-4.3")
    folder = on_docker.root / "locks/images/astropy-4.3/linux-amd64"
    lock = (folder / "requirements.txt").read_text()
    assert "\nnumpy==1.21.2 " in lock
    assert "\npyerfa==2.0.0 " in lock
    assert (on_docker.root / "dist/astropy-4.3.tar").is_file()


def test_intels_packages_are_locked_as_declared(on_docker: Copy) -> None:
    """They are too large to be installed each time: the committed lock is still what comes of its
    requirements, and all that it names can be had.
    """
    lock = on_docker.root / "locks/images/mkl/linux-amd64/requirements.txt"
    committed = lock.read_text()
    on_docker.done("lock:mkl", DOCKER_HOST=NOWHERE)
    assert lock.read_text() == committed
    assert "\nmkl-fft==" in committed
    assert "\nmkl==" in committed


def test_an_image_from_a_registry(
    project: Copy, running: engines.Running, registry: str, tmp_path: Path
) -> None:
    """The kind `image:`: pinned to a digest, pulled by it, its facts found by running it."""
    from docker import DockerClient

    name = f"{registry}/library/python"
    project.done("build:base:debian-13")
    client = DockerClient(base_url=running.url)
    local = next(
        tag
        for image in client.images.list()
        for tag in image.tags
        if tag.startswith("localhost/lading/base/debian-13:")
    )
    client.images.get(local).tag(name, "3.13-slim")
    client.images.push(name, "3.13-slim")
    client.images.remove(f"{name}:3.13-slim")
    client.close()

    project.replace("project.yaml", "docker.io/library/python:3.13-slim", f"{name}:3.13-slim")
    project.write("recipes/astropy-slim/requirements.in", "six\n")
    project.replace("project.yaml", "import astropy; print(astropy.__version__)", "import six")
    output = project.done("archive:astropy-slim")
    assert "archive    astropy-slim" in output
    lock = (project.root / "locks/bases/python-3.13-slim/linux-amd64/base.yaml").read_text()
    assert 'python_version: "3.13.' in lock
    assert 'glibc: "2.41"' in lock
    assert registry not in lock, "a lock says what, never where"
    dockerfile = (project.root / "build/astropy-slim/context/Dockerfile").read_text()
    assert f"FROM {name}@sha256:" in dockerfile
    assert "nothing to do" in project.done("archive:astropy-slim", DOCKER_HOST=NOWHERE)


def test_set_up_from_nothing(tmp_path: Path, cache: Path, docker: engines.Running) -> None:
    """`./scripts/doit` in an empty clone: it sets up once, and is doit from then on."""
    environ = {**plain_environ(), "DOCKER_HOST": docker.url, "LADING_CACHE": str(cache)}
    clone = Copy(root=copied(tmp_path / "project"), environ=environ)
    first = clone.run("./scripts/doit", "list")
    assert first.code == 0
    verbs = [line.split()[0] for line in first.output.splitlines() if line[:1].islower()]
    assert verbs[-12:] == [
        "lock", "fetch", "dockerfile", "build", "build:source:mpich@debian-11",
        "check", "archive", "sif", "push", "verify", "upgrade", "env",
    ]  # fmt: skip
    again = clone.run("./scripts/doit", "list")
    assert again.output == first.output[first.output.index("lock ") :]
    activated = clone.run("bash", "-c", ". .venv/bin/activate && doit list")
    assert activated.output == again.output
