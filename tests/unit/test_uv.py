"""What is asked of the real uv, against an index on the loopback."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest
from packaging import tags

from lading import net, uv
from lading.errors import DeclarationError, EnvironmentProblem, LadingError
from lading.requirements import Pin, Sources
from lading.store import Artifact, Source, Store
from lading.uv import File, NotAnswered, NotResolved, Target, Version
from tests.support.index import Index, only_loopback, sdist, wheel

NEW = Target(python_version="3.13.5", glibc="2.41", platform="linux/amd64")
OLD = Target(python_version="3.9.2", glibc="2.31", platform="linux/amd64")
CANARY = "open({!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='s', version='1.0')\n"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uv-cache")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path) -> None:
    only_loopback(monkeypatch, tmp_path, cache)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    with Index() as made:
        monkeypatch.setenv("UV_DEFAULT_INDEX", made.url)
        yield made


def asking(text: str, constraints: str = "") -> Sources:
    files = {"recipes/r.in": text.encode()}
    if constraints:
        files["c.txt"] = constraints.encode()
    return Sources(
        roots=("recipes/r.in",), constraints=("c.txt",) if constraints else (), files=files
    )


def resolve(
    text: str,
    target: Target = NEW,
    *,
    constraints: str = "",
    pinned: Sequence[Pin] = (),
    build: Sequence[str] = (),
) -> dict[str, str]:
    found = uv.resolve(
        asking(text, constraints),
        target,
        pinned=pinned,
        build_constraints=build,
        environment=net.uv_environment(os.environ),
    )
    return {version.name: version.version for version in found}


def pin(name: str, version: str) -> Pin:
    return Pin(
        name=name, version=version, artifact=Artifact(name=f"{name}.whl", sha256="0" * 64, size=1)
    )


def locate(*requirements: str, target: Target = NEW, options: Sequence[str] = ()) -> list[File]:
    wanted = []
    for requirement in requirements:
        name, _, version = requirement.partition("==")
        name, _, url = name.partition(" @ ")
        wanted.append(Version(name=name, version=version, url=url))
    return [
        *uv.locate(
            wanted,
            target,
            index_options=options,
            environment=net.uv_environment(os.environ),
        )
    ]


# -- versions -------------------------------------------------------------------------------


def test_versions_and_who_wants_them(index: Index) -> None:
    index.wheel("Top.Level", "2.0", requires=["Middle_One>=1", "low"])
    index.wheel("middle-one", "1.5", requires=["low<3"])
    for version in ("1.0", "2.0", "3.0"):
        index.wheel("low", version)
    found = uv.resolve(asking("top-level\nlow\n"), NEW, environment={})
    assert found == (
        Version(name="low", version="2.0", via=("-r recipes/r.in", "middle-one", "top-level")),
        Version(name="middle-one", version="1.5", via=("top-level",)),
        Version(name="top-level", version="2.0", via=("-r recipes/r.in",)),
    )
    assert [version.requirement for version in found][:2] == ["low==2.0", "middle-one==1.5"]


def test_what_was_just_resolved_is_not_asked_for_again(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.wheel("once", "1.0")
    environment = net.uv_environment(os.environ)
    found = uv.resolve(asking("once\n"), NEW, environment=environment)
    index.drop("once-1.0-py3-none-any.whl")
    (file,) = uv.locate(found, NEW, environment=environment, just_resolved=True)
    assert (file.name, file.version) == ("once", "1.0")
    with pytest.raises(NotResolved):
        uv.locate(found, NEW, environment=environment)

    # Who keeps no cache is asked for.
    index.wheel("once", "1.0")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    environment = net.uv_environment(os.environ)
    found = uv.resolve(asking("once\n"), NEW, environment=environment)
    assert uv.locate(found, NEW, environment=environment, just_resolved=True)


def test_pins_stay_where_they_fit(index: Index) -> None:
    for version in ("1.0", "1.1", "2.0"):
        index.wheel("a", version)
        index.wheel("b", version)
    pinned = [pin("a", "1.0"), pin("b", "1.0")]
    assert resolve("a\nb\n") == {"a": "2.0", "b": "2.0"}
    assert resolve("a\nb\n", pinned=pinned) == {"a": "1.0", "b": "1.0"}
    assert resolve("a>1\nb\n", pinned=pinned) == {"a": "2.0", "b": "1.0"}
    # A pin asks for nothing by itself, and one that is gone does not bind.
    assert resolve("a\n", pinned=[pin("a", "0.9"), pin("b", "1.0")]) == {"a": "2.0"}


def test_as_of_a_day_counts_all_of_that_day_in_utc(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.wheel("a", "1.0", at="2021-08-14T10:00:00Z")
    index.wheel("a", "1.1", at="2021-08-15T23:59:59Z")
    index.wheel("a", "1.2", at="2021-08-16T00:00:00Z")
    for zone in ("UTC", "Pacific/Kiritimati", "America/Los_Angeles"):
        monkeypatch.setenv("TZ", zone)
        target = Target(
            python_version="3.13.5", glibc="2.41", platform="linux/amd64", as_of=date(2021, 8, 15)
        )
        assert resolve("a\n", target) == {"a": "1.1"}
    assert resolve("a\n", target, pinned=[pin("a", "1.2")]) == {"a": "1.1"}
    with pytest.raises(NotResolved):
        resolve("a>1.1\n", target)


def test_constraints_bind_and_ask_for_nothing(index: Index) -> None:
    for version in ("1.0", "2.0"):
        index.wheel("a", version, requires=["b"])
        index.wheel("b", version)
    limits = "b<2\na<9\nnever-asked-for==7\n"
    assert resolve("a\n", constraints=limits) == {"a": "2.0", "b": "1.0"}


def test_markers_and_extras_are_the_targets(index: Index) -> None:
    index.wheel(
        "a",
        "1.0",
        requires=[
            "old; python_version < '3.10'",
            "new; python_full_version >= '3.13.4'",
            "here; python_version == '" + ".".join(map(str, sys.version_info[:2])) + "'",
            "linux; sys_platform == 'linux' and platform_machine == 'x86_64'",
            "win; os_name == 'nt'",
            "cpython; platform_python_implementation == 'CPython'",
        ],
        extras={"more": ["extra"], "none": ["unwanted"]},
    )
    for name in ("old", "new", "linux", "win", "cpython", "extra", "unwanted", "here"):
        index.wheel(name, "1.0")
    assert set(resolve("a[more]\n", NEW)) == {"a", "new", "linux", "cpython", "extra"}
    assert set(resolve("a\n", OLD)) == {"a", "old", "linux", "cpython"}
    assert set(resolve("old; python_version<'3.10'\nnew\n", NEW)) == {"new"}


@pytest.mark.parametrize(
    ("base", "fits"),
    [("2.17", ["2_17"]), ("2.31", ["2_17", "2_28"]), ("2.41", ["2_17", "2_28", "2_38"])],
)
def test_wheels_are_chosen_for_the_glibc_of_the_base(
    index: Index, base: str, fits: list[str]
) -> None:
    for number, glibc in enumerate(("2_17", "2_28", "2_38", "2_41"), 1):
        for name in ("a", f"only-{glibc.replace('_', '-')}"):
            index.wheel(name, f"{number}.0", tags=f"cp313-cp313-manylinux_{glibc}_x86_64")
    target = Target(python_version="3.13.5", glibc=base, platform="linux/amd64")
    newest = f"{len(fits)}.0"
    assert resolve("a\n", target) == {"a": newest}
    chosen = uv.best(locate(f"a=={newest}", target=target), target)
    assert chosen is not None
    assert chosen.file == f"a-{newest}-cp313-cp313-manylinux_{fits[-1]}_x86_64.whl"
    with pytest.raises(NotResolved, match="platform tag"):
        resolve("only-2-41\n", target)


@pytest.mark.parametrize(
    ("glibc", "platform", "name"),
    [
        ("2.41", "linux/amd64", "x86_64-manylinux_2_40"),
        ("2.40", "linux/amd64", "x86_64-manylinux_2_40"),
        ("2.36", "linux/amd64", "x86_64-manylinux_2_36"),
        ("2.30", "linux/arm64", "aarch64-manylinux_2_28"),
        ("2.27", "linux/amd64", "x86_64-manylinux_2_17"),
        ("2.17", "linux/amd64", "x86_64-manylinux_2_17"),
        ("2.36-9+deb12u10", "linux/amd64", "x86_64-manylinux_2_36"),
    ],
)
def test_uvs_name_of_the_platform(glibc: str, platform: str, name: str) -> None:
    target = Target(python_version="3.13.5", glibc=glibc, platform=platform)
    assert target.uv_platform == name


@pytest.mark.parametrize("glibc", ["", "2.5", "musl"])
def test_a_base_without_a_glibc_that_wheels_are_made_for_is_refused(glibc: str) -> None:
    target = Target(python_version="3.13.5", glibc=glibc, platform="linux/amd64")
    with pytest.raises(LadingError, match="no wheel is made for a base with glibc"):
        target.arguments()


def test_pre_releases_only_where_they_are_named(index: Index) -> None:
    index.wheel("a", "1.0")
    index.wheel("a", "2.0rc1")
    assert resolve("a\n") == {"a": "1.0"}
    assert resolve("a>=2.0rc1\n") == {"a": "2.0rc1"}


def test_local_versions(index: Index) -> None:
    index.wheel("a", "1.0+cpu")
    assert resolve("a\n") == {"a": "1.0+cpu"}
    assert [file.file for file in locate("a==1.0+cpu")] == ["a-1.0+cpu-py3-none-any.whl"]


def test_requirement_files_as_only_pip_reads_them(index: Index) -> None:
    index.wheel("a", "1.0")
    index.wheel("b", "1.0")
    index.wheel("c", "1.0")
    sources = Sources(
        roots=("r.in", "x.in"),
        constraints=(),
        files={
            "r.in": b"\xef\xbb\xbfa \\\r\n  >=1 # why\r\n-rx.in\r\n# no \\\r\nc\r\n",
            "x.in": b'b\n-c "my limits.txt"\n',
            "my limits.txt": b"a<2\n",
        },
    )
    found = uv.resolve(sources, NEW, environment={})
    assert [(version.name, version.via) for version in found] == [
        ("a", ("-c my limits.txt", "-r r.in")),
        ("b", ("-r x.in",)),
        ("c", ("-r r.in",)),
    ]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a\n\nb ==\n", "recipes/r.in:3"),
        ("a\n\\\n  b = 1\n", "recipes/r.in:2"),
        ("a\n--no-such-option\n", "recipes/r.in:2"),
        ("a\nb; python_versoin>'3'\n", "recipes/r.in:2"),
        ("-c ../x.in\n", "x.in:2"),
        ("ä @ https://h.example/a.whl\nb\n", "recipes/r.in:1"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(index: Index, text: str, where: str) -> None:
    for name in ("a", "b"):
        index.wheel(name, "1.0")
    sources = Sources(
        roots=("recipes/r.in",),
        constraints=(),
        files={"recipes/r.in": text.encode(), "x.in": b"a\nb >\n"},
    )
    with pytest.raises(DeclarationError) as caught:
        uv.resolve(sources, NEW, environment={})
    assert caught.value.what.startswith(f"{where}: "), caught.value


def test_what_the_user_set_for_uv_elsewhere_does_not_move_a_lock(
    index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    index.wheel("a", "1.0", at="2020-01-01T00:00:00Z")
    index.wheel("a", "2.0", at="2024-01-01T00:00:00Z")
    (tmp_path / "limits.txt").write_text("a<2\n")
    for name, value in {
        "UV_EXCLUDE_NEWER": "2021-01-01T00:00:00Z",
        "UV_RESOLUTION": "lowest",
        "UV_CONSTRAINT": str(tmp_path / "limits.txt"),
        "UV_PYTHON_DOWNLOADS": "automatic",
        "UV_NO_BINARY": "1",
        "UV_CONFIG_FILE": "/nonexistent/uv.toml",
    }.items():
        monkeypatch.setenv(name, value)
    config = tmp_path / "config" / "uv" / "uv.toml"
    config.parent.mkdir(parents=True)
    config.write_text('exclude-newer = "2021-01-01T00:00:00Z"\n')
    assert resolve("a\n") == {"a": "2.0"}
    assert [file.file for file in locate("a==2.0")] == ["a-2.0-py3-none-any.whl"]


# -- nothing of this machine is run ---------------------------------------------------------


def test_an_sdist_is_never_built_here(index: Index, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    index.wheel("setuptools", "80.0")
    made = index.sdist("s", "1.0", {"setup.py": CANARY.format(str(canary))})
    for text in ("s\n", f"s @ {index.file_url(made.name)}\n"):
        with pytest.raises(NotResolved) as caught:
            resolve(text)
        assert caught.value.wants_builds
    (by_name,) = locate("s==1.0")
    (by_url,) = locate(f"s @ {index.file_url(made.name)}")
    assert (by_name.file, by_name.sha256, by_name.size) == (made.name, made.sha256, len(made.data))
    assert (by_url.file, by_url.version, by_url.sha256) == (made.name, "1.0", "")
    # Nor where the index tells no hash, so that uv takes the file to hash it.
    index.hashes = False
    index.sdist("t", "1.0", {"setup.py": CANARY.format(str(canary))})
    assert [file.file for file in locate("t==1.0")] == ["t-1.0.tar.gz"]
    assert not canary.exists()


def test_no_other_python_is_looked_for(
    index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("python3.13", "python3", "python"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    index.wheel("a", "1.0")
    assert resolve("a\n") == {"a": "1.0"}
    assert not (tmp_path / "ran").exists()


# -- files ----------------------------------------------------------------------------------


def file(name: str, version: str = "1.0") -> File:
    return File(name="a", version=version, file=name, sha256="0" * 64, size=1, url="x")


ORDER = [
    # The best first, as an installer has it for Python 3.13 and glibc 2.31.
    "a-1.0-cp313-cp313-linux_x86_64.whl",
    "a-1.0-cp313-cp313-manylinux_2_31_x86_64.whl",
    "a-1.0-cp313-cp313-manylinux_2_28_x86_64.whl",
    "a-1.0-2-cp313-cp313-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "a-1.0-cp313-cp313-manylinux2014_x86_64.whl",
    "a-1.0-cp313-cp313-manylinux1_x86_64.whl",
    "a-1.0-cp313-abi3-manylinux_2_17_x86_64.whl",
    "a-1.0-cp313-none-manylinux_2_17_x86_64.whl",
    "a-1.0-cp38-abi3-manylinux_2_17_x86_64.whl",
    "a-1.0-cp37-abi3-manylinux_2_17_x86_64.whl",
    "a-1.0-py3-none-manylinux_2_17_x86_64.whl",
    "a-1.0-py313-none-any.whl",
    "a-1.0-2-py3-none-any.whl",
    "a-1.0-1b-py3-none-any.whl",
    "a-1.0-1a-py3-none-any.whl",
    "a-1.0-py2.py3-none-any.whl",
    "a-1.0-py30-none-any.whl",
    "a-1.0.tar.gz",
]
NEVER = [
    "a-1.0-cp313-cp313-manylinux_2_32_x86_64.whl",
    "a-1.0-cp313-cp313-manylinux_2_17_aarch64.whl",
    "a-1.0-cp313-cp313-musllinux_1_2_x86_64.whl",
    "a-1.0-cp313-cp313-macosx_11_0_arm64.whl",
    "a-1.0-cp313-cp313-win_amd64.whl",
    "a-1.0-cp313-cp313t-manylinux_2_17_x86_64.whl",
    "a-1.0-cp312-cp312-manylinux_2_17_x86_64.whl",
    "a-1.0-cp314-abi3-manylinux_2_17_x86_64.whl",
    "a-1.0-pp310-pypy310_pp73-manylinux_2_17_x86_64.whl",
    "a-1.0-py2-none-any.whl",
    "not-a-wheel.whl",
]


@pytest.mark.parametrize("at", range(len(ORDER)))
def test_the_best_file(at: int) -> None:
    target = Target(python_version="3.13.5", glibc="2.31", platform="linux/amd64")
    left = [file(name) for name in (*NEVER, *reversed(ORDER[at:]))]
    found = uv.best(left, target)
    assert found is not None
    assert found.file == ORDER[at]


def test_nothing_fits() -> None:
    target = Target(python_version="3.13.5", glibc="2.31", platform="linux/amd64")
    assert uv.best([file(name) for name in NEVER], target) is None
    assert uv.best([], NEW) is None


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="compares with this Python")
def test_the_order_is_the_one_packaging_has_for_a_python() -> None:
    """For this Python itself, `packaging` says which tags fit and in which order."""
    import platform

    if platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc":
        pytest.skip("tags of another platform")
    here = Target(
        python_version=platform.python_version(),
        glibc=platform.libc_ver()[1],
        platform="linux/amd64",
    )
    theirs = [str(tag) for tag in tags.sys_tags()][::5]
    # Each tag goes before the next one; so the order of all is the same.
    for tag, following in pairwise(theirs):
        found = uv.best([file(f"a-1.0-{following}.whl"), file(f"a-1.0-{tag}.whl")], here)
        assert found is not None
        assert found.file == f"a-1.0-{tag}.whl"


def test_a_file_by_url_is_pinned_by_its_content(index: Index) -> None:
    made = index.wheel("a", "1.0", requires=["b"])
    index.wheel("b", "1.0")
    url = index.file_url(made.name)
    found = uv.resolve(
        asking(f"a @ {url} ; python_version > '3'\n"), NEW, environment=net.uv_environment({})
    )
    assert found[0] == Version(name="a", version="", url=url, via=("-r recipes/r.in",))
    assert [version.name for version in found] == ["a", "b"]
    (located,) = locate(found[0].requirement)
    assert (located.file, located.version, located.url) == (made.name, "1.0", url)
    assert uv.measured(located) == (made.sha256, len(made.data))


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("a-1.0.tar.gz", "1.0"),
        ("a-1.0-py3-none-any.whl", "1.0"),
        ("A-1.0.zip", "1.0"),
        ("v1.0.tar.gz", ""),
        ("1.0.tar.gz", ""),
        ("other-1.0.tar.gz", ""),
        ("a-0123abc.tar.gz", ""),
    ],
)
def test_the_version_that_a_url_tells(name: str, version: str) -> None:
    (found,) = locate(f"a @ https://h.example/x/{name}?y=1#sha256={'AB' * 32}")
    assert (found.file, found.version) == (name, version)
    assert found.sha256 == "ab" * 32
    assert found.url == f"https://h.example/x/{name}?y=1"


def test_an_index_without_sizes_or_hashes_is_measured(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.wheel("a", "1.0")
    index.sizes = False
    assert locate("a==1.0")[0].size is None
    index.plain, index.hashes = True, False
    again = index.wheel("b", "1.0")
    (found,) = locate("b==1.0")
    assert (found.sha256, found.size) == (again.sha256, None)
    assert uv.measured(found) == (again.sha256, len(again.data))
    index.statuses[again.name] = 500
    monkeypatch.setattr(net, "BACKOFF", 0.0)
    with pytest.raises(EnvironmentProblem, match="HTTP 500"):
        uv.measured(found)


def test_a_folder_as_an_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name, data = wheel("a", "1.0")
    folder = tmp_path / "my wheels"
    folder.mkdir()
    (folder / name).write_bytes(data)
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_OFFLINE", "1")
    assert resolve("--no-index\na\n") == {"a": "1.0"}
    (found,) = locate("a==1.0", options=["--no-index"])
    assert uv.measured(found)[1] == len(data)
    (folder / name).unlink()
    with pytest.raises(EnvironmentProblem, match="can't be read"):
        uv.measured(found)


def test_where_pip_is_told_to_ask_no_index_none_is(
    index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name, data = wheel("a", "1.0")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / name).write_bytes(data)
    index.wheel("a", "2.0")
    index.wheel("b", "1.0")
    monkeypatch.delenv("UV_DEFAULT_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "wheels")
    monkeypatch.chdir(tmp_path)
    assert resolve(f"--extra-index-url {index.url}\na\n") == {"a": "1.0"}
    (found,) = locate("a==1.0")
    assert uv.measured(found)[1] == len(data)
    environment = net.uv_environment(os.environ)
    assert uv.with_wheels("a", NEW, environment) == ("1.0", "1.0")
    with pytest.raises(NotResolved):
        resolve("b\n")
    assert index.requests == []


def test_sources_carry_the_credentials_of_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://ann:s3cret@h.example/simple")
    one = File(name="a", version="1", file="a.whl", sha256="1", size=1, url="https://h.example/a")
    other = File(name="a", version="1", file="a.whl", sha256="1", size=1, url="https://x.example/a")
    assert uv.sources_of([one, other]) == {
        "1": [
            Source(url="https://h.example/a", auth=("ann", "s3cret")),
            Source(url="https://x.example/a"),
        ]
    }


def test_the_versions_that_have_wheels(index: Index) -> None:
    for version, tag in (("1.0", "cp39"), ("1.1", "cp313"), ("1.2", "cp313"), ("1.3", "cp314")):
        index.wheel("a", version, tags=f"{tag}-{tag}-manylinux_2_17_x86_64", requires=["gone"])
    name, data = sdist("a", "2.0", {})
    index.add("a", name, data)
    environment = net.uv_environment(os.environ)
    assert uv.with_wheels("a", NEW, environment) == ("1.1", "1.2")
    assert uv.with_wheels("a", OLD, environment) == ("1.0", "1.0")
    assert uv.with_wheels("nosuch", NEW, environment) is None


def test_the_program_in_a_wheel_of_uv(tmp_path: Path) -> None:
    name, data = wheel("uv", "1.0", files={"uv-1.0.data/scripts/uv": b"#!x"})
    (tmp_path / name).write_bytes(data)
    store = Store(tmp_path / "store")
    one = Artifact(name=name, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    sources = {one.sha256: [Source(url=(tmp_path / name).as_uri())]}
    store.fetch([one], lambda _: sources)
    stored = store.path(one.sha256)
    for at in (data.index(b"#!x"), len(data) - 20):
        damaged = bytearray(data)
        damaged[at] ^= 1
        stored.chmod(0o644)
        stored.write_bytes(damaged)
        with pytest.raises(LadingError, match="thrown away: run it again"):
            uv.unpacked(store, one.sha256)
        assert not stored.exists()
        store.fetch([one], lambda _: sources)
    assert uv.unpacked(store, one.sha256).read_bytes() == b"#!x"
    assert uv.unpacked(store, one.sha256).stat().st_mode & 0o777 == 0o555


# -- what goes wrong ------------------------------------------------------------------------


def test_an_unknown_package(index: Index) -> None:
    with pytest.raises(NotResolved, match="nosuch was not found") as caught:
        resolve("nosuch\n")
    assert not caught.value.wants_builds


def test_a_version_that_is_gone(index: Index) -> None:
    index.wheel("a", "1.0")
    with pytest.raises(NotResolved):
        locate("a==1.1")


@pytest.mark.parametrize("way", ["down", "error", "password"])
def test_an_index_that_does_not_answer_is_a_problem_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    with Index(user="ann", password="s3cret/@:%") as index:
        index.wheel("a", "1.0")
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        if way == "down":
            index.stop()
        elif way == "error":
            index.statuses["a"] = 500
        else:
            index.password = "another"
        for ask in (lambda: resolve("a\n"), lambda: locate("a==1.0")):
            with pytest.raises(NotAnswered) as caught:
                ask()
            text = str(caught.value)
            assert caught.value.exit_code == 2
            assert "127.0.0.1" in text
            assert "s3cret" not in text, text


def test_what_may_not_be_asked_for_is_not_gone(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.wheel("unseen", "1.0")
    monkeypatch.setenv("UV_OFFLINE", "1")
    for ask in (lambda: resolve("unseen\n"), lambda: locate("unseen==1.0")):
        with pytest.raises(NotAnswered, match="unset UV_OFFLINE"):
            ask()


def test_a_private_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with Index(user="ann", password="s3cret/@:%") as index:
        made = index.wheel("a", "1.0")
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        assert resolve("a\n") == {"a": "1.0"}
        index.hashes = False
        (found,) = locate("a==1.0")
        assert "s3cret" not in found.url
        assert "s3cret" not in repr(found)
        assert uv.measured(found) == (made.sha256, len(made.data))
        (source,) = uv.sources_of([found])[found.sha256]
        assert source.auth == ("ann", "s3cret/@:%")
