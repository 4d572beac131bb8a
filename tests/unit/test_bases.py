"""What is found out of a base, and what follows from it: whom it runs as, a Python that is yet to
come, and bases that no package can be installed on.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from lading import compose, debian
from lading.engines import RunResult
from lading.errors import LadingError
from lading.facts import Facts
from lading.files import sha256_of
from lading.layers import apt_image, apt_lent, apt_resolve, kinds, pip_problems
from lading.layers.apt import AptLock
from lading.layers.apt_kind import APT
from lading.layers.apt_section import AptSection
from lading.layers.kind import Subject, Tools
from lading.layers.pip_kind import PIP
from lading.layers.pip_section import PipSection
from lading.parts import Start
from lading.project import Base, DebianBase, Image, Project
from lading.steps import Run
from lading.store import Artifact, Store
from lading.verbs import base as base_verb
from tests.support.projects import Trial
from tests.unit.test_apt_layer import BASE, HEADER, MIRRORS, deb
from tests.unit.test_dockerfile import ASTROPY, image, on, pip_lock, project

# -- what is found --------------------------------------------------------------------------


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial.make(tmp_path / "project")


@pytest.mark.parametrize(
    ("user", "entrypoint", "found"),
    [
        ("1000", ("tini", "-g", "--"), {"user": "1000", "entrypoint": "tini -g --"}),
        ("jovyan:users", ("/x y",), {"user": "jovyan:users", "entrypoint": "'/x y'"}),
        ("root", (), {}),
        ("0:0", (), {}),
        ("", (), {}),
    ],
)
def test_whom_a_base_runs_as_and_what_it_starts(
    trial: Trial, user: str, entrypoint: tuple[str, ...], found: dict[str, str]
) -> None:
    trial.engine.results = [RunResult(code=0, output="glibc=2.36\n")]
    pull = trial.engine.pull

    def pulled(ref: str, **how: Any) -> str:
        identity = pull(ref, **how)
        held = trial.engine.held[ref]
        trial.engine.held[ref] = replace(held, user=user, entrypoint=entrypoint)
        return identity

    trial.engine.pull = pulled  # type: ignore[method-assign]
    facts = base_verb.facts_of_image(trial.state(), "x@sha256:1")
    assert facts == Facts(glibc="2.36", **found)
    assert {name: value for name, value in facts.to_dict().items() if value} == {
        "glibc": "2.36",
        **found,
    }


@pytest.mark.parametrize(
    ("output", "facts"),
    [
        ("musl=1.2.4\nos=alpine 3.20\n", Facts(musl="1.2.4", os="alpine 3.20")),
        # A base with glibc can have musl, too, as a package.
        ("glibc=2.36\nmusl=1.2.3\n", Facts(glibc="2.36")),
    ],
)
def test_the_c_library_of_a_base(trial: Trial, output: str, facts: Facts) -> None:
    trial.engine.results = [RunResult(code=0, output=output)]
    assert base_verb.facts_of_image(trial.state(), "x@sha256:1") == facts


def looked(folder: Path, programs: dict[str, str], **environ: str) -> list[str]:
    """What is found where these programs, by name, are before this machine's on the PATH."""
    (folder / "bin").mkdir(exist_ok=True)
    for name, text in programs.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    path = f"{folder}/bin:/usr/bin:/bin"
    command = ["/bin/sh", "-c", base_verb.LOOK]
    found = subprocess.run(
        command, env={"PATH": path, **environ}, capture_output=True, text=True, check=True
    )
    return found.stdout.splitlines()


def test_a_python_2_is_none(tmp_path: Path) -> None:
    """`python` of centos:7 is a 2.7, and there is no other."""
    old = f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (2, 7); $2"\n'
    said = looked(tmp_path, dict.fromkeys(("python3", "python"), old))
    assert not [line for line in said if line.startswith("python")]
    assert [line for line in said if line.startswith("glibc=")]
    new = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
    assert f"python={sys.executable}" in looked(tmp_path, dict.fromkeys(("python3", "python"), new))


def test_the_c_library_where_neither_python_nor_getconf_is(tmp_path: Path) -> None:
    none = dict.fromkeys(("python3", "python", "getconf"), "#!/bin/sh\nexit 1\n")
    known = subprocess.run(["getconf", "GNU_LIBC_VERSION"], capture_output=True, text=True).stdout
    assert f"glibc={known.split()[1]}" in looked(tmp_path, none)


def test_a_prefix_of_conda_without_a_conda(tmp_path: Path) -> None:
    (tmp_path / "mamba/conda-meta").mkdir(parents=True)
    said = looked(tmp_path, {}, MAMBA_ROOT_PREFIX=f"{tmp_path}/mamba")
    assert f"conda={tmp_path}/mamba" in said
    assert not [line for line in said if line.startswith("conda_version")]


# -- a base that runs as somebody else ------------------------------------------------------


def test_what_is_installed_is_roots(tmp_path: Path) -> None:
    base = Base(name="debian-13", image="docker.io/jupyter/scipy-notebook")
    declared = image(run={"after-layers": ("true",)})

    def text(**facts: str) -> str:
        locked = on(BASE, pip_lock(ASTROPY))
        other = replace(locked.base, facts=replace(BASE.facts, **facts), digest="sha256:1")
        return compose.plan(
            project(tmp_path, declared, base), declared, replace(locked, base=other)
        ).text("")

    assert "\nUSER" not in text()
    lines = [line for line in text(user="1000").splitlines() if line.startswith(("USER", "RUN"))]
    assert [line for line in lines if line.startswith("USER")] == ["USER root", "USER 1000"]
    assert (lines[0], lines[-1]) == ("USER root", "USER 1000")


def test_a_package_that_is_damaged_in_the_store_is_fetched_anew(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = deb("good", sha="1"), deb("bad", sha="2")
    state = trial.state()
    good = replace(good, size=5, sha256=trial.keep(good.file, b"whole").sha256)
    path = state.store.path(bad.sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"?" * bad.size)
    lock = replace(BASE, debs=(good, bad))

    def refuse(*_: object) -> None:
        raise LadingError(f"{bad.file} is not the package bad")

    monkeypatch.setattr(debian, "assemble", refuse)
    base = Base(name="b", debian=DebianBase(suite="trixie", packages=()))
    with pytest.raises(LadingError, match=f"since the download: {bad.file}\n") as damaged:
        base_verb.archived(state, base, lock)
    assert "run it again, and it is fetched anew" in damaged.value.do
    assert state.store.path(good.sha256).exists()
    assert not path.exists()


def test_so_it_is_where_something_is_built() -> None:
    start = Start(reference="x", platform="linux/amd64", root=Path("/p"), epoch=1, user="jovyan")
    step = Run(commands=("true",), why="")
    text = start.part("p", "p", (step,), {}, "").plan.text("")
    assert text.index("USER root\n") < text.index("RUN true")
    assert "\nUSER" not in replace(start, user="").part("p", "p", (step,), {}, "").plan.text("")


# -- a Python out of Debian's packages ------------------------------------------------------

PIP_SECTION = PipSection(requirements="r.in")
BARE = replace(BASE, facts=replace(BASE.facts, python="", python_version=""))
PYTHON = (deb("python3-minimal", "3.9.2-3"), deb("python3.9-minimal", "3.9.2-1+deb11u7", "b"))


def lock_of(*debs: debian.Deb) -> AptLock:
    return AptLock(header=HEADER, sets={"run": debs}, text="")


def subject(root: Path, base: Any = BARE, *, pip: bool = True, **locks: Any) -> Subject:
    (root / "r.in").write_text("a\n")
    section = AptSection(build=("gcc",), run=("python3",))
    declared = Image(name="one", base="b", apt=section, pip=PIP_SECTION if pip else None)
    facts = base.facts
    if "apt" in locks:
        facts = APT.facts(locks["apt"], facts)
    declaration = Project(root=root, name="t", bases={"b": Base(name="b")})
    return Subject(project=declaration, image=declared, base=base, facts=facts, locks=locks)


def test_what_is_locked_first() -> None:
    image = Image(name="one", base="b", apt=AptSection(run=("python3",)), pip=PIP_SECTION)
    declared = Project(root=Path("/p"), name="t")
    assert kinds.of(image, declared) == kinds.of(image, declared, BASE.facts) == (PIP, APT)
    assert kinds.of(image, declared, BARE.facts) == (APT, PIP)


def test_the_python_that_packages_bring() -> None:
    facts = APT.facts(lock_of(*PYTHON), BARE.facts)
    assert (facts.python, facts.python_version) == ("/usr/bin/python3", "3.9.2")
    assert facts.glibc == BARE.facts.glibc
    # What the base has of its own stays what pip's packages are for.
    assert APT.facts(lock_of(*PYTHON), BASE.facts) == BASE.facts
    assert APT.facts(lock_of(deb("gcc")), BARE.facts) == BARE.facts


def test_where_pip_waits_for_a_python(tmp_path: Path) -> None:
    asked = APT.request(subject(tmp_path))
    assert asked.for_pip
    assert "python3-dev" in asked.sets["build"]
    assert not APT.request(subject(tmp_path, pip=False)).for_pip
    assert not APT.request(subject(tmp_path, BASE)).for_pip
    assert replace(asked, for_pip=False).digest != asked.digest


def test_a_python_that_lacks_distutils_gets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, tuple[str, ...]]] = []

    def resolve(sets: Any, *_: Any, **__: Any) -> apt_resolve.Resolved:
        asked.append(dict(sets))
        return apt_resolve.Resolved(sets=dict.fromkeys(sets, PYTHON))

    monkeypatch.setattr(apt_resolve, "resolve", resolve)
    tools = Tools(environ={}, store=Store(tmp_path), note=print, in_base=lambda: None)  # type: ignore[arg-type, return-value]
    APT.lock(APT.request(subject(tmp_path)), None, tools)
    first, second = asked
    assert second == {name: (*some, "python3-distutils") for name, some in first.items()}
    asked.clear()
    APT.lock(APT.request(subject(tmp_path, pip=False)), None, tools)
    assert len(asked) == 1


def test_pip_is_lent_what_brings_the_python(tmp_path: Path) -> None:
    found = PIP.request(subject(tmp_path, apt=lock_of(*PYTHON)))
    assert found.facts.python_version == "3.9.2"
    assert found.lent == apt_lent.Lent(base=BARE, debs=PYTHON)
    assert PIP.request(subject(tmp_path, BASE, apt=lock_of(*PYTHON))).lent is None


@pytest.fixture
def lent(tmp_path: Path) -> tuple[apt_lent.Lent, Store]:
    """A package in the store."""
    file = tmp_path / "x.deb"
    file.write_bytes(b"a package")
    store = Store(tmp_path / "store")
    one = replace(deb("x"), sha256=sha256_of(file), size=file.stat().st_size)
    artifact = Artifact(name=one.file, sha256=one.sha256, size=one.size)
    target = store.path(artifact.sha256)
    target.parent.mkdir(parents=True)
    file.rename(target)
    return apt_lent.Lent(base=BARE, debs=(one,)), store


def test_in_a_throwaway_container_they_are_installed_first(
    lent: tuple[apt_lent.Lent, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    what, store = lent
    monkeypatch.setattr(apt_resolve, "mirrors_of", lambda *_: MIRRORS)
    answers = [
        RunResult(code=0, output="ok"),
        RunResult(code=1, output="@lading apt failed\nwhy\n"),
    ]
    seen: list[SimpleNamespace] = []

    def in_base(command: Any, *, mounts: Any, **_: Any) -> RunResult:
        files = {mount.target: mount.source.read_bytes() for mount in mounts}
        seen.append(SimpleNamespace(command=command, files=files))
        return answers.pop(0)

    tools = Tools(environ={}, store=store, note=print, in_base=lambda: in_base)  # type: ignore[arg-type, return-value]
    run = apt_lent.with_packages(what, tools)
    assert run(["/lading/uv", "x y"]).output == "ok"
    assert seen[0].command[-2:] == ["/lading/uv", "x y"]
    assert seen[0].files["/lading/packages/install.sh"] == apt_image.SCRIPT.encode()
    assert seen[0].files[f"/lading/packages/debs/{what.debs[0].file}"] == b"a package"
    with pytest.raises(LadingError, match="can't be installed in a throwaway") as caught:
        run(["/lading/uv"])
    assert caught.value.why == "why\n"


# -- bases that no package can be installed on ----------------------------------------------


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            Facts(glibc="2.28", os="debian 10", package_manager="apt"),
            ["apt: {run: [python3]}", "`source:` compiles is not there yet"],
        ),
        (
            Facts(glibc="2.27", os="ubuntu 18.04", package_manager="apt"),
            ["its apt has other archives", "packages: [python=3.12]}` brings one"],
        ),
        (
            Facts(glibc="2.17", os="centos 7", package_manager="yum"),
            [
                "(centos 7)",
                "the base has yum, not Debian's apt; one that `source:` compiles is not there yet",
                "packages: [python=3.12]}` brings one",
            ],
        ),
        (
            Facts(glibc="2.36"),
            ["the base has no package manager", "packages: [python=3.12]}` brings one"],
        ),
        (Facts(), ["choose a base that has one, and glibc"]),
        (Facts(musl="1.2.4", python="/usr/bin/python3"), ["musl 1.2.4", "-slim in place of"]),
    ],
)
def test_what_is_said_of_a_base_without_a_fit_python(facts: Facts, said: list[str]) -> None:
    error = pip_problems.unfit("one", facts)
    text = f"{error.what}\n{error.why}\n{error.do}"
    for words in said:
        assert words in text
