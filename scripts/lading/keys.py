"""What an image is called by: the sha256 of everything it is made from.

It follows from committed files alone, so that two machines that never met agree on it.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path, PurePosixPath

from lading.compose import Locked, Plan
from lading.errors import LadingError
from lading.files import digest_of, sha256_of, tree

FORMAT = 1
"""Raised when the same declarations and locks would give another image."""


def key_of(plan: Plan, locked: Locked, platform: str, root: Path) -> str:
    """The image's key, in hexadecimal: over the Dockerfile, the locks and the recipe's files."""
    own = {
        at: digest_of_tree(root / content, root)
        for at, content in plan.files.items()
        if isinstance(content, PurePosixPath)
    }
    # The locks go in by their own texts, so not once more as files of the context.
    texts = {
        at: hashlib.sha256(content).hexdigest()
        for at, content in plan.files.items()
        if isinstance(content, bytes) and not at.startswith("share/locks/")
    }
    return digest_of(
        {
            "format": FORMAT,
            "platform": platform,
            "locks": {name: _sha256_of(text) for name, text in locked.texts.items()},
            "dockerfile": plan.text(key=""),
            "files": own,
            "texts": texts,
        }
    )


@cache
def _sha256_of(text: str) -> str:
    """The sha256 of a text, remembered: the lock of a base is in the key of many images."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_tree(path: Path, root: Path) -> str:
    """The sha256 of a file, or of a folder's files by name, with who may run them."""
    try:
        return digest_of({name: _digest_of_file(file) for name, file in tree(path, root).items()})
    except OSError as error:
        raise LadingError(f"{path} can't be read", why=str(error)) from error


def _digest_of_file(path: Path) -> list[str | bool]:
    return [sha256_of(path), bool(path.stat().st_mode & 0o100)]
