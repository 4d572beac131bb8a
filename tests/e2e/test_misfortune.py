"""Bad luck and bad input, on a small project: what is said, what is kept, what goes on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import needs
from tests.e2e.conftest import DOIT, Copy
from tests.support import disks, engines

PROJECT = """\
lading: 1
name: small
bases:
  debian-13: {debian: {suite: trixie, packages: [python3]}}
  bare: {debian: {suite: trixie, packages: []}}
images:
  one:
    base: debian-13
    pip: {requirements: one.in}
    test: [python -c "import six; print(six.__version__)"]
  two:
    base: debian-13
    pip: {requirements: two.in}
    test: [python -c "import idna"]
"""


def made_small(copy: Copy) -> Copy:
    """Two small images, on the base that the project has locked."""
    locked = copy.root / "locks/bases/debian-13"
    kept = copy.root.with_name("kept")
    shutil.move(locked, kept)
    for name in ("locks", "recipes"):
        shutil.rmtree(copy.root / name)
    (copy.root / "locks/bases").mkdir(parents=True)
    shutil.move(kept, locked)
    copy.write("project.yaml", PROJECT)
    copy.write("one.in", "six\n")
    copy.write("two.in", "idna\n")
    return copy


@pytest.fixture
def small(on_docker: Copy) -> Copy:
    """The small project, on Docker."""
    return made_small(on_docker)


@pytest.fixture
def small_anywhere(project: Copy) -> Copy:
    """The small project, on each engine."""
    return made_small(project)


def leftovers(copy: Copy) -> list[str]:
    """Files under a final name, or beside it, that a killed run must not leave."""
    found = [*copy.root.glob("dist/*"), *copy.root.glob("locks/images/*/*/*")]
    return sorted(str(path.relative_to(copy.root)) for path in found)


def killed(copy: Copy, *arguments: str, when: Callable[[], bool], by: int = signal.SIGKILL) -> int:
    """Starts doit, sends it a signal as soon as `when` says so; its exit code."""
    with subprocess.Popen(
        [str(DOIT), *arguments],
        cwd=copy.root,
        env=dict(copy.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        until = time.monotonic() + 120
        while not when():
            assert process.poll() is None, process.stdout.read().decode()  # type: ignore[union-attr]
            assert time.monotonic() < until, "never got that far"
            time.sleep(0.01)
        process.send_signal(by)
        return process.wait(60)


# -- what is made again, and what is not ------------------------------------------------------


def test_one_changed_line_makes_one_image_again(small_anywhere: Copy) -> None:
    small = small_anywhere
    first = small.done("-n", "2")
    assert "archive    one" in first
    assert "archive    two" in first
    before = json.loads((small.root / "dist/two.json").read_text())
    small.write("one.in", "six<1.17\n")
    output = small.done()
    assert "build      one" in output
    assert " two" not in output
    assert "  six 1.17" in output, "what moved is said"
    assert "→ 1.16.0" in output
    tested = json.loads((small.root / "build/one/check.json").read_text())["tests"]
    assert tested[0]["output"] == "1.16.0\n", "and what is tested is what was asked for"
    assert json.loads((small.root / "dist/two.json").read_text()) == before
    assert "nothing to do" in small.done()

    # An edit counts even when the file's time says that nothing happened.
    status = (small.root / "one.in").stat()
    small.write("one.in", "six<1.16\n")
    os.utime(small.root / "one.in", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert "build      one" in small.done()

    # A changed test is run, on the image that is there.
    small.replace("project.yaml", "import six", "import sys; import six")
    output = small.done()
    assert "check      one" in output
    assert "build " not in output

    # Cleaned, all is gone that was made: also in the engine.
    small.done("clean")
    assert not list(small.root.glob("dist/*"))
    assert "build      one" in small.done("archive:one")


def test_an_sdist_is_built_by_itself_and_once(small: Copy) -> None:
    """docopt 0.6.2 has no wheel, and tells what it needs only when its setup.py runs."""
    small.write("one.in", "docopt==0.6.2\n")
    small.replace("project.yaml", "import six; print(six.__version__)", "import docopt")
    output = small.done("archive:one")
    assert "check      one" in output
    folder = small.root / "locks/images/one/linux-amd64"
    assert "docopt-0.6.2.tar.gz" in (folder / "requirements.txt").read_text()
    assert "setuptools==" in (folder / "build-docopt.txt").read_text()
    (part,) = (small.root / "build/parts").glob("wheel-docopt-*")
    assert (part / "build.log").exists()
    # The wheel is in the store: another change of the image builds it no more.
    shutil.rmtree(part)
    small.replace("project.yaml", "    pip:", "    env: {A: b}\n    pip:")
    assert "build      one" in small.done("archive:one")
    assert not part.exists()


# -- killed -----------------------------------------------------------------------------------


KILLED_AT_THE_LAST = """\
import os, sys
def seen(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith("/requirements.txt"):
        os.kill(os.getpid(), 9)
sys.addaudithook(seen)
"""


def test_killed_while_locking(small: Copy) -> None:
    """In the middle of it: all of the lock is written, and the last file has not got its name."""
    small.write("killed/sitecustomize.py", KILLED_AT_THE_LAST)
    outcome = small.doit("lock:one", PYTHONPATH=str(small.root / "killed"))
    assert outcome.code == -signal.SIGKILL
    part, installer = leftovers(small)
    assert re.fullmatch(r"locks/images/one/linux-amd64/\.requirements\.txt\..*\.part", part)
    assert installer == "locks/images/one/linux-amd64/installer.txt"
    assert "lock       one" in small.done("lock:one")
    assert leftovers(small) == [installer, "locks/images/one/linux-amd64/requirements.txt"]
    assert "nothing to do" in small.done("lock:one")


def test_killed_while_building(small: Copy) -> None:
    small.replace("project.yaml", "    pip: {requirements: one.in}", "    run: [sleep 4]")
    log = small.root / "build/one/build.log"
    killed(small, "archive:one", when=lambda: log.exists() and "sleep 4" in log.read_text())
    assert leftovers(small) == []
    small.replace(
        "project.yaml", 'python -c "import six; print(six.__version__)"', "python3 --version"
    )
    assert "archive    one" in small.done("archive:one")


def test_killed_while_exporting(small: Copy) -> None:
    small.done("build:one")
    build = small.root / "build/one"
    killed(small, "archive:one", when=lambda: any(build.glob(".candidate*")))
    assert not list(small.root.glob("dist/*"))
    assert "archive    one" in small.done("archive:one")
    assert not list(build.glob(".candidate*")), "what the killed run left is cleared away"


def test_told_to_end_it_ends_cleanly(small: Copy) -> None:
    small.replace("project.yaml", "    pip: {requirements: one.in}", "    run: [sleep 30]")
    log = small.root / "build/one/build.log"
    start = time.monotonic()
    code = killed(
        small,
        "archive:one",
        when=lambda: log.exists() and "sleep 30" in log.read_text(),
        by=signal.SIGTERM,
    )
    assert code == 130
    assert time.monotonic() - start < 25


def test_two_runs_take_turns(small: Copy) -> None:
    small.replace("project.yaml", "    pip: {requirements: one.in}", "    run: [sleep 3]")
    small.replace(
        "project.yaml", 'python -c "import six; print(six.__version__)"', "python3 --version"
    )
    first = subprocess.Popen(
        [str(DOIT), "archive:one"],
        cwd=small.root,
        env=dict(small.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log = small.root / "build/one/build.log"
    while not log.exists():
        assert first.poll() is None
        time.sleep(0.02)
    second = small.doit("archive:one")
    assert first.wait(60) == 0
    assert second.code == 0
    assert f"waiting for another run in this project (process {first.pid}: doit" in second.output
    assert "nothing to do" in second.output, "and what it waited for is not done again"


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requirements", "said"),
    [
        ("six\nno-such-package-anywhere-x\n", "one.in:2: no-such-package-anywhere-x"),
        ("six==99\n", "one.in:1: six==99"),
        ("jaxlib==0.4.13\n", "jaxlib has wheels for this Python from "),
        ("six @ git+https://git.example/six@main\n", "one.in:1: a checkout has no sha256"),
        ("./six\n", "one.in:1: a local or editable package"),
    ],
)
def test_requirements_that_cannot_be_locked(small: Copy, requirements: str, said: str) -> None:
    small.write("one.in", requirements)
    outcome = small.doit("lock:one")
    assert outcome.code in (1, 3)
    assert said in outcome.output
    assert "Traceback" not in outcome.output
    assert leftovers(small) == []


def test_a_base_without_python(small: Copy) -> None:
    small.replace("project.yaml", "  one:\n    base: debian-13", "  one:\n    base: bare")
    outcome = small.doit("lock:one")
    assert outcome.code == 1
    assert "images.one: its base has no Python" in outcome.output


def test_frozen(small: Copy) -> None:
    """With CI set, a lock that is not current is an error that says which, and what to type."""
    outcome = small.doit("archive:one", CI="true")
    assert outcome.code == 1
    assert "locks/images/one/linux-amd64 is not current" in outcome.output
    assert "doit lock:one" in outcome.output
    small.done("lock:one")
    small.write("one.in", "six # another\n")
    assert small.doit("archive:one", "frozen=1").code == 1
    small.write("one.in", "six\n")
    assert small.doit("archive:one", CI="true").code == 0


def test_a_name_that_does_not_exist(small: Copy) -> None:
    outcome = small.doit("biuld:one")
    assert outcome.code == 3
    assert "did you mean build:one" in outcome.output
    assert small.doit("archive:on").code == 3


def test_a_declaration_with_two_problems(small: Copy) -> None:
    small.replace(
        "project.yaml", "    base: debian-13\n    pip: {requirements: two.in}", "    bsae: x"
    )
    outcome = small.doit()
    assert outcome.code == 3
    assert "project.yaml:12: images.two.bsae: unknown key" in outcome.output
    assert "Traceback" not in outcome.output


# -- bad luck ---------------------------------------------------------------------------------


def test_a_test_that_fails(small: Copy) -> None:
    small.replace(
        "project.yaml",
        "import six; print(six.__version__)",
        "print('so it goes'); raise SystemExit(7)",
    )
    outcome = small.doit("archive:one")
    assert outcome.code == 1
    assert "so it goes" in outcome.output
    assert "exit code 7" in outcome.output
    assert not (small.root / "dist/one.tar").exists()
    assert "archive    one" not in outcome.output


def test_the_index_is_down(small: Copy) -> None:
    outcome = small.doit("lock:one", UV_DEFAULT_INDEX="http://user:secret@127.0.0.1:9/simple")
    assert outcome.code == 2
    assert "127.0.0.1:9" in outcome.output
    assert "secret" not in outcome.output
    assert leftovers(small) == []


def test_no_engine(small: Copy) -> None:
    small.done("lock:one", "fetch:one")
    outcome = small.doit("build:one", DOCKER_HOST="unix:///nonexistent/engine.sock")
    assert outcome.code == 2
    assert "/nonexistent/engine.sock" in outcome.output
    # No engine is running and none can be started: a docker client alone is none.
    nothing = dict.fromkeys(("DOCKER_HOST", "CONTAINER_HOST", "DOCKER_CONTEXT"), "")
    folder = small.root / "bin"
    folder.mkdir()
    (folder / "docker").write_text("#!/bin/sh\necho Docker version 28.2.2, build 0\n")
    (folder / "docker").chmod(0o755)
    outcome = small.doit("build:one", **nothing, PATH=str(folder))
    assert outcome.code == 2
    assert "apt-get install podman" in outcome.output


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    with disks.small(tmp_path / "disk", 3) as folder:
        yield folder


def test_the_disk_is_full_while_fetching(small: Copy, tiny_disk: Path) -> None:
    small.write("one.in", "numpy\n")
    small.done("lock:one")
    outcome = small.doit("fetch:one", LADING_CACHE=str(tiny_disk / "cache"))
    assert outcome.code == 2
    assert "no room left" in outcome.output


def test_the_disk_is_full_while_exporting(small: Copy, tiny_disk: Path) -> None:
    small.done("build:one")
    shutil.rmtree(small.root / "build", ignore_errors=True)
    (small.root / "build").symlink_to(tiny_disk)
    outcome = small.doit("archive:one")
    assert outcome.code == 2
    assert "no room left" in outcome.output
    assert not list(small.root.glob("dist/*"))
    (small.root / "build").unlink()
    assert "archive    one" in small.done("archive:one")


@pytest.mark.parametrize("kind", ["docker", "podman"])
def test_the_engine_goes_away_while_building(small: Copy, kind: str) -> None:
    needs(kind)
    small.replace("project.yaml", "    pip: {requirements: one.in}", "    run: [sleep 20]")
    with engines.private_engine(kind) as fleeting:
        copy = Copy(root=small.root, environ={**small.environ, "DOCKER_HOST": fleeting.url})
        log = copy.root / "build/one/build.log"
        with subprocess.Popen(
            [str(DOIT), "build:one"],
            cwd=copy.root,
            env=dict(copy.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            while not (log.exists() and "sleep 20" in log.read_text()):
                assert process.poll() is None
                time.sleep(0.02)
            fleeting.kill()
            output, _ = process.communicate(timeout=60)
    assert process.returncode == 2, output
    assert "went away" in output
    assert "Traceback" not in output
