"""What an image is said to be made of: out of its archive and its locks, as CycloneDX.

`LADING_GOLDEN=1` in the environment writes the golden file again: look at the difference.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given
from hypothesis import strategies as st
from packageurl import PackageURL

from lading import archive
from lading.compose import Layer, Locked
from lading.conda.explicit import Package
from lading.debian import Deb
from lading.errors import LadingError
from lading.facts import Facts
from lading.layers.apt import AptLock
from lading.layers.base import BaseLock
from lading.layers.conda import CondaLock
from lading.layers.pip import PipLock
from lading.layers.source import SourceLock
from lading.layers.source_section import SourceBuild
from lading.locks import Header
from lading.project import Base, DebianBase
from lading.requirements import Pin
from lading.sbom import document, files, installed, listing
from lading.sbom.installed import Installed
from lading.sbom.listing import Component, FromSource
from lading.store import Artifact
from tests.support.projects import Trial

GOLDEN = Path(__file__).parent / "golden/sbom.cdx.json"
SCHEMA = JsonStrictValidator(SchemaVersion.V1_6)
HEADER = Header(command="doit lock:x", date=date(2026, 11, 1), inputs="0" * 64)
FACTS = Facts(os="debian 13", package_manager="apt")
DEBIAN = Base(name="debian-13", debian=DebianBase(suite="trixie"))


def sha256(number: int) -> str:
    return f"{number:064x}"


def deb(name: str, version: str, number: int, architecture: str = "amd64") -> Deb:
    path = f"debian:pool/main/{name[0]}/{name}/{name}_{version}_{architecture}.deb"
    return Deb(
        name=name,
        version=version,
        architecture=architecture,
        path=path,
        size=1,
        sha256=sha256(number),
    )


def pin(file: str, number: int, *via: str) -> Pin:
    name, version = file.removesuffix(".tar.gz").split("-")[:2]
    artifact = Artifact(name=file, sha256=sha256(number), size=1)
    return Pin(name=name, version=version, artifact=artifact, via=via)


def locked(*locks: Any, debs: tuple[Deb, ...] = (), digest: str = "") -> Locked:
    base = BaseLock(header=HEADER, facts=FACTS, text="", suite="trixie", debs=debs, digest=digest)
    unused: Any = None
    return Locked(
        base=base, layers=tuple(Layer(kind=unused, request=unused, lock=lock) for lock in locks)
    )


def conda_lock(*packages: Package) -> CondaLock:
    return CondaLock(
        header=HEADER, packages=packages, prefix="/opt/conda", specs=(), variables=(),
        scripts=(), distributions={}, texts={},
    )  # fmt: skip


STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 2.41-12+deb13u4
Depends: libgcc-s1, not-there

Package: libgcc-s1
Status: install ok installed
Architecture: amd64
Source: gcc-14 (14.2.0-19)
Version: 14.2.0-19+b1
Depends: gcc-14-base (= 14.2.0-19), libc6 (>= 2.35)

Package: gcc-14-base
Status: install ok installed
Architecture: amd64
Version: 14.2.0-19

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: mawk
Status: install ok installed
Architecture: amd64
Provides: awk
Version: 1:1.3.4~20250131-1
Pre-Depends: libc6 | libc6.1

Package: base-files
Status: install ok installed
Architecture: all
Version: 13.8+deb13u7
Pre-Depends: awk
"""
NUMPY = """\
Metadata-Version: 2.4
Name: NumPy
Version: 2.5.5
License-Expression: BSD-3-Clause AND 0BSD
Classifier: License :: OSI Approved :: MIT License

Words.
"""
ERFA = """\
Metadata-Version: 2.1
Name: pyerfa
Version: 2.0
License: BSD-3-Clause
"""
SITE = "opt/venv/lib/python3.13/site-packages"
FILES = {
    "usr/lib/os-release": b'ID=debian\nVERSION_ID="13"\nNAME="Debian GNU/Linux"\nbroken="\n',
    "var/lib/dpkg/status": STATUS.encode(),
    f"{SITE}/numpy-2.5.5.dist-info/METADATA": NUMPY.encode(),
    f"{SITE}/pyerfa-2.0.dist-info/METADATA": ERFA.encode(),
    "usr/lib/python3/dist-packages/yaml-6.dist-info/METADATA": b"Name: PyYAML\nVersion: 6\n",
}


def small() -> tuple[Component, ...]:
    """A Debian base, Debian packages, an MPI out of its source, and Python packages."""
    apt = AptLock(
        header=HEADER,
        sets={
            "run": (deb("mawk", "1:1.3.4~20250131-1", 4),),
            "build": (deb("make", "4.4.1-2", 5), deb("mawk", "1:1.3.4~20250131-1", 4)),
        },
        text="",
    )
    pip = PipLock(
        header=HEADER,
        pins=(
            pin("numpy-2.5.5-cp313-cp313-manylinux_2_28_x86_64.whl", 6, "pyerfa", "other"),
            pin("pyerfa-2.0.tar.gz", 7, "-r recipes/x/requirements.in"),
        ),
        installer=pin("uv-0.13.9-py3-none-manylinux_2_28_x86_64.whl", 8),
        build={"pyerfa": (pin("setuptools-80.0-py3-none-any.whl", 9, "-r [build-system]"),)},
        texts={},
    )
    mpich = FromSource(
        source=SourceBuild(name="mpich", version="4.0.2", urls=("debian:mpich.tar.xz",)),
        lock=SourceLock(
            header=HEADER,
            artifact=Artifact(name="mpich_4.0.2.orig.tar.xz", sha256=sha256(10), size=1),
            version="4.0.2",
            text="",
        ),
        tools=AptLock(header=HEADER, sets={"build": (deb("make", "4.4.1-2", 5),)}, text=""),
    )
    debs = (deb("libc6", "2.41-12+deb13u4", 1), deb("libgcc-s1", "14.2.0-19+b1", 2))
    return listing.of(
        DEBIAN, locked(apt, pip, debs=(*debs, deb("base-files", "13.8+deb13u7", 3, "all"))),
        [mpich], installed.of(FILES),
    )  # fmt: skip


def written(*components: Component, unread: tuple[str, ...] = ()) -> str:
    subject = document.Subject(
        name="x",
        version="2026.11.01",
        key="a" * 64,
        config=f"sha256:{'b' * 64}",
        day=HEADER.date,
        unread=unread,
    )
    return document.text_of(subject, components)


def valid(text: str) -> dict[str, Any]:
    """The document, which is what CycloneDX's own schema wants."""
    assert SCHEMA.validate_str(text) is None
    found: dict[str, Any] = json.loads(text)
    return found


def refs(components: tuple[Component, ...]) -> list[str]:
    return [one.ref for one in components]


# -- the document ---------------------------------------------------------------------------


def test_golden() -> None:
    text = written(*small())
    if os.environ.get("LADING_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
    valid(text)


def test_it_depends_on_nothing_but_what_it_is_told() -> None:
    assert written(*small()) == written(*small())
    assert written(*small()) == written(*reversed(small()))
    other = document.Subject(
        name="x", version="1", key="a", config="sha256:other", day=date(2026, 11, 2)
    )
    one, two = json.loads(written()), json.loads(document.text_of(other, ()))
    assert one["serialNumber"] != two["serialNumber"]
    assert two["metadata"]["timestamp"] == "2026-11-02T00:00:00+00:00"


def test_the_image_leads_to_all_that_is_in_it() -> None:
    found = valid(written(*small()))
    wants = {one["ref"]: one.get("dependsOn", []) for one in found["dependencies"]}
    reached, waiting = set(), ["image:x"]
    while waiting:
        if (at := waiting.pop()) not in reached:
            reached.add(at)
            waiting += wants[at]
    excluded = {one["bom-ref"] for one in found["components"] if one.get("scope") == "excluded"}
    assert reached == {*wants} - excluded
    assert {ref.split("@")[0] for ref in excluded} == {
        "pkg:deb/debian/make",
        "pkg:pypi/setuptools",
        "pkg:pypi/uv",
    }


def test_some_that_only_want_each_other() -> None:
    ring = [Component(ref=ref, name=ref, wants=(other,)) for ref, other in ("ab", "bc", "ca")]
    found = valid(written(*ring))
    wants = {one["ref"]: one.get("dependsOn", []) for one in found["dependencies"]}
    assert wants == {"image:x": ["a"], "a": ["b"], "b": ["c"], "c": ["a"]}


def test_what_is_not_listed_is_said() -> None:
    found = installed.of({"lib/apk/db/installed": b"", "usr/lib/sysimage/rpm/rpmdb.sqlite": b""})
    said = valid(written(unread=found.unread))["metadata"]["component"]["properties"]
    assert {"name": "lading:not-listed", "value": "packages of rpm"} in said
    assert {"name": "lading:not-listed", "value": "packages of apk"} in said


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "var/lib/dpkg/status",
                "var/lib/dpkg/status.d/x",
                "etc/os-release",
                "c/conda-meta/x.json",
                f"{SITE}/x-1.dist-info/METADATA",
            ]
        ),
        st.binary(max_size=50)
        | st.sampled_from(
            [
                b"Package: a\nVersion: \xff\nStatus: a installed\nSource: (\nDepends: |,b (",
                b'ID="\xff"\nVERSION_ID=\nID',
                b'{"name": "\\ud800", "sha256": 7, "depends": 5, "files": 3, "channel": []}',
                b'{"name": {"a": 1}, "license": "\\udfff AND", "depends": [null, {}]}',
                b"Name: \xff\nVersion: \xfe\nLicense: \xfd (\n",
                b"Name: a b\nVersion: 1\nLicense-Expression: (MIT\nClassifier: License ::\n",
            ]
        ),
    )
)
def test_whatever_is_in_an_image_gives_a_document(content: dict[str, bytes]) -> None:
    valid(written(*listing.of(DEBIAN, locked(), [], installed.of(content))))


@pytest.mark.parametrize(
    "said, written_as",
    [
        ("License-Expression: MIT OR Apache-2.0", [{"expression": "MIT OR Apache-2.0"}]),
        ("License: MIT", [{"license": {"id": "MIT"}}]),
        ("License: BSD, more or less", [{"license": {"name": "BSD, more or less"}}]),
        ("License: UNKNOWN", None),
        ("License: Copyright\n        it goes on", None),
        (
            "Classifier: License :: OSI Approved\n"
            "Classifier: License :: OSI Approved :: MIT License",
            [{"license": {"name": "MIT License"}}],
        ),
    ],
)
def test_licences(said: str, written_as: object) -> None:
    metadata = f"Name: a\nVersion: 1\n{said}\n".encode()
    found = installed.of({f"{SITE}/a-1.dist-info/METADATA": metadata})
    (one,) = listing.of(Base(name="b"), no_system(), [], found)
    (component,) = valid(written(one))["components"]
    assert component.get("licenses") == written_as


def no_system() -> Locked:
    base = BaseLock(header=HEADER, facts=Facts(), text="")
    return Locked(base=base)


# -- names ----------------------------------------------------------------------------------

VERSION = st.from_regex(r"([0-9]:)?[0-9][A-Za-z0-9.+~-]{0,20}", fullmatch=True)


@given(name=st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,10}", fullmatch=True), version=VERSION)
def test_debian_names_and_versions_survive(name: str, version: str) -> None:
    one = deb(name, version, 1)
    found = listing.of(DEBIAN, locked(debs=(one,)), [], Installed())
    (ref,) = [one.ref for one in found if one.purl]
    assert not set(ref) & set("+ "), "these are percent-encoded"
    url = PackageURL.from_string(ref)
    assert (url.type, url.namespace, url.name, url.version) == ("deb", "debian", name, version)
    assert url.qualifiers == {"arch": "amd64", "distro": "debian-13"}


def test_an_epoch_a_plus_and_a_tilde() -> None:
    (_, one) = listing.of(DEBIAN, locked(debs=(deb("g++", "4:14.2.0-1~b+1", 1),)), [], Installed())
    assert one.ref == "pkg:deb/debian/g%2B%2B@4:14.2.0-1~b%2B1?arch=amd64&distro=debian-13"


def test_the_base_that_came_from_a_registry() -> None:
    base = Base(name="slim", image="registry.example.org/group/python:3.13-slim")
    (_, one) = listing.of(base, locked(digest=f"sha256:{'c' * 64}"), [], Installed())
    url = PackageURL.from_string(one.ref)
    assert (url.type, url.name, url.version) == ("oci", "python", f"sha256:{'c' * 64}")
    assert url.qualifiers == {
        "repository_url": "registry.example.org/group/python",
        "tag": "3.13-slim",
    }


# -- what is installed ----------------------------------------------------------------------


def test_conda() -> None:
    def record(name: str, **more: object) -> bytes:
        channel = "https://user:secret@mirror.example.org/t/token/conda-forge/linux-64"
        found = {"name": name, "version": "1.0", "build": "h1_0", "channel": channel}
        return json.dumps({**found, "subdir": "linux-64", **more}).encode()

    site = "lib/python3.13/site-packages"
    paths = {
        "opt/conda/conda-meta/numpy-1.0-h1_0.json": record(
            "numpy",
            license="BSD-3-Clause",
            depends=["python >=3.13", "__glibc >=2.17"],
            files=[f"{site}/numpy-1.0.dist-info/METADATA"],
        ),
        "opt/conda/conda-meta/python-1.0-h1_0.json": record("python"),
        "opt/conda/conda-meta/broken-1.0-h1_0.json": b"{",
        f"opt/conda/{site}/numpy-1.0.dist-info/METADATA": b"Name: numpy\nVersion: 1.0\n",
        f"opt/conda/pkgs/six/{site}/six-1.dist-info/METADATA": b"Name: six\nVersion: 1\n",
        f"opt/conda/{site}/mine-1.dist-info/METADATA": b"Name: mine\nVersion: 1\n",
        f"opt/conda/{site}/odd-1.dist-info/METADATA": b"\xff\xfe\0 no metadata",
    }
    lock = conda_lock(
        Package(
            channel="pkgs/main",
            subdir="linux-64",
            file="numpy-1.0-h1_0.conda",
            sha256=sha256(1),
        )
    )
    found = listing.of(DEBIAN, locked(lock), [], installed.of(paths), ["numpy"])
    python = "pkg:conda/python@1.0?build=h1_0&channel=conda-forge&subdir=linux-64"
    numpy = "pkg:conda/numpy@1.0?build=h1_0&channel=main&subdir=linux-64&type=conda"
    assert refs(found) == ["os:debian-13", numpy, python, "pkg:pypi/mine@1"]
    one = next(one for one in found if one.ref == numpy)
    assert one.wants == (python,)
    assert one.sha256 == sha256(1)
    assert one.licences == ("BSD-3-Clause",)
    assert one.declared
    text = written(*found)
    valid(text)
    assert "secret" not in text
    assert "token" not in text


def test_without_a_package_database_the_locks_say_it() -> None:
    """A run: step may have removed it."""
    debs = (deb("a", "1", 1), deb("b", "1", 2))
    apt = AptLock(header=HEADER, sets={"run": (deb("a", "2", 3),)}, text="")
    found = listing.of(DEBIAN, locked(apt, debs=debs), [], Installed())
    assert [(one.name, one.version, one.sha256) for one in found if one.purl] == [
        ("a", "2", sha256(3)),
        ("b", "1", sha256(2)),
    ]


def test_what_distroless_images_have() -> None:
    found = installed.of({"var/lib/dpkg/status.d/tz": b"Package: tzdata\nVersion: 2026f\n"})
    assert [one.name for one in found.debs] == ["tzdata"]


# -- the archive ----------------------------------------------------------------------------


def layer(content: Mapping[str, bytes | str]) -> bytes:
    """A layer with these files; a text is what a hard link leads to."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.LNKTYPE, data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def archived(folder: Path, *layers: Mapping[str, bytes | str]) -> Path:
    paths = []
    for number, content in enumerate(layers):
        paths.append(folder / f"{number}.tar")
        paths[-1].write_bytes(layer(content))
    config = {"architecture": "amd64", "os": "linux", "config": {}}
    archive.write(folder / "x.tar", config, paths, "x:1")
    return folder / "x.tar"


def test_layers_are_merged(tmp_path: Path) -> None:
    def meta(name: str) -> str:
        return f"a/site-packages/{name}.dist-info/METADATA"

    tar = archived(
        tmp_path,
        {
            "./var/lib/dpkg/status": b"old",
            "etc/motd": b"not read",
            meta("kept"): b"kept",
            meta("removed"): b"",
            "b/site-packages/all.dist-info/METADATA": b"",
            "c/site-packages/folder.dist-info/METADATA": b"",
        },
        {
            "var/lib/dpkg/status": b"new",
            "a/site-packages/.wh.removed.dist-info": b"",
            "b/.wh..wh..opq": b"",
            "b/site-packages/new.dist-info/METADATA": b"new",
            "c/site-packages": b"no folder any more",
            meta("linked"): meta("kept"),
            "lib/apk/db/installed": b"much",
        },
    )
    assert files.read(tar, "linux/amd64") == {
        "var/lib/dpkg/status": b"new",
        meta("kept"): b"kept",
        meta("linked"): b"kept",
        "b/site-packages/new.dist-info/METADATA": b"new",
        "lib/apk/db/installed": b"",
    }


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 10240])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(LadingError, match="damaged"):
        files.read(tmp_path / "x.tar", "linux/amd64")


# -- beside the archive ---------------------------------------------------------------------


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial.make(tmp_path / "project")


def test_it_lies_beside_the_archive(trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    assert trial.doit("archive") == 0
    path, record = trial.root / "dist/one.cdx.json", trial.root / "dist/one.json"
    before = path.read_bytes(), record.read_bytes()
    found = valid(path.read_text())
    assert {one["bom-ref"].split("@")[0] for one in found["components"]} == {
        "pkg:oci/python",
        "os:debian-13",
        "pkg:pypi/a",
        "pkg:pypi/uv",
    }
    said = {one["name"]: one["value"] for one in found["metadata"]["component"]["properties"]}
    assert said["lading:key"] == trial.key("one")
    assert said["lading:config"] == json.loads(before[1])["config"]
    # It is made again alone, with no engine.
    path.unlink()
    capsys.readouterr()
    assert trial.doit("archive") == 0
    assert "one.cdx.json, 4 components" in capsys.readouterr().out
    assert trial.engine.asked == []
    assert (path.read_bytes(), record.read_bytes()) == before
    assert trial.doit("archive") == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [b"", b"{}"])
def test_one_that_was_changed_is_made_again(trial: Trial, damage: bytes) -> None:
    assert trial.doit("archive:one") == 0
    path = trial.root / "dist/one.cdx.json"
    before = path.read_bytes()
    path.write_bytes(damage)
    assert trial.doit("archive:one") == 0
    assert path.read_bytes() == before


def test_a_run_with_nothing_to_do_does_not_load_the_library(trial: Trial) -> None:
    assert trial.doit("archive") == 0
    code = (
        "import sys; from pathlib import Path; from lading.project import load\n"
        "from lading.state import State; from lading.verbs import archive\n"
        "state = State(load(Path('project.yaml').absolute()))\n"
        "assert archive.current(state, state.project.images['one'])\n"
        "found = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not found & {'cyclonedx', 'packageurl', 'license_expression'}, found\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=trial.root,
        env={**os.environ, **trial.environ},
        check=True,
    )
