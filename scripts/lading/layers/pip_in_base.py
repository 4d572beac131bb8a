"""uv in a throwaway container of an image's base: where an sdist may say what it needs.

Only there is it run with the base's own Python; this machine's never sees it.
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lading import net, process, uv
from lading.layers import apt_lent, pip
from lading.layers.kind import InBase, Tools
from lading.layers.pip import PipLock, Request
from lading.requirements import Pin

if TYPE_CHECKING:
    from lading.engines import Mount

OF_THIS_MACHINE = ("UV_CACHE_DIR", "UV_CREDENTIALS_DIR")
"""Variables of uv that name a folder of this machine, and mean nothing in a container."""


def runner(request: Request, old: PipLock | None, tools: Tools) -> uv.Runner:
    """A way to run uv there."""
    in_base = in_container(request, tools)
    binary = program(request, old, tools)
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
                *conda_prefix(request, tools),
            ],
            env=settings({**tools.environ, **environment}),
            workdir="/lading/work",
        )
        return process.Finished(code=result.code, output=result.output)

    return run


def in_container(request: Request, tools: Tools) -> InBase:
    """The base, with the Debian packages that bring its Python, where it has none of its own."""
    if request.lent is None:
        return tools.in_base()
    return apt_lent.with_packages(request.lent, tools)


HOOK = r"""
set -eu
uv=/lading/uv
cp -r /lading/sdist /tmp/sdist
"$uv" venv --quiet --python "$LADING_PYTHON" /tmp/env
"$uv" pip install --quiet --python /tmp/env --no-index --no-deps --offline \
  --find-links /lading/sdist/wheels --requirements /lading/sdist/build.txt
mkdir /tmp/source
cd /tmp/source
"$LADING_PYTHON" -c 'import shutil, sys; shutil.unpack_archive(sys.argv[1], ".")' \
  "/tmp/sdist/$LADING_FILE"
cd ./*
PATH="/tmp/env/bin:$PATH" /tmp/env/bin/python /lading/sdist/hook.py
"""

ASK = r"""
import importlib, json, os, sys
try:
    import tomllib
except ImportError:
    try:
        import tomli as tomllib
    except ImportError:
        from setuptools._vendor import tomli as tomllib
system = {}
if os.path.exists("pyproject.toml"):
    with open("pyproject.toml", "rb") as file:
        system = tomllib.load(file).get("build-system", {})
sys.path[:0] = [os.path.join(os.getcwd(), path) for path in system.get("backend-path", [])]
name = system.get("build-backend", "setuptools.build_meta:__legacy__")
module, _, inside = name.partition(":")
backend = importlib.import_module(module)
for part in filter(None, inside.split(".")):
    backend = getattr(backend, part)
ask = getattr(backend, "get_requires_for_build_wheel", None)
found = ask() if ask else []
print("\n@lading requires " + json.dumps(list(found)))
"""
"""What is run in the build environment: PEP 517's hook, and its answer on a line of its own."""


def asks_for(request: Request, old: PipLock | None, tools: Tools) -> pip.AsksFor:
    """A way to ask build backends there what more they want. One that can't answer is told of."""

    def ask(sdist: Path, pin: Pin, installed: Sequence[Pin]) -> Sequence[str]:
        from lading.engines import Mount

        binary = program(request, old, tools)
        with tempfile.TemporaryDirectory(prefix="lading-hook-") as name:
            folder = Path(name)
            folder.chmod(0o755)
            wanted = "".join(f"{one.name}=={one.version}\n" for one in installed)
            (folder / "build.txt").write_text(wanted)
            lend(installed, request, tools, folder / "wheels")
            (folder / "hook.py").write_text(ASK)
            shutil.copyfile(sdist, folder / pin.artifact.name)
            result = in_container(request, tools)(
                ["/bin/sh", "-c", HOOK],
                mounts=[
                    Mount(source=binary, target="/lading/uv"),
                    Mount(source=folder, target="/lading/sdist"),
                    *conda_prefix(request, tools),
                ],
                env={
                    **settings({}),
                    "LADING_PYTHON": request.facts.python,
                    "LADING_FILE": pin.artifact.name,
                    **request.section.build_env,
                },
            )
        said = re.search(r"^@lading requires (\[.*\])$", result.output, re.MULTILINE)
        if result.code or said is None:
            last = result.output.strip().rpartition("\n")[2]
            tools.note(
                f"  {pin.name} {pin.version} can't be asked what it is built with ({last}): what "
                "its pyproject.toml says is locked"
            )
            return ()
        return [str(one) for one in json.loads(said[1])]

    return ask


def lend(pins: Sequence[Pin], request: Request, tools: Tools, folder: Path) -> None:
    """The files of these pins in a folder; what builds a package is needed in the store anyway."""
    lacking = tools.store.lacking(pin.artifact for pin in pins)
    if lacking:
        environment = net.uv_environment(tools.environ)
        tools.store.fetch(lacking, lambda _: pip.sources(request, pins, environment))
    folder.mkdir()
    for pin in pins:
        shutil.copyfile(tools.store.path(pin.artifact.sha256), folder / pin.artifact.name)


UNPACKED = "prefix"
"""What a conda prefix is called in the store once it is unpacked."""


def conda_prefix(request: Request, tools: Tools) -> list[Mount]:
    """The conda prefix that has the Python, where it will be in the image."""
    from lading.engines import Mount

    below = request.below
    if below is None or below.stage is None:
        return []
    stage = below.stage

    def unpack(out: Path) -> None:
        tar = stage(tools)
        with tempfile.TemporaryDirectory(dir=out.parent) as folder, tarfile.open(tar) as archive:
            # Written by ourselves; a filter by name is not known to every Python 3.11.
            archive.extraction_filter = lambda member, _: member
            archive.extractall(folder)
            (Path(folder) / below.prefix.strip("/")).rename(out)

    made = tools.store.derived(below.key, UNPACKED, unpack)
    return [Mount(source=made, target=below.prefix)]


def settings(environ: Mapping[str, str]) -> dict[str, str]:
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


def program(request: Request, old: PipLock | None, tools: Tools) -> Path:
    """The uv program for the image's platform, out of its wheel, in the store."""
    environment = net.uv_environment(tools.environ)
    pin = pip.installer(request, old, environment)
    if not tools.store.has(pin.artifact):
        found = pip.sources(request, [pin], environment)
        tools.store.fetch([pin.artifact], lambda _: found)
    return uv.unpacked(tools.store, pin.artifact.sha256)
