"""Archives of images, made in memory as a test wants them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import struct
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lading.checks.portability import Allowed, Finding, Report, examine
from lading.errors import LadingError

PLATFORM = "linux/amd64"
ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONNOUSERSITE": "1",
    "PYTHONPATH": "",
}


@dataclass(frozen=True, kw_only=True)
class Item:
    """One member of a layer; a file unless `kind` says otherwise."""

    data: bytes = b"x"
    mode: int = 0o644
    kind: bytes = tarfile.REGTYPE
    target: str = ""
    mtime: int = 0
    pax: Mapping[str, str] = field(default_factory=dict)


def folder(mode: int = 0o755) -> Item:
    return Item(kind=tarfile.DIRTYPE, mode=mode)


def link(target: str) -> Item:
    return Item(kind=tarfile.SYMTYPE, target=target, mode=0o777)


def hard(target: str) -> Item:
    return Item(kind=tarfile.LNKTYPE, target=target)


def script(line: str, mode: int = 0o755) -> Item:
    return Item(data=line.encode() + b"\n", mode=mode)


def binary(data: bytes, mode: int = 0o755) -> Item:
    return Item(data=data, mode=mode)


Layer = Mapping[str, Item]

SOUND: Layer = {
    "bin": link("usr/bin"),
    "usr/bin/sh": binary(b"#", 0o755),
    "etc/passwd": Item(),
    "etc/group": Item(),
}
"""The least that is found to be without fault."""


def layer_of(items: Layer | Sequence[tuple[str, Item]]) -> bytes:
    """A layer's tar; a sequence may name a path twice."""
    out = io.BytesIO()
    pairs = items.items() if isinstance(items, Mapping) else items
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, item in pairs:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname = item.kind, item.mode, item.target
            info.mtime, info.pax_headers = item.mtime, dict(item.pax)
            regular = item.kind == tarfile.REGTYPE
            info.size = len(item.data) if regular else 0
            tar.addfile(info, io.BytesIO(item.data) if regular else None)
    return out.getvalue()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def settings(layers: Sequence[bytes], config: Mapping[str, Any], **more: Any) -> bytes:
    env = config.get("Env", [f"{name}={value}" for name, value in ENV.items()])
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {**config, "Env": env},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(x)}" for x in layers]},
            **more,
        }
    ).encode()


def tar_of(files: Sequence[tuple[str, bytes]]) -> bytes:
    return layer_of([(name, Item(data=data)) for name, data in files])


def docker_archive(layers: Sequence[bytes], config: bytes, packed: bool = False) -> bytes:
    """As Docker writes it; `packed` has layers of gzip."""
    stored = [gzip.compress(x, 1) if packed else x for x in layers]
    names = [f"{digest(x)}.tar" for x in layers]
    name = f"{digest(config)}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": ["x:1"], "Layers": names}]).encode()
    files = dict(zip(names, stored, strict=True))
    return tar_of([(name, config), *files.items(), ("manifest.json", manifest)])


def oci_archive(layers: Sequence[bytes], config: bytes, nested: bool = False) -> bytes:
    """A tar of an OCI layout with layers of gzip; `nested` as buildx writes it."""
    stored = [gzip.compress(x, 1) for x in layers]
    blobs = {digest(x): x for x in (*stored, config)}

    def described(data: bytes, **more: Any) -> dict[str, Any]:
        blobs[digest(data)] = data
        return {"digest": f"sha256:{digest(data)}", "size": len(data), **more}

    manifest = json.dumps(
        {"config": described(config), "layers": [described(x) for x in stored]}
    ).encode()
    listed = [described(manifest, platform={"os": "linux", "architecture": "amd64"})]
    if nested:
        record = described(b"{}", platform={"os": "unknown", "architecture": "unknown"})
        index = json.dumps({"schemaVersion": 2, "manifests": [*listed, record]}).encode()
        listed = [described(index)]
    top = json.dumps({"schemaVersion": 2, "manifests": listed}).encode()
    return tar_of(
        [
            ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
            ("index.json", top),
            *((f"blobs/sha256/{name}", data) for name, data in blobs.items()),
        ]
    )


def examined(
    path: Path,
    *layers: Layer,
    config: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    mpi: str = "",
    allow: Sequence[Allowed] = (),
    **more: Any,
) -> Report:
    """The report on a sound image with these layers on top, and this `env` beside `ENV`."""
    tars = [layer_of(SOUND), *(layer_of(layer) for layer in layers)]
    merged = {**ENV, **(env or {})}
    inner = {"Env": [f"{k}={v}" for k, v in merged.items() if v != "-"], **(config or {})}
    file = path / "image.tar"
    file.write_bytes(docker_archive(tars, settings(tars, inner, **more)))
    return examine(file, platform=PLATFORM, mpi=mpi, allow=allow)


def named(report: Report, name: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.id == name]


def where(report: Report, name: str, level: str = "") -> list[str]:
    """The paths that a report names under an id."""
    return [
        path
        for finding in named(report, name)
        if level in ("", finding.level)
        for path in finding.paths
    ]


def cache_of(libraries: Mapping[str, str]) -> bytes:
    """An ld.so.cache, as glibc 2.32 and newer write it, of sonames and their paths."""
    head = 48 + 24 * len(libraries)
    strings = bytearray()
    rows = b""
    for soname, path in libraries.items():
        key = head + len(strings)
        strings += soname.encode() + b"\0"
        value = head + len(strings)
        strings += path.encode() + b"\0"
        rows += struct.pack("<iIIIQ", 0x0303, key, value, 0, 0)
    top = b"glibc-ld.so.cache1.1" + struct.pack("<II", len(libraries), len(strings))
    return top + b"\x02" + bytes(48 - len(top) - 1) + rows + bytes(strings)


def assert_read(data: bytes) -> None:
    """Whatever the archive is, it is a report or a clear error, and nothing is written."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "image.tar"
        file.write_bytes(data)
        try:
            assert examine(file, platform=PLATFORM).archive == "image.tar"
        except LadingError as error:
            assert str(error)
        assert os.listdir(name) == ["image.tar"]  # noqa: PTH208
