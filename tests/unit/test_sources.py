"""Sources: what can be declared, how it is compiled, under which key, and what the verbs do.

`LADING_GOLDEN=1` in the environment writes the golden files again: look at the difference.
"""

from __future__ import annotations

import bz2
import errno
import hashlib
import io
import json
import lzma
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from lading import locks
from lading.engines import BuildFailed
from lading.errors import DeclarationError, EnvironmentProblem, LadingError
from lading.layers import apt, source, source_image, source_section
from lading.layers.apt import AptLock
from lading.layers.apt_section import AptSection
from lading.layers.source_image import Compiled
from lading.layers.source_section import SourceBuild
from lading.parts import Start
from lading.plan import Contribution
from lading.project import Project, json_schema, load
from lading.steps import Arg, Derived, Run
from lading.store import Artifact
from tests.support.index import only_loopback, tar
from tests.support.projects import REPOSITORY, Trial
from tests.unit.test_dockerfile import BASE, golden, header
from tests.unit.test_project import Editor, fits

Said = pytest.CaptureFixture[str]
HOW = "version: 1.0, urls: 'https://x.example/a-{version}.tar.gz'"

# -- what can be declared -------------------------------------------------------------------


def declared(root: Path, sources: str, image: str = "") -> Project:
    """A project with these sources, the first of which is in line 4."""
    (root / "recipes").mkdir(exist_ok=True)
    (root / "recipes/fix.patch").write_text("--- a/x\n")
    (root / "recipes/out.patch").unlink(missing_ok=True)
    (root / "recipes/out.patch").symlink_to("/etc/passwd")
    text = f"lading: 1\nname: x\nsources:\n{sources}\nbases: {{b: {{image: x}}}}\n"
    (root / "project.yaml").write_text(f"{text}images: {{i: {{base: b{image}}}}}\n")
    return load(root / "project.yaml")


def problems(root: Path, sources: str, image: str = "") -> list[str]:
    with pytest.raises(DeclarationError) as caught:
        declared(root, sources, image)
    lines = str(caught.value).splitlines()
    assert all(re.match(r"project\.yaml:\d+: ", line) for line in lines)
    return [line.removeprefix("project.yaml:") for line in lines]


def test_everything(tmp_path: Path) -> None:
    found = declared(
        tmp_path,
        """\
  mpich:
    version: 4.0.2
    urls: ["debian:pool/m/mpich_{version}.tar.xz", "https://x.example/mpich-{version}.tar.gz"]
    sha256: 000000000000000000000000000000000000000000000000000000000000000a
    configure: >-
      --prefix=/usr
      CFLAGS="-O3 -g"
    make: V=1
    install: INSTALL_STRIP=yes
    then: ldd $DESTDIR/usr/bin/x
    patches: recipes/fix.patch
    env: {FFLAGS: -fallow-argument-mismatch, EMPTY: ""}
    needs: hwloc
    apt: {build: [gfortran], run: [libgfortran5]}
    keep: [/usr/include/**, "**/mpicc"]
    drop: usr/share
  hwloc: {version: "2", urls: file:///srv/hwloc.tar.gz, cmake: ""}
  a.b: {version: 1.10, urls: http://x.example/a.tgz, meson: -Dx=y}
  c-d: {version: 1, urls: http://x.example/a.tgz, commands: [make, make install]}
""",
        ", source: [mpich, a.b]",
    ).sources
    assert found["mpich"] == SourceBuild(
        name="mpich",
        version="4.0.2",
        urls=(
            "debian:pool/m/mpich_{version}.tar.xz",
            "https://x.example/mpich-{version}.tar.gz",
        ),
        sha256="0" * 63 + "a",
        configure='--prefix=/usr CFLAGS="-O3 -g"',
        make="V=1",
        install="INSTALL_STRIP=yes",
        then=("ldd $DESTDIR/usr/bin/x",),
        patches=("recipes/fix.patch",),
        env={"FFLAGS": "-fallow-argument-mismatch", "EMPTY": ""},
        needs=("hwloc",),
        apt=AptSection(build=("gfortran",), run=("libgfortran5",)),
        keep=("usr/include/**", "**/mpicc"),
        drop=("usr/share",),
        line=4,
    )
    assert [one.system for one in found.values()] == ["configure", "cmake", "meson", "commands"]
    assert fits_schema(tmp_path)
    assert found["a.b"].version == "1.10"
    assert found["mpich"].filled("{version}, {version}, {v}") == "4.0.2, 4.0.2, {v}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: {%s}", "4: sources.a: expected exactly one of the keys 'configure', 'cmake'"),
        ("a: {%s, cmake: '', meson: ''}", "4: sources.a: expected exactly one of the keys"),
        ("a: {version: 1, cmake: ''}", "4: sources.a: the key 'urls' is missing"),
        ("a: {urls: 'https://x/y.tar', cmake: ''}", "4: sources.a: the key 'version' is missing"),
        (
            "a: {%s, cmake: '', istall: x}",
            "4: sources.a.istall: unknown key (did you mean 'install'?)",
        ),
        ("a: {%s, commands: []}", "4: sources.a.commands: the list is empty"),
        ("a: {version: 1, urls: [], cmake: ''}", "4: sources.a.urls: the list is empty"),
        ("a: {version: 1, urls: x.tar, cmake: ''}", "4: sources.a.urls: expected a URL, or debian"),
        ("a: {version: 1, urls: 'ftp://x/y', cmake: ''}", "4: sources.a.urls: expected a URL, or"),
        ("a: {version: 1, urls: 'debian:../y', cmake: ''}", "4: sources.a.urls: expected a URL"),
        (
            "a: {version: 1, urls: 'https://[x/y', cmake: ''}",
            "4: sources.a.urls: 'https://[x/y' is",
        ),
        ("a: {version: 1, urls: 'https://x:p/y', cmake: ''}", "4: sources.a.urls: 'https://x:p/y'"),
        ("a: {version: ../1, urls: 'https://x/y', cmake: ''}", "4: sources.a.version: expected a"),
        ("a: {%s, cmake: '', sha256: abc}", "4: sources.a.sha256: expected 64 hexadecimal digits"),
        ("a: {%s, cmake: '-DX=\"1'}", "4: sources.a.cmake: '-DX=\"1': a quote does not close"),
        (
            "a: {%s, commands: [x], make: V=1}",
            "4: sources.a.make: has no meaning beside 'commands'",
        ),
        ("a: {%s, commands: [x], install: V=1}", "4: sources.a.install: has no meaning beside"),
        ("a: {%s, commands: ['echo \"a']}", "4: sources.a.commands[0]: 'echo \"a': a quote does"),
        (
            "a: {%s, commands: ['make \\']}",
            "4: sources.a.commands[0]: 'make \\': it ends in a back",
        ),
        ("a: {%s, commands: ['# make']}", "4: sources.a.commands[0]: '# make': that is a comment"),
        ("a: {%s, commands: ['']}", "4: sources.a.commands[0]: expected a command"),
        ("a: {%s, cmake: '', patches: ../x}", "4: sources.a.patches: expected a path that stays"),
        ("a: {%s, cmake: '', patches: /x}", "4: sources.a.patches: expected a path that stays"),
        (
            "a: {%s, cmake: '', patches: x.patch}",
            "4: sources.a.patches: there is no file 'x.patch'",
        ),
        ("a: {%s, cmake: '', patches: recipes}", "4: sources.a.patches: "),
        (
            "a: {%s, cmake: '', patches: recipes/out.patch}",
            "4: sources.a.patches: 'recipes/out.patch' is a symbolic link that leads out",
        ),
        ("a: {%s, cmake: '', env: {1A: x}}", "4: sources.a.env.1A: expected the name of an env"),
        ("a: {%s, cmake: '', keep: ['/']}", "4: sources.a.keep[0]: expected a glob over installed"),
        ("a: {%s, cmake: '', drop: [a, /a]}", "4: sources.a.drop[1]: 'a' is in the list already"),
        ("a: {%s, cmake: '', apt: {run: [X]}}", "4: sources.a.apt.run[0]: expected a Debian pack"),
        ("A: {%s, cmake: ''}", "4: sources.A: expected the name of a source"),
        ("a+b: {%s, cmake: ''}", "4: sources.a+b: expected the name of a source"),
        ("a@b: {%s, cmake: ''}", "4: sources.'a@b': expected the name of a source"),
        (
            "mpich: {%s, cmake: ''}\n  a: {%s, cmake: '', needs: [mpihc]}",
            "5: sources.a.needs[0]: there is no source 'mpihc' (did you mean 'mpich'?)",
        ),
        ("a: {%s, cmake: '', needs: a}", "4: sources.a.needs: it needs itself: a → a"),
        ("a: {%s, cmake: '-%s'}", "4: sources.a.cmake: expected at most 30,000 characters"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    filled = text.replace("'-%s'", "x" * 30_001).replace("%s", HOW)
    found = problems(tmp_path, f"  {filled}")
    assert len(found) == 1
    assert found[0].startswith(problem)


def fits_schema(root: Path) -> bool:
    """Whether what was declared last fits the JSON schema that editors check with."""
    text = (root / "project.yaml").read_text()
    return fits(json_schema(), yaml.load(text, Loader=Editor))


@pytest.mark.parametrize(
    "text",
    [
        "a: {%s}",
        "a: {%s, cmake: '', meson: ''}",
        "a: {%s, commands: [x], configure: ''}",
        "a: {version: 1, cmake: ''}",
        "a: {%s, cmake: '', istall: x}",
        "a: {version: 1, urls: x.tar, cmake: ''}",
        "a: {%s, cmake: '', sha256: abc}",
        "a: {%s, cmake: '', needs: A}",
        "A: {%s, cmake: ''}",
        "a: {%s, cmake: '', keep: ['/']}",
    ],
)
def test_what_is_refused_for_its_form_does_not_fit_the_schema(tmp_path: Path, text: str) -> None:
    problems(tmp_path, f"  {text.replace('%s', HOW)}")
    assert not fits_schema(tmp_path)


def test_an_image_names_sources_that_are_there(tmp_path: Path) -> None:
    assert problems(tmp_path, f"  mpich: {{{HOW}, cmake: ''}}", ", source: [mpich, hwlok]") == [
        "6: images.i.source[1]: there is no source 'hwlok'"
    ]
    assert problems(tmp_path, f"  mpich: {{{HOW}, cmake: ''}}", ", source: mpihc") == [
        "6: images.i.source: there is no source 'mpihc' (did you mean 'mpich'?)"
    ]


def test_a_circle_is_shown_from_each_that_is_in_it(tmp_path: Path) -> None:
    assert problems(
        tmp_path,
        f"  a: {{{HOW}, cmake: '', needs: b}}\n"
        f"  b: {{{HOW}, cmake: '', needs: [d, c]}}\n"
        f"  c: {{{HOW}, cmake: '', needs: [d, a]}}\n"
        f"  d: {{{HOW}, cmake: ''}}\n"
        f"  e: {{{HOW}, cmake: '', needs: a}}",
    ) == [
        "4: sources.a.needs: it needs itself: a → b → c → a",
        "5: sources.b.needs: it needs itself: b → c → a → b",
        "6: sources.c.needs: it needs itself: c → a → b → c",
    ]


def test_many_that_need_each_other_are_checked_at_once(tmp_path: Path) -> None:
    """The ways through it are 2 to the power of 40."""
    names = [f"s{number}" for number in range(40)]
    lines = [
        f"  {name}: {{{HOW}, cmake: '', needs: [{', '.join(names[number + 1 :])}]}}"
        for number, name in enumerate(names)
    ]
    start = time.monotonic()
    found = declared(tmp_path, "\n".join(lines))
    assert time.monotonic() - start < 5
    assert [one.name for one in source_section.in_order(("s0",), found.sources)] == names[::-1]


def test_reserved_name_of_an_image(tmp_path: Path) -> None:
    (tmp_path / "project.yaml").write_text(
        "lading: 1\nname: x\nbases: {b: {image: x}}\nimages: {source: {base: b}}\n"
    )
    with pytest.raises(DeclarationError, match="'source' is reserved"):
        load(tmp_path / "project.yaml")


# -- how it is compiled ---------------------------------------------------------------------


def build_of(name: str = "mpich", **changes: Any) -> SourceBuild:
    """A source; one with `configure` unless another system is named."""
    plain: dict[str, Any] = {
        "name": name,
        "version": "4.0.2",
        "urls": (f"https://x.example/{name}-{{version}}.tar.gz",),
    }
    if not {"cmake", "meson", "commands"} & set(changes):
        plain["configure"] = "--prefix=/usr"
    return SourceBuild(**{**plain, **changes})


def lock_of(build: SourceBuild, mark: str = "a") -> source.SourceLock:
    artifact = Artifact(name=source.file_of(build), sha256=mark * 64, size=1)
    return source.SourceLock(
        header=header(), artifact=artifact, version=build.version, text=f"lock {mark}\n"
    )


@pytest.fixture(autouse=True)
def one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """The day on which locks are made: golden files have it in them."""
    monkeypatch.setattr(locks, "today", lambda: date(2026, 11, 22))


def tools_of(mark: str = "b", names: tuple[str, ...] = ("make",)) -> AptLock:
    debs = [replace(BASE.debs[0], name=name, sha256=mark * 64) for name in names]
    sets = {"build": debs} if debs else {}
    return apt.made(sets, None, inputs="1" * 64, command="doit lock:source:x", what="x")


def start_on(root: Path, **changes: Any) -> Start:
    plain = Start(
        reference="localhost/lading/base/debian-13:0123",
        platform="linux/amd64",
        root=root,
        epoch=BASE.header.epoch,
    )
    return replace(plain, **changes)


def compiled(
    root: Path,
    build: SourceBuild,
    tools: AptLock | None = None,
    start: Start | None = None,
    mark: str = "a",
) -> Compiled:
    start = start or start_on(root)
    return source_image.compiled(build, lock_of(build, mark), tools, start, "debian-13")


def text_of(made: Compiled) -> str:
    return made.part.plan.text("k")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/one.patch").write_text("one\n")
    (tmp_path / "recipes/two.patch").write_text("two\n")
    return tmp_path


def test_autotools(tree: Path) -> None:
    hwloc = compiled(tree, build_of("hwloc", version="2.11"))
    build = build_of(
        configure="--prefix=/usr --with-x=v{version} CFLAGS='-O3 -g'",
        make="V=1",
        install="prefix=/usr",
        then=('echo {version} >"$DESTDIR/usr/version"', "true"),
        patches=("recipes/one.patch", "recipes/two.patch"),
        env={"FFLAGS": "-fallow -x='y z'", "CFLAGS": "-O3"},
        needs=("hwloc",),
        keep=("usr/include",),
    )
    start = start_on(tree).with_tools(hwloc.contribution())
    made = compiled(tree, build, tools_of(), start)
    golden("source-autotools.Dockerfile", text_of(made))
    files = made.part.plan.files
    assert files["source/patches/0"] == b"one\n"
    assert files["source/patches/1"] == b"two\n"
    assert files["sources/hwloc.tar"] == Derived(key=hwloc.part.key, name="product.tar")
    assert made.part.parts == (hwloc.part,)
    assert sorted(made.texts) == ["apt/mpich.yaml", "mpich.yaml"], "one may be called mpich-apt"


def test_cmake(tree: Path) -> None:
    made = compiled(tree, build_of("fftw", cmake="-DENABLE_MPI=ON", make="-v"), tools_of())
    golden("source-cmake.Dockerfile", text_of(made))


def test_meson(tree: Path) -> None:
    golden("source-meson.Dockerfile", text_of(compiled(tree, build_of("glib", meson=""))))


def test_commands(tree: Path) -> None:
    build = build_of(
        "7zip.x-y",
        urls=("https://x.example/7zip%2B{version}~rc.tar.gz",),
        commands=("make -C v{version}", 'install -D 7z "$DESTDIR/usr/bin/7z"'),
        then=("true",),
    )
    golden("source-commands.Dockerfile", text_of(compiled(tree, build)))


def shell(text: str, **env: str) -> list[str]:
    """What a shell makes of a command, as the words that `say` is given."""
    script = f"say() {{ printf '%s\\n' \"$@\"; }}\n{text}"
    done = subprocess.run(
        ["/bin/sh", "-euc", script], env={**os.environ, **env}, capture_output=True, check=True
    )
    return done.stdout.decode().splitlines()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--prefix=/usr --a=1,2", ["--prefix=/usr", "--a=1,2"]),
        ("CFLAGS='-O2 -g' X=\"a b\"", ["CFLAGS=-O2 -g", "X=a b"]),
        ("LDFLAGS=-Wl,-rpath,'$ORIGIN/../lib' a\\ b", ["LDFLAGS=-Wl,-rpath,$ORIGIN/../lib", "a b"]),
        ("--with=$HOME/x", ["--with=/root/x"]),
        ("'a*b'", ["a*b"]),
    ],
)
def test_options_are_read_as_a_shell_reads_them(tree: Path, options: str, words: list[str]) -> None:
    made = source_image.steps(build_of(configure=options, make=options), "x.tar.gz")
    values = {step.name: step.value or "" for step in made if isinstance(step, Arg)}
    runs = [step.commands[-1] for step in made if isinstance(step, Run)]
    for command in (runs[1], runs[2]):
        said = re.sub(r"\./configure|make(?= -j)", "say", command)
        found = shell(said, HOME="/root", **values)
        assert found[-len(words) :] == words
    assert ("eval" in runs[1]) == (options != "--prefix=/usr --a=1,2")


@pytest.mark.parametrize("name", ["mpich", "7zip", "a.b-c__d", "0"])
def test_variables_have_names_that_a_shell_takes(name: str) -> None:
    for step in source_image.steps(build_of(name), "x.tar.gz"):
        if isinstance(step, Arg):
            assert re.fullmatch(r"[A-Z_][A-Z0-9_]*", step.name)


@pytest.mark.parametrize(
    "names", [["x-1/configure", "x-1/src/a"], ["configure", "src/a"], [".x", "configure", "src/a"]]
)
def test_a_tarball_with_a_folder_around_it_and_one_without(
    tmp_path: Path, names: list[str]
) -> None:
    (tmp_path / "x.tar.gz").write_bytes(tar(dict.fromkeys(names, b"")))
    step = next(s for s in source_image.steps(build_of(), "x.tar.gz") if isinstance(s, Run))
    text = " && ".join(step.commands).replace("\n", " ")
    text = text.replace(source_image.LENT, str(tmp_path)).replace("/lading/", f"{tmp_path}/lading/")
    subprocess.run(["/bin/sh", "-euc", text], check=True)
    folder = tmp_path / "lading/source"
    assert (folder / "configure").is_file()
    assert (folder / "src/a").is_file()
    assert (folder / ".x").exists() == (".x" in names)


def test_patches_are_applied_in_their_order(tree: Path) -> None:
    made = source_image.steps(build_of(patches=("a", "b")), "x.tar.gz")
    (unpack,) = [step for step in made if isinstance(step, Run) and step.mounts]
    assert [text[-10:] for text in unpack.commands[-2:]] == ["/patches/0", "/patches/1"]


def request(build: SourceBuild, *needs: SourceBuild, manager: str = "apt") -> tuple[str, ...]:
    base = replace(BASE, facts=replace(BASE.facts, package_manager=manager))
    found = source_image.request(build, needs, base, "linux/amd64")
    return found.section.build if found is not None else ()


def test_what_it_is_built_with() -> None:
    packages = AptSection(build=("gfortran",), run=("libgfortran5",))
    assert request(build_of(apt=packages)) == ("build-essential", "gfortran", "libgfortran5")
    assert request(build_of(cmake="")) == ("build-essential", "cmake")
    assert request(build_of(meson="")) == ("build-essential", "meson")
    assert request(build_of(commands=("x",))) == ()
    assert request(build_of(apt=packages), manager="dnf") == ()


def test_what_a_needed_source_runs_with_is_there_too() -> None:
    needed = build_of("mpich", apt=AptSection(build=("gfortran",), run=("libgfortran5",)))
    assert request(build_of("hdf5"), needed) == ("build-essential", "libgfortran5")


@pytest.mark.parametrize(
    ("file", "package"),
    [("x.tar.xz", "xz-utils"), ("x.tbz2", "bzip2"), ("x.tar.zst", "zstd"), ("x.tar.gz", "")],
)
def test_what_unpacks_and_patches_it(file: str, package: str) -> None:
    build = build_of(commands=("x",), urls=(f"https://x.example/{file}",))
    assert request(build) == ((package,) if package else ())
    assert request(replace(build, patches=("p",))) == tuple(filter(None, [package, "patch"]))


def test_a_base_that_has_all_it_is_built_with(tree: Path) -> None:
    made = compiled(tree, build_of(), tools_of(names=()))
    assert "install.sh" not in text_of(made)


def test_what_an_image_gets(tree: Path) -> None:
    made = compiled(tree, build_of())
    added: Contribution = made.contribution()
    assert added.files == {
        "sources/mpich-share.tar": Derived(key=made.part.shares[0].key, name="product.tar")
    }
    assert added.tool_files == {"sources/mpich.tar": Derived(key=made.part.key, name="product.tar")}
    for steps in (added.steps, added.tools):
        last = steps[-1]
        assert isinstance(last, Run)
        assert shell(f"PATH=/nowhere; {last.commands[0]}; say done") == ["done"]


# -- keys -----------------------------------------------------------------------------------

CHANGED: list[dict[str, Any]] = [
    {"configure": "--prefix=/opt"},
    {"configure": None, "cmake": "--prefix=/usr"},
    {"make": "V=1"},
    {"install": "V=1"},
    {"then": ("true",)},
    {"env": {"A": "1"}},
    {"patches": ("recipes/one.patch",)},
    {"patches": ("recipes/one.patch", "recipes/two.patch")},
    {"patches": ("recipes/two.patch", "recipes/one.patch")},
    {"version": "4.0.3"},
]


def test_a_part_has_the_key_of_all_that_goes_into_it(tree: Path) -> None:
    builds = [build_of(), *(build_of(**change) for change in CHANGED)]
    made = [compiled(tree, build) for build in builds]
    assert len({one.part.key for one in made}) == len(builds)
    assert len({one.part.shares[0].key for one in made}) == len(builds)
    assert compiled(tree, build_of()).part.key == made[0].part.key


def test_what_it_stands_on_is_in_its_key(tree: Path) -> None:
    plain = compiled(tree, build_of(), tools_of())
    others = [
        compiled(tree, build_of()),
        compiled(tree, build_of(), tools_of(mark="c")),
        compiled(tree, build_of(), tools_of(), mark="d"),
        compiled(tree, build_of(), tools_of(), start_on(tree, reference="localhost/x:1")),
        compiled(tree, build_of(), tools_of(), start_on(tree, platform="linux/arm64")),
    ]
    for change in ({}, {"version": "3"}, {"make": "V=1"}, {"keep": ("**",)}):
        needed = compiled(tree, build_of("hwloc", **change))
        start = start_on(tree).with_tools(needed.contribution())
        others.append(compiled(tree, build_of(), tools_of(), start))
    *first, kept = [one.part.key for one in others]
    assert len({plain.part.key, *first}) == len(others)
    assert kept == first[-3], "what images get of a source changes nothing for what is built on it"


def test_a_patchs_content_is_in_the_key_and_in_the_text(tree: Path) -> None:
    """Podman keeps a step's result by its text alone: the old patch's would be taken."""

    def made() -> Compiled:
        return compiled(tree, build_of(patches=("recipes/one.patch",)))

    before = made()
    (tree / "recipes/one.patch").write_text("another\n")
    after = made()
    assert before.part.key != after.part.key
    runs = [re.findall(r"RUN .*?\n\n", text_of(one), re.DOTALL)[0] for one in (before, after)]
    assert runs[0] != runs[1]


def test_a_patch_that_is_gone_is_no_traceback(tree: Path) -> None:
    build = build_of(patches=("recipes/one.patch",))
    (tree / "recipes/one.patch").unlink()
    with pytest.raises(LadingError, match="can't be read"):
        compiled(tree, build)


@pytest.mark.parametrize("change", [{"keep": ("usr/include",)}, {"drop": ("usr/share",)}])
def test_what_images_get_changes_the_share_alone(tree: Path, change: dict[str, Any]) -> None:
    before, after = compiled(tree, build_of()), compiled(tree, build_of(**change))
    assert before.part.key == after.part.key
    assert before.part.shares[0].key != after.part.shares[0].key


def test_where_it_is_declared_and_fetched_from_is_not_in_its_key(tree: Path) -> None:
    moved = replace(build_of(), line=99, urls=("https://other.example/x/mpich-{version}.tar.gz",))
    assert compiled(tree, build_of()).part.key == compiled(tree, moved).part.key
    (tree / "README").write_text("x")
    assert compiled(tree, build_of()).part.key == compiled(tree, moved).part.key


def test_nothing_in_it_is_younger_than_its_locks(tree: Path) -> None:
    build = build_of()
    young = replace(lock_of(build), header=header(date(2027, 3, 1)))
    made = source_image.compiled(build, young, None, start_on(tree), "b")
    assert made.part.epoch == header(date(2027, 3, 1)).epoch
    upon = start_on(tree).with_tools(made.contribution())
    above = compiled(tree, build_of("hdf5"), None, upon)
    assert above.part.epoch == made.part.epoch
    assert f'ARG SOURCE_DATE_EPOCH="{made.part.epoch}"' in text_of(above)


# -- the lock -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://x.example/a/b-{version}.tar.gz?download=1#top", "b-4.0.2.tar.gz"),
        ("debian:pool/main/m/mpich/mpich_{version}.orig.tar.xz", "mpich_4.0.2.orig.tar.xz"),
        ("https://x.example/b%2B1~rc.tar.gz", "b+1~rc.tar.gz"),
        ("https://x.example/v{version}.tar.gz", "v4.0.2.tar.gz"),
    ],
)
def test_the_file_of_a_url(url: str, name: str) -> None:
    assert source.file_of(build_of(urls=(url,))) == name


@pytest.mark.parametrize(
    "url",
    ["https://x.example/", "https://x.example", "https://x.example/a/?f=b.tar", "https://x/..",
     "https://x.example/a%2Fb c.tar", "https://x.example/-x.tar", "https://x.example/a%0Ab"],
)  # fmt: skip
def test_a_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(LadingError, match="does not end in the name of a file") as caught:
        source.file_of(build_of(urls=(url,)))
    assert "sources.mpich" in str(caught.value)


def test_the_lock_is_written_and_read(tmp_path: Path) -> None:
    build = build_of()
    artifact = Artifact(name="mpich-4.0.2.tar.gz", sha256="c" * 64, size=7)
    path = tmp_path / source.FILE
    path.write_text(source.text_of(build, artifact, None))
    found = source.read(path)
    assert found is not None
    assert (found.artifact, found.version) == (artifact, "4.0.2")
    assert found.header.inputs == source.inputs(build)
    assert found.header.command == "doit lock:source:mpich"
    assert source.inputs(replace(build, make="V=1", patches=("x",))) == source.inputs(build)
    for change in ({"version": "5"}, {"urls": ("https://y/z.tar",)}, {"sha256": "0" * 64}):
        assert source.inputs(replace(build, **change)) != source.inputs(build)
    for damage in ("sha256: ", "size: 7"):
        path.write_text(source.text_of(build, artifact, None).replace(damage, "x"))
        with pytest.raises(LadingError, match="not a lock of a source"):
            source.read(path)


# -- the verbs ------------------------------------------------------------------------------

PROJECT = """\
lading: 1
name: trial
bases:
  slim: {image: docker.io/library/python:3.13-slim}
  other: {image: docker.io/library/python:3.12-slim}
sources:
  tool:
    version: "1.0"
    urls: ["FIRST", "SECOND"]
    needs: lib
    commands: make install
  lib: {version: "2", urls: LIB, commands: make install}
images:
  one: {base: slim, source: tool}
  two: {base: slim, source: [tool]}
  spare: {base: other, default: false, source: lib}
"""
COMPILED = ["part/lib-slim", "part/tool-slim"]


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only_loopback(monkeypatch, tmp_path, tmp_path / "uv-cache")


def tarball(path: Path, content: bytes = b"x") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar({"top/file": content}))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def trial(tmp_path: Path, loopback: None) -> Trial:
    """A project whose sources lie in files, and are not locked yet."""
    served = tmp_path / "served"
    for name in ("first/tool-1.0.tar.gz", "second/tool-1.0.tar.gz", "lib-2.tar.gz"):
        tarball(served / name, name.encode())
    text = PROJECT.replace("FIRST", f"file://{served}/first/tool-{{version}}.tar.gz")
    text = text.replace("SECOND", f"file://{served}/second/tool-{{version}}.tar.gz")
    return Trial.make(tmp_path / "project", text.replace("LIB", f"file://{served}/lib-2.tar.gz"))


def served(trial: Trial, name: str) -> Path:
    return trial.root.parent / "served" / name


def lock_file(trial: Trial, name: str) -> Path:
    return trial.root / f"locks/sources/{name}/linux-amd64/source.yaml"


def edit(trial: Trial, before: str, after: str) -> None:
    text = (trial.root / "project.yaml").read_text()
    assert before in text
    (trial.root / "project.yaml").write_text(text.replace(before, after))


def built(trial: Trial) -> list[str]:
    """What the engine was asked to build: parts in their order, then images by name."""
    tags = [call["tag"].rpartition(":")[0] for call in trial.engine.named("build")]
    names = [tag.removeprefix("localhost/lading/") for tag in tags]
    parts = [name for name in names if name.startswith("part/")]
    assert names[: len(parts)] == parts
    return parts + sorted(names[len(parts) :])


def test_the_first_lock_pins_the_sha256(trial: Trial, capsys: Said) -> None:
    assert trial.doit("lock:source:tool") == 0
    text = lock_file(trial, "tool").read_text()
    data = served(trial, "first/tool-1.0.tar.gz").read_bytes()
    assert text.endswith(
        f"version: 1.0\nfile: tool-1.0.tar.gz\nsize: {len(data)}\n"
        f"sha256: {hashlib.sha256(data).hexdigest()}\n"
    )
    assert "tool-1.0.tar.gz" in capsys.readouterr().out
    assert trial.doit("lock:source:tool") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert lock_file(trial, "tool").read_text() == text
    assert trial.engine.calls == []


def test_the_second_place_is_asked_where_the_first_has_it_not(trial: Trial) -> None:
    served(trial, "first/tool-1.0.tar.gz").unlink()
    assert trial.doit("lock:source:tool") == 0
    data = served(trial, "second/tool-1.0.tar.gz").read_bytes()
    assert hashlib.sha256(data).hexdigest() in lock_file(trial, "tool").read_text()


def test_no_debian_mirror_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: object) -> dict[str, str]:
        raise EnvironmentProblem("no mirror is known")

    monkeypatch.setattr("lading.debian.mirrors", none)
    places = ("debian:pool/a.tar", "https://x.example/a.tar")
    found = source.places(build_of(urls=places), {}, lambda _: None)
    assert [one.url for one in found] == ["https://x.example/a.tar"]
    with pytest.raises(EnvironmentProblem, match="no mirror is known"):
        source.places(build_of(urls=places[:1]), {}, lambda _: None)


def test_no_place_has_it(trial: Trial, capsys: Said) -> None:
    for name in ("first", "second"):
        served(trial, f"{name}/tool-1.0.tar.gz").unlink()
    assert trial.doit("lock:source:tool") == 1
    said = capsys.readouterr().out
    assert "tool-1.0.tar.gz is no longer there" in said
    assert "first/tool-1.0.tar.gz" in said
    assert "second/tool-1.0.tar.gz" in said
    assert "sources.tool.urls" in said
    assert not lock_file(trial, "tool").exists()


def test_no_place_answers(trial: Trial, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lading.net.BACKOFF", 0.0)
    text = (trial.root / "project.yaml").read_text()
    urls = "[http://127.0.0.1:9/one/tool.tar.gz, http://127.0.0.1:1/two/tool.tar.gz]"
    (trial.root / "project.yaml").write_text(re.sub(r"urls: \[\"file.*\]", f"urls: {urls}", text))
    assert trial.doit("lock:source:tool") == 2
    said = capsys.readouterr().out
    assert "127.0.0.1:9" in said
    assert "127.0.0.1:1" in said
    assert not lock_file(trial, "tool").exists()


def test_content_that_changed_is_not_taken(trial: Trial, capsys: Said) -> None:
    """The version is the same, the places are others, and what is there is not what it was."""
    assert trial.doit("lock:source:tool") == 0
    before = lock_file(trial, "tool").read_text()
    first = hashlib.sha256(served(trial, "first/tool-1.0.tar.gz").read_bytes()).hexdigest()
    second = hashlib.sha256(served(trial, "second/tool-1.0.tar.gz").read_bytes()).hexdigest()
    shutil.rmtree(trial.environ["LADING_CACHE"])
    edit(trial, f'"file://{served(trial, "first")}/tool-{{version}}.tar.gz", ', "")
    capsys.readouterr()
    assert trial.doit("lock:source:tool") == 1
    said = capsys.readouterr().out
    assert first in said
    assert second in said
    assert "sources.tool.sha256" in said
    assert lock_file(trial, "tool").read_text() == before
    # It is meant, and declared.
    edit(trial, "needs: lib", f"needs: lib\n    sha256: {second}")
    assert trial.doit("lock:source:tool") == 0
    assert second in lock_file(trial, "tool").read_text()


def test_content_that_changed_is_not_compiled(trial: Trial, capsys: Said) -> None:
    """The lock is there, the store is not, and every place has something else by now."""
    assert trial.doit("lock:source:tool") == 0
    names = ("first/tool-1.0.tar.gz", "second/tool-1.0.tar.gz")
    locked = hashlib.sha256(served(trial, names[0]).read_bytes()).hexdigest()
    shutil.rmtree(trial.environ["LADING_CACHE"])
    changed = [tarball(served(trial, name), f"another {name}".encode()) for name in names]
    capsys.readouterr()
    assert trial.doit("archive:one") == 1
    said = capsys.readouterr().out
    assert "tool-1.0.tar.gz" in said
    for sha256 in (locked, *changed):
        assert sha256 in said
    assert built(trial) == ["part/lib-slim"], "what it needs is another's affair"
    assert not list((trial.root / "dist").glob("*"))


def test_all_places_are_down_when_it_is_compiled(
    trial: Trial, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trial.doit("lock:source:tool") == 0
    shutil.rmtree(trial.environ["LADING_CACHE"])
    for name in ("first", "second"):
        served(trial, f"{name}/tool-1.0.tar.gz").unlink()
    capsys.readouterr()
    assert trial.doit("archive:one") == 1
    said = capsys.readouterr().out
    assert "tool-1.0.tar.gz is no longer there" in said
    assert "first/tool-1.0.tar.gz" in said
    assert "second/tool-1.0.tar.gz" in said
    assert "Traceback" not in said


def test_sources_that_need_each_other_are_refused_before_anything_runs(
    trial: Trial, capsys: Said
) -> None:
    edit(trial, "  lib: {", "  lib: {needs: tool, ")
    assert trial.doit("archive:one") == 3
    said = capsys.readouterr()
    assert "project.yaml:7: sources.tool.needs: it needs itself: tool → lib → tool" in said.err
    assert "sources.lib.needs: it needs itself: lib → tool → lib" in said.err
    assert "Traceback" not in said.err + said.out
    assert trial.engine.calls == []


def test_a_new_version_or_another_file_is_pinned_anew(trial: Trial) -> None:
    assert trial.doit("lock:source:tool") == 0
    tarball(served(trial, "first/tool-1.0.tgz"), b"in another form")
    edit(trial, "first/tool-{version}.tar.gz", "first/tool-{version}.tgz")
    assert trial.doit("lock:source:tool") == 0
    assert "file: tool-1.0.tgz" in lock_file(trial, "tool").read_text()
    pinned = tarball(served(trial, "first/tool-1.1.tgz"), b"newer")
    edit(trial, 'version: "1.0"', 'version: "1.1"')
    assert trial.doit("lock:source:tool") == 0
    assert pinned in lock_file(trial, "tool").read_text()


def test_a_declared_sha256_that_is_wrong(trial: Trial, capsys: Said) -> None:
    edit(trial, "needs: lib", f"needs: lib\n    sha256: {'0' * 64}")
    assert trial.doit("lock:source:tool") == 1
    said = capsys.readouterr().out
    assert "0" * 64 in said
    assert hashlib.sha256(served(trial, "first/tool-1.0.tar.gz").read_bytes()).hexdigest() in said
    assert not lock_file(trial, "tool").exists()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"<!DOCTYPE html>\n<title>Sign in</title>", "is a web page"),
        (b"PK\x03\x04 and more", "is a zip archive"),
        (b"", "is no tar archive"),
        (b"text\n" * 1000, "is no tar archive"),
        (tar({"a/b": os.urandom(3000)})[:2000], "is cut off or damaged"),
        (tar({"a/b": os.urandom(3000)})[:-4], "is cut off or damaged"),
        (lzma.compress(b"x" * 1000)[:-20], "is cut off or damaged"),
        (bz2.compress(b"x" * 1000)[:-1], "is cut off or damaged"),
        (b"\x1f\x8b and no more", "is cut off or damaged"),
    ],
)
def test_what_is_no_tarball_is_not_pinned(
    trial: Trial, capsys: Said, content: bytes, what: str
) -> None:
    served(trial, "first/tool-1.0.tar.gz").write_bytes(content)
    assert trial.doit("lock:source:tool") == 1
    assert f"tool-1.0.tar.gz {what}" in capsys.readouterr().out
    assert not lock_file(trial, "tool").exists()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_kind_of_tarball_is_one(tmp_path: Path, mode: Any) -> None:
    with tarfile.open(tmp_path / "x", mode) as made:
        made.add(__file__, "a/b")
    source.check_tarball(build_of(), tmp_path / "x", "x")


def test_frozen(trial: Trial, capsys: Said) -> None:
    trial.environ["CI"] = "true"
    assert trial.doit("lock:source:tool") == 1
    said = capsys.readouterr().out
    assert "locks/sources/tool/linux-amd64 is not current" in said
    assert "there is none yet; with CI or frozen=1 set, locks are not changed" in said
    assert not lock_file(trial, "tool").exists()
    assert trial.doit("frozen=0", "lock") == 0
    assert trial.doit("lock") == 0
    edit(trial, 'version: "1.0"', 'version: "1.1"')
    capsys.readouterr()
    assert trial.doit("lock:source:tool") == 1
    assert "its declaration has changed" in capsys.readouterr().out


def test_a_damaged_lock_is_made_anew(trial: Trial) -> None:
    assert trial.doit("lock:source:tool") == 0
    text = lock_file(trial, "tool").read_text()
    for damage in ("sise: ", f"size: {'1' * 5000}"):
        lock_file(trial, "tool").write_text(text.replace("size: ", damage))
        assert trial.doit("lock:source:tool") == 0
        assert lock_file(trial, "tool").read_text() == text


def test_compiled_once_and_shared(trial: Trial, capsys: Said) -> None:
    assert trial.doit() == 0
    assert built(trial) == [*COMPILED, "one", "two"]
    assert sorted(path.name for path in (trial.root / "dist").glob("*.tar")) == [
        "one.tar",
        "two.tar",
    ]
    # The engine keeps nothing of a part, and the store has it under its key.
    assert not [name for name in trial.engine.held if "/part/" in name]
    assert trial.doit() == 0
    assert trial.engine.calls == []
    # Another image on the same base; and the same again in another engine.
    edit(trial, "  spare:", "  three: {base: slim, source: tool, env: {A: b}}\n  spare:")
    assert trial.doit() == 0
    assert built(trial) == ["three"]
    trial.engine.held.clear()
    shutil.rmtree(trial.root / "dist")
    shutil.rmtree(trial.root / "build")
    assert trial.doit() == 0
    assert built(trial) == ["one", "three", "two"]


def test_a_change_compiles_what_it_changes(trial: Trial) -> None:
    assert trial.doit() == 0
    edit(trial, "    commands: make install", "    commands: make all install")
    assert trial.doit() == 0
    assert built(trial) == ["part/tool-slim", "one", "two"]
    edit(trial, "urls: file", "env: {A: b}, urls: file")
    assert trial.doit() == 0
    assert built(trial) == [*COMPILED, "one", "two"], "what stands on it is compiled again"
    edit(trial, "env: {A: b}", "env: {A: b}, drop: hello")
    assert trial.doit() == 0
    assert built(trial) == ["one", "two"], "what an image gets is another, and nothing else"
    edit(trial, "env: {A: b}", "env: {A: c}")
    edit(trial, "env: {A: c}", "env: {A: b}")
    assert trial.doit() == 0
    assert trial.engine.calls == []


def test_an_emptied_store_compiles_only_for_what_is_to_be_made(trial: Trial) -> None:
    assert trial.doit() == 0
    shutil.rmtree(trial.environ["LADING_CACHE"])
    assert trial.doit() == 0
    assert trial.engine.calls == []
    shutil.rmtree(trial.root / "dist")
    trial.engine.held.clear()
    assert trial.doit() == 0
    assert built(trial) == [*COMPILED, "one", "two"]


def test_each_base_has_its_own(trial: Trial) -> None:
    assert trial.doit("build:source:lib@other") == 0
    assert built(trial) == ["part/lib-other"]
    assert trial.doit("build:source:lib@slim") == 0
    assert built(trial) == ["part/lib-slim"]
    assert trial.doit("build:source:tool@slim") == 0
    assert built(trial) == ["part/tool-slim"], "lib is there"


def test_the_tasks(trial: Trial, capsys: Said) -> None:
    assert trial.doit("list", "--all", "--deps") == 0
    said = capsys.readouterr().out
    for name in ("lock:source:tool", "lock:source:lib"):
        assert re.search(rf"^{name} ", said, re.MULTILINE)
    for name in ("tool@slim", "lib@slim", "lib@other"):
        assert re.search(rf"^build:source:{name} ", said, re.MULTILINE)
    assert "build:source:tool@other" not in said
    assert trial.doit("build:source:tool@slmi") == 3
    assert "did you mean build:source:tool@slim" in capsys.readouterr().err


def test_it_is_not_made_where_no_image_wants_it_now(trial: Trial, capsys: Said) -> None:
    """`doit build` makes the group; an image that exists needs no source."""
    assert trial.doit("build") == 0
    assert "part/lib-other" not in built(trial)
    shutil.rmtree(trial.environ["LADING_CACHE"])
    capsys.readouterr()
    assert trial.doit("archive:one") == 0
    assert built(trial) == []


def names(path: Path) -> list[str]:
    with tarfile.open(path) as opened:
        return opened.getnames()


def product(trial: Trial, name: str) -> Path:
    """The whole product of a source, as the store has it."""
    state = trial.state()
    found = state.compiled_on(state.project.sources[name], state.project.bases["slim"])
    assert found is not None
    return state.store.made(found.part.key, "product.tar")


def test_the_context_holds_the_share_and_the_part_the_product(trial: Trial) -> None:
    edit(trial, "urls: file", "drop: hello, urls: file")
    assert trial.doit("dockerfile:one") == 0
    context = trial.root / "build/one/context"
    assert names(context / "sources/tool-share.tar") == names(product(trial, "tool")) != []
    assert names(context / "sources/lib-share.tar") == [
        name for name in names(product(trial, "lib")) if name != "hello"
    ]
    (part,) = (trial.root / "build/parts").glob("tool-slim-*/context")
    assert "hello" in names(part / "sources/lib.tar")
    text = (context / "Dockerfile").read_text()
    assert text.index("sources/lib-share.tar") < text.index("sources/tool-share.tar")
    locks = {path.name for path in (context / "share/locks/sources").iterdir()}
    assert locks == {"tool.yaml", "lib.yaml"}


def failing(tag: str) -> BuildFailed:
    return BuildFailed(tag, "[3/4] RUN make", [f"line {number}" for number in range(30)])


def test_a_build_that_fails(trial: Trial, capsys: Said) -> None:
    trial.engine.failures["build"] = failing("localhost/lading/part/lib-slim:1")
    assert trial.doit("archive:one") == 1
    said = capsys.readouterr().out
    assert "RUN make" in said
    assert "line 29" in said
    (log,) = (trial.root / "build/parts").glob("lib-slim-*/build.log")
    assert str(log.relative_to(trial.root)) in said
    assert "`doit shell source:lib@slim` opens a shell" in said
    assert "building" in log.read_text()
    assert "Traceback" not in said
    partial = Path(trial.environ["LADING_CACHE"]) / "partial"
    assert list(partial.iterdir()) == []
    # What the store has of it is no longer what was downloaded.
    data = served(trial, "lib-2.tar.gz").read_bytes()
    stored = trial.state().store.path(hashlib.sha256(data).hexdigest())
    stored.chmod(0o644)
    stored.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    assert trial.doit("archive:one") == 1
    said = capsys.readouterr().out
    assert "damaged on this machine's disk since the download: lib-2.tar.gz" in said
    assert "it was thrown away: run it again" in said
    assert not stored.exists()
    del trial.engine.failures["build"]
    assert trial.doit("archive:one") == 0
    assert built(trial) == [*COMPILED, "one"]


def test_nothing_installed(trial: Trial, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        data = json.dumps([{"Layers": []}]).encode()
        info = tarfile.TarInfo("manifest.json")
        info.size = len(data)
        made.addfile(info, io.BytesIO(data))
    monkeypatch.setattr(trial.engine, "save", lambda ref: iter([out.getvalue()]))
    assert trial.doit("build:source:lib@slim") == 1
    said = capsys.readouterr().out
    assert "nothing was installed" in said
    assert "$DESTDIR" in said
    assert not [name for name in trial.engine.held if "/part/" in name]


def test_a_full_disk_in_the_middle(
    trial: Trial, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lading import prefix

    real = prefix.write

    def onto_a_full_device(saved: Path, out: Path, epoch: int) -> None:
        out.write_bytes(b"half of it")
        real(saved, Path("/dev/full"), epoch)

    monkeypatch.setattr(prefix, "write", onto_a_full_device)
    assert trial.doit("build:source:lib@slim") == 2
    said = capsys.readouterr().out
    assert "no room left on the disk" in said
    assert "Traceback" not in said
    cache = Path(trial.environ["LADING_CACHE"])
    assert list((cache / "partial").iterdir()) == []
    assert not (cache / "derived").exists() or list((cache / "derived").iterdir()) == []
    assert not [name for name in trial.engine.held if "/part/" in name]
    monkeypatch.setattr(prefix, "write", real)
    assert trial.doit("build:source:lib@slim") == 0


def test_a_full_disk_while_the_engine_saves(trial: Trial, capsys: Said) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    trial.engine.before["save"] = full
    assert trial.doit("build:source:lib@slim") == 2
    assert "no room left on the disk" in capsys.readouterr().out


def test_an_engine_that_goes_away(trial: Trial, capsys: Said) -> None:
    trial.engine.failures["save"] = EnvironmentProblem("the engine has gone away")
    trial.engine.failures["remove"] = EnvironmentProblem("the engine has gone away")
    assert trial.doit("build:source:lib@slim") == 2
    assert "the engine has gone away" in capsys.readouterr().out


def start(trial: Trial, method: str, *arguments: str) -> subprocess.Popen[bytes]:
    """doit in a process of its own, once an engine is busy with a call of `method`."""
    (trial.root / "busy").unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.support.projects", str(trial.root), method, "30"]
    running = subprocess.Popen(
        [*command, *arguments], cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    until = time.monotonic() + 20
    while not (trial.root / "busy").exists():
        assert running.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    return running


@pytest.mark.parametrize("method", ["build", "save"])
def test_a_run_that_was_killed_is_gone_on_with(trial: Trial, method: str) -> None:
    assert trial.doit("build:source:lib@slim") == 0
    running = start(trial, method, "build:source:tool@slim")
    running.send_signal(signal.SIGKILL)
    running.wait()
    cache = Path(trial.environ["LADING_CACHE"])
    assert [path for path in (cache / "partial").iterdir() if path.suffix == ".part"]
    assert trial.doit("build:source:tool@slim") == 0
    assert built(trial) == ["part/tool-slim"]
    assert list((cache / "partial").iterdir()) == []


def test_two_that_need_the_same_at_the_same_time(trial: Trial) -> None:
    edit(
        trial,
        "  lib: {",
        "  more: {version: '1', urls: FILE, needs: lib, commands: x}\n  lib: {".replace(
            "FILE", f"file://{served(trial, 'lib-2.tar.gz')}"
        ),
    )
    edit(trial, "source: [tool]", "source: [more]")
    trial.engine.before["build"] = lambda: time.sleep(0.1)
    assert trial.doit("-n", "4") == 0
    assert sorted(built(trial)) == [
        "one",
        "part/lib-slim",
        "part/more-slim",
        "part/tool-slim",
        "two",
    ]


def test_clean_takes_contexts_away_and_leaves_what_was_compiled(trial: Trial) -> None:
    assert trial.doit() == 0
    edit(trial, "    commands: make install", "    commands: make all install")
    assert trial.doit() == 0
    assert len(list((trial.root / "build/parts").iterdir())) == 3
    assert trial.doit("clean", "build:source:tool@slim") == 0
    assert [path.name[:8] for path in (trial.root / "build/parts").iterdir()] == ["lib-slim"]
    shutil.rmtree(trial.root / "dist")
    trial.engine.held.clear()
    assert trial.doit() == 0
    assert built(trial) == ["one", "two"]


def test_what_a_needed_source_needs_is_there_to_build_with(trial: Trial) -> None:
    """A program is linked against a library, and that against another."""
    deep = f"deep: {{version: '1', urls: file://{served(trial, 'lib-2.tar.gz')}, commands: x}}"
    edit(trial, "  lib: {", f"  {deep}\n  lib: {{needs: deep, ")
    assert trial.doit("build:source:tool@slim") == 0
    assert built(trial) == ["part/deep-slim", *COMPILED]
    (part,) = (trial.root / "build/parts").glob("tool-slim-*/context")
    assert {path.name for path in (part / "sources").iterdir()} == {"deep.tar", "lib.tar"}


def test_packages_that_a_source_needs_are_named_as_the_sources(trial: Trial, capsys: Said) -> None:
    """The image has no `apt:` that could be mended; its base has no apt, either."""
    for lock in (trial.root / "locks/bases").rglob("base.yaml"):
        text = lock.read_text()
        assert 'package_manager: "apt"' in text
        lock.write_text(text.replace('package_manager: "apt"', 'package_manager: ""'))
    edit(trial, "  lib: {", "  lib: {apt: {run: [libgomp1]}, ")
    assert trial.doit("lock:one") == 3
    said = capsys.readouterr().out
    assert "sources.lib.apt.run: apt layers are for Debian" in said
    assert "images.one.apt" not in said
    edit(trial, "one: {", "one: {apt: [libgomp1], ")
    assert trial.doit("lock:one") == 3
    said = capsys.readouterr().out
    assert "images.one.apt: apt layers are for Debian" in said
    assert "sources.lib" not in said
