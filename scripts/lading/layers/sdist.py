"""What an sdist says of how it is built (PEP 517, PEP 518), read from the archive itself."""

from __future__ import annotations

import lzma
import re
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

from lading.errors import LadingError


def build_system(path: Path, name: str) -> list[str]:
    """What an sdist says it is built with; setuptools where it says nothing (PEP 517).

    Older setuptools ask for `wheel` only when they run, so it is always with them.
    """
    text = _pyproject(path, name)
    wanted = ["setuptools>=40.8.0"]
    if text is not None:
        import tomllib

        from packaging.requirements import InvalidRequirement, Requirement

        try:
            found: Any = (
                tomllib.loads(text.decode()).get("build-system", {}).get("requires", wanted)
            )
            if not isinstance(found, list):
                raise ValueError("build-system.requires is not a list")
            # Read here, for it goes into a requirement file, where it could be an option.
            wanted = [str(Requirement(entry)) for entry in found]
        except (ValueError, TypeError, AttributeError, RecursionError, InvalidRequirement) as error:
            raise LadingError(
                f"{name}: its pyproject.toml can't be read", why=str(error)
            ) from error
    if any(re.match(r"setuptools\b", entry) for entry in wanted):
        wanted.append("wheel")
    return wanted


BROKEN = (
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
)
"""What reading a damaged, encrypted or odd archive can raise, beside its module's own errors."""


def _pyproject(path: Path, name: str) -> bytes | None:
    """The pyproject.toml at the top of an sdist, which is a tar or, of old, a zip."""
    try:
        if name.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                members = [
                    n for n in archive.namelist() if re.fullmatch(r"[^/]+/pyproject\.toml", n)
                ]
                return archive.read(members[0]) if members else None
        with tarfile.open(path) as archive:
            for member in archive:
                if re.fullmatch(r"(\./)?[^/]+/pyproject\.toml", member.name) and member.isfile():
                    file = archive.extractfile(member)
                    return file.read() if file else None
    except (tarfile.TarError, zipfile.BadZipFile, *BROKEN) as error:
        raise LadingError(f"{name}: not an archive of sources", why=str(error)) from error
    return None
