"""Building on Docker: through a docker client that has BuildKit.

The SDK speaks Docker's classic builder only, and that one refuses RUN --mount. A machine may
have several docker clients, and the first on PATH need not be one that can: all are asked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
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
    """A docker client: the arguments that make it build with BuildKit, or what it lacks; how it
    tells what it does.
    """

    path: Path
    build: tuple[str, ...] = ()
    lacks: str = ""
    progress: str = "plain"

    @property
    def buildx(self) -> bool:
        """Whether it has the plugin that knows builders."""
        return self.build[:1] == ("buildx",)


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
        if self._client is None:
            self._client = capable(clients(self._environ))
        client = self._client
        words = [
            *client.build,
            *(("--load",) if client.buildx else ()),
            *self._builder(),
            *what_to_build(client, tag, platform, cache),
            str(context),
        ]
        environment = {**self._endpoint.client, **CLIENT_ENVIRONMENT}
        code, lines = told(client, words, environment, log)
        if code and any("no such job" in line for line in lines):
            # Docker 20.10 drops some of many builds at once; it is none of the build's doing
            code, lines = told(client, words, environment, log)
        if code:
            raise BuildFailed(tag, failing_step(lines), last_lines(lines))

    def _builder(self) -> tuple[str, ...]:
        """The engine's own builder for buildx: one in a container can't see local images."""
        assert self._client is not None
        if not self._client.buildx or self._environ.get("BUILDX_BUILDER"):
            return ()
        return ("--builder", self._endpoint.builder)


CLIENT_ENVIRONMENT: Mapping[str, str | None] = {
    "DOCKER_BUILDKIT": "1",
    # the image's own date counts, and buildx would put this one over it
    "SOURCE_DATE_EPOCH": None,
    "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
    "DOCKER_CLI_HINTS": "false",
    "DOCKER_SCAN_SUGGEST": "false",
}
"""What a docker client that builds is told besides where."""


def what_to_build(client: Client, tag: str, platform: str, cache: bool) -> list[str]:
    """The arguments that every build has, wherever it runs."""
    return [
        *("--network", "none", "--progress", client.progress),
        *("--platform", platform, "--tag", tag),
        *(() if cache else ("--no-cache",)),
        *no_proxies(),
    ]


def told(
    client: Client,
    words: Sequence[str],
    environment: Mapping[str, str | None],
    log: Callable[[str], None],
) -> tuple[int, list[str]]:
    """Runs a client's build, whose lines `log` gets: its exit code, and the lines."""
    from lading import process

    lines: list[str] = []

    def line(text: str) -> None:
        lines.append(text)
        log(text)

    command = [str(client.path), *words]
    if client.progress == "plain":
        return process.run(command, env=environment, line=line).code, lines
    from lading.engines.rawjson import Progress

    progress = Progress(line)
    code = process.run(command, env=environment, line=progress.feed).code
    progress.end()
    return code, lines


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
        return Client(path=path, build=("buildx", "build"), progress=_progress(buildx.output))
    # From 23 on, BuildKit in the client is the plugin buildx; before, it was built in.
    if (20, 10) <= (int(version[1]), int(version[2])) < (23, 0):
        return Client(path=path, build=("build",))
    if int(version[1]) >= 23:
        return Client(path=path, lacks=f"{version[1]}.{version[2]}, without the plugin buildx")
    return Client(path=path, lacks=f"{version[1]}.{version[2]}, older than 20.10")


def _progress(said: str) -> str:
    """How a buildx tells best what it does, by what it says of its version."""
    version = re.search(r"buildx v?(\d+)\.(\d+)", said)
    new = version is not None and (int(version[1]), int(version[2])) >= (0, 13)
    return "rawjson" if new else "plain"


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
