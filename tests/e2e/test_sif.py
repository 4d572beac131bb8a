"""`doit sif` with a real Apptainer: the same bytes every time, and what works on them."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from msgspec.structs import replace

from lading import archive, files
from lading.errors import LadingError
from lading.project import load
from lading.sif import inside, making, programs
from lading.sif.making import Made, Order
from tests.e2e.conftest import Copy, copied
from tests.support.apptainer import Apptainer
from tests.support.images import tiny_image

NOWHERE = "unix:///nonexistent/engine.sock"
NOBODY = 65534
"""An ordinary user of every Debian; Apptainer wants one that the system knows."""


def test_astropy(on_docker: Copy, apptainer: Apptainer, tmp_path: Path) -> None:
    output = on_docker.done("sif:astropy", PATH=apptainer.path)
    assert "sif        astropy" in output
    assert "astropy, with traps: python -c" in output
    dist = on_docker.root / "dist"
    sif = dist / "astropy.sif"
    record = json.loads((dist / "astropy.sif.json").read_text())
    assert record["sha256"] == files.sha256_of(sif)
    assert record["archive"] == json.loads((dist / "astropy.json").read_text())["sha256"]

    # Again, nothing happens, without any Apptainer and without any engine.
    assert "nothing to do" in on_docker.done("sif:astropy", DOCKER_HOST=NOWHERE)

    # From the same archive in another folder, under another umask, time zone and locale: the same.
    other = Copy(root=copied(tmp_path / "other place"), environ=on_docker.environ)
    for name in ("locks", "dist"):
        shutil.copytree(on_docker.root / name, other.root / name, dirs_exist_ok=True)
    # Its SBOM is made again from it and the locks, too: the same, for its sha256 is in the SIF.
    for path in (*other.root.glob("dist/*.sif*"), *other.root.glob("dist/*.cdx.json")):
        path.unlink()
    (other.root / "build/astropy").mkdir(parents=True)
    shutil.copy(on_docker.root / "build/astropy/check.json", other.root / "build/astropy")
    doit = Path(sys.executable).with_name("doit")
    ran = other.run(
        *("sh", "-c", f"umask 077; exec {doit} sif:astropy"),
        PATH=apptainer.path,
        DOCKER_HOST=NOWHERE,
        TZ="Asia/Tokyo",
        LANG="POSIX",
    )
    assert ran.code == 0
    assert files.sha256_of(other.root / "dist/astropy.sif") == record["sha256"]

    # With the SIF alone, as whoever gets it would.
    labels = json.loads(apptainer.run("inspect", "--json", str(sif)))
    labels = labels["data"]["attributes"]["labels"]
    assert labels["lading.key"] == record["key"]
    assert labels["lading.archive"] == f"sha256:{record['archive']}"
    assert labels["lading.locks"].startswith("sha256:")
    assert labels["python.version"].startswith("3.13.")
    sbom = apptainer.run("sif", "dump", "4", str(sif))
    assert sbom == (dist / "astropy.cdx.json").read_text()
    assert labels["lading.sbom"] == f"sha256:{files.sha256_of(dist / 'astropy.cdx.json')}"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom) is None
    found = {one["name"]: one for one in json.loads(sbom)["components"]}
    assert found["libc6"]["purl"].startswith("pkg:deb/debian/libc6@2.41-")
    assert found["libc6"]["hashes"], "the base's lock has its .deb"
    assert "BSD-3-Clause" in json.dumps(found["numpy"]["licenses"])
    assert "bootstrap: docker-archive\nfrom: astropy.tar" in apptainer.run(
        "inspect", "--deffile", str(sif)
    )
    assert "SkyCoord" in apptainer.run("inspect", "--test", str(sif))
    apptainer.run("test", str(sif))
    printed = apptainer.run("exec", str(sif), "python", "-c", "import astropy as a; print(a)")
    assert "/opt/venv/" in printed

    # And as an ordinary user.
    commands = load(on_docker.root / "project.yaml").images["astropy"].test
    program = programs.find(str(apptainer.program), os.environ, "")

    def tested(home: Path) -> None:
        opened = inside.opened(program, sif, home)
        for result in (
            *inside.contained(opened, commands),
            *inside.trapped(opened, commands, inside.modules(labels["python.packages"])),
            inside.scripted(opened),
        ):
            assert not result.code, f"{result.command}: {result.output}"

    if not os.getuid():
        by_an_ordinary_user(tmp_path, tested)


def by_an_ordinary_user(
    folder: Path, act: Callable[[Path], None], first: Callable[[], None] = lambda: None
) -> Path:
    """Lets one do something with a home below `folder`, which is returned, in a process of their
    own; root, who alone can, does what is `first` there.
    """
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.getuid() and path != Path("/") and path != Path("/tmp"):
            path.chmod(path.stat().st_mode | 0o055)
    home = folder / "theirs"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    child = os.fork()
    if not child:
        code = 1
        try:
            first()
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.environ["HOME"] = str(home)
            os.chdir(home)
            act(home)
            code = 0
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n{error}\n")
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return home


@pytest.fixture
def order(tmp_path: Path) -> Order:
    """The SIF of a tiny image with a shell, and tests for it that pass."""
    image = tiny_image()
    tar, layer = tmp_path / "there/tiny.tar", tmp_path / "layer.tar"
    tar.parent.mkdir()
    layer.write_bytes(image.layer)
    made = archive.write(tar, json.loads(image.config), [layer], "localhost/tiny:1")
    return Order(
        name="tiny",
        archive=tar,
        sha256=made.sha256,
        size=made.size,
        epoch=1_793_491_200,
        platform="linux/amd64",
        labels={"lading.key": "k"},
        tests=('test -z "$APPTAINER_BIND"', "sh -c 'echo it works'"),
        mpi="",
        compression="zstd:3",
        sbom=b'{"bomFormat":"CycloneDX"}\n',
    )


Make = Callable[[Order, Path], Made]


@pytest.fixture
def make(apptainer: Apptainer, tmp_path: Path) -> Make:
    """Makes a SIF in this process."""
    program = programs.find(str(apptainer.program), os.environ, "")
    folder = tmp_path / "tmp"
    folder.mkdir(mode=0o777)
    folder.chmod(0o1777)

    def made(order: Order, out: Path) -> Made:
        environ = {"TMPDIR": str(folder)}
        try:
            return making.make(program, programs.mksquashfs(os.environ), order, out, environ)
        finally:
            assert not list(folder.iterdir())

    return made


def test_what_works_on_it(order: Order, make: Make, apptainer: Apptainer, tmp_path: Path) -> None:
    sif = tmp_path / "dist/tiny.sif"
    made = make(order, sif)
    assert {ran.how for ran in made.tests} == {"contained", "with traps", "as %test"}
    labels = json.loads(apptainer.run("inspect", "--json", str(sif)))
    assert labels["data"]["attributes"]["labels"]["tiny"] == "yes", "the image's own"
    header = apptainer.run("sif", "header", str(sif))
    assert "#!/usr/bin/env run-singularity" in header
    assert "2026-11-01 00:00:00" in header
    assert "amd64" in header
    listed = apptainer.run("sif", "list", str(sif))
    assert [line.split("|")[-1].strip() for line in listed.splitlines()[3:]] == [
        "Def.FILE",
        "JSON.Generic",
        "JSON.Generic",
        "SBOM (cyclonedx-json)",
        "FS (Squashfs/*System/amd64)",
    ]
    assert apptainer.run("sif", "dump", "4", str(sif)).encode() == order.sbom
    assert "it works" in apptainer.run("test", str(sif))
    # CMD is what it runs; given a command, it runs that.
    assert apptainer.run("run", str(sif), "/bin/sh", "-c", "echo given") == "given\n"
    assert "exec" in apptainer.run("inspect", "--runscript", str(sif))

    home = {"HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    who = ("--name", "Tess Ter", "--email", "t@example.org", "--comment", "", "--password", "")
    apptainer.run("key", "newpair", *who, "--push=false", **home)
    apptainer.run("sign", str(sif), **home)
    apptainer.run("verify", "--local", str(sif), **home)
    assert "it works" in apptainer.run("test", str(sif))


def close_fuse(over: Path) -> None:
    """Takes /dev/fuse away from this process and its children, and from nobody else, by laying a
    file over it.
    """
    new_mounts = 0x20000  # CLONE_NEWNS; os.unshare comes with Python 3.12
    if not Path("/dev/fuse").exists():
        return
    if ctypes.CDLL(None, use_errno=True).unshare(new_mounts):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    over.touch(mode=0o600)
    subprocess.run(["mount", "--bind", str(over), "/dev/fuse"], check=True)


@pytest.mark.parametrize("fuse", ["as it is", "closed"])
def test_an_ordinary_user_makes_the_same(
    order: Order, make: Make, tmp_path: Path, fuse: str
) -> None:
    """Where /dev/fuse is closed to them, the tests run in what the SIF is unpacked into."""
    if os.getuid():
        pytest.skip("only root can become another user")
    order.archive.chmod(0o644)
    ours = make(order, tmp_path / "dist/tiny.sif")

    def theirs(mine: Path) -> None:
        make(order, mine / "tiny.sif")
        assert not (fuse == "closed" and os.access("/dev/fuse", os.R_OK | os.W_OK))

    first = (lambda: close_fuse(tmp_path / "fuse")) if fuse == "closed" else lambda: None
    mine = by_an_ordinary_user(tmp_path, theirs, first)
    assert files.sha256_of(mine / "tiny.sif") == ours.sha256


def test_apptainer_killed_in_the_middle(order: Order, apptainer: Apptainer, tmp_path: Path) -> None:
    """As by a machine that runs out of memory: while it unpacks, and while it runs a test."""
    dying = tmp_path / "dying"
    squash = programs.mksquashfs(os.environ)
    for verb, says in (("build", "was ended by signal 9"), ("test", "as %test: apptainer test")):
        dying.write_text(
            f'#!/bin/sh\ncase $1 in {verb}) {apptainer.program} "$@" & sleep 0.2; kill -9 $!;'
            f' kill -9 $$;; esac\nexec {apptainer.program} "$@"\n'
        )
        dying.chmod(0o755)
        program = programs.find(str(dying), os.environ, "")
        folder = tmp_path / "tmp-of-the-dying"
        folder.mkdir(exist_ok=True)
        with pytest.raises(LadingError, match=says):
            making.make(program, squash, order, tmp_path / "out/x.sif", {"TMPDIR": str(folder)})
        assert not list((tmp_path / "out").iterdir())
        assert not list(folder.iterdir())


def test_the_traps_are_there(order: Order, make: Make, tmp_path: Path) -> None:
    """An image that sets no PYTHONPATH lets the host's in, and is told so."""
    order = replace(order, tests=('test -z "$PYTHONPATH"',))
    with pytest.raises(LadingError, match="failed inside the SIF, with traps: test -z"):
        make(order, tmp_path / "tiny.sif")
    order = replace(order, tests=("test ! -e $HOME/.local",))
    with pytest.raises(LadingError, match="failed inside the SIF, with traps"):
        make(order, tmp_path / "tiny.sif")
    order = replace(order, tests=("touch /opt/x",))
    with pytest.raises(LadingError, match="failed inside the SIF, contained"):
        make(order, tmp_path / "tiny.sif")
    assert not (tmp_path / "tiny.sif").exists()


@pytest.mark.parametrize("compression", ["gzip:1", "lz4", "xz", "zstd"])
def test_compression(
    order: Order, make: Make, apptainer: Apptainer, tmp_path: Path, compression: str
) -> None:
    make(replace(order, compression=compression), tmp_path / "tiny.sif")
    assert "it works" in apptainer.run("test", str(tmp_path / "tiny.sif"))


def test_a_full_disk(
    order: Order, make: Make, apptainer: Apptainer, tmp_path: Path, small: Path
) -> None:
    """The SIF's own folder is full: what Apptainer wrote so far goes away. In one for temporary
    files with too little room, it is not even begun.
    """
    with pytest.raises(LadingError, match="not enough room"):
        make(order, small / "tiny.sif")
    assert not list(small.iterdir())
    program = programs.find(str(apptainer.program), os.environ, "")
    squash = programs.mksquashfs(os.environ)
    with pytest.raises(LadingError, match=f"not enough room in {small}"):
        making.make(program, squash, order, tmp_path / "tiny.sif", {"TMPDIR": str(small)})
    assert not list(small.iterdir())
    assert not (tmp_path / "tiny.sif").exists()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
