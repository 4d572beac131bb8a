"""What one machine has pushed, another one does not make; and a registry that fails."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lading import claims, net
from lading import plan as plans
from lading.archive import writing
from lading.errors import LadingError
from lading.files import canonical_json
from lading.parts import PRODUCT
from lading.plan import Part
from lading.registry import asking, kept, repository
from lading.registry.asking import Answer
from lading.verbs import part as part_verb
from lading.verbs import push
from tests.support.projects import YAML, Trial
from tests.support.registries import CUT, Registry, registry


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setattr(net, "BACKOFF", 0.0)
    monkeypatch.setattr(repository, "_PAUSE", 0.0)
    monkeypatch.setattr(asking, "PAUSE", 0.0)
    with registry() as running:
        yield running


@pytest.fixture
def trial(there: Registry, tmp_path: Path) -> Trial:
    yaml = YAML.replace("name: trial", f"name: trial\nregistry: {there.host}/group")
    return Trial.make(tmp_path / "project", yaml, HOME=str(tmp_path))


def cloned(trial: Trial, name: str = "fresh") -> Trial:
    """The same project on a machine that has nothing of it."""
    root = trial.root.parent / name
    away = shutil.ignore_patterns("build", "dist", ".doit.db", ".lading*")
    shutil.copytree(trial.root, root, ignore=away)
    environ = {**trial.environ, "LADING_CACHE": str(root.parent / f"{name}.cache"), "CI": "1"}
    return Trial(root, environ)


def sha256(trial: Trial, name: str) -> str:
    return hashlib.sha256((trial.root / f"dist/{name}.tar").read_bytes()).hexdigest()


def test_a_fresh_runner_makes_nothing(
    trial: Trial, there: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trial.doit("push") == 0
    assert {(name, tag) for name, tag in there.manifests if not tag.startswith("sha256")} == {
        ("group/one", "2026.11.01"),
        ("group/two", "2026.11.01"),
        ("group/one", trial.key("one")),
        ("group/two", trial.key("two")),
    }
    fresh = cloned(trial)
    there.asked.clear()
    capsys.readouterr()
    assert fresh.doit("push") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert fresh.engine.asked == []
    assert not (fresh.root / "dist").exists(), "nothing is downloaded"
    assert not [line for line in there.asked if not line.startswith(("HEAD", "GET"))]
    # The archive is the same file; still no engine is asked, and nothing is fetched.
    assert fresh.doit("archive:one") == 0
    assert "out of the registry" in capsys.readouterr().out
    assert fresh.engine.asked == []
    assert sha256(fresh, "one") == sha256(trial, "one")
    record = Path("dist/one.json")
    assert (fresh.root / record).read_bytes() == (trial.root / record).read_bytes()
    # Who wants it in the engine gets it there.
    assert fresh.doit("build:two") == 0
    assert [name for name in fresh.engine.asked if name in ("load", "build")] == ["load"]


def test_one_that_changed_is_made(trial: Trial, there: Registry) -> None:
    assert trial.doit("push") == 0
    fresh = cloned(trial)
    fresh.environ["LADING_CACHE"] = trial.environ["LADING_CACHE"]
    (fresh.root / "recipes" / "motd").write_text("changed\n")
    assert fresh.doit("push") == 0
    assert fresh.engine.asked.count("build") == 1
    assert ("group/two", fresh.key("two")) in there.manifests
    assert not (fresh.root / "dist/one.tar").exists()


def test_nothing_is_sent_twice(trial: Trial, there: Registry) -> None:
    assert trial.doit("push") == 0
    there.manifests.clear()
    there.asked.clear()
    assert trial.doit("push") == 0
    assert not [line for line in there.asked if line.startswith(("POST", "PATCH"))]
    assert ("group/one", trial.key("one")) in there.manifests


def test_what_is_there_is_asked_for_once_however_many_are_pushed(
    trial: Trial, there: Registry
) -> None:
    assert trial.doit("push:one") == 0
    there.asked.clear()
    assert trial.doit("push:one", "push:two", "push:spare") == 0
    for name, times in (("one", 1), ("two", 0), ("spare", 0)):
        asked = f"HEAD /v2/group/{name}/manifests/2026.11.01"
        assert there.asked.count(asked) == times, name
    assert there.asked.count(f"GET /v2/group/one/manifests/{trial.key('one')}") == 1


@pytest.mark.parametrize("takes", [0, 1, 700])
def test_a_push_that_is_cut_off_goes_on(trial: Trial, there: Registry, takes: int) -> None:
    there.takes = takes
    assert trial.doit("push:one") == 0
    assert all(
        f"sha256:{hashlib.sha256(content).hexdigest()}" == digest
        for digest, content in there.blobs.items()
    )
    assert ("group/one", trial.key("one")) in there.manifests
    if takes > 1:
        assert len([line for line in there.asked if line.startswith("PATCH")]) > 3


def test_a_push_that_gets_further_each_time_is_not_given_up(trial: Trial, there: Registry) -> None:
    """However often it is cut off, and although asking how far it came is cut off, too."""
    cut: list[str] = []

    def instead(line: str) -> int | None:
        if line.startswith("PATCH"):
            there.takes = 900
        if line.startswith("GET") and "/uploads/" in line:
            cut.append(line)
            return CUT if len(cut) % 3 else None
        return None

    there.instead = instead
    assert trial.doit("push:one") == 0
    assert len(cut) > 3 * repository._TRIES
    assert ("group/one", trial.key("one")) in there.manifests


@pytest.mark.parametrize("status", [307, 308])
def test_a_registry_that_is_elsewhere(trial: Trial, there: Registry, status: int) -> None:
    """What is sent is sent there, as it was; and nobody's permission is."""
    with registry() as storage:

        def moved(line: str) -> tuple[int, str] | None:
            method, _, path = line.partition(" ")
            return (
                (status, f"http://{storage.host}{path}")
                if method in ("POST", "PATCH", "PUT") and "/manifests/" not in line
                else None
            )

        there.instead = moved
        there.token = "repository:group/one:pull,push"
        assert trial.doit("push:one") == 0
        record = json.loads((trial.root / "dist/one.json").read_text())
        assert {record["config"], *(one["diff_id"] for one in record["layers"])} < set(
            storage.blobs
        )
        assert storage.shown == set()


def test_a_download_that_is_cut_off_goes_on(
    trial: Trial, there: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "_PIECE", 1000)
    assert trial.doit("push:one") == 0
    fresh = cloned(trial)

    def cut(line: str) -> None:
        if "GET /v2/group/one/blobs" in line:
            there.sends = 5000

    there.instead = cut
    assert fresh.doit("archive:one") == 0
    assert sha256(fresh, "one") == sha256(trial, "one")


@pytest.mark.parametrize(
    "method, status, code, words",
    [
        ("POST", 401, 2, "may not be pushed"),
        ("POST", 403, 2, "docker login"),
        ("PATCH", 500, 2, "does not take"),
        ("PATCH", 507, 2, "what it has is not sent twice"),
        ("PATCH", 413, 2, "HTTP 413"),
        ("PUT /v2/group/one/manifests", 400, 1, "does not take"),
        ("PUT /v2/group/one/manifests", 503, 2, "does not take"),
        ("PATCH", CUT, 2, "cut off"),
    ],
)
def test_a_registry_that_does_not_take_it(
    trial: Trial,
    there: Registry,
    capsys: pytest.CaptureFixture[str],
    method: str,
    status: int,
    code: int,
    words: str,
) -> None:
    there.instead = lambda line: status if line.startswith(method) else None
    assert trial.doit("push:one") == code
    assert words in capsys.readouterr().out
    assert ("group/one", trial.key("one")) not in there.manifests
    there.instead = lambda line: None
    assert trial.doit("push:one") == 0


def test_a_token_for_reading_is_not_one_for_writing(trial: Trial, there: Registry) -> None:
    there.token = "repository:group/one:pull,push"
    assert trial.doit("push:one") == 0
    assert any("push" in line for line in there.asked if line.startswith("GET /token"))


def test_a_registry_that_is_down_means_building(
    trial: Trial, there: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    there.instead = lambda line: 503
    assert trial.doit("archive") == 0
    output = capsys.readouterr().out
    assert output.count("does not serve us now; what it may have is made here") == 1
    assert (trial.root / "dist/one.tar").exists()
    assert trial.doit("push:one") == 2


def other(trial: Trial, there: Registry) -> tuple[str, bytes]:
    """The manifest of another image."""
    return there.manifests["group/two", trial.key("two")]


def pretended(trial: Trial, there: Registry) -> tuple[str, bytes]:
    """Another image's manifest that says it was made from this key."""
    kind, text = other(trial, there)
    manifest = json.loads(text)
    manifest["annotations"]["lading.key"] = trial.key("one")
    return kind, json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()


def of_docker(trial: Trial, there: Registry) -> tuple[str, bytes]:
    """What `docker push` makes of an image: its layers are compressed."""
    _, text = there.manifests["group/one", trial.key("one")]
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    return kind, json.dumps(json.loads(text) | {"mediaType": kind}).encode()


def no_manifest(trial: Trial, there: Registry) -> tuple[str, bytes]:
    return "application/vnd.oci.image.manifest.v1+json", b'{"annotations": 7, "layers": {}}'


def a_product(trial: Trial, there: Registry) -> tuple[str, bytes]:
    """What a source's build left, under an image's key."""
    tar = kept.Blob(digest=f"sha256:{'0' * 64}", size=1)
    kind, _ = other(trial, there)
    return kind, kept.product(trial.key("one"), tar).manifest


@pytest.mark.parametrize("instead", [other, pretended, of_docker, no_manifest, a_product])
def test_a_tag_that_holds_something_else_is_not_believed(
    trial: Trial, there: Registry, capsys: pytest.CaptureFixture[str], instead: object
) -> None:
    assert trial.doit("push") == 0
    assert callable(instead)
    there.manifests["group/one", trial.key("one")] = instead(trial, there)
    fresh = cloned(trial)
    fresh.environ["LADING_CACHE"] = trial.environ["LADING_CACHE"]
    capsys.readouterr()
    assert fresh.doit("archive:one") == 0
    assert "is not taken" in capsys.readouterr().out
    assert fresh.engine.asked.count("build") == 1
    assert sha256(fresh, "one") == sha256(trial, "one")
    # What is pushed next takes its place.
    assert fresh.doit("push:one") == 0
    assert fresh.doit("push:one") == 0
    assert "nothing to do" in capsys.readouterr().out


def test_an_image_that_was_another_one_before_is_not_believed(
    trial: Trial, there: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that can be seen of it is right; but this machine has found another one there."""
    assert trial.doit("push") == 0
    mine = cloned(trial)
    assert mine.doit("stale") == 0
    shutil.copytree(
        f"{trial.environ['LADING_CACHE']}/sha256", f"{mine.environ['LADING_CACHE']}/sha256"
    )
    manifest, config = theirs(trial, there)
    there.blobs[config.digest] = config.content
    there.manifests["group/one", trial.key("one")] = manifest
    capsys.readouterr()
    assert mine.doit("archive:one") == 0
    assert "is not taken: this machine has seen other content" in capsys.readouterr().out
    assert mine.engine.asked.count("build") == 1
    assert sha256(mine, "one") == sha256(trial, "one")
    # A machine that never saw it has nothing to hold it against.
    fresh = cloned(trial, "never")
    assert fresh.doit("archive:one") == 0
    assert "build" not in fresh.engine.asked


def test_what_this_machine_makes_again_is_believed_again(trial: Trial, there: Registry) -> None:
    """Whatever it had found there: what was pushed from here counts as well."""
    assert trial.doit("push:two") == 0
    state = trial.state()
    state.store.claim(claims.PUSHED, [(trial.key("one"), f"sha256:{'0' * 64}")])
    assert trial.doit("push:one") == 0
    fresh = cloned(trial)
    fresh.environ["LADING_CACHE"] = trial.environ["LADING_CACHE"]
    assert fresh.doit("archive:one") == 0
    assert "build" not in fresh.engine.asked


def damaged(there: Registry) -> None:
    """The largest blob is not what its digest says."""
    digest = max(there.blobs, key=lambda name: len(there.blobs[name]))
    there.blobs[digest] = there.blobs[digest][:-1] + b"!"


def lost(there: Registry) -> None:
    """A registry's clean-up took a layer, and left the manifest."""
    del there.blobs[max(there.blobs, key=lambda name: len(there.blobs[name]))]


def down(there: Registry) -> None:
    """It went away behind the first question."""
    configs = {name for name, data in there.blobs.items() if data.startswith(b"{")}
    known = {line for line in there.asked if line.startswith("GET") and "/blobs/" in line}
    assert not known
    there.instead = lambda line: (
        CUT if "/blobs/" in line and line.rpartition("/")[2] not in configs else None
    )


@pytest.mark.parametrize(
    "happens, words",
    [(damaged, "sends other content"), (lost, "is not in the registry"), (down, "cut off")],
)
def test_a_download_that_fails_means_building(
    trial: Trial,
    there: Registry,
    capsys: pytest.CaptureFixture[str],
    happens: Callable[[Registry], None],
    words: str,
) -> None:
    assert trial.doit("push:one") == 0
    there.asked.clear()
    happens(there)
    fresh = cloned(trial)
    fresh.environ["LADING_CACHE"] = trial.environ["LADING_CACHE"]
    capsys.readouterr()
    assert fresh.doit("archive:one") == 0
    output = capsys.readouterr().out
    assert output.count("what it may have is made here") == 1
    assert words in output
    assert fresh.engine.asked.count("build") == 1
    assert sha256(fresh, "one") == sha256(trial, "one")


def test_a_blob_without_an_end(there: Registry) -> None:
    """No more of it is passed on than it was to have."""
    content = b"x" * 1000
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    there.blobs[digest] = content
    came = 0
    with (
        kept.repository(f"{there.host}/group/x", {"HOME": "/nowhere"}) as repository,
        pytest.raises(LadingError, match="sends other content") as error,
    ):
        for piece in repository.pieces(digest, 10):
            came += len(piece)
    assert came <= 10
    assert "more than 10 bytes" in error.value.why


def test_a_full_disk_here_is_not_the_registrys_fault(
    trial: Trial, there: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trial.doit("push:one") == 0
    fresh = cloned(trial)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing.Writer, "received", full)
    assert fresh.doit("archive:one") == 2
    assert "build" not in fresh.engine.asked


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_what_was_compiled_and_is_not_given(trial: Trial, there: Registry, content: bytes) -> None:
    """Or is no archive: it is compiled here, and not asked for again."""
    state = trial.state()
    part = Part(what="mpich", key="c" * 64, plan=plans.make("mpich", "mpich", (), {}), epoch=0)
    tar = kept.Blob(digest=f"sha256:{hashlib.sha256(content).hexdigest()}", size=len(content) or 1)
    there.blobs |= {tar.digest: content} if content else {}
    answer = Answer(kept=kept.product(part.key, tar), tagged=False)
    state.once(("pushed",), lambda: {f"part:{part.key}": answer})
    assert part_verb.in_registry(state, part)
    assert not part_verb.taken(state, part)
    assert not part_verb.in_registry(state, part)
    assert not list((state.store.root / "partial").iterdir())


def test_what_was_compiled_and_is_damaged_is_not_pushed(trial: Trial, there: Registry) -> None:
    state = trial.state()
    part = Part(what="mpich", key="c" * 64, plan=plans.make("mpich", "mpich", (), {}), epoch=0)
    path = state.store.derived(part.key, PRODUCT, lambda out: out.touch())
    with pytest.raises(LadingError, match="mpich was damaged"):
        push._push_product(state, part)
    assert there.asked == []
    assert not path.exists()


@pytest.mark.parametrize("status", [401, 403])
def test_a_registry_that_lets_nobody_in(
    trial: Trial, there: Registry, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    """Said once, however many images; many registries say so of what is not there, too."""
    there.instead = lambda line: status
    assert trial.doit("archive") == 0
    output = capsys.readouterr().out
    assert output.count("does not show 2 repositories; what it may have is made here") == 1
    assert output.count(f"HTTP {status}") == 1
    assert f"docker login {there.host}" in output
    assert trial.doit("push:one") == 2


def test_one_repository_is_not_shown(
    trial: Trial, there: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """It hides nothing of the others."""
    assert trial.doit("push") == 0
    fresh = cloned(trial)
    fresh.environ["LADING_CACHE"] = trial.environ["LADING_CACHE"]
    there.instead = lambda line: 403 if "group/one/" in line else None
    capsys.readouterr()
    assert fresh.doit("archive") == 0
    output = capsys.readouterr().out
    assert "does not show 1 repository" in output
    assert output.count("out of the registry") == 1
    assert fresh.engine.asked.count("build") == 1


def test_one_question_for_each_that_is_not_there(there: Registry) -> None:
    """Many at a time."""
    together = threading.Barrier(8, timeout=20)

    def wait(line: str) -> None:
        together.wait()

    there.instead = wait
    wanted = {
        str(number): asking.Wanted(repository=f"{there.host}/group/{number}", key="0" * 64)
        for number in range(16)
    }
    said: list[str] = []
    assert asking.ask(wanted, {}, said.append) == {}
    assert said == []
    lines = [f"HEAD /v2/group/{number}/manifests/{'0' * 64}" for number in range(16)]
    assert sorted(there.asked) == sorted(lines)


@pytest.mark.parametrize("error", [503, CUT])
def test_one_error_is_no_reason_to_build(trial: Trial, there: Registry, error: int) -> None:
    assert trial.doit("push") == 0
    failed: set[str] = set()

    def once(line: str) -> int | None:
        if line in failed or not line.startswith("HEAD") or line.endswith("2026.11.01"):
            return None
        failed.add(line)
        return error

    there.instead = once
    fresh = cloned(trial)
    assert fresh.doit("push") == 0
    assert fresh.engine.asked == []
    assert failed


def test_a_ca_that_is_not_there(
    trial: Trial, there: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    trial.environ["SSL_CERT_FILE"] = "/nowhere/ca.pem"
    assert trial.doit("archive") == 0
    assert "SSL_CERT_FILE names CA certificates that are not there" in capsys.readouterr().out


@pytest.mark.parametrize("at_once", [False, True])
def test_another_runner_was_quicker(trial: Trial, there: Registry, at_once: bool) -> None:
    """When this run began, the registry had nothing; what it has now, or in the moment behind the
    last look, is another build's.
    """
    assert trial.doit("push:two") == 0
    assert trial.doit("archive:one") == 0
    state = trial.state()
    state.involved, state.goals = frozenset({"lock:one"}), frozenset({"push:one"})
    image = state.project.images["one"]
    assert state.in_registry(image) is None
    manifest, config = theirs(trial, there)
    there.blobs[config.digest] = config.content
    at = "group/one", trial.key("one")

    def quicker(line: str) -> None:
        if not at_once or line == "PUT /v2/group/one/manifests/2026.11.01":
            there.manifests[at] = manifest

    there.instead = quicker
    with pytest.raises(LadingError, match="has another image under the key"):
        push.make(state, image)
    assert there.manifests[at] == manifest


class Config(NamedTuple):
    """A configuration, and its digest."""

    digest: str
    content: bytes


def theirs(trial: Trial, there: Registry) -> tuple[tuple[str, bytes], Config]:
    """Image one as another runner built it: the key, and all that has to be right, but other
    bytes.
    """
    kind, text = there.manifests["group/two", trial.key("two")]
    manifest = json.loads(text)
    before = json.loads(there.blobs[manifest["config"]["digest"]])
    before["config"]["Labels"]["lading.key"] = trial.key("one")
    content = json.dumps(before).encode()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    manifest["config"] |= {"digest": digest, "size": len(content)}
    manifest["annotations"]["lading.key"] = trial.key("one")
    return (kind, canonical_json(manifest)), Config(digest, content)


@pytest.mark.parametrize("dies_at, found", [("sha256:", False), ("key", False), ("2026", True)])
def test_a_runner_dies_between_blob_and_manifest(
    trial: Trial, there: Registry, dies_at: str, found: bool
) -> None:
    """The next one finds all of it, or nothing; and its push brings what is lacking."""
    name = trial.key("one") if dies_at == "key" else dies_at
    at = f"PUT /v2/group/one/manifests/{name}"
    there.instead = lambda line: CUT if line.startswith(at) else None
    assert trial.doit("push:one") == 2
    there.instead = lambda line: None
    fresh = cloned(trial)
    fresh.environ["LADING_CACHE"] = trial.environ["LADING_CACHE"]
    assert fresh.doit("archive:one") == 0
    assert ("build" not in fresh.engine.asked) == found
    assert sha256(fresh, "one") == sha256(trial, "one")
    there.asked.clear()
    assert fresh.doit("push:one") == 0
    sent = [line for line in there.asked if line.startswith("PATCH")]
    assert len(sent) == (2 if dies_at == "sha256:" else 0), "the image's were there, its SBOM's not"
    tags = {tag for name, tag in there.manifests if name == "group/one"}
    assert {trial.key("one"), "2026.11.01"} < tags


@pytest.mark.parametrize("years", [-25, 25])
def test_clocks_that_differ(trial: Trial, there: Registry, years: int) -> None:
    """What a token says of its time is not asked; one that is refused is asked for anew, also in
    the middle of a push.
    """
    there.years, there.lasts = years, 3
    there.token = "repository:group/one:pull,push"
    assert trial.doit("push:one") == 0
    assert len([line for line in there.asked if line.startswith("GET /token")]) > 3
    fresh = cloned(trial)
    assert fresh.doit("archive:one") == 0
    assert "build" not in fresh.engine.asked


def test_two_builds_that_differ_are_not_mixed(
    trial: Trial, there: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """The registry keeps what was pushed first."""
    assert trial.doit("push:one") == 0
    record = trial.root / "dist/one.json"
    tar = trial.root / "dist/one.tar"
    found = json.loads(record.read_text())
    text = tar.read_bytes().replace(b'"architecture":"amd64"', b'"architecture":"amd46"')
    assert text != tar.read_bytes()
    config = json.dumps(found).replace(found["config"], f"sha256:{'0' * 64}")
    tar.write_bytes(text)
    record.write_text(config)
    pushed = dict(there.manifests)
    there.manifests.pop(("group/one", "2026.11.01"))
    assert trial.doit("push:one") == 1
    assert "doit verify:one" in capsys.readouterr().out
    assert there.manifests["group/one", trial.key("one")] == pushed["group/one", trial.key("one")]


def test_two_push_at_once(trial: Trial, there: Registry) -> None:
    assert trial.doit("archive") == 0
    barrier = threading.Barrier(2, timeout=20)

    def together(line: str) -> None:
        if line.startswith("POST") and barrier.n_waiting < 2 and not barrier.broken:
            barrier.wait()

    second = cloned(trial, "second")
    shutil.copytree(trial.root / "dist", second.root / "dist")
    states = [one.state() for one in (trial, second)]

    there.instead = together
    failed: list[BaseException] = []

    def work(index: int) -> None:
        state = states[index]
        state.involved = frozenset({"lock:one"})
        state.goals = frozenset({"push:one"})
        try:
            push.make(state, state.project.images["one"])
        except BaseException as error:
            failed.append(error)
        finally:
            barrier.abort()

    threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert ("group/one", trial.key("one")) in there.manifests


def test_no_registry_is_declared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial = Trial.make(tmp_path / "project")
    assert trial.doit("push:one") == 3
    assert "names no registry" in capsys.readouterr().out
