"""Building on Docker: through a docker client that has BuildKit.

The SDK speaks Docker's classic builder only, and that one refuses RUN --mount. A machine may
have several docker clients, and the first on PATH need not be one that can: all are asked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from lading.engines.contexts import Endpoint
from lading.engines.failure import failing_step, last_lines
from lading.engines.model import BuildFailed
from lading.errors import EnvironmentProblem

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY")

INSTALL = """install BuildKit for the docker client: `apt-get install docker-buildx` (Debian 13)
     or docker-buildx-plugin (Docker's own packages), or on Debian 12 `apt-get install docker.io`"""


class Client(Struct, frozen=True, kw_only=True):
    """A docker client: the arguments that make it build with BuildKit, or what it lacks."""

    path: Path
    build: tuple[str, ...] = ()
    lacks: str = ""


class BuildKitBuilder:
    """Builds through the first docker client on PATH that can; looked for once."""

    def __init__(self, endpoint: Endpoint, environ: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._environ = environ
        self._client: Client | None = None

    def build(
        self, context: Path, tag: str, *, platform: str, log: Callable[[str], None], cache: bool
    ) -> None:
        """Builds and tags, without network. Raises `BuildFailed`, `EnvironmentProblem`."""
        from lading import process

        if self._client is None:
            self._client = capable(clients(self._environ))
        command = [
            str(self._client.path),
            *self._client.build,
            *self._builder(),
            *("--network", "none", "--progress", "plain"),
            *("--platform", platform, "--tag", tag),
            *(() if cache else ("--no-cache",)),
            *no_proxies(),
            str(context),
        ]
        environment = self._environment()
        finished = process.run(command, env=environment, line=log)
        if finished.code and "no such job" in finished.output:
            # Docker 20.10 drops some of many builds at once; it is none of the build's doing
            finished = process.run(command, env=environment, line=log)
        if finished.code:
            lines = finished.output.splitlines()
            raise BuildFailed(tag, failing_step(lines), last_lines(lines))

    def _builder(self) -> tuple[str, ...]:
        """The engine's own builder for buildx: one in a container can't see local images."""
        assert self._client is not None
        if self._client.build[0] != "buildx" or self._environ.get("BUILDX_BUILDER"):
            return ()
        return ("--builder", self._endpoint.builder)

    def _environment(self) -> dict[str, str | None]:
        return {
            **self._endpoint.client,
            "DOCKER_BUILDKIT": "1",
            # the image's own date counts, and buildx would put this one over it
            "SOURCE_DATE_EPOCH": None,
            "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
            "DOCKER_CLI_HINTS": "false",
            "DOCKER_SCAN_SUGGEST": "false",
        }


def no_proxies() -> list[str]:
    """Empty proxy arguments, over those that a client puts in from `proxies` in its config.

    They may hold a password, and a build without network has no use for them. BuildKit knows
    these names: they enter neither the image's history nor the cache's key.
    """
    return [
        word
        for name in PROXIES
        for spelled in (name, name.lower())
        for word in ("--build-arg", f"{spelled}=")
    ]


def clients(environ: Mapping[str, str]) -> list[Client]:
    """Every docker client on PATH, in order, each file once, with what it can do."""
    found: dict[Path, Path] = {}
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        path = Path(folder or ".") / "docker"
        if path.is_file() and os.access(path, os.X_OK):
            found.setdefault(path.resolve(), path.absolute())
    return [ask(path) for path in found.values()]


def ask(path: Path) -> Client:
    """What one docker client can do."""
    from lading import process

    try:
        said = process.run([str(path), "--version"])
        buildx = process.run([str(path), "buildx", "version"])
    except EnvironmentProblem as problem:
        return Client(path=path, lacks=problem.why)
    first = (said.output.strip().splitlines() or ["no version"])[0]
    version = re.match(r"Docker version (\d+)\.(\d+)", first)
    if not version:
        return Client(path=path, lacks=f"is not Docker's client ({first})")
    if buildx.code == 0:
        return Client(path=path, build=("buildx", "build", "--load"))
    # From 23 on, BuildKit in the client is the plugin buildx; before, it was built in.
    if (20, 10) <= (int(version[1]), int(version[2])) < (23, 0):
        return Client(path=path, build=("build",))
    if int(version[1]) >= 23:
        return Client(path=path, lacks=f"{version[1]}.{version[2]}, without the plugin buildx")
    return Client(path=path, lacks=f"{version[1]}.{version[2]}, older than 20.10")


def capable(asked: list[Client]) -> Client:
    """The first client that has BuildKit. Raises `EnvironmentProblem` with what each lacks."""
    for client in asked:
        if client.build:
            return client
    lacking = "\n".join(f"{client.path}: {client.lacks}" for client in asked)
    raise EnvironmentProblem(
        "Docker is here, but no docker client that has BuildKit",
        why=lacking or "there is no docker client on PATH",
        do=INSTALL,
    )
