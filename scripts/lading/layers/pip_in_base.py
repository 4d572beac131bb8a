"""uv in a throwaway container of an image's base: where an sdist may say what it needs.

Only there is it run with the base's own Python; this machine's never sees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lading import net, process, uv
from lading.layers import pip
from lading.layers.kind import Tools
from lading.layers.pip import PipLock, Request

if TYPE_CHECKING:
    from lading.engines import Mount

OF_THIS_MACHINE = ("UV_CACHE_DIR", "UV_CREDENTIALS_DIR")
"""Variables of uv that name a folder of this machine, and mean nothing in a container."""


def runner(request: Request, old: PipLock | None, tools: Tools) -> uv.Runner:
    """A way to run uv there."""
    in_base = tools.in_base()
    binary = _binary(request, old, tools)
    target = ("--python-version", "--python-platform")

    def run(
        arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> process.Finished:
        from lading.engines import Mount

        # Inside the base its own Python and glibc are the target.
        command, *options = without(arguments, target)
        result = in_base(
            ["/lading/uv", command, *options[:1], "--python", request.facts.python, *options[1:]],
            mounts=[
                Mount(source=binary, target="/lading/uv"),
                Mount(source=folder, target="/lading/work", read_only=False),
                *_local_indexes(tools.environ),
            ],
            env=_settings({**tools.environ, **environment}),
            workdir="/lading/work",
        )
        return process.Finished(code=result.code, output=result.output)

    return run


def _settings(environ: Mapping[str, str]) -> dict[str, str]:
    inside = {
        name: value
        for name, value in environ.items()
        if name.startswith("UV_") and name not in OF_THIS_MACHINE and not uv.FOREIGN.match(name)
    }
    return inside | {"UV_NO_CACHE": "1", "UV_PYTHON_DOWNLOADS": "never"}


def _local_indexes(environ: Mapping[str, str]) -> list[Mount]:
    """An index that is a folder of this machine is found in a container under the same path."""
    from lading.engines import Mount

    mounts: list[Mount] = []
    for place in net.indexes(environ).all():
        path = net.local_path(place) if urlsplit(place).scheme in ("", "file") else None
        if path is not None and path.is_absolute() and path.exists():
            mounts.append(Mount(source=path.resolve(), target=str(path)))
    return mounts


def without(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """The arguments without these options and their values."""
    kept: list[str] = []
    given = iter(arguments)
    for argument in given:
        if argument in options:
            next(given)
        else:
            kept.append(argument)
    return kept


def _binary(request: Request, old: PipLock | None, tools: Tools) -> Path:
    """The uv program for the image's platform, out of its wheel, in the store."""
    environment = net.uv_environment(tools.environ)
    pin = pip.installer(request, old, environment)
    if not tools.store.has(pin.artifact):
        found = pip.sources(request, [pin], environment)
        tools.store.fetch([pin.artifact], lambda _: found)
    wheel = tools.store.path(pin.artifact.sha256)
    return tools.store.derived(pin.artifact.sha256, "uv", lambda out: uv.extract_binary(wheel, out))
