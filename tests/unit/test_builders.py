"""builder: how builds get elsewhere and back, and who takes over where one goes away."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import socket
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lading.archive import layout
from lading.engines import BuildFailed, buildkit, contexts, hosts, ssh
from lading.engines.failure import failing_step
from lading.engines.hosts import Below, BuildxHost, EngineHost, Job, Pool
from lading.engines.rawjson import Progress
from lading.engines.wire import WentAway
from lading.errors import DeclarationError, EnvironmentProblem
from lading.plan import KEY_LABEL
from lading.project import load
from tests.support.projects import Tiny, Trial, tiny_archive

# -- what a builder prints --------------------------------------------------------------------

STARTED = "2026-11-23T07:48:28.897582834Z"
ENDED = "2026-11-23T07:48:29.307113619Z"
A, B = "sha256:9cca341dbf91", "sha256:14e5aff6970b"
TEXT = 'process "/bin/sh -c echo one; exit 3" did not complete successfully: exit code: 3'


def log(vertex: str, data: str, at: str = ENDED) -> dict[str, Any]:
    coded = base64.b64encode(data.encode()).decode()
    return {"logs": [{"vertex": vertex, "stream": 1, "data": coded, "timestamp": at}]}


def vertex(digest: str, name: str, **more: Any) -> dict[str, Any]:
    return {"vertexes": [{"digest": digest, "name": name, **more}]}


RECORDED = [
    vertex(A, "[2/3] RUN echo one; exit 3"),
    vertex(A, "[2/3] RUN echo one; exit 3", started=STARTED),
    vertex(B, "[1/3] COPY a /", started=STARTED, cached=True),
    {"statuses": [{"id": "transferring context:", "vertex": B, "current": 2}]},
    log(A, "one\nha"),
    log(B, "another step\n"),
    log(A, "lf"),
    vertex(B, "[1/3] COPY a /", started=STARTED, completed=ENDED, cached=True),
    vertex(A, "[2/3] RUN echo one; exit 3", started=STARTED, completed=ENDED, error=TEXT),
]
"""What buildx 0.29 said of a build that failed, cut down to what counts."""
PLAIN = [
    "#1 [2/3] RUN echo one; exit 3",
    "#2 [1/3] COPY a /",
    "#2 CACHED",
    "#1 0.410 one",
    "#2 0.410 another step",
    "#1 0.410 half",
    f"#1 ERROR: {TEXT}",
    f"ERROR: failed to solve: {TEXT}",
]


@pytest.mark.parametrize("indent", [None, 2])
def test_rawjson_is_told_as_plain_lines(indent: int | None) -> None:
    """buildx 0.29 writes an object a line, 0.13 folds it over many."""
    lines: list[str] = []
    progress = Progress(lines.append)
    for status in RECORDED:
        for text in json.dumps(status, indent=indent).splitlines():
            progress.feed(text)
    progress.feed(f"ERROR: failed to solve: {TEXT}")
    progress.end()
    assert lines == PLAIN
    assert failing_step(lines) == "[2/3] RUN echo one; exit 3"


def test_rawjson_that_is_cut_off_or_is_none_is_passed_on() -> None:
    lines: list[str] = []
    progress = Progress(lines.append)
    for text in ("WARN: x", "[1]", '{"vertexes": [', "{"):
        progress.feed(text)
    progress.end()
    assert lines == ["WARN: x", "[1]", '{"vertexes": [', "{"]


@pytest.mark.parametrize(
    "text",
    ['{"logs":[{"data":"abc"}]}', '{"logs":[{"data":5}]}', '{"vertexes":[1]}', '{"logs":{"a":1}}'],
)
def test_json_that_is_no_rawjson_is_passed_on(text: str) -> None:
    lines: list[str] = []
    progress = Progress(lines.append)
    progress.feed(text)
    progress.end()
    assert lines == [text]


# -- where builders are -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "builder",
    ["far", "[a, b.example]", "ssh://me@far.example:22", "default", "unix:///run/a@b.sock"],
)
def test_builders_that_can_be_declared(tmp_path: Path, builder: str) -> None:
    trial = Trial.make(tmp_path / "project")
    key = trial.key("one")
    path = trial.root / "project.yaml"
    path.write_text(path.read_text().replace("name: trial", f"name: trial\nbuilder: {builder}"))
    found = load(path).builder
    assert found == tuple(builder.strip("[]").split(", "))
    assert trial.key("one") == key, "where an image is built is not what it is"


@pytest.mark.parametrize(
    "builder",
    [
        *("[]", "[a, a]", "ftp://x", "'a b'", "--push", "ssh://a;b"),
        *("ssh://me:secret@far", "ssh://me:se@cret@far", "ssh://"),
    ],
)
def test_builders_that_can_not(tmp_path: Path, builder: str) -> None:
    trial = Trial.make(tmp_path / "project")
    path = trial.root / "project.yaml"
    path.write_text(path.read_text().replace("name: trial", f"name: trial\nbuilder: {builder}"))
    with pytest.raises(DeclarationError, match="builder"):
        load(path)


def test_a_name_is_an_address_or_a_context_or_neither(tmp_path: Path) -> None:
    environ = {"DOCKER_CONFIG": str(tmp_path)}
    address = contexts.place("ssh://far", environ)
    assert address is not None
    assert address.client == {"DOCKER_HOST": "ssh://far", "DOCKER_CONTEXT": None}
    assert contexts.place("far", environ) is None
    meta = tmp_path / "contexts/meta" / hashlib.sha256(b"far").hexdigest() / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Endpoints": {"docker": {"Host": "tcp://10.0.0.1:2376"}}}))
    context = contexts.place("far", environ)
    assert context is not None
    assert (context.url, context.builder) == ("tcp://10.0.0.1:2376", "far")
    strange: Any
    for strange in ([], {"docker": []}, {"docker": {"Host": ["x"]}}):
        meta.write_text(json.dumps({"Endpoints": strange}))
        with pytest.raises(EnvironmentProblem, match="context 'far' has no Docker endpoint"):
            contexts.place("far", environ)


def test_a_name_that_nothing_has(tmp_path: Path) -> None:
    environ = {"DOCKER_CONFIG": str(tmp_path), "PATH": str(tmp_path)}
    with pytest.raises(EnvironmentProblem, match="there is no builder 'far'") as problem:
        hosts.opened("far", environ)
    assert "buildx" in problem.value.why
    with pytest.raises(EnvironmentProblem, match="no engine answers at unix:///nowhere"):
        hosts.opened("unix:///nowhere", environ)


# -- a base, lent -----------------------------------------------------------------------------


def test_an_archive_as_an_image_layout(tmp_path: Path) -> None:
    archive, out = tmp_path / "base.tar", tmp_path / "layout"
    archive.write_bytes(tiny_archive({"a": "b"}))
    layout.write(archive, out)
    digest = layout.reference(out).rpartition("@sha256:")[2]
    assert layout.reference(out) == f"oci-layout://{out}:base@sha256:{digest}"
    for blob in (out / "blobs/sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    manifest = json.loads((out / "blobs/sha256" / digest).read_bytes())
    config = out / "blobs/sha256" / manifest["config"]["digest"].removeprefix("sha256:")
    told = json.loads(config.read_bytes())
    layers = [layer["digest"] for layer in manifest["layers"]]
    assert layers == told["rootfs"]["diff_ids"], "what is lent is what an engine would load"
    with tarfile.open(archive) as saved:
        assert manifest["config"]["size"] == saved.getmember("config.json").size


# -- a builder of docker buildx ---------------------------------------------------------------


def buildx(tmp_path: Path, script: str, running: bool = True) -> buildkit.Client:
    """A docker client with buildx that writes down its arguments, and then does what is said."""
    path = tmp_path / "docker"
    status = "running" if running else "inactive"
    path.write_text(
        f'#!/bin/sh\n[ "$2" = inspect ] && {{ echo "Status:  {status}"; exit 0; }}\n'
        f'printf "%s\\n" "$@" >{tmp_path}/arguments\n{script}\n'
    )
    path.chmod(0o755)
    return buildkit.Client(path=path, build=("buildx", "build"), progress="rawjson")


def job(tmp_path: Path, **more: Any) -> Job:
    (tmp_path / "context").mkdir(exist_ok=True)
    given = {"tag": "localhost/x:1", "key": "k", "platform": "linux/amd64", "log": _nothing, **more}
    return Job(context=tmp_path / "context", **given)


def _nothing(text: str) -> None:
    pass


def test_what_buildx_is_asked(tmp_path: Path) -> None:
    lent = tmp_path / "lent"
    (tmp_path / "base.tar").write_bytes(tiny_archive({}))
    layout.write(tmp_path / "base.tar", lent)
    base = Below(reference="localhost/lading/base/b:1", layout=lambda: lent)
    client, out = buildx(tmp_path, ""), tmp_path / "out.tar"
    BuildxHost("far", client).build(job(tmp_path, below=(base,), cache=False), out)
    words = (tmp_path / "arguments").read_text().splitlines()
    assert words[:4] == ["buildx", "build", "--builder", "far"]
    assert words[5] == f'type=docker,compression=uncompressed,"dest={out}"'
    assert f"localhost/lading/base/b:1={layout.reference(lent)}" in words
    for pair in (["--progress", "rawjson"], ["--network", "none"], ["--tag", "localhost/x:1"]):
        assert words[words.index(pair[0]) + 1] == pair[1]
    assert "--no-cache" in words
    assert words[-1] == str(tmp_path / "context")


def test_a_step_that_fails_is_not_the_builders_fault(tmp_path: Path) -> None:
    said = "\n".join([*map(json.dumps, RECORDED), f"ERROR: failed to solve: {TEXT}"])
    (tmp_path / "said").write_text(said)
    client = buildx(tmp_path, f"cat {tmp_path}/said; exit 1", running=False)
    lines: list[str] = []
    with pytest.raises(BuildFailed) as failed:
        BuildxHost("far", client).build(job(tmp_path, log=lines.append), tmp_path / "out")
    assert failed.value.step == "[2/3] RUN echo one; exit 3"
    assert lines == PLAIN


@pytest.mark.parametrize(
    ("said", "running", "gone"),
    [
        ("ERROR: failed to receive status: rpc error: code = Unavailable desc = EOF", True, True),
        ("ERROR: context deadline exceeded", False, True),
        ("ERROR: something new", False, True),
        ("ERROR: something new", True, False),
    ],
)
def test_a_builder_that_goes_away(tmp_path: Path, said: str, running: bool, gone: bool) -> None:
    host = BuildxHost("far", buildx(tmp_path, f"echo '{said}'; exit 1", running=running))
    with pytest.raises(EnvironmentProblem if gone else BuildFailed) as problem:
        host.build(job(tmp_path), tmp_path / "out")
    assert said in problem.value.why


# -- several builders -------------------------------------------------------------------------


class Named(Tiny):
    """What it saves is called there as it was asked for, as in a real engine."""

    def save(self, ref: str) -> Iterator[bytes]:
        self._record("save", ref=ref)
        yield tiny_archive(self.held[ref].labels, ref)


class Far(EngineHost):
    """Another engine, which can be taken away."""

    def __init__(self) -> None:
        self.engine = Named()
        super().__init__(self.engine)

    def die(self) -> None:
        gone = EnvironmentProblem("the engine went away")
        for method in ("inspect", "build", "save", "load", "pull", "remove"):
            self.engine.failures[method] = gone


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> dict[str, Far]:
    """Two builders, a and b; a third one does not answer."""
    found = {"a": Far(), "b": Far()}

    def opened(name: str, environ: Mapping[str, str]) -> Far:
        if name not in found:
            raise EnvironmentProblem(f"there is no builder '{name}'")
        return found[name]

    monkeypatch.setattr(hosts, "opened", opened)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    return found


Said = pytest.CaptureFixture[str]


def trial_on(tmp_path: Path, builder: str) -> Trial:
    trial = Trial.make(tmp_path / "project")
    path = trial.root / "project.yaml"
    path.write_text(path.read_text().replace("name: trial", f"name: trial\nbuilder: {builder}"))
    return trial


def test_images_are_spread_and_come_back(tmp_path: Path, far: dict[str, Far], capsys: Said) -> None:
    trial = trial_on(tmp_path, "[a, b]")
    assert trial.doit("-n", "2") == 0
    assert trial.engine.named("build") == [], "nothing is built here"
    built = [len(host.engine.named("build")) for host in far.values()]
    assert sum(built) == 2, capsys.readouterr().out
    assert trial.holds("one")
    assert trial.holds("two")
    names = [name for name in trial.engine.held if "/build" in name]
    assert names == [], "what it was called on the way is forgotten"
    assert not any(KEY_LABEL in info.labels for info in far["a"].engine.held.values())
    assert not list(trial.root.glob("build/**/.built*"))


def test_another_takes_over_from_one_that_dies(
    tmp_path: Path, far: dict[str, Far], capsys: Said
) -> None:
    trial = trial_on(tmp_path, "[a, nosuch, b]")
    far["a"].engine.before["build"] = far["a"].die
    assert trial.doit() == 0
    said = capsys.readouterr().out
    assert said.count("builder a is not used any more in this run: the engine went away") == 1
    assert "builder nosuch is not used any more in this run: there is no builder" in said
    assert len(far["a"].engine.named("build")) == 1
    assert len(far["b"].engine.named("build")) == 2, "each once where it was finished"
    assert trial.holds("one")
    assert trial.holds("two")


def test_one_without_room_gets_no_more(tmp_path: Path, far: dict[str, Far], capsys: Said) -> None:
    trial = trial_on(tmp_path, "[a, b]")
    full = BuildFailed("x", "", ["write /x: No space left on device"])
    far["a"].engine.failures["build"] = full
    assert trial.doit() == 0
    assert "builder a is not used any more in this run: no room" in capsys.readouterr().out


def test_the_runs_own_engine_without_room_builds_no_more(
    tmp_path: Path, far: dict[str, Far], capsys: Said
) -> None:
    trial = trial_on(tmp_path, "[default, a]")
    full = BuildFailed("x", "", ["write /x: no space left on device"])
    trial.engine.failures["build"] = full
    assert trial.doit("build:one") == 0
    assert "builder default is not used any more in this run: no room" in capsys.readouterr().out
    assert len(far["a"].engine.named("build")) == 1


@pytest.mark.parametrize("full", ["said", "seen"])
def test_a_full_disk_here_is_no_builders_fault(
    tmp_path: Path, far: dict[str, Far], monkeypatch: pytest.MonkeyPatch, capsys: Said, full: str
) -> None:
    """What buildx writes comes through it: it says so as if the builder did."""
    trial = trial_on(tmp_path, "[a, b]")
    if full == "seen":
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))

    def build(job: Job, out: Path) -> None:
        said = f"ERROR: write {out}: no space left on device" if full == "said" else "EOF"
        raise BuildFailed(job.tag, "", [said]) if full == "said" else WentAway(said)

    monkeypatch.setattr(far["a"], "build", build)
    assert trial.doit("build:one") == 2
    said = capsys.readouterr().out
    assert "no room left on the disk while writing" in said
    assert "is not used any more" not in said


def test_a_builder_that_is_back_tries_it_again(
    tmp_path: Path, far: dict[str, Far], capsys: Said
) -> None:
    """Once: what takes it down each time is not tried for ever."""
    trial = trial_on(tmp_path, "a")

    def restarts() -> None:
        if len(far["a"].engine.named("build")) == 1:
            raise WentAway("the engine went away")

    far["a"].engine.before["build"] = restarts
    assert trial.doit("build:one") == 0
    assert "builder a went away, and is back" in capsys.readouterr().out
    far["a"].engine.failures["build"] = WentAway("the engine went away")
    assert trial.doit("build:two") == 2
    assert len(far["a"].engine.named("build")) == 4
    assert "the engine went away" in capsys.readouterr().out


def test_none_is_left(tmp_path: Path, far: dict[str, Far], capsys: Said) -> None:
    trial = trial_on(tmp_path, "[a, b]")
    for host in far.values():
        host.die()
    assert trial.doit() == 2
    said = capsys.readouterr().out
    assert "no builder is left for one" in said
    assert "`default` among `builder:`" in said
    assert trial.doit("build:one") == 2, "it is asked again in the next run"


def test_a_step_that_fails_is_tried_on_no_other(
    tmp_path: Path, far: dict[str, Far], capsys: Said
) -> None:
    trial = trial_on(tmp_path, "[a, b]")
    far["a"].engine.failures["build"] = BuildFailed("x", "RUN false", ["no"])
    assert trial.doit("build:one") == 1
    assert far["b"].engine.named("build") == []


def test_the_runs_own_engine_among_them(tmp_path: Path, far: dict[str, Far]) -> None:
    trial = trial_on(tmp_path, "[default, a]")
    assert trial.doit() == 0
    assert len(trial.engine.named("build")) == 2, "one after the other, the first has time"


def test_what_a_killed_run_left_there_is_taken(tmp_path: Path, far: dict[str, Far]) -> None:
    trial = trial_on(tmp_path, "a")
    key = trial.key("one")
    far["a"].engine.hold(f"localhost/lading/build:{key[:16]}", {KEY_LABEL: key})
    assert trial.doit("build:one") == 0
    assert far["a"].engine.named("build") == []
    assert trial.holds("one")


def test_a_run_is_killed_before_it_has_its_name_here(tmp_path: Path, far: dict[str, Far]) -> None:
    """What it was called on the way is known to be this project's."""
    trial = trial_on(tmp_path, "a")

    def killed() -> None:
        raise KeyboardInterrupt

    trial.engine.before["tag"] = killed
    with suppress(KeyboardInterrupt):
        trial.doit("build:one")
    trial.engine.before.clear()
    name = f"localhost/lading/build:{trial.key('one')[:16]}"
    assert name in trial.engine.held
    assert trial.doit("prune", "--force") == 0
    assert name not in trial.engine.held


def test_an_image_can_say_otherwise(tmp_path: Path, far: dict[str, Far]) -> None:
    trial = trial_on(tmp_path, "a")
    path = trial.root / "project.yaml"
    path.write_text(path.read_text().replace("  two:\n", "  two:\n    builder: b\n"))
    assert trial.doit() == 0
    assert [len(host.engine.named("build")) for host in far.values()] == [1, 1]


def test_the_one_with_the_least_to_do_is_lent() -> None:
    pool = Pool(lambda name: Far(), lambda text: None)
    with (
        pool.lent(["a", "b"], "x") as first,
        pool.lent(["a", "b"], "y") as second,
        pool.lent(["a", "b"], "z") as third,
    ):
        assert [slot.name for slot in (first, second, third)] == ["a", "b", "a"]
        pool.lose(first, "gone")
        with pool.lent(["a", "b"], "x") as fourth:
            assert fourth.name == "b"


# -- an engine behind ssh -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ssh://Far", ["--", "Far", "docker", "system", "dial-stdio"]),
        ("ssh://me@far:2222", ["-l", "me", "-p", "2222", "--", "far", "docker"]),
        ("ssh://far/run/d.sock", ["docker", "--host", "unix:///run/d.sock", "system"]),
        ("ssh://-oProxyCommand=x", ["--", "-oProxyCommand=x", "docker"]),
    ],
)
def test_how_ssh_is_asked_for_an_engine(url: str, words: list[str]) -> None:
    said = " ".join(ssh.command(url))
    assert said.startswith("ssh -T -o BatchMode=yes")
    assert " ".join(words) in said


@pytest.mark.parametrize("url", ["ssh://", "ssh://far:x"])
def test_an_address_that_ssh_has_no_use_for(url: str) -> None:
    with pytest.raises(EnvironmentProblem, match="no address of an engine"):
        ssh.command(url)


@pytest.mark.parametrize("url", ["ssh://me:secret@far", "ssh://me:se@cret@far:x/run/d.sock"])
def test_an_address_with_a_password_is_not_shown(url: str) -> None:
    with pytest.raises(EnvironmentProblem, match="has a password in it") as problem:
        ssh.command(url)
    assert "cret" not in str(problem.value)


def stand_in(tmp_path: Path, script: str) -> dict[str, str]:
    """An environment whose ssh is this script."""
    path = tmp_path / "ssh"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_each_connection_is_an_ssh_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = stand_in(tmp_path, f"echo x >>{tmp_path}/began; exec cat")
    monkeypatch.setenv("PATH", environ["PATH"])
    tunnel = ssh.Tunnel("ssh://far", environ)
    path = tunnel.url.removeprefix("unix://")
    try:
        for text in (b"one\n", b"two\n"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(path)
                connection.sendall(text)
                assert connection.recv(16) == text
    finally:
        tunnel.end()
    assert (tmp_path / "began").read_text() == "x\nx\n"
    assert not Path(path).exists()
    assert all(one.poll() is not None for one in tunnel._running)


@pytest.mark.parametrize(
    ("script", "said"),
    [("echo Permission denied >&2; exit 255", "Permission denied"), (None, "ssh can't be run")],
)
def test_what_ssh_says_is_what_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, said: str
) -> None:
    environ = stand_in(tmp_path, script) if script else {"PATH": str(tmp_path / "none")}
    monkeypatch.setenv("PATH", environ["PATH"])
    with pytest.raises(EnvironmentProblem, match="no engine answers at ssh://far") as problem:
        hosts.opened("ssh://far", environ)
    assert said in problem.value.why
