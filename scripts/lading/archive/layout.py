"""A docker-archive as an OCI image layout: a folder that BuildKit takes for an image.

OCI image spec: image-layout.md and manifest.md. The layers stay plain tars, so that their digests
are the diff_ids, and the image is the one that an engine has loaded from the archive.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

from lading.errors import LadingError
from lading.files import canonical_json, disk_errors

TAG = "base"
"""What the one image in a layout is called there."""
_TYPE = "application/vnd.oci.image"


def write(archive: Path, out: Path) -> None:
    """Writes the layout of a canonical docker-archive. Raises `LadingError` if it is damaged."""
    blobs = out / "blobs" / "sha256"
    try:
        with disk_errors(out), tarfile.open(archive, "r:") as saved:
            blobs.mkdir(parents=True)
            (listed,) = json.loads(_content(saved, "manifest.json"))
            config = _content(saved, listed["Config"])
            layers = [
                _descriptor("layer.v1.tar", *_kept(saved, name, blobs)) for name in listed["Layers"]
            ]
            manifest = {
                "schemaVersion": 2,
                "mediaType": f"{_TYPE}.manifest.v1+json",
                "config": _descriptor("config.v1+json", *_written(config, blobs)),
                "layers": layers,
            }
            described = _descriptor("manifest.v1+json", *_written(canonical_json(manifest), blobs))
            named = described | {"annotations": {"org.opencontainers.image.ref.name": TAG}}
            (out / "oci-layout").write_bytes(canonical_json({"imageLayoutVersion": "1.0.0"}))
            (out / "index.json").write_bytes(
                canonical_json({"schemaVersion": 2, "manifests": [named]})
            )
    except (ValueError, KeyError, TypeError, tarfile.TarError) as error:
        raise LadingError(f"{archive} is damaged", why=str(error)) from error


def reference(layout: Path) -> str:
    """The one image of a layout, by tag and digest: buildx from 0.33 on does without neither."""
    (found,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    return f"oci-layout://{layout}:{TAG}@{found['digest']}"


def _content(saved: tarfile.TarFile, name: str) -> bytes:
    file = saved.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file")
    return file.read()


def _kept(saved: tarfile.TarFile, name: str, blobs: Path) -> tuple[str, int]:
    """Writes a layer under its digest; the digest and the size."""
    file = saved.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file")
    part = blobs / "layer"
    with part.open("w+b") as kept:
        shutil.copyfileobj(file, kept, 1 << 20)
        size = kept.tell()
        kept.seek(0)
        digest = hashlib.file_digest(kept, "sha256").hexdigest()
    part.rename(blobs / digest)
    return digest, size


def _written(data: bytes, blobs: Path) -> tuple[str, int]:
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return digest, len(data)


def _descriptor(kind: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": f"{_TYPE}.{kind}", "digest": f"sha256:{digest}", "size": size}
