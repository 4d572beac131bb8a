"""How doit is set up for a project of lading's."""

from __future__ import annotations

from typing import Any

DOIT_CONFIG: dict[str, Any] = {
    "default_tasks": ["archive"],
    # lading.database: SQLite, which survives a kill.
    "backend": "lading",
    "dep_file": ".doit.db",
    # Threads share the engine's connection and the console; processes would each have their own.
    "par_type": "thread",
    "sort": "definition",
    "verbosity": 2,
}
