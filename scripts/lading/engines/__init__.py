"""Container engines: one protocol, Docker and Podman over the docker SDK, a recording fake.

    found.connect ── contexts (docker's own), embedded (Podman for the length of a run)
        └── sdk.SdkEngine ── buildkit (a docker client builds) | podman (built over the API)

The import of this package costs nothing: the SDK is imported when an engine is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lading.later import attributes

if TYPE_CHECKING:
    from lading.engines.model import BuildFailed, Engine, ImageInfo, Listed, Mount, RunResult

__all__ = ["BuildFailed", "Engine", "ImageInfo", "Listed", "Mount", "RunResult", "connect"]

__getattr__ = attributes(
    __name__, {"model": ("BuildFailed", "Engine", "ImageInfo", "Listed", "Mount", "RunResult")}
)


def _silent(text: str) -> None:
    pass


def connect(
    environ: Mapping[str, str] = os.environ, note: Callable[[str], None] = _silent
) -> Engine:
    """The first engine that answers; `note` gets, in one line each, what is worth telling.

    In this order: DOCKER_HOST, DOCKER_CONTEXT or docker's current context, Docker's socket, a
    Podman socket (CONTAINER_HOST first), else Podman started for the length of this run.

    Raises `EnvironmentProblem` when there is none, when one that was named does not answer, or
    when what there is is too old.
    """
    from lading.engines import found

    return found.connect(environ, note)
