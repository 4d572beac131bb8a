"""Building on Podman, over its Docker-compatible API.

Podman 4.3 to 5.8 ignore `networkmode=none` there, which is all that the SDK can say, and give
the build the host's network. Its own clients' way of saying it works at the same address:
`networkmode` as buildah's number, and `nsoptions`.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lading.engines.failure import failing_step, last_lines
from lading.engines.model import BuildFailed
from lading.engines.wire import Lines, error_in, messages, request
from lading.errors import LadingError

if TYPE_CHECKING:
    import docker

_NETWORK_DISABLED = "1"  # buildah's define.NetworkDisabled
_OWN_NETWORK = json.dumps([{"Name": "network", "Host": False, "Path": ""}])
_PIECE = 1 << 20


class PodmanBuilder:
    """Builds over the API of a Podman that runs here or elsewhere; needs no podman client."""

    def __init__(self, api: docker.APIClient) -> None:
        self._api = api

    def build(
        self, context: Path, tag: str, *, platform: str, log: Callable[[str], None], cache: bool
    ) -> None:
        """Builds and tags, without network. Raises `BuildFailed`, and what the SDK raises."""
        lines: list[str] = []

        def line(text: str) -> None:
            lines.append(text)
            log(text)

        response = request(
            self._api,
            "POST",
            "/build",
            params={
                "t": tag,
                "dockerfile": "Dockerfile",
                "platform": platform,
                "networkmode": _NETWORK_DISABLED,
                "nsoptions": _OWN_NETWORK,
                "httpproxy": "0",
                "identitylabel": "0",  # else a label with buildah's version
                "rm": "1",
                "forcerm": "1",
                "nocache": "0" if cache else "1",
                "layers": "1" if _worth_keeping(context) else "0",
            },
            data=context_tar(context),
            headers={"Content-Type": "application/x-tar"},
        )
        output, error = Lines(line), ""
        for message in messages(response):
            output.feed(message.get("stream", ""))
            error = error_in(message) or error
        output.end()
        if error:
            line(f"Error: {error}")
            raise BuildFailed(tag, failing_step(lines), last_lines(lines))


def _worth_keeping(context: Path) -> bool:
    """Whether a later build could take a step of this one out of the cache.

    With one step that runs there is nothing to go on from, and Podman writes and hashes all it
    made once less if it need not keep the state after each instruction.
    """
    text = (context / "Dockerfile").read_text(encoding="utf-8")
    return len(re.findall(r"^RUN ", text, re.MULTILINE)) > 1


def context_tar(folder: Path) -> Iterator[bytes]:
    """A build context as a tar, in pieces: sorted, times and owners 0, so always the same.

    Raises `LadingError` when a file changes while it is read.
    """
    for path in (folder, *sorted(folder.rglob("*"))):
        info = _header(folder, path)
        if info is None:
            continue
        yield info.tobuf(tarfile.PAX_FORMAT)
        if info.isreg():
            yield from _content(path, info.size)
            yield bytes(-info.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(folder: Path, path: Path) -> tarfile.TarInfo | None:
    """The header of a file, link or folder; None for anything else."""
    status = path.lstat()
    info = tarfile.TarInfo(path.relative_to(folder).as_posix())
    info.mode = status.st_mode & 0o777
    if path.is_symlink():
        info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
    elif path.is_dir():
        info.type = tarfile.DIRTYPE
    elif path.is_file():
        info.size = status.st_size
    else:
        return None
    return info


def _content(path: Path, size: int) -> Iterator[bytes]:
    left = size
    with path.open("rb") as file:
        while piece := file.read(min(_PIECE, left)):
            left -= len(piece)
            yield piece
    if left:
        raise LadingError(f"{path} changed while it was sent to the engine")
