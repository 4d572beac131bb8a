"""What `doit ci` writes, what `doit stale` finds, and what GitHub is told of errors."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lading.annotations import annotate, command
from lading.ci import github, gitlab, layout, login, runner, stale
from lading.ci.stale import Found, Item
from lading.ci.written import headed
from lading.engines import contexts
from lading.errors import LadingError
from lading.parts import PRODUCT
from lading.project import Project, load
from tests.support import runners
from tests.support.projects import REPOSITORY, YAML, Trial
from tests.support.registries import CUT, LAYER, Registry, pretend_pushed, registry
from tests.support.runners import Runners
from tests.unit.test_sources import Said, built, edit, loopback, one_day
from tests.unit.test_sources import trial as sources

__all__ = ["loopback", "one_day", "sources"]

BOTH = (github.PATH, gitlab.PATH)


def valid(schema: str, folder: Path, *texts: str) -> None:
    """Fails where a file is not as the published schema has it: github-workflows or gitlab-ci."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    if schema == "gitlab-ci":
        command += ["--data-transform", "gitlab-ci"]
    for number, text in enumerate(texts):
        (folder / f"{schema}-{number}.yml").write_text(text)
        command.append(str(folder / f"{schema}-{number}.yml"))
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.fixture
def there() -> Iterator[Registry]:
    with registry() as running:
        yield running


def with_registry(text: str, there: Registry) -> str:
    ci = "ci: {setup: [pip install lading]}\n"
    return text.replace("name: trial\n", f"name: trial\nregistry: {there.host}/group\n{ci}")


@pytest.fixture
def trial(there: Registry, tmp_path: Path) -> Trial:
    return Trial.make(tmp_path / "project", with_registry(YAML, there), HOME=str(tmp_path))


def asked(trial: Trial, capsys: Said, *arguments: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = trial.doit("stale", "--format", "json", *arguments)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["exit"] == code
    assert trial.engine.asked == [], "no engine is asked"
    return code, found


def outputs(trial: Trial, capsys: Said, *arguments: str) -> dict[str, str]:
    capsys.readouterr()
    assert trial.doit("stale", "--format", "github", *arguments) == 0
    return dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())


# -- what is stale ----------------------------------------------------------------------------


def test_what_is_in_the_registry_is_not_stale(trial: Trial, there: Registry, capsys: Said) -> None:
    code, found = asked(trial, capsys)
    assert code == 1
    assert {name: item["why"] for name, item in found["images"].items()} == {
        "one": "not in the registry",
        "two": "not in the registry",
    }
    pretend_pushed(trial.state())
    code, found = asked(trial, capsys)
    assert code == 0
    assert {item["where"] for item in found["images"].values()} == {"registry"}
    assert outputs(trial, capsys) == {"images": "[]"}
    # A file of one image's changes: that one, and no other.
    (trial.root / "recipes/motd").write_text("hello\n")
    code, found = asked(trial, capsys)
    assert code == 1
    assert [name for name, item in found["images"].items() if item["stale"]] == ["two"]
    assert asked(trial, capsys, "one")[0] == 0
    (entry,) = json.loads(outputs(trial, capsys)["images"])
    assert (entry["name"], entry["images"]) == ("two", "two")
    assert trial.doit("stale") == 1
    said = capsys.readouterr().out
    assert said == "two: not in the registry\n1 of 2 images are to be made\n"
    assert trial.doit("stale", "tow") == 3
    assert "did you mean two?" in capsys.readouterr().err
    assert trial.doit("stale", "--format", "github", "two") == 3


def test_what_would_be_made_again_is_stale(trial: Trial, there: Registry, capsys: Said) -> None:
    pretend_pushed(trial.state())
    # Its tests have changed: the same image, to be checked again.
    edit(trial, "import a", "import a; import sys")
    _, found = asked(trial, capsys)
    assert found["images"]["one"]["why"] == "it was checked by other checks than today's"
    edit(trial, "import a; import sys", "import a")
    # Somebody has moved the tag that people know.
    (tag,) = [tag for name, tag in there.manifests if name == "group/two" and "." in tag]
    there.manifests["group/two", tag] = there.manifests["group/one", tag]
    _, found = asked(trial, capsys)
    assert found["images"]["two"]["why"] == f"its tag {tag} is not there, or is another image's"
    assert not found["images"]["one"]["stale"]
    # Where nothing is pushed, nobody needs its tag: nothing is made, nor asked for.
    there.asked.clear()
    assert asked(trial, capsys, "--no-push")[0] == 0
    assert not [line for line in there.asked if tag in line]
    assert outputs(trial, capsys, "--no-push") == {"images": "[]"}
    # Where it is, it is named, and not downloaded for it.
    there.asked.clear()
    assert trial.doit("push:two") == 0
    assert not [
        line for line in there.asked if "GET" in line and hashlib.sha256(LAYER).hexdigest() in line
    ]
    assert asked(trial, capsys)[0] == 0
    assert trial.doit("summary", "two") == 0
    assert f"/group/two:{tag}`, in the registry |" in capsys.readouterr().out


def test_a_lock_that_is_not_current_is_stale(trial: Trial, capsys: Said) -> None:
    pretend_pushed(trial.state())
    (trial.root / "recipes/one.in").write_text("a\nb\n")
    _, found = asked(trial, capsys)
    assert found["images"]["one"]["why"].startswith("locks/images/one is not current: ")
    assert not found["images"]["two"]["stale"]
    edit(trial, "3.13-slim", "3.14-slim")
    _, found = asked(trial, capsys)
    for name in ("one", "two"):
        why = found["images"][name]["why"]
        assert why == "locks/bases/slim is not current: its declaration has changed"


def test_what_is_here_is_not_stale(tmp_path: Path, capsys: Said) -> None:
    trial = Trial.make(tmp_path / "project")
    code, found = asked(trial, capsys)
    assert (code, found["registry"]) == (1, None)
    assert found["images"]["one"]["why"] == "there is no registry to ask"
    assert trial.doit() == 0
    code, found = asked_quietly(trial, capsys)
    assert code == 0
    assert {item["where"] for item in found["images"].values()} == {"here"}


def asked_quietly(trial: Trial, capsys: Said) -> tuple[int, dict[str, Any]]:
    trial.engine.asked.clear()
    return asked(trial, capsys)


def test_a_registry_that_is_down_means_building(
    trial: Trial, there: Registry, capsys: Said
) -> None:
    pretend_pushed(trial.state())
    there.instead = lambda request: CUT
    code, found = asked(trial, capsys)
    assert code == 2
    assert all(item["stale"] for item in found["images"].values())
    assert "what it may have is made here" in found["notes"][0]
    assert trial.doit("stale", "--format", "github") == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out.partition("=")[2])) == 2
    assert "\n::warning::" in f"\n{said.err}"


def test_a_hundred_images_of_which_one_has_changed(
    there: Registry, tmp_path: Path, capsys: Said
) -> None:
    names = [f"image-{number:03}" for number in range(100)]
    head = with_registry(YAML, there).partition("images:\n")[0]
    lines = [f"  {name}: {{base: slim, env: {{N: {name}}}}}\n" for name in names]
    trial = Trial.make(tmp_path / "project", f"{head}images:\n{''.join(lines)}", HOME=str(tmp_path))
    pretend_pushed(trial.state())
    edit(trial, "N: image-042", "N: other")
    start = time.monotonic()
    _, found = asked(trial, capsys)
    assert time.monotonic() - start < 10
    assert [name for name, item in found["images"].items() if item["stale"]] == ["image-042"]
    assert [entry["name"] for entry in json.loads(outputs(trial, capsys)["images"])] == [
        "image-042"
    ]


def test_more_images_than_jobs() -> None:
    names = tuple(f"i{number}" for number in range(1000))
    groups = (
        layout.Group(id="images", images=names[:990]),
        layout.Group(id="images-with-x-on-b", images=names[990:], pairs=("source-x-on-b",)),
    )
    found = Found(
        registry="r", images=tuple(Item(name=name, why="new") for name in names), sources={}
    )
    said = stale.outputs(found, layout.Layout(pairs=(), groups=groups))
    entries = [entry for line in said.splitlines() for entry in json.loads(line.partition("=")[2])]
    assert len(entries) <= 256
    assert [name for entry in entries for name in entry["images"].split()] == list(names)
    assert entries[0]["name"] == "i0 and 3 more"
    assert len({entry["name"] for entry in entries}) == len(entries)


# -- sources ----------------------------------------------------------------------------------


@pytest.fixture
def compiled(sources: Trial, there: Registry) -> Trial:
    """A project with sources, of which the one needs the other; locked, and nothing made."""
    text = (sources.root / "project.yaml").read_text()
    (sources.root / "project.yaml").write_text(with_registry(text, there))
    sources.environ["HOME"] = str(sources.root.parent)
    assert sources.doit("lock") == 0
    return sources


def cloned(trial: Trial, name: str) -> Trial:
    root = trial.root.parent / name
    away = shutil.ignore_patterns("build", "dist", ".doit.db*", ".lading*")
    shutil.copytree(trial.root, root, ignore=away)
    environ = {**trial.environ, "LADING_CACHE": str(root.parent / f"{name}.cache"), "CI": "1"}
    return Trial(root, environ)


def test_sources_go_before_the_images_that_need_them(
    compiled: Trial, capsys: Said, there: Registry
) -> None:
    plan = layout.of(compiled.state().project)
    assert [(pair.id, pair.needs) for pair in plan.pairs] == [
        ("source-lib-on-slim", ()),
        ("source-tool-on-slim", ("source-lib-on-slim",)),
    ]
    (group,) = plan.groups
    assert (group.id, group.images) == ("images-with-lib-tool-on-slim", ("one", "two"))
    said = outputs(compiled, capsys)
    assert all(len(said[pair.id]) == 64 for pair in plan.pairs)
    # What is compiled is pushed by itself; who needs it finds it there.
    assert compiled.doit("push:source:lib@slim") == 0
    assert built(compiled) == ["part/lib-slim"]
    assert {name for name, _ in there.manifests} == {"group/part/lib-slim"}
    assert compiled.doit("push:source:lib@slim") == 0
    assert compiled.engine.calls == []
    second = cloned(compiled, "second")
    assert outputs(second, capsys)["source-lib-on-slim"] == ""
    assert second.doit("build:source:tool@slim") == 0
    assert built(second) == ["part/tool-slim"]
    third = cloned(compiled, "third")
    assert third.doit("push:source:lib@slim") == 0
    assert built(third) == [], "the registry has it"
    # Where no image needs them, they are not compiled, whoever has them.
    pretend_pushed(compiled.state())
    assert set(outputs(third, capsys).values()) == {"", "[]"}


def test_what_was_handed_on_is_all_that_is_needed(compiled: Trial, capsys: Said) -> None:
    """As a job of CI gets it from the job before: nothing else is in its store."""
    assert compiled.doit("build:source:tool@slim") == 0
    key = outputs(compiled, capsys)["source-tool-on-slim"]
    assert key == "", "it is here"
    _, found = asked(compiled, capsys)
    assert found["sources"]["tool@slim"]["where"] == "here"
    second = cloned(compiled, "second")
    for name in ("tool", "lib"):
        key = found["sources"][f"{name}@slim"]["key"]
        made = second.state().store.made(key, PRODUCT)
        made.parent.mkdir(parents=True)
        shutil.copyfile(compiled.state().store.made(key, PRODUCT), made)
    shutil.rmtree(compiled.root.parent / "served")
    assert second.doit("archive:one") == 0
    assert [name.rpartition("/")[2] for name in built(second)] == ["one"]


def test_a_push_of_what_is_not_compiled(compiled: Trial, capsys: Said) -> None:
    edit(compiled, "registry:", "#registry:")
    capsys.readouterr()
    assert compiled.doit("push:source:lib@slim") == 3
    assert "project.yaml names no registry" in capsys.readouterr().out


# -- the files --------------------------------------------------------------------------------


def declared(root: Path, registry: str = "", sources: bool = True) -> Project:
    root.mkdir(parents=True, exist_ok=True)
    where = f"registry: {registry}\n" if registry else ""
    more = ", source: [tool]" if sources else ""
    (root / "project.yaml").write_text(
        f"lading: 1\nname: x\n{where}"
        "bases:\n  slim: {image: x}\n  deb: {debian: {suite: trixie}}\n"
        "sources:\n"
        "  lib: {version: 1, urls: https://x.example/a, commands: make}\n"
        "  tool: {version: 1, urls: https://x.example/a, commands: make, needs: lib}\n"
        f"images:\n  one: {{base: slim{more}}}\n  'true': {{base: deb}}\n"
        "ci: {setup: ['true', 'pip install --quiet \"lading @ https://x.example/a.zip\"  # it'], "
        "runs-on: self-hosted, tags: [hpc], image: 'debian:13'}\n"
    )
    return load(root / "project.yaml")


@pytest.mark.parametrize(
    "registry", ["", "ghcr.io/somebody/images", "registry.example.org:5000/group"]
)
def test_both_are_as_their_schemas_have_it(registry: str, tmp_path: Path) -> None:
    project = declared(tmp_path, registry)
    plan, how = layout.of(project), runner.of(project)
    text = headed(github.workflow(project, plan, how))
    valid("github-workflows", tmp_path, text)
    item = Item(name="x", key="0" * 64, why="new")
    found = Found(
        registry=registry,
        images=tuple(Item(name=name, why="new") for name in project.images),
        sources={pair.id: item for pair in plan.pairs},
    )
    child = gitlab.child(project, plan, how, found, push=bool(registry))
    valid("gitlab-ci", tmp_path, headed(gitlab.pipeline(project, how)), child)
    jobs = yaml.safe_load(text)["jobs"]
    assert list(jobs) == ["stale", "whole", "source-lib-on-slim", "source-tool-on-slim",
                          "images-with-lib-tool-on-slim", "images"]  # fmt: skip
    names = {id: {step.get("name") for step in job["steps"]} for id, job in jobs.items()}
    pushed = [bool(some & {"push", "make and push"}) for some in names.values()]
    assert pushed == ([False, False, True, True, True, True] if registry else [False] * 6)
    assert ("doit ci --login" in text) == bool(registry)
    # An image that lacks only its tag is not downloaded: `push` makes what there is not.
    assert ("push:one" in child, "archive:one" in child) == (bool(registry), not registry)
    # Nobody gets more than it takes.
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
    own = {name: job.get("permissions", {}).get("packages") for name, job in jobs.items()}
    assert own.pop("whole") is None
    assert set(own.values()) == ({"read", "write"} if "ghcr" in registry else {None})
    assert "packages: write" not in text.partition("\n  source-lib")[0]
    script = yaml.safe_load(child)["source:tool@slim"]["script"]
    assert script[:2] == ["true", 'pip install --quiet "lading @ https://x.example/a.zip"  # it']
    assert yaml.safe_load(child)["image:one"]["needs"] == [
        {"job": "source:lib@slim"},
        {"job": "source:tool@slim"},
    ]


def test_a_project_without_images(tmp_path: Path) -> None:
    (tmp_path / "project.yaml").write_text(
        "lading: 1\nname: x\nbases: {slim: {image: x}}\n"
        "images: {one: {base: slim, default: false}}\nci: {setup: 'true'}\n"
    )
    project = load(tmp_path / "project.yaml")
    text = github.workflow(project, layout.of(project), runner.of(project))
    valid("github-workflows", tmp_path, text)
    assert list(yaml.safe_load(text)["jobs"]) == ["stale"]


def test_this_projects_own(tmp_path: Path) -> None:
    project = load(REPOSITORY / "project.yaml")
    plan, how = layout.of(project), runner.of(project)
    text = github.workflow(project, plan, how)
    valid("github-workflows", tmp_path, text)
    assert [pair.task for pair in plan.pairs] == ["source:mpich@debian-11"]
    assert {name for group in plan.groups for name in group.images} == {
        image.name for image in project.images.values() if image.default
    }
    first = text.partition("\n  # Compiled once")[0]
    assert "./scripts/setup venv\n" in first and "./scripts/doit" not in first
    assert "mmdebstrap" in text


def test_written_again_it_is_the_same(trial: Trial, capsys: Said) -> None:
    assert trial.doit("ci") == 0
    before = [(trial.root / path).read_bytes() for path in BOTH]
    assert trial.doit("ci", "--check") == 0
    capsys.readouterr()
    assert trial.doit("ci") == 0
    assert capsys.readouterr().out == "".join(f"{path} was so already\n" for path in BOTH)
    # Nor does it change with locks, or with one more image that needs nothing else.
    trial.lock("one", "2.0")
    edit(trial, "  spare:", "  three: {base: slim}\n  spare:")
    assert trial.doit("ci") == 0
    assert [(trial.root / path).read_bytes() for path in BOTH] == before
    edit(trial, "ci: {", "ci: {runs-on: self-hosted, ")
    assert trial.doit("ci", "--check") == 1
    assert (trial.root / github.PATH).read_bytes() == before[0]
    assert trial.doit("ci") == 0
    assert "runs-on: self-hosted" in (trial.root / github.PATH).read_text()


def test_what_somebody_changed_is_not_overwritten(trial: Trial, capsys: Said) -> None:
    assert trial.doit("ci", "gitlab") == 0
    assert not (trial.root / github.PATH).exists()
    (trial.root / github.PATH).parent.mkdir(parents=True)
    for text, said in (
        ("name: mine\n", "was not written by lading"),
        (headed("name: mine\n").replace("mine", "yours"), "was changed since lading wrote it"),
    ):
        (trial.root / github.PATH).write_text(text)
        (trial.root / gitlab.PATH).write_text(headed("a: b\n"))
        capsys.readouterr()
        assert trial.doit("ci") == 1
        assert said in capsys.readouterr().err
        assert (trial.root / github.PATH).read_text() == text
        assert (trial.root / gitlab.PATH).read_text() == headed("a: b\n"), "all or nothing"
    assert trial.doit("ci", "--force") == 0
    assert trial.doit("ci", "--check") == 0
    assert trial.doit("ci", "jenkins") == 3


def test_what_a_runner_lacks_is_said(trial: Trial, capsys: Said) -> None:
    edit(trial, "ci: {setup: [pip install lading]}\n", "")
    assert trial.doit("ci") == 3
    assert "nothing says how a runner gets lading" in capsys.readouterr().err
    (trial.root / "scripts").mkdir()
    (trial.root / "scripts/doit").write_text("")
    assert trial.doit("ci") == 0
    edit(trial, "registry:", "#registry:")
    capsys.readouterr()
    assert trial.doit("ci") == 0
    assert "no other one makes again" in capsys.readouterr().out
    (trial.root.parent / ".git").mkdir()
    assert trial.doit("ci") == 1
    assert "not at the top of its repository" in capsys.readouterr().err
    assert trial.doit("stale", "--format", "gitlab") == 0


def test_a_workflow_that_has_no_job_for_it(compiled: Trial, capsys: Said) -> None:
    assert compiled.doit("ci") == 0
    outputs(compiled, capsys)
    edit(compiled, "  spare:", "  three: {base: slim}\n  spare:")
    assert compiled.doit("stale", "--format", "github") == 1
    said = capsys.readouterr().err
    assert f"{github.PATH} has no job for images\n" in said
    assert "-> run `doit ci`, and commit what it writes" in said
    assert compiled.doit("ci") == 0
    assert "images" in outputs(compiled, capsys)


def test_names_that_could_be_two_things(tmp_path: Path) -> None:
    one = declared(tmp_path / "1")
    text = (tmp_path / "1/project.yaml").read_text().replace("lib", "a-b").replace("tool", "a.c")
    (tmp_path / "1/project.yaml").write_text(text)
    ids = [pair.id for pair in layout.of(load(tmp_path / "1/project.yaml")).pairs]
    assert [one.rpartition("-")[0] for one in ids] == ["source-a-b-on-slim", "source-a-c-on-slim"]
    assert len(set(ids)) == 2 and all("." not in one and len(one) < 100 for one in ids)
    assert layout.of(one).pairs[0].id == "source-lib-on-slim"


# -- logging in -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("registry", "host"),
    [
        ("", ""),
        ("somebody/images", "docker.io"),
        ("somebody", "docker.io"),
        ("index.docker.io/somebody", "docker.io"),
        ("registry.example.org:5000/group", "registry.example.org:5000"),
        ("localhost/group", "localhost"),
    ],
)
def test_where_to_log_in(registry: str, host: str) -> None:
    assert runner.host(registry) == host


def test_what_a_run_logs_in_with(tmp_path: Path) -> None:
    own, host = tmp_path / ".docker", "registry.example.org"
    secret = {"HOME": str(tmp_path), "REGISTRY_PASSWORD": "b", "RUNNER_TEMP": str(tmp_path)}
    with pytest.raises(LadingError, match="REGISTRY_USERNAME is not"):
        login.configured(host, secret)
    environ = {**secret, "REGISTRY_USERNAME": "a"}
    nobody = {"HOME": str(tmp_path)}
    assert login.configured(host, nobody) == own
    assert login.configured("", environ) == own
    # Docker's own settings, contexts and builders are there, and none of its files is written to.
    meta = own / "contexts/meta" / hashlib.sha256(b"big").hexdigest() / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Endpoints": {"docker": {"Host": "ssh://big.example.org"}}}))
    before = json.dumps({
        "auths": {"other.example.org": {"auth": "x"}}, "credsStore": "none-such",
        "credHelpers": {host: "ecr-login", "third.example.org": "gcr"}, "proxies": {},
    })  # fmt: skip
    (own / "config.json").write_text(before)
    made = login.configured(host, environ)
    assert made.parent == tmp_path and made != own
    assert (made / "config.json").stat().st_mode & 0o077 == 0
    settings = json.loads((made / "config.json").read_text())
    assert settings == json.loads(before) | {
        "auths": {"other.example.org": {"auth": "x"}, host: {"auth": "YTpi"}},
        # For this one docker's client looks into the file, whatever helper the others have.
        "credHelpers": {host: "", "third.example.org": "gcr"},
    }
    found = contexts.place("big", {"DOCKER_CONFIG": str(made)})
    assert found is not None and "big.example.org" in found.url
    assert (own / "config.json").read_text() == before
    # Docker Hub is called by another name there; of GitLab's own registry a job is given it.
    (own / "config.json").unlink()
    given = {"CI_REGISTRY": "docker.io", "CI_REGISTRY_USER": "c", "CI_REGISTRY_PASSWORD": "d"}
    made = login.configured("docker.io", environ | given)
    (name, entry), *more = json.loads((made / "config.json").read_text())["auths"].items()
    assert (name.split("/")[2], entry, more) == ("index.docker.io", {"auth": "Yzpk"}, [])
    for text, said in (
        ("{", "can't be read"),
        ("[]", "is not docker's"),
        ('{"auths": [1]}', "is not docker's"),
    ):
        (own / "config.json").write_text(text)
        with pytest.raises(LadingError, match=rf"config\.json {said}"):
            login.configured(host, environ)


def test_the_command_that_logs_in(
    trial: Trial, there: Registry, capsys: Said, tmp_path: Path
) -> None:
    capsys.readouterr()
    assert trial.doit("ci", "--login") == 0
    assert capsys.readouterr().out == f"{tmp_path}/.docker\n"
    trial.environ |= {"REGISTRY_USERNAME": "a", "REGISTRY_PASSWORD": "b"}
    assert trial.doit("ci", "--login") == 0
    folder = Path(capsys.readouterr().out.strip())
    assert list(json.loads((folder / "config.json").read_text())["auths"]) == [there.host]
    shutil.rmtree(folder)
    assert not any((trial.root / path).exists() for path in BOTH), "nothing else is written"


# -- when jobs run ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "compiled", "images", "runs"),
    [
        ("success", "success", "[1]", True),
        ("success", "skipped", "[1]", True),  # it is in the registry
        ("success", "failure", "[1]", False),
        ("success", "cancelled", "[1]", False),
        ("success", "skipped", "[]", False),  # a matrix without entries is an error
        ("failure", "skipped", "", False),
    ],
)
def test_when_the_images_are_made(
    first: str, compiled: str, images: str, runs: bool, tmp_path: Path
) -> None:
    project = declared(tmp_path)
    jobs = yaml.safe_load(github.workflow(project, layout.of(project), runner.of(project)))["jobs"]
    job = jobs["images-with-lib-tool-on-slim"]
    needs: dict[str, Mapping[str, Any]] = {
        name: {"result": compiled, "outputs": {}} for name in job["needs"]
    }
    given = {"images-with-lib-tool-on-slim": images} if images else {}
    needs["stale"] = {"result": first, "outputs": given}
    assert runners.truth(runners.value(job["if"], {"needs": needs})) is runs


@pytest.mark.parametrize(
    ("event", "ref", "default", "runs"),
    [
        ("push", "develop", "develop", True),
        ("push", "main", "develop", False),  # a branch as any other
        ("pull_request", "7/merge", "develop", True),
        ("workflow_dispatch", "main", "develop", True),
    ],
)
def test_which_branches_run(event: str, ref: str, default: str, runs: bool, tmp_path: Path) -> None:
    project = declared(tmp_path)
    text = yaml.load(
        github.workflow(project, layout.of(project), runner.of(project)), Loader=yaml.BaseLoader
    )
    assert text["on"]["push"] == {"branches": ["**"]}, "tags make nothing"
    said = {
        "event_name": event,
        "ref_name": ref,
        "event": {"repository": {"default_branch": default}},
    }
    assert runners.truth(runners.value(text["jobs"]["stale"]["if"], {"github": said})) is runs


DOIT = """\
#!/bin/sh
store=${LADING_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lading}
made="$store/derived/00/product.tar"
echo "doit $*, with $(cd "$store" 2>/dev/null && ls -x)" >&2
case "$*" in
  "stale "*) printf '%s\n' source-lib-on-slim=00 source-tool-on-slim= 'images=[]' \
    'images-with-lib-tool-on-slim=[{"name": "one", "images": "one", "key": "11"}]' ;;
  "ci "*) echo "$HOME/.docker" ;;
  "summary "*) echo "| $2 | not made |" ;;
  build:*) mkdir -p "${made%/*}" && touch "$made" ;;
  *archive:one*) [ -e "$made" ] ;;
  *) exit 1 ;;
esac
"""
"""A lading that has one source to compile, and an image that needs it; the other is not made."""


@pytest.fixture
def fresh(tmp_path: Path) -> Runners:
    """Runners that have this lading, and a project for it."""
    for name, text in (("doit", DOIT), ("pip", "#!/bin/sh\n")):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    project = declared(tmp_path / "project", "registry.example.org/group")
    workflow = github.workflow(project, layout.of(project), runner.of(project))
    (tmp_path / "lading.yml").write_text(workflow)
    runners.git(tmp_path, "init", "--quiet", "--initial-branch", "main", str(project.root))
    runners.commit(project.root, "The beginning")
    environ = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    return Runners(project.root, tmp_path / "runners", environ)


def results(jobs: Mapping[str, runners.Job]) -> dict[str, str]:
    return {name: job.result for name, job in jobs.items()}


def test_what_github_does_not_hand_on_is_no_success(fresh: Runners, tmp_path: Path) -> None:
    workflow = tmp_path / "lading.yml"
    fine = dict.fromkeys(("stale", "source-lib-on-slim", "one"), "success")
    assert results(runners.github(fresh, workflow, "pull_request")) == fine
    fresh.secrets = {"REGISTRY_USERNAME": "one"}
    jobs = runners.github(fresh, workflow, "pull_request")
    assert results(jobs) == {
        "stale": "success",
        "whole": "failure",
        "source-lib-on-slim": "success",
    }
    assert "\n::error title=what is to be made is not known::" in jobs["whole"].log


@pytest.mark.parametrize("name", ["", "XDG_CACHE_HOME", "LADING_CACHE"])
def test_the_store_is_where_a_runner_has_it(name: str, fresh: Runners, tmp_path: Path) -> None:
    if name:
        fresh.environ = {**fresh.environ, name: str(tmp_path / "elsewhere")}
    jobs = runners.github(fresh, tmp_path / "lading.yml", "pull_request")
    assert "doit --continue archive:one, with derived\n" in jobs["one"].log
    # What was in it stays for the next run, of what differs in a file of its inputs, too.
    shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
    (fresh.origin / "recipes").mkdir()
    (fresh.origin / "recipes/one.in").write_text("a\n")
    runners.commit(fresh.origin, "One line more")
    jobs = runners.github(fresh, tmp_path / "lading.yml", "pull_request")
    assert "doit build:source:lib@slim, with derived\n" in jobs["source-lib-on-slim"].log
    assert fresh.caches is not None and len(fresh.caches) == 4


def test_what_fails_on_gitlab_is_said(fresh: Runners, tmp_path: Path) -> None:
    project = load(fresh.origin / "project.yaml")
    new = {name: Item(name=name, key="00", why="new") for name in ("one", "true", "lib@slim")}
    found = Found(
        registry=project.registry,
        images=(new["one"], new["true"]),
        sources={"source-lib-on-slim": new["lib@slim"]},
    )
    plan = layout.of(project)
    plan = layout.Layout(pairs=plan.pairs[:1], groups=plan.groups)
    child = tmp_path / "child.yml"
    child.write_text(gitlab.child(project, plan, runner.of(project), found, push=False))
    jobs = runners.gitlab_child(fresh, child, {})
    assert results(jobs) == {
        "source:lib@slim": "success", "image:one": "success", "image:true": "failure",
        "summary": "success",
    }  # fmt: skip
    assert jobs["summary"].summary == "| one | not made |\n| true | not made |\n"
    assert "with derived\n" in runners.gitlab_child(fresh, child, {})["source:lib@slim"].log
    # Of what was not even begun there is a word, too.
    fresh.artifacts.clear()
    (tmp_path / "bin/doit").write_text("#!/bin/sh\nexit 1\n")
    jobs = runners.gitlab_child(fresh, child, {})
    assert jobs["image:one"].result == "skipped"
    assert jobs["summary"].result == "success"
    assert "`one` was not made: its job did not get so far." in jobs["summary"].summary


# -- what was made ----------------------------------------------------------------------------


def test_the_summary(trial: Trial, capsys: Said) -> None:
    assert trial.doit("summary") == 0
    assert "| `one` | not made | | | |\n| `two` | not made | | | |" in capsys.readouterr().out
    assert trial.doit("archive:one") == 0
    capsys.readouterr()
    assert trial.doit("summary", "one") == 0
    (row,) = capsys.readouterr().out.splitlines()[2:3]
    sha256 = json.loads((trial.root / "dist/one.json").read_text())["sha256"]
    assert f"/group/one:2026.11.01`, sha256 `{sha256[:12]}` |" in row
    assert row.endswith(" | 1 of 1 passed | ready |")
    record = json.loads((trial.root / "build/one/check.json").read_text())
    record["tests"][0] |= {"code": 1, "output": "no\nmodule | a"}
    record["portability"] |= {"errors": 1, "findings": [
        {"id": "F1", "level": "error", "paths": ["/x"], "effect": "a <b>", "allowed": None}
    ]}  # fmt: skip
    (trial.root / "build/one/check.json").write_text(json.dumps(record))
    (trial.root / "dist/one.json").unlink()
    assert trial.doit("summary", "one") == 0
    said = capsys.readouterr().out
    assert "| `one` | its checks failed |  | 0 of 1 passed | 1 error |" in said
    assert '- `one`: `python -c "import a"` failed (1)\n\n      no\n      module | a\n' in said
    assert "- `one`: error `F1:/x`: a &lt;b&gt;\n" in said
    assert trial.doit("summary", "--since", "0" * 40) == 0
    assert capsys.readouterr().out.startswith("There is no commit before this one")


def test_what_has_moved_in_the_locks(trial: Trial, capsys: Said) -> None:
    runners.git(trial.root, "init", "--quiet", "--initial-branch", "main")
    before = runners.commit(trial.root, "one")
    trial.lock("one", "2.0")
    runners.commit(trial.root, "two")
    capsys.readouterr()
    assert trial.doit("summary", "--since", before) == 0
    assert "| `a` | `1.0` | `2.0` |" in capsys.readouterr().out


# -- what GitHub shows ------------------------------------------------------------------------


def annotated(error: LadingError | str, root: Path, **given: Any) -> str:
    out = io.StringIO()
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(root.parent)}
    annotate(error, root, environ=environ, stream=out, **given)
    return out.getvalue()


def test_errors_are_shown_at_their_lines(tmp_path: Path) -> None:
    (tmp_path / "project.yaml").write_text("")
    error = LadingError("project.yaml:3: images.x: 100%, a: b\nproject.yaml:12: no, it is not")
    at = f"file={tmp_path.name}/project.yaml"
    assert annotated(error, tmp_path) == (
        f"::error {at},line=3::images.x: 100%25, a: b\n::error {at},line=12::no, it is not\n"
    )
    # A file that is none of the project's, and an error that names no line.
    text = "tests failed\n/usr/lib/x.py:3: no\r"
    said = annotated(text, tmp_path, title="check a:b, c", line=7)
    assert said == (
        f"::error {at},line=7,title=check a%3Ab%2C c::tests failed%0A/usr/lib/x.py:3: no\n"
    )
    assert annotated("x", tmp_path) == "::error::x\n"
    long = annotated("first\n" + "\n".join(map(str, range(100))), tmp_path)
    assert long.startswith("::error::first%0A…%0A88%0A") and long.endswith("%0A99\n")
    assert command("error", "50%\r\n") == "::error::50%25%0D%0A"
    out = io.StringIO()
    annotate(error, tmp_path, environ={"CI": "true"}, stream=out)
    assert out.getvalue() == "", "elsewhere nothing is written"


def test_a_declaration_and_a_task(
    trial: Trial, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(trial.root))
    (trial.root / "recipes/one.in").write_text("a\nb\n")
    assert trial.doit("archive:one", "frozen=1") == 1
    line = (trial.root / "project.yaml").read_text().splitlines().index("  one:") + 1
    said = capsys.readouterr().err
    where = f"::error file=project.yaml,line={line},title=lock one::"
    assert f"{where}locks/images/one/linux-amd64 is not current%0A" in said
    edit(trial, "base: slim\n    pip", "bsae: slim\n    pip")
    assert trial.doit("list") == 3
    said = capsys.readouterr().err
    assert f"::error file=project.yaml,line={line + 1}::images.one.bsae: unknown key" in said
