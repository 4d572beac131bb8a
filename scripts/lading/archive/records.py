"""What is known of an archive, as JSON beside it: whether it is today's follows from that alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from lading.errors import LadingError
from lading.files import content_of, write_text

if TYPE_CHECKING:
    from lading.archive.writing import Archive


def record(path: Path, archive: Archive, *, key: str, name: str) -> None:
    """Writes what is known of an archive as JSON, beside it; `key` is the image's."""
    found = {
        "key": key,
        "name": name,
        "sha256": archive.sha256,
        "size": archive.size,
        "config": archive.config,
        "layers": [{"diff_id": layer.diff_id, "size": layer.size} for layer in archive.layers],
    }
    write_text(path, json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def current(tar: Path | str, record: Path | str, key: str) -> bool:
    """Whether the record names this key and the archive has the record's size: one stat."""
    try:
        found = json.loads(content_of(record))
        size = os.stat(tar).st_size  # noqa: PTH116 (one an image; pathlib is slow)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("key") == key and found.get("size") == size


def places(tar: Path, record: Path) -> tuple[str, dict[str, tuple[int, int]]]:
    """Where in a canonical archive the configuration and each layer are: offset and size in bytes,
    by digest; and the configuration's digest. Raises `LadingError` when it is none.
    """
    import tarfile

    try:
        found = json.loads(record.read_text())
        with tarfile.open(tar, "r:") as archive:
            members = {one.name: (one.offset_data, one.size) for one in archive}
            manifest = archive.extractfile("manifest.json")
            assert manifest is not None
            (listed,) = json.loads(manifest.read())
        there = {str(found["config"]): members[listed["Config"]]}
        for name, layer in zip(listed["Layers"], found["layers"], strict=True):
            there[str(layer["diff_id"])] = members[name]
    except (OSError, ValueError, KeyError, TypeError, tarfile.TarError) as error:
        raise LadingError(
            f"{tar} is damaged", why=str(error), do=f"delete it, and run it again: {tar.name}"
        ) from error
    return str(found["config"]), there


def config_of(record: Path) -> str:
    """The ID of the archived image: the digest of its configuration; empty without a record."""
    try:
        return str(json.loads(record.read_text())["config"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
