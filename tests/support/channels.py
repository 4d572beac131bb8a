"""A conda channel of one's own on the loopback, and the packages that it serves.

Packages are made with py-rattler-build, as `.conda` or, conda 4.3's way, as `.tar.bz2`; those
that no honest tool makes (links that escape, prefixes inside of files) are written by hand.
"""

from __future__ import annotations

import base64
import bz2
import hashlib
import io
import json
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tests.support.listening import Listening

if TYPE_CHECKING:
    import pytest  # the benchmark has channels, too, and no pytest

PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3/and/so/on/until/it/is/long/enough"
DAY = datetime(2025, 1, 1, tzinfo=UTC)
FORMATS = (".conda", ".tar.bz2")


class Channel(Listening):
    """A channel in a folder, with a server for it that runs until it is stopped."""

    def __init__(
        self, folder: Path, name: str = "lab", *, user: str = "", password: str = ""
    ) -> None:
        self.name = name
        self.folder = folder / name
        self.user, self.password = user, password
        self.requests: list[str] = []
        self.statuses: dict[str, int] = {}
        """What is answered instead, by the last part of a path."""
        self.delay = 0.0
        """Seconds before anything is answered."""
        self.records: dict[str, dict[str, dict[str, object]]] = {"noarch": {}, "linux-64": {}}
        for subdir in self.records:
            (self.folder / subdir).mkdir(parents=True)
        handler = partial(_Handler, self, directory=str(folder))
        self.listen(handler)

    @property
    def alias(self) -> str:
        """What the channel's name stands behind."""
        return self.origin

    @property
    def url(self) -> str:
        return f"{self.alias}/{self.name}"

    def package(
        self,
        name: str,
        version: str,
        files: Mapping[str, str | bytes] | None = None,
        *,
        build: str = "0",
        depends: Iterable[str] = (),
        constrains: Iterable[str] = (),
        noarch: str = "",
        subdir: str = "linux-64",
        format: str = ".conda",
        at: datetime = DAY,
    ) -> Path:
        """Takes a package up, made by py-rattler-build. What lies in bin can be run."""
        from rattler_build.package_assembler import ArchiveType, assemble_package

        subdir = "noarch" if noarch else subdir
        staged = self.folder.parent / "staged" / f"{name}-{version}-{build}"
        for inside, content in (files or {f"share/{name}/README": name}).items():
            target = staged / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode() if isinstance(content, str) else content)
            target.chmod(0o755 if inside.startswith("bin/") else 0o644)
        (self.folder / subdir).mkdir(exist_ok=True)
        made = assemble_package(
            name,
            version,
            subdir,
            build,
            self.folder / subdir,
            files_dir=staged,
            depends=list(depends),
            constrains=list(constrains),
            noarch=cast(Any, noarch or None),
            timestamp=at,
            compression_level=1,
            archive_type=ArchiveType.Conda if format == ".conda" else ArchiveType.TarBz2,
        )
        path = Path(made.path)
        path.chmod(0o644)
        record = {
            "name": name,
            "version": version,
            "build": build,
            "build_number": 0,
            "depends": list(depends),
            "constrains": list(constrains),
            "subdir": subdir,
            "timestamp": int(at.timestamp() * 1000),
            **({"noarch": noarch} if noarch else {}),
        }
        self.take_up(path, record)
        return path

    def crafted(
        self,
        name: str,
        version: str,
        members: Sequence[tarfile.TarInfo | tuple[str, bytes]],
        *,
        depends: Iterable[str] = (),
        format: str = ".tar.bz2",
        placeholders: Mapping[str, str] | None = None,
        paths: Sequence[str] | None = None,
        index: Mapping[str, object] | None = None,
    ) -> Path:
        """Takes a package up that is written member by member. `placeholders` says of paths that
        they hold `PLACEHOLDER`, as "text" or "binary".
        """
        record: dict[str, object] = {
            "name": name,
            "version": version,
            "build": "0",
            "build_number": 0,
            "depends": list(depends),
            "subdir": "linux-64",
            "timestamp": int(DAY.timestamp() * 1000),
        }
        data = crafted(
            f"{name}-{version}-0",
            members,
            {**record, **(index or {})},
            format=format,
            placeholders=placeholders or {},
            paths=paths,
        )
        path = self.folder / "linux-64" / f"{name}-{version}-0{format}"
        path.write_bytes(data)
        self.take_up(path, record)
        return path

    def take_up(self, path: Path, record: Mapping[str, object], **changed: object) -> None:
        """Lists a file in the index, as it is, or as it is said to be."""
        data = path.read_bytes()
        self.records.setdefault(path.parent.name, {})[path.name] = {
            **record,
            "md5": hashlib.md5(data).hexdigest(),
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
            **changed,
        }
        self.index()

    def drop(self, file: str) -> None:
        """Forgets a package."""
        for subdir, records in self.records.items():
            if records.pop(file, None) is not None:
                (self.folder / subdir / file).unlink()
        self.index()

    def index(self) -> None:
        """Writes repodata.json, without the day it was written on, so that it stays the same."""
        for subdir, records in self.records.items():
            data = {
                "info": {"subdir": subdir},
                "packages": {k: v for k, v in records.items() if k.endswith(".tar.bz2")},
                "packages.conda": {k: v for k, v in records.items() if k.endswith(".conda")},
                "repodata_version": 1,
            }
            path = self.folder / subdir / "repodata.json"
            path.write_text(json.dumps(data))
            # A cache asks by this time whether there is anything new.
            stamp = path.stat().st_mtime + len(self.requests) + len(records) + 2
            os.utime(path, (stamp, stamp))


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, channel: Channel, *args: Any, **kwargs: Any) -> None:
        self.channel = channel
        super().__init__(*args, **kwargs)

    def send_head(self) -> Any:
        self.channel.requests.append(self.path)
        time.sleep(self.channel.delay)
        status = self.channel.statuses.get(self.path.rpartition("/")[2], 200)
        if self.channel.user and not self._known():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="channel"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        if status != 200:
            self.send_error(status)
            return None
        return super().send_head()

    def _known(self) -> bool:
        expected = f"{self.channel.user}:{self.channel.password}".encode()
        said = self.headers.get("Authorization", "")
        return said == f"Basic {base64.b64encode(expected).decode()}"

    def log_message(self, format: str, *args: object) -> None: ...


# -- packages by hand -----------------------------------------------------------------------


def link(name: str, target: str, *, hard: bool = False) -> tarfile.TarInfo:
    """A member that is a link."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.LNKTYPE if hard else tarfile.SYMTYPE
    info.linkname = target
    return info


def crafted(
    stem: str,
    members: Sequence[tarfile.TarInfo | tuple[str, bytes]],
    index: Mapping[str, object],
    *,
    format: str = ".tar.bz2",
    placeholders: Mapping[str, str] | None = None,
    paths: Sequence[str] | None = None,
) -> bytes:
    """The bytes of a package with exactly these members."""
    listed = []
    for member in members:
        name = member.name if isinstance(member, tarfile.TarInfo) else member[0]
        entry: dict[str, object] = {"_path": name, "path_type": "hardlink"}
        if isinstance(member, tarfile.TarInfo):
            entry["path_type"] = "softlink" if member.issym() else "hardlink"
        else:
            entry["sha256"] = hashlib.sha256(member[1]).hexdigest()
            entry["size_in_bytes"] = len(member[1])
        if mode := (placeholders or {}).get(name):
            entry |= {"prefix_placeholder": PLACEHOLDER, "file_mode": mode}
        listed.append(entry)
    if paths is not None:
        listed = [{"_path": path, "path_type": "hardlink"} for path in paths]
    info = [
        ("info/index.json", json.dumps(index).encode()),
        ("info/paths.json", json.dumps({"paths": listed, "paths_version": 1}).encode()),
        ("info/files", "".join(f"{one['_path']}\n" for one in listed).encode()),
    ]
    if format == ".tar.bz2":
        return bz2.compress(_tar([*info, *members]), 1)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in (
            ("metadata.json", b'{"conda_pkg_format_version": 2}'),
            (f"pkg-{stem}.tar.zst", zstd(_tar(members))),
            (f"info-{stem}.tar.zst", zstd(_tar(info))),
        ):
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def _tar(members: Sequence[tarfile.TarInfo | tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                info.mode = 0o755 if "bin" in member[0].split("/")[:-1] else 0o644
                archive.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def zstd(data: bytes) -> bytes:
    """A frame of blocks that are not compressed (RFC 8878, 3.1.1); Python 3.11 has no zstd."""
    pieces = [data[at : at + (1 << 17)] for at in range(0, len(data), 1 << 17)] or [b""]
    blocks = [
        struct.pack("<I", len(piece) << 3 | (number == len(pieces)))[:3] + piece
        for number, piece in enumerate(pieces, 1)
    ]
    return struct.pack("<IBQ", 0xFD2FB528, 0xE0, len(data)) + b"".join(blocks)


def python(channel: Channel, *, whole: bool = False, format: str = ".conda") -> str:
    """Takes up this very Python as the package `python`, without what it can do without; returns
    its version. `whole`: with the libraries of its extension modules, too.
    """
    version = platform.python_version()
    short = ".".join(version.split(".")[:2])
    library = Path(sysconfig.get_path("stdlib"))
    left_out = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3"}
    left_out |= {"site-packages", "__pycache__", "pydoc_data", "lib-dynload"}
    left_out |= {path.name for path in library.glob("config-*")}
    program = (Path(sys.base_prefix) / "bin" / f"python{short}").read_bytes()
    files: dict[str, bytes] = {}
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        name = str(sysconfig.get_config_var("INSTSONAME"))
        folder = str(sysconfig.get_config_var("LIBDIR"))
        files[f"lib/{name}"] = (Path(folder) / name).read_bytes()
        # It looks for its library in the folder that it was built for.
        here = b"$ORIGIN/../lib".ljust(len(folder), b"\0")
        program = program.replace(folder.encode() + b"\0", here + b"\0")
    files[f"bin/python{short}"] = program
    # The tiny image has no more libraries than its own programs need.
    modules = [
        path
        for path in sorted((library / "lib-dynload").iterdir())
        if not re.match(r"_tkinter|_test|_xx|xx|nis|readline|_curses|_ctypes_test", path.name)
    ]
    linked = [sys.executable, *(modules if whole else ())]
    needed = subprocess.run(["ldd", *linked], capture_output=True, text=True).stdout
    for path in map(Path, re.findall(r"=> (/\S+) \(0x", needed)):
        if not re.match(r"lib(?:c|python[\d.]+)\.so", path.name):
            files[f"lib/{path.name}"] = path.read_bytes()
    for path in sorted(library.rglob("*.py")):
        inside = path.relative_to(library)
        if not left_out & set(inside.parts):
            files[f"lib/python{short}/{inside}"] = path.read_bytes()
    for path in modules:
        files[f"lib/python{short}/lib-dynload/{path.name}"] = path.read_bytes()
    if whole and shutil.which("strip"):
        files = {name: _stripped(data) for name, data in files.items()}
    links = [link(f"bin/{name}", f"python{short}") for name in ("python", "python3")]
    channel.crafted("python", version, [*files.items(), *links], format=format)
    return version


def _stripped(data: bytes) -> bytes:
    """An ELF file without what only a debugger needs: a third of it is left."""
    if not data.startswith(b"\x7fELF"):
        return data
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        subprocess.run(["strip", "--strip-unneeded", file.name], check=True)
        return Path(file.name).read_bytes()


# -- a user's configuration -----------------------------------------------------------------


def only_loopback(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Takes away what this machine says about channels, so that a test says it all."""
    for name in list(os.environ):
        ours = ("CONDA", "RATTLER_", "LADING_", "SSL_CERT_", "REQUESTS_CA_", "CURL_CA_", "PIP_")
        if name.startswith(ours) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    home.mkdir(parents=True, exist_ok=True)
    for name, value in {
        "HOME": home,
        "XDG_CONFIG_HOME": home / "config",
        "XDG_CACHE_HOME": home / "cache",
        "PIP_CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, str(value))
