"""Requirement files as people write them, and the pinned ones that lading writes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lading import requirements
from lading.errors import DeclarationError, LadingError
from lading.requirements import Pin, Sources, lines_of, parse, read, render, written_out
from lading.store import Artifact

A, B = "a" * 64, "b" * 64


def project(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(text.encode() if isinstance(text, str) else text)
    return root


def texts(text: str | bytes) -> list[tuple[int, str]]:
    data = text.encode() if isinstance(text, str) else text
    return [(line.number, line.text) for line in lines_of("r.in", data)]


def refused(root: Path, text: str, constraints: tuple[str, ...] = ()) -> str:
    project(root, {"r.in": text})
    with pytest.raises(DeclarationError) as caught:
        read(root, "r.in", constraints)
    return str(caught.value)


# -- lines ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("numpy\n\nscipy", [(1, "numpy"), (3, "scipy")]),
        ("  numpy >= 1  # why\n# all of it\n\t# and this", [(1, "numpy >= 1")]),
        ("\ufeffnumpy\r\nscipy\r\n", [(1, "numpy"), (2, "scipy")]),
        ("numpy\rscipy", [(1, "numpy"), (2, "scipy")]),
        ("numpy \\\n  >=1,\\\n  <2\nscipy", [(1, "numpy   >=1,  <2"), (4, "scipy")]),
        ("num\\\npy", [(1, "numpy")]),
        # A comment is not continued, whatever it ends with, and it ends what was continued.
        ("# note \\\nnumpy", [(2, "numpy")]),
        ("numpy \\\n# note\nscipy", [(1, "numpy"), (3, "scipy")]),
        ("numpy \\", [(1, "numpy")]),
        ("numpy # note \\", [(1, "numpy")]),
        ("\\\n\\\n", []),
        # A fragment is no comment.
        ("a @ https://h.example/a.whl#sha256=00", [(1, "a @ https://h.example/a.whl#sha256=00")]),
        # Characters that Python's splitlines takes for ends of lines, and nobody else.
        ("numpy # a\u2028b\x0cc\nscipy", [(1, "numpy"), (2, "scipy")]),
    ],
)
def test_logical_lines(text: str, lines: list[tuple[int, str]]) -> None:
    assert texts(text) == lines


def test_a_file_that_is_not_utf8_is_named() -> None:
    with pytest.raises(DeclarationError, match=r"r\.in: not UTF-8"):
        texts(b"numpy\n\xff\xfe")


@given(st.text(alphabet="ab #\\\n\r\t=./@", max_size=60))
def test_written_out_says_the_same_in_the_same_lines(text: str) -> None:
    said = texts(text)
    assume(not any(line.endswith("\\") for _, line in said))
    out = written_out("r.in", text.encode())
    assert texts(out) == said
    assert [line for line in out.split("\n") if line] == [line for _, line in said]


def test_written_out_keeps_positions_and_undoes_what_only_pip_reads() -> None:
    text = "# head\nnumpy \\\n  >=1\n-c'my file.txt'\n-r other.in # why\n"
    assert written_out("r.in", text.encode()) == "\nnumpy   >=1\n\n-c my file.txt\n-r other.in\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("NumPy>=1", "numpy"),
        ("ruamel.yaml[jinja2] == 1", "ruamel-yaml"),
        ("a__b-.c", "a-b-c"),
        ("a@https://h.example/a.whl", "a"),
        ("https://h.example/a-1-py3-none-any.whl", ""),
        ("--index-url https://h.example", ""),
        ("-r a.in", ""),
    ],
)
def test_the_name_in_a_line(text: str, name: str) -> None:
    assert next(lines_of("r.in", text.encode())).name == name


# -- reading --------------------------------------------------------------------------------


def test_files_are_read_with_all_they_include(tmp_path: Path) -> None:
    project(
        tmp_path,
        {
            "recipes/a/r.in": "-r ../common.in\n-c limits/c.txt\nscipy\n",
            "recipes/common.in": "numpy\n--requirement=more/x.in\n",
            "recipes/more/x.in": "pandas\n-rglued.in\n",
            "recipes/more/glued.in": "zarr\n",
            "recipes/a/limits/c.txt": "numpy<2\n-c d.txt\n-r e.txt\n",
            "recipes/a/limits/d.txt": "scipy<2\n",
            "recipes/a/limits/e.txt": "never-asked-for<2\n",
            "site.txt": "pandas<3\n",
        },
    )
    sources = read(tmp_path, "recipes/a/r.in", ["site.txt"])
    assert list(sources.files) == [
        "recipes/a/r.in",
        "recipes/common.in",
        "recipes/more/x.in",
        "recipes/more/glued.in",
        "recipes/a/limits/c.txt",
        "recipes/a/limits/d.txt",
        "recipes/a/limits/e.txt",
        "site.txt",
    ]
    assert sources.roots == (
        "recipes/a/r.in",
        "recipes/common.in",
        "recipes/more/x.in",
        "recipes/more/glued.in",
    )
    assert sources.constraints == ("site.txt",)
    assert sources.names() == ("numpy", "pandas", "scipy", "zarr")


def test_a_cycle_of_includes_ends(tmp_path: Path) -> None:
    project(tmp_path, {"r.in": "-r sub/x.in\na\n", "sub/x.in": "-r ../r.in\n-r ./x.in\nb\n"})
    assert read(tmp_path, "r.in").names() == ("a", "b")


def test_a_cycle_by_way_of_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    project(tmp_path, {"sub/r.in": "a\n-r loop/r.in\n"})
    (tmp_path / "sub/loop").symlink_to(".")
    with pytest.raises(DeclarationError, match=r"sub/r\.in:2: sub/loop/r\.in includes itself"):
        read(tmp_path, "sub/r.in")


def test_one_file_under_two_names_is_fine(tmp_path: Path) -> None:
    project(tmp_path, {"r.in": "-c one.txt\n-c two.txt\na\n", "one.txt": "a<2\n"})
    (tmp_path / "two.txt").symlink_to("one.txt")
    assert set(read(tmp_path, "r.in").files) == {"r.in", "one.txt", "two.txt"}


@pytest.mark.parametrize("way", ["-r {}", "-r{}", "--requirement {}", "-c {}", "--constraint={}"])
def test_paths_out_of_the_project_are_refused(tmp_path: Path, way: str) -> None:
    root = project(tmp_path / "project", {"inside.in": "a\n"})
    project(tmp_path, {"secret.txt": "b\n"})
    (root / "link.in").symlink_to("../secret.txt")
    (root / "dangling.in").symlink_to("dangling.in")
    for path in (
        "../secret.txt",
        "sub/../../secret.txt",
        str(tmp_path / "secret.txt"),
        # These come back in; but a copy of the files elsewhere would not.
        "../project/inside.in",
        str(root / "inside.in"),
        "link.in",
    ):
        text = refused(root, f"# head\n{way.format(path)}\n")
        assert re.match(r"r\.in:2: \S+ leads out of the project$", text), text


@pytest.mark.parametrize("path", ["missing.in", "folder", "loop.in", "nul\0.in"])
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop.in").symlink_to("loop.in")
    assert refused(tmp_path, f"a\n-r {path}\n").startswith(f"r.in:2: {path} can't be read: ")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("git+https://h.example/a", "a checkout"),
        ("a @ git+https://h.example/a@v1", "a checkout"),
        ("a@git+ssh://git@h.example/a", "a checkout"),
        ("hg+http://h.example/a#egg=a", "a checkout"),
        ("-e git+ssh://git@h.example/a#egg=a", "a checkout"),
        ("-e .", "a local"),
        ("-e.", "a local"),
        ("--editable=./a", "a local"),
        (".", "a local"),
        (".[test]", "a local"),
        ("./a", "a local"),
        ("../a ; python_version > '3'", "a local"),
        ("/srv/a", "a local"),
        ("src/a", "a local"),
        ("file:///srv/a", "a local"),
        ("a-1.0-py3-none-any.whl", "a local"),
        ("a-1.0.tar.gz", "a local"),
        ("a @ file:///srv/a.whl", "a local"),
        ("a @ ../a.whl", "a local"),
        ("a[b] @ a.whl", "a local"),
        ("-r https://h.example/r.txt", "a file elsewhere"),
        ("-c http://h.example/c.txt", "a file elsewhere"),
        ("a @ ${SITE}/a.whl", "a variable"),
        ("a @ https://${HOST}/a.whl", "a variable"),
        ("a @ https://h.example/a.zip#subdirectory=b", "only the top"),
        ("--pre", "an option"),
        ("--trusted-host h.example", "an option"),
        ("--no-binary a", "an option"),
        ("--global-option=x", "an option"),
        ("--requirements x.in", "an option"),
        ("-f wheels", "a folder"),
        ("--find-links=./wheels", "a folder"),
    ],
)
def test_what_cannot_be_locked_is_refused_with_its_line(
    tmp_path: Path, line: str, reason: str
) -> None:
    text = refused(tmp_path, f"numpy\n\n{line}\n")
    assert text.startswith(f"r.in:3: {reason}"), text
    assert "\n  -> " in text
    assert f": {line}\n" in text or "@h.example" in line


@pytest.mark.parametrize(
    "line",
    [
        "a; platform_machine == 'x/y'",
        "a[b,c]>=1,<2  # ./x",
        "a @ https://h.example/a/b.tar.gz",
        "a@https://h.example/a-1-py3-none-any.whl ; python_version > '3'",
        "https://h.example/a-1-py3-none-any.whl",
        "a.whl-tools",
        "--only-binary :all:",
        "--require-hashes",
        "-i https://h.example/simple",
        "--index-url=https://h.example/simple",
        "--extra-index-url ${SITE_INDEX}",
        "--no-index",
        "-f https://h.example/wheels",
        "--find-links /srv/wheels",
        f"a==1 --hash=sha256:{A} --hash sha256:{B}",
    ],
)
def test_what_can_be_locked_is_taken(tmp_path: Path, line: str) -> None:
    project(tmp_path, {"r.in": line + "\n"})
    assert [found.text for found in read(tmp_path, "r.in").lines] == [line.partition("  #")[0]]


@pytest.mark.parametrize(
    "line",
    [
        "--extra-index-url https://ann:s3cret@h.example/simple",
        "a @ https://s3cret@h.example/a-1-py3-none-any.whl",
        "https://ann:s3cret@h.example/a-1-py3-none-any.whl",
        "a @ git+https://s3cret@h.example/a",
        "-r https://ann:s3cret@h.example/r.txt",
    ],
)
def test_credentials_are_refused_and_not_shown(tmp_path: Path, line: str) -> None:
    text = refused(tmp_path, line)
    assert text.startswith("r.in:1: ")
    assert "s3cret" not in text


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    project(tmp_path, {"c.txt": "a\n-e .\n", "sub/x.in": ".\n"})
    text = refused(tmp_path, "-r sub/x.in\n-r nosuch.in\nhg+http://h.example/a\n", ("c.txt",))
    found = re.findall(r"^(\S+:\d+): ", text, re.MULTILINE)
    assert found == ["sub/x.in:1", "r.in:2", "r.in:3", "c.txt:2"]


def test_index_options_and_hashes_of_all_files(tmp_path: Path) -> None:
    project(
        tmp_path,
        {
            "r.in": f"-r more.in\n--extra-index-url https://h.example/x\na==1 \\\n"
            f"    --hash=sha256:{A.upper()} \\\n    --hash=sha256:{B}\n"
            "c==1 --hash=md5:00\n",
            "more.in": f"-f https://h.example/w # here\nA==1 ; python_version<'3' "
            f"--hash=sha256:{'c' * 64}\nb\n",
        },
    )
    sources = read(tmp_path, "r.in")
    assert sources.index_options() == (
        "--extra-index-url https://h.example/x",
        "-f https://h.example/w",
    )
    assert sources.hashes() == {"a": {A, B, "c" * 64}}


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fall_over(data: bytes) -> None:
    sources = Sources(roots=("r.in",), constraints=(), files={"r.in": data})
    try:
        for line in sources.lines:
            requirements.refused(line.text)
        sources.names(), sources.hashes(), sources.index_options()
        written_out("r.in", data)
    except DeclarationError:
        assert not data.isascii()


# -- the pinned ones ------------------------------------------------------------------------

NAMES = st.text("ab0-", min_size=1, max_size=8).map(lambda text: f"x{text}x")
VERSIONS = st.sampled_from(
    ["1", "2.10.3", "1!0.1rc1", "2021.8", "3.0.post2", "1.0+cu12", "0.1.dev3"]
)
WANTED = st.lists(
    st.sampled_from(["numpy", "-r recipes/a/r.in", "-c c.txt", "a (my file.in)"]),
    max_size=3,
    unique=True,
)


@st.composite
def pins(draw: st.DrawFn) -> Pin:
    name, version = draw(NAMES), draw(VERSIONS)
    url = draw(
        st.sampled_from(["", f"https://h.example/{name}.zip", "http://h.example:8/a#sha256=1"])
    )
    file = draw(st.sampled_from([f"{name}-{version}-py3-none-any.whl", f"{name}.tar.gz"]))
    return Pin(
        name=name,
        version=draw(st.sampled_from([version, ""])) if url else version,
        url=url,
        artifact=Artifact(
            name=file,
            sha256=hashlib.sha256(name.encode()).hexdigest(),
            size=draw(st.integers(0, 1 << 40)),
        ),
        via=tuple(draw(WANTED)),
    )


@given(st.lists(pins(), max_size=5), st.sampled_from(["", "# head\n# more\n\n", "\n"]))
def test_what_is_rendered_is_read_again(found: list[Pin], head: str) -> None:
    assert parse(head + render(found), "lock") == tuple(found)


def test_the_text_of_a_lock() -> None:
    numpy = Pin(
        name="numpy",
        version="2.1",
        artifact=Artifact(name="numpy-2.1-cp313-cp313-manylinux_2_17_x86_64.whl", sha256=A, size=7),
        via=("-r r.in", "scipy"),
    )
    tool = Pin(
        name="tool",
        version="0.3",
        url="https://h.example/x.tar.gz",
        artifact=Artifact(name="x.tar.gz", sha256=B, size=8),
    )
    assert render([numpy, tool]) == (
        f"numpy==2.1 \\\n    --hash=sha256:{A}\n"
        "    # file: numpy-2.1-cp313-cp313-manylinux_2_17_x86_64.whl 7\n"
        "    # via: -r r.in, scipy\n"
        f"tool @ https://h.example/x.tar.gz \\\n    --hash=sha256:{B}\n"
        "    # file: x.tar.gz 8 0.3\n"
    )


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda text: text.replace("sha256:a", "sha256:x"), 4),
        (lambda text: text.replace("    # file", "# file", 1), 4),
        (lambda text: text + "<<<<<<< ours\n", 10),
        (lambda text: text[:-20], 7),
        (lambda text: text.replace("b==2", "b>=2"), 7),
        (lambda text: text.replace("b.whl 1", f"b.whl {'1' * 5000}"), 7),
    ],
)
def test_a_damaged_lock_is_refused_with_its_line(damage: object, line: int) -> None:
    assert callable(damage)
    both = [
        Pin(name=name, version="2", artifact=Artifact(name=f"{name}.whl", sha256=sha, size=1))
        for name, sha in (("a", A), ("b", B))
    ]
    text = "# head\n# more\n\n" + render(both)
    assert len(parse(text, "lock.txt")) == 2
    with pytest.raises(LadingError, match=rf"^lock\.txt:{line}: not a line of a lock"):
        parse(damage(text), "lock.txt")
