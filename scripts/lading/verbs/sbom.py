"""sbom: what is in an image, as CycloneDX beside its archive (dist/NAME.cdx.json)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lading import compose
from lading.console import counted
from lading.files import content_of, sha256_of, write_text
from lading.project import Image
from lading.sbom import FORMAT
from lading.state import State

if TYPE_CHECKING:
    from lading.sbom.listing import FromSource


def path(state: State, image: Image) -> Path:
    """dist/NAME.cdx.json."""
    return Path(_path(state, image, "cdx.json"))


def _path(state: State, image: Image, ending: str) -> str:
    # Each run asks for it for each image; pathlib takes longer than all else here.
    return f"{state.project.root}/dist/{image.name}{state.at}.{ending}"


def current(state: State, image: Image) -> bool:
    """Whether it is that of the archive which lies there: the archive's record says so, and its
    size.
    """
    try:
        said = json.loads(content_of(_path(state, image, "json")))["sbom"]
        size = os.stat(_path(state, image, "cdx.json")).st_size  # noqa: PTH116
        return bool(said["format"] == FORMAT and said["size"] == size)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def ensure(state: State, image: Image) -> tuple[Path, str]:
    """The document, made if need be, and its sha256 in hexadecimal."""
    if not current(state, image):
        make(state, image)
    return path(state, image), str(_record(state, image)["sbom"]["sha256"])


def make(state: State, image: Image) -> str:
    """Writes the document of the archive that lies there."""
    from lading.sbom import document, files, installed, listing

    locked, record, key = state.all_locked(image), _record(state, image), state.key(image)
    assert key is not None
    found = installed.of(files.read(state.archive(image), state.project.platform))
    specs = [name for layer in locked.layers for name in _specs(layer.request)]
    components = listing.of(state.base_of(image), locked, _sources(state, image), found, specs)
    subject = document.Subject(
        name=image.name,
        version=compose.version(image, locked),
        key=key,
        config=str(record["config"]),
        day=locked.header.date,
        unread=found.unread,
    )
    target = path(state, image)
    write_text(target, document.text_of(subject, components))
    note(state, image)
    return f"dist/{target.name}, {counted(len(components), 'component')}"


def note(state: State, image: Image) -> None:
    """Notes in the archive's record that the document which lies there is that of the archive."""
    target = path(state, image)
    said = {"format": FORMAT, "sha256": sha256_of(target), "size": target.stat().st_size}
    record = _record(state, image) | {"sbom": said}
    write_text(state.record(image), json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def clean(state: State, image: Image) -> None:
    """Removes the document."""
    path(state, image).unlink(missing_ok=True)


def _record(state: State, image: Image) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(state.record(image).read_text())
    return found


def _sources(state: State, image: Image) -> list[FromSource]:
    from lading.sbom.listing import FromSource

    base, found = state.base_of(image), []
    for source in state.sources_of(image):
        lock = state.source_lock(source)
        assert lock is not None
        tools = state.tools_lock(source, base) if state.tools_request(source, base) else None
        found.append(FromSource(source=source, lock=lock, tools=tools))
    return found


def _specs(request: object) -> list[str]:
    """The conda packages that a layer's request names."""
    wanted = getattr(request, "wanted", None)
    return [spec.name for spec in getattr(wanted, "specs", ())]
