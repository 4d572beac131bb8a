"""Several conda prefixes in one image, and pip on top of the first: declared, locked, composed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from lading import compose
from lading.compose import Layer, Locked
from lading.errors import DeclarationError
from lading.facts import Facts
from lading.layers import conda_kind, conda_named, kinds
from lading.layers.base import BaseLock
from lading.layers.conda import CondaLock
from lading.layers.kind import InBase, Subject, Tools
from lading.layers.pip_kind import PIP
from lading.project import Project, load
from lading.steps import Add, Env
from lading.store import Store
from lading.verbs.check import parts
from tests.support.channels import Channel, only_loopback
from tests.unit.test_dockerfile import BASE

YAML = """\
lading: 1
name: trial
bases: {slim: {image: docker.io/library/debian:13}}
images:
  one:
    base: slim
    conda:
      channels: [lab]
      packages: [python, tool]
      cuda: 12.4
      environments:
        aside: {packages: [tool=1]}
        more: {file: more.yaml, prefix: /srv/lab/more}
"""


@pytest.fixture
def channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Channel]:
    only_loopback(monkeypatch, tmp_path / "home")
    with Channel(tmp_path / "channels") as found:
        monkeypatch.setenv("CONDA_CHANNEL_ALIAS", found.alias)
        found.package("python", "3.12.4", build="0_cpython")
        found.package("python", "3.12.3", build="0_73_pypy")
        found.package("python", "3.13.1", build="h1_0_cp313t")
        found.package("tool", "1.0")
        found.package("tool", "2.0", {"etc/conda/activate.d/tool.sh": "export A='`'\n"})
        yield found


Load = Callable[..., Project]


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    def read(yaml: str = YAML, more: str = "dependencies: [tool]\nvariables: {B: 1}\n") -> Project:
        (tmp_path / "more.yaml").write_text(more)
        (tmp_path / "requirements.in").write_text("a\n")
        (tmp_path / "project.yaml").write_text(yaml)
        return load(tmp_path / "project.yaml")

    return read


def subject(project: Project, **locks: CondaLock) -> Subject:
    base: BaseLock = replace(BASE, facts=Facts(glibc="2.41"))
    image = project.images["one"]
    return Subject(project=project, image=image, base=base, facts=base.facts, locks=locks)


def test_each_is_a_layer_of_its_own(loaded: Load) -> None:
    project = loaded()
    image = project.images["one"]
    assert [kind.name for kind in kinds.of(image, project)] == [
        "conda",
        "conda:aside",
        "conda:more",
    ]
    assert kinds.of(image, project)[1] is kinds.of(image, project)[1]
    assert parts(image) == ("/opt/conda", "/opt/venv", "/opt/aside", "/srv/lab/more")
    first, aside, more = (kind.request(subject(project)) for kind in kinds.of(image, project))
    assert (aside.names, aside.section.prefix, aside.specs) == (("lab",), "/opt/aside", ("tool=1",))
    assert (more.section.prefix, more.section.cuda) == ("/srv/lab/more", "12.4")
    assert len({first.digest, aside.digest, more.digest}) == 3
    assert aside.where == "images.one.conda.environments.aside"
    # A file's own channels are all that it has.
    other = loaded(more="channels: [far]\ndependencies: [tool]\n")
    assert kinds.of(image, other)[2].request(subject(other)).names == ("far",)


def test_they_are_locked_and_composed(loaded: Load, channel: Channel, tmp_path: Path) -> None:
    project = loaded()
    notes: list[str] = []

    def no_engine() -> InBase:
        raise AssertionError("no engine is needed")

    tools = Tools(
        environ=os.environ, store=Store(tmp_path / "store"), note=notes.append, in_base=no_engine
    )
    layers = []
    for kind in conda_named.of(project.images["one"]):
        request = kind.request(subject(project))
        lock = kind.lock(request, None, tools)
        kind.write(tmp_path / "locks", lock)
        assert kind.read(tmp_path / "locks") == lock
        kind.prepare(request, lock, tools)
        assert kind.prepared(request, lock, tools)
        layers.append(Layer(kind=kind, request=request, lock=lock))
        assert kind.facts(lock, BASE.facts) == BASE.facts
    assert (tmp_path / "locks/conda/aside/explicit.txt").exists()
    assert "tool-1.0" in (tmp_path / "locks/conda/aside/explicit.txt").read_text()
    assert "of the image one, environment more: linux-64" in layers[1].lock.texts["conda.lock"]
    assert layers[1].kind.summary(layers[1].request, layers[1].lock).endswith(" in /srv/lab/more")

    # What activation would set is not set, nor looked at: it is said.
    more = [note for note in notes if "more" in note]
    assert more == [
        "  B is not set: more is not the first prefix",
        "  tool sets variables when conda activates more, which the image does not",
    ]

    locked = Locked(base=BASE, layers=tuple(layers))
    assert {"conda/aside/conda.lock", "conda/more/prefix.yaml"} <= locked.texts.keys()
    plan = compose.plan(project, project.images["one"], locked)
    steps = plan.stages[-1].steps
    assert [step.source for step in steps if isinstance(step, Add)] == [
        "conda/aside/prefix.tar",
        "conda/more/prefix.tar",
    ]
    (env,) = (step for step in steps if isinstance(step, Env))
    assert "PATH" not in env.values
    assert "CONDA_PREFIX" not in env.values


@pytest.mark.parametrize(
    ("environments", "said"),
    [
        ("{conda: {packages: a}}", "its prefix /opt/conda is the first prefix, /opt/conda"),
        (
            "{b: {packages: a, prefix: /opt/conda/envs/b}}",
            "its prefix /opt/conda/envs/b lies in the first prefix, /opt/conda",
        ),
        (
            "{b: {packages: a, prefix: /srv/x/b}, c: {packages: a, prefix: /srv/x}}",
            "environments.c: its prefix /srv/x has in it the one of b, /srv/x/b",
        ),
        ("{b: {packages: a}, c: {packages: a, prefix: /opt/b}}", "/opt/b is the one of b, /opt/b"),
        ("{b: {packages: a, prefix: /usr/lib/b}}", "b.prefix: expected a path as /opt/conda"),
        ("{b: {packages: a, prefix: /usr/local}}", "b.prefix: expected a path as /opt/conda"),
        ("{b: {packages: a, prefix: /usr/share/b}}", "b.prefix: expected a path as /opt/conda"),
        ("{b: {packages: a, prefix: /lib64/b}}", "b.prefix: expected a path as /opt/conda"),
        ("{b: {}}", "environments.b: expected exactly one of the keys 'packages' or 'file'"),
        ("{b: {packages: a, cuda: 12}}", "environments.b.cuda: unknown key"),
        ("{B: {packages: a}}", "expected the name of an environment"),
        ("[b]", "environments: expected a mapping from names"),
        ("{b: {packages: a, prefix: /usr/local/b}, bc: {packages: a}}", ""),
    ],
)
def test_prefixes_that_can_not_be(loaded: Load, environments: str, said: str) -> None:
    yaml = YAML.partition("      environments:")[0] + f"      environments: {environments}\n"
    if not said:
        assert loaded(yaml).images["one"].conda is not None
        return
    with pytest.raises(DeclarationError) as refused:
        loaded(yaml)
    assert said in str(refused.value)
    assert re.match(r"project\.yaml:1[12]: ", str(refused.value))


def test_pip_on_a_further_prefix_is_refused(loaded: Load) -> None:
    project = loaded(more="dependencies:\n- tool\n- pip: [a]\n")
    with pytest.raises(DeclarationError, match=r"^more\.yaml:3: pip's packages go on top of the "):
        kinds.of(project.images["one"], project)[2].request(subject(project))


# -- what pip's packages go on top of ---------------------------------------------------------

ENVIRONMENT = YAML.partition("      packages:")[0] + "      file: more.yaml\n"


def of_conda(project: Project, python: str, channel: Channel, tmp_path: Path) -> CondaLock:
    from lading.layers import conda, conda_resolve
    from lading.layers.conda_section import CondaSection

    section = CondaSection(channels=("lab",), packages=(*filter(None, (python,)), "tool=1"))
    asked = conda.request(tmp_path, "one", section, Facts(glibc="2.41"), "linux/amd64", None)
    tools = Tools(environ=os.environ, store=Store(tmp_path / "s"), note=print, in_base=_none)
    return conda_resolve.lock(asked, None, tools)


def _none() -> InBase:
    raise AssertionError


def test_the_pip_section_of_environment_yaml_is_a_layer(loaded: Load) -> None:
    for more, has in (("[tool]", False), ("[tool, {pip: [a]}]", True), ("tool", False)):
        project = loaded(ENVIRONMENT, more=f"dependencies: {more}\n")
        assert (PIP in kinds.of(project.images["one"], project)) is has


@pytest.mark.parametrize(
    ("python", "yaml", "said"),
    [
        ("python=3.12.4", ENVIRONMENT, ""),
        ("", ENVIRONMENT, "more.yaml has a section `pip:`, but conda installs no Python"),
        ("python=3.12.3", ENVIRONMENT, "conda installs python-3.12.3-0_73_pypy"),
        ("python=3.13", ENVIRONMENT, "conda installs python-3.13.1-h1_0_cp313t"),
    ],
)
def test_what_pip_goes_on_top_of(
    loaded: Load, channel: Channel, tmp_path: Path, python: str, yaml: str, said: str
) -> None:
    project = loaded(yaml, more="dependencies: [tool, {pip: [a]}]\n")
    lock = of_conda(project, python, channel, tmp_path)
    facts = conda_kind.CONDA.facts(lock, Facts(python="/usr/bin/python3", glibc="2.41"))
    above = replace(subject(project, conda=lock), facts=facts)
    if said:
        with pytest.raises(DeclarationError) as refused:
            PIP.request(above)
        assert said in str(refused.value)
        return
    request = PIP.request(above)
    assert request.below is not None
    assert (request.below.prefix, request.below.key) == ("/opt/conda", lock.key)
    assert (request.facts.python, request.facts.python_version) == (
        "/opt/conda/bin/python",
        "3.12.4",
    )
    assert request.sources.asked == ("more.yaml",)


def test_pip_goes_on_top_of_what_the_bases_own_conda_installs(
    loaded: Load, channel: Channel, tmp_path: Path
) -> None:
    yaml = ENVIRONMENT + "      installer: conda\n"
    project = loaded(yaml, more="dependencies: [tool, {pip: [a]}]\n")
    own = Facts(
        python="/opt/conda/bin/python",
        python_version="3.9.2",
        conda="/opt/conda",
        conda_version="4.10.3",
        glibc="2.41",
    )
    base = replace(BASE, facts=own, digest="sha256:1")
    lock = of_conda(project, "", channel, tmp_path)
    above = replace(subject(project, conda=lock), base=base, facts=own)
    assert conda_kind.CONDA.request(above).upon == "sha256:1"
    request = PIP.request(above)
    assert request.below is not None
    assert (request.below.prefix, request.below.stage) == ("/opt/conda", None)
    assert request.facts.python == "/opt/conda/bin/python"

    # A prefix beside its own is as any other.
    yaml += "      prefix: /opt/lab\n"
    project = loaded(yaml, more="dependencies: [tool, {pip: [a]}]\n")
    above = replace(subject(project, conda=lock), base=base, facts=own)
    assert conda_kind.CONDA.request(above).upon == ""
    with pytest.raises(DeclarationError, match="but conda installs no Python"):
        PIP.request(above)


def test_where_conda_has_no_python_the_bases_own_is_taken(
    loaded: Load, channel: Channel, tmp_path: Path
) -> None:
    yaml = YAML.partition("      cuda:")[0] + "    pip: {requirements: requirements.in}\n"
    project = loaded(yaml)
    above = subject(project, conda=of_conda(project, "", channel, tmp_path))
    assert PIP.request(above).below is None
