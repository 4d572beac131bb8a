"""What an image is called by: the sha256 of everything it is made from.

It follows from committed files alone, so that two machines that never met agree on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath

from lading.errors import LadingError
from lading.files import digest_of, sha256_of, tree
from lading.plan import Plan
from lading.steps import Derived

FORMAT = 2
"""Raised when the same declarations and locks would give another image."""


def key_of(plan: Plan, locks: Mapping[str, str], platform: str, root: Path) -> str:
    """The key, in hexadecimal: over the Dockerfile, the locks' texts and the recipe's files."""
    own = {
        at: digest_of_tree(root / content, root)
        for at, content in plan.files.items()
        if isinstance(content, PurePosixPath)
    }
    made = {
        at: [content.key, content.name]
        for at, content in plan.files.items()
        if isinstance(content, Derived)
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
            "locks": {name: _sha256_of(text) for name, text in locks.items()},
            "dockerfile": plan.text(key=""),
            "files": own,
            "made": made,
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
