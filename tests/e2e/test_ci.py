"""What `doit ci` writes, run as fresh runners would: empty clones, no images, a real registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import docker as sdk
import pytest

from lading.ci import gitlab
from lading.project import load
from lading.state import State
from tests.e2e.conftest import DOIT, REPOSITORY, Copy, copied, plain_environ
from tests.engine.test_sources import with_modes, with_tools
from tests.support import images, runners
from tests.support.engines import Running
from tests.support.registries import pretend_pushed
from tests.support.runners import Job, Runners, commit
from tests.unit.test_ci import valid

YAML = """\
lading: 1
name: trial
registry: {registry}/group
bases: {{box: {{image: "{registry}/box:1"}}}}
sources:
  mpich:
    version: "4"
    urls: "file://{served}/mpich-{{version}}.tar.gz"
    configure: --with-device=ch3
images:
  plain: {{base: box, files: {{/etc/motd: recipes/motd}}, test: [cat /etc/motd]}}
  other: {{base: box, env: {{A: C}}}}
  one: {{base: box, source: mpich, test: [cat /usr/lib/options]}}
  two: {{base: box, source: mpich, env: {{A: B}}}}
ci: {{setup: "true"}}
"""
MPICH = {
    "mpich-4/configure": b'#!/bin/sh\nfor option; do echo "$option"; done >options\n',
    "mpich-4/Makefile": (
        b"all:\n\techo compiled >small\n"
        b"install:\n\tmkdir -p $(DESTDIR)/usr/lib && cp options small $(DESTDIR)/usr/lib/\n"
    ),
}
STALE_SECONDS = 15
"""What a run may take in which nothing is to do."""


@pytest.fixture
def project(registry: str, docker: Running, cache: Path, tmp_path: Path) -> Copy:
    """The project, as its people have it: locked, and committed."""
    (tmp_path / "mpich-4.tar.gz").write_bytes(with_modes(MPICH))
    images.push(with_tools(), registry, "box", "1")
    root = tmp_path / "project"
    environ = {
        **plain_environ(),
        "DOCKER_HOST": docker.url,
        "LADING_CACHE": str(cache),
        "PATH": f"{DOIT.parent}:{plain_environ()['PATH']}",
    }
    made = Copy(root=root, environ=environ)
    made.write("project.yaml", YAML.format(registry=registry, served=tmp_path))
    made.write("recipes/motd", "welcome\n")
    made.write("dodo.py", (REPOSITORY / "dodo.py").read_text())
    made.write(".gitignore", "/build/\n/dist/\n/.doit.db*\n/.lading.lock\n/.cache/\n")
    made.done("lock")
    made.done("ci")
    runners.git(root.parent, "init", "--quiet", "--initial-branch", "main", str(root))
    commit(root, "The beginning")
    return made


@pytest.fixture
def fresh(project: Copy, docker: Running, tmp_path: Path) -> Iterator[Runners]:
    """Runners that have nothing; the one that only looks has no engine either."""
    environ = {name: text for name, text in project.environ.items() if name != "LADING_CACHE"}
    client = sdk.DockerClient(base_url=docker.url)

    def before(job: str) -> Mapping[str, str]:
        if "stale" in job:
            return {"DOCKER_HOST": f"unix://{tmp_path}/none"}
        for image in client.images.list():
            client.api.remove_image(str(image.id), force=True)
        client.api.prune_builds(all=True)
        return {}

    yield Runners(project.root, tmp_path / "runners", environ, before)
    client.close()


def went(jobs: Mapping[str, Job]) -> set[str]:
    assert {job.result for job in jobs.values()} <= {"success"}
    return set(jobs)


def test_what_changed_is_made_and_nothing_else(
    project: Copy, fresh: Runners, tmp_path: Path
) -> None:
    workflow = project.root / ".github/workflows/lading.yml"
    # The first run makes all; the source is compiled once, for both that need it.
    first = runners.github(fresh, workflow)
    assert went(first) == {"stale", "source-mpich-on-box", "plain", "other", "one", "two"}
    assert fresh.built() == ["mpich-box", "one", "other", "plain", "two"]
    assert "| `plain` | `" in first["plain"].summary
    assert "| 1 of 1 passed | 2 warnings |" in first["plain"].summary
    # The second one has nothing to do, and says so soon.
    second = runners.github(fresh, workflow)
    assert went(second) == {"stale"}
    assert "0 of 4 images are to be made" in second["stale"].log
    assert second["stale"].seconds <= STALE_SECONDS
    # A line of one image's recipe: that image.
    before = runners.git(project.root, "rev-parse", "HEAD")
    project.write("recipes/motd", "welcome\nto it\n")
    commit(project.root, "A longer welcome")
    third = runners.github(fresh, workflow, since=before)
    assert went(third) == {"stale", "plain"}
    assert fresh.built() == ["plain"]
    # An option of the source, in a pull request: it is compiled once, handed to the two that need
    # it, and nothing is pushed.
    project.replace("project.yaml", "ch3", "ch4")
    project.done("lock")
    assert "was so already" in project.done("ci"), "locks and options are not in it"
    commit(project.root, "Another device")
    asked = runners.github(fresh, workflow, "pull_request", since=before)
    assert went(asked) == {"stale", "source-mpich-on-box", "one", "two"}
    assert fresh.built() == ["mpich-box", "one", "two"]
    assert not [job for job in asked.values() if "push:" in job.log]
    assert asked["stale"].summary.startswith("### Locks: ")
    # Merged, by GitLab: the same, and pushed.
    branch = {
        "CI_COMMIT_BRANCH": "main",
        "CI_DEFAULT_BRANCH": "main",
        "CI_COMMIT_BEFORE_SHA": before,
    }
    merged, child = runners.gitlab(fresh, project.root / gitlab.PATH, branch)
    valid("gitlab-ci", tmp_path, child.read_text())
    assert went(merged) == {
        "lading-stale", "source:mpich@box", "image:one", "image:two", "summary"
    }  # fmt: skip
    assert fresh.built() == ["mpich-box", "one", "two"]
    assert "| `one` |" in merged["summary"].summary
    assert "| `two` |" in merged["summary"].summary
    again, child = runners.gitlab(fresh, project.root / gitlab.PATH, branch)
    assert went(again) == {"lading-stale", "summary"}
    assert again["lading-stale"].seconds <= STALE_SECONDS
    assert "Nothing was to be made." in again["summary"].summary


def test_a_project_with_its_own_scripts(registry: str, tmp_path: Path) -> None:
    """This repository's own steps, as they are written: .venv is set up in an empty clone."""
    environ = plain_environ()
    project = Copy(root=copied(tmp_path / "project"), environ=environ)
    text = (project.root / "project.yaml").read_text()
    project.write("project.yaml", f"{text}registry: {registry}/own\n")
    project.done("ci")
    runners.git(tmp_path, "init", "--quiet", "--initial-branch", "main", str(project.root))
    commit(project.root, "The beginning")
    declared = load(project.root / "project.yaml")
    pretend_pushed(State(declared, environ=environ))
    fresh = Runners(project.root, tmp_path / "runners", environ, patience=600)
    jobs = runners.github(fresh, project.root / ".github/workflows/lading.yml")
    assert went(jobs) == {"stale"}
    count = sum(image.default for image in declared.images.values())
    assert f"0 of {count} images are to be made" in jobs["stale"].log
    assert "$ ./scripts/setup venv\nlading: setting up .venv\n" in jobs["stale"].log
    assert jobs["stale"].seconds <= STALE_SECONDS
