"""The header that all locks have."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading import locks
from lading.errors import LadingError
from lading.locks import Header

HEADER = Header(command="doit lock:x", date=date(2026, 11, 22), inputs="ab" * 32)
TEXT = f"""\
# About this.
# lading-lock: 1
# command: doit lock:x
# date: 2026-11-22
# inputs: sha256:{"ab" * 32}

body
"""


def test_the_text_of_a_lock_and_back() -> None:
    assert locks.text_of(HEADER, "body\n", "About this.") == TEXT
    assert locks.split(TEXT, "x") == (HEADER, "\nbody\n")


@given(
    st.dates(min_value=date(1970, 1, 1)),
    st.text(alphabet="0123456789abcdef", min_size=64, max_size=64),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=80),
)
def test_what_is_written_is_read(day: date, inputs: str, body: str) -> None:
    header = Header(command="doit lock:x", date=day, inputs=inputs)
    assert locks.split(locks.text_of(header, body, "About"), "x") == (header, "\n" + body)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "body\n",
        TEXT.replace("lading-lock", "lock"),
        TEXT.replace("# date: 2026-11-22\n", ""),
        TEXT.replace("2026-11-22", "2026-02-30"),
        TEXT.replace("sha256:ab", "sha256:x"),
        TEXT.replace("# lading", "lading"),
        "<<<<<<< ours\n" + TEXT,
        TEXT[:60],
    ],
)
def test_what_is_no_lock_is_refused(text: str) -> None:
    with pytest.raises(LadingError, match=r"^some/lock\.txt: not a lock of lading's") as caught:
        locks.split(text, "some/lock.txt")
    assert caught.value.do


def test_a_lock_of_a_newer_lading_is_refused() -> None:
    with pytest.raises(LadingError, match="written by a newer lading"):
        locks.split(TEXT.replace("lock: 1", "lock: 2"), "x")


def test_the_date_is_midnight_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    for zone in ("UTC", "Pacific/Kiritimati", "America/Los_Angeles"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert HEADER.epoch == 1795305600
    monkeypatch.undo()
    time.tzset()


def test_the_date_is_kept_while_what_is_pinned_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(locks, "today", lambda: date(2027, 1, 1))
    new = "0" * 64
    old = (HEADER, "\nbody\n")
    assert locks.renewed(old, new, "body\n", "doit x") == Header(
        command="doit x", date=HEADER.date, inputs=new
    )
    assert locks.renewed(old, new, "other\n", "doit x").date == date(2027, 1, 1)
    assert locks.renewed(None, new, "body\n", "doit x").date == date(2027, 1, 1)


def test_where_locks_lie() -> None:
    found = locks.folder(Path("/p"), "images", "a.b", "linux/amd64")
    assert found == Path("/p/locks/images/a.b/linux-amd64")


def test_reading(tmp_path: Path) -> None:
    assert locks.read(tmp_path / "none") is None
    (tmp_path / "lock").write_bytes(b"a\r\n\xc3\xa9")
    assert locks.read(tmp_path / "lock") == "a\né"
    for data in (b"\xff", None):
        (tmp_path / "lock").unlink()
        if data is None:
            (tmp_path / "lock").mkdir()
        else:
            (tmp_path / "lock").write_bytes(data)
        with pytest.raises(LadingError, match="lock: can't be read"):
            locks.read(tmp_path / "lock")
