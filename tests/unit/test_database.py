"""doit's database, as it is read at once and made anew."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path

import pytest
from doit.dependency import Dependency, JSONCodec
from doit.exceptions import InvalidDodoFile
from doit.task import Task

from lading.database import Database


def opened(path: Path) -> Database:
    return Database(str(path), JSONCodec())


def written(path: Path, data: object = '{"a": 1}') -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("create table doit (task_id text primary key, task_data json)")
        for number in range(200):
            connection.execute("insert into doit values (?, ?)", (f"a{number}", data))
    connection.close()


def test_what_is_written_is_there_in_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / ".doit.db"
    for number in (1, 2):
        database = opened(path)
        assert database.in_("task") == (number == 2)
        assert database.get("task", "a") == (None if number == 1 else 1)
        database.set("task", "a", 1)
        database.set("other", "b", [number])
        database.dump()
    database = opened(path)
    database.remove("task")
    assert not database.in_("task")
    assert database.get("task", "a") is None
    assert database.get("other", "b") == [2]
    database.dump()
    database = opened(path)
    assert database.get("task", "a") is None
    assert database.get("other", "b") == [2]
    database.remove_all()
    assert not database.in_("other")
    database.dump()
    assert opened(path).get("other", "b") is None


def test_it_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".doit.db"
    written(path)
    database = opened(path)
    asked: list[str] = []
    database._conn.set_trace_callback(asked.append)
    assert [database.get(f"a{number}", "a") for number in range(210)] == [1] * 200 + [None] * 10
    assert asked == []


def test_what_is_ignored_stays_ignored(tmp_path: Path) -> None:
    path = tmp_path / ".doit.db"
    task = Task("build:a", None)
    dependency = Dependency(Database, str(path))
    assert not dependency.status_is_ignore(task)
    dependency.ignore(task)
    dependency.close()
    assert Dependency(Database, str(path)).status_is_ignore(task)


def test_a_database_that_can_be_read_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ".doit.db"
    written(path)
    before = path.read_bytes()
    opened(path).dump()
    assert path.read_bytes() == before
    path.write_bytes(b"")  # as SQLite leaves one that was only opened
    opened(path).dump()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "damage",
    ["garbage", "truncated", "middle", "schema", "no json", "no dict", "null", "no text"],
)
def test_a_database_that_is_broken_is_made_anew_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    path = tmp_path / ".doit.db"
    data: dict[str, object] = {"no json": "{", "no dict": "[]", "null": None, "no text": b"\xff"}
    if damage == "schema":
        with sqlite3.connect(path) as connection:
            connection.execute("create table doit (x)")
        connection.close()
    else:
        written(path, data.get(damage, '{"a": 1}'))
    whole = path.read_bytes()
    if damage == "garbage":
        path.write_bytes(b"garbage" * 1000)
    elif damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "middle":
        path.write_bytes(whole[:4096] + b"\xff" * 4096 + whole[8192:])
    database = opened(path)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(".doit.db can't be read (")
    assert said.err.endswith("): it is made anew\n")
    assert database.get("a1", "a") is None
    database.set("a1", "a", 2)
    database.dump()
    assert opened(path).get("a1", "a") == 2
    assert capsys.readouterr() == ("", "")


def test_a_database_that_is_in_use_is_a_problem_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".doit.db"
    written(path)
    real = sqlite3.connect
    other = real(path)
    other.execute("begin exclusive")
    monkeypatch.setattr(sqlite3, "connect", partial(real, timeout=0))
    with pytest.raises(InvalidDodoFile, match=r"\.doit\.db is in use by another program"):
        opened(path)
    other.close()
    assert path.exists()


def test_one_that_cannot_be_opened_is_in_memory_for_this_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".doit.db").mkdir()
    database = opened(tmp_path / ".doit.db")
    assert capsys.readouterr().err.startswith(".doit.db can't be written (unable to open ")
    database.set("a", "b", 1)
    database.dump()
    assert database.unwritten
    assert capsys.readouterr().err == "", "once is enough"


def test_until_the_end_nobody_has_to_wait_for_it(tmp_path: Path) -> None:
    path = tmp_path / ".doit.db"
    written(path)
    database = opened(path)
    database.remove("a1")
    database.set("a2", "a", 3)
    with sqlite3.connect(path, timeout=0) as other:
        other.execute("delete from doit where task_id='a3'")
    other.close()
    database.dump()
    assert not opened(path).in_("a1")
    assert opened(path).get("a2", "a") == 3
