"""Small things about files, each of them quicker than what Python has, and the same."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.files import canonical_json, digest_of, locked, resolved

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
        | st.tuples(inner, inner)
    ),
)


@given(PLAIN)
def test_a_digest_is_that_of_canonical_json(value: object) -> None:
    assert digest_of(value) == hashlib.sha256(canonical_json(value)).hexdigest()


def test_no_digest_of_what_is_no_text() -> None:
    with pytest.raises(UnicodeEncodeError):
        digest_of("\ud800")


@pytest.mark.parametrize(
    "path",
    [
        *("file", "folder/file", "link", "folder/link", "within/file", "within/link", "gone/file"),
        *(".", "folder", "folder/..", "folder/../file", "./file", "folder//file", "", "file/x"),
        *("out", "out/passwd", "round", "folder/gone"),
    ],
)
def test_a_path_is_resolved_as_realpath_does(tmp_path: Path, path: str) -> None:
    root = Path(os.path.realpath(tmp_path))
    (root / "folder").mkdir()
    (root / "file").touch()
    (root / "folder/file").touch()
    (root / "link").symlink_to("folder/file")
    (root / "folder/link").symlink_to("../link")
    (root / "within").symlink_to("folder")
    (root / "out").symlink_to("/etc")
    (root / "round").symlink_to("round")
    assert resolved(str(root), path) == os.path.realpath(root / path)
    assert resolved("/", path) == os.path.realpath(f"/{path}")


def test_who_holds_a_lock_may_have_been_called_with_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, os.fsdecode(b"doit x=\xff \xe2\x86\x92")):
        assert path.read_bytes() == rb"doit x=\udcff " + "→".encode()
