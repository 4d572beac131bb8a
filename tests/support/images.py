"""A tiny image out of this machine's own shell and a few tools; and a push without an engine."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

TOOLS = ("sh", "cat", "env", "id", "ls", "mkdir", "sleep", "touch")
FOLDERS = ("bin", "dev", "etc", "lib", "lib64", "opt", "proc", "sys", "tmp", "usr", "usr/bin")
BASE = "localhost/lading/test-base:1"


@dataclass(frozen=True, kw_only=True)
class TinyImage:
    """An image's configuration and its one layer, as bytes; `over`, where it has a second."""

    config: bytes
    layer: bytes
    over: bytes = b""

    @property
    def layers(self) -> tuple[bytes, ...]:
        return (self.layer, self.over) if self.over else (self.layer,)

    @property
    def id(self) -> str:
        """The image's id in every engine: the digest of its configuration."""
        return digest(self.config)


def digest(data: bytes) -> str:
    """ "sha256:…" of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tiny_image(tools: Sequence[str] = TOOLS, needed_by: Sequence[Path] = ()) -> TinyImage:
    """An image with a shell and these tools, copied from this machine with their libraries, and the
    libraries that further programs need.
    """
    layer = _layer(tools, needed_by)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"], "Labels": {"tiny": "yes"}},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "tests"}],
    }
    return TinyImage(config=json.dumps(config).encode(), layer=layer)


def _layer(tools: Sequence[str], needed_by: Sequence[Path]) -> bytes:
    files: dict[str, Path] = {}
    for tool in tools:
        found = shutil.which(tool, path="/usr/bin:/bin")
        assert found is not None
        files[f"bin/{tool}"] = Path(found)
    for program in [*files.values(), *needed_by]:
        linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", linked):
            files[library.lstrip("/")] = Path(library)
    folders = {*FOLDERS, *(str(parent) for name in files for parent in Path(name).parents)} - {"."}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in sorted(folders):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(info)
        for name, path in sorted(files.items()):
            _add(tar, name, path.read_bytes(), 0o755)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def write_archive(image: TinyImage, path: Path, ref: str = BASE) -> None:
    """Writes the image as a docker-archive that carries the name `ref`."""
    config = f"{image.id.removeprefix('sha256:')}.json"
    layer = f"{digest(image.layer).removeprefix('sha256:')}.tar"
    manifest = [{"Config": config, "RepoTags": [ref], "Layers": [layer]}]
    with tarfile.open(path, "w") as tar:
        _add(tar, config, image.config)
        _add(tar, layer, image.layer)
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def push(image: TinyImage, registry: str, name: str, tag: str) -> str:
    """Pushes the image to a registry at "HOST:PORT"; returns the manifest's digest.

    As the OCI distribution specification has it: the blobs in one request each, then the
    manifest.
    """
    url = f"http://{registry}/v2/{name}"
    with requests.Session() as session:
        for blob in (image.config, *image.layers):
            if session.head(f"{url}/blobs/{digest(blob)}", timeout=30).ok:
                continue
            upload = session.post(f"{url}/blobs/uploads/", timeout=30).headers["Location"]
            session.put(
                upload, params={"digest": digest(blob)}, data=blob, timeout=30
            ).raise_for_status()
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": kind,
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "size": len(image.config),
                    "digest": image.id,
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
                        "size": len(layer),
                        "digest": digest(layer),
                    }
                    for layer in image.layers
                ],
            }
        ).encode()
        session.put(
            f"{url}/manifests/{tag}", data=manifest, headers={"Content-Type": kind}, timeout=30
        ).raise_for_status()
    return digest(manifest)
