"""Real engines: images that no lock names go, and what anyone still wants stays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from lading.engines import Engine, connect
from tests.engine.test_sources import Clone, project
from tests.support import images
from tests.support.engines import Running

YAML = """\
lading: 1
name: trial
bases: {{box: {{image: "{registry}/box:1"}}}}
images:
  one: {{base: box, version: "1", env: {{TEXT: none}}}}
  two: {{base: box, version: "1"}}
"""


@pytest.fixture
def clone(
    running: Running, registry: str, tiny: images.TinyImage, tmp_path: Path
) -> Iterator[Clone]:
    """A project, in an engine that others use as well."""
    digest = images.push(tiny, registry, "box", "1")
    trial = project(
        tmp_path / "project", YAML.format(registry=registry), digest, str(tmp_path / "cache")
    )
    with closing(connect(running.environ)) as engine:
        yield Clone(trial, engine)
        for listed in engine.listed():
            if any("one:" in name or "two:" in name for name in listed.names):
                engine.discard(listed)


def built(clone: Clone, text: str) -> str:
    """The id of image one, with this text in it."""
    yaml = clone.trial.root / "project.yaml"
    yaml.write_text(re.sub(r"TEXT: \w+", f"TEXT: {text}", yaml.read_text()))
    assert clone.doit("build") == 0
    return clone.engine.images("lading.key")[clone.trial.key("one")]


def held(engine: Engine) -> set[str]:
    return {listed.id for listed in engine.listed()}


def test_images(clone: Clone, running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    engine = clone.engine
    first, second, third = (built(clone, text) for text in ("first", "second", "third"))
    other = engine.images("lading.key")[clone.trial.key("two")]
    assert {first, second, third, other} <= held(engine)
    client = docker.DockerClient(base_url=running.url)
    with closing(client):
        # A user's own name keeps one, and a container, although it has ended, another.
        engine.tag(first, "localhost/paper:final")
        container = client.containers.create(second, ["/bin/true"])
        capsys.readouterr()
        assert clone.doit("prune", "--force") == 0
        said = capsys.readouterr().out
        assert "paper:final is a name that lading has not given it" in said
        assert f"left: {second[7:19]}: a container stands on it" in said
        assert {first, second, third, other} <= held(engine)
        container.remove()
        engine.remove("localhost/paper:final")
        assert clone.doit("prune") == 0
        assert f"image     {second[7:19]}" in capsys.readouterr().out
        assert {second, third, other} <= held(engine)
        assert clone.doit("prune", "--force") == 0
    assert not {first, second} & held(engine)
    assert {third, other} <= held(engine)
    assert clone.doit("build") == 0
    assert "nothing to do" in capsys.readouterr().out


def test_nothing_goes_by_force(clone: Clone, running: Running) -> None:
    """A container that was begun since the engine was asked keeps its image, and itself."""
    first = built(clone, "first")
    built(clone, "second")
    (seen,) = [listed for listed in clone.engine.listed() if listed.id == first]
    client = docker.DockerClient(base_url=running.url)
    with closing(client):
        container = client.containers.run(first, ["/bin/sleep", "60"], detach=True, network="none")
        try:
            with pytest.raises(Exception, match="removing"):
                clone.engine.discard(seen)
            container.reload()
            assert container.status == "running"
            assert first in held(clone.engine)
        finally:
            container.remove(force=True)
