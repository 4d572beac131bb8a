"""How doit is set up for a project of lading's."""

from __future__ import annotations

from typing import Any

DOIT_CONFIG: dict[str, Any] = {
    "default_tasks": ["archive"],
    # Named, because doit's own choice depends on the interpreter; SQLite survives a kill.
    "backend": "sqlite3",
    "dep_file": ".doit.db",
    # Threads share the engine's connection and the console; processes would each have their own.
    "par_type": "thread",
    "sort": "definition",
    "verbosity": 2,
}
