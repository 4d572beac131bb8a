"""Debian packages in a throwaway container: for what is asked there of a Python that they bring."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from lading import debian
from lading.debian import Deb
from lading.errors import LadingError
from lading.layers.base import BaseLock

if TYPE_CHECKING:
    from lading.engines import Mount, RunResult
    from lading.layers.kind import InBase, Tools

AT = "/lading/packages"
SCRIPT = f"""\
sh {AT}/install.sh >/tmp/lading-apt.log 2>&1 || {{
  echo "@lading apt failed"
  tail -n 20 /tmp/lading-apt.log
  exit 1
}}
exec "$@"
"""


class Lent(Struct, frozen=True, kw_only=True):
    """The locked packages that are installed first, and the base that they are for."""

    base: BaseLock
    debs: tuple[Deb, ...]


def with_packages(lent: Lent, tools: Tools) -> InBase:
    """A way to run commands in the base once these packages are installed. They are fetched
    first, where the store lacks them. Raises `LadingError` when they can't be installed.
    """
    in_base = tools.in_base()
    _fetched(lent, tools)

    def run(
        command: Sequence[str],
        *,
        mounts: Sequence[Mount] = (),
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        line: Callable[[str], None] | None = None,
    ) -> RunResult:
        with tempfile.TemporaryDirectory(prefix="lading-apt-") as folder:
            result = in_base(
                ["/bin/sh", "-c", SCRIPT, "sh", *command],
                mounts=[*_mounts(lent, tools, Path(folder)), *mounts],
                env=env,
                workdir=workdir,
                line=line,
            )
        if result.code and result.output.startswith("@lading apt failed"):
            raise LadingError(
                "the locked Debian packages can't be installed in a throwaway container",
                why=result.output.partition("\n")[2],
            )
        return result

    return run


def _fetched(lent: Lent, tools: Tools) -> None:
    from lading.layers import apt_resolve
    from lading.store import Artifact

    every = [Artifact(name=deb.file, sha256=deb.sha256, size=deb.size) for deb in lent.debs]
    lacking = tools.store.lacking(every)
    if lacking:
        mirrors = apt_resolve.mirrors_of(lent.base, tools)
        tools.store.fetch(lacking, lambda _: debian.locate(lent.debs, mirrors))


def _mounts(lent: Lent, tools: Tools, folder: Path) -> list[Mount]:
    """What the installing step of an image is lent, file by file, as it lies in the store."""
    from lading.engines import Mount
    from lading.layers import apt_image
    from lading.steps import Stored

    folder.chmod(0o755)
    _, files = apt_image.install(lent.debs, "apt", why="")
    mounts: list[Mount] = []
    for at, content in files.items():
        inside = at.removeprefix("apt/")
        if isinstance(content, Stored):
            source = tools.store.path(content.sha256)
        else:
            assert isinstance(content, bytes)
            source = folder / inside
            source.write_bytes(content)
        mounts.append(Mount(source=source, target=f"{AT}/{inside}"))
    return mounts
