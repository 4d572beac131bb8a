"""Debian packages that can't be locked as declared, and a mirror that has moved on."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.e2e.conftest import Copy

PROJECT = """\
lading: 1
name: packages
bases:
  debian-13: {debian: {suite: trixie, packages: [python3]}}
images:
  well:     {base: debian-13, apt: {run: [make]}}
  virtual:  {base: debian-13, apt: {run: [c-compiler]}}
  misspelt: {base: debian-13, apt: {build: [gfortan]}}
  version:  {base: debian-13, apt: {run: [make=0.1-1]}}
  conflict: {base: debian-13, apt: {run: [postfix, exim4-daemon-light]}}
"""


@pytest.fixture
def packages(on_docker: Copy) -> Copy:
    """The project, with nothing locked but its base."""
    for name in ("images", "sources"):
        shutil.rmtree(on_docker.root / "locks" / name)
    on_docker.write("project.yaml", PROJECT)
    return on_docker


def test_what_cannot_be_locked_is_said(packages: Copy) -> None:
    outcome = packages.doit("-n", "5", "--continue", "lock")
    assert outcome.code == 3
    assert "Traceback" not in outcome.output
    said = " ".join(outcome.output.split())
    for text in (
        "images.virtual.apt: Debian trixie has no package c-compiler",
        "c-compiler: a virtual package, provided by ",
        "images.misspelt.apt: Debian trixie has no package gfortan",
        "gfortan: not there (did you mean gfortran",
        "images.version.apt: Debian trixie has no make 0.1-1 there is make ",
        "name make without a version: the lock pins it",
        "images.conflict.apt: apt finds no way to install postfix exim4-daemon-light",
        "leave out, or name other versions of, what conflicts",
    ):
        assert text in said
    assert "mail-transport-agent" in said, "apt's own reason"
    locks = packages.root / "locks/images"
    assert [path.name for path in locks.iterdir()] == ["well"], "the others leave nothing behind"

    # A version that there is, is the one that is locked.
    locked = (locks / "well/linux-amd64/apt.yaml").read_text()
    found = re.search(r'name: make, version: "?([^",]+)', locked)
    assert found is not None
    packages.replace("project.yaml", "make=0.1-1", f"make={found[1]}")
    packages.done("lock:version")
    pinned = (locks / "version/linux-amd64/apt.yaml").read_text()
    assert pinned.partition("\npackages:")[2] == locked.partition("\npackages:")[2]


def test_a_base_whose_mirror_has_moved_on(packages: Copy) -> None:
    """A security update has replaced a package that the lock names."""
    lock = packages.root / "locks/bases/debian-13/linux-amd64/base.yaml"
    text = lock.read_text()
    line = re.search(r'^ +- \{name: tzdata, version: "?([^",]+).*$', text, re.MULTILINE)
    assert line is not None
    old = line[0].replace(line[1], "2020a-0")
    old = re.sub(r"sha256: \w+", f"sha256: {'0' * 64}", old)
    lock.write_text(text.replace(line[0], old))

    outcome = packages.doit("lock:base:debian-13", CI="true")
    assert outcome.code == 1
    assert "the mirror no longer has tzdata" in outcome.output
    assert "`doit lock:base:debian-13`" in outcome.output
    assert "2020a-0" in lock.read_text()

    output = packages.done("lock:base:debian-13")
    assert re.search(r"  tzdata +2020a-0 +→ 20\d\d", output), "what moved is said"
    assert "2020a-0" not in lock.read_text()
    assert "  make" not in output
