"""The lesson's table: what it names is there."""

from __future__ import annotations

import re

import pytest

from lading.project import load
from tests.support.projects import REPOSITORY

TABLE, COSTS = (REPOSITORY / "recipes/README.md").read_text().split("\n## What it costs\n")
ROWS = [
    line for line in TABLE.splitlines() if line.startswith("| ") and "in the lesson" not in line
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:30])
def test_each_row_is_tested(row: str) -> None:
    tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
    assert tests
    for path, name in tests:
        assert f"\ndef {name}(" in (REPOSITORY / path).read_text()


def test_its_costs_are_there() -> None:
    assert "scripts/bench --lesson" in COSTS
    assert len([line for line in COSTS.splitlines() if line.startswith("| ")]) > 5


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
