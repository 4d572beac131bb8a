"""A Debian base for real: from the user's mirror, as root, with mmdebstrap."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from msgspec.structs import asdict

from lading import bytecode, debian
from lading.debian import Deb
from lading.files import sha256_of
from lading.store import Store
from lading.store.download import Artifact

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("mmdebstrap", "unshare", "chroot"))),
    reason="needs root and mmdebstrap",
)

AGAIN = Path(__file__).parents[1] / "support/again.py"
SUITES = ["bullseye", "bookworm", "trixie"]
EPOCH = 1_760_000_000
LIMIT = 125_000_000
"""Bytes in the files of a base with Python, at the most."""

ASSEMBLE = """
import json, sys
from pathlib import Path
from lading import debian
job = json.loads(Path(sys.argv[1]).read_text())
debs = [debian.Deb(**row) for row in job["debs"]]
files = {sha256: Path(path) for sha256, path in job["files"].items()}
log = lambda line: print(line, flush=True)
out, work = map(Path, sys.argv[2:])
debian.assemble(debs, job["suite"], job["epoch"], files, out, log, work=work)
"""


class Base(NamedTuple):
    """A resolved base whose .debs are in the store, and the job that assembles it."""

    suite: str
    debs: tuple[Deb, ...]
    job: Path


@pytest.fixture(scope="module")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Base]:
    import json

    store = Store(tmp_path_factory.mktemp("store"))
    cache = tmp_path_factory.mktemp("apt")
    mirrors = debian.mirrors(os.environ)
    known: dict[str, Base] = {}

    def get(suite: str) -> Base:
        if suite not in known:
            debs = debian.resolve(suite, ["python3"], "amd64", mirrors, cache=cache)
            wanted = [Artifact(name=deb.file, sha256=deb.sha256, size=deb.size) for deb in debs]
            store.fetch(wanted, lambda _: debian.locate(debs, mirrors))
            job = cache / f"{suite}.json"
            rows = [asdict(deb) for deb in debs]
            files = {deb.sha256: str(store.path(deb.sha256)) for deb in debs}
            text = {"suite": suite, "epoch": EPOCH, "debs": rows, "files": files}
            job.write_text(json.dumps(text))
            known[suite] = Base(suite, debs, job)
        return known[suite]

    return get


def start(base: Base, out: Path, work: Path, *prefix: str, **options: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", ASSEMBLE, str(base.job), str(out), str(work)],
        env={**environment, **options},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("suite", SUITES)
def test_the_same_bytes_on_machines_that_differ(
    suite: str, base_of: Callable[[str], Base], tmp_path: Path
) -> None:
    base = base_of(suite)
    outs = [tmp_path / "one.tar", tmp_path / "two.tar"]
    host = "cray-login-17"
    other = f'hostname {host} && umask 077 && cd / && exec "$@"'
    other_work = tmp_path / "work two"  # a blank in the path, too
    runs = [
        start(base, outs[0], tmp_path / "work"),
        start(
            base, outs[1], other_work, "unshare", "--uts", "sh", "-c", other, "sh",
            TZ="Asia/Tokyo", LC_ALL="C", HOME="/nonexistent", SOURCE_DATE_EPOCH="1",
        ),
    ]  # fmt: skip
    for run in runs:
        output, _ = run.communicate()
        assert run.returncode == 0, output[-2000:]
    assert sha256_of(outs[0]) == sha256_of(outs[1])
    assert list((tmp_path / "work").iterdir()) == list(other_work.iterdir()) == []
    look_into(outs[0], base, tmp_path / "root")


def look_into(tar: Path, base: Base, root: Path) -> None:
    """What a base promises: its size, its Python, nothing of this machine or of its mirrors."""
    with tarfile.open(tar) as archive:
        members = archive.getmembers()
        sizes = sum(member.size for member in members)
        assert sizes <= LIMIT
        assert max(member.mtime for member in members) <= EPOCH
        assert not [member.name for member in members if member.isdev()]
        root.mkdir()
        archive.extractall(root, filter="fully_trusted")
    names = {member.name for member in members}
    assert "usr/share/doc/base-files/copyright" in names
    assert not {name for name in names if re.match(r"usr/share/(man/man1|info|locale/de)/", name)}
    assert (root / "etc/hostname").read_bytes() == b""
    assert (root / "etc/resolv.conf").read_bytes() == b""

    facts = debian.facts_of(base.debs)
    code = "import platform, ssl, sqlite3, lzma; print(platform.python_version())"
    assert chroot(root, facts.python, "-c", code) == facts.python_version
    assert chroot(root, "getconf", "GNU_LIBC_VERSION") == f"glibc {facts.glibc}"
    assert chroot(root, "sh", "-c", ". /etc/os-release; echo $ID $VERSION_ID") == facts.os
    assert chroot(root, "dpkg", "--audit") == ""
    assert "C.utf8" in chroot(root, "locale", "-a").replace("UTF-8", "utf8")
    wanted = sorted(f"{deb.name} {deb.version}" for deb in base.debs)
    found = chroot(root, "dpkg-query", "-W", "-f", "${Package} ${Version}\n")
    assert sorted(found.splitlines()) == wanted
    stale = "import sys, json; assert json.__spec__.cached; print(json.__spec__.has_location)"
    assert chroot(root, facts.python, "-c", stale) == "True"
    assert_valid_bytecode(root)
    assert_bytecode_that_anyone_makes(root)
    assert_nothing_of_here(root)


def chroot(root: Path, *command: str) -> str:
    finished = subprocess.run(
        ["unshare", "--net", "chroot", str(root), "env", "PYTHONDONTWRITEBYTECODE=1", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def assert_valid_bytecode(root: Path) -> None:
    """Python's own library is compiled, and Python reads the compiled files without its doubts."""
    compiled = list(root.glob("usr/lib/python3*/__pycache__/*.pyc"))
    assert len(compiled) > 100
    for path in compiled:
        assert path.read_bytes()[4:8] == b"\x01\0\0\0", path  # PEP 552: unchecked hash
    trace = "import json.decoder, importlib.util as u, sys, _imp; p=json.decoder.__cached__;"
    trace += "d=open(p,'rb').read(); s=open(json.decoder.__file__,'rb').read();"
    trace += "print(d[8:16] == u.source_hash(s))"
    assert chroot(root, "/usr/bin/python3", "-c", trace) == "True"


def assert_bytecode_that_anyone_makes(root: Path) -> None:
    """Bytecode does not depend on what the interpreter has seen before."""
    probe = root / "tmp/probe"
    probe.mkdir()
    for path in (Path(bytecode.__file__), AGAIN):
        shutil.copy(path, probe)
    (library,) = root.glob("usr/lib/python3.*")
    command = ["env", "PYTHONHASHSEED=0", "/usr/bin/python3", "/tmp/probe/again.py"]
    chroot(root, *command, f"/usr/lib/{library.name}")
    shutil.rmtree(probe)


def assert_nothing_of_here(root: Path) -> None:
    """No file has the machine's name or our folders in it, and no setting the mirrors' hosts."""
    here = words("cray-login-17", "lading-base-", "mmdebstrap.")
    mirrors = words(*(urlsplit(url).hostname or "-" for url in debian.mirrors(os.environ).values()))
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            assert not here.search(data), name
            if name.startswith(("etc/", "var/")) and not name.startswith("var/lib/dpkg/info/"):
                assert not mirrors.search(data), name


def words(*found: str) -> re.Pattern[bytes]:
    return re.compile("|".join(map(re.escape, sorted(set(found)))).encode())


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_leaves_no_process_and_no_mount(
    kill: signal.Signals, base_of: Callable[[str], Base], tmp_path: Path
) -> None:
    base = base_of("trixie")
    work, out = tmp_path / "work", tmp_path / "out.tar"
    run = start(base, out, work)
    assert run.stdout is not None
    for line in run.stdout:
        if "Unpacking" in line:
            break
    before = time.monotonic()
    run.send_signal(kill)
    run.stdout.close()
    run.wait(10)
    while left := processes_in(work):
        assert time.monotonic() - before < 5, left
        time.sleep(0.05)
    assert str(work) not in Path("/proc/self/mounts").read_text()
    assert not out.exists()
    if kill == signal.SIGINT:  # the only one that Python turns into an exception by itself
        assert list(work.iterdir()) == []

    from lading.debian.mmdebstrap import _workplace

    with _workplace(work):
        pass
    assert list(work.iterdir()) == []


def processes_in(work: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if str(work) in line or str(work) in str((process / "cwd").readlink()):
                found.append(line)
        except OSError:
            continue
    return found
