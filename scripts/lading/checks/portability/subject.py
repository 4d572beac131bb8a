"""What the checks look at: the merged files and the configuration of one image."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lading.checks.portability.view import Placed, View

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What Apptainer puts in where the image has no PATH."""

MOST = 1000
"""Folders of a path that are looked into."""

_LIBRARY = re.compile(r"(.*)/lib(?:64)?/python(\d+\.\d+)")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One image. `platform` as "linux/amd64"; `mpi` is the flavour it declares, or empty."""

    view: View
    settings: Mapping[str, Any]
    platform: str
    mpi: str = ""

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The part of the configuration that is about running it (`config` in the OCI spec)."""
        inner = self.settings.get("config")
        return inner if isinstance(inner, dict) else {}

    @cached_property
    def env(self) -> dict[str, str]:
        """ENV as it stands there; of two with one name, the last."""
        listed = self.config.get("Env")
        pairs = [one for one in listed if isinstance(one, str)] if isinstance(listed, list) else []
        return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}

    def command(self, key: str) -> list[str]:
        """ENTRYPOINT or CMD ("Entrypoint", "Cmd")."""
        found = self.config.get(key)
        if isinstance(found, str):
            return [found]
        return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []

    @cached_property
    def path(self) -> list[str]:
        return (self.env.get("PATH") or DEFAULT_PATH).split(":")[:MOST]

    @cached_property
    def searched(self) -> frozenset[str]:
        """The folders of PATH that are there, without links."""
        found = (self.view.find(folder) for folder in self.path)
        return frozenset(one.path for one in found if one is not None)

    def which(self, program: str) -> Placed | None:
        """The file that a command's first word runs."""
        if "/" in program:
            return self.view.file(program)
        for folder in self.path:
            found = self.view.file(f"{folder}/{program}") if folder.startswith("/") else None
            if found is not None and found.node.mode & 0o111:
                return found
        return None

    @cached_property
    def files(self) -> Sequence[Placed]:
        """Everything in the image, each path once."""
        return tuple(self.view.walk())

    @cached_property
    def libraries(self) -> list[tuple[str, str, str]]:
        """Python's folders of modules: path, prefix and version ("" for Debian's common one)."""
        found = []
        for path, node in self.files:
            if node.kind != "folder":
                continue
            if posixpath.basename(path) in ("site-packages", "dist-packages"):
                base = posixpath.dirname(path)
                match = _LIBRARY.fullmatch(base)
                if match:
                    found.append((path, match[1], match[2]))
                elif base.endswith("/lib/python3"):
                    found.append((path, base.removesuffix("/lib/python3"), ""))
            elif (match := _LIBRARY.fullmatch(path)) and "os.py" in (node.children or {}):
                found.append((path, match[1], match[2]))
        return sorted(found)

    @cached_property
    def python(self) -> str:
        """The version of the Python that `python3` or `python` is, as far as it is to be seen."""
        for name in ("python3", "python"):
            program = self.which(name)
            if program is None:
                continue
            for folder in self.path:
                link = self.view.find(f"{folder}/{name}", follow=False)
                if link is not None:
                    version = self._of_venv(posixpath.dirname(folder))
                    if version:
                        return version
                    break
            match = re.search(r"python(\d+\.\d+)", posixpath.basename(program.path))
            if match:
                return match[1]
        versions = sorted(version for _, _, version in self.libraries if version)
        return versions[-1] if versions else ""

    def _of_venv(self, prefix: str) -> str:
        for key, value in self.venv(prefix).items():
            if key in ("version_info", "version"):
                return ".".join(value.split(".")[:3])
        return ""

    def venv(self, prefix: str) -> dict[str, str]:
        """pyvenv.cfg of a virtual environment; empty where there is none."""
        found = self.view.file(f"{prefix}/pyvenv.cfg")
        if found is None:
            return {}
        lines = found.node.content[:4096].decode("utf-8", "replace").splitlines()
        pairs = [line.partition("=") for line in lines if "=" in line]
        return {key.strip().lower(): value.strip() for key, _, value in pairs}

    def packages(self, name: str) -> list[str]:
        """Where a Python package is installed."""
        folders = (f"{path}/{name}" for path, _, _ in self.libraries)
        return [folder for folder in folders if self.view.find(folder) is not None]
