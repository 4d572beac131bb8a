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
        try:
            super().__init__(name, codec, module_name=module_name)
            self._rows = self._read()
        except (DatabaseException, sqlite3.DatabaseError, ValueError, TypeError) as error:
            said = str(error)
            if "unable to open" in said:
                raise InvalidDodoFile(f"{name} can't be opened ({said})") from None
            if "locked" in said:
                raise InvalidDodoFile(f"{name} is in use by another program ({said})") from None
            sys.stderr.write(f"{Path(name).name} can't be read ({said}): it is made anew\n")
            with suppress(AttributeError):
                self._conn.close()
            Path(name).unlink()
            super().__init__(name, codec, module_name=module_name)

    def _read(self) -> dict[str, dict[str, Any]]:
        rows = self._conn.execute("select task_id, task_data from doit").fetchall()
        found = {row["task_id"]: row["task_data"] for row in rows}
        if not all(isinstance(data, dict) for data in found.values()):
            raise ValueError("a task has odd data")
        return found

    def _get_task_data(self, task_id: str) -> dict[str, Any]:
        return self._rows.get(task_id, {})

    def in_(self, task_id: str) -> bool:
        """Whether anything is known of a task."""
        return task_id in self._cache or task_id in self._rows

    def remove(self, task_id: str) -> None:
        """Forgets a task."""
        self._rows.pop(task_id, None)
        super().remove(task_id)

    def remove_all(self) -> None:
        """Forgets all tasks."""
        self._rows.clear()
        super().remove_all()
