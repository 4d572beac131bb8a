"""What is known of a base once it is resolved: all that a lock upon it may depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, fields

ALWAYS = ("python", "python_version", "glibc", "os", "package_manager")
"""What a lock says of every base, be there one or none."""


class Facts(Struct, frozen=True, kw_only=True):
    """The facts of a base; an empty string where it has no such thing.

    python: path of the interpreter in the image, "/usr/bin/python3".
    python_version: all of its version, "3.13.5".
    glibc: the C library's version, "2.41".
    os: the distribution and its release, as in os-release: "debian 13".
    package_manager: "apt", "dnf", "apk", …
    conda: the prefix that conda's packages lie in, "/opt/conda".
    conda_version: the version of the conda on its PATH, "4.10.3".
    musl: the version of another C library, which has no glibc beside it: "1.2.4".
    user: whom a container runs as, where that is not root: "1000", "jovyan".
    entrypoint: what a container starts before its command, in a shell's words: "tini -g --".
    """

    python: str = ""
    python_version: str = ""
    glibc: str = ""
    os: str = ""
    package_manager: str = ""
    conda: str = ""
    conda_version: str = ""
    musl: str = ""
    user: str = ""
    entrypoint: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain data, for a lock: of what most bases lack, nothing where there is none."""
        found = asdict(self)
        return {name: value for name, value in found.items() if value or name in ALWAYS}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Facts:
        """The facts out of a lock. Raises ValueError for unknown names and other types."""
        names = {field.name for field in fields(cls)}
        if unknown := sorted(set(data) - names):
            raise ValueError(f"unknown facts: {', '.join(unknown)}")
        if wrong := sorted(name for name, value in data.items() if not isinstance(value, str)):
            raise ValueError(f"facts that are not text: {', '.join(wrong)}")
        return cls(**data)
