"""The apt layer: its section, its lock, and what apt said in a container (recorded/apt)."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from lading import dockerfile, locks, moved, plan, project
from lading.compose import Layer, Locked, artifacts
from lading.debian import Deb
from lading.errors import DeclarationError, EnvironmentProblem, LadingError
from lading.facts import Facts
from lading.files import digest_of
from lading.layers import apt, apt_image, apt_kind, apt_resolve
from lading.layers.apt import AptLock, Request
from lading.layers.apt_kind import APT
from lading.layers.apt_section import AptSection
from lading.layers.base import BaseLock
from lading.layers.kind import Subject, Tools
from lading.layers.pip import PipLock
from lading.layers.pip_section import PipSection
from lading.locks import Header
from lading.parts import Start
from lading.project import Base, Image, Project
from lading.requirements import Pin
from lading.steps import Stage, Stored
from lading.store import Artifact, Store

RECORDED = Path(__file__).with_name("recorded") / "apt"
MIRRORS = {
    "debian": "http://mirror.example/debian",
    "debian-security": "http://mirror.example/debian-security",
}
FACTS = Facts(
    python="/usr/bin/python3",
    python_version="3.13.5",
    glibc="2.41",
    os="debian 13",
    package_manager="apt",
)
HEADER = Header(command="doit lock:base:debian-13", date=date(2026, 11, 22), inputs="0" * 64)


def deb(name: str, version: str = "14.2.0-19", sha: str = "a") -> Deb:
    return Deb(
        name=name,
        version=version,
        architecture="amd64",
        path=f"debian:pool/main/{name[0]}/{name}/{name}_{version.partition(':')[2]}_amd64.deb",
        size=1234,
        sha256=sha * 64,
    )


BASE = BaseLock(
    header=HEADER, facts=FACTS, text="", suite="trixie", debs=(deb("libc6", "2.41-12"),)
)
GOMP, MAKE, LIBC = deb("libgomp1"), deb("make", "4:4.4.1-2", "b"), deb("libc6-dev", "2.41-12", "c")


@pytest.fixture(autouse=True)
def day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "today", lambda: date(2026, 11, 22))


def made(sets: Mapping[str, Sequence[Deb]], old: AptLock | None = None) -> AptLock:
    return apt.made(sets, old, inputs="1" * 64, command="doit lock:mpi", what="mpi")


# -- the section ----------------------------------------------------------------------------


def declared(tmp_path: Path, section: str) -> AptSection | None:
    path = tmp_path / "project.yaml"
    path.write_text(
        "lading: 1\nname: t\nbases:\n  b: {debian: {suite: trixie}}\n"
        f"images:\n  mpi:\n    base: b\n    apt: {section}\n"
    )
    return project.load(path).images["mpi"].apt


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("{build: [g++, gfortran=4:12.2.0-3], run: libgomp1}", (("g++", "gfortran=4:12.2.0-3"), 1)),
        ("[libgomp1]", ((), 1)),
        ("libgomp1", ((), 1)),
        ("{}", ((), 0)),
    ],
)
def test_a_list_alone_is_what_the_image_gets(
    tmp_path: Path, section: str, expected: tuple[tuple[str, ...], int]
) -> None:
    build, run = expected
    assert declared(tmp_path, section) == AptSection(build=build, run=("libgomp1",) * run)


@pytest.mark.parametrize(
    "name", ["foo-", "Foo", "f", "foo=", "foo=1*", "foo:i386", "foo bar", "--help", "foo/sid", "-y"]
)
def test_what_is_no_name_of_a_package_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DeclarationError, match=r"images\.mpi\.apt\.run\[0\]: expected a Debian"):
        declared(tmp_path, f'{{run: ["{name}"]}}')


# -- the lock -------------------------------------------------------------------------------


def test_the_text_of_a_lock() -> None:
    lock = made({"run": (GOMP,), "build": (MAKE, GOMP)})
    assert lock.text == (
        "# The Debian packages of mpi, and what each is installed for.\n"
        "# lading-lock: 1\n"
        "# command: doit lock:mpi\n"
        "# date: 2026-11-22\n"
        f"# inputs: sha256:{'1' * 64}\n"
        "\n"
        "packages:\n"
        '  - {name: libgomp1, version: "14.2.0-19", architecture: amd64, '
        'path: "debian:pool/main/l/libgomp1/libgomp1__amd64.deb", '
        f"size: 1234, sha256: {'a' * 64}, for: [build, run]}}\n"
        '  - {name: make, version: "4:4.4.1-2", architecture: amd64, '
        'path: "debian:pool/main/m/make/make_4.4.1-2_amd64.deb", '
        f"size: 1234, sha256: {'b' * 64}, for: [build]}}\n"
    )
    assert lock.sets == {"build": (GOMP, MAKE), "run": (GOMP,)}
    assert lock.debs == (GOMP, MAKE)
    assert [a.name for a in lock.artifacts] == ["libgomp1__amd64.deb", "make_4.4.1-2_amd64.deb"]


def test_a_lock_is_written_and_read(tmp_path: Path) -> None:
    assert apt.read(tmp_path) is None
    lock = made({"run": (GOMP,), "build": (MAKE, GOMP)})
    apt.write(tmp_path, lock)
    assert apt.read(tmp_path) == lock
    assert dict(lock.texts) == {"apt.yaml": (tmp_path / "apt.yaml").read_text()}


def test_a_lock_of_nothing_is_one(tmp_path: Path) -> None:
    apt.write(tmp_path, made({"run": ()}))
    lock = apt.read(tmp_path)
    assert lock is not None
    assert (lock.sets, lock.debs) == ({}, ())


def test_the_date_moves_only_with_the_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = made({"run": (GOMP,)})
    monkeypatch.setattr(locks, "today", lambda: date(2027, 1, 1))
    assert made({"run": (GOMP,)}, lock).header.date == date(2026, 11, 22)
    assert made({"build": (GOMP,)}, lock).header.date == date(2027, 1, 1)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("for: [build, run]", "for: [test]", 8),
        ("packages:", "package:", 7),
        ("size: 1234", "size: many", 8),
        ('"14.2.0-19"', '"14\\q"', 8),
        ("a" * 64, "a" * 63, 8),
        ("]}\n", "]}\n# well\n", 9),
    ],
)
def test_a_damaged_lock_is_named_with_its_line(old: str, new: str, line: int) -> None:
    text = made({"run": (GOMP,), "build": (GOMP,)}).text.replace(old, new)
    with pytest.raises(LadingError, match=f"locks/apt.yaml:{line}: not a lock"):
        apt.parse(text, "locks/apt.yaml")


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1, max_size=20)
DEBS = st.builds(
    Deb,
    name=st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,20}", fullmatch=True),
    version=TEXT,
    architecture=st.sampled_from(["amd64", "all"]),
    path=TEXT,
    size=st.integers(0, 1 << 40),
    sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
)


@given(build=st.sets(DEBS, max_size=4), run=st.sets(DEBS, max_size=4), both=DEBS)
def test_any_lock_reads_back(build: set[Deb], run: set[Deb], both: Deb) -> None:
    lock = made({"build": tuple(build | {both}), "run": tuple(run | {both})})
    assert apt.parse(lock.text, "x") == lock
    assert {name: set(debs) for name, debs in lock.sets.items()} == {
        "build": build | {both},
        "run": run | {both},
    }


@given(text=st.text(max_size=200))
def test_any_other_text_is_refused_plainly(text: str) -> None:
    head = made({"run": ()}).text.removesuffix("packages:\n")
    try:
        lock = apt.parse(head + text, "x")
    except LadingError:
        return
    assert made(lock.sets).text.strip() == lock.text.strip()


# -- what it is made from -------------------------------------------------------------------


def request(section: AptSection, base: BaseLock = BASE, **other: Any) -> Request:
    return Request(image="mpi", section=section, base=base, platform="linux/amd64", **other)


def test_to_build_what_runs_is_needed_too() -> None:
    section = AptSection(build=("make",), run=("libgomp1",))
    assert request(section, implied=("python3-dev",)).sets == {
        "build": ("make", "python3-dev", "libgomp1"),
        "run": ("libgomp1",),
    }
    assert request(AptSection(run=("libgomp1",))).sets["build"] == ()


def test_what_makes_a_lock_stale() -> None:
    one = request(AptSection(build=("make",), run=("libgomp1",)))
    newer = replace(BASE, debs=(deb("libc6", "2.41-13"),))
    others = [
        replace(one, section=AptSection(build=("make",))),
        replace(one, section=AptSection(run=("make", "libgomp1"))),
        replace(one, implied=("python3-dev",)),
        replace(one, platform="linux/arm64"),
        replace(one, base=newer),
        replace(one, base=replace(BASE, debs=(), digest="sha256:1", suite="")),
        replace(one, base=replace(BASE, debs=(), digest="sha256:2", suite="")),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == len(others) + 1
    same = replace(one, base=replace(BASE, header=replace(HEADER, date=date(2027, 1, 1))))
    assert replace(same, as_of=date(2021, 8, 15)).digest == one.digest


def subject(section: AptSection, pip: PipSection | None, *pins: str, **facts: str) -> Subject:
    image = Image(name="mpi", base="debian-13", apt=section, pip=pip)
    wheels = tuple(
        Pin(name="p", version="1", artifact=Artifact(name=name, sha256="a" * 64, size=1))
        for name in pins
    )
    base = replace(BASE, facts=replace(FACTS, **facts))
    lock = PipLock(header=HEADER, pins=wheels, installer=wheels[0], build={}, texts={})
    declaration = Project(root=Path("/p"), name="t", bases={"debian-13": Base(name="debian-13")})
    return Subject(
        project=declaration, image=image, base=base, facts=base.facts, locks={"pip": lock}
    )


PIP = PipSection(requirements="r.in")
WHEEL, SDIST = "p-1-py3-none-any.whl", "p-1.tar.gz"
BUILD = AptSection(build=("gcc",))


def test_headers_of_python_come_with_what_is_built_for_it() -> None:
    headers = ("python3-dev",)
    assert apt_kind.implied(subject(BUILD, PIP, SDIST)) == headers
    assert apt_kind.implied(subject(BUILD, PIP, WHEEL)) == ()
    assert apt_kind.implied(subject(BUILD, replace(PIP, no_binary=("p",)), WHEEL)) == headers
    assert apt_kind.implied(subject(AptSection(run=("gcc",)), PIP, SDIST)) == ()
    # Named already, not Debian's Python, no Debian.
    assert apt_kind.implied(subject(AptSection(build=("python3-dev",)), PIP, SDIST)) == ()
    assert apt_kind.implied(subject(BUILD, PIP, SDIST, python="/usr/local/bin/python")) == ()
    assert apt_kind.implied(subject(BUILD, PIP, SDIST, package_manager="dnf")) == ()
    assert APT.request(subject(BUILD, PIP, SDIST)).sets["build"] == ("gcc", "python3-dev")


# -- what apt answers -----------------------------------------------------------------------


def answered(name: str, sets: Mapping[str, Sequence[str]]) -> apt_resolve.Resolved:
    output = (RECORDED / f"{name}.txt").read_text()
    return apt_resolve.answered(output, sets, MIRRORS, "images.mpi.apt")


def test_packages_with_all_that_the_base_lacks() -> None:
    found = answered("ok", {"run": ["libgomp1"], "build": ["make", "libgomp1"]})
    assert not found.replaced
    assert not found.unpinned
    assert found.sets["run"] == (
        Deb(
            name="libgomp1",
            version="14.2.0-19",
            architecture="amd64",
            path="debian:pool/main/g/gcc-14/libgomp1_14.2.0-19_amd64.deb",
            size=137148,
            sha256="72b7a1a33c48f3195efeb044111b34ae684b1e640bb6495c832443b798601cd5",
        ),
    )
    assert [d.name for d in found.sets["build"]] == ["libgomp1", "make"]


def test_what_the_base_has_adds_nothing() -> None:
    assert answered("bash", {"run": ["bash"]}).sets == {"run": ()}


def test_what_replaces_a_package_of_the_base_is_told() -> None:
    found = answered("replaced", {"run": ["libssl3t64=3.5.7-1~deb13u2"]})
    assert found.replaced == {"libssl3t64": ("3.5.7-1~deb13u3", "3.5.7-1~deb13u2")}


def test_versions_that_do_not_fit_any_more_are_let_go() -> None:
    found = answered("again", {"run": ["libcurl4t64=8.14.1-2+deb13u7", "libcurl4-openssl-dev"]})
    assert found.unpinned
    curl = {d.name: d for d in found.sets["run"]}["libcurl4-openssl-dev"]
    assert curl.version == "8.14.1-2+deb13u7"
    assert curl.path.startswith("debian-security:pool/updates/main/c/curl/")


def test_without_mirrors_of_ones_own_the_base_says_where_debian_is() -> None:
    output = (RECORDED / "ok.txt").read_text()
    sets = {"run": ["libgomp1"], "build": ["make", "libgomp1"]}
    assert apt_resolve.answered(output, sets, {}, "x") == apt_resolve.answered(
        output, sets, MIRRORS, "x"
    )


def test_preferences_keep_versions() -> None:
    assert apt_resolve.preferences([MAKE, GOMP, GOMP]) == (
        "Package: libgomp1\nPin: version 14.2.0-19\nPin-Priority: 990\n\n"
        "Package: make\nPin: version 4:4.4.1-2\nPin-Priority: 990\n\n"
    )


def problem(name: str, *packages: str, kind: type[LadingError] = LadingError) -> str:
    with pytest.raises(LadingError) as error:
        answered(name, {"run": packages})
    assert type(error.value) is kind
    return str(error.value)


def test_names_that_are_not_there() -> None:
    text = problem("unknown", "gfortan", "c-compiler", kind=DeclarationError)
    assert text == (
        "images.mpi.apt: Debian trixie has no package c-compiler, gfortan, nosuchx\n"
        "  c-compiler: a virtual package, provided by clang-17, clang-18, clang-19, clang-22, "
        "gcc, gcc-12, gcc-13, gcc-14 and 2 more\n"
        "  gfortan: not there (did you mean gfortran or lfortran or cfortran?)\n"
        "  nosuchx: not there\n"
        "  -> name one of the packages that there are"
    )


def test_a_version_that_is_not_there() -> None:
    assert problem("version", "gfortran=4:10.2.1-1", kind=DeclarationError) == (
        "images.mpi.apt: Debian trixie has no gfortran 4:10.2.1-1\n"
        "  there is gfortran 4:14.2.0-1\n"
        "  -> name gfortran without a version: the lock pins it"
    )


def test_packages_that_exclude_each_other() -> None:
    assert problem("conflict", "exim4-daemon-light", "postfix") == (
        "images.mpi.apt: apt finds no way to install exim4-daemon-light postfix\n"
        "  exim4-config : Conflicts: postfix but 3.10.13-0+deb13u1 is to be installed\n"
        "  exim4-daemon-light : Conflicts: mail-transport-agent\n"
        "  postfix : Conflicts: mail-transport-agent\n"
        "  -> leave out, or name other versions of, what conflicts"
    )


def test_nothing_of_the_base_is_removed() -> None:
    assert problem("removal", "libgomp1") == (
        "images.mpi.apt: on this base, libgomp1 can't be installed\n"
        "  packages of the base would have to go: "
        "python3, python3-minimal, python3.13, python3.13-minimal\n"
        "  -> leave out what conflicts with the base, or take another base"
    )


def test_a_mirror_that_does_not_answer() -> None:
    text = problem("unreachable", "bash", kind=EnvironmentProblem)
    assert "no mirror of Debian trixie can be reached" in text
    assert "Connection refused" in text
    assert "$LADING_DEBIAN_MIRROR" in text


@pytest.mark.parametrize("output", ["", "sh: 1: out of memory\n", "@lading suite trixie\n"])
def test_an_answer_that_breaks_off_is_no_answer(output: str) -> None:
    with pytest.raises(LadingError, match="apt's answer can't be understood"):
        apt_resolve.answered(output, {"run": ["bash"]}, MIRRORS, "x")
    half = (RECORDED / "ok.txt").read_text().partition("@lading solve build")[0]
    with pytest.raises(LadingError, match="apt's answer can't be understood"):
        apt_resolve.answered(half, {"run": ["libgomp1"], "build": ["make"]}, MIRRORS, "x")


def tools(store: Path, environ: Mapping[str, str] | None = None) -> Tools:
    def in_base() -> Any:
        raise AssertionError("nothing needs a container here")

    return Tools(environ=environ or {}, store=Store(store), note=print, in_base=in_base)


@pytest.mark.parametrize(
    ("system", "manager", "expected"),
    [
        ("ubuntu 24.04", "apt", "this base is ubuntu 24.04\n  its apt has other archives"),
        ("alpine 3.20", "apk", "this base is alpine 3.20\n  the base has apk, not apt"),
        ("", "", "this base is something else\n  the base has no package manager"),
    ],
)
def test_a_base_that_is_not_debian(
    tmp_path: Path, system: str, manager: str, expected: str
) -> None:
    base = replace(BASE, facts=replace(FACTS, os=system, package_manager=manager))
    with pytest.raises(DeclarationError) as error:
        apt_resolve.resolve({"run": ["bash"]}, base, tools(tmp_path), what="images.mpi.apt")
    assert expected in str(error.value)


def test_no_packages_need_no_container(tmp_path: Path) -> None:
    assert apt_resolve.resolve({"run": (), "build": ()}, BASE, tools(tmp_path)).sets == {}


def test_where_the_packages_are_today(tmp_path: Path) -> None:
    environ = {
        "LADING_DEBIAN_MIRROR": "https://me:secret@mirror.example/debian",
        "LADING_DEBIAN_SECURITY_MIRROR": "https://mirror.example/security",
    }
    lock = made({"run": (GOMP, LIBC)})
    found = APT.sources(
        request(AptSection(run=("libgomp1",))),
        lock,
        [lock.artifacts[0]],
        tools(tmp_path, environ),
    )
    (sha256,) = found
    assert sha256 == LIBC.sha256
    assert found[sha256][0].url == (
        "https://mirror.example/debian/pool/main/l/libc6-dev/libc6-dev__amd64.deb"
    )
    assert found[sha256][0].auth == ("me", "secret")


# -- what is said of a lock, and added to an image --------------------------------------------


def test_what_moved_between_two_locks() -> None:
    old = made({"run": (GOMP,), "build": (GOMP, LIBC, deb("old"))})
    new = made({"run": (deb("libgomp1", "15"), LIBC, MAKE), "build": (LIBC, MAKE)})
    assert moved.compare(APT.pinned(old), APT.pinned(old)) == ()
    told = {c.name: (c.old, c.new) for c in moved.compare(APT.pinned(old), APT.pinned(new))}
    assert told == {
        "libc6-dev": ("2.41-12 (build)", "2.41-12 (build, run)"),
        "libgomp1": ("14.2.0-19", "15"),
        "make": ("", "4:4.4.1-2"),
        "old": ("14.2.0-19", ""),
    }


def test_a_package_that_is_to_move_is_not_asked_to_stay() -> None:
    old = made({"run": (GOMP, MAKE), "build": (GOMP, LIBC, MAKE)})
    kept = APT.loosened(old, lambda name: name == "make")
    assert kept.debs == (LIBC, GOMP)
    assert kept.text == old.text, "what its date stands for"
    assert "Package: make\n" in apt_resolve.preferences(old.debs)
    assert "Package: make\n" not in apt_resolve.preferences(kept.debs)
    assert APT.loosened(old, lambda name: True).debs == ()


def test_the_summary() -> None:
    asked = request(AptSection(run=("libgomp1",)))
    assert APT.summary(asked, made({"run": (GOMP,)})) == "1 Debian package, 1.2 kB"
    both = made({"run": (GOMP,), "build": (GOMP, MAKE)})
    assert APT.summary(asked, both) == "2 Debian packages (1 in the image), 2.5 kB"


def test_run_goes_into_the_image_and_build_does_not() -> None:
    added = apt_image.contribute(made({"run": (GOMP,), "build": (GOMP, MAKE)}))
    lent = {at: what for at, what in added.files.items() if at.startswith("apt/run/debs/")}
    assert lent == {"apt/run/debs/libgomp1__amd64.deb": Stored(sha256="a" * 64)}
    assert not any("make" in at for at in added.files)
    assert "apt/build/debs/make_4.4.1-2_amd64.deb" in added.tool_files
    text = dockerfile.render("t", [Stage(base="b", why="w", steps=added.steps)])
    assert text.endswith(
        "RUN --mount=type=bind,source=apt/run,target=/dev/shm/lading/apt \\\n"
        "    sh /dev/shm/lading/apt/install.sh\n"
    )
    assert len(added.tools) == 1


def test_nothing_declared_adds_nothing() -> None:
    added = apt_image.contribute(made({}))
    assert (added.steps, added.tools, added.files, added.tool_files) == ((), (), {}, {})


def test_the_same_for_any_order_of_the_same_packages() -> None:
    one = apt_image.contribute(made({"run": (GOMP, MAKE)}))
    two = apt_image.contribute(made({"run": (MAKE, GOMP)}))
    assert digest_of(repr(one)) == digest_of(repr(two))


@pytest.mark.parametrize("script", [apt_image.SCRIPT, apt_resolve.SCRIPT])
def test_the_scripts_are_plain_sh(script: str, tmp_path: Path) -> None:
    path = tmp_path / "script.sh"
    path.write_text(script)
    subprocess.run(["sh", "-n", str(path)], check=True)
    assert "\\n'" in script  # no escape was lost on the way through Python


def test_what_is_built_with_is_fetched_only_where_something_is_built(tmp_path: Path) -> None:
    lock = made({"build": (MAKE, GOMP), "run": (GOMP,)})
    start = Start(reference="b:1", platform="linux/amd64", root=tmp_path, epoch=1)
    request = Request(
        image="mpi", section=AptSection(build=("make",)), base=BASE, platform="linux/amd64"
    )
    locked = Locked(base=BASE, layers=(Layer(kind=APT, request=request, lock=lock),))
    added = apt_image.contribute(lock)
    alone = plan.make("mpi", "An image.", (), added.files)
    assert [one.name for one in artifacts(locked, alone)] == [GOMP.file]
    part = start.with_tools(added).part("wheel", "a wheel", (), {}, "It is built.")
    with_part = plan.make("mpi", "An image.", (), added.files, (part,))
    assert {one.name for one in artifacts(locked, with_part)} == {GOMP.file, MAKE.file}
