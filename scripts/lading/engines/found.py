"""Finding the engine: what answers first, is new enough, or can be started."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from lading.engines.contexts import Endpoint, endpoints
from lading.engines.model import Engine
from lading.errors import EnvironmentProblem

OLDEST = {"docker": (20, 10), "podman": (4, 3)}

INSTALL = """`apt-get install podman` as root (Debian, Ubuntu) is enough: nothing has to be started
     or start Docker Engine 20.10 or newer, or name one that runs elsewhere in DOCKER_HOST"""


class Answer(Struct, frozen=True, kw_only=True):
    """What an engine says of itself; `api` is the newest version of Docker's API it speaks."""

    kind: str
    version: str
    api: str


class NoAnswer(Exception):
    """Nothing that speaks Docker's API answers there; the text says why."""


class NoEngine(EnvironmentProblem):
    """None was named that does not answer: this machine has none, or none that starts."""


def connect(environ: Mapping[str, str], note: Callable[[str], None]) -> Engine:
    """See `lading.engines.connect`."""
    tried: list[str] = []
    for endpoint in endpoints(environ):
        try:
            return opened(endpoint, environ)
        except NoAnswer as problem:
            if endpoint.named:
                raise EnvironmentProblem(
                    f"no engine answers at {endpoint.where}",
                    why=str(problem),
                    do="start it, or unset the variable to use what this machine has",
                ) from problem
            tried.append(f"{endpoint.where}: {problem}")
            if endpoint.client.get("DOCKER_CONTEXT"):
                note(f"{endpoint.where} does not answer ({problem}): looking for another engine")
        except EnvironmentProblem as problem:
            if endpoint.named:
                raise
            tried.append(problem.what)
    try:
        return _embedded(environ, note, tried)
    except EnvironmentProblem as problem:
        raise NoEngine(problem.what, why=problem.why, do=problem.do) from problem


def opened(
    endpoint: Endpoint, environ: Mapping[str, str], ended: Callable[[], None] | None = None
) -> Engine:
    """The engine at one place. Raises `NoAnswer`, or `EnvironmentProblem` when it is too old."""
    if not endpoint.url.startswith("ssh://"):
        return _opened(endpoint, environ, ended)
    from lading.engines.ssh import Tunnel

    tunnel = Tunnel(endpoint.url, environ)
    try:
        return _opened(replace(endpoint, url=tunnel.url), environ, tunnel.end)
    except BaseException as problem:
        said = tunnel.said()
        tunnel.end()
        if isinstance(problem, NoAnswer) and said:
            raise NoAnswer(said) from problem
        raise


def _opened(
    endpoint: Endpoint, environ: Mapping[str, str], ended: Callable[[], None] | None
) -> Engine:
    answer = _asked(endpoint)
    refuse_old(answer, endpoint.where)

    from docker.constants import DEFAULT_DOCKER_API_VERSION
    from docker.utils import version_lt

    from lading.engines import buildkit, podman, sdk

    spoken = answer.api
    if version_lt(DEFAULT_DOCKER_API_VERSION, spoken):
        spoken = DEFAULT_DOCKER_API_VERSION
    api = sdk.client(endpoint, spoken, sdk.TIMEOUT)
    builder: sdk.Builder = (
        podman.PodmanBuilder(api)
        if answer.kind == "podman"
        else buildkit.BuildKitBuilder(endpoint, environ)
    )
    return sdk.SdkEngine(
        api,
        kind=answer.kind,
        version=answer.version,
        where=endpoint.where,
        builder=builder,
        ended=ended,
    )


def _asked(endpoint: Endpoint) -> Answer:
    """What answers at one place. Raises `NoAnswer`."""
    scheme, _, path = endpoint.url.partition("://")
    if scheme == "unix" and not Path(path).exists():
        raise NoAnswer("there is no such socket")

    import docker.errors
    import requests

    from lading.engines import sdk

    try:
        with sdk.client(endpoint, "1.40", sdk.PROBE_TIMEOUT) as api:
            ping = api.get(f"{api.base_url}/_ping", timeout=sdk.PROBE_TIMEOUT)
            answer = from_ping(ping.headers) or from_version(api.version(api_version=False))
    except (docker.errors.DockerException, requests.RequestException, OSError, ValueError) as error:
        raise NoAnswer(_shortly(error)) from error
    if answer is None:
        raise NoAnswer("what answers there is no container engine")
    return answer


def _shortly(error: Exception) -> str:
    """The reason at the bottom of a chain of exceptions, which is the one people can use."""
    text = str(error)
    if "PermissionError" in text:
        return "permission denied for this user"
    if "ConnectionRefusedError" in text or "ECONNREFUSED" in text:
        return "connection refused: nothing runs behind it"
    if "timed out" in text.lower():
        return "it does not answer"
    return text


def from_ping(headers: Mapping[str, str]) -> Answer | None:
    """Who answers, by the headers of /_ping; None when a proxy in between took them away.

    Podman takes half a second over /version: it asks conmon, the runtime and dpkg first.
    """
    api, server = headers.get("Api-Version", ""), headers.get("Server", "")
    if not api:
        return None
    if podman := headers.get("Libpod-Api-Version"):
        return Answer(kind="podman", version=podman, api=api)
    docker = re.match(r"Docker/(\S+)", server)
    return Answer(kind="docker", version=docker[1], api=api) if docker else None


def from_version(answer: Any) -> Answer | None:
    """Who answers, by the answer to /version; None when it is no engine."""
    if not isinstance(answer, dict) or "ApiVersion" not in answer:
        return None
    api = str(answer["ApiVersion"])
    for component in answer.get("Components") or ():
        if component.get("Name") == "Podman Engine":
            return Answer(kind="podman", version=str(component["Version"]), api=api)
    return Answer(kind="docker", version=str(answer.get("Version", "")), api=api)


def refuse_old(answer: Answer, where: str) -> None:
    """Raises `EnvironmentProblem` for an engine that can't build our Dockerfiles."""
    numbers = re.match(r"v?(\d+)\.(\d+)", answer.version)
    if numbers is None:  # built from source, "dev"
        return
    if (int(numbers[1]), int(numbers[2])) < OLDEST[answer.kind]:
        needed = ".".join(map(str, OLDEST[answer.kind]))
        raise EnvironmentProblem(
            f"{answer.kind.capitalize()} {answer.version} is too old ({where}):"
            f" {needed} or newer is needed",
            why="RUN --mount and builds without network need it",
            do=f"install a newer one: {INSTALL}",
        )


def _embedded(environ: Mapping[str, str], note: Callable[[str], None], tried: list[str]) -> Engine:
    """Podman, started for this run. Raises `EnvironmentProblem` with all that was tried."""
    from lading.engines.embedded import Service

    program = shutil.which("podman", path=environ.get("PATH"))
    if program is None:
        client = shutil.which("docker", path=environ.get("PATH"))
        if client:
            tried.append(f"{client} is only a client: it has no engine to talk to")
        tried.append("podman: not on PATH")
        raise EnvironmentProblem(
            "there is no container engine", why="tried\n" + "\n".join(tried), do=INSTALL
        )
    service = Service.started(program, environ, note)
    try:
        engine = opened(service.endpoint, environ, service.end)
    except NoAnswer as problem:
        service.end()
        raise EnvironmentProblem(
            f"{program} was started, but does not answer", why=str(problem)
        ) from problem
    except BaseException:
        service.end()
        raise
    note(f"no engine runs here: Podman {engine.version} is started for the length of this run")
    return engine
