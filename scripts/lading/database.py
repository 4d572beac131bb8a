"""doit's database, which only saves time: it remembers that a task ran, and what to ignore."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from doit.dependency import DatabaseException, SqliteDB
from doit.exceptions import InvalidDodoFile


class Database(SqliteDB):  # type: ignore[misc]
    """doit's own, read in one go (it asks a thousand times else), and made anew if it is broken."""

    desc = "SQLite, read in one go, and made anew if it can't be read"

    def __init__(self, name: str, codec: Any, *, module_name: str | None = None) -> None:
        self._rows: dict[str, dict[str, Any]] = {}
        self._gone: set[str] = set()
        self.unwritten = ""
        """Why nothing can be written into it; then it is one in memory, for this run."""
        try:
            super().__init__(name, codec, module_name=module_name)
            self._rows = self._read()
            return
        except (DatabaseException, sqlite3.DatabaseError, ValueError, TypeError) as error:
            problem: Exception = error
        with suppress(AttributeError):
            self._conn.close()
        if "locked" in str(problem):
            raise InvalidDodoFile(f"{name} is in use by another program ({problem})")
        if not _machines(problem):
            sys.stderr.write(f"{Path(name).name} can't be read ({problem}): it is made anew\n")
            try:
                Path(name).unlink()
                super().__init__(name, codec, module_name=module_name)
                return
            except (DatabaseException, sqlite3.DatabaseError, OSError) as error:
                problem = error
        self._say_unwritten(problem)
        super().__init__(":memory:", codec, module_name=module_name)
        self.name = name

    def _say_unwritten(self, problem: Exception) -> None:
        if not self.unwritten:
            cause = problem.__context__ if isinstance(problem, DatabaseException) else problem
            self.unwritten = str(cause)
            sys.stderr.write(
                f"{Path(self.name).name} can't be written ({cause}): doit forgets what this run"
                " did, and nothing is made again for that\n"
            )

    def _read(self) -> dict[str, dict[str, Any]]:
        rows = self._conn.execute("select task_id, task_data from doit").fetchall()
        found = {row["task_id"]: row["task_data"] for row in rows}
        if not all(isinstance(data, dict) for data in found.values()):
            raise ValueError("a task has odd data")
        return found

    def rows(self) -> dict[str, dict[str, Any]]:
        """All that is known, by task."""
        return dict(self._rows)

    def _get_task_data(self, task_id: str) -> dict[str, Any]:
        return self._rows.get(task_id, {})

    def in_(self, task_id: str) -> bool:
        """Whether anything is known of a task."""
        return task_id in self._cache or task_id in self._rows

    # Nothing is written before the end: until then another run would wait for it.

    def remove(self, task_id: str) -> None:
        """Forgets a task."""
        self._rows.pop(task_id, None)
        self._cache.pop(task_id, None)
        self._dirty.discard(task_id)
        self._gone.add(task_id)

    def remove_all(self) -> None:
        """Forgets all tasks."""
        for task_id in {*self._rows, *self._cache}:
            self.remove(task_id)

    def dump(self) -> None:
        """Writes what has changed. Where that can't be, it is said: it only saves time."""
        try:
            if self._gone:
                gone = [(task_id,) for task_id in self._gone]
                self._conn.executemany("delete from doit where task_id=?", gone)
            super().dump()
        except sqlite3.DatabaseError as error:
            self._conn.close()
            self._say_unwritten(error)


def _machines(problem: Exception) -> bool:
    """Whether the disk is what is wrong, and not the file: it is full, say, or read-only."""
    cause = problem.__context__ if isinstance(problem, DatabaseException) else problem
    # The lowest byte is the kind (https://www.sqlite.org/rescode.html).
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_PERM,
    )
