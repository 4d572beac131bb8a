"""What a package may hold, and what is seen in it."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.conda.archives import Contents, Entry, contents, dangers, together

INDEX = {"name": "tool", "version": "1.0", "build": "0", "subdir": "linux-64"}
FILE, SUBDIR = "tool-1.0-0.conda", "linux-64"


@pytest.mark.parametrize(
    "entry",
    [
        Entry(name="../evil"),
        Entry(name="/etc/passwd"),
        Entry(name="lib/../../evil"),
        Entry(name="lib/\0x"),
        Entry(name=".."),
        Entry(name="lib/x", link="symbolic", target="/etc/passwd"),
        Entry(name="lib/x", link="symbolic", target="../../etc"),
        Entry(name="x", link="symbolic", target=".."),
        # Lexically inside, but where `a/..` is depends on what a is.
        Entry(name="lib/x", link="symbolic", target="a/../b"),
        Entry(name="lib/x", link="hard", target="/etc/passwd"),
        Entry(name="lib/x", link="hard", target="../../etc/passwd"),
        Entry(name="lib/x", link="hard", target="lib/nothing"),
    ],
)
def test_what_leads_out_is_refused(entry: Entry) -> None:
    assert len(dangers([entry])) == 1


def test_a_file_behind_a_link_is_refused() -> None:
    link = Entry(name="lib/d", link="symbolic", target="e")
    assert dangers([link, Entry(name="lib/d/x")]) == ["'lib/d/x' lies behind the link 'lib/d'"]


def test_what_packages_usually_hold_is_not_refused() -> None:
    entries = [
        Entry(name="bin/python3.12"),
        Entry(name="bin/python", link="symbolic", target="python3.12"),
        Entry(name="lib/libfoo.so.1.2"),
        Entry(name="lib/libfoo.so", link="symbolic", target="libfoo.so.1.2"),
        Entry(name="lib/terminfo", link="symbolic", target="../share/terminfo"),
        Entry(name="lib/pkg/x", link="symbolic", target="../../bin/python"),
        Entry(name="bin/git-x", link="hard", target="bin/python3.12"),
        Entry(name="share/..data/x"),
        Entry(name="share/x", link="symbolic", target="./y"),
    ]
    assert dangers(entries) == []


@given(st.lists(st.sampled_from(["..", ".", "a", "b", ""]), min_size=1, max_size=6))
def test_no_name_that_passes_leads_out(parts: list[str]) -> None:
    name = "/".join(parts)
    if not dangers([Entry(name=name)]):
        at = posixpath.normpath(posixpath.join("/prefix", name))
        assert at == "/prefix" or at.startswith("/prefix/")


@given(
    st.lists(st.sampled_from(["..", ".", "a"]), min_size=1, max_size=5),
    st.integers(min_value=0, max_value=3),
)
def test_no_link_that_passes_leads_out(parts: list[str], depth: int) -> None:
    folder = "/".join(["d"] * depth)
    name = f"{folder}/x" if folder else "x"
    if not dangers([Entry(name=name, link="symbolic", target="/".join(parts))]):
        at = posixpath.normpath(posixpath.join("/prefix", folder, *parts))
        assert at == "/prefix" or at.startswith("/prefix/")


def test_what_matters_is_seen() -> None:
    names = [
        "bin/.tool-post-link.sh",
        "bin/tool",
        "etc/conda/activate.d/tool.sh",
        "etc/conda/activate.d/tool.fish",
        "etc/conda/env_vars.d/tool.json",
        "lib/python3.12/site-packages/Tool_Kit-1.2.dist-info/METADATA",
        "lib/python3.12/site-packages/Tool_Kit-1.2.dist-info/RECORD",
        "site-packages/other-3.dist-info/METADATA",
        "site-packages/egg-0.1.egg-info",
        "lib/python2.7/site-packages/old_egg-1.0-py2.7.egg-info/PKG-INFO",
    ]
    found = contents(FILE, SUBDIR, [Entry(name=name) for name in names], INDEX, {"paths": []})
    assert found.name == "tool"
    assert found.activation == ("etc/conda/activate.d/tool.sh",)
    assert found.variables == ("etc/conda/env_vars.d/tool.json",)
    assert found.scripts == ("bin/.tool-post-link.sh",)
    assert found.distributions == (
        *(("Tool_Kit", "1.2"), ("egg", "0.1")),
        *(("old_egg", "1.0"), ("other", "3")),
    )
    assert found.problems == ()
    assert Contents.from_dict(found.to_dict()) == found


def test_a_package_that_is_another_is_refused() -> None:
    assert contents(FILE, SUBDIR, [], {**INDEX, "version": "2.0"}, {}).problems == (
        "it says that it is tool-2.0-0",
    )
    assert contents(FILE, SUBDIR, [], {**INDEX, "subdir": "osx-64"}, {}).problems == (
        "it says that it is for osx-64, not linux-64",
    )


@pytest.mark.parametrize(
    "paths",
    [
        {"paths": [{"_path": "../evil"}]},
        {"paths": [{"_path": 3}]},
        {"paths": [{}]},
        {"paths": "all"},
    ],
)
def test_paths_json_is_not_believed(paths: dict[str, object]) -> None:
    assert len(contents(FILE, SUBDIR, [], INDEX, paths).problems) == 1


def test_files_behind_another_packages_link_are_refused() -> None:
    one = contents(
        "a-1-0.conda",
        SUBDIR,
        [Entry(name="site-packages/d", link="symbolic", target="e")],
        {"name": "a", "version": "1", "build": "0"},
        {},
    )
    other = contents(
        "b-1-0.conda",
        SUBDIR,
        [Entry(name="lib/python3.12/site-packages/d/x")],
        {"name": "b", "version": "1", "build": "0"},
        {},
    )
    assert together([one, other]) == ["b puts files behind 'site-packages/d', which is a link in a"]
    assert together([one]) == []
