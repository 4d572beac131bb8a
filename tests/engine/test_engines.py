"""One suite for both engines: what the rest of lading relies on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import closing
from pathlib import Path

import docker
import pytest

from lading.engines import BuildFailed, Engine, Mount, connect, sdk
from lading.errors import EnvironmentProblem, LadingError
from tests.conftest import needs
from tests.support import engines, images

PLATFORM = "linux/amd64"


def build(
    engine: Engine, context: Path, dockerfile: str, tag: str, cache: bool = True
) -> tuple[str, list[str]]:
    """Builds a Dockerfile on the tiny base; the image's id and the log."""
    (context / "Dockerfile").write_text(f"FROM {images.BASE}\n{dockerfile}")
    log: list[str] = []
    found = engine.build(context, tag, platform=PLATFORM, log=log.append, cache=cache)
    return found, log


def containers(running: engines.Running) -> list[object]:
    with closing(docker.DockerClient(base_url=running.url)) as client:
        return list(client.containers.list(all=True))


def test_engine_is_recognised(engine: Engine, running: engines.Running) -> None:
    assert engine.kind == running.kind
    assert engine.version[0].isdigit()
    assert running.url in engine.where


def test_load_gives_the_id_and_inspect_what_is_in_it(
    engine: Engine, tiny: images.TinyImage, tmp_path: Path
) -> None:
    images.write_archive(tiny, tmp_path / "x.tar", "localhost/lading/test-load:1")
    assert engine.load(tmp_path / "x.tar") == tiny.id
    info = engine.inspect("localhost/lading/test-load:1")
    assert info is not None
    assert info.id == tiny.id
    assert info.labels == {"tiny": "yes"}
    assert info.diff_ids == (images.digest(tiny.layer),)
    assert info.env == ("PATH=/bin",)
    assert info.cmd == ("/bin/sh",)
    assert info.entrypoint == ()
    assert (info.user, info.architecture, info.os) == ("", "amd64", "linux")
    assert 0 < info.size < 2 * len(tiny.layer)


def test_load_of_what_is_no_image_is_an_error(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"no tar at all" * 1000)
    with pytest.raises(LadingError, match="loading"):
        engine.load(tmp_path / "x.tar")


def test_build_binds_the_context(engine: Engine, base: str, context: Path) -> None:
    (context / "wheels").mkdir()
    (context / "wheels" / "a file").write_text("from the context\n")
    found, log = build(
        engine,
        context,
        "ARG SOURCE_DATE_EPOCH=1600000000\n"
        "RUN --mount=type=bind,target=/dev/shm/x"
        " cat '/dev/shm/x/wheels/a file' >/copied; ls /dev/shm\n"
        'RUN echo "epoch $SOURCE_DATE_EPOCH"; id\n'
        'LABEL lading.test="a b"\n',
        "localhost/lading/test-build:1",
    )
    text = "\n".join(log)
    assert "epoch 1600000000" in text
    assert any("RUN --mount=type=bind" in line for line in log)
    result = engine.run(found, ["/bin/cat", "/copied"])
    assert result.output == "from the context\n"
    # the mount's place leaves nothing behind
    assert engine.run(found, ["/bin/ls", "/dev/shm"]).output == ""


def test_build_cannot_reach_this_machine(engine: Engine, base: str, context: Path) -> None:
    """Only the loopback is there: the number of interfaces, not their names, decides."""
    _, log = build(
        engine,
        context,
        "RUN while read -r name rest; do case $name in *:*) echo interface=$name;; esac;"
        " done </proc/net/dev\n",
        "localhost/lading/test-network:1",
        cache=False,
    )
    found = [
        line.split("interface=")[1] for line in log if "interface=" in line and "$" not in line
    ]
    assert [name.split(":")[0] for name in found] == ["lo"]


def test_build_uses_the_cache_unless_told_not_to(engine: Engine, base: str, context: Path) -> None:
    # Two steps: of one alone, a build on Podman keeps nothing.
    step, tag = "RUN echo ran-$((40 + 2))\nRUN true\n", "localhost/lading/test-cache:1"
    _, first = build(engine, context, step, tag, cache=False)
    _, second = build(engine, context, step, tag)
    _, third = build(engine, context, step, tag, cache=False)
    ran = [any("ran-42" in line for line in log) for log in (first, second, third)]
    assert ran == [True, False, True]


def test_build_that_fails_names_the_step(engine: Engine, base: str, context: Path) -> None:
    with pytest.raises(BuildFailed) as failure:
        build(
            engine,
            context,
            "RUN echo fine\nRUN echo this is why >&2; exit 3\nRUN echo never\n",
            "localhost/lading/test-fail:1",
        )
    assert "RUN echo this is why >&2; exit 3" in failure.value.step
    assert any(line.endswith("this is why") for line in failure.value.lines)
    assert failure.value.exit_code == 1
    assert engine.inspect("localhost/lading/test-fail:1") is None


def test_build_of_a_dockerfile_that_is_none(engine: Engine, base: str, context: Path) -> None:
    with pytest.raises(BuildFailed) as failure:
        build(engine, context, "NONSENSE x\n", "localhost/lading/test-nonsense:1")
    assert "NONSENSE" in failure.value.why.upper()


def test_build_may_be_silent_for_longer_than_the_timeout(
    running: engines.Running, base: str, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "TIMEOUT", 1)
    engine = connect(running.environ)
    build(engine, context, "RUN sleep 3\n", "localhost/lading/test-slow:1", cache=False)
    assert engine.run(base, ["/bin/sleep", "3"]).code == 0
    engine.close()


def test_proxies_of_this_machine_reach_no_build(
    running: engines.Running,
    base: str,
    context: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = "http://user:hunter2@proxy.example:3128"
    proxies = {"httpProxy": secret, "httpsProxy": secret, "noProxy": "hunter2", "allProxy": secret}
    (tmp_path / "config.json").write_text(json.dumps({"proxies": {"default": proxies}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("https_proxy", secret)
    engine = connect(running.environ)
    tag = "localhost/lading/test-proxy:1"
    _, log = build(engine, context, "RUN env; env >/seen\n", tag, cache=False)
    assert any("PATH=/bin" in line for line in log)
    assert "hunter2" not in "\n".join(log)
    assert "hunter2" not in engine.run(tag, ["/bin/env"]).output
    archive = b"".join(engine.save(tag))
    assert b"hunter2" not in archive
    engine.close()


def test_images_lists_by_label_the_newest_of_each(engine: Engine, base: str, context: Path) -> None:
    ids: dict[str, str] = {}
    for value in ("one", "two", "two"):
        ids[value], _ = build(
            engine,
            context,
            f"RUN echo {len(ids)} >/made\nLABEL org.example.key={value}\n",
            f"localhost/lading/test-{value}:1",
            cache=False,
        )
    assert engine.images("org.example.key") == ids
    assert engine.images("org.example.none") == {}
    # One name is enough for an image to count; without a name it counts.
    apart = "localhost/lading/test-one"
    assert engine.images("org.example.key", apart=apart) == {"two": ids["two"]}
    engine.tag(ids["one"], "localhost/lading/test-three:1")
    assert engine.images("org.example.key", apart=apart) == ids
    engine.remove("localhost/lading/test-three:1")


def test_tag_and_remove(engine: Engine, base: str, context: Path) -> None:
    found, _ = build(engine, context, "RUN echo tag >/t\n", "localhost/lading/test-tag:1")
    engine.tag(found, "localhost/lading/test-tag:2")
    engine.tag("localhost/lading/test-tag:1", "localhost/lading/test-tag:3")
    engine.remove("localhost/lading/test-tag:1")
    assert engine.inspect("localhost/lading/test-tag:1") is None
    info = engine.inspect("localhost/lading/test-tag:2")
    assert info is not None and info.id == found
    engine.remove(found)
    assert engine.inspect("localhost/lading/test-tag:3") is None
    engine.remove("localhost/lading/test-tag:3")


def test_run_as_apptainer_would(
    engine: Engine, running: engines.Running, base: str, tmp_path: Path
) -> None:
    (tmp_path / "read").write_text("mounted\n")
    (tmp_path / "written").mkdir(mode=0o777)
    (tmp_path / "written").chmod(0o777)
    # One pipe: of two, nobody knows in which order they are read.
    script = (
        "exec 2>&1; id; pwd; echo home=$HOME; cat /read; touch /mnt/made;"
        " touch $HOME/x && echo home-writable;"
        " ls -A $HOME; touch /tmp/y && echo tmp-writable; touch /opt/z || echo read-only;"
        " while read -r name rest; do case $name in *:*) echo interface=$name;; esac;"
        " done </proc/net/dev; touch /read || echo mount-read-only; exit 7"
    )
    seen: list[str] = []
    result = engine.run(
        base,
        ["/bin/sh", "-c", script],
        user="1234:4321",
        read_only=True,
        tmpfs=["/home/me", "/tmp"],
        mounts=[
            Mount(source=tmp_path / "read", target="/read"),
            Mount(source=tmp_path / "written", target="/mnt", read_only=False),
        ],
        env={"HOME": "/home/me", "A": "b c"},
        workdir="/home/me",
        line=seen.append,
    )
    assert result.code == 7
    assert "uid=1234" in result.output and "gid=4321" in result.output
    for expected in ("/home/me", "home=/home/me", "mounted", "home-writable", "x"):
        assert expected in seen
    for expected in ("tmp-writable", "read-only", "mount-read-only"):
        assert expected in seen
    interfaces = [line for line in seen if line.startswith("interface=")]
    assert [line.split(":")[0] for line in interfaces] == ["interface=lo"]
    assert "\n".join(seen) + "\n" == result.output
    assert (tmp_path / "written" / "made").exists()
    assert containers(running) == []


def test_run_replaces_what_is_not_utf8_and_ends_a_last_line(engine: Engine, base: str) -> None:
    seen: list[str] = []
    script = r"printf 'a\377b\nno newline \303\251'"
    result = engine.run(base, ["/bin/sh", "-c", script], line=seen.append)
    assert seen == ["a\ufffdb", "no newline é"]
    assert result.output == "a\ufffdb\nno newline é"


def test_without_a_network_a_container_still_has_a_name(engine: Engine, base: str) -> None:
    """MPICH does not start where it can't look up the name of the machine it is on."""
    look = (
        "read name </proc/sys/kernel/hostname\nwhile read -r _ names; do\n"
        'case " $names " in *" $name "*) exit 0;; esac; done </etc/hosts; exit 1'
    )
    result = engine.run(base, ["/bin/sh", "-c", look])
    assert result.code == 0, result.output


def test_run_gives_errors_too(engine: Engine, base: str) -> None:
    assert engine.run(base, ["/bin/sh", "-c", "echo said >&2"]).output == "said\n"


def test_run_does_not_hang_or_lose_output_of_short_lives(engine: Engine, base: str) -> None:
    for number in range(10):
        assert engine.run(base, ["/bin/sh", "-c", f"echo {number}"]).output == f"{number}\n"
    many = "n=0; while [ $n -lt 3000 ]; do echo line $n; n=$((n+1)); done"
    lines = engine.run(base, ["/bin/sh", "-c", many]).output.splitlines()
    assert lines == [f"line {number}" for number in range(3000)]


def test_run_of_a_program_without_arguments(engine: Engine, base: str) -> None:
    assert engine.run(base, ["/bin/id"]).output.startswith("uid=0")


def test_run_of_a_command_that_is_not_there(
    engine: Engine, running: engines.Running, base: str
) -> None:
    with pytest.raises(LadingError, match="/nope") as error:
        engine.run(base, ["/nope"])
    assert error.value.exit_code == 1
    assert "no such file" in error.value.why
    assert containers(running) == []


def test_run_of_an_image_that_is_not_there(engine: Engine) -> None:
    with pytest.raises(LadingError, match="localhost/none:1"):
        engine.run("localhost/none:1", ["/bin/id"])


def test_run_that_is_interrupted_leaves_no_container(
    engine: Engine, running: engines.Running, base: str
) -> None:
    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.run(base, ["/bin/sh", "-c", "echo x; sleep 100"], line=interrupt)
    assert containers(running) == []


def test_save_and_load_again(engine: Engine, base: str, context: Path, tmp_path: Path) -> None:
    tag = "localhost/lading/test-save:1"
    found, _ = build(engine, context, "RUN echo saved >/saved\nLABEL saved=yes\n", tag)
    archive = tmp_path / "saved.tar"
    with archive.open("wb") as file:
        file.writelines(engine.save(tag))
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        assert json.load(manifest)[0]["RepoTags"] == [tag]
    engine.remove(tag)
    assert engine.inspect(tag) is None
    assert engine.load(archive) == found
    assert engine.run(tag, ["/bin/cat", "/saved"]).output == "saved\n"


def test_save_of_what_is_not_there(engine: Engine) -> None:
    with pytest.raises(LadingError, match="saving localhost/none:1"):
        b"".join(engine.save("localhost/none:1"))
    with pytest.raises(LadingError, match="reading the files of localhost/none:1"):
        b"".join(engine.files("localhost/none:1"))


def test_files_that_nobody_reads_to_their_end(engine: Engine, base: str, context: Path) -> None:
    tag = "localhost/lading/test-files:1"
    build(engine, context, "COPY Dockerfile /\n", tag, cache=False)
    begun = engine.files(tag)
    assert next(begun)
    begun.close()  # type: ignore[attr-defined]
    engine.remove(tag)  # no container of it is left
    assert engine.inspect(tag) is None


def test_pull_by_digest_and_by_tag(engine: Engine, registry: str, tiny: images.TinyImage) -> None:
    digest = images.push(tiny, registry, "library/tiny", "3.9-slim")
    lines: list[str] = []
    by_digest = f"{registry}/library/tiny@{digest}"
    assert engine.pull(by_digest, platform=PLATFORM, log=lines.append) == tiny.id
    assert lines
    info = engine.inspect(by_digest)
    assert info is not None and info.id == tiny.id
    by_tag = f"{registry}/library/tiny:3.9-slim"
    assert engine.pull(by_tag, platform=PLATFORM, log=lines.append) == tiny.id


def test_pull_of_what_is_not_there(engine: Engine, registry: str) -> None:
    with pytest.raises(LadingError, match="pulling"):
        engine.pull(f"{registry}/library/none:1", platform=PLATFORM, log=lambda text: None)


@pytest.mark.parametrize("kind", ["docker", "podman"])
def test_engine_that_goes_away(kind: str, tiny: images.TinyImage, context: Path) -> None:
    needs(kind)
    with engines.private_engine(kind) as own:
        engine = connect(own.environ)
        images.write_archive(tiny, context / "base.tar")
        engine.load(context / "base.tar")
        (context / "Dockerfile").write_text(f"FROM {images.BASE}\nRUN echo begun; sleep 8\n")
        killed = threading.Event()

        def kill(text: str) -> None:
            if text.endswith("begun") and "RUN" not in text and not killed.is_set():
                killed.set()
                own.kill()

        with pytest.raises(EnvironmentProblem, match="went away while building") as problem:
            engine.build(context, "localhost/x:1", platform=PLATFORM, log=kill)
        assert killed.is_set()
        assert problem.value.exit_code == 2
        for ask in (
            lambda: engine.images("x"),
            lambda: engine.run(images.BASE, ["/bin/id"]),
            lambda: b"".join(engine.save(images.BASE)),
            lambda: b"".join(engine.files(images.BASE)),
        ):
            with pytest.raises(EnvironmentProblem, match="went away"):
                ask()
        with pytest.raises(EnvironmentProblem, match="no engine answers at DOCKER_HOST"):
            connect(own.environ)


KILLED = """
import os, sys, time
from lading.engines import embedded
service = embedded.Service.started("podman", os.environ, idle=2)
print(service.pid, flush=True)
time.sleep(100)
"""


def test_embedded_podman_ends_by_itself_when_the_run_is_killed() -> None:
    needs("podman")
    with engines.private_folder() as folder:
        run = subprocess.Popen(
            [sys.executable, "-c", KILLED],
            env={
                **engines.podman_environ(folder),
                "XDG_RUNTIME_DIR": str(folder),
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        with run:
            assert run.stdout is not None
            service = int(run.stdout.readline())
            time.sleep(5)  # longer than its idle timeout: it is kept, for the run goes on
            assert alive(service)
            run.send_signal(signal.SIGKILL)
        until = time.monotonic() + 30
        while alive(service) and time.monotonic() < until:
            time.sleep(0.1)
        assert not alive(service)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_embedded_podman_is_the_default_and_ends_with_the_run(
    tiny: images.TinyImage, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("podman")
    monkeypatch.setattr("lading.engines.contexts.DOCKER_SOCKET", "/nowhere/docker.sock")
    monkeypatch.setattr("lading.engines.contexts.PODMAN_SOCKET", "/nowhere/podman.sock")
    notes: list[str] = []
    with engines.private_folder() as folder:
        environ = {**engines.podman_environ(folder), "HOME": str(folder)}
        environ.pop("XDG_RUNTIME_DIR", None)
        engine = connect(environ, notes.append)
        assert engine.kind == "podman"
        assert len(notes) == 1 and "for the length of this run" in notes[0]
        images.write_archive(tiny, context / "base.tar")
        assert engine.load(context / "base.tar") == tiny.id
        build(engine, context, "RUN id\n", "localhost/embedded:1")
        assert engine.run("localhost/embedded:1", ["/bin/id"], user="1000:1000").code == 0
        engine.close()
        with pytest.raises(EnvironmentProblem):
            engine.images("x")


def test_context_with_awkward_names_arrives(engine: Engine, base: str, context: Path) -> None:
    deep = context / ("d" * 120) / ("é" * 60)
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(os.urandom(3 << 20))
    (context / "link").symlink_to("Dockerfile")
    (context / "run.sh").write_text("#!/bin/sh\necho executable\n")
    (context / "run.sh").chmod(0o755)
    found, _ = build(engine, context, "COPY . /opt/\n", "localhost/lading/test-names:1")
    script = "/opt/run.sh; cat /opt/link; ls /opt/d*/*"
    output = engine.run(found, ["/bin/sh", "-c", script]).output
    assert output.startswith("executable\nFROM localhost")
    assert output.endswith("f\n")
