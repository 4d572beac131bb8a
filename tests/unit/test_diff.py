"""What moved in the locks between two commits: git asked, old locks read, said in three ways."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lading import project
from lading.debian import Deb
from lading.diff.git import Revision
from lading.diff.reading import Place, place_of
from lading.diff.words import Moved, markdown
from lading.layers import apt, source
from lading.layers.source_section import SourceBuild
from lading.moved import Change
from lading.store import Artifact
from tests.support.index import only_loopback, wheel
from tests.support.projects import Trial
from tests.unit.test_platforms import AMD, ARM, BOTH, lock_too

Said = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only_loopback(monkeypatch, tmp_path, tmp_path / "uv-cache")
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    for name, value in {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CEILING_DIRECTORIES": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@b.example"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(trial: Trial, message: str) -> str:
    git(trial.root, "add", "-A")
    git(trial.root, "commit", "-qm", message)
    return git(trial.root, "rev-parse", "HEAD")


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """A project in a folder of a repository, with one commit."""
    (tmp_path / "repository").mkdir()
    git(tmp_path / "repository", "init", "-q", "-b", "main")
    made = Trial.make(tmp_path / "repository/project")
    commit(made, "first")
    return made


def told(trial: Trial, capsys: Said, *arguments: str) -> str:
    capsys.readouterr()
    assert trial.doit("diff", *arguments) == 0
    assert trial.engine.calls == []
    return capsys.readouterr().out


def test_between_commits_and_the_working_tree(trial: Trial, capsys: Said) -> None:
    assert "no lock has changed" in told(trial, capsys)
    trial.lock("one", "1.1")
    size = len(wheel("a", "1.1")[1])
    lines = told(trial, capsys).splitlines()
    assert re.fullmatch(r"HEAD \([0-9a-f]{10}\) → the working tree", lines[0])
    assert re.fullmatch(rf"one: 1 moved, {size} B to download, .* in all", lines[2])
    assert re.fullmatch(rf"      a 1\.0 → 1\.1 +{size} B", lines[4])
    second = commit(trial, "second")
    assert "no lock has changed" in told(trial, capsys)
    for arguments in (
        ["HEAD~1"],
        ["HEAD~1", "HEAD"],
        ["HEAD~1..HEAD"],
        ["HEAD^..."],
        ["one", "HEAD~1"],
    ):
        assert "a 1.0 → 1.1" in told(trial, capsys, *arguments), arguments
    assert "a 1.1 → 1.0" in told(trial, capsys, second[:10], "HEAD~1")
    assert "no lock has changed" in told(trial, capsys, "two", "HEAD~1")
    assert git(trial.root, "status", "--porcelain") == "", "nothing is left behind"


def test_each_platform_has_its_name(
    trial: Trial, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "native", lambda: AMD)
    (trial.root / "project.yaml").write_text(BOTH)
    lock_too(trial, ARM)
    commit(trial, "both")
    trial.lock("one", "1.1")
    lock_too(trial, ARM)

    def titles(*arguments: str) -> list[str]:
        found = told(trial, capsys, *arguments)
        return re.findall(r"(?m)^[*]*(\S+): 1 moved", found)

    assert titles() == titles("--format", "markdown") == ["one", "one@linux-arm64"]
    assert titles("one") == ["one"]
    assert titles("one@linux-arm64", "HEAD") == ["one@linux-arm64"]
    assert trial.doit("diff", "one@linux-arm") == 3
    assert "did you mean one@linux-arm64" in capsys.readouterr().err


def test_from_where_both_came(trial: Trial, capsys: Said) -> None:
    git(trial.root, "checkout", "-qb", "work")
    trial.lock("one", "1.1")
    commit(trial, "work")
    git(trial.root, "checkout", "-q", "main")
    trial.lock("one", "0.9")
    commit(trial, "main goes on")
    assert "a 1.0 → 1.1" in told(trial, capsys, "main...work")
    assert "a 0.9 → 1.1" in told(trial, capsys, "main..work")


def test_locks_that_came_and_went(trial: Trial, capsys: Said) -> None:
    shutil.rmtree(trial.root / "locks/images/one")
    assert "one: its locks are gone, 2 things" in told(trial, capsys)
    commit(trial, "gone")
    trial.lock("one")
    # Not even added to git.
    said = told(trial, capsys)
    assert "one: locked for the first time, 2 things" in said
    assert "a 1.0" not in said
    assert "| `a` |  | `1.0` |" in told(trial, capsys, "--format", "markdown")


def test_a_base_and_a_source(trial: Trial, capsys: Said) -> None:
    def locked(version: str) -> None:
        artifact = Artifact(name=f"x-{version}.tar.xz", sha256=version[0] * 64, size=1000)
        lock = source.text_of(SourceBuild(name="x", version=version, urls=("u",)), artifact, None)
        folder = trial.root / "locks/sources/x/linux-amd64"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / source.FILE).write_text(lock)
        deb = Deb(
            name="cc", version=version, architecture="all", path=f"debian:pool/cc_{version}.deb",
            size=7, sha256=version[0] * 64,
        )  # fmt: skip
        made = apt.made({"build": [deb]}, None, inputs="0" * 64, command="c", what="x")
        (folder / "apt-slim.yaml").write_text(made.text)

    locked("1.0")
    commit(trial, "source")
    locked("2.0")
    path = trial.root / "locks/bases/slim/linux-amd64/base.yaml"
    path.write_text(path.read_text().replace("3.13.5", "3.13.6"))
    said = told(trial, capsys)
    assert re.search(
        r"base slim: 1 moved.*\n  base slim: 1 moved\n +with Python 3\.13\.5 → 3\.13\.6", said
    )
    assert re.search(r"source x: 2 moved.*\n  sources: 1 moved.*\n +x 1\.0 → 2\.0", said)
    assert "Debian packages, to compile x on slim: 1 moved" in said
    assert "source x" not in told(trial, capsys, "base:slim")
    assert "base slim" in told(trial, capsys, "one"), "an image stands on its base"
    assert "base slim" in told(trial, capsys, "two")


def test_json(trial: Trial, capsys: Said) -> None:
    trial.lock("one", "1.1")
    said = json.loads(told(trial, capsys, "--format=json", "one"))
    assert said["old"] == {"name": "HEAD", "commit": git(trial.root, "rev-parse", "HEAD")}
    assert said["new"]["commit"] == ""
    (one,) = said["locks"]
    assert (one["whose"], one["name"], one["platform"]) == ("image", "one", "linux-amd64")
    assert [(c["name"], c["old"], c["new"], c["how"]) for c in one["changes"]] == [
        ("a", "1.0", "1.1", "moved")
    ]


def test_a_lock_of_somebody_elses_and_a_damaged_one(trial: Trial, capsys: Said) -> None:
    path = trial.root / "locks/images/one/linux-amd64/requirements.txt"
    text = path.read_text()
    path.write_text(f"a==1.1 \\\n    --hash=sha256:{'1' * 64} \\\n    --hash=sha256:{'2' * 64}\n")
    said = told(trial, capsys)
    assert "a 1.0 → 1.1" in said
    assert "uv" not in said, "what has not moved is not said to have"
    assert "in all" not in said, "what a version weighs is not known"
    path.write_text(text + "<<<<<<< ours\n")
    said = told(trial, capsys)
    assert "locks/images/one/linux-amd64/requirements.txt:11: not a line of a lock" in said


def test_markdown_is_a_table_that_nothing_breaks_out_of(trial: Trial) -> None:
    change = Change(what="pip", name="a|b`c", old="<1>", new="2", size=1500)
    place = Place(whose="image", name="x_y", platform="linux-amd64")
    one = Moved(place=place, how="changed", changes=(change,), bytes=(1, 1500), problems=("*x*",))
    old, new = Revision(name="a`b", commit="1" * 40), Revision(name="the working tree")
    said = markdown([one], old, new)
    assert said.splitlines()[0] == "### Locks: `ab (1111111111)` → `the working tree`"
    assert "**x\\_y: 1 moved, 1.5 kB to download, 1 B → 1.5 kB in all**" in said
    assert "| Python packages | `a\\|bc` | `<1>` | `2` | 1.5 kB |" in said
    assert "- \\*x\\*" in said
    many = Moved(place=place, how="changed", changes=(change,) * 31, bytes=(1, 1))
    assert "<details>" in markdown([many], old, new)
    assert "<details>" not in said


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["on"], 3, "'on' is neither an image nor a commit; did you mean one"),
        (["nosuch"], 3, "`git log --oneline` shows commits"),
        (["one", "nosuch"], 3, "there is no commit 'nosuch' here"),
        (["HEAD", "one"], 3, "-> doit diff one HEAD\n"),
        (["main..nosuch"], 3, "there is no commit 'nosuch' here"),
        (["HEAD", "HEAD", "HEAD"], 3, "'HEAD' is neither an image, nor base:NAME or source:NAME"),
        (["one", "HEAD", "HEAD", "HEAD"], 3, "two commits at most"),
        (["--format", "pdf"], 3, "pdf"),
    ],
)
def test_what_means_nothing(
    trial: Trial, capsys: Said, arguments: list[str], code: int, said: str
) -> None:
    assert trial.doit("diff", *arguments) == code
    found = capsys.readouterr()
    assert said in found.err
    assert "Traceback" not in found.err


def test_no_repository_and_no_commit(tmp_path: Path, capsys: Said) -> None:
    made = Trial.make(tmp_path / "project")
    assert made.doit("diff") == 1
    assert "this project is in no git repository" in capsys.readouterr().err
    git(made.root, "init", "-q")
    assert made.doit("diff") == 1
    assert "there is no commit to compare with yet" in capsys.readouterr().err


def test_no_git(
    trial: Trial, capsys: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert trial.doit("diff") == 2
    assert "git can't be run" in capsys.readouterr().err


def test_a_shallow_clone_says_so(trial: Trial, tmp_path: Path, capsys: Said) -> None:
    trial.lock("one", "1.1")
    commit(trial, "second")
    where = (trial.root.parent).as_uri()
    git(tmp_path, "clone", "-q", "--depth", "1", where, str(tmp_path / "shallow"))
    clone = Trial(tmp_path / "shallow/project", trial.environ)
    assert clone.doit("diff", "HEAD~1") == 3
    said = capsys.readouterr().err
    assert "this clone is shallow" in said
    assert "`git fetch --unshallow`" in said
    assert clone.doit("diff") == 0


def test_only_locks_are_locks() -> None:
    assert place_of("locks/images/x/linux-amd64/conda/lab/conda.lock") == Place(
        whose="image", name="x", platform="linux-amd64"
    )
    for path in ("locks/README", "locks/images/x", "locks/other/x/y/z", "other/images/x/y/z"):
        assert place_of(path) is None
