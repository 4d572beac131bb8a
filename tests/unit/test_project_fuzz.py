"""Whatever stands in project.yaml: a Project or a DeclarationError, soon, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lading.errors import DeclarationError
from lading.project import PROJECT, Project, load
from lading.schema import nodes
from lading.schema.shapes import Either, List, Map, Record
from lading.schema.variants import Expanded

GOOD = """\
lading: 1
name: fuzz
labels: &labels {a.b: c}
bases:
  debian-13: {debian: {suite: trixie, packages: [python3]}}
  slim: {image: "docker.io/library/python:3.9-slim"}
images:
  astropy:
    base: debian-13
    version: 1.10
    as-of: 2021-08-15
    labels: *labels
    description: |
      two
      lines
    pip: {requirements: requirements.in, no-binary: [mpi4py], build-constraints: ["setuptools<69"]}
    env: {A: "b", C: on}
    files: {/opt/x: requirements.in}
    run: {before-layers: [echo a], after-layers: echo b}
    cmd: [python3]
    test: [python -c "import astropy"]
"""

bounded = settings(
    max_examples=100,
    deadline=timedelta(seconds=5),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(params=["c", "python"])
def file(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    if request.param == "python":
        monkeypatch.setattr(nodes, "LOADER", yaml.SafeLoader)
    (tmp_path / "requirements.in").write_text("astropy\n")
    yield tmp_path / "project.yaml"


def outcome(file: Path, data: bytes) -> Project | str:
    """The project, or the error's text. Everything else that is raised fails the test."""
    file.write_bytes(data)
    try:
        return load(file)
    except DeclarationError as error:
        text = str(error)
    lines = text.splitlines()
    assert re.match(r"project\.yaml:[1-9][0-9]*: \S", lines[0])
    for line in lines:
        assert re.match(r"project\.yaml:|  -> ", line), line
        assert len(line) < 1000
    assert text.replace("\n", "").isprintable()
    last = data.count(b"\n") + data.count(b"\r") + data.decode("utf-8", "replace").count("\x85")
    last += sum(data.decode("utf-8", "replace").count(char) for char in "\u2028\u2029")
    assert all(int(line.split(":")[1]) <= last + 1 for line in lines if line[:1] == "p")
    return text


def test_the_seed_is_good(file: Path) -> None:
    assert isinstance(outcome(file, GOOD.encode()), Project)


@bounded
@given(data=st.binary(max_size=200))
@example(b"\xef\xbb\xbf")
@example(b"lading: 1\nname: \xed\xa0\x80")
def test_any_bytes(file: Path, data: bytes) -> None:
    outcome(file, data)


YAMLISH = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *["- ", "? ", ": ", "[", "]", "{", "}", ",", "\n", "\n  ", "\t", "#", "&a ", "*a"],
                *["!!", "!x ", "|", ">", "'", '"', "%TAG", "---\n", "...\n", "<<", "~", "null"],
                *["\\", "\\ud800", "0x1f", "1e999", ".inf", "2021-08-15", "on", "\r", "\x85", "@"],
                *["lading", "name", "images", "bases", "base", "pip", "requirements", "\u2028"],
            ]
        ),
        st.text(max_size=5),
    ),
    max_size=60,
).map("".join)


@bounded
@given(text=YAMLISH)
def test_what_looks_like_yaml(file: Path, text: str) -> None:
    outcome(file, text.encode("utf-8", "surrogatepass"))


@bounded
@given(data=st.data())
def test_a_good_project_with_pieces_changed(file: Path, data: st.DataObject) -> None:
    text = GOOD
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 20)))
        text = text[:start] + data.draw(YAMLISH | st.just("")) + text[end:]
    outcome(file, text.encode("utf-8", "surrogatepass"))


def _keys(kind: Any) -> set[str]:
    """All keys that stand anywhere in a kind."""
    match kind:
        case Record():
            inner = [_keys(field.kind) for field in kind.fields.values()]
            return set(kind.fields).union(*inner)
        case Map():
            return _keys(kind.value)
        case Expanded():
            return {"exclude", *_keys(kind.record)}
        case List():
            return _keys(kind.item)
        case Either():
            return _keys(kind.long) | _keys(kind.short)
    return set()


KEYS = sorted(_keys(PROJECT))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.dates(),
    st.datetimes(),
    st.text(max_size=10),
    st.binary(max_size=10),
    st.sampled_from(["requirements.in", "../x", "/etc/passwd", "debian-13", "/opt/x", *KEYS]),
)
STRUCTURES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(KEYS) | SCALARS, inner, max_size=4),
    ),
    max_leaves=20,
)


@bounded
@given(structure=STRUCTURES)
def test_any_structure(file: Path, structure: Any) -> None:
    outcome(file, yaml.safe_dump(structure, allow_unicode=True).encode("utf-8", "surrogatepass"))


@bounded
@given(data=st.data())
def test_a_good_project_with_a_value_replaced(file: Path, data: st.DataObject) -> None:
    tree = yaml.safe_load(GOOD)
    here = tree
    while True:
        key = data.draw(st.sampled_from(list(here) if isinstance(here, dict) else range(len(here))))
        if not isinstance(here[key], dict | list) or not here[key] or data.draw(st.booleans()):
            break
        here = here[key]
    here[key] = data.draw(STRUCTURES)
    outcome(file, yaml.safe_dump(tree).encode())
