"""Finding engines and clients, and reading what they print; with fakes of both."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.engines import BuildFailed, Engine, connect
from lading.engines import __main__ as engines_main
from lading.engines.buildkit import BuildKitBuilder, ask, capable, clients, no_proxies
from lading.engines.contexts import Endpoint
from lading.engines.embedded import machine_options, machine_settings, private_folder
from lading.engines.failure import failing_step, last_lines
from lading.engines.fake import RecordingEngine
from lading.engines.found import Answer, from_ping, from_version, refuse_old
from lading.engines.podman import context_tar
from lading.engines.wire import Lines, all_lines
from lading.errors import EnvironmentProblem, LadingError

DOCKER = {"Version": "20.10.24+dfsg1", "ApiVersion": "1.41", "Components": [{"Name": "Engine"}]}


def podman(version: str) -> dict[str, object]:
    component = {"Name": "Podman Engine", "Version": version}
    return {"Version": version, "ApiVersion": "1.41", "Components": [component]}


@contextmanager
def engine_at(
    path: Path, answer: object, headers: Mapping[str, str] | None = None
) -> Iterator[list[str]]:
    """Something on a socket that gives `answer` to every question; the paths it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = json.dumps(answer).encode()
            self.send_response(200)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *args: object) -> None:
            pass

    path.parent.mkdir(parents=True, exist_ok=True)
    with ThreadingUnixStreamServer(str(path), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


class World:
    """A machine with made-up sockets, its environment and what was told."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root = root
        self.notes: list[str] = []
        self.environ = {
            "HOME": str(root / "home"),
            "PATH": str(root / "bin"),
            "XDG_RUNTIME_DIR": str(root / "run"),
        }
        self._stack = stack

    def engine(
        self, name: str, answer: object = DOCKER, headers: Mapping[str, str] | None = None
    ) -> list[str]:
        return self._stack.enter_context(engine_at(self.root / name, answer, headers))

    def dead(self, name: str) -> None:
        """A socket's file that nobody answers, as a crashed engine or a masked unit leaves it."""
        with engine_at(self.root / name, {}):
            pass

    def program(self, name: str, script: str) -> Path:
        path = self.root / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def context(self, name: str, host: str) -> None:
        digest = hashlib.sha256(name.encode()).hexdigest()
        meta = self.root / "home" / ".docker" / "contexts" / "meta" / digest / "meta.json"
        meta.parent.mkdir(parents=True)
        meta.write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))

    def configure(self, **values: object) -> None:
        config = self.root / "home" / ".docker" / "config.json"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(json.dumps(values))

    def where(self) -> str:
        """Which engine is found; only its place below the root."""
        found = connect(self.environ, self.notes.append)
        found.close()
        return found.where.rpartition(f"{self.root}/")[2].rstrip(")")


@pytest.fixture
def world(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    with ExitStack() as stack:
        made = World(tmp_path_factory.mktemp("w"), stack)
        monkeypatch.setattr("lading.engines.contexts.DOCKER_SOCKET", f"{made.root}/docker")
        monkeypatch.setattr("lading.engines.contexts.PODMAN_SOCKET", f"{made.root}/podman")
        monkeypatch.setattr("lading.engines.embedded._both_cgroups", lambda: False)
        yield made


# ---------------------------------------------------------------- the order of discovery


def test_order_of_discovery(world: World) -> None:
    """Each place is taken away in turn; the next one is found."""
    sockets = ["docker", "run/docker.sock", "given", "run/podman/podman.sock", "podman"]
    for name in ["host", "context", *sockets]:
        world.engine(name)
    world.environ["DOCKER_HOST"] = f"unix://{world.root}/host"
    world.environ["CONTAINER_HOST"] = f"unix:{world.root}/given"
    world.context("mine", f"unix://{world.root}/context")
    world.configure(currentContext="mine")
    found = [world.where()]
    del world.environ["DOCKER_HOST"]
    found.append(world.where())
    world.configure(currentContext="default")
    for name in sockets:
        found.append(world.where())
        (world.root / name).unlink()
        if name == "given":
            del world.environ["CONTAINER_HOST"]
    assert found == ["host", "context", *sockets]


@pytest.mark.parametrize("last", ["run/podman/podman.sock", "podman"])
def test_podman_sockets_come_after_dockers(world: World, last: str) -> None:
    world.engine(last, podman("4.3.1"))
    assert world.where() == last
    world.engine("docker")
    assert world.where() == "docker"


def test_users_podman_socket_comes_before_the_machines(world: World) -> None:
    world.engine("podman", podman("4.3.1"))
    world.engine("run/podman/podman.sock", podman("4.3.1"))
    assert world.where() == "run/podman/podman.sock"


def test_docker_context_variable_beats_the_current_one(world: World) -> None:
    world.engine("one")
    world.engine("two")
    world.context("first", f"unix://{world.root}/one")
    world.context("second", f"unix://{world.root}/two")
    world.configure(currentContext="first")
    world.environ["DOCKER_CONTEXT"] = "second"
    assert world.where() == "two"


def test_docker_config_says_where_the_contexts_are(world: World) -> None:
    world.engine("one")
    world.context("first", f"unix://{world.root}/one")
    world.configure(currentContext="first")
    (world.root / "home" / ".docker").rename(world.root / "elsewhere")
    world.environ["DOCKER_CONFIG"] = str(world.root / "elsewhere")
    assert world.where() == "one"


def test_current_context_that_does_not_answer_is_told_and_skipped(world: World) -> None:
    world.dead("one")
    world.engine("docker")
    world.context("first", f"unix://{world.root}/one")
    world.configure(currentContext="first")
    assert world.where() == "docker"
    assert len(world.notes) == 1 and "'first'" in world.notes[0]


def test_context_that_is_not_there(world: World) -> None:
    world.environ["DOCKER_CONTEXT"] = "nonsense"
    with pytest.raises(EnvironmentProblem, match="'nonsense'"):
        world.where()


@pytest.mark.parametrize("config", [b"", b"[]", b"\xff{", b'{"currentContext": 3}'])
def test_a_docker_config_that_can_not_be_read_is_no_reason_to_stop(
    world: World, config: bytes
) -> None:
    world.engine("docker")
    world.configure()
    (world.root / "home" / ".docker" / "config.json").write_bytes(config)
    assert world.where() == "docker"


def test_socket_that_nobody_answers_is_skipped(world: World) -> None:
    world.dead("docker")
    world.dead("run/podman/podman.sock")
    world.engine("podman", podman("4.3.1"))
    assert world.where() == "podman"


def test_something_else_on_a_socket_is_skipped(world: World) -> None:
    world.engine("docker", {"hello": "world"})
    world.engine("podman", podman("5.4.2"))
    assert world.where() == "podman"


@pytest.mark.parametrize("variable", ["DOCKER_HOST", "CONTAINER_HOST"])
def test_named_engine_that_does_not_answer_is_an_error(world: World, variable: str) -> None:
    world.dead("named")
    world.engine("podman", podman("4.3.1"))
    world.environ[variable] = f"unix://{world.root}/named"
    with pytest.raises(EnvironmentProblem) as problem:
        world.where()
    assert f"{variable}=unix://{world.root}/named" in problem.value.what
    assert "refused" in problem.value.why
    assert problem.value.exit_code == 2


def test_container_host_over_ssh_is_refused_with_a_way_out(world: World) -> None:
    world.environ["CONTAINER_HOST"] = "ssh://me@host/run/podman.sock"
    with pytest.raises(EnvironmentProblem, match="CONTAINER_HOST") as problem:
        world.where()
    assert "ssh -L" in problem.value.do


# ------------------------------------------------------------------ nothing, or too old


def test_no_engine_says_what_was_tried_and_what_to_install(world: World) -> None:
    world.dead("docker")
    with pytest.raises(EnvironmentProblem, match="no container engine") as problem:
        world.where()
    for expected in ("/docker: connection refused", "/podman: there is no such socket"):
        assert expected in problem.value.why
    assert "podman: not on PATH" in problem.value.why
    assert "apt-get install podman" in problem.value.do
    assert len(problem.value.do.splitlines()) == 2


@pytest.mark.parametrize(
    ("variable", "code"),
    [("", 4), ("DOCKER_HOST", 2), ("CONTAINER_HOST", 2), ("DOCKER_CONTEXT", 2)],
)
def test_who_sets_up_knows_whether_an_engine_is_to_be_installed(
    world: World, monkeypatch: pytest.MonkeyPatch, variable: str, code: int
) -> None:
    """Where one is named that does not answer, another is no help."""
    world.dead("named")
    url = f"unix://{world.root}/named"
    world.context("far", url)
    monkeypatch.setattr(os, "environ", world.environ)
    if variable:
        world.environ[variable] = "far" if variable == "DOCKER_CONTEXT" else url
    assert engines_main.main() == code


def test_client_without_engine_is_said(world: World) -> None:
    client = world.program("docker", "exit 0")
    with pytest.raises(EnvironmentProblem) as problem:
        world.where()
    assert f"{client} is only a client" in problem.value.why


def test_engine_that_is_too_old_is_skipped_for_a_newer_one_but_told(world: World) -> None:
    world.engine("docker", {**DOCKER, "Version": "19.03.13"})
    with pytest.raises(EnvironmentProblem) as problem:
        world.where()
    assert "Docker 19.03.13 is too old" in problem.value.why
    assert "20.10" in problem.value.why
    world.engine("podman", podman("4.3.0"))
    assert world.where() == "podman"


def test_named_engine_that_is_too_old_is_an_error(world: World) -> None:
    world.engine("old", podman("3.4.4"))
    world.engine("docker")
    world.environ["DOCKER_HOST"] = f"unix://{world.root}/old"
    with pytest.raises(EnvironmentProblem, match=r"Podman 3\.4\.4 is too old .* 4\.3 or newer"):
        world.where()


@pytest.mark.parametrize(
    ("kind", "version", "old"),
    [
        ("docker", "20.10.24+dfsg1", False),
        ("docker", "20.9.0", True),
        ("docker", "28.2.2", False),
        ("docker", "dev", False),
        ("podman", "4.3.1", False),
        ("podman", "4.2.9", True),
        ("podman", "10.0.0-rc1", False),
        ("podman", "3.0.1", True),
    ],
)
def test_which_versions_are_too_old(kind: str, version: str, old: bool) -> None:
    if old:
        with pytest.raises(EnvironmentProblem, match="too old"):
            refuse_old(Answer(kind=kind, version=version, api="1.41"), "there")
    else:
        refuse_old(Answer(kind=kind, version=version, api="1.41"), "there")


def test_engines_are_recognised() -> None:
    docker = from_ping({"Api-Version": "1.41", "Server": "Docker/20.10.24+dfsg1 (linux)"})
    assert docker == Answer(kind="docker", version="20.10.24+dfsg1", api="1.41")
    assert from_version(DOCKER) == docker
    by_ping = from_ping({"Api-Version": "1.41", "Libpod-Api-Version": "4.3.1", "Server": "Libpod"})
    assert by_ping == Answer(kind="podman", version="4.3.1", api="1.41")
    assert from_version(podman("4.3.1")) == by_ping
    bare = {"ApiVersion": "1.41", "Components": None}
    assert from_version(bare) == Answer(kind="docker", version="", api="1.41")


def test_what_a_proxy_hides_is_asked_for() -> None:
    assert from_ping({"Api-Version": "1.41", "Server": "haproxy"}) is None
    assert from_ping({"Server": "Docker/1"}) is None
    assert from_version({"hello": "world"}) is None
    assert from_version([]) is None


def test_podman_is_asked_for_no_more_than_a_ping(world: World) -> None:
    """Its /version takes half a second."""
    asked = world.engine(
        "podman", podman("4.3.1"), {"Api-Version": "1.41", "Libpod-Api-Version": "4.3.1"}
    )
    assert world.where() == "podman"
    assert asked == ["/_ping"]


def test_embedded_podman_that_does_not_start_shows_what_it_said(world: World) -> None:
    world.program("podman", "echo cannot set up storage >&2; exit 125")
    with pytest.raises(EnvironmentProblem, match="exit code 125") as problem:
        world.where()
    assert "cannot set up storage" in problem.value.why
    assert not list(Path(world.root, "run").glob("lading-*"))


def overlay_fails(world: World) -> list[str]:
    """The commands of the Podmans that are started one after the other where overlay fails."""
    world.program(
        "podman",
        f'echo "$@" >>{world.root}/commands\n'
        "echo \"Error: 'overlay' is not supported over overlayfs\" >&2; exit 125",
    )
    with pytest.raises(EnvironmentProblem, match="exit code 125"):
        world.where()
    return (world.root / "commands").read_text().splitlines()


def test_embedded_podman_falls_back_to_vfs_where_overlay_can_not_be(world: World) -> None:
    first, second = overlay_fails(world)
    assert "vfs" not in first
    root = world.root / "home/.local/share/lading/podman"
    assert f"--root {root} --runroot {root}/run --storage-driver vfs system service" in second
    assert any("vfs" in note for note in world.notes)


@pytest.mark.parametrize("variable", ["STORAGE_DRIVER", "CONTAINERS_STORAGE_CONF"])
def test_users_own_storage_is_not_replaced(world: World, variable: str) -> None:
    world.environ[variable] = "overlay"
    assert len(overlay_fails(world)) == 1
    assert world.notes == []


# ---------------------------------------------------------- the embedded Podman's settings


def test_podman_without_runc_where_crun_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with both versions of cgroups, what is missing is named, before a build."""
    monkeypatch.setattr("lading.engines.embedded._both_cgroups", lambda: True)
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        assert "--runtime" not in machine_options({"PATH": "/usr/bin"})
        return
    with pytest.raises(EnvironmentProblem) as caught:
        machine_options({"PATH": "/nonexistent"})
    assert "apt-get install runc" in str(caught.value)


def test_users_own_containers_conf_is_respected(tmp_path: Path) -> None:
    environ = {"CONTAINERS_CONF": "/etc/mine.conf"}
    assert machine_options(environ) == []
    assert machine_settings(environ, tmp_path) == {}
    assert not list(tmp_path.iterdir())


def test_limits_are_ours_where_root_may_not_raise_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource
    import tomllib

    hard = {resource.RLIMIT_NOFILE: 4096, resource.RLIMIT_NPROC: resource.RLIM_INFINITY}
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("lading.engines.embedded._may_raise_limits", lambda: False)
    monkeypatch.setattr("resource.getrlimit", lambda kind: (hard[kind], hard[kind]))
    made = machine_settings({}, tmp_path)
    settings = tomllib.loads(Path(made["CONTAINERS_CONF"]).read_text())
    assert settings == {
        "containers": {"default_ulimits": ["nofile=4096:4096", "nproc=32768:32768"]}
    }
    monkeypatch.setattr("lading.engines.embedded._may_raise_limits", lambda: True)
    assert machine_settings({}, tmp_path) == {}


def test_socket_paths_stay_short_enough_for_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    folder = private_folder({"XDG_RUNTIME_DIR": str(deep)})
    assert len(str(folder / "podman.sock")) < 108
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()


# ------------------------------------------------------------------- docker clients on PATH

NEW = 'echo "Docker version 28.2.2, build e6534b4"; [ "$1" = --version ]'
OLD = 'echo "Docker version 20.10.24+dfsg1, build 297e128"; [ "$1" = --version ]'
ANCIENT = 'echo "Docker version 19.03.8, build afacb8b"; [ "$1" = --version ]'
BUILDX = 'echo "Docker version 28.2.2, build e6534b4"'
STANDIN = 'echo "podman version 4.3.1"'


def client_in(folder: Path, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "docker"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("script", "build", "lacks"),
    [
        (BUILDX, ("buildx", "build"), ""),
        (OLD, ("build",), ""),
        (NEW, (), "28.2, without the plugin buildx"),
        (ANCIENT, (), "19.03, older than 20.10"),
        (STANDIN, (), "is not Docker's client (podman version 4.3.1)"),
        ("exit 1", (), "is not Docker's client (no version)"),
    ],
)
def test_what_a_client_can_do(
    tmp_path: Path, script: str, build: tuple[str, ...], lacks: str
) -> None:
    client = ask(client_in(tmp_path, script))
    assert (client.build, client.lacks) == (build, lacks)


def test_every_client_on_path_is_asked_and_the_first_that_can_is_taken(tmp_path: Path) -> None:
    first = client_in(tmp_path / "a", NEW)
    second = client_in(tmp_path / "b", OLD)
    client_in(tmp_path / "c", BUILDX)
    (tmp_path / "d").symlink_to(tmp_path / "a")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "docker").write_text("not a program")
    path = ":".join(str(tmp_path / name) for name in "adebc")
    asked = clients({"PATH": path})
    assert [client.path for client in asked][:2] == [first, second]
    assert len(asked) == 3
    assert capable(asked).path == second


def test_without_a_capable_client_the_error_lists_what_each_lacks(tmp_path: Path) -> None:
    new, ancient = client_in(tmp_path / "a", NEW), client_in(tmp_path / "b", ANCIENT)
    with pytest.raises(EnvironmentProblem, match="no docker client") as problem:
        capable(clients({"PATH": f"{tmp_path / 'a'}:{tmp_path / 'b'}"}))
    assert f"{new}: 28.2, without the plugin buildx" in problem.value.why
    assert f"{ancient}: 19.03, older than 20.10" in problem.value.why
    assert "docker-buildx" in problem.value.do
    with pytest.raises(EnvironmentProblem) as nothing:
        capable(clients({"PATH": str(tmp_path / "none")}))
    assert "no docker client on PATH" in nothing.value.why


def recorded(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], str]:
    """The arguments and the environment that a build hands to a docker client."""
    monkeypatch.setenv("DOCKER_CONTEXT", "another")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    client_in(
        tmp_path,
        f'[ "$1" = --version ] && {{ {version}; exit; }}\n'
        f'[ "$2" = version ] && {{ {version}; exit; }}\n'
        f'printf "%s\\n" "$@" >{tmp_path}/arguments; env >{tmp_path}/environment',
    )
    url = "unix:///x.sock"
    endpoint = Endpoint(url=url, where="x", client={"DOCKER_HOST": url, "DOCKER_CONTEXT": None})
    BuildKitBuilder(endpoint, {"PATH": str(tmp_path)}).build(
        Path("/context"), "localhost/x:1", platform="linux/arm64", log=print, cache=False
    )
    arguments = (tmp_path / "arguments").read_text().splitlines()
    return arguments, (tmp_path / "environment").read_text()


def test_build_by_an_old_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, environment = recorded(tmp_path, OLD, monkeypatch)
    text = " ".join(arguments)
    assert text.startswith("build --network none --progress plain --platform linux/arm64")
    assert "--tag localhost/x:1 --no-cache" in text
    assert text.endswith(" ".join([*no_proxies(), "/context"]))
    assert "DOCKER_HOST=unix:///x.sock\n" in environment
    assert "DOCKER_BUILDKIT=1\n" in environment
    assert "DOCKER_CONTEXT" not in environment
    assert "SOURCE_DATE_EPOCH" not in environment


def test_build_by_buildx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, _ = recorded(tmp_path, BUILDX, monkeypatch)
    assert arguments[:5] == ["buildx", "build", "--load", "--builder", "default"]


def test_build_that_docker_drops_is_tried_once_more(tmp_path: Path) -> None:
    client_in(
        tmp_path,
        f'[ "$1" = --version ] && {{ {OLD}; exit; }}; [ "$2" = version ] && exit 1\n'
        f"echo x >>{tmp_path}/tries; echo 'ERROR: no such job abc'; exit 1",
    )
    builder = BuildKitBuilder(Endpoint(url="unix:///x", where="x"), {"PATH": str(tmp_path)})
    with pytest.raises(BuildFailed, match="building t failed"):
        builder.build(tmp_path, "t", platform="linux/amd64", log=print, cache=True)
    assert (tmp_path / "tries").read_text() == "x\nx\n"


def test_all_proxy_names_are_emptied_in_both_spellings() -> None:
    words = no_proxies()
    for name in ("HTTP_PROXY=", "https_proxy=", "no_proxy=", "ALL_PROXY=", "ftp_proxy="):
        assert name in words
    assert len(words) == 20


# ------------------------------------------------------------------ what builders print

BUILDKIT = """\
#5 [1/3] FROM localhost/base:1
#5 DONE 0.0s

#6 [stage-1 2/3] RUN sleep 1 && make test
#6 sha256:76ed02a4c3011a7134d69accdd7e33f32c408fa611454b5814bfae21eb9406fc
#6 0.122 all is well

#7 [build 2/3] RUN make
#7 0.182 no rule
#7 ERROR: executor failed running [/bin/sh -c make]: exit code: 2
#6 0.190 still going
#6 CANCELED
------
 > [build 2/3] RUN make:
------
executor failed running [/bin/sh -c make]: exit code: 2
""".splitlines()

PODMAN = """\
[1/2] STEP 1/2: FROM localhost/base:1
[1/2] STEP 2/2: RUN make
--> 7d614c4e204
[2/2] STEP 1/2: FROM localhost/base:1
[2/2] STEP 2/2: RUN make install
no rule
Error: building at STEP "RUN make install": while running runtime: exit status 2
""".splitlines()


def test_failing_step() -> None:
    assert failing_step(BUILDKIT) == "[build 2/3] RUN make"
    assert failing_step(PODMAN) == "[2/2] STEP 2/2: RUN make install"
    assert failing_step(["STEP 1/2: FROM x", "STEP 2/2: RUN y", "Error: z"]) == "STEP 2/2: RUN y"
    newer = ["#9 [2/2] RUN x", '#9 ERROR: process "/bin/sh -c x" did not complete: exit code: 1']
    assert failing_step(newer) == "[2/2] RUN x"
    assert failing_step(["Dockerfile:2", "ERROR: failed to solve: unknown instruction"]) == ""
    assert failing_step([]) == ""


def test_last_lines_are_thirty_that_say_something() -> None:
    lines = last_lines([*BUILDKIT, *(f"line {number}" for number in range(25))])
    assert len(lines) == 30
    assert lines[-1] == "line 24"
    assert "" not in last_lines(BUILDKIT)
    assert not any("sha256:" in line for line in last_lines(BUILDKIT))


def test_build_failed_reads_well() -> None:
    error = BuildFailed("localhost/x:1", "[2/3] RUN make", ["no rule", "exit code: 2"])
    assert str(error) == (
        "building localhost/x:1 failed at [2/3] RUN make\n  no rule\n  exit code: 2"
    )
    assert isinstance(error, LadingError) and error.exit_code == 1


@given(st.text(), st.integers(1, 7))
def test_lines_do_not_depend_on_where_the_stream_is_cut(text: str, size: int) -> None:
    data = text.encode("utf-8", "surrogatepass")
    cut: list[str] = []
    pieces = [(data[start : start + size], None) for start in range(0, len(data), size)]
    assert all_lines(pieces, cut.append) == data.decode(errors="replace")
    whole: list[str] = []
    all_lines([(data, None)], whole.append)
    assert cut == whole
    assert len(whole) == len(data.split(b"\n")) - data.endswith(b"\n") - (not data)


def test_no_line_has_something_of_both_streams() -> None:
    seen: list[str] = []
    pieces = [(b"one\nt", None), (None, b"err"), (b"wo\nla", None), (None, b"or\nmore")]
    assert all_lines(pieces, seen.append) == "one\ntwo\nerror\nla\nmore"
    assert seen == ["one", "two", "error", "la", "more"]


def test_lines_of_text() -> None:
    seen: list[str] = []
    lines = Lines(seen.append)
    lines.feed("a\r\nb")
    assert seen == ["a"]
    lines.feed("c\n\nd")
    lines.end()
    assert seen == ["a", "bc", "", "d"]


# ------------------------------------------------------------------------- the context's tar


def make_context(folder: Path, names: list[str]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 700)
    (folder / "link").symlink_to("nowhere")
    (folder / "empty").mkdir()
    (folder / "tool").write_text("x")
    (folder / "tool").chmod(0o755)


def test_context_tar_is_the_same_whatever_the_order_times_and_owners(tmp_path: Path) -> None:
    names = ["Dockerfile", "b/c", "b/é" + "x" * 120, "a/" + "d" * 110 + "/f", "zero/" + "e" * 99]
    make_context(tmp_path / "one", names)
    make_context(tmp_path / "two", names[::-1])
    one, two = (b"".join(context_tar(tmp_path / name)) for name in ("one", "two"))
    assert one == two
    with tarfile.open(fileobj=io.BytesIO(one)) as tar:
        members = tar.getmembers()
        assert [member.name for member in members[1:]] == sorted(
            (member.name for member in members[1:]), key=lambda name: Path(name)
        )
        assert {(member.uid, member.gid, member.mtime) for member in members} == {(0, 0, 0)}
        for name in names:
            file = tar.extractfile(name)
            assert file is not None and file.read() == name.encode() * 700
        assert tar.getmember("link").linkname == "nowhere"
        assert tar.getmember("empty").isdir()
        assert tar.getmember("tool").mode == 0o755


def test_context_tar_comes_in_pieces(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(50 << 20)
    assert max(len(piece) for piece in context_tar(tmp_path)) <= 1 << 20


def test_context_file_that_shrinks_while_it_is_sent(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(3 << 20))
    pieces = context_tar(tmp_path)
    for _ in range(3):
        next(pieces)
    (tmp_path / "big").write_bytes(b"")
    with pytest.raises(LadingError, match="changed while"):
        list(pieces)


# --------------------------------------------------------------------------------- the fake


def test_fake_records_and_fails_when_told(tmp_path: Path) -> None:
    fake = RecordingEngine()
    engine: Engine = fake
    (tmp_path / "Dockerfile").write_text('FROM x\nLABEL a="b c" \\\n  org.key="1"\nRUN y\n')
    log: list[str] = []
    made = engine.build(tmp_path, "localhost/x:1", platform="linux/amd64", log=log.append)
    assert engine.images("org.key") == {"1": made}
    info = engine.inspect("localhost/x:1")
    assert info is not None and info.labels == {"a": "b c", "org.key": "1"}
    engine.tag("localhost/x:1", "localhost/x:2")
    engine.remove("localhost/x:1")
    assert engine.inspect("localhost/x:1") is None
    assert engine.inspect(made) == info
    assert [name for name, _ in fake.calls][:2] == ["build", "images"]
    assert fake.named("tag") == [{"image": "localhost/x:1", "ref": "localhost/x:2"}]
    fake.failures["run"] = EnvironmentProblem("gone")
    with pytest.raises(EnvironmentProblem):
        engine.run("localhost/x:2", ["true"])
    with pytest.raises(LadingError):
        engine.tag("localhost/none:1", "localhost/y:1")


def test_import_is_light() -> None:
    heavy = "docker requests urllib3 subprocess socket http.client"
    code = (
        "import sys; before = set(sys.modules); import lading.engines;"
        f" print([name for name in {heavy.split()!r} if name in set(sys.modules) - before])"
    )
    environ: Mapping[str, str] = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
