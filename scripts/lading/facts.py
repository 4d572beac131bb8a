"""What is known of a base once it is resolved: all that a lock upon it may depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, fields


class Facts(Struct, frozen=True, kw_only=True):
    """The facts of a base; an empty string where it has no such thing.

    python: path of the interpreter in the image, "/usr/bin/python3".
    python_version: all of its version, "3.13.5".
    glibc: the C library's version, "2.41".
    os: the distribution and its release, as in os-release: "debian 13".
    package_manager: "apt", "dnf", "apk", …
    conda: the prefix that the base's own conda lies in, "/opt/conda".
    conda_version: its version, "4.10.3".
    """

    python: str = ""
    python_version: str = ""
    glibc: str = ""
    os: str = ""
    package_manager: str = ""
    conda: str = ""
    conda_version: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain data, for a lock: of conda only where there is one."""
        found = asdict(self)
        return {name: value for name, value in found.items() if value or "conda" not in name}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Facts:
        """The facts out of a lock. Raises ValueError for unknown names and other types."""
        names = {field.name for field in fields(cls)}
        if unknown := sorted(set(data) - names):
            raise ValueError(f"unknown facts: {', '.join(unknown)}")
        if wrong := sorted(name for name, value in data.items() if not isinstance(value, str)):
            raise ValueError(f"facts that are not text: {', '.join(wrong)}")
        return cls(**data)
