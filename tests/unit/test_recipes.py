"""The lesson's table: what it names is there."""

from __future__ import annotations

import re

import pytest

from lading.project import load
from tests.bench import costs
from tests.support.projects import REPOSITORY

TABLE, COSTS = (REPOSITORY / "recipes/README.md").read_text().split("\n## What it costs\n")
ROWS = [
    line for line in TABLE.splitlines() if line.startswith("| ") and "in the lesson" not in line
]
STEP = re.compile(
    r"Dockerfile \d|Reproducible, way \d|Intel's Python|the variables that activation sets|MPICH"
)
"""How the steps begin that have costs."""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:30])
def test_each_row_is_tested(row: str) -> None:
    """End to end, as the page says."""
    tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
    assert tests
    assert all(path.startswith("tests/e2e/") for path, _ in tests)
    for path, name in tests:
        assert f"\ndef {name}(" in (REPOSITORY / path).read_text()


def test_its_costs_are_as_the_benchmark_prints_them() -> None:
    """Rows, order and form; the figures are of the machine that measured them."""
    assert "scripts/bench --lesson" in COSTS
    table = [line for line in COSTS.splitlines() if line.startswith("|")]
    expected = costs.table([]).splitlines()
    assert table[:2] == expected[:2]
    assert len(table) == len(expected)
    for line, other in zip(table[2:], expected[2:], strict=True):
        label, *cells = line.strip("| ").split(" | ")
        other_label, *empty = other.strip("| ").split(" | ")
        assert label == other_label
        for cell, said in zip(cells, empty, strict=True):
            assert re.fullmatch("…|[0-9.]+( s)?", cell) if said == costs.OPEN else cell == said


def test_each_step_has_its_costs() -> None:
    """All of pip's and conda's, and MPICH with mpi4py."""
    labels = list(costs.STEPS.values())
    for section in TABLE.split("\n## ")[1:]:
        name = re.split(r"\W", section, maxsplit=1)[0]
        rows = [line for line in section.splitlines() if line in ROWS]
        for row in rows[:1] if name == "MPI" else rows:
            step = STEP.match(row[2:])
            assert step is not None, row
            assert any(label.startswith(f"{name}, {step[0]}") for label in labels), row


def test_the_images_are_declared() -> None:
    named = set(re.findall(r"the image `([^`]+)`", TABLE))
    assert (
        {"astropy-miniconda", "mpi4py", "jupyterlab"}
        < named
        <= set(load(REPOSITORY / "project.yaml").images)
    )


def test_every_recipe_is_of_an_image() -> None:
    text = (REPOSITORY / "project.yaml").read_text()
    for folder in (REPOSITORY / "recipes").iterdir():
        assert folder.name == "README.md" or f"recipes/{folder.name}/" in text
