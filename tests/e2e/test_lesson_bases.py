"""The images of project.yaml on the lesson's bases, and JupyterLab, whole, on one engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from lading.store import Store
from tests.e2e.conftest import Copy
from tests.support import engines, images, lesson
from tests.support.channels import Channel
from tests.support.index import Index

IMAGES = {
    "astropy-3.9": "/opt/venv",
    "astropy-3.9-slim": "/opt/venv",
    "astropy-miniconda": "/opt/conda",
    "astropy-intel": "/opt/conda",
    "astropy-intel-full": "/opt/conda",
    "astropy-notebook": "/opt/conda",
    "astropy-debian-10": "/opt/conda",
    "astropy-ubuntu": "/opt/conda",
    "astropy-centos": "/opt/conda",
}
"""Images on stand-ins, and where astropy comes to lie."""
PRINTED = "import astropy; print(astropy.__version__)"
FACTS = {
    "python-3.9": {'python: "/usr/local/bin/python3"', 'package_manager: "apt"'},
    "miniconda3": {'conda: "/opt/conda"', 'python: "/opt/conda/bin/python3"'},
    "intelpython3-full": {'conda: "/opt/conda"', 'os: "debian 10"'},
    "scipy-notebook": {'user: "1000"', 'entrypoint: "tini -g --"', 'os: "ubuntu 22.04"'},
    "centos-7": {'python: ""', 'package_manager: "yum"', 'os: "centos 7"'},
}


@pytest.fixture(scope="module")
def channels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Channel]:
    """Two channels on one server, both with an astropy."""
    folder = tmp_path_factory.mktemp("channels")
    short = ".".join(map(str, sys.version_info[:2]))
    module = f"lib/python{short}/site-packages/astropy/__init__.py"
    with Channel(folder, "intel") as intel, Channel(folder, "conda-forge") as found:
        for channel in (intel, found):
            files = {module: f"__version__ = '6.0 of {channel.name}'\n"}
            channel.package("astropy", "6.0", files, format=".tar.bz2")
        yield found


@pytest.fixture(scope="module")
def bases(channels: Channel, registry: str, cache: Path) -> str:
    """The registry that has them."""
    lesson.pushed(registry, channels, Store(cache))
    return registry


@pytest.fixture
def index() -> Iterator[Index]:
    """The astropy that pip is asked for."""
    with Index() as found:
        files = {"astropy/__init__.py": b"__version__ = '6.0 of an index'\n"}
        found.wheel("astropy", "6.0", files=files)
        yield found


@pytest.fixture
def project(on_docker: Copy, bases: str, channels: Channel, index: Index) -> Copy:
    """The project as it is, but for where its registry, channels and index are."""
    text = (on_docker.root / "project.yaml").read_text()
    on_docker.write("project.yaml", text.replace("docker.io/", f"{bases}/"))
    environ = {"CONDA_CHANNEL_ALIAS": channels.alias, "UV_INDEX": index.url}
    return Copy(root=on_docker.root, environ={**on_docker.environ, **environ})


def test_every_base_of_the_lesson(project: Copy, bases: str) -> None:
    where = f"{PRINTED}; print(astropy.__file__)"
    project.replace("project.yaml", PRINTED, where)
    project.done(*(f"archive:{name}" for name in IMAGES))
    for name, prefix in IMAGES.items():
        assert (project.root / f"dist/{name}.tar").is_file()
        assert f"{prefix}/lib/" in (project.root / f"build/{name}/check.json").read_text()
        text = (project.root / f"build/{name}/context/Dockerfile").read_text()
        # Also where the tag is `latest`.
        assert re.search(f"^FROM {bases}/[a-z0-9_/-]+@sha256:[0-9a-f]{{64}}$", text, re.MULTILINE)
    for name, facts in FACTS.items():
        lock = (project.root / f"locks/bases/{name}/linux-amd64/base.yaml").read_text()
        assert not [fact for fact in facts if f"  {fact}\n" not in lock], lock
    assert "nothing to do" in project.done("archive:astropy-notebook")
    assert (
        "\nUSER 1000\n" in (project.root / "build/astropy-notebook/context/Dockerfile").read_text()
    )
    # The tag moves on.
    row = next(row for row in lesson.ROWS if row.tag == "latest")
    images.push(lesson.image(row, images.tiny_image([]).layer), bases, row.name, row.tag)
    outcome = project.doit("outdated", "astropy-notebook")
    assert outcome.code == 1, outcome.output
    told = " ".join(outcome.output.split())
    assert "base scipy-notebook: 1 moved scipy-notebook:latest sha256:" in told
    assert f"! {bases}/jupyter/scipy-notebook:latest is another image now" in told
    assert "nothing to upgrade: astropy-notebook" in told


def test_a_base_without_a_python_says_what_brings_one(project: Copy) -> None:
    project.replace(
        "project.yaml",
        "base: centos-7\n    conda: {channels: [conda-forge], file: "
        "recipes/astropy-conda/environment.yaml}",
        "base: centos-7\n    pip: {requirements: recipes/astropy-3.9/requirements.in}",
    )
    outcome = project.doit("lock:astropy-centos")
    assert outcome.code == 1
    assert "its base has no Python 3 (centos 7)" in outcome.output
    assert "python=3.12" in outcome.output


def test_pip_on_a_python_out_of_debians_packages(
    project: Copy, bases: str, docker: engines.Running
) -> None:
    from docker import DockerClient

    # Made from the mirror, it is as the registry's: it has apt, and no Python.
    made = "\nbases:\n  made: {debian: {suite: bookworm, packages: []}}\n"
    project.replace("project.yaml", "\nbases:\n", made)
    project.done("build:base:made")
    name = f"{bases}/library/debian"
    client = DockerClient(base_url=docker.url)
    tags = {tag for one in client.images.list() for tag in one.tags}
    local = next(tag for tag in tags if tag.startswith("localhost/lading/base/made:"))
    client.images.get(local).tag(name, "bookworm-slim")
    client.images.push(name, "bookworm-slim")
    client.images.remove(f"{name}:bookworm-slim")
    client.close()

    project.done("archive:astropy-debian")
    text = (project.root / "build/astropy-debian/context/Dockerfile").read_text()
    assert f"\nFROM {name}@sha256:" in text
    facts = (project.root / "locks/bases/debian-12-slim/linux-amd64/base.yaml").read_text()
    assert '  python: ""\n' in facts
    lock = (project.root / "locks/images/astropy-debian/linux-amd64/requirements.txt").read_text()
    assert "Python 3.11." in lock


# -- JupyterLab -----------------------------------------------------------------------------

BROWSER = "chromium-headless-shell"


def test_jupyterlab_opens_in_a_browser(on_docker: Copy, docker: engines.Running) -> None:
    """As Apptainer would start it: a read-only root, an ordinary user, the host's network."""
    on_docker.done("build:jupyterlab")
    with lab(docker) as url:
        status = requests.get(f"{url}/api/status?token=secret", timeout=10)
        assert status.json()["kernels"] == 0
        kernel = requests.post(f"{url}/api/kernels?token=secret", timeout=30).json()
        assert kernel["name"] == "python3"
        if shutil.which(BROWSER) is None:
            pytest.skip(f"its API answers; {BROWSER} is not installed, and the page was not opened")
        options = ("--no-sandbox", "--disable-gpu", "--timeout=30000", "--dump-dom")
        page = subprocess.run(
            [BROWSER, *options, f"{url}/lab?token=secret"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        # What only its scripts make, once they have asked the server.
        assert "jp-Launcher" in page.stdout, page.stderr


@contextmanager
def lab(docker: engines.Running) -> Iterator[str]:
    """JupyterLab in a container, where it answers."""
    from docker import DockerClient

    url = f"http://127.0.0.1:{engines.free_port()}"
    client = DockerClient(base_url=docker.url)
    tag = next(tag for one in client.images.list("jupyterlab") for tag in one.tags)
    container = client.containers.run(
        tag,
        ["jupyter", "lab", "--no-browser", "--ip=127.0.0.1", f"--port={url.rpartition(':')[2]}",
         "--IdentityProvider.token=secret"],
        detach=True,
        network_mode="host",
        user="1000:1000",
        read_only=True,
        tmpfs={"/tmp": "", "/home/user": "uid=1000,gid=1000"},
        environment={"HOME": "/home/user"},
        working_dir="/home/user",
    )  # fmt: skip
    try:
        until = time.monotonic() + 90
        while True:
            try:
                requests.get(f"{url}/api?token=secret", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                assert time.monotonic() < until, container.logs().decode()
                time.sleep(0.3)
        yield url
    finally:
        container.remove(force=True)
        client.close()
