"""Docker Engine and Podman over the docker SDK for Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from lading.engines.contexts import Endpoint
from lading.engines.model import BuildFailed, ImageInfo, Listed, Mount, RunResult
from lading.engines.wire import all_lines, engine_errors, error_in, messages, request, went_away
from lading.errors import LadingError

if TYPE_CHECKING:
    import docker

PROBE_TIMEOUT = 15
"""Seconds until an engine must have answered once; systemd may have to start Podman first."""
TIMEOUT = 600
"""Seconds that an engine may be silent over an ordinary question; big disks can be slow."""
LONG = 7 * 24 * 3600
"""Seconds to wait for a container; how long it may take is its own affair."""
UNREAD = 128 + 13
"""The exit code of what wrote to someone who has gone, as a shell has it (SIGPIPE)."""
_PIECE = 1 << 20
_LOADED = re.compile(r"Loaded image(?: ID)?: (\S+)")


class Builder(Protocol):
    """What turns a context into a tagged image."""

    def build(
        self, context: Path, tag: str, *, platform: str, log: Callable[[str], None], cache: bool
    ) -> None: ...


def client(endpoint: Endpoint, version: str, timeout: int) -> docker.APIClient:
    """A client of the SDK; connects to nothing yet."""
    import docker
    import docker.tls

    tls: bool | docker.tls.TLSConfig = False
    if endpoint.tls is not None:
        cert, key, ca = (endpoint.tls / name for name in ("cert.pem", "key.pem", "ca.pem"))
        tls = docker.tls.TLSConfig(
            client_cert=(str(cert), str(key)) if cert.exists() else None,
            ca_cert=str(ca) if ca.exists() else None,
            verify=endpoint.tls_verify,
        )
    return docker.APIClient(
        base_url=endpoint.url,
        version=version,
        timeout=timeout,
        tls=tls,
    )


class SdkEngine:
    """An engine that has answered; implements `Engine`."""

    def __init__(
        self,
        api: docker.APIClient,
        *,
        kind: str,
        version: str,
        where: str,
        builder: Builder,
        ended: Callable[[], None] | None = None,
    ) -> None:
        self.kind = kind
        self.version = version
        self.where = where
        self._api = api
        self._builder = builder
        self._ended = ended
        self._containers: set[str] = set()

    def images(self, label: str, *, apart: str = "") -> Mapping[str, str]:
        with engine_errors(self.where, "listing images"):
            listed = self._api.images(filters={"label": label})
        found: dict[str, str] = {}
        # the newest of one value wins, and one with a name over one without
        for image in sorted(listed, key=lambda each: (bool(_names(each)), each["Created"])):
            names = _names(image)
            if apart and names and all(name.startswith(apart) for name in names):
                continue
            found[(image.get("Labels") or {}).get(label, "")] = _id(image)
        return found

    def listed(self) -> Sequence[Listed]:
        with engine_errors(self.where, "listing images and containers"):
            images, containers = self._api.images(), self._api.containers(all=True)
        used = {_prefixed(each.get("ImageID") or "") for each in containers}
        return [
            Listed(
                id=_id(each),
                names=tuple(_names(each)),
                labels=each.get("Labels") or {},
                size=each["Size"],
                used=_id(each) in used,
            )
            for each in images
        ]

    def inspect(self, ref: str) -> ImageInfo | None:
        import docker.errors

        with engine_errors(self.where, f"asking for {ref}"):
            try:
                answer: dict[str, Any] = self._api.inspect_image(ref)  # type: ignore[no-untyped-call]
            except docker.errors.NotFound:
                return None
        config = answer.get("Config") or {}
        diff_ids = tuple((answer.get("RootFS") or {}).get("Layers") or ())
        return ImageInfo(
            id=_id(answer),
            labels=config.get("Labels") or {},
            size=answer["Size"],
            diff_ids=diff_ids,
            env=tuple(config.get("Env") or ()),
            cmd=tuple(config.get("Cmd") or ()),
            entrypoint=tuple(config.get("Entrypoint") or ()),
            user=config.get("User") or "",
            architecture=answer.get("Architecture") or "",
            os=answer.get("Os") or "",
            settings={
                "architecture": answer.get("Architecture"),
                "os": answer.get("Os"),
                "variant": answer.get("Variant"),
                "config": config,
                "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
            },
        )

    def build(
        self,
        context: Path,
        tag: str,
        *,
        platform: str,
        log: Callable[[str], None],
        cache: bool = True,
    ) -> str:
        doing = f"building {tag}"
        with engine_errors(self.where, doing):
            try:
                self._builder.build(context, tag, platform=platform, log=log, cache=cache)
            except BuildFailed as failed:
                if not self._answers():
                    raise went_away(self.where, doing, failed.why) from failed
                raise
        return self._id_of(tag)

    def _answers(self) -> bool:
        try:
            return self._api.get(f"{self._api.base_url}/_ping", timeout=PROBE_TIMEOUT).ok
        except Exception:
            return False

    def run(
        self,
        image: str,
        command: Sequence[str],
        *,
        user: str = "",
        read_only: bool = False,
        tmpfs: Sequence[str] = (),
        network: str = "none",
        mounts: Sequence[Mount] = (),
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        line: Callable[[str], None] | None = None,
    ) -> RunResult:
        host = self._host_config(
            read_only, dict.fromkeys(tmpfs, self._tmpfs_options(user)), network, mounts
        )
        with engine_errors(self.where, f"running {command[0]} in {image}"):
            container = self._api.create_container(
                image,
                list(command[1:]),
                entrypoint=list(command[:1]),
                user=user or None,
                environment=dict(env or {}),
                working_dir=workdir or None,
                hostname=_hostname(network),
                host_config=host,
                use_config_proxy=False,
            )["Id"]
            self._containers.add(container)
            try:
                result = self._run_to_end(container, line or _nothing)
                if container not in self._containers:  # `close` took it away: that says nothing
                    raise LadingError(f"stopped while running {command[0]} in {image}")
                return result
            finally:
                self._remove_container(container)

    def interact(
        self,
        image: str,
        command: Sequence[str],
        *,
        network: str = "none",
        mounts: Sequence[Mount] = (),
        env: Mapping[str, str] | None = None,
    ) -> int:
        from lading.engines import terminal

        seen = terminal.is_one()
        with engine_errors(self.where, f"running {command[0]} in {image}"):
            container = self._api.create_container(
                image,
                list(command[1:]),
                entrypoint=list(command[:1]),
                environment=dict(env or {}),
                hostname=_hostname(network),
                host_config=self._host_config(False, {}, network, mounts),
                stdin_open=True,
                tty=seen,
                use_config_proxy=False,
            )["Id"]
            self._containers.add(container)
            try:
                if not self._attended(container, seen):
                    return UNREAD
                return int(self._api.wait(container, timeout=LONG)["StatusCode"])
            finally:
                self._remove_container(container)

    def _attended(self, container: str, seen: bool) -> bool:
        """Lets a container begin, and end, with this process's streams as its own; False when
        nobody reads any more, and it still runs.
        """
        from lading.engines import terminal

        ways = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        attached = self._api.attach_socket(container, params=ways)
        connection = terminal.connected(attached)
        self._api.start(container)
        if not seen:
            return terminal.talk(connection, terminal=False)
        with terminal.raw(lambda rows, columns: self._api.resize(container, rows, columns)):
            return terminal.talk(connection, terminal=True)

    def _remove_container(self, container: str) -> None:
        self._containers.discard(container)  # first: whoever waits for it looks there
        # no error of this may cover the one that there is, or the result
        with suppress(Exception):
            self._api.remove_container(container, force=True, v=True)

    def _run_to_end(self, container: str, line: Callable[[str], None]) -> RunResult:
        # attached before it starts, so that nothing of a short life is missed
        output = self._api.attach(container, stdout=True, stderr=True, stream=True, demux=True)
        self._api.start(container)
        text = all_lines(output, line)
        return RunResult(code=self._api.wait(container, timeout=LONG)["StatusCode"], output=text)

    def _host_config(
        self, read_only: bool, tmpfs: dict[str, str], network: str, mounts: Sequence[Mount]
    ) -> Any:
        import docker.types

        return self._api.create_host_config(
            network_mode=network,
            read_only=read_only,
            tmpfs=tmpfs,
            mounts=[
                docker.types.Mount(
                    mount.target, str(mount.source), type="bind", read_only=mount.read_only
                )
                for mount in mounts
            ],
            # the output is ours: it need not go into the machine's journal
            log_config=docker.types.LogConfig(type="json-file"),
            # where there is SELinux, it would hide what is mounted
            security_opt=["label=disable"] if mounts else None,
        )

    def _tmpfs_options(self, user: str) -> str:
        options = "rw,exec,nosuid,nodev,mode=1777"
        if self.kind == "podman":  # else it copies what the image has at that place
            return options + ",notmpcopyup"
        # The runtime gives the mount the mode of the folder below it, and Docker makes that
        # folder when it is the working one too: what helps is to own it.
        owner = re.fullmatch(r"(\d+):(\d+)", user)
        return f"{options},uid={owner[1]},gid={owner[2]}" if owner else options

    def save(self, ref: str) -> Iterator[bytes]:
        with engine_errors(self.where, f"saving {ref}"):
            response = request(self._api, "GET", f"/images/{quote(ref, safe='/:@')}/get")
            with response:
                yield from response.iter_content(_PIECE)

    def files(self, ref: str) -> Iterator[bytes]:
        with engine_errors(self.where, f"reading the files of {ref}"):
            # It never runs, so what it would run need not be there.
            container = self._api.create_container(
                ref, ["/"], entrypoint=[], network_disabled=True, use_config_proxy=False
            )["Id"]
            self._containers.add(container)
            try:
                response = request(self._api, "GET", f"/containers/{container}/export")
                with response:
                    yield from response.iter_content(_PIECE)
            finally:
                self._remove_container(container)

    def load(self, path: Path) -> str:
        doing = f"loading {path}"
        names: list[str] = []
        with path.open("rb") as archive, engine_errors(self.where, doing):
            response = request(
                self._api,
                "POST",
                "/images/load",
                data=archive,
                headers={"Content-Type": "application/x-tar"},
            )
            for message in messages(response):
                if error := error_in(message):
                    raise LadingError(f"{doing} failed", why=error)
                names += _LOADED.findall(message.get("stream", ""))
        if not names:
            raise LadingError(f"{doing} failed", why="the engine names no image that it has loaded")
        return self._id_of(names[-1].split(",")[-1])

    def pull(self, ref: str, *, platform: str, log: Callable[[str], None]) -> str:
        with engine_errors(self.where, f"pulling {ref}"):
            for message in self._api.pull(ref, stream=True, decode=True, platform=platform):
                if error := error_in(message):
                    raise LadingError(f"pulling {ref} failed", why=error)
                status = message.get("status") or message.get("stream")
                if status and not message.get("progress"):
                    log(" ".join(filter(None, (message.get("id"), status.rstrip()))))
        return self._id_of(ref)

    def tag(self, image: str, ref: str) -> None:
        from docker.utils import parse_repository_tag

        repository, tag = parse_repository_tag(ref)
        with engine_errors(self.where, f"tagging {image}"):
            self._api.tag(image, repository, tag)

    def remove(self, ref: str) -> None:
        import docker.errors

        with engine_errors(self.where, f"removing {ref}"), suppress(docker.errors.NotFound):
            # by its id, an image goes with all its names
            self._api.remove_image(ref, force=ref.startswith("sha256:"))

    def discard(self, image: Listed) -> None:
        import docker.errors

        # Never by force: Podman would take the containers with it.
        for ref in image.names or (image.id,):
            with engine_errors(self.where, f"removing {ref}"), suppress(docker.errors.NotFound):
                self._api.remove_image(ref)

    def close(self) -> None:
        # those of tasks in threads, when a run is stopped
        for container in list(self._containers):
            self._remove_container(container)
        self._api.close()
        if self._ended is not None:
            self._ended()

    def _id_of(self, ref: str) -> str:
        info = self.inspect(ref)
        if info is None:
            raise LadingError(f"the engine has no image {ref}, though it said so")
        return info.id


def _nothing(text: str) -> None:
    pass


def _names(image: Mapping[str, Any]) -> list[str]:
    return [name for name in image.get("RepoTags") or () if name != "<none>:<none>"]


def _id(image: Mapping[str, Any]) -> str:
    """An image's id, which Podman may write without what kind of digest it is."""
    return _prefixed(image["Id"])


def _prefixed(identity: str) -> str:
    return identity if ":" in identity else f"sha256:{identity}"


def _hostname(network: str) -> str | None:
    """What a container calls itself. Without a network, Docker writes a container's own name into
    no /etc/hosts, and MPICH does not start where it can't look up its own.
    """
    return "localhost" if network == "none" else None
