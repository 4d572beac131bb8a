"""outdated: what an upgrade would change, said and not written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lading.errors import EnvironmentProblem
from tests.support.index import Index
from tests.support.projects import Trial, run_doit

# The fixtures of an upgrade, which asks the same.
from tests.unit.test_upgrade import Registry, Said, index, remote, trial

__all__ = ["index", "remote", "trial"]

SHARED = """\
  own:
    base: slim
    apt: [make]
"""


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in root.rglob("*")
        if p.is_file() and p.suffix != ".pyc"
    }


def asked(trial: Trial, capsys: Said, *names: str) -> tuple[int, dict[str, Any]]:
    code = trial.doit("outdated", "--format", "json", *names)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["exit"] == code
    return code, found["images"]


def test_nothing_to_upgrade(trial: Trial, index: Index, remote: Registry, capsys: Said) -> None:
    index.drop(next(name for name in index.uploads if name.startswith("uv-0")))
    assert trial.doit("outdated") == 2, "there is no installer of today's"
    said = capsys.readouterr().out
    assert "! pip can't be asked" in said
    assert "nothing to upgrade: base:slim, two" in said
    assert trial.doit("outdated", "two") == 0
    assert capsys.readouterr().out == "nothing to upgrade: base:slim, two\n"


def test_what_would_change_is_said_and_nothing_written(
    trial: Trial, index: Index, remote: Registry, capsys: Said
) -> None:
    index.wheel("a", "2.0", requires=["b"])
    index.wheel("b", "1")
    remote.digest = "sha256:" + "7" * 64
    before = tree(trial.root)
    assert trial.doit("outdated") == 1
    assert tree(trial.root) == before
    said = capsys.readouterr().out
    assert "base:slim (for one, two)\n  base slim: 1 moved\n" in said
    assert "  python:3.13-slim sha256:" in said
    assert "one\n  Python packages: 1 moved, 1 added" in said
    assert "      a 1.0 → 2.0  " in said
    assert "  ! docker.io/library/python:3.13-slim is another image now;" in said
    assert trial.engine.calls == [], "an image that has moved is not pulled for it"

    code, images = asked(trial, capsys)
    assert code == 1
    assert set(images) == {"one", "two"}
    changes = {change["name"]: change for change in images["one"]["changes"]}
    assert changes["a"] | {"size": 0} == {
        "what": "pip", "part": "", "name": "a", "how": "moved", "old": "1.0", "new": "2.0",
        "size": 0,
    }  # fmt: skip
    assert changes["b"]["how"] == "added" and changes["b"]["old"] is None
    assert changes["python:3.13-slim"]["what"] == "base"
    assert [change["what"] for change in images["two"]["changes"]] == ["base"]
    assert images["two"]["outdated"] is True

    # In CI it is of use, too: nothing is written.
    trial.environ["CI"] = "true"
    assert trial.doit("outdated", "frozen=1") == 1
    assert tree(trial.root) == before
    # And what it says is what an upgrade does.
    del trial.environ["CI"]
    assert trial.doit("upgrade") == 0
    capsys.readouterr()
    code, images = asked(trial, capsys)
    assert (code, images["one"]["changes"]) == (0, [])


def test_what_can_t_be_asked_hides_nothing_else(
    trial: Trial, index: Index, remote: Registry, capsys: Said
) -> None:
    yaml = trial.root / "project.yaml"
    yaml.write_text(yaml.read_text() + SHARED)
    index.wheel("a", "2.0")
    index.statuses["a"] = 503
    remote.digest = "sha256:" + "7" * 64
    assert trial.doit("outdated") == 2
    said = capsys.readouterr().out
    assert "  python:3.13-slim sha256:" in said
    assert "one\n  ! pip can't be asked: " in said
    assert "own\n  ! not locked yet: doit lock:own" in said
    assert max(map(len, said.splitlines())) <= 80
    index.statuses.clear()

    def down(image: str, platform: str, environ: object) -> Any:
        raise EnvironmentProblem("the registry docker.io can't be reached")

    remote.resolve = down  # type: ignore[method-assign]
    import lading.registry

    lading.registry.resolve = down  # type: ignore[assignment]
    code, images = asked(trial, capsys)
    assert code == 2
    assert images["two"]["problems"] == [
        {"what": "base", "text": "the registry docker.io can't be reached"}
    ]
    assert any(change["name"] == "a" for change in images["one"]["changes"])


def test_without_an_engine_apt_s_part_is_what_is_missing(
    trial: Trial, index: Index, remote: Registry, capsys: Said
) -> None:
    from lading.debian import Deb
    from lading.layers import apt
    from lading.layers.apt_kind import APT

    yaml = trial.root / "project.yaml"
    yaml.write_text(yaml.read_text().replace("    test: [py", "    apt: [make]\n    test: [py"))
    index.wheel("a", "2.0")
    state, image = trial.state(), trial.image("one")
    made = Deb(
        name="make", version="4", architecture="amd64", path="debian:m", size=1, sha256="0" * 64
    )
    lock = apt.made(
        {"run": (made,)}, None, inputs=state.request(image, APT).digest, command="x", what="one"
    )
    apt.write(state.lock_folder(image), lock)

    def none() -> Any:
        raise EnvironmentProblem("no container engine answers", do="install Podman")

    trial.environ["LADING_DEBIAN_MIRROR"] = "http://127.0.0.1:9/debian"
    trial.environ["LADING_DEBIAN_SECURITY_MIRROR"] = "http://127.0.0.1:9/security"
    assert run_doit(trial.root, ["outdated"], trial.environ, none) == 2
    said = capsys.readouterr().out
    assert (
        "! apt can't be asked: no container engine answers\n    -> install Podman"
        in said.replace("      ->", "    ->")
    )
    assert "a 1.0 → 2.0" in said


def test_pins_that_were_yanked_or_deleted_are_said(
    trial: Trial, index: Index, remote: Registry, capsys: Said
) -> None:
    index.wheel("a", "0.9")
    index.wheel("a", "1.5")
    index.yank("a-1.0-py3-none-any.whl", "it eats\n files")
    code, images = asked(trial, capsys, "one")
    assert code == 1
    assert images["one"]["notes"] == ["a 1.0 was yanked (it eats files); near it: 0.9, 1.5"]

    # Nothing to move to is no reason to be silent.
    (trial.root / "recipes/one.in").write_text("a==1.0\n")
    trial.lock("one")
    code, images = asked(trial, capsys, "one")
    assert code == 1
    assert images["one"]["notes"] == ["a 1.0 was yanked (it eats files); near it: 0.9, 1.5"]

    index.drop("a-1.0-py3-none-any.whl")
    (trial.root / "recipes/one.in").write_text("a\n")
    trial.lock("one")
    code, images = asked(trial, capsys, "one")
    assert images["one"]["notes"] == [
        "a 1.0 is no longer there (it was on 2026-11-01, when it was locked); near it: 0.9, 1.5"
    ]
    assert "a" in {change["name"] for change in images["one"]["changes"]}


def test_a_name_that_is_no_image(trial: Trial, capsys: Said) -> None:
    assert trial.doit("outdated", "ones") == 3
    assert "there is no image 'ones'; did you mean one?" in capsys.readouterr().err


def test_a_matrix_is_all_its_variants_and_options_stand_anywhere(
    trial: Trial, remote: Registry, capsys: Said
) -> None:
    yaml = trial.root / "project.yaml"
    more = "  v:\n    matrix: {x: [1, 2]}\n    base: slim\n    env: {X: '{x}'}\n"
    yaml.write_text(yaml.read_text() + more)
    assert trial.doit("outdated", "v", "--format", "json", "v-1") == 0
    assert list(json.loads(capsys.readouterr().out)["images"]) == ["v-1", "v-2"]


def test_a_base_whose_lock_is_damaged(
    trial: Trial, index: Index, remote: Registry, capsys: Said
) -> None:
    (trial.root / "locks/bases/slim/linux-amd64/base.yaml").write_text("<<<<<<< ours\n")
    code, images = asked(trial, capsys)
    assert code == 2
    assert {problem["what"] for problem in images["one"]["problems"]} == {"base"}


def test_images_that_are_made_only_when_named(
    trial: Trial, index: Index, remote: Registry, capsys: Said
) -> None:
    assert list(asked(trial, capsys)[1]) == ["one", "two"]
    assert list(asked(trial, capsys, "spare")[1]) == ["spare"]
