"""Images built elsewhere, on real engines: the same archives, each made once, whoever dies."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lading.files import sha256_of
from lading.store import Store
from tests.conftest import needs
from tests.e2e.conftest import DOIT, Copy, copied, plain_environ
from tests.e2e.test_misfortune import made_small
from tests.support import engines, hosts

IMAGE = """\
  {name}:
    base: debian-13
    run: [sleep {seconds}; echo {name} >/etc/motd]
    test: [grep {name} /etc/motd]
"""


def of_images(copy: Copy, builder: str, seconds: int, *names: str) -> Copy:
    """The small project with these images, which take so long."""
    small = made_small(copy)
    head = (small.root / "project.yaml").read_text().partition("images:\n")[0]
    images = "".join(IMAGE.format(name=name, seconds=seconds) for name in names)
    small.write("project.yaml", f"{head}builder: {builder}\nimages:\n{images}")
    return small


@pytest.fixture
def on_podman(tmp_path: Path, cache: Path, podman: engines.Running) -> Copy:
    """A fresh copy of the project on Podman."""
    environ = {**plain_environ(), "DOCKER_HOST": podman.url, "LADING_CACHE": str(cache)}
    return Copy(root=copied(tmp_path / "project"), environ=environ)


@pytest.fixture(scope="module")
def one_and_the_same() -> Callable[[Copy], None]:
    """Image one has the same archive wherever the tests of this file have it built."""
    found: set[str] = set()

    def look(project: Copy) -> None:
        found.add(sha256_of(project.root / "dist/one.tar"))
        assert len(found) == 1

    return look


def test_of_two_build_hosts_one_is_killed(on_podman: Copy, docker: engines.Running) -> None:
    """All images arrive, and none is built to its end twice."""
    names = ("one", "two", "three", "four")
    with engines.private_engine("docker") as fleeting:
        project = of_images(on_podman, f"[{docker.url}, {fleeting.url}]", 3, *names)

        def begun_there() -> bool:
            logs = [project.root / f"build/{name}/build.log" for name in names]
            texts = [log.read_text() for log in logs if log.exists()]
            return any(f"building on {fleeting.url}" in x and "RUN sleep" in x for x in texts)

        with subprocess.Popen(
            [str(DOIT), "-n", "4", "build"],
            cwd=project.root,
            env=dict(project.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            until = time.monotonic() + 120
            while not begun_there():
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < until, "never got that far"
                time.sleep(0.05)
            fleeting.kill()
            output, _ = process.communicate(timeout=180)
    print(output)
    assert process.returncode == 0
    assert output.count(f"builder {fleeting.url} is not used any more in this run: ") == 1
    began = re.findall(r"  build (\w+): on (\S+)", output)
    for name in names:
        assert output.count(f"\nbuild      {name} ") == 1
        assert [where for what, where in began if what == name][-1] == docker.url
        assert began.count((name, docker.url)) == 1, "nothing is built to its end twice"
    assert len([where for _, where in began if where == fleeting.url]) == 2, "two were lost"
    assert "nothing to do" in project.done("build")


def test_an_engine_behind_ssh(
    on_podman: Copy, docker: engines.Running, one_and_the_same: Callable[[Copy], None]
) -> None:
    if reason := hosts.sshd_missing():
        pytest.skip(reason)
    with engines.private_folder() as folder:
        try:
            with hosts.behind_ssh(folder, docker.url) as (url, programs):
                path = f"{programs}{os.pathsep}{on_podman.environ['PATH']}"
                project = of_images(on_podman, "default", 0, "one")
                output = project.done("archive:one", PATH=path, DOCKER_HOST=url)
                assert "archive    one" in output
                one_and_the_same(project)
        except hosts.NotToBeHad as reason:
            pytest.skip(str(reason))


@pytest.fixture
def remote(tmp_path: Path, cache: Path) -> Iterator[hosts.Remote]:
    """A remote BuildKit, known to docker buildx."""
    needs("docker")
    try:
        unpacked = hosts.unpacked(tmp_path / "unpacked", Store(cache))
    except hosts.NotToBeHad as reason:
        pytest.skip(str(reason))
    with hosts.remote_buildkit(unpacked) as running:
        yield running


def test_a_builder_of_docker_buildx(
    on_podman: Copy, remote: hosts.Remote, one_and_the_same: Callable[[Copy], None]
) -> None:
    """It has no image of this machine's: the base is lent to it, and what it made comes back."""
    project = of_images(on_podman, "default", 0, "one")
    project.done("archive:one")
    one_and_the_same(project)
    project.done("clean")
    project.replace("project.yaml", "builder: default", f"builder: {remote.name}")
    output = project.done("archive:one", **remote.environ)
    assert f"build one: on {remote.name}" in output
    assert "RUN sleep 0" in (project.root / "build/one/build.log").read_text()
    one_and_the_same(project)
    # A step that fails is told as anywhere.
    project.replace("project.yaml", "sleep 0; echo", "echo oh no; exit 7; echo")
    outcome = project.doit("build:one", **remote.environ)
    assert outcome.code == 1
    assert re.search(r"building \S+ failed at \[.*\] RUN echo oh no", outcome.output)
    assert "  #" in outcome.output
    assert "oh no" in outcome.output
    assert "exit code: 7" in outcome.output
