"""The trial install that a lock is made from: what is run in the base, and what is made of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from lading.conda import export
from lading.conda.channels import Channel as Named
from lading.conda.export import MARK, Exported, Pinned
from lading.engines import Mount, RunResult
from lading.errors import DeclarationError, LadingError
from lading.facts import Facts
from lading.layers import conda, conda_resolve
from lading.layers.conda import Request
from lading.layers.conda_section import CondaSection
from lading.layers.kind import InBase, Tools
from lading.store import Store
from tests.support.channels import Channel, only_loopback

EXPORT = """\
name: lading-trial
channels:
  - lab
  - far
dependencies:
  - libfoo=1.0=0
  - far::tool=2.0=0
  - pip:
      - foo==1.0
prefix: /opt/conda/envs/lading-trial
"""
FACTS = Facts(glibc="2.36", conda="/opt/conda", conda_version="4.10.3")
URLS = {"lab": "http://me:pw@h.example/x/lab", "far": "http://h.example/t/TOK/far"}
EVERY = [Named(name=name, url=url) for name, url in URLS.items()]


def test_what_is_run() -> None:
    text = export.script(EVERY, ["tool>=2", "lab::libfoo"])
    assert (
        "conda create -y -n lading-trial --override-channels -c lab -c far 'tool>=2' lab::libfoo"
    ) in text
    assert "sed" not in text


@pytest.mark.parametrize(
    ("priority", "version", "said"),
    [("strict", "4.10.3", "strict"), ("disabled", "26.7", "disabled"), ("strict", "4.3.16", True)],
)
def test_where_conda_finds_the_channels(priority: str, version: str, said: object) -> None:
    written = json.loads(export.condarc(EVERY, priority, version))
    assert written["channel_priority"] == said
    assert written["custom_channels"] == {
        "lab": "http://me:pw@h.example/x",
        "far": "http://h.example/t/TOK",
    }


def test_an_export_is_polished() -> None:
    found = export.parse(f"Solving: done\n\n{MARK}\n{EXPORT}", URLS)
    assert found == Exported(
        packages=(
            Pinned(name="libfoo", version="1.0", build="0"),
            Pinned(name="tool", version="2.0", build="0", channel="far"),
        ),
        pip=("foo==1.0",),
    )
    by_url = EXPORT.replace("far::tool", "http://h.example/t/TOK/far/linux-64::tool")
    assert export.parse(f"{MARK}\n{by_url}", URLS).packages[1].channel == "far"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a mapping"),
        (f"{MARK}\nname: x\n", "it names no package"),
        (f"{MARK}\ndependencies: [tool=2.0]\n", "has not a version and a build"),
        (f"{MARK}\ndependencies: [tool\n", "export.yaml:"),
    ],
)
def test_what_is_no_export(text: str, said: str) -> None:
    with pytest.raises(LadingError, match="can't be read") as refused:
        export.parse(text, URLS)
    assert said in refused.value.why


# -- and locked -----------------------------------------------------------------------------


@pytest.fixture
def channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Channel]:
    only_loopback(monkeypatch, tmp_path / "home")
    with Channel(tmp_path / "channels") as found:
        monkeypatch.setenv("CONDA_CHANNEL_ALIAS", found.alias)
        for version in ("1.0", "1.2"):
            found.package("libfoo", version)
        found.package(
            "tool",
            "2.0",
            {"lib/python3.12/site-packages/foo-1.0.dist-info/METADATA": "Name: foo\n"},
            depends=["libfoo"],
        )
        yield found


def asked(root: Path, **more: Any) -> Request:
    section = CondaSection(
        channels=("lab",), packages=("tool",), locker="conda-export", prefix="/opt/packages"
    )
    return conda.request(root, "trial", section, replace(FACTS, **more), "linux/amd64", None)


class Base:
    """A base whose conda exports this."""

    def __init__(self, root: Path, output: str, code: int = 0) -> None:
        self.root = root
        self.result = RunResult(code=code, output=output)
        self.condarc: dict[str, Any] = {}
        self.notes: list[str] = []

    @property
    def tools(self) -> Tools:
        store = Store(self.root / "store")
        return Tools(environ=os.environ, store=store, note=self.notes.append, in_base=self.made)

    def made(self) -> InBase:
        return self

    def __call__(
        self,
        command: Sequence[str],
        *,
        mounts: Sequence[Mount] = (),
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        line: object = None,
    ) -> RunResult:
        assert env is not None
        assert env["CONDARC"] == f"{mounts[0].target}/condarc"
        self.condarc = json.loads((mounts[0].source / "condarc").read_text())
        return self.result


MINE = f"{MARK}\n{EXPORT}".replace("far::", "")


def test_exactly_what_was_installed_is_locked(channel: Channel, tmp_path: Path) -> None:
    base = Base(tmp_path, MINE)
    lock = conda_resolve.lock(asked(tmp_path), None, base.tools)
    # Not the newest libfoo: the one that conda chose.
    assert {package.stem for package in lock.packages} == {"libfoo-1.0-0", "tool-2.0-0"}
    assert all(package.sha256 and package.size for package in lock.packages)
    assert base.condarc["custom_channels"] == {"lab": channel.alias}
    assert "  pip: foo==1.0: ignored; a conda package brings it along" in base.notes
    conda.write(tmp_path / "locks", lock)
    assert conda.read(tmp_path / "locks") == lock
    assert "127.0.0.1" not in "".join(lock.texts.values())


def test_what_pip_brought_is_refused(channel: Channel, tmp_path: Path) -> None:
    base = Base(tmp_path, MINE.replace("foo==1.0", "wild==3"))
    with pytest.raises(LadingError, match="Python packages that no conda package has") as refused:
        conda_resolve.lock(asked(tmp_path), None, base.tools)
    assert refused.value.why == "wild==3"


def test_a_build_that_is_gone(channel: Channel, tmp_path: Path) -> None:
    channel.drop("libfoo-1.0-0.conda")
    with pytest.raises(LadingError, match="can't be locked") as refused:
        conda_resolve.lock(asked(tmp_path), None, Base(tmp_path, MINE).tools)
    assert refused.value.why == "none of lab has libfoo=1.0=0"


def test_a_trial_that_fails(channel: Channel, tmp_path: Path) -> None:
    base = Base(tmp_path, "Solving: failed\nhttp://me:s3cret@h.example/lab: 403\n", code=1)
    with pytest.raises(LadingError, match="the trial install failed") as refused:
        conda_resolve.lock(asked(tmp_path), None, base.tools)
    assert "Solving: failed" in refused.value.why
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(("version", "fits"), [("3.9.7", True), ("3.90.1", False)])
def test_the_bases_conda_keeps_its_python(
    channel: Channel, tmp_path: Path, version: str, fits: bool
) -> None:
    channel.package("python", version)
    base = Base(tmp_path, f"{MARK}\ndependencies: [python={version}=0]\n")
    own = replace(FACTS, python="/opt/conda/bin/python", python_version="3.9.2")
    section = CondaSection(
        channels=("lab",), packages=("python",), locker="conda-export", installer="conda"
    )
    asked = conda.request(tmp_path, "trial", section, own, "linux/amd64", None)
    if fits:
        assert [p.version for p in conda_resolve.lock(asked, None, base.tools).packages] == [
            version
        ]
        assert base.condarc["pinned_packages"] == ["python=3.9.*"]
        return
    with pytest.raises(LadingError, match=r"in place of the base.s 3\.9\.2") as refused:
        conda_resolve.lock(asked, None, base.tools)
    assert "ask for python=3.9, too" in refused.value.do


def test_a_trial_is_of_today(tmp_path: Path) -> None:
    section = CondaSection(
        channels=("lab",), packages=("tool",), locker="conda-export", prefix="/opt/packages"
    )
    with pytest.raises(DeclarationError, match="can't be as of 2021-08-15"):
        conda.request(tmp_path, "trial", section, FACTS, "linux/amd64", date(2021, 8, 15))


def test_the_locker_is_an_input(tmp_path: Path) -> None:
    trial = asked(tmp_path)
    plain = replace(trial, section=replace(trial.section, locker="rattler"))
    assert trial.digest != plain.digest
