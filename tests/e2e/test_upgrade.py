"""Old pins of real packages: outdated says what would move, upgrade moves it."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest

from tests.e2e.conftest import Copy

PROJECT = """\
lading: 1
name: renewed
bases:
  debian-13: {debian: {suite: trixie, packages: [python3]}}
images:
  old:
    base: debian-13
    pip: {requirements: old.in}
"""


@pytest.fixture
def renewed(on_docker: Copy) -> Copy:
    """An image whose pins are those of a day in 2023; and attrs is held at a yanked version."""
    shutil.rmtree(on_docker.root / "locks/images")
    shutil.rmtree(on_docker.root / "locks/sources")
    on_docker.write("project.yaml", PROJECT.replace("    pip:", "    as-of: 2023-06-01\n    pip:"))
    on_docker.write("old.in", "six\nidna\nattrs==21.1.0\n")
    # Only what the project itself asks: not what this machine's pip has besides.
    environ = {**on_docker.environ, "PIP_CONFIG_FILE": os.devnull}
    return Copy(root=on_docker.root, environ=environ)


def test_old_pins_are_outdated_and_move(renewed: Copy) -> None:
    renewed.done("lock:old")
    lock = renewed.root / "locks/images/old/linux-amd64/requirements.txt"
    assert "idna==3.4 " in lock.read_text()
    before = lock.read_text()

    renewed.write("project.yaml", PROJECT)
    outcome = renewed.doit("outdated", "--format", "json", "old", CI="true")
    assert outcome.code == 1
    answer = json.loads(outcome.output[outcome.output.index("{\n") :])["images"]["old"]
    moves = {change["name"]: change["old"] for change in answer["changes"]}
    assert moves["six"] == "1.16.0"
    assert moves["idna"] == "3.4"
    assert [note.partition(" (")[0] for note in answer["notes"]] == ["attrs 21.1.0 was yanked"]
    assert "near it: 20.3.0, 21.2.0" in answer["notes"][0]
    assert lock.read_text() == before

    output = renewed.done("upgrade:old", "package=idna")
    assert re.search(r"idna +3\.4 +→ 3\.", output), "what else moves widens the columns"
    assert "six==1.16.0 " in lock.read_text()

    output = renewed.done("upgrade:old")
    assert re.search(r"six +1\.16\.0 +→ 1\.", output)
    assert "attrs==21.1.0 " in lock.read_text(), "that is what is asked for"
    assert "current" not in renewed.done("lock:old", CI="true")
