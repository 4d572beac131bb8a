"""Why a package is in an image: chains from the declaration, constraints, and what is not known."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from lading import locks
from lading.conda.environment import Environment, Spec
from lading.conda.explicit import Package
from lading.debian import Deb
from lading.debian.repository import MAGIC, control_of
from lading.layers import apt, conda, deb_lines
from lading.layers.pip_kind import PIP
from lading.locks import Header
from lading.requirements import Pin, render
from lading.store import Store
from lading.verbs import why
from lading.why import condas, debs, python
from lading.why.graph import Graph, Node, Want, chains, collected
from lading.why.words import told
from tests.support.index import only_loopback, wheel
from tests.support.projects import DAY, FACTS, Trial

Said = pytest.CaptureFixture[str]
YAML = """\
lading: 1
name: trial
bases:
  slim: {image: docker.io/library/python:3.13-slim}
images:
  one:
    base: slim
    as-of: 2026-10-01
    pip:
      requirements: recipes/one.in
      constraints: recipes/limits.txt
      no-binary: [deep]
      build-constraints: ["tool<3"]
  other:
    base: slim
    pip: {requirements: recipes/other.in}
"""


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only_loopback(monkeypatch, tmp_path, tmp_path / "uv-cache")
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def no_place(where: str, text: str) -> str:
    return where


# -- chains ---------------------------------------------------------------------------------


def graph(
    wants: Mapping[str, list[Want]], limits: Mapping[str, tuple[str, ...]] | None = None
) -> Graph:
    return Graph(
        layer="pip",
        lock="locks/x",
        nodes={name: Node(name=name, version="1") for name in wants},
        wants=collected((name, want) for name, some in wants.items() for want in some),
        limits=limits or {},
    )


ROOT = Want(where="r.in:1", text="a")


def test_the_shortest_chain_of_each_that_wants_it() -> None:
    made = graph(
        {
            "a": [ROOT],
            "b": [Want(by="a", text="b>1")],
            "c": [Want(by="b"), Want(by="a", text="c<3")],
            "d": [Want(by="c", text="d"), Want(where="r.in:2", text="d~=1.0")],
        }
    )
    assert chains(made, "a") == [(ROOT,)]
    assert chains(made, "c") == [
        (ROOT, Want(by="a", text="c<3")),
        (ROOT, Want(by="a", text="b>1"), Want(by="b")),
    ]
    assert chains(made, "d") == [
        (Want(where="r.in:2", text="d~=1.0"),),
        (ROOT, Want(by="a", text="c<3"), Want(by="c", text="d")),
    ]
    assert chains(made, "nobody") == []


def test_a_circle_ends_and_what_is_declared_comes_first() -> None:
    made = graph({"a": [Want(by="b")], "b": [Want(by="a")], "c": [Want(by="a"), ROOT]})
    assert chains(made, "c")[0] == (ROOT,)
    assert chains(made, "c")[1][-1] == Want(by="a")
    assert len(chains(made, "a")) == 1


def test_many_that_want_it_are_counted() -> None:
    wants: dict[str, list[Want]] = {f"p{number:02}": [ROOT] for number in range(20)}
    wants["all"] = [Want(by=name) for name in wants]
    said = told(graph(wants), "all", None)
    assert "and 8 more (--all names them)" in said
    assert "more" not in told(graph(wants), "all", None, every=True).replace("  newer", "")


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("a<2", True),
        ("a >=1,<=2", True),
        ("a==1.0", True),
        ("a~=1.4", True),
        ("a===1", True),
        ("a @ https://host.example/a.zip", True),
        ("a>=1", False),
        ("a!=1.5", False),
        ("a", False),
        ("a[extra]>1", False),
        ("libfoo >=1.1,<2.0a0", True),
        ("python_abi 3.12.* *_cp312", True),
        ("numpy=1.26", True),
        ("libfoo >=1.1", False),
        ("libc6 (>= 2.38)", False),
        ("libc6 (<< 2.42)", True),
        ("libgfortran-10-dev (= 10.2.1-6)", True),
        ("gcc-10 (>> 10)", False),
    ],
)
def test_what_bounds_a_version_from_above(text: str, bounds: bool) -> None:
    said = told(graph({"a": [Want(where="r.in:1", text=text)]}), "a", None)
    assert (f"bounded by r.in:1: {text};" in said) is bounds
    assert "`doit outdated`" in said


# -- Python ---------------------------------------------------------------------------------


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    made = Trial.make(tmp_path / "empty")
    root = made.root
    (root / "recipes/one.in").write_text("-r more.in\n\nTop [fast] >= 1 ; python_version > '3'\n")
    (root / "recipes/more.in").write_text("# comment\nside\n")
    (root / "recipes/limits.txt").write_text("deep<4\n")
    (root / "recipes/other.in").write_text("deep\n")
    (root / "project.yaml").write_text(YAML)
    requires = {
        "top": [
            "deep>=2,<5; python_version>='3.8'",
            "deep==9; sys_platform=='win32'",
            "opt[x]>=1; extra=='fast'",
        ],
        "side": ["deep"],
        "opt": [],
    }
    for image, version in (("one", "3.5"), ("other", "4.0")):
        pins = []
        for name, wanted in requires.items() if image == "one" else ():
            extras: dict[str, list[str]] = {"fast": []} if name == "top" else {}
            made_wheel = wheel(name, "1.5", requires=wanted, extras=extras)
            pins.append(Pin(name=name, version="1.5", artifact=made.keep(*made_wheel)))
        sdist = made.keep("deep-3.5.tar.gz", sdist_with("tool>=1"))
        pins.append(
            Pin(
                name="deep", version=version, artifact=replace(sdist, name=f"deep-{version}.tar.gz")
            )
        )
        via = {
            "top": ("-r recipes/one.in",),
            "side": ("-r recipes/more.in",),
            "opt": ("top",),
            "deep": ("-c recipes/limits.txt", "side", "top"),
        }
        if image == "other":
            via = {"deep": ("-r recipes/other.in",)}
        tool = Pin(
            name="tool", version="2", artifact=made.keep(*wheel("tool", "2")),
            via=("-c build-constraints.txt", "-r build-deep.in"),
        )  # fmt: skip
        uv = Pin(name="uv", version="9", artifact=made.keep(*wheel("uv", "9")))
        state = made.state()
        folder = state.lock_folder(made.image(image))
        folder.mkdir(parents=True, exist_ok=True)
        digest = state.request(made.image(image), PIP).digest
        header = Header(command=f"doit lock:{image}", date=DAY, inputs=digest)
        listed = [replace(pin, via=via[pin.name]) for pin in sorted(pins, key=lambda p: p.name)]
        for file, some in (("requirements", listed), ("installer", [uv]), ("build-deep", [tool])):
            (folder / f"{file}.txt").write_text(locks.text_of(header, render(some), "About."))
    return made


def sdist_with(requires: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        data = f'[build-system]\nrequires = ["{requires}"]\n'.encode()
        info = tarfile.TarInfo("deep-3.5/pyproject.toml")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_a_python_package(trial: Trial, capsys: Said) -> None:
    assert trial.doit("why", "one", "Deep") == 0
    assert trial.engine.calls == []
    assert capsys.readouterr().out.splitlines()[2:] == [
        "  wanted by",
        "    recipes/more.in:2: side",
        "      side 1.5: deep",
        "    recipes/one.in:3: Top [fast] >= 1 ; python_version > '3'",
        "      top 1.5: deep<5,>=2",
        "  limit  recipes/limits.txt:1: deep<4",
        "  limit  as of 2026-10-01: what came later does not count",
        "  newer  bounded by top 1.5: deep<5,>=2; recipes/limits.txt:1: deep<4; as of 2026-10-01; "
        "`doit outdated` asks whether there is one",
        "",
        "also in other (4.0)",
    ]


def test_an_extra_and_what_builds_and_what_installs(trial: Trial, capsys: Said) -> None:
    assert trial.doit("why", "one", "opt") == 0
    assert "top 1.5: opt[x]>=1" in capsys.readouterr().out
    assert trial.doit("why", "one", "tool") == 0
    said = capsys.readouterr().out
    assert said.startswith(
        "tool 2: pip, to build deep 3.5, in locks/images/one/linux-amd64/build-deep"
    )
    assert "    to build deep 3.5: tool>=1\n" in said
    assert "bounded by project.yaml:13: images.one.pip.build-constraints: tool<3" in said
    assert trial.doit("why", "one", "uv") == 0
    assert "uv installs the packages" in capsys.readouterr().out


def test_what_is_not_in_the_store_is_left_open(trial: Trial, capsys: Said) -> None:
    store = trial.state().store
    for pin in PIP.read(trial.root / "locks/images/one/linux-amd64").pins:  # type: ignore[union-attr]
        store.path(pin.artifact.sha256).unlink()
    assert trial.doit("why", "one", "deep") == 0
    said = capsys.readouterr().out
    assert "      top 1.5\n" in said
    assert "stands in files that are not in the store: `doit fetch:one` gets it" in said


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["one", "deeep"], 1, "did you mean deep?"),
        (["other", "top"], 1, "it is in one (1.5)"),
        (["other", "zzzz"], 1, "only the digest is locked"),
        (["on", "top"], 3, "there is no image 'on'; did you mean one"),
        (["one"], 3, "an image and a package: `doit why NAME PACKAGE`"),
    ],
)
def test_a_name_that_is_not_there(
    trial: Trial, capsys: Said, arguments: list[str], code: int, said: str
) -> None:
    assert trial.doit("why", *arguments) == code
    found = capsys.readouterr()
    assert said in found.err
    assert "Traceback" not in found.err + found.out


def test_a_variant_of_a_matrix(trial: Trial, capsys: Said) -> None:
    """Its values stand in its requirement files, and in the names of files that these include."""
    one = YAML.index("  one:")
    more = "  v:\n    matrix: {deep: [3.5, 4.0]}\n    base: slim\n"
    more += "    pip: {requirements: recipes/v.in}\n"
    (trial.root / "project.yaml").write_text(YAML[:one] + more + YAML[one:])
    (trial.root / "recipes/v.in").write_text("-r deep-{deep}.in\n")
    for version in ("3.5", "4.0"):
        (trial.root / f"recipes/deep-{version}.in").write_text("deep=={deep}\n")
    locks_of = trial.root / "locks/images"
    shutil.copytree(locks_of / "other", locks_of / "v-4.0")
    lock = locks_of / "v-4.0/linux-amd64/requirements.txt"
    lock.write_text(lock.read_text().replace("other.in", "deep-4.0.in"))
    assert trial.doit("why", "v-4.0", "deep") == 0
    said = capsys.readouterr().out
    assert "    recipes/deep-4.0.in:1: deep==4.0\n" in said
    assert "bounded by recipes/deep-4.0.in:1: deep==4.0;" in said
    assert trial.doit("why", "v", "deep") == 3
    assert "v is several images: name v-3.5, v-4.0\n" in capsys.readouterr().err


def test_an_image_that_is_not_locked_or_whose_lock_is_damaged(trial: Trial, capsys: Said) -> None:
    path = trial.root / "locks/images/one/linux-amd64/requirements.txt"
    path.write_text(path.read_text() + "<<<<<<< ours\n")
    assert trial.doit("why", "one", "deep") == 1
    assert "not a line of a lock" in capsys.readouterr().err
    path.unlink()
    assert trial.doit("why", "one", "deep") == 1
    assert "one is not locked yet\n  -> doit lock:one" in capsys.readouterr().err


# -- conda ----------------------------------------------------------------------------------

LOCK = """
version: 7
environments:
  default:
    packages:
      linux-64:
      - conda: channel:///lab/linux-64/libfoo-1.2-0.tar.bz2
packages:
- conda: channel:///lab/linux-64/libfoo-1.2-0.tar.bz2
  subdir: linux-64
  size: 433
- conda: channel:///lab/linux-64/tool-x-2.0-0.conda
  depends:
  - libfoo >=1.1,<1.3
  - '__glibc >=2.31'
  constrains:
  - libfoo !=1.2.5
  size: 1043
"""


@pytest.fixture
def conda_lock() -> conda.CondaLock:
    return conda.CondaLock(
        header=Header(command="", date=DAY, inputs=""),
        packages=tuple(
            Package(channel="lab", subdir="linux-64", file=file, sha256="1" * 64, size=433)
            for file in ("libfoo-1.2-0.tar.bz2", "tool-x-2.0-0.conda")
        ),
        prefix="/opt/conda", specs=(), variables=(), scripts=(), distributions={},
        texts={"conda.lock": LOCK},
    )  # fmt: skip


def test_a_conda_package(conda_lock: conda.CondaLock) -> None:
    wanted = Environment(specs=(Spec(text="tool-x=2", where="env.yaml:4"),))
    made = condas.of(conda_lock, wanted, layer="conda", folder="locks/c", place=no_place)
    assert told(made, "libfoo", None).splitlines() == [
        "libfoo 1.2: conda, in locks/c/conda.lock",
        "  file   libfoo-1.2-0.tar.bz2, 433 B",
        "  wanted by",
        "    env.yaml:4: tool-x=2",
        "      tool-x 2.0: libfoo >=1.1,<1.3",
        "  limit  tool-x 2.0: libfoo !=1.2.5",
        "  newer  bounded by tool-x 2.0: libfoo >=1.1,<1.3; "
        "`doit outdated` asks whether there is one",
    ]


def test_a_conda_package_of_a_variant(trial: Trial, conda_lock: conda.CondaLock) -> None:
    yaml = trial.root / "project.yaml"
    more = "  v:\n    matrix: {x: [2]}\n    base: slim\n    conda: {file: recipes/env.yaml}\n"
    yaml.write_text(YAML + more)
    (trial.root / "recipes/env.yaml").write_text("channels: [lab]\ndependencies:\n- tool-x={x}\n")
    state, image = trial.state(), trial.image("v-2")
    state.assume(("layer", "v-2", "conda"), conda_lock)
    said = why.explained(state, image, "tool-x")
    assert "    recipes/env.yaml:3: tool-x=2\n" in said
    assert "bounded by recipes/env.yaml:3: tool-x=2;" in said


# -- Debian ---------------------------------------------------------------------------------


@pytest.fixture
def deb(tmp_path: Path) -> Callable[[str, str], Deb]:
    def make(name: str, fields: str, *, kept: bool = True) -> Deb:
        control = f"Package: {name}\nVersion: 1-1\nArchitecture: all\n{fields}".encode()
        inner = io.BytesIO()
        with tarfile.open(fileobj=inner, mode="w:xz") as archive:
            info = tarfile.TarInfo("./control")
            info.size = len(control)
            archive.addfile(info, io.BytesIO(control))
        data = MAGIC
        for member, content in (("debian-binary", b"2.0\n"), ("control.tar.xz", inner.getvalue())):
            data += f"{member:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
            data += content + b"\n" * (len(content) % 2)
        sha256 = hashlib.sha256(data).hexdigest()
        path = Store(tmp_path).path(sha256)
        if kept:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return Deb(
            name=name, version="1-1", architecture="all", path=f"debian:pool/{name}_1-1_all.deb",
            size=len(data), sha256=sha256,
        )  # fmt: skip

    return make


def test_a_debian_package(deb: Callable[..., Deb], tmp_path: Path) -> None:
    listed = [
        deb("tools", "Depends: compiler (>= 2) | other, virtual,\n lib (= 1-1)\n"),
        deb("compiler", "Pre-Depends: lib:any (>= 0.9)\n"),
        deb("real", "Provides: virtual (= 3), more\n"),
        deb("lib", ""),
        deb("base", "Essential: yes\nDepends: lib\n"),
        deb("gone", "Depends: lib\n", kept=False),
    ]
    made = debs.of(
        listed, {"images.x.apt.run": ["tools=1-1"]}, Store(tmp_path),
        layer="apt", lock="l", fetch="doit fetch:x", place=no_place,
    )  # fmt: skip
    assert told(made, "lib", None).splitlines()[2:9] == [
        "  wanted by",
        "    Debian: Essential: yes",
        "      base 1-1: lib",
        "    images.x.apt.run: tools=1-1",
        "      tools 1-1: lib (= 1-1)",
        "      tools 1-1: compiler (>= 2) | other",
        "        compiler 1-1: lib:any (>= 0.9)",
    ]
    assert "tools 1-1: virtual" in told(made, "real", None)
    assert "wanted by nothing that is known here" in told(made, "gone", None)
    assert "what 1 of the 6 packages ask" in told(made, "gone", None)
    assert control_of(Store(tmp_path).path(listed[2].sha256))["Provides"] == "virtual (= 3), more"


def test_a_debian_package_of_an_image(trial: Trial, deb: Callable[..., Deb], capsys: Said) -> None:
    yaml = trial.root / "project.yaml"
    yaml.write_text(YAML.replace("    as-of: 2026-10-01\n", "    apt: {run: [bc], build: [cc]}\n"))
    lines = "".join(
        f"  - {{{deb_lines.fields(deb(name, ''))}, for: [{sets}]}}\n"
        for name, sets in (("bc", "build, run"), ("cc", "build"), ("python3-dev", "build"))
    )
    header = Header(command="doit lock:one", date=DAY, inputs="0" * 64)
    path = trial.root / "locks/images/one/linux-amd64" / apt.FILE
    path.write_text(locks.text_of(header, f"packages:\n{lines}", "About."))
    assert trial.doit("why", "one", "cc") == 0
    assert "    project.yaml:8: images.one.apt.build: cc\n" in capsys.readouterr().out


def test_what_pip_asks_of_condas(trial: Trial) -> None:
    lock = PIP.read(trial.root / "locks/images/one/linux-amd64")
    assert lock is not None
    found = python.of_conda(lock, ["Deep", "other"], FACTS, "linux/amd64", trial.state().store)
    assert found == [
        ("Deep", Want(where="pip's side 1.5", text="deep")),
        ("Deep", Want(where="pip's top 1.5", text="deep<5,>=2")),
    ]
