"""A throwaway container of an image's base, for what only the base itself can tell.

Unlike a build, it has the network, with the user's own settings for it: proxy, passwords, CA.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lading import files, net, platforms
from lading.errors import LadingError
from lading.layers.kind import InBase, Tools
from lading.project import Base
from lading.state import State
from lading.verbs import base as base_verb

if TYPE_CHECKING:
    from lading.engines import Mount, RunResult

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
CA = "/lading/ca.pem"


def tools(state: State, base: Base) -> Tools:
    """What the layers of an image on this base may use to lock."""
    return Tools(
        environ=state.environ,
        store=state.store,
        note=state.console.note,
        in_base=lambda: runner(state, base),
    )


def runner(state: State, base: Base) -> InBase:
    """A way to run commands there. The base is made first, where the engine has it not."""
    reference = base_verb.ensure(state, base)

    def run(
        command: Sequence[str],
        *,
        mounts: Sequence[Mount] = (),
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        line: Callable[[str], None] | None = None,
    ) -> RunResult:
        inside, lent = _settings(state.environ)
        platform, what = state.project.platform, f"nothing can be asked of the base {base.name}"
        try:
            result = state.engine.run(
                reference,
                command,
                user=base_verb.ROOT,
                network="host",
                mounts=[*mounts, *lent],
                env={**inside, **(env or {})},
                workdir=workdir,
                line=line,
            )
        except LadingError as error:
            raise platforms.refused(what, platform, error.why or error.what) or error from None
        if result.code and (problem := platforms.refused(what, platform, result.output)):
            raise problem
        return result

    return run


def _settings(environ: Mapping[str, str]) -> tuple[dict[str, str], list[Mount]]:
    """The variables and files that are the user's network settings inside a container."""
    from lading.engines import Mount

    inside = {name: value for name, value in environ.items() if name.upper() in PROXIES}
    inside["HOME"] = "/tmp"
    mounts: list[Mount] = []
    bundle = net.ca_bundle(environ)
    if bundle is not None and Path(bundle[1]).is_file():
        mounts.append(Mount(source=Path(bundle[1]).resolve(), target=CA))
        inside["SSL_CERT_FILE"] = CA
    netrc = files.at_home(environ.get("NETRC") or "~/.netrc")
    if netrc.is_file():
        mounts.append(Mount(source=netrc.resolve(), target="/lading/netrc"))
        inside["NETRC"] = "/lading/netrc"
    return inside, mounts
