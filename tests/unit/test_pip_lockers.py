"""Locking by pip itself. The container is this machine: what runs in a base runs here, for real,
with the pip of the tests' own Python, and asks lading's index for what an index on the loopback
has.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from importlib.metadata import version as version_of
from pathlib import Path

import pip as pip_itself
import pytest
from msgspec.structs import replace

from lading import locks, net, uv
from lading.engines import Mount, RunResult
from lading.errors import EnvironmentProblem, LadingError
from lading.facts import Facts
from lading.layers import (
    pip,
    pip_in_base,
    pip_locker,
    pip_locker_answers,
    pip_locker_problems,
)
from lading.layers.kind import InBase, Tools
from lading.layers.pip import Below, PipLock, Request
from lading.layers.pip_kind import PIP
from lading.layers.pip_section import LOCKERS, PipSection
from lading.store import Store
from tests.support.index import Index, only_loopback

FACTS = Facts(
    python=sys.executable,
    python_version=platform.python_version(),
    glibc=platform.libc_ver()[1],
    os="debian 13",
)
DAY = date(2022, 3, 1)
BEFORE, AFTER = "2022-03-01T23:59:59.5Z", "2022-03-02T00:00:00Z"


class Here:
    """Runs what a container would, on this machine: paths in it are those of the mounts."""

    def __init__(self, scratch: Path, python: str) -> None:
        self.scratch, self.python = scratch, python
        self.ran: list[Mapping[str, str]] = []
        """The environment of each command."""
        self.given: list[dict[str, object]] = []
        """What each was asked."""

    def __call__(
        self,
        command: Sequence[str],
        *,
        mounts: Sequence[Mount] = (),
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        line: Callable[[str], None] | None = None,
    ) -> RunResult:
        places = {mount.target: str(mount.source) for mount in mounts}
        text = Path(places["/lading/locker"], "asked.json").read_text()
        self.given.append(json.loads(text))
        folder = self.scratch / str(len(self.ran))
        folder.mkdir(parents=True)
        text = text.replace('"/tmp/lading-locker"', f'"{folder / "at"}"')
        for target, source in places.items():
            text = text.replace(f'"{target}', f'"{source}')
        asked = folder / "asked.json"
        asked.write_text(text)
        (folder / "at").mkdir()
        self.ran.append(dict(env or {}))
        found = subprocess.run(
            [self.python, f"{places['/lading/locker']}/inside.py", str(asked)],
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return RunResult(code=found.returncode, output=found.stdout)


class Machine:
    """Locks, with what was told on the way."""

    def __init__(self, root: Path) -> None:
        self.root, self.store = root, Store(root / "store")
        self.here = Here(root / "scratch", FACTS.python)
        self.notes: list[str] = []

    @property
    def tools(self) -> Tools:
        def in_base() -> InBase:
            return self.here

        return Tools(environ=os.environ, store=self.store, note=self.notes.append, in_base=in_base)

    def request(self, text: str, locker: str = "freeze", **section: object) -> Request:
        (self.root / "r.in").write_text(text)
        asked = PipSection(requirements="r.in", locker=locker)
        return pip.request(self.root, "image", replace(asked, **section), FACTS, "linux/amd64", DAY)

    def lock(self, asked: Request, old: PipLock | None = None) -> PipLock:
        return PIP.lock(asked, old, self.tools)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uv-cache")


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> Iterator[Index]:
    only_loopback(monkeypatch, tmp_path, cache)
    monkeypatch.setattr(locks, "today", lambda: DAY)
    monkeypatch.setattr(net, "BACKOFF", 0.0)
    monkeypatch.setattr(pip_in_base, "program", lambda *_: Path(uv.program()))
    with Index(user="someone", password="hidden-word") as made:
        monkeypatch.setenv("UV_DEFAULT_INDEX", made.url)
        made.wheel("uv", version_of("uv"), tags="py3-none-manylinux_2_17_x86_64")
        yield made


@pytest.fixture
def machine(index: Index, tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def body(lock: PipLock) -> str:
    return lock.texts["requirements.txt"].partition("\n\n")[2]


# -- what is locked -------------------------------------------------------------------------


def test_a_trial_install_comes_to_the_same_lock(index: Index, machine: Machine) -> None:
    index.wheel("App", "1.0", requires=["lib[fast]>=1", 'old; python_version < "3"'])
    index.wheel("lib", "1.5", requires=["core"], extras={"fast": ["speed"]}, at=BEFORE)
    index.wheel("lib", "2.0", at=AFTER)
    for name in ("core", "speed", "old"):
        index.wheel(name, "1.0")
    # Who bounds what, by a file of theirs or the project's, asks for nothing.
    (machine.root / "limits.txt").write_text("lib<3\nspeed<3; python_version < '3'\nunused<2\n")
    (machine.root / "b.txt").write_text("lib<4\n")
    (machine.root / "z.in").write_text("core\n")
    # pip would take the other one; a hash that a file demands chooses.
    plain = index.wheel("core", "1.0", tags="py2.py3-none-any")
    index.wheel("core", "1.0", tags="py3-none-manylinux_2_17_x86_64")
    text = (
        "app  # the newest\n--index-url https://elsewhere.example/simple\n"
        f"core==1.0 --hash=sha256:{plain.sha256}\n-c limits.txt\n-r z.in\n"
    )
    tried = machine.lock(machine.request(text, constraints=("b.txt",)))
    by_uv = machine.lock(machine.request(text, LOCKERS[0], constraints=("b.txt",)))
    assert body(tried) == body(by_uv)
    assert [(pin.name, pin.version, pin.via) for pin in tried.pins] == [
        ("app", "1.0", ("-r r.in",)),
        ("core", "1.0", ("-r z.in", "-r r.in", "lib")),
        ("lib", "1.5", ("-c limits.txt", "-c b.txt", "app")),
        ("speed", "1.0", ("lib",)),
    ]
    assert machine.notes[0] == "  a trial install, and pip freeze, in the base"
    assert machine.notes[1] == f"  by pip {pip_itself.__version__}"
    assert tried.pins[1].artifact.name == plain.name
    assert machine.store.has(tried.pins[0].artifact), "what was tried is in the store"
    # The container sees neither the password nor where anything is.
    given = json.dumps([machine.here.given, machine.here.ran])
    assert "hidden-word" not in given
    assert "/simple" not in given
    (work,) = (machine.root / "scratch").glob("*/at/work/r.in")
    assert work.read_text().startswith("app\n\ncore==1.0\n"), "lines stay where they were"


def test_what_was_locked_is_kept_where_all_of_it_fits(index: Index, machine: Machine) -> None:
    for version in ("1.0", "1.1"):
        index.wheel("a", version)
        index.wheel("b", version)
    old = machine.lock(machine.request("a<1.1\nb<1.1\n", LOCKERS[0]))
    kept = machine.lock(machine.request("a\nb\n"), old)
    assert [pin.version for pin in kept.pins] == ["1.0", "1.0"]
    moved = machine.lock(machine.request("a>1\nb\n"), old)
    assert [pin.version for pin in moved.pins] == ["1.1", "1.1"]
    assert "  not all that was locked before fits: what moves is for pip to say" in machine.notes


def test_a_base_without_pip_is_brought_one(
    index: Index, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = Path(pip_itself.__file__).parent
    files = {str(p.relative_to(top.parent)): p.read_bytes() for p in top.rglob("*.py")}
    files |= {str(p.relative_to(top.parent)): p.read_bytes() for p in top.rglob("*.pem")}
    wheel = index.wheel("pip", pip_itself.__version__, files=files)
    pins = machine.root / "pins.txt"
    pins.write_text(f"pip=={pip_itself.__version__} \\\n    --hash=sha256:{wheel.sha256}\n")
    monkeypatch.setattr(pip_locker, "PINS", pins)
    index.wheel("a", "1.0")
    bare = machine.root / "bare"
    subprocess.run([uv.program(), "venv", "-q", "--python", sys.executable, bare], check=True)
    machine.here.python = f"{bare}/bin/python"
    found = machine.lock(machine.request("a\n"))
    assert [pin.name for pin in found.pins] == ["a"]
    assert "  the base has no pip: one is brought along" in machine.notes
    # One that is not the pinned one is not run.
    index.wheel("pip", pip_itself.__version__, files={**files, "pip/more.py": b""})
    with pytest.raises(LadingError, match="what locker: freeze runs can't be had"):
        machine.lock(machine.request("a\n"))


def test_what_conda_installs_is_there(index: Index, machine: Machine) -> None:
    """No index has it; pip is content with it, and it is not locked."""
    index.wheel("a", "1.0", requires=["theirs>=2", "b"])
    index.wheel("b", "1.0")
    below = Below(prefix="/opt/conda", distributions={"theirs": "2.5"}, key="", stage=None)
    asked = replace(machine.request("a\n"), below=below)
    assert [pin.name for pin in machine.lock(asked).pins] == ["a", "b"]


def test_the_locker_is_an_input_unless_it_is_uv(index: Index, machine: Machine) -> None:
    plain = replace(machine.request("a\n"), section=PipSection(requirements="r.in"))
    digests = {locker: machine.request("a\n", locker).digest for locker in LOCKERS}
    assert digests["uv"] == plain.digest
    assert len(set(digests.values())) == 3


# -- what goes wrong ------------------------------------------------------------------------


def failed(machine: Machine, text: str) -> LadingError:
    with pytest.raises(LadingError) as caught:
        machine.lock(machine.request(text))
    said = str(caught.value)
    assert "Traceback" not in said
    assert "hidden-word" not in said
    assert not re.search(r"127\.0\.0\.1:\d+/[\w-]{20}", said)
    return caught.value


def test_versions_that_conflict(index: Index, machine: Machine) -> None:
    index.wheel("a", "1.0", requires=["b>=2"])
    index.wheel("b", "1.0")
    index.wheel("b", "2.0")
    error = failed(machine, "# what is wanted\na\nb<2\n")
    assert error.what.startswith("images.image: no versions fit Python ")
    assert "(r.in:2: a)" in error.what
    assert "The conflict is caused by:\n" in error.why
    assert "a 1.0 depends on b>=2" in error.why


def test_packages_that_there_are_not(index: Index, machine: Machine) -> None:
    error = failed(machine, "nowhere\n")
    assert "(r.in:1: nowhere)" in error.what
    assert "no index that is asked has a package nowhere" in error.why
    index.wheel("young", "1.0", at=AFTER)
    assert "young: all of its files came after 2022-03-01" in failed(machine, "young\n").why


def test_an_sdist_that_can_not_be_built(index: Index, machine: Machine) -> None:
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "b"\n'
        'backend-path = ["."]\n',
        "b.py": "raise RuntimeError('there is no compiler')\n",
    }
    index.sdist("broken", "1.0", files)
    error = failed(machine, "broken\n")
    assert error.what == (
        "images.image: locker: freeze: broken has no wheel here, and can't be built in the base"
    )
    assert "RuntimeError: there is no compiler" in error.why
    assert error.do.startswith("locker: uv, ")


def test_an_index_that_is_down(index: Index, machine: Machine) -> None:
    index.wheel("a", "1.0")
    index.statuses["a"] = 500
    error = failed(machine, "a\n")
    assert isinstance(error, EnvironmentProblem)
    assert "answered HTTP 500" in error.what


def test_no_engine(index: Index, machine: Machine) -> None:
    def none() -> InBase:
        raise EnvironmentProblem("no engine answers", do="start one")

    tools = replace(machine.tools, in_base=none)
    with pytest.raises(EnvironmentProblem, match="resolves in the base, which takes an engine"):
        PIP.lock(machine.request("a\n"), None, tools)


def test_a_python_that_is_too_old(index: Index, machine: Machine) -> None:
    asked = machine.request("a\n")
    asked = replace(asked, facts=replace(FACTS, python_version="3.7.3"))
    with pytest.raises(LadingError, match=r"needs Python 3\.8 or newer in the base"):
        machine.lock(asked)


# -- by themselves --------------------------------------------------------------------------


@pytest.mark.parametrize("python", [f"3.{minor}.2" for minor in range(8, 15)])
def test_pip_tools_is_pinned_for_each_python(python: str) -> None:
    found = pip_locker.pinned_tools(pip_locker.PINS.read_text(), python)
    assert {"pip-tools", "pip", "click", "build", "setuptools", "wheel"} <= set(found)
    assert ("tomli" in found) == (uv.numbers(python) < (3, 11))
    assert all(hashes for _, hashes in found.values())


def test_what_pip_compile_wrote() -> None:
    text = f"""\
app==1.0 \\
    --hash=sha256:{"1" * 64} \\
    --hash=sha256:{"2" * 64}
    # via -r r.in
Some.Lib @ https://files.example/some.lib-2.0.tar.gz \\
    --hash=sha256:{"3" * 64}
    # via
    #   -r r.in
    #   app

# The following packages are considered to be unsafe in a requirements file:
pip==25.0 \\
    --hash=sha256:{"4" * 64}
    # via app
"""
    versions, hashes = pip_locker_answers.compiled(text)
    assert [(one.name, one.version, one.url, one.via) for one in versions] == [
        ("app", "1.0", "", ("-r r.in",)),
        ("pip", "25.0", "", ("app",)),
        ("some-lib", "", "https://files.example/some.lib-2.0.tar.gz", ("-r r.in", "app")),
    ]
    assert hashes["app"] == {"1" * 64, "2" * 64}
    assert hashes["pip"] == {"4" * 64}


def test_why_without_where() -> None:
    text = """\
Looking in indexes: http://127.0.0.1:4711/SECRET/simple/
Collecting a
  ERROR: Cannot install a and b because these package versions have conflicting dependencies.
The conflict is caused by:
    a 1.0 depends on b>=2 (from http://127.0.0.1:4711/SECRET/files/a/0/a.whl)
Traceback (most recent call last):
  File "/tmp/lading-locker/env/lib/pip.py", line 1, in <module>
    here
pip._internal.exceptions.DistributionNotFound: ResolutionImpossible: for help visit a page

The above exception was the direct cause of the following exception:
      Traceback (most recent call last):
        File "setup.py", line 3
      RuntimeError: no compiler
"""
    assert pip_locker_problems.explanation(text, "SECRET").splitlines() == [
        "  ERROR: Cannot install a and b because these package versions have conflicting "
        "dependencies.",
        "The conflict is caused by:",
        "    a 1.0 depends on b>=2 (from the index)",
        "      RuntimeError: no compiler",
    ]
