"""Bad luck in the middle of a real build of a source: a kill, a full disk, a make that fails."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lading.engines import Engine
from lading.parts import PRODUCT
from tests.e2e.conftest import DOIT, plain_environ
from tests.engine.test_sources import project, with_modes, with_tools
from tests.support import disks, images
from tests.support.engines import Running
from tests.support.projects import Trial

YAML = """\
lading: 1
name: trial
bases: {{box: {{image: "{box}"}}}}
sources:
  slow:
    version: "1"
    urls: "file://{served}/slow-{{version}}.tar.gz"
    configure: ""
images:
  one: {{base: box, source: slow, test: [cat /usr/lib/slow]}}
"""
CONFIGURE = b"#!/bin/sh\necho configured >configured\n"
MAKEFILE = b"""\
all:
\t@echo it began; sleep 4
\tcat configured >slow
install:
\tmkdir -p $(DESTDIR)/usr/lib && cp slow $(DESTDIR)/usr/lib/slow
"""
LARGE = b"""\
all:
install:
\tmkdir -p $(DESTDIR)/usr/lib
\tfor one in 1 2 3 4; do head -c 1000000 /dev/urandom >$(DESTDIR)/usr/lib/$$one; done
"""
FILLS = b"""\
all:
\thead -c 200000000 /dev/zero >/dev/shm/large
"""
FAILS = b"""\
all:
\t@for one in $$(seq 50); do echo "line $$one"; done; exit 3
"""


@dataclass(frozen=True, kw_only=True)
class Here:
    """A project whose one source is compiled by a real engine, and doit as a process."""

    trial: Trial
    engine: Engine
    environ: dict[str, str]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(DOIT), *arguments],
            cwd=self.trial.root,
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def doit(self, *arguments: str, given: str = "") -> tuple[int, str]:
        """The exit code, and what it printed."""
        with self.start(*arguments) as process:
            output, _ = process.communicate(given, timeout=120)
        assert "Traceback" not in output
        return process.returncode, output

    @property
    def cache(self) -> Path:
        return Path(self.environ["LADING_CACHE"])

    def log(self) -> str:
        """The log of the source's build."""
        found = list((self.trial.root / "build/parts").glob("slow-box-*/build.log"))
        return found[0].read_text() if found else ""

    def kept(self) -> list[str]:
        """What the store has under a final name that was made, not fetched."""
        return [path.name for path in self.cache.glob("derived/*/*")]

    def parts(self) -> list[str]:
        """The images of parts that the engine holds."""
        return [one for one in self.engine.images("lading.key").values() if self.of_part(one)]

    def of_part(self, image: str) -> bool:
        info = self.engine.inspect(image)
        return info is not None and "org.opencontainers.image.title" not in info.labels


@pytest.fixture
def here(running: Running, engine: Engine, registry: str, tmp_path: Path) -> Here:
    digest = images.push(with_tools(), registry, "box", "1")
    served(tmp_path, MAKEFILE)
    yaml = YAML.format(box=f"{registry}/box:1", served=tmp_path)
    cache = tmp_path / "cache"
    environ = {**plain_environ(), "DOCKER_HOST": running.url, "LADING_CACHE": str(cache)}
    trial = project(tmp_path / "project", yaml, digest, str(cache))
    return Here(trial=trial, engine=engine, environ=environ)


def served(folder: Path, makefile: bytes) -> None:
    files = {"slow-1/configure": CONFIGURE, "slow-1/Makefile": makefile}
    (folder / "slow-1.tar.gz").write_bytes(with_modes(files))


def test_killed_in_make(here: Here) -> None:
    process = here.start("check:one")
    until = time.monotonic() + 60
    while "it began" not in here.log():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, here.log()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    assert here.kept() == [], "nothing half-made has its name"
    assert not (here.trial.root / "dist").exists()

    code, output = here.doit("check:one")
    assert code == 0, output
    assert "build      source:slow@box" in output
    assert here.kept() == [PRODUCT, PRODUCT]
    assert list((here.cache / "partial").iterdir()) == [], "what the killed run left is gone"
    code, output = here.doit("check:one")
    assert code == 0
    assert "nothing to do" in output
    # What the killed run had asked for ends by itself, and leaves nothing in the engine.
    until = time.monotonic() + 20
    while left := here.parts():
        assert time.monotonic() < until, left
        time.sleep(0.2)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    with disks.small(tmp_path / "disk", 2) as folder:
        yield folder


def test_a_full_disk_behind_the_build(here: Here, tiny_disk: Path, tmp_path: Path) -> None:
    """The engine has compiled it, and the store has no room for what came out."""
    served(tmp_path, LARGE)
    here.environ["LADING_CACHE"] = str(tiny_disk / "cache")
    code, output = here.doit("build:source:slow@box")
    assert code == 2, output
    assert "no room left on the disk" in output
    assert here.kept() == []
    assert here.parts() == []
    assert list((here.cache / "partial").iterdir()) == []
    # Elsewhere there is room; and it goes on.
    shutil.copytree(tiny_disk / "cache", tmp_path / "roomy")
    here.environ["LADING_CACHE"] = str(tmp_path / "roomy")
    code, output = here.doit("build:source:slow@box")
    assert code == 0, output
    assert here.kept() == [PRODUCT, PRODUCT]


def test_a_full_disk_in_make(here: Here, tmp_path: Path) -> None:
    """/dev/shm is a small one, in any build."""
    served(tmp_path, FILLS)
    code, output = here.doit("build:source:slow@box")
    assert code == 2, output
    assert "No space left on device" in output
    assert "free some room where the engine builds" in output
    assert here.kept() == []
    assert here.parts() == []


@pytest.mark.parametrize("step", ["configure", "make"])
def test_a_step_fails(here: Here, tmp_path: Path, step: str) -> None:
    """The last 30 lines, the log's path, and a shell in what the steps before have made."""
    if step == "make":
        served(tmp_path, FAILS)
    else:
        script = b'#!/bin/sh\nfor one in $(seq 50); do echo "line $one"; done; exit 3\n'
        files = {"slow-1/configure": script, "slow-1/Makefile": MAKEFILE}
        (tmp_path / "slow-1.tar.gz").write_bytes(with_modes(files))
    code, output = here.doit("check:one")
    assert code == 1, output
    # BuildKit puts the number of the step and the time before each line.
    said = re.findall(r"\bline (\d+)$", output, re.MULTILINE)
    assert said[-20:] == [str(number) for number in range(31, 51)]
    assert len(said) <= 30
    (log,) = (here.trial.root / "build/parts").glob("slow-box-*/build.log")
    assert f"build/parts/{log.parent.name}/build.log" in output
    assert re.search(r"\bline 1$", log.read_text(), re.MULTILINE), "there is all of it"
    assert "`doit shell source:slow@box` opens a shell" in output
    assert here.kept() == []
    before = "cat configured 2>&1; pwd; ls"
    code, output = here.doit("shell", "source:slow", given=f"cd /lading/source; {before}\nexit 7\n")
    assert code == 7, output
    assert "/lading/source" in output
    assert ("configured" in output.splitlines()) == (step == "make")
