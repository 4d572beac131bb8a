"""Several platforms: one is made here, the others' locks too, and what can't be done is said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from lading import locks, platforms, project, registry
from lading.errors import EnvironmentProblem, LadingError
from lading.layers import base as bases
from lading.layers.pip_kind import PIP
from lading.project import load
from lading.state import State
from lading.verbs import base as base_verb
from lading.verbs import renewing
from tests.support import projects
from tests.support.projects import YAML, Trial

AMD, ARM = "linux/amd64", "linux/arm64"
BOTH = YAML.replace("name: trial\n", "name: trial\nplatform: [linux/arm64, linux/amd64]\n")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine is an amd64, whatever it is."""
    monkeypatch.setattr(project, "native", lambda: AMD)


@pytest.fixture
def trial(here: None, tmp_path: Path) -> Trial:
    """A project for both platforms, with the locks of both."""
    made = Trial.make(tmp_path / "project", BOTH)
    lock_too(made, ARM)
    return made


def lock_too(trial: Trial, platform: str) -> None:
    """The locks of another platform, as they would have been made there."""
    state = trial.state().on(platform)
    for base in state.project.bases.values():
        digest = f"sha256:{platform[-2:].encode().hex() * 16}"
        path = bases.path(state.project.root, base.name, platform)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            bases.text_of(base, platform, projects.FACTS, None, digest=digest).replace(
                str(locks.today()), str(projects.DAY)
            )
        )
    own = trial.state()
    for image in state.project.images.values():
        if image.pip is None:
            continue
        folder = state.lock_folder(image)
        folder.mkdir(parents=True, exist_ok=True)
        was, now = (one.request(image, PIP).digest for one in (own, state))
        for file in own.lock_folder(image).iterdir():
            (folder / file.name).write_text(file.read_text().replace(was, now))


@pytest.mark.parametrize(
    ("machine", "declared", "own", "others"),
    [
        (AMD, "linux/arm64", ARM, ()),
        (AMD, "[linux/arm64]", ARM, ()),
        (AMD, "[linux/arm64, linux/amd64]", AMD, (ARM,)),
        (ARM, "[linux/amd64, linux/arm64]", ARM, (AMD,)),
        ("", "[linux/arm64, linux/amd64]", ARM, (AMD,)),
    ],
)
def test_of_several_platforms_this_machines_own_is_made_here(
    machine: str,
    declared: str,
    own: str,
    others: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(project, "native", lambda: machine)
    (tmp_path / "project.yaml").write_text(f"lading: 1\nname: x\nplatform: {declared}\n")
    found = load(tmp_path / "project.yaml")
    assert (found.platform, found.others) == (own, others)


def test_a_key_is_the_same_wherever_it_is_worked_out(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = trial.image("one")
    here = trial.state()
    there = here.on(ARM)
    monkeypatch.setattr(project, "native", lambda: ARM)
    on_arm = trial.state()
    assert on_arm.project.platform == ARM
    assert there.key(image) == on_arm.key(image)
    assert there.key(image) != here.key(image)
    assert there.name(image) == on_arm.name(image)
    assert there.pushed_as(image) == on_arm.pushed_as(image) != here.pushed_as(image)
    # What lies side by side has names of its own.
    assert here.lock_folder(image) != there.lock_folder(image)
    assert there.lock_folder(image) == on_arm.lock_folder(image)
    for what in ("archive", "record", "check_file", "context", "candidate", "tag"):
        assert getattr(here, what)(image) != getattr(there, what)(image)


def test_the_tasks_of_another_platform(trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    assert trial.doit("list", "--all", "--quiet") == 0
    found = capsys.readouterr().out.split()
    for name in ("lock:one", "lock:base:slim", "build:base:slim", "archive:one", "archive:spare"):
        assert {name, f"{name}@linux-arm64"} <= set(found)
    trial.doit("info", "lock")
    assert "lock:one@linux-arm64" in capsys.readouterr().out
    trial.doit("info", "archive")
    assert "@" not in capsys.readouterr().out
    # Nothing of it in a project for one platform.
    (trial.root / "project.yaml").write_text(YAML)
    assert trial.doit("list", "--all") == 0
    assert "@" not in capsys.readouterr().out


def test_upgrade_is_for_all_platforms_and_does_first_what_can_be_done_here(
    trial: Trial, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trial.doit("list", "--all", "--quiet") == 0
    assert "upgrade:base:slim@linux-arm64" in capsys.readouterr().out
    trial.doit("info", "upgrade")
    found = re.findall(r"upgrade:\S+", capsys.readouterr().out)
    assert found == [
        "upgrade:base:slim",
        *("upgrade:one", "upgrade:two"),
        *("upgrade:one@linux-arm64", "upgrade:two@linux-arm64"),
    ]


def test_what_was_asked_for_by_name_is_known_to_each_platform(trial: Trial) -> None:
    state = trial.state()
    other = state.on(ARM)
    names = ["build:one", "check:two@linux-arm64"]
    state.told(frozen=True, goals=names, named=names, involved=[*names, "lock:one@linux-arm64"])
    assert other.frozen
    assert other.goals == other.named == {"check:two"}
    assert other.involved == {"check:two", "lock:one"}
    assert state.goals == set(names)


def test_each_platform_has_an_archive_of_its_own(
    trial: Trial, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = projects.tiny_config
    assert trial.doit("archive:one") == 0
    monkeypatch.setattr(
        projects, "tiny_config", lambda labels: config(labels).replace(b"amd64", b"arm64")
    )
    assert trial.doit("archive:one@linux-arm64") == 0
    assert "· dist/one@linux-arm64.tar, " in capsys.readouterr().out
    assert {path.name for path in (trial.root / "dist").glob("*.tar")} == {
        "one.tar",
        "one@linux-arm64.tar",
    }
    assert (trial.root / "build/one@linux-arm64/context/Dockerfile").exists()
    # The engine has both, each under a name of its own.
    tagged = [name for name in trial.engine.held if "linux-arm64/one:" in name]
    assert len(tagged) == 1
    capsys.readouterr()
    assert trial.doit("archive:one", "archive:one@linux-arm64") == 0
    assert "nothing to do" in capsys.readouterr().out


def test_what_does_not_run_here_is_said(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(platforms, "native", lambda: AMD)
    monkeypatch.setattr(platforms, "BINFMT", str(tmp_path / "binfmt"))
    assert platforms.runs(AMD)
    assert not platforms.runs(ARM)
    state = trial.state().on(ARM)
    base = state.project.bases["slim"]
    lock = state.base_lock(base)
    assert lock is not None
    with pytest.raises(EnvironmentProblem, match="can't be made for linux/arm64") as caught:
        base_verb.assemble(state, base, lock, tmp_path / "out")
    assert "no emulator is registered" in str(caught.value)
    assert "qemu-user-static" in str(caught.value)
    # An emulator: what the kernel has registered, and has switched on.
    (tmp_path / "binfmt").mkdir()
    (tmp_path / "binfmt/qemu-aarch64").write_text("disabled\n")
    assert not platforms.runs(ARM)
    (tmp_path / "binfmt/qemu-aarch64").write_text("enabled\ninterpreter /x\n")
    assert platforms.runs(ARM)


def test_a_base_that_is_the_same_is_not_looked_into_where_it_does_not_run(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(platforms, "native", lambda: AMD)
    monkeypatch.setattr(platforms, "BINFMT", str(tmp_path / "binfmt"))
    trial.engine.failures["run"] = LadingError("exec format error")
    state = trial.state().on(ARM)
    base = state.project.bases["slim"]
    lock = state.base_lock(base)
    assert lock is not None
    remote = SimpleNamespace(digest=lock.digest)
    monkeypatch.setattr(registry, "resolve", lambda image, platform, environ: remote)
    assert renewing.base(state, base).changes == ()
    remote.digest = f"sha256:{'7' * 64}"
    with pytest.raises(EnvironmentProblem, match="can't be looked into"):
        renewing.base(state, base)


def test_all_platforms_are_asked_for_or_the_one_that_is_named(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = f"sha256:{'7' * 64}"
    monkeypatch.setattr(
        registry, "resolve", lambda image, platform, environ: SimpleNamespace(digest=there)
    )
    assert trial.doit("outdated", "two", "two@linux-arm64") == 1
    said = capsys.readouterr().out
    assert "base:slim (for two)\n" in said
    assert "base:slim@linux-arm64 (for two@linux-arm64)\n" in said
    assert "nothing to upgrade: two, two@linux-arm64\n" in said
    trial.doit("outdated", "--format", "json")
    found = json.loads(capsys.readouterr().out)["images"]
    assert set(found) == {"one", "two", "one@linux-arm64", "two@linux-arm64"}
    assert trial.doit("outdated", "two@linux-arm") == 3
    assert "did you mean two@linux-arm64" in capsys.readouterr().err
    # Where it stands, and what to do there.
    assert trial.doit("why", "one@linux-arm64", "a") == 0
    assert "locks/images/one/linux-arm64/requirements.txt" in capsys.readouterr().out
    (trial.root / "locks/images/one/linux-arm64/requirements.txt").unlink()
    assert trial.doit("why", "one@linux-arm64", "a") == 1
    assert "-> doit lock:one@linux-arm64\n" in capsys.readouterr().err


def test_an_engine_that_can_not_run_it_is_understood(trial: Trial) -> None:
    said = "exec /bin/sh: exec format error"
    trial.engine.failures["run"] = LadingError("running /bin/sh failed", why=said)
    state: State = trial.state().on(ARM)
    with pytest.raises(EnvironmentProblem, match="x can't be looked into") as caught:
        base_verb.facts_of_image(state, "x")
    assert said in str(caught.value)
    assert caught.value.exit_code == 2
    assert platforms.refused("x", ARM, "something else") is None
