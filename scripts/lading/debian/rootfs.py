"""The root file system as it goes into the image: mmdebstrap's tar, without what is left over.

What stays and what it looks like is decided here, by name, and written in one form that does
not depend on the versions of tar and Python: sorted, whole seconds, numeric owners.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from lading.errors import LadingError

BLOCK = 512
RECORD = 20 * BLOCK
CHUNK = 1 << 20

DPKG_CONFIGURATION = """\
# lading: this base has no documentation, and gets none with packages installed on it.
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-include=/usr/share/locale/locale.alias
path-exclude=/usr/share/lintian/*
path-exclude=/usr/share/bug/*
# Nothing is lost with a container that is cut off while it is built.
force-unsafe-io
"""

REPLACED: Mapping[str, str] = {
    "etc/hostname": "",
    "etc/machine-id": "",
    "etc/resolv.conf": "",
    "etc/apt/sources.list": (
        "# Empty on purpose: which mirror to use is up to where the image is built or run.\n"
    ),
    "etc/dpkg/dpkg.cfg.d/lading": DPKG_CONFIGURATION,
}
"""Files of ours, whatever the machine had there; mode 0644."""

EMPTIED = re.compile(
    r"(dev|proc|sys|tmp|var/tmp|run|root/\.cache|var/cache/apt|var/cache/ldconfig|var/cache/man"
    r"|var/lib/apt/lists|usr/share/(info|lintian|bug|linda))/.+"
)
"""What lies below these folders goes; the folders stay."""

FILES_GONE = re.compile(
    r"var/log/.*|var/backups/.*"
    r"|var/lib/dpkg/(status|available|diversions|statoverride)-old|var/lib/dpkg/triggers/Lock"
    r"|var/lib/dpkg/lock(-frontend)?|var/cache/debconf/.*-old"
    r"|etc/(passwd|group|shadow|gshadow|subuid|subgid)-|etc/\.pwd\.lock"
    r"|var/lib/(dbus/machine-id|systemd/random-seed)"
    r"|usr/share/doc/.*(?<!/copyright)|usr/share/man/.*"
)
"""Files and links that go, their folders staying."""

FOLDERS_GONE = re.compile(
    r"usr/share/locale/.+|usr/share/doc/[^/]+/.+|usr/share/man/(?!man[1-9]$).+"
)
KEPT = frozenset({"run/lock", "usr/share/locale/locale.alias"})


def kept(name: str, kind: bytes) -> bool:
    """Whether an entry of the file system goes into the image. `kind` is tar's type."""
    if name in KEPT:
        return True
    if EMPTIED.fullmatch(name):
        return False
    if kind == tarfile.DIRTYPE:
        return not FOLDERS_GONE.fullmatch(name)
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
        return False
    if name.startswith("usr/share/doc/") and kind == tarfile.SYMTYPE and name.count("/") == 3:
        return True  # a package whose copyright is in another one's folder
    return not FILES_GONE.fullmatch(name) and not name.startswith("usr/share/locale/")


def write(source: Path, out: BinaryIO, epoch: int) -> dict[str, tuple[str, str]]:
    """Writes mmdebstrap's tar `source` in its final form: times at most `epoch` (seconds).

    Returns what is installed: name → version and architecture.
    Raises `LadingError` if the tar is damaged.
    """
    try:
        with tarfile.open(source, "r:") as archive:
            entries = {_name(member): member for member in archive if _name(member)}
            installed = _installed(archive, entries)
            _add_replaced(entries, epoch)
            for name, member in sorted(entries.items(), key=_place):
                if kept(name, member.type):
                    _write_entry(out, name, member, epoch)
                    if name in REPLACED:
                        _write_content(out, iter([REPLACED[name].encode()]))
                    elif member.isreg():
                        _write_content(out, _content(archive, member))
    except tarfile.TarError as error:
        raise LadingError("mmdebstrap's archive is damaged", why=str(error)) from error
    out.write(bytes(2 * BLOCK))
    out.write(bytes(-out.tell() % RECORD))
    return installed


def _name(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix(".").strip("/")


def _place(entry: tuple[str, tarfile.TarInfo]) -> tuple[bool, list[str]]:
    """Folder by folder, so that none gets its time before its content; a hard link after the
    file that it is one to.
    """
    name, member = entry
    return member.islnk(), name.split("/")


def _add_replaced(entries: dict[str, tarfile.TarInfo], epoch: int) -> None:
    for name, text in REPLACED.items():
        member = tarfile.TarInfo(name)
        member.mtime, member.size, member.mode = epoch, len(text.encode()), 0o644
        entries[name] = member


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    file = archive.extractfile(member)
    assert file is not None
    while piece := file.read(CHUNK):
        yield piece


def _installed(
    archive: tarfile.TarFile, entries: Mapping[str, tarfile.TarInfo]
) -> dict[str, tuple[str, str]]:
    """What dpkg's status in the tar says is installed."""
    from lading.debian.repository import fields_of

    status = entries.get("var/lib/dpkg/status")
    file = archive.extractfile(status) if status is not None else None
    if file is None:
        raise LadingError("mmdebstrap's archive has no dpkg in it")
    installed = {}
    for stanza in file.read().decode("utf-8", "replace").split("\n\n"):
        fields = fields_of(stanza)
        if fields.get("Status") == "install ok installed":
            installed[fields["Package"]] = (fields["Version"], fields["Architecture"])
    return installed


# -- tar, as in POSIX.1-2001 (pax) ----------------------------------------------------------


def _write_entry(out: BinaryIO, name: str, member: tarfile.TarInfo, epoch: int) -> None:
    target = member.linkname
    if member.islnk():
        target = target.removeprefix(".").strip("/")
    records = {
        key: value
        for key, value in member.pax_headers.items()
        if key.startswith(("SCHILY.xattr.security.capability", "SCHILY.xattr.user."))
    }
    full = name + "/" if member.isdir() else name
    for key, value in (("path", full), ("linkpath", target)):
        if not value.isascii() or len(value) > 100:
            records[key] = value
    if records:
        data = b"".join(_record(key, value) for key, value in sorted(records.items()))
        out.write(_block("PaxHeaders", tarfile.XHDTYPE, len(data), 0o644, 0, 0, epoch, ""))
        _write_content(out, iter([data]))
    size = member.size if member.isreg() else 0
    kind = tarfile.REGTYPE if member.isreg() else member.type
    mtime = min(int(member.mtime), epoch)
    mode = member.mode & 0o7777
    out.write(_block(full, kind, size, mode, member.uid, member.gid, mtime, target))


def _write_content(out: BinaryIO, pieces: Iterator[bytes]) -> None:
    size = sum(out.write(piece) for piece in pieces)
    out.write(bytes(-size % BLOCK))


def _block(
    name: str, kind: bytes, size: int, mode: int, uid: int, gid: int, mtime: int, target: str
) -> bytes:
    fields = [
        name.encode("ascii", "replace")[:100].ljust(100, b"\0"),
        b"%07o\0" % mode,
        b"%07o\0" % uid,
        b"%07o\0" % gid,
        b"%011o\0" % size,
        b"%011o\0" % mtime,
        b" " * 8,  # the checksum counts itself as spaces
        kind,
        target.encode("ascii", "replace")[:100].ljust(100, b"\0"),
        b"ustar\x0000",
        bytes(32 + 32),  # owner's and group's names: the numbers count
        b"%07o\0" % 0,
        b"%07o\0" % 0,
        bytes(155 + 12),
    ]
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _record(key: str, value: str) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where LENGTH counts its own digits."""
    rest = f" {key}=".encode() + value.encode("utf-8", "surrogateescape") + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest
