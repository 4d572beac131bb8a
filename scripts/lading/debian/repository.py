"""A Debian repository of exactly the packages that a lock names, for mmdebstrap to install from.

Each .deb goes in with its data uncompressed: mmdebstrap unpacks twice (once to get going, once
by dpkg), and here it is done on all cores. The control part, all that dpkg keeps of a package,
stays byte for byte what it was.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from msgspec import Struct

from lading.debian.packages import Deb
from lading.errors import LadingError

MAGIC = b"!<arch>\n"
HEADER = 60
CHUNK = 1 << 18


class Packed(Struct, frozen=True, kw_only=True):
    """A package in the repository: its control stanza, file name, size (bytes) and sha256."""

    control: str
    file: str
    size: int
    sha256: str


def write(
    folder: Path, debs: Sequence[Deb], files: Mapping[str, Path], suite: str, architecture: str
) -> None:
    """Makes the repository in `folder`: the .debs, Packages and Release. `files` says where the
    store has each sha256.

    Raises `LadingError` when a .deb is damaged or another package than the lock says.
    """
    from concurrent.futures import ThreadPoolExecutor

    folder.mkdir()

    def pack(deb: Deb) -> Packed:
        return repacked(deb, files[deb.sha256], folder)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # lzma lets go of the interpreter's lock
        # The largest first, so that none is left alone at the end.
        order = sorted(debs, key=lambda deb: -deb.size)
        packed = sorted(pool.map(pack, order), key=lambda one: one.file)
    index = packages_text(packed)
    (folder / "Packages").write_text(index, encoding="utf-8")
    (folder / "Release").write_text(release_text(suite, architecture, index), encoding="utf-8")
    folder.chmod(0o755)  # whatever the umask: apt copies as a user of its own
    for file in folder.iterdir():
        file.chmod(0o644)


def packages_text(packed: Iterable[Packed]) -> str:
    """A Packages index (Debian policy 5.1; the repository format of the Debian wiki)."""
    return "\n".join(
        f"{one.control}\nFilename: ./{quote(one.file, safe='+~')}\n"
        f"Size: {one.size}\nSHA256: {one.sha256}\n"
        for one in packed
    )


def release_text(suite: str, architecture: str, index: str) -> str:
    """A Release file for one Packages index. Its date is long past, so that no clock minds it;
    without suite and codename mmdebstrap finds no essential packages.
    """
    data = index.encode()
    return (
        f"Origin: lading\nSuite: {suite}\nCodename: {suite}\n"
        "Date: Thu, 01 Jan 1970 00:00:00 UTC\n"
        f"Architectures: {architecture}\nComponents: main\n"
        f"SHA256:\n {hashlib.sha256(data).hexdigest()} {len(data)} Packages\n"
    )


def repacked(deb: Deb, source: Path, folder: Path) -> Packed:
    """A .deb written into `folder` with its data member uncompressed (deb(5) allows that)."""
    name = f"{deb.name}_{deb.version.rpartition(':')[2]}_{deb.architecture}.deb"
    control = ""
    try:
        with source.open("rb") as old, (folder / name).open("w+b") as new:
            new.write(MAGIC)
            for member, size in members(old):
                if member.startswith("control.tar"):
                    data = old.read(size)
                    control = _control(data)
                    _write_member(new, member, [data])
                elif member.startswith("data.tar"):
                    _write_member(new, *_uncompressed(member, _pieces(old, size)))
                else:
                    _write_member(new, member, _pieces(old, size))
            new.seek(0)
            digest = hashlib.file_digest(new, "sha256").hexdigest()
            size = new.tell()
    except (ValueError, EOFError, KeyError) as error:
        raise _damaged(deb, f"{type(error).__name__}: {error}") from error
    fields = fields_of(control)
    found = (fields.get("Package"), fields.get("Version"), fields.get("Architecture"))
    if found != (deb.name, deb.version, deb.architecture):
        raise _damaged(deb, f"it holds {' '.join(part or '?' for part in found)}")
    return Packed(control=control, file=name, size=size, sha256=digest)


def _damaged(deb: Deb, why: str) -> LadingError:
    return LadingError(
        f"{deb.file} is not the package {deb.name} {deb.version} ({deb.architecture})",
        why=why,
        do="delete the base's lock and make it again with `doit lock`",
    )


def control_of(path: Path) -> dict[str, str]:
    """The control fields of a .deb. Raises ValueError, EOFError or KeyError for what is none."""
    return fields_of(_control_text(path))


def _control_text(path: Path) -> str:
    with path.open("rb") as file:
        for member, size in members(file):
            if member.startswith("control.tar"):
                return _control(file.read(size))
    raise ValueError("it has no control part")


def stanza_of(deb: Deb, path: Path) -> str:
    """The control stanza of a locked .deb as it stands. Raises `LadingError` when it is damaged."""
    try:
        return _control_text(path)
    except (ValueError, EOFError, KeyError) as error:
        raise _damaged(deb, f"{type(error).__name__}: {error}") from error


def fields_of(stanza: str) -> dict[str, str]:
    """The fields of one stanza (Debian policy 5.1), the continued lines of a field joined."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith((" ", "\t")) and name:
            fields[name] += "\n" + line[1:]
        elif ":" in line and not line.startswith("#"):
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


def members(file: BinaryIO) -> Iterator[tuple[str, int]]:
    """The members of an ar archive, name and size (bytes); the file stands at each's beginning.

    Raises ValueError where it is not an archive.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError("not an ar archive")
    end = file.seek(0, io.SEEK_END)
    at = len(MAGIC)
    while at < end:
        file.seek(at)
        header = file.read(HEADER)
        if len(header) < HEADER or header[58:] != b"`\n":
            raise ValueError(f"no ar header at {at}")
        size = int(header[48:58])
        if size < 0 or at + HEADER + size > end:
            raise ValueError("an ar member is cut off")
        yield header[:16].decode("ascii").rstrip().removesuffix("/"), size
        at += HEADER + size + size % 2


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (piece := file.read(min(size, CHUNK))):
        size -= len(piece)
        yield piece


def _uncompressed(member: str, pieces: Iterator[bytes]) -> tuple[str, Iterator[bytes]]:
    """xz and gzip, all that Debian uses, as plain tar; anything else as it is."""
    import lzma
    import zlib

    if member == "data.tar.xz":
        xz = lzma.LZMADecompressor()
        return "data.tar", _through(xz.decompress, pieces, lambda: xz.eof, lzma.LZMAError)
    if member == "data.tar.gz":
        gz = zlib.decompressobj(zlib.MAX_WBITS | 16)
        return "data.tar", _through(gz.decompress, pieces, lambda: gz.eof, zlib.error)
    return member, pieces


def _through(
    decompress: Callable[[bytes], bytes],
    pieces: Iterator[bytes],
    ended: Callable[[], bool],
    error: type[Exception],
) -> Iterator[bytes]:
    try:
        for piece in pieces:
            yield decompress(piece)
    except error as problem:
        raise ValueError(str(problem)) from problem
    if not ended():
        raise EOFError("its data is cut off")


def _write_member(file: BinaryIO, name: str, pieces: Iterable[bytes]) -> None:
    """Appends a member; the size, known only at its end, is put in afterwards."""
    start = file.tell()
    file.write(bytes(HEADER))
    size = sum(file.write(piece) for piece in pieces)
    file.write(b"\n" * (size % 2))
    end = file.tell()
    file.seek(start)
    file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{size:<10}`\n".encode("ascii"))
    file.seek(end)


def _control(data: bytes) -> str:
    """The control stanza in a control.tar, compressed as it may be."""
    import tarfile

    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            file = archive.extractfile("./control")
            return file.read().decode("utf-8").strip("\n") if file else ""
    except tarfile.TarError as error:
        raise ValueError(f"its control part: {error}") from error
