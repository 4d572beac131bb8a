"""A base as miniconda is: `/opt/conda` with a Python and a real conda, put together for tests.

conda 4.3.16 is the newest that the package index has. Its own code is as it was released; what it
took from Pythons of its time and no Python has any more is given back to it by `SHIMS`, and the
prefix is laid by py-rattler, for conda's own installer comes from no package index.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from lading import net, uv
from lading.facts import Facts
from lading.layers import conda, conda_resolve, conda_store
from lading.layers.conda_section import CondaSection
from lading.layers.kind import InBase, Tools
from lading.store import Artifact, Source, Store
from tests.support import images
from tests.support.channels import PLACEHOLDER, Channel, python

VERSION = "4.3.16"
PREFIX = "/opt/conda"
FORMAT = ".tar.bz2"
"""It knows no other, also where it looks what is installed."""
FETCHED = {
    "conda": (VERSION, "a91ef821343dea3ba9670f3d10b36c1ace4f4c36d70c175d8fc8886e94285953"),
    "ruamel.yaml": ("0.17.21", "742b35d3d665023981bd6d16b3d24248ce5df75fdb4e2924e93a05c1f8b61ca7"),
    "toolz": ("1.0.0", "292c8f1c4e7516bf9086f8850935c799a874039c8bcf959d47b600e4c44a6236"),
}
"""What is fetched: conda's sdist, and wheels of what it needs."""
OURS = ("requests", "urllib3", "idna", "certifi", "charset-normalizer")
"""What it needs and lading does, too: taken from the environment of the tests."""
TOOLS = (*images.TOOLS, "bash", "readlink", "sed")

SHIMS = r'''
"""What conda 4.3 wants of Python and is gone, or is told wrongly of a Python newer than 3.9."""
import collections, collections.abc, importlib, inspect, logging, os, platform, re, sys
import sysconfig, types, warnings

warnings.simplefilter("ignore")


def module(name, **attributes):
    try:
        importlib.import_module(name)
    except ImportError:
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(attributes)


def solve(clauses, vars=0, prop_limit=0):
    """pycosat's one function: a depth-first search, which tiny channels need no more than."""
    clauses = [set(clause) for clause in clauses]
    found = _search(clauses, {})
    if found is None:
        return "UNSAT"
    top = max([vars, *map(abs, found)], default=0)
    return [n if found.get(n, False) else -n for n in range(1, top + 1)]


def _search(clauses, known):
    known = dict(known)
    while True:
        rest, unit = [], None
        for clause in clauses:
            if any(known.get(abs(n)) == (n > 0) for n in clause):
                continue
            clause = {n for n in clause if abs(n) not in known}
            if not clause:
                return None
            if len(clause) == 1 and unit is None:
                (unit,) = clause
            rest.append(clause)
        clauses = rest
        if unit is None:
            break
        known[abs(unit)] = unit > 0
    if not clauses:
        return known
    n = min(abs(n) for n in clauses[0])
    return _search(clauses, {**known, n: False}) or _search(clauses, {**known, n: True})


for name in collections.abc.__all__:
    if not hasattr(collections, name):
        setattr(collections, name, getattr(collections.abc, name))
if not hasattr(inspect, "getargspec"):
    inspect.getargspec = lambda function: inspect.getfullargspec(function)[:4]
if not hasattr(platform, "linux_distribution"):
    platform.linux_distribution = platform.dist = lambda *_, **__: ("", "", "")
if not hasattr(logging, "_acquireLock"):
    logging._acquireLock, logging._releaseLock = logging._lock.acquire, logging._lock.release
module("cgi")
module("imp", reload=importlib.reload)
module("distutils")
module("distutils.sysconfig", get_python_lib=lambda *_, **__: sysconfig.get_path("purelib"))
module("pycosat", solve=solve)
# In its own copy of toolz is what is no Python any more; it takes cytoolz where there is one.
for part in ("", ".dicttoolz", ".functoolz", ".itertoolz", ".recipes"):
    sys.modules["cytoolz" + part] = importlib.import_module("toolz" + part)


def short(text, with_dot=True):
    """As it was released it takes 3.11 for 3.1."""
    found = re.search(r"(\d)\.?(\d+)", text)
    return found and ("." if with_dot else "").join(found.groups())


def of_prefix(prefix):
    for record in linked.linked_data(prefix).values():
        if record.name == "python":
            return short(record.version)


def run(program):
    link.get_python_version_for_prefix = linked.get_python_version_for_prefix = of_prefix
    link.get_major_minor_version = path.get_major_minor_version = short
    egg_info.get_site_packages_dir = lambda _: os.path.relpath(
        sysconfig.get_path("purelib"), sys.prefix
    )
    sys.exit(importlib.import_module(program).main())


import conda.common.path as path
import conda.core.link as link
import conda.core.linked_data as linked
import conda.egg_info as egg_info
'''
PROGRAM = f"""\
#!{PLACEHOLDER}/bin/python
import conda_shims
conda_shims.run("{{module}}")
"""


def packages(channel: Channel, store: Store) -> None:
    """Takes up a Python, conda and what it needs."""
    short = ".".join(python(channel, whole=True, format=FORMAT).split(".")[:2])
    site = f"lib/python{short}/site-packages"
    found: dict[str, tuple[str, dict[str, bytes]]] = {}
    for name in OURS:
        distribution = metadata.distribution(name)
        files = {
            str(path): Path(str(distribution.locate_file(path))).read_bytes()
            for path in distribution.files or ()
            if ".." not in path.parts and path.suffix != ".pyc"
        }
        found[name] = distribution.version, files
    for name, (version, content) in fetched(store).items():
        found[name] = version, dict(content)
    found["conda"][1]["conda_shims.py"] = SHIMS.lstrip().encode()
    depends = ["python", *(name for name in found if name != "conda")]
    for name, (version, files) in found.items():
        members = [(f"{site}/{inside}", data) for inside, data in sorted(files.items())]
        programs = {"bin/conda": "conda.cli.main", "bin/conda-env": "conda_env.cli.main"}
        written = programs if name == "conda" else {}
        members += [(at, PROGRAM.format(module=m).encode()) for at, m in written.items()]
        channel.crafted(
            name,
            version,
            members,
            depends=depends if name == "conda" else ["python"],
            placeholders=dict.fromkeys(written, "text"),
            format=FORMAT,
        )


def fetched(store: Store) -> dict[str, tuple[str, dict[str, bytes]]]:
    """The files of the sdist and the wheels below site-packages, by package, with the version."""
    target = uv.Target(python_version="3.11.0", glibc="2.28", platform="linux/amd64")
    wanted = [uv.Version(name=name, version=version) for name, (version, _) in FETCHED.items()]
    every = uv.locate(
        wanted, target, no_binary=["conda"], environment=net.uv_environment(os.environ)
    )
    hashes = {sha256 for _, sha256 in FETCHED.values()}
    files = [file for file in every if file.sha256 in hashes]
    assert {file.sha256 for file in files} == hashes

    def sources(_: object) -> Mapping[str, list[Source]]:
        return uv.sources_of(files)

    store.fetch([Artifact(name=f.file, sha256=f.sha256, size=f.size) for f in files], sources)
    return {
        name: (version, dict(_inside(store.path(sha256))))
        for name, (version, sha256) in FETCHED.items()
    }


def _inside(path: Path) -> Iterator[tuple[str, bytes]]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as wheel:
            for name in wheel.namelist():
                if not name.endswith("/"):
                    yield name, wheel.read(name)
        return
    with tarfile.open(path) as sdist:
        for member in sdist:
            name = member.name.partition("/")[2]
            if member.isfile() and re.match(r"conda(_env)?/", name):
                file = sdist.extractfile(member)
                assert file is not None
                yield name, file.read()


def prefix(
    channel: Channel, store: Store, folder: Path, more: Sequence[str] = ()
) -> tuple[Path, Path]:
    """Two tars of the prefix with conda in it: its files, and their bytecode.

    `channel` has to have what `packages` takes up, and `more` packages that are to be in it.
    """
    made = laid(channel, store, PREFIX, [f"conda={VERSION}", *more])
    return made, _bytecode(made, folder)


def laid(channel: Channel, store: Store, at: str, packages: Sequence[str]) -> Path:
    """A tar of a prefix with these packages of the channel in it."""

    def nowhere() -> InBase:
        raise AssertionError("nothing in it wants to be activated")

    environ = {**os.environ, "CONDA_CHANNEL_ALIAS": channel.alias}
    tools = Tools(environ=environ, store=store, note=print, in_base=nowhere)
    section = CondaSection(channels=(channel.name,), packages=tuple(packages), prefix=at)
    asked = conda.request(Path(), "base", section, Facts(glibc="2.36"), "linux/amd64", None)
    return conda_store.prepared(asked, conda_resolve.lock(asked, None, tools), tools)


def image(channel: Channel, store: Store) -> images.TinyImage:
    """The base: this machine's shell and a few tools, and the prefix."""
    # Of a real base's libraries it has at least those that an installer of packages needs.
    tiny = images.tiny_image(TOOLS, [Path(sys.prefix) / "bin" / "uv"])
    with tempfile.TemporaryDirectory() as folder:
        layer = joined(tiny.layer, *prefix(channel, store, Path(folder)))
    config = json.loads(tiny.config)
    config["config"]["Env"] = [
        f"PATH={PREFIX}/bin:/bin",
        # This machine's Python is linked to more than a shell is.
        f"LD_LIBRARY_PATH={PREFIX}/lib",
    ]
    config["rootfs"]["diff_ids"] = [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    return images.TinyImage(config=json.dumps(config).encode(), layer=layer)


def _bytecode(made: Path, folder: Path) -> Path:
    """A tar of the prefix's bytecode, compiled by this Python, which is the prefix's."""
    with tarfile.open(made) as tar:
        tar.extraction_filter = lambda member, _: member
        tar.extractall(folder)
    library = next((folder / PREFIX.strip("/") / "lib").glob("python3.*"))
    mode = ("--invalidation-mode", "unchecked-hash")
    command = [sys.executable, "-m", "compileall", "-qq", "-j", "0", *mode, str(library)]
    subprocess.run([*command, "-s", str(folder), "-p", "/"], check=False)
    out = folder / "bytecode.tar"
    with tarfile.open(out, "w") as tar:
        for path in sorted(library.rglob("*.pyc")):
            tar.add(path, str(path.relative_to(folder)), filter=_dated)
    return out


def _dated(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """So that the image is the same whenever it is made: tests compare what is built on it."""
    member.mtime = 0
    return member


def joined(first: bytes, *more: Path) -> bytes:
    """Tars as one."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as joined:
        for source in (io.BytesIO(first), *(path.open("rb") for path in more)):
            with source, tarfile.open(fileobj=source) as tar:
                for member in tar:
                    joined.addfile(member, tar.extractfile(member) if member.isfile() else None)
    return out.getvalue()
