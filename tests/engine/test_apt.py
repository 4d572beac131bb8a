"""Debian packages for real: resolved in a container, installed in a build, on both engines."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lading import archive, debian, dockerfile
from lading import context as lading_context
from lading.debian import Deb
from lading.engines import Engine
from lading.errors import DeclarationError, EnvironmentProblem, LadingError
from lading.layers import apt_image, apt_resolve, conda, conda_image, pip
from lading.layers import base as bases
from lading.layers.base import BaseLock
from lading.layers.conda_kind import CONDA
from lading.layers.conda_section import CondaSection
from lading.layers.kind import Tools
from lading.layers.pip import Below
from lading.layers.pip_kind import PIP
from lading.layers.pip_section import PipSection
from lading.parts import Start
from lading.plan import Contribution
from lading.project import Base, DebianBase
from lading.steps import Arg, Cmd, Content, Copy, Env, Run, Stage, Stored
from lading.store import Artifact, Store
from lading.verbs.in_base import PROXIES
from tests.support.channels import Channel, python
from tests.support.index import Index

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("mmdebstrap", "unshare", "chroot"))),
    reason="needs root and mmdebstrap",
)

PLATFORM = "linux/amd64"
EPOCH = 1_790_000_000
RUN = ("libgomp1", "python3-yaml", "dbus")
BUILD = ("gcc", "libc6-dev", *RUN)
PROGRAM = """\
#include <omp.h>
#include <stdio.h>
int main(void) { int n = 0;
#pragma omp parallel num_threads(2) reduction(+:n)
  n += omp_get_num_threads();
  printf("%d\\n", n); return 0; }
"""


class Made(NamedTuple):
    """A Debian base: its lock, its name, its archive, and the store with its packages."""

    lock: BaseLock
    reference: str
    archive: Path
    store: Store


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The smallest base with Python, made once."""
    folder = tmp_path_factory.mktemp("debian")
    store, mirrors = Store(folder / "store"), debian.mirrors(os.environ)
    base = Base(name="test-apt", debian=DebianBase(suite="trixie", packages=("python3",)))
    debs = debian.resolve("trixie", ["python3"], "amd64", mirrors)
    text = bases.text_of(base, PLATFORM, debian.facts_of(debs), None, debs=debs)
    lock = bases.parse(text, "base.yaml")
    fetch(store, debs)
    files = {deb.sha256: store.path(deb.sha256) for deb in debs}
    debian.assemble(debs, "trixie", EPOCH, files, folder / "root.tar", work=folder / "work")
    reference = bases.reference(base, lock)
    config = debian.image_config("amd64", EPOCH)
    archive.write(folder / "base.tar", config, [folder / "root.tar"], reference)
    return Made(lock, reference, folder / "base.tar", store)


def fetch(store: Store, debs: Sequence[Deb]) -> None:
    wanted = [Artifact(name=deb.file, sha256=deb.sha256, size=deb.size) for deb in debs]
    mirrors = debian.mirrors(os.environ)
    store.fetch(store.lacking(wanted), lambda _: debian.locate(debs, mirrors))


@pytest.fixture(scope="session")
def on(engine: Engine, made: Made) -> str:
    """The base's name, which the engine holds."""
    engine.load(made.archive)
    return made.reference


def tools(
    engine: Engine, reference: str, store: Store, environ: Mapping[str, str] = os.environ
) -> Tools:
    def in_base(
        command: Sequence[str], *, env: Mapping[str, str] | None = None, **more: Any
    ) -> Any:
        inside = {name: value for name, value in os.environ.items() if name.upper() in PROXIES}
        return engine.run(reference, command, network="host", env={**inside, **(env or {})}, **more)

    return Tools(environ=environ, store=store, note=print, in_base=lambda: in_base)


def test_packages_are_resolved_fetched_and_installed_offline(
    engine: Engine, on: str, made: Made, context: Path, trees: dict[str, dict[str, object]]
) -> None:
    asked = tools(engine, on, made.store)
    found = apt_resolve.resolve({"run": RUN, "build": BUILD}, made.lock, asked)
    run, build = found.sets["run"], found.sets["build"]
    assert set(RUN) <= {deb.name for deb in run} < {deb.name for deb in build}
    fetch(made.store, build)

    to_run, files = apt_image.install(run, "apt/run", "What the image gets.")
    to_build, more = apt_image.install(build, "apt/build", "What it is built with.")
    put(context, {**files, **more, "p.c": PROGRAM.encode()}, made.store)
    epoch = Arg(name="SOURCE_DATE_EPOCH", value=str(EPOCH), why="The times.")
    compiled = Run(commands=("cc -fopenmp -o /usr/local/bin/p /p.c",), why="The compiler works.")
    source = Copy(source="p.c", target="/p.c", why="What is compiled.")
    taken = Copy(source="/usr/local/bin/p", target="/usr/local/bin/p", stage="tools", why="It.")
    stages = (
        Stage(name="tools", base=on, steps=(epoch, to_build, source, compiled), why="Tools."),
        Stage(base=on, steps=(epoch, to_run, taken, Cmd(arguments=("p",), why="x")), why="Image."),
    )
    (context / "Dockerfile").write_text(dockerfile.render("A test.", stages))
    log: list[str] = []
    tag = "localhost/lading/test-apt:1"
    try:
        engine.build(context, tag, platform=PLATFORM, log=log.append, cache=False)
    except LadingError:
        print("\n".join(log))
        raise

    assert engine.run(tag, ["p"], user="1234:1234", read_only=True).output == "4\n"
    script = "command -v gcc cc; python3 -c 'import yaml; print(yaml.__version__)'; dpkg --audit"
    output = engine.run(tag, ["sh", "-c", script], user="1234:1234", read_only=True).output
    assert len(output.splitlines()) == 1, output
    tree = above(b"".join(engine.save(tag)), engine, on)
    assert_nothing_left(tree)
    # The same files, whatever the engine.
    trees[engine.kind] = tree
    for other in trees.values():
        assert {p: tree.get(p) for p in {*tree, *other} if tree.get(p) != other.get(p)} == {}


@pytest.fixture(scope="session")
def trees() -> dict[str, dict[str, object]]:
    """What each engine made, so that the second is held against the first."""
    return {}


def test_conda_beside_it_and_pip_on_top(
    engine: Engine,
    on: str,
    made: Made,
    tmp_path: Path,
    onto: dict[str, dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Debian's programs, conda's Python with pip's packages, and a second prefix: each runs."""
    asked = tools(engine, on, made.store)
    debs = apt_resolve.resolve({"run": ["bc"]}, made.lock, asked).sets["run"]
    fetch(made.store, debs)
    step, lent = apt_image.install(debs, "apt/run", "What the image gets.")
    added = [Contribution(steps=(step,), files=lent)]
    with Channel(tmp_path / "channel") as channel, Index() as index:
        python(channel)
        metadata = {"site-packages/six.py": "", "site-packages/six-1.5.dist-info/METADATA": ""}
        channel.package("six", "1.5", metadata, noarch="python", depends=["python"])
        index.wheel("six", "1.17")
        program = {"onpip-1.dist-info/entry_points.txt": b"[console_scripts]\nonpip = onpip:main\n"}
        module = b"import six, sys\ndef main():\n    print(six.__file__, __cached__)\n"
        index.wheel("onpip", "1", requires=["six"], files={"onpip.py": module, **program})
        monkeypatch.setenv("CONDA_CHANNEL_ALIAS", channel.alias)
        monkeypatch.setenv("UV_INDEX", index.url)
        asked = tools(engine, on, made.store)
        facts, prefixes = made.lock.facts, []
        for name, where in (("", "/opt/conda"), ("aside", "/opt/aside")):
            section = CondaSection(channels=("lab",), packages=("python", "six"), prefix=where)
            wanted = conda.request(tmp_path, "x", section, facts, PLATFORM, None, named=name)
            prefixes.append((wanted, CONDA.lock(wanted, None, asked)))
            CONDA.prepare(*prefixes[-1], asked)
        (wanted, lock), (_, aside) = prefixes
        added += [conda_image.contribute(wanted, lock), conda_image.beside(aside, "conda/aside")]

        (tmp_path / "requirements.in").write_text("onpip\n")
        facts = CONDA.facts(lock, facts)
        request = pip.request(
            *(tmp_path, "x", PipSection(requirements="requirements.in"), facts, PLATFORM, None),
            below=Below(
                prefix=lock.prefix,
                distributions=lock.distributions,
                key=lock.key,
                stage=lambda _: tmp_path,
            ),
        )
        found = PIP.lock(request, None, asked)
        assert [pin.name for pin in found.pins] == ["onpip"]
        there = PIP.sources(request, found, made.store.lacking(found.artifacts), asked)
        made.store.fetch(found.artifacts, lambda _: there)
    start = Start(reference=on, platform=PLATFORM, root=tmp_path, epoch=EPOCH)
    added.append(PIP.contribute(request, found, start))

    folder = tmp_path / "context"
    for one in added:
        for at, content in one.files.items():
            lading_context.put(content, folder / at, tmp_path, made.store)
    epoch = Arg(name="SOURCE_DATE_EPOCH", value=str(EPOCH), why="The times.")
    path = Env(values={"PATH": "/opt/conda/bin:$PATH"}, why="As an image has it.")
    steps = (epoch, path, *(step for one in added for step in one.steps))
    (folder / "Dockerfile").write_text(
        dockerfile.render("A test.", [Stage(base=on, steps=steps, why="All.")])
    )
    tag = "localhost/lading/test-apt-conda:1"
    engine.build(folder, tag, platform=PLATFORM, log=print)
    try:

        def ran(command: str) -> str:
            run = engine.run(tag, ["sh", "-c", command], user="1234:1234", read_only=True)
            assert run.code == 0, run.output
            return run.output

        assert ran("echo 1+1 | bc") == "2\n"
        six, cached = ran("onpip").split()
        assert six.startswith("/opt/conda/lib/python")
        assert ran(f"head -c 8 {cached} | od -An -tx1 -j4 -N4").split()[0] == "01", "PEP 552"
        assert ran("python -c 'import onpip, sys; print(sys.prefix)'") == "/opt/conda\n"
        assert ran("/opt/aside/bin/python -c 'import six; print(six.__file__)'").startswith(
            "/opt/aside/lib/"
        )
        tree = above(b"".join(engine.save(tag)), engine, on)
    finally:
        engine.remove(tag)
    assert not [name for name in tree if name.startswith(("tmp/", "dev/shm", "root/"))]
    assert not [name for name in tree if name.endswith(("uv_cache.json", "/.lock"))]
    # The same files, whatever the engine; what an engine mounts is left out when it is archived.
    tree.pop("run", None)
    onto[engine.kind] = tree
    for other in onto.values():
        assert {p: tree.get(p) for p in {*tree, *other} if tree.get(p) != other.get(p)} == {}


@pytest.fixture(scope="session")
def onto() -> dict[str, dict[str, object]]:
    """What each engine made of them together."""
    return {}


def put(context: Path, files: Mapping[str, Content], store: Store) -> None:
    for at, content in files.items():
        path = context / at
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Stored):
            os.link(store.path(content.sha256), path)
        else:
            assert isinstance(content, bytes)
            path.write_bytes(content)


def above(saved: bytes, engine: Engine, base: str) -> dict[str, object]:
    """The files of the layers above the base: path → kind, mode, owner and content."""
    info = engine.inspect(base)
    assert info is not None
    found: dict[str, object] = {}
    with tarfile.open(fileobj=io.BytesIO(saved)) as outer:
        for name in json.load(member(outer, "manifest.json"))[0]["Layers"]:
            layer = member(outer, name).read()
            if f"sha256:{hashlib.sha256(layer).hexdigest()}" in info.diff_ids:
                continue
            with tarfile.open(fileobj=io.BytesIO(layer)) as inner:
                for entry in inner:
                    # BuildKit marks a new folder as one that hides the base's, which has none.
                    if not entry.name.endswith("/.wh..wh..opq"):
                        data = member(inner, entry.name).read() if entry.isreg() else b""
                        content = hashlib.sha256(data).hexdigest(), entry.linkname
                        mark = data[4:8] if entry.name.endswith(".pyc") else b""
                        found[entry.name.strip("./")] = (
                            *(entry.type, entry.mode, entry.uid, entry.gid),
                            *(content, mark),
                        )
    return found


def member(archive: tarfile.TarFile, name: str) -> Any:
    file = archive.extractfile(name)
    assert file is not None
    return file


def assert_nothing_left(tree: Mapping[str, Any]) -> None:
    files = {path: entry for path, entry in tree.items() if entry[0] != tarfile.DIRTYPE}
    gone = ("var/log/", "var/lib/apt/", "var/cache/apt", "var/cache/ldconfig", "dev/", "tmp/")
    left = [path for path in files if path.startswith(gone) or path.endswith(("-old", "passwd-"))]
    assert left == []
    docs = [path for path in files if path.startswith(("usr/share/doc/", "usr/share/man/"))]
    assert docs
    assert [path for path in docs if path.count("/") > 3 and not path.endswith("/copyright")] == []
    assert not {"usr/sbin/policy-rc.d", "var/lib/dbus/machine-id"} & set(files)
    assert not [path for path in tree if path.startswith(("etc/apt", "dev/shm", "lading"))]
    compiled = [entry[-1] for path, entry in files.items() if path.endswith(".pyc")]
    assert len(compiled) > 10
    assert set(compiled) == {b"\x01\0\0\0"}  # PEP 552: unchecked hash


def test_what_can_not_be_had_is_said_plainly(engine: Engine, on: str, made: Made) -> None:
    asked = tools(engine, on, made.store)
    with pytest.raises(DeclarationError) as unknown:
        apt_resolve.resolve({"run": ["gfortan", "c-compiler"]}, made.lock, asked, what="a.apt")
    assert "a.apt: Debian trixie has no package c-compiler, gfortan" in str(unknown.value)
    assert "did you mean gfortran" in str(unknown.value)
    assert "c-compiler: a virtual package, provided by " in str(unknown.value)


def test_a_mirror_that_is_not_there(engine: Engine, on: str, made: Made) -> None:
    environ = {**os.environ, "LADING_DEBIAN_MIRROR": "http://127.0.0.1:9/debian"}
    with pytest.raises(EnvironmentProblem, match="no mirror of Debian trixie can be reached"):
        apt_resolve.resolve({"run": ["make"]}, made.lock, tools(engine, on, made.store, environ))


def test_an_image_of_a_registry(
    engine: Engine, on: str, made: Made, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a base knows its suite itself; and Debian's archives, where this machine does not."""
    mirrors = debian.mirrors(os.environ)
    (context / "sources.list").write_text(
        f"deb {mirrors['debian']} trixie main\n"
        f"deb {mirrors['debian-security']} trixie-security main\n"
    )
    (context / "Dockerfile").write_text(f"FROM {on}\nCOPY sources.list /etc/apt/sources.list\n")
    tag = "localhost/lading/test-apt-image:1"
    engine.build(context, tag, platform=PLATFORM, log=print)
    base = BaseLock(header=made.lock.header, facts=made.lock.facts, text="", digest="sha256:1")
    asked = tools(engine, tag, made.store, {})
    own = apt_resolve.resolve({"run": ["make"]}, base, asked)

    def none_known(_: Mapping[str, str]) -> dict[str, str]:
        raise EnvironmentProblem("this machine has no apt")

    monkeypatch.setattr(debian, "mirrors", none_known)
    theirs = apt_resolve.resolve({"run": ["make"]}, base, asked)
    assert own.sets == theirs.sets
    assert [deb.name for deb in own.sets["run"]] == ["make"]
    assert own.sets["run"][0].path.startswith("debian:pool/main/m/make")
    assert apt_resolve.mirrors_of(base, asked) == mirrors
