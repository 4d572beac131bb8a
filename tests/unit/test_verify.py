"""`doit verify`: what is made again, what is compared, and what is said where it differs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from lading.errors import LadingError
from lading.layers.pip_kind import PIP
from lading.parts import PRODUCT
from lading.plan import AGAIN, KEY_LABEL, Part, Plan
from lading.verbs import base as base_verb
from lading.verbs import part as part_verb
from lading.verbs import verify
from tests.support import projects
from tests.support.projects import Trial, tiny_layer

Said = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def trial(tmp_path: Path, capfd: Said) -> Trial:
    """The project with its archives made, and no diffoscope on PATH."""
    made = Trial.make(tmp_path / "trial", PATH=str(tmp_path / "bin"))
    assert made.doit() == 0
    capfd.readouterr()
    return made


@pytest.fixture
def otherwise(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the engine builds from now on differs by a file."""
    own = tiny_layer("hello", "opt")
    base = projects.TINY_LAYERS["base.tar"]
    ids = tuple(f"sha256:{hashlib.sha256(data).hexdigest()}" for data in (base, own))
    monkeypatch.setattr(projects, "TINY_LAYERS", {"base.tar": base, "own.tar": own})
    monkeypatch.setattr(projects, "TINY_IDS", ids)
    yield


def left(trial: Trial) -> list[str]:
    folder = trial.root / "build/one/verify"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_same_again(trial: Trial, capfd: Said) -> None:
    assert trial.doit("verify:one") == 0
    assert "the same again, " in capfd.readouterr().out
    (built,) = trial.engine.named("build")
    assert built["cache"] is False
    # Under a name of its own, which goes away again; the image itself is left alone.
    assert built["tag"].startswith("localhost/lading/verify/one:")
    assert trial.engine.named("remove") == [{"ref": built["tag"]}]
    assert trial.holds("one")
    assert left(trial) == []
    # It is never done: who asks again, builds again.
    assert trial.doit("verify:one") == 0
    assert trial.engine.named("build")


def test_what_differs_is_shown_and_both_are_kept(
    trial: Trial, otherwise: None, capfd: Said
) -> None:
    archive = trial.root / "dist/one.tar"
    before = archive.read_bytes()
    assert trial.doit("verify:one") == 1
    said = capfd.readouterr().out
    assert "one came out otherwise when it was built again" in said
    assert "layer 2:/opt: only in the second" in said
    assert "both are kept: " in said
    assert "diffoscope" not in said
    assert archive.read_bytes() == before
    assert left(trial) == ["build.log", "one.tar", "store"]
    assert [call["ref"] for call in trial.engine.named("remove")], "the engine keeps nothing"
    # What it left is gone after the next one, or with `clean`.
    assert trial.doit("clean", "verify:one") == 0
    assert left(trial) == []


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ('echo report >"$2"; exit 1', "; all that differs is in "),
        ("echo no memory >&2; exit 2", "; diffoscope failed: no memory"),
        ("exit 3", "; diffoscope failed: exit code 3"),
    ],
)
def test_diffoscope_is_asked_where_it_is_installed(
    trial: Trial,
    otherwise: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Said,
    script: str,
    says: str,
) -> None:
    program = tmp_path / "tools/diffoscope"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ntest "$1" = --text && test -f "$3" && test -f "$4"\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert trial.doit("verify:one") == 1
    said = " ".join(capfd.readouterr().out.split())
    assert says in said
    if "report" in script:
        assert (trial.root / "build/one/verify/one.diff.txt").read_text() == "report\n"


def test_an_engine_that_goes_away(
    trial: Trial, capfd: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said is what went wrong first, not that nothing can be cleaned up any more."""

    def gone(_name: str) -> NoReturn:
        trial.engine.failures["remove"] = LadingError("nobody answers")
        raise LadingError("the engine went away")

    monkeypatch.setattr(trial.engine, "save", gone)
    assert trial.doit("verify:one") == 1
    said = capfd.readouterr().out
    assert "the engine went away" in said
    assert "nobody answers" not in said


def test_an_engine_that_has_not_the_base(trial: Trial) -> None:
    """As on another machine, with the archive alone: what it stands on is brought in first."""
    trial.engine.held.clear()
    assert trial.doit("verify:one") == 0
    asked = trial.engine.asked
    assert asked.index("pull") < asked.index("build")


# -- what it is made of ---------------------------------------------------------------------


def test_a_base_is_made_again_once_a_run(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "base.tar"
    kept.write_bytes(b"the base" * 100)
    made: list[str] = []

    def assemble(state: Any, base: Any, lock: Any, out: Path) -> None:
        made.append(base.name)
        out.write_bytes(b"the base" * 100 + (b"!" if len(made) > 1 else b""))

    monkeypatch.setattr(base_verb, "archive_of", lambda *_: kept)
    monkeypatch.setattr(base_verb, "assemble", assemble)
    state = trial.state()
    one, two = trial.image("one"), trial.image("two")
    for image in (one, two):
        (tmp_path / image.name).mkdir()
        verify._base(state, image, tmp_path / image.name, state.once(("verified",), set))
    assert made == ["slim"]
    assert not list((tmp_path / "one").iterdir()), "nothing of it stays"
    # In another run it is made again; now it differs.
    with pytest.raises(LadingError, match="the base slim came out otherwise"):
        verify._base(trial.state(), one, tmp_path / "one", set())
    assert (tmp_path / "one/base.tar").exists()


def test_what_is_put_together_of_packages_is_made_again(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a store that has the downloads, and nothing that was made of them."""
    texts = ["the same", "the same", "another"]

    def write(out: Path) -> None:
        out.write_text(texts.pop(0))

    def prepare(request: Any, lock: Any, tools: Any) -> None:
        assert not tools.store.lacking(lock.artifacts)
        tools.store.derived("key", "prefix", write)

    monkeypatch.setattr(PIP, "prepared", lambda *_: False)
    monkeypatch.setattr(PIP, "prepare", prepare)
    state, image = trial.state(), trial.image("one")
    state.store.derived("key", "prefix", write)
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    verify._prepared(state, image, tmp_path / "good")
    assert len(texts) == 1
    with pytest.raises(LadingError, match="prefix of one came out otherwise") as caught:
        verify._prepared(state, image, tmp_path / "bad")
    assert "can't be read" in caught.value.why, "this one is no tar"
    assert state.store.made("key", "prefix").read_text() == "the same"


def test_parts_are_made_again_the_needed_ones_first_each_once(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def part(name: str, *parts: Part) -> Part:
        plan = Plan(name=name, title="", stages=(), files={})
        return Part(what=name, key=name * 8, plan=plan, epoch=0, parts=parts)

    below = part("below")
    parts = [part("left", below), part("right", below)]
    state = trial.state()
    made: list[str] = []

    def make(state: Any, part: Part, out: Path, *, cache: bool = True) -> None:
        assert not cache
        made.append(part.what)
        out.write_bytes(part.what.encode() * 200)

    monkeypatch.setattr(part_verb, "make", make)
    monkeypatch.setattr(part_verb, "ensure", lambda *_: "")
    for one in (below, *parts):
        kept = state.store.made(one.key, PRODUCT)
        kept.parent.mkdir(parents=True)
        kept.write_bytes(one.what.encode() * 200)
    same: set[str] = set()
    assert [verify._part(state, one, tmp_path, same) for one in parts] == [2, 1]
    assert made == ["below", "left", "right"]
    assert not list(tmp_path.glob("*.tar"))
    state.store.made(below.key, PRODUCT).write_bytes(b"damaged")
    with pytest.raises(LadingError, match="below came out otherwise"):
        verify._part(state, parts[0], tmp_path, set())


def test_what_a_killed_one_left_is_removed_first(trial: Trial) -> None:
    """Without its name it would pass for the image itself."""
    name = f"{AGAIN}one:{trial.key('one')[:16]}"
    trial.engine.hold(name, {KEY_LABEL: trial.key("one")})
    assert trial.doit("verify:one") == 0
    asked = [call for call in trial.engine.calls if call[0] in ("remove", "build")]
    assert asked[0] == ("remove", {"ref": name})
    assert asked[1][0] == "build"
