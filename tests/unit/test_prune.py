"""What goes with `doit prune`, and above all, what stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lading import claims, files
from lading.engines.fake import RecordingEngine
from lading.engines.model import ImageInfo
from lading.errors import EnvironmentProblem, LadingError
from lading.layers import base as bases
from lading.plan import KEY_LABEL
from lading.store import Artifact, Source
from tests.support.index import wheel
from tests.support.projects import FACTS, Trial

Said = Callable[[], str]


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    made = Trial.make(tmp_path / "project", HOME=str(tmp_path))
    assert made.doit("archive") == 0
    return made


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    def read() -> str:
        return capsys.readouterr().out

    return read


def fetched(trial: Trial, name: str, data: bytes) -> Path:
    """Something that the project downloads into its store."""
    served = trial.root.parent / name
    served.write_bytes(data)
    store = trial.state().store
    artifact: Artifact = store.fetch_new(name, [Source(url=served.as_uri())])
    return store.path(artifact.sha256)


def changed(trial: Trial) -> ImageInfo:
    """Image two, built anew of another file; what the engine had before, without its name."""
    old = trial.engine.held["two:2026.11.01"]
    (trial.root / "recipes/motd").write_text("changed\n")
    assert trial.doit("archive") == 0
    trial.engine.held[old.id] = old
    return old


def neighbour(trial: Trial, name: str = "neighbour") -> Trial:
    """A clone of the project, with the same store and the same engine."""
    root = trial.root.parent / name
    away = shutil.ignore_patterns("build", "dist", ".doit.db", ".lading*")
    shutil.copytree(trial.root, root, ignore=away)
    return Trial(root, trial.environ, trial.engine)


def test_where_nothing_is_to_go(trial: Trial, said: Said) -> None:
    said()
    assert trial.doit("prune") == 0
    # What was put there by hand is nobody's.
    assert said().startswith("nothing to prune")
    assert trial.doit("prune", "--force") == 0
    assert "removed: 0 things" in said()
    assert "nothing to do" in (trial.doit("archive"), said())[1]
    assert trial.engine.held.keys() >= {"one:2026.11.01", "two:2026.11.01"}


def test_first_it_is_shown_then_it_goes(trial: Trial, said: Said) -> None:
    old = changed(trial)
    path = fetched(trial, "left-over.tar.gz", b"x" * 2500)
    said()
    assert trial.doit("prune") == 0
    shown = said()
    assert f"image     {old.id[7:19]}" in shown
    assert "artifact  left-over.tar.gz" in shown
    assert "2.5 kB" in shown
    assert time.strftime("%Y-%m-%d") in shown
    assert "2 things, at most 3.5 kB; `doit prune --force` removes this" in shown
    assert path.exists()
    assert old.id in trial.engine.held
    assert trial.doit("prune", "--force") == 0
    assert "removed: 2 things, at most 3.5 kB" in said()
    assert not path.exists()
    assert old.id not in trial.engine.held
    assert trial.holds("two")
    assert trial.doit("prune") == 0
    assert said().startswith("nothing to prune")
    assert trial.doit("archive") == 0
    assert "nothing to do" in said()


def test_contexts_of_other_keys_and_former_images(trial: Trial, said: Said) -> None:
    """An archive is a product, and nobody's to delete but the user's."""
    (trial.root / "recipes/motd").write_text("changed\n")
    text = (trial.root / "project.yaml").read_text()
    (trial.root / "project.yaml").write_text(text.replace("  one:\n", "  uno:\n"))
    (trial.root / "build/mine").mkdir()
    (trial.root / "build/mine/notes").write_text("of the user's own")
    said()
    assert trial.doit("prune", "--force") == 0
    shown = said()
    assert "context   build/two/context" in shown
    assert "build     build/one" in shown
    assert "yours to delete: locks/images/one, dist/one.tar" in shown
    assert sorted(path.name for path in (trial.root / "build").iterdir()) == ["mine", "two"]
    assert (trial.root / "build/two/check.json").exists()
    assert (trial.root / "dist/one.tar").exists()
    # Its image has no name in project.yaml any more either.
    assert "one:2026.11.01" not in trial.engine.held


def test_folders_that_are_called_as_if_they_were_ladings(trial: Trial) -> None:
    names = ("a/context/thesis.tex", "b/verify/x", "c/build.log", "parts/notes-deadbeef/x")
    paths = [trial.root / "build" / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_text("of the user's own")
    assert trial.doit("prune", "--force") == 0
    assert [path.exists() for path in paths] == [True] * 4


def test_a_part_that_nothing_needs(trial: Trial) -> None:
    """Its context has its key, whose beginning its folder is called by."""
    left = trial.root / "build/parts/lib-slim-0a1b2c3d"
    left.mkdir(parents=True)
    shutil.copytree(trial.root / "build/two/context", left / "context")
    dockerfile = left / "context/Dockerfile"
    text = dockerfile.read_text()
    assert trial.doit("prune", "--force") == 0
    assert left.exists(), "it has another key than it is called by"
    dockerfile.write_text(text.replace(trial.key("two"), f"0a1b2c3d{'0' * 56}"))
    assert trial.doit("prune", "--force") == 0
    assert not left.exists()


def test_a_context_of_today_stays(trial: Trial, said: Said) -> None:
    assert trial.doit("prune", "--force") == 0
    assert (trial.root / "build/one/context/Dockerfile").exists()
    assert (trial.root / "build/two/context/Dockerfile").exists()


def test_another_project_names_it(trial: Trial, said: Said) -> None:
    """Both have the image, by one key; and the artifact, by its lock."""
    path = fetched(trial, *wheel("a", "2.0"))
    other = neighbour(trial)
    other.lock("one", "2.0")
    assert other.doit("archive:two") == 0
    old = changed(trial)
    said()
    assert trial.doit("prune", "--force") == 0
    shown = said()
    assert "removed: 0 things" in shown
    assert "left:" not in shown
    assert path.exists()
    assert old.id in trial.engine.held
    # The other project is gone: then nobody names it.
    shutil.rmtree(other.root)
    assert trial.doit("prune", "--force") == 0
    assert "removed: 2 things" in said()
    assert not path.exists()
    assert old.id not in trial.engine.held


def test_what_another_project_made_is_not_touched(trial: Trial, said: Said) -> None:
    """It is not named by anyone; but only who made it may know what it is for."""
    other = neighbour(trial)
    (other.root / "recipes/motd").write_text("of the other\n")
    assert other.doit("archive") == 0
    path = fetched(other, "theirs.tar.gz", b"theirs")
    old = trial.engine.held["two:2026.11.01"]
    (other.root / "recipes/motd").write_text("and another\n")
    assert other.doit("archive") == 0
    trial.engine.held[old.id] = old
    said()
    for options in (["--force"], ["--force", "--all"]):
        assert trial.doit("prune", *options) == 0
        assert path.exists()
        assert old.id in trial.engine.held
    assert other.doit("prune", "--force") == 0
    assert not path.exists()
    assert old.id not in trial.engine.held


def test_what_is_nobodys(trial: Trial, said: Said) -> None:
    """It goes with --all only, and so does what a project has left that is gone."""
    other = neighbour(trial)
    assert other.doit("archive") == 0
    left = fetched(other, "left.tar.gz", b"left behind")
    shutil.rmtree(other.root)
    old = trial.keep("old.tar.gz", b"from before there were claims")
    before = trial.state().store.path(old.sha256)
    said()
    assert trial.doit("prune", "--force") == 0
    assert left.exists() and before.exists()
    assert trial.doit("prune") == 0
    assert "--all would find 40 B more in the store" in said()
    assert trial.doit("prune", "--all", "--force") == 0
    assert not left.exists() and not before.exists()
    assert trial.doit("fetch") == 0, "what is named is still there"
    kinds = {claim.kind for one in claims.read(trial.state().store.root) for claim in one.made}
    assert "artifact" not in kinds, "nobody claims what is no more"


def test_images_of_others_in_the_same_engine(trial: Trial, said: Said) -> None:
    """Whoever made them: in an engine of several users their claims are in another store."""
    trial.engine.hold("theirs:1", {KEY_LABEL: "0" * 64})
    trial.engine.hold("localhost/lading/base/debian-13:0123456789abcdef")
    trial.engine.hold("ordinary:1")
    assert trial.doit("prune", "--all", "--force") == 0
    assert trial.engine.held.keys() >= {
        "theirs:1",
        "ordinary:1",
        "localhost/lading/base/debian-13:0123456789abcdef",
    }


def test_an_image_of_others_that_was_of_use(trial: Trial) -> None:
    """Another user, with a store of their own, found it in the engine and checked it."""
    old = trial.engine.held["two:2026.11.01"]
    other = neighbour(trial)
    other.environ = {**trial.environ, "LADING_CACHE": str(trial.root.parent / "theirs")}
    shutil.copytree(
        trial.environ["LADING_CACHE"],
        other.environ["LADING_CACHE"],
        ignore=shutil.ignore_patterns("projects"),
    )
    assert other.doit("archive:two") == 0
    assert "build" not in other.engine.asked
    (other.root / "recipes/motd").write_text("changed\n")
    assert other.doit("archive:two") == 0
    trial.engine.held[old.id] = old
    assert other.doit("prune", "--force") == 0
    assert old.id in trial.engine.held


def test_a_container_stands_on_it(trial: Trial, said: Said) -> None:
    old = changed(trial)
    trial.engine.used.add(old.id)
    said()
    assert trial.doit("prune", "--force") == 0
    assert f"left: {old.id[7:19]}: a container stands on it" in said()
    assert old.id in trial.engine.held
    # One that was begun in between: the engine refuses.
    trial.engine.used.clear()
    trial.engine.failures["discard"] = LadingError("removing it failed", why="conflict: in use")
    assert trial.doit("prune", "--force") == 0
    shown = said()
    assert "removing it failed\n  conflict: in use" in shown
    assert "removed: 0 things" in shown
    trial.engine.failures.clear()
    assert trial.doit("prune", "--force") == 0
    assert old.id not in trial.engine.held


def test_a_name_that_the_user_gave(trial: Trial, said: Said) -> None:
    old = changed(trial)
    del trial.engine.held[old.id]
    trial.engine.held["paper:final"] = old
    said()
    assert trial.doit("prune", "--force") == 0
    assert "left: paper:final: paper:final is a name that lading has not given it" in said()
    assert "paper:final" in trial.engine.held


@pytest.mark.parametrize("begins", ["localhost/lading/verify/two:", "localhost/lading/build:"])
def test_what_was_left_on_the_way(trial: Trial, begins: str) -> None:
    """Of a comparison, or by a builder: it has today's key, and is nothing all the same."""
    name = f"{begins}{trial.key('two')[:16]}"
    trial.engine.hold(name, {KEY_LABEL: trial.key("two")})
    trial.state().claim_image(trial.key("two"), name)
    assert trial.doit("prune", "--force") == 0
    assert name not in trial.engine.held
    assert trial.holds("two")


def test_bases(trial: Trial) -> None:
    """The base of today's lock stays, and so does one that somebody else has made."""
    text = (trial.root / "project.yaml").read_text()
    debian = "bases:\n  deb: {debian: {suite: trixie}}\n"
    (trial.root / "project.yaml").write_text(text.replace("bases:\n", debian))
    state = trial.state()
    base = state.project.bases["deb"]
    path = bases.path(trial.root, "deb", "linux/amd64")
    path.parent.mkdir(parents=True)
    path.write_text(bases.text_of(base, "linux/amd64", FACTS, None, debs=()))
    lock = state.base_lock(base)
    assert lock is not None
    today, old, theirs = (
        f"localhost/lading/base/deb:{key[:16]}" for key in (lock.key, "1" * 64, "2" * 64)
    )
    for key, name in ((lock.key, today), ("1" * 64, old)):
        state.claim_image(key, name)
        state.store.derived(key, "base.tar", lambda out: out.touch())
    for name in (today, old, theirs):
        trial.engine.hold(name, {"of": name})
    assert trial.doit("prune", "--force") == 0
    assert [name in trial.engine.held for name in (today, old, theirs)] == [True, False, True]
    assert state.store.has_derived(lock.key, "base.tar")
    assert not state.store.has_derived("1" * 64, "base.tar")


def test_without_an_engine(trial: Trial, said: Said) -> None:
    path = fetched(trial, "left-over.tar.gz", b"x")
    trial.engine.failures["listed"] = EnvironmentProblem("no engine answers")
    said()
    assert trial.doit("prune", "--force") == 0
    assert "images were not looked at: no engine answers" in said()
    assert not path.exists()


def test_halves_of_downloads(trial: Trial, said: Said) -> None:
    partial = trial.state().store.root / "partial"
    partial.mkdir(exist_ok=True)
    old, young, held = (partial / f"{digit * 64}.part" for digit in "abc")
    for path in (old, young, held):
        path.write_bytes(b"half")
    for path in (old, held):
        os.utime(path, (time.time() - 90_000,) * 2)
    said()
    with files.locked(held.with_suffix(".lock"), "another process"):
        assert trial.doit("prune") == 0
        assert "half      aaaaaaaaaaaa" in said()
        assert trial.doit("prune", "--force") == 0
    assert sorted(path.name[0] for path in partial.glob("*.part")) == ["b", "c"]


@pytest.mark.parametrize("broken", ["images: [", "lading: 1\nname: x\nimages: {a: {base: none}}"])
def test_a_project_that_cant_be_read(trial: Trial, said: Said, broken: str) -> None:
    """What it names nobody knows; what is surely this project's own goes."""
    other = neighbour(trial)
    assert other.doit("archive") == 0
    (other.root / "project.yaml").write_text(broken)
    path = fetched(trial, "left-over.tar.gz", b"x")
    old = changed(trial)
    shutil.copytree(trial.root / "build/two/context", trial.root / "build/gone/context")
    said()
    assert trial.doit("prune", "--force") == 0
    assert f"what the project in {other.root} names can't be read" in said()
    assert path.exists()
    assert old.id in trial.engine.held
    assert not (trial.root / "build/gone").exists()


def test_its_own_locks_cant_be_read(trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    path = fetched(trial, "left-over.tar.gz", b"x")
    lock = trial.root / "locks/images/one/linux-amd64/requirements.txt"
    lock.write_text("damaged")
    assert trial.doit("prune", "--force") == 1
    assert "requirements.txt" in capsys.readouterr().err
    assert path.exists()


def test_a_run_in_another_project(trial: Trial, said: Said) -> None:
    """It may be about to lock what this one does not want any more."""
    other = neighbour(trial)
    assert other.doit("archive") == 0
    path = fetched(trial, "left-over.tar.gz", b"x")
    said()
    with files.locked(other.root / ".lading.lock", "process 1: doit"):
        assert trial.doit("prune", "--force") == 0
    assert f"a run is under way in {other.root}" in said()
    assert path.exists()
    assert trial.doit("prune", "--force") == 0
    assert not path.exists()


def test_two_at_once(trial: Trial) -> None:
    """They take turns, and both end well; no file of it is lost to the other's."""
    for number in range(40):
        fetched(trial, f"left-over-{number}", b"%d" % number)
    program = (
        "import sys; from tests.support.projects import FACTS, Trial; from pathlib import Path;"
        "sys.exit(Trial(Path(sys.argv[1]), {'LADING_CACHE': sys.argv[2]}).doit('prune', '--force'))"
    )
    arguments = [str(trial.root), trial.environ["LADING_CACHE"]]
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    ended = [one.communicate(timeout=60)[0] for one in begun]
    assert [one.returncode for one in begun] == [0, 0], ended
    assert sorted("removed: 40 things" in text for text in ended) == [False, True]


def test_what_a_context_holds_as_well(trial: Trial, said: Said) -> None:
    """A file that is linked from a context that stays takes its room there."""
    path = fetched(trial, "linked.tar.gz", b"x" * 5000)
    os.link(path, trial.root / "build/two/context/linked")
    said()
    assert trial.doit("prune") == 0
    assert "1 thing, 0 B;" in said()


# -- claims ---------------------------------------------------------------------------------


def test_claims_last(tmp_path: Path) -> None:
    """Also of a folder with a strange name, and behind a line that was cut off."""
    project = tmp_path / "a b\n\udcff%"
    project.mkdir()
    (project / "project.yaml").touch()
    store = tmp_path / "store"
    claims.add(store, project, [("artifact", "k", "a name\nof two lines")])
    claims.add(store, project, [("artifact", "k", "a name\nof two lines"), ("image", "i", "x:1")])
    (path,) = [path for path in (store / "projects").iterdir() if not path.suffix]
    path.write_bytes(path.read_bytes() + b"177 artifact cut")
    claims.add(store, project, [("derived", "d", "")])
    (read,) = claims.read(store)
    assert read.project == project
    assert read.exists
    assert [(one.kind, one.key, one.name) for one in read.made] == [
        ("artifact", "k", "a name\nof two lines"),
        ("image", "i", "x:1"),
        ("derived", "d", ""),
    ]
    claims.forget(store, project, [("image", "i")])
    assert [one.key for one in claims.read(store)[0].made] == ["k", "d"]


def test_a_store_that_cant_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    claims.add(tmp_path / "store", tmp_path, [("artifact", "k", "")])
    claims.register(tmp_path / "store", tmp_path)
    assert claims.read(tmp_path / "store") == ()


def test_a_run_with_nothing_to_do_writes_no_claim(trial: Trial) -> None:
    folder = trial.state().store.root / "projects"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert trial.doit("archive") == 0
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_fetching_claims_what_came(trial: Trial, tmp_path: Path) -> None:
    name, data = wheel("b", "1")
    path = fetched(trial, name, data)
    (mine,) = claims.read(trial.state().store.root)
    assert mine.project == trial.root
    assert ("artifact", path.name, name) in [(one.kind, one.key, one.name) for one in mine.made]
    assert {one.key for one in mine.made if one.kind == "image"} == {
        trial.key("one"),
        trial.key("two"),
    }


def test_the_engines_list(trial: Trial) -> None:
    """The fake's own: names of one image are together."""
    engine = RecordingEngine()
    held = engine.hold("a:1", {"x": "y"})
    engine.held["a:2"] = held
    engine.used.add(held.id)
    (found,) = engine.listed()
    assert (found.names, found.used, found.labels) == (("a:1", "a:2"), True, {"x": "y"})
    engine.discard(found)
    assert not engine.held
