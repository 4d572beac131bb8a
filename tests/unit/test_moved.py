"""What moved between two locks."""

from __future__ import annotations

import hashlib

from lading import moved
from lading.layers import base as bases
from lading.layers import pip_kind
from lading.moved import Change, Pinned, compare
from lading.requirements import Pin
from lading.store import Artifact


def pin(name: str, version: str, file: str = "") -> Pin:
    file = file or f"{name}-{version}.whl"
    sha256 = hashlib.sha256(file.encode()).hexdigest()
    return Pin(name=name, version=version, artifact=Artifact(name=file, sha256=sha256, size=9))


def deb(name: str, version: str, size: int = 1_000) -> Pinned:
    sha256 = hashlib.sha256(f"{name} {version}".encode()).hexdigest()
    return Pinned(what="apt", name=name, forms=(version,), sha256=sha256, size=size)


def test_added_removed_moved_and_another_file_of_the_same_version() -> None:
    old = [pin("a", "1"), pin("b", "1"), pin("c", "1"), pin("d", "1", "d-1-x.whl")]
    new = [pin("a", "2"), pin("b", "1"), pin("d", "1", "d-1-y.whl"), pin("e", "5")]
    told = compare(pip_kind.pinned(old), pip_kind.pinned(new))
    assert [(c.how, c.name, c.old, c.new, c.size) for c in told] == [
        ("moved", "a", "1", "2", 9),
        ("removed", "c", "1", "", None),
        ("moved", "d", "d-1-x.whl", "d-1-y.whl", 9),
        ("added", "e", "", "5", 9),
    ]
    assert compare(pip_kind.pinned(old), pip_kind.pinned(old)) == ()


def test_a_file_whose_content_is_another_one() -> None:
    old, new = pin("a", "1"), pin("a", "1", "other.whl")
    same_name = Artifact(name=old.artifact.name, sha256=new.artifact.sha256, size=9)
    new = Pin(name="a", version="1", artifact=same_name)
    (change,) = compare(pip_kind.pinned([old]), pip_kind.pinned([new]))
    assert change.old == f"sha256:{old.artifact.sha256[:12]}"
    assert change.new == f"sha256:{new.artifact.sha256[:12]}"


def test_lines_are_aligned_and_say_what_is_downloaded() -> None:
    changes = [
        Change(what="pip", name="pyerfa", old="2.0", new="2.0.1.5", size=738_068),
        Change(what="base", part="debian-13", name="libc6", old="2.41-12", new="2.41-13"),
        Change(what="pip", name="numpy", old="2.4.5", new="2.4.6", size=16_600_000),
        Change(what="pip", name="gone", old="1"),
        Change(what="pip", part="to build x", name="b", new="2", size=1_000),
    ]
    assert moved.lines(changes) == [
        "Python packages: 2 moved, 1 removed, 17 MB to download",
        "    pyerfa 2.0 → 2.0.1.5  738 kB",
        "    numpy  2.4.5 → 2.4.6   17 MB",
        "  - gone   1",
        "base debian-13: 1 moved",
        "    libc6 2.41-12 → 2.41-13",
        "Python packages, to build x: 1 added, 1.0 kB to download",
        "  + b 2  1.0 kB",
    ]
    assert moved.lines([]) == []


def test_what_moved_alike_shares_a_line() -> None:
    old = [deb(f"gcc-{n}", "14-1") for n in range(20)] + [deb("make", "4.4")]
    new = [deb(f"gcc-{n}", "14-2") for n in range(20)] + [deb("make", "4.5")]
    told = moved.lines(compare(old, new))
    assert told == [
        "Debian packages: 21 moved, 21 kB to download",
        "    gcc-0 and 19 more 14-1 → 14-2   20 kB",
        "    make              4.4 → 4.5    1.0 kB",
    ]


def test_long_names_and_versions_stay_within_a_screen_of_80_columns() -> None:
    some = [
        Change(what="apt", name="libpython3.13-minimal", old="3.13.5-2", new="3.13.5-2+b1", size=9),
        Change(what="apt", name="x" * 40, old="1:0.0~git2024-1", new="1:0.0~git2025-1", size=9),
    ]
    assert all(len(f"  {line}") <= 80 for line in moved.lines(some[:1]))
    assert "x" * 40 in moved.lines(some)[2], "nothing of it is cut off"


def test_an_image_base_says_what_its_image_was_found_to_have() -> None:
    from lading.facts import Facts
    from lading.layers.base import BaseLock
    from lading.locks import Header, today
    from lading.project import Base

    def lock(digest: str, python: str) -> BaseLock:
        return BaseLock(
            header=Header(command="", date=today(), inputs=""),
            facts=Facts(python="/usr/bin/python", python_version=python, glibc="2.41"),
            text="",
            digest=f"sha256:{digest * 64}",
        )

    base = Base(name="slim", image="reg.example/python:3.13")
    before, after = lock("1", "3.13.5"), lock("2", "3.13.6")
    told = compare(bases.contents(base, before), bases.contents(base, after))
    assert [(c.part, c.name, c.old, c.new) for c in told] == [
        ("slim", "python:3.13", "sha256:111111111111", "sha256:222222222222"),
        ("slim", "with Python", "3.13.5", "3.13.6"),
    ]
