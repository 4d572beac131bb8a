"""The locks of bases, and what FROM names."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from lading import locks
from lading.debian import Deb
from lading.errors import LadingError
from lading.facts import Facts
from lading.layers import base as bases
from lading.layers.base import BaseLock
from lading.project import Base, DebianBase

DEBIAN = Base(name="debian-13", debian=DebianBase(suite="trixie", packages=("python3", "curl")))
IMAGE = Base(name="slim", image="docker.io/library/python:3.13-slim")
FACTS = Facts(
    python="/usr/bin/python3",
    python_version="3.13.5",
    glibc="2.41",
    os="debian 13",
    package_manager="apt",
)
DIGEST = "sha256:" + "c" * 64


def deb(name: str, version: str = "1:2.0~rc1+dfsg-1", sha: str = "a") -> Deb:
    return Deb(
        name=name,
        version=version,
        architecture="amd64",
        path=f"debian:pool/main/{name[0]}/{name}/{name}_{version.partition(':')[2]}_amd64.deb",
        size=1234,
        sha256=sha * 64,
    )


DEBS = (deb("libc6", "2.41-12"), deb("python3"))


@pytest.fixture(autouse=True)
def day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "today", lambda: date(2026, 11, 22))


def made(base: Base = DEBIAN, old: BaseLock | None = None, **other: object) -> BaseLock:
    pinned = {"debs": DEBS} if base.debian else {"digest": DIGEST}
    text = bases.text_of(base, "linux/amd64", FACTS, old, **{**pinned, **other})  # type: ignore[arg-type]
    return bases.parse(text, "x")


def test_the_text_of_a_debian_base() -> None:
    assert made().text == (
        "# The base debian-13: Debian trixie with python3, curl.\n"
        "# lading-lock: 1\n"
        "# command: doit lock:base:debian-13\n"
        "# date: 2026-11-22\n"
        f"# inputs: sha256:{bases.inputs(DEBIAN, 'linux/amd64')}\n"
        "\n"
        "facts:\n"
        '  python: "/usr/bin/python3"\n'
        '  python_version: "3.13.5"\n'
        '  glibc: "2.41"\n'
        '  os: "debian 13"\n'
        '  package_manager: "apt"\n'
        "suite: trixie\n"
        "packages:\n"
        '  - {name: libc6, version: "2.41-12", architecture: amd64, '
        'path: "debian:pool/main/l/libc6/libc6__amd64.deb", '
        f"size: 1234, sha256: {'a' * 64}}}\n"
        '  - {name: python3, version: "1:2.0~rc1+dfsg-1", architecture: amd64, '
        'path: "debian:pool/main/p/python3/python3_2.0~rc1+dfsg-1_amd64.deb", '
        f"size: 1234, sha256: {'a' * 64}}}\n"
    )


def test_what_is_written_is_read() -> None:
    lock = made()
    assert (lock.suite, lock.debs, lock.facts, lock.digest) == ("trixie", DEBS, FACTS, "")
    assert [artifact.name for artifact in lock.artifacts] == [
        "libc6__amd64.deb",
        "python3_2.0~rc1+dfsg-1_amd64.deb",
    ]
    lock = made(IMAGE)
    assert (lock.suite, lock.debs, lock.facts, lock.digest) == ("", (), FACTS, DIGEST)
    assert lock.artifacts == ()


# Names, versions and hashes that YAML would take for numbers, dates, booleans or nothing.
ODD = st.sampled_from(["1e5", "0x10", "1_000", "2026-11-22", "null", "on", "1.0", "~", "12:30:00"])


@given(ODD, ODD, st.sampled_from(["0" * 64, "1" * 64, "12e4" * 16, "0e" * 32]))
def test_no_value_is_read_as_another_type(version: str, file: str, sha256: str) -> None:
    odd = Deb(name="a", version=version, architecture="amd64", path=file, size=1, sha256=sha256)
    facts = replace(FACTS, python_version=version, glibc=file)
    text = bases.text_of(DEBIAN, "linux/amd64", facts, None, debs=(odd,))
    read = bases.parse(text, "x")
    assert read.debs == (odd,)
    assert read.facts == facts


def test_the_date_moves_with_what_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    first = made()
    monkeypatch.setattr(locks, "today", lambda: date(2026, 12, 1))
    assert made(old=first).header.date == date(2026, 11, 22)
    other = replace(DEBIAN, debian=DebianBase(suite="trixie", packages=("curl", "python3", "git")))
    assert made(other, old=first).header.date == date(2026, 11, 22), "the same .debs all the same"
    assert made(old=first, debs=DEBS[:1]).header.date == date(2026, 12, 1)
    image = made(IMAGE)
    assert made(IMAGE, old=image, digest="sha256:" + "d" * 64).header.date == date(2026, 12, 1)


def test_the_inputs_of_a_base() -> None:
    def debian(*packages: str, suite: str = "trixie") -> Base:
        return replace(DEBIAN, debian=DebianBase(suite=suite, packages=packages))

    platform = "linux/amd64"
    same = bases.inputs(debian("curl", "python3"), platform)
    assert bases.inputs(debian("python3", "curl"), platform) == same, "in any order"
    assert bases.inputs(replace(DEBIAN, name="other"), platform) == same
    digests = [
        same,
        bases.inputs(debian("curl"), platform),
        bases.inputs(debian("python3", "curl", suite="bookworm"), platform),
        bases.inputs(DEBIAN, "linux/arm64"),
        bases.inputs(IMAGE, platform),
        bases.inputs(replace(IMAGE, image="python:3"), platform),
    ]
    assert len(set(digests)) == len(digests)


def test_the_key_of_a_debian_base_is_what_it_is_made_from() -> None:
    lock = made()
    keys = {
        lock.key,
        replace(lock, suite="bookworm").key,
        replace(lock, debs=DEBS[:1]).key,
        replace(lock, debs=(DEBS[0], deb("python3", sha="b"))).key,
        replace(lock, header=replace(lock.header, date=date(2026, 11, 23))).key,
    }
    assert len(keys) == 5
    # Where a file lay, and what the lock was asked, make no other base.
    moved = replace(DEBS[0], path="debian-security:pool/updates/x.deb", size=1)
    renewed = replace(lock.header, inputs="0" * 64, command="x")
    assert replace(lock, debs=(moved, DEBS[1]), header=renewed, text="").key == lock.key


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        ("docker.io/library/python:3.13-slim", "docker.io/library/python"),
        ("h.example:5000/a/b", "h.example:5000/a/b"),
        ("h.example:5000/a/b:1.0", "h.example:5000/a/b"),
        (f"h.example/a:1@{DIGEST}", "h.example/a"),
        (f"h.example:5000/a@{DIGEST}", "h.example:5000/a"),
    ],
)
def test_what_from_names(image: str, repository: str) -> None:
    base = replace(IMAGE, image=image)
    assert bases.reference(base, made(base)) == f"{repository}@{DIGEST}"


def test_what_from_names_of_a_debian_base() -> None:
    lock = made()
    assert bases.reference(DEBIAN, lock) == f"localhost/lading/base/debian-13:{lock.key[:16]}"


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda text: text + "<<<<<<< ours\n", 17),
        (lambda text: text.replace("facts:", "fact:"), 7),
        (lambda text: text.replace("  glibc: ", "  libc: "), 17),
        (lambda text: text.replace('"2.41"', "2.41"), 10),
        (lambda text: text.replace("size: 1234", "size: much"), 15),
        (lambda text: text.replace("size: 1234, ", ""), 15),
        (lambda text: text.replace("  - {", "  - [").replace("}\n", "]\n"), 15),
        (lambda text: text[: text.index("facts:")], 7),
        (lambda text: text[: text.index("facts:")] + "[" * 100_000, 7),
        (lambda text: text[: text.index("facts:")] + "- a\n", 7),
        (lambda text: text[: text.index("facts:")] + "\0", 7),
        (lambda text: text[: text.index("suite:")], 13),
        (lambda text: text.replace('"3.13.5"', r'"3.13\x"'), 9),
    ],
)
def test_a_damaged_lock_is_refused_with_its_line(damage: object, line: int, tmp_path: Path) -> None:
    assert callable(damage)
    path = tmp_path / "base.yaml"
    text = made().text
    path.write_text(text)
    assert bases.read(path) == made()
    path.write_text(damage(text))
    assert path.read_text() != text
    with pytest.raises(LadingError, match=rf"base\.yaml:{line}: not a lock of a base") as caught:
        bases.read(path)
    assert "delete the file and lock again" in caught.value.do


def test_a_lock_is_yaml_for_others() -> None:
    import yaml

    found = yaml.safe_load(made().text)
    assert found["facts"] == FACTS.to_dict()
    assert [row["version"] for row in found["packages"]] == [deb.version for deb in DEBS]
    assert yaml.safe_load(made(IMAGE).text)["digest"] == DIGEST


def test_there_is_none(tmp_path: Path) -> None:
    assert bases.read(bases.path(tmp_path, "x", "linux/amd64")) is None
