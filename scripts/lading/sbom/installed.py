"""What package managers say that they have installed, read out of their own records."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from email.message import Message
from email.parser import HeaderParser
from typing import Any

from msgspec import Struct, field

from lading.debian.relations import provided, relations
from lading.debian.repository import fields_of
from lading.requirements import normalised

STATUS = "var/lib/dpkg/status"
_RPM = re.compile(r"(?:var/lib|usr/lib/sysimage)/rpm/.*")
_SOURCE = re.compile(r"(?P<name>\S+)(?:\s+\((?P<version>[^)\s]+)\))?")
_SHA256 = re.compile("[0-9a-f]{64}")
_LONGEST = 100
"""Letters of a licence's name; what is longer is its text."""


class InstalledDeb(Struct, frozen=True, kw_only=True):
    """A Debian package; its source, where that is called otherwise ("glibc", or "gcc@12.2" where
    that has another version); the names of the packages that it depends on and that are there.
    """

    name: str
    version: str
    architecture: str
    source: str = ""
    wants: tuple[str, ...] = ()


class InstalledConda(Struct, frozen=True, kw_only=True):
    """A conda package; its channel by its name, never by its URL. `wants` are names."""

    name: str
    version: str
    build: str = ""
    channel: str = ""
    subdir: str = ""
    file: str = ""
    sha256: str = ""
    licence: str = ""
    wants: tuple[str, ...] = ()


class InstalledPython(Struct, frozen=True, kw_only=True):
    """A Python package (its name normalised) that neither Debian nor conda has brought."""

    name: str
    version: str
    licences: tuple[str, ...] = ()


class Installed(Struct, frozen=True, kw_only=True):
    """What is installed in an image. system: its os-release. unread: the package managers whose
    records are there and are not read.
    """

    system: Mapping[str, str] = field(default_factory=dict)
    debs: tuple[InstalledDeb, ...] = ()
    condas: tuple[InstalledConda, ...] = ()
    pythons: tuple[InstalledPython, ...] = ()
    unread: tuple[str, ...] = ()


def of(files: Mapping[str, bytes]) -> Installed:
    """What the files of an image, by their paths, say that is installed in it."""
    release = files.get("etc/os-release", files.get("usr/lib/os-release", b""))
    records = {
        path: record
        for path, data in files.items()
        if "conda-meta/" in path and (record := _json(data))
    }
    unread = {
        "apk": "lib/apk/db/installed" in files,
        "rpm": any(_RPM.match(path) for path in files),
    }
    return Installed(
        system=os_release(release.decode(errors="replace")),
        debs=_debs(files),
        condas=_condas(records.values()),
        pythons=_pythons(files, records),
        unread=tuple(name for name, there in unread.items() if there),
    )


def os_release(text: str) -> dict[str, str]:
    """The fields of an os-release file (os-release(5)); what is no assignment is passed over."""
    import shlex

    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and name.isidentifier():
            try:
                found[name] = " ".join(shlex.split(value))
            except ValueError:
                continue
    return found


# -- Debian ---------------------------------------------------------------------------------


def _debs(files: Mapping[str, bytes]) -> tuple[InstalledDeb, ...]:
    controls: dict[tuple[str, str], dict[str, str]] = {}
    for path, data in files.items():
        if path != STATUS and not path.startswith(f"{STATUS}.d/"):
            continue
        for stanza in re.split(r"\n\s*\n", data.decode(errors="replace")):
            control = fields_of(stanza)
            # Without dpkg, an image has the control files themselves, in a folder.
            state = control.get("Status", "install ok installed" if path != STATUS else "")
            if state.endswith(" installed") and control.get("Package") and control.get("Version"):
                controls[control["Package"], control.get("Architecture", "")] = control
    by_name = {name: control for (name, _), control in sorted(controls.items())}
    virtual = provided(by_name)
    return tuple(
        InstalledDeb(
            name=name,
            version=control["Version"],
            architecture=architecture,
            source=_source(control),
            wants=_wanted(name, control, by_name, virtual),
        )
        for (name, architecture), control in sorted(controls.items())
    )


def _source(control: Mapping[str, str]) -> str:
    found = _SOURCE.match(control.get("Source", ""))
    if found is None:
        return ""
    return f"{found['name']}@{found['version']}" if found["version"] else found["name"]


def _wanted(
    name: str,
    control: Mapping[str, str],
    there: Mapping[str, object],
    virtual: Mapping[str, Iterable[str]],
) -> tuple[str, ...]:
    found = {
        package
        for wanted, _ in relations(control)
        for package in ([wanted] if wanted in there else virtual.get(wanted, ()))
    }
    return tuple(sorted(found - {name}))


# -- conda ----------------------------------------------------------------------------------


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and found.get("name") else {}


def _condas(records: Iterable[Mapping[str, Any]]) -> tuple[InstalledConda, ...]:
    found = {
        InstalledConda(
            name=_text(record["name"]),
            version=_text(record.get("version")),
            build=_text(record.get("build") or record.get("build_string")),
            channel=_channel(record),
            subdir=_text(record.get("subdir")),
            file=_text(record.get("fn")),
            sha256=_sha256(record),
            licence=_text(record.get("license")),
            wants=_depends(record.get("depends")),
        )
        for record in records
    }
    return tuple(sorted(found, key=lambda one: (one.name, one.version, one.build, one.channel)))


def _text(value: object) -> str:
    """JSON can have what UTF-8 has not."""
    return str(value or "").encode(errors="replace").decode()


def _sha256(record: Mapping[str, Any]) -> str:
    found = _text(record.get("sha256"))
    return found if _SHA256.fullmatch(found) else ""


def _depends(specs: object) -> tuple[str, ...]:
    """The names of the packages that a package's specs are for."""
    listed = specs if isinstance(specs, list) else []
    return tuple(sorted({_text(spec).split(" ")[0] for spec in listed}))


def _channel(record: Mapping[str, Any]) -> str:
    """The last part of the channel's URL: the rest says where it was had, or a password."""
    parts = [part for part in _text(record.get("channel")).split("/") if part]
    if parts and parts[-1] == record.get("subdir"):
        parts.pop()
    return parts[-1] if parts else ""


# -- Python ---------------------------------------------------------------------------------


def _pythons(
    files: Mapping[str, bytes], records: Mapping[str, Mapping[str, Any]]
) -> tuple[InstalledPython, ...]:
    brought: set[str] = set()
    prefixes: set[str] = set()
    for path, record in records.items():
        prefix = path.rpartition("conda-meta/")[0]
        prefixes.add(prefix)
        listed = record.get("files")
        brought |= {f"{prefix}{name}" for name in listed} if isinstance(listed, list) else set()
    found: dict[tuple[str, str], InstalledPython] = {}
    for path, data in sorted(files.items()):
        if "-packages/" not in path or path in brought:
            continue
        # By Debian's policy for Python, only its packages go there; pip's go below /usr/local.
        if STATUS in files and path.startswith("usr/lib/python3"):
            continue
        # What conda keeps of packages once it has unpacked them.
        if any(path.startswith(f"{prefix}pkgs/") for prefix in prefixes):
            continue
        metadata = HeaderParser().parsestr(data.decode(errors="replace"))
        name, version = metadata.get("Name"), metadata.get("Version")
        if name and version:
            name = normalised(str(name).strip())
            found[name, str(version)] = InstalledPython(
                name=name, version=str(version).strip(), licences=_licences(metadata)
            )
    return tuple(found[key] for key in sorted(found))


def _licences(metadata: Message) -> tuple[str, ...]:
    """As packages of today say it (PEP 639), else as those of yesterday do."""
    said = str(metadata.get("License-Expression") or "").strip()
    if said:
        return (said,)
    classified = [
        text.rpartition("::")[2].strip()
        for text in map(str, metadata.get_all("Classifier") or ())
        if text.startswith("License ::")
    ]
    named = [text for text in classified if text != "OSI Approved"]
    text = str(metadata.get("License") or "").strip()
    if text and "\n" not in text and len(text) <= _LONGEST and text != "UNKNOWN":
        return (text,)
    return tuple(sorted(set(named)))
