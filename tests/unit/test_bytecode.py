"""Bytecode is the same bytes whatever the interpreter has seen before."""

from __future__ import annotations

import marshal
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import cache_from_source, source_hash
from pathlib import Path
from types import CodeType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading import bytecode, compiling

HEADER = 16
"""What stands before the marshalled code in a .pyc: magic, flags and the source's hash."""


def fresh(stem: str) -> str:
    """A name that the interpreter does not know."""
    return f"{stem}_{random.getrandbits(64):x}"


def compiled(source: str) -> bytes:
    """What Python itself would write."""
    return marshal.dumps(compile(source, "m.py", "exec", dont_inherit=True))


def test_a_set_of_strings_that_are_known_already() -> None:
    """Python makes it anew then, once for each use; otherwise some of the uses share it."""
    names = [fresh("left"), fresh("right")]
    uses = ["def f(x): return {}", "def g(x): return x == 1 or {}", "y = {}"]
    source = "".join(f"{use.format(f'x in {set(names)}')}\n" for use in uses)
    plain, ours = compiled(source), bytecode.bytecode(source.encode(), "m.py")
    known = [sys.intern("".join(name)) for name in names]
    assert compiled(source) != plain
    assert bytecode.bytecode(source.encode(), "m.py") == ours
    del known


def holders(code: CodeType) -> list[Callable[[], object]]:
    """Ways to hold a part of a code object for longer."""
    return [
        lambda: code.co_consts,
        lambda: code.co_names,
        lambda: [part for part in code.co_consts if isinstance(part, tuple)],
        lambda: [code.co_consts[0].co_consts],
        lambda: bytecode.parts(code),
    ]


@pytest.mark.parametrize("number", range(5))
def test_what_is_held_elsewhere(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that something else holds is marked as one that may be met again."""
    source = b"def f(x):\n    return x in (1, 'no name', 2.5), 12345678\ny = (7, 'neither is')\n"
    code = compile(source, "m.py", "exec", dont_inherit=True)
    plain, ours = marshal.dumps(code), bytecode.bytecode(source, "m.py")
    held = holders(code)[number]()
    assert marshal.dumps(code) != plain
    monkeypatch.setattr(bytecode, "compile", lambda *_, **__: code, raising=False)
    assert bytecode.bytecode(source, "m.py") == ours
    del held


def test_it_is_the_program(tmp_path: Path) -> None:
    source = b"def f(x):\n    return x in {'a b', None, 3}\n"
    made = bytecode.bytecode(source, str(tmp_path / "m.py"))
    assert made[4:8] == b"\1\0\0\0"  # PEP 552: by hash, not to be checked
    assert made[8:HEADER] == source_hash(source)
    code = marshal.loads(made[HEADER:])
    assert code == compile(source, str(tmp_path / "m.py"), "exec", dont_inherit=True)
    (tmp_path / "m.pyc").write_bytes(made)
    command = "import m; print(m.f('a b'), m.f(None), m.f(4), m.__file__)"
    answer = subprocess.check_output([sys.executable, "-c", command], cwd=tmp_path, text=True)
    assert answer.split() == ["True", "True", "False", f"{tmp_path}/m.pyc"]


WORDS = st.one_of(
    st.sampled_from(["a", "_", "left", "right", "", "é"]),
    st.text(max_size=5),
    st.integers(),
    st.none(),
    st.floats(allow_nan=False),
    st.binary(max_size=3),
)
VALUES = st.recursive(
    WORDS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple), st.frozensets(inner, max_size=4)
    ),
    max_leaves=12,
)


def written(value: object) -> str:
    """A constant as it stands in a module."""
    if isinstance(value, tuple):
        return f"({''.join(f'{written(one)}, ' for one in value)})"
    if isinstance(value, frozenset):
        return f"{{{', '.join(map(written, value))}}}" if value else "()"
    return repr(value)


@given(values=st.lists(VALUES, max_size=4), known=st.booleans())
def test_any_constants(values: list[object], known: bool) -> None:
    source = "".join(
        f"def f{n}(x):\n    return x in {written((v,))}\n" for n, v in enumerate(values)
    )
    source += "".join(
        f"def g(x):\n    return x in {written(v)}\n" for v in values if v.__class__ is frozenset
    )
    made = bytecode.bytecode(source.encode(), "m.py")
    held = bytecode.parts(compile(source, "m.py", "exec")) if known else None
    assert bytecode.bytecode(source.encode(), "m.py") == made
    assert marshal.loads(made[HEADER:]) == compile(source, "m.py", "exec", dont_inherit=True)
    del held


# -- as it runs in an image -----------------------------------------------------------------


def run(*folders: Path, said: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    command = compiling.command(sys.executable, str(Path(bytecode.__file__).parent))
    return subprocess.run(
        ["sh", "-c", f'{command} "$@"', "sh", *map(str, folders)],
        input=said,
        env={**os.environ, **environ},
        text=True,
        capture_output=True,
        check=False,
    )


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """A package, below a folder that is called as those of tests are."""
    folder = tmp_path / "tests/package"
    modules = {
        "__init__.py": "x = 1\n",
        "bad.py": "not not:\n",
        "nul.py": "\0",
        "warns.py": "assert ('a', 'b')\n'\\d'\n",
        "deep.py": "(" * 5000,
        "inner/a.b.py": "y = 2\n",
        "inner/tests/t.py": "z = 3\n",
        "inner/test/t.py": "z = 4\n",
    }
    for path, text in modules.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (folder / "gone.py").symlink_to("nowhere.py")
    (folder / "folder.py").mkdir()
    yield folder


def found(folder: Path) -> list[str]:
    """The modules that have bytecode."""
    tag = f".{sys.implementation.cache_tag}"
    paths = [path.relative_to(folder) for path in folder.rglob("*.pyc")]
    return sorted(f"{p.parent.parent / p.stem.removesuffix(tag)}.py" for p in paths)


def test_what_is_below_a_folder(package: Path) -> None:
    outcome = run(package)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")
    assert found(package) == ["__init__.py", "inner/a.b.py", "warns.py"]
    made = Path(cache_from_source(str(package / "__init__.py")))
    assert made.read_bytes() == bytecode.bytecode(b"x = 1\n", str(package / "__init__.py"))
    assert not list(package.rglob("*.pyc.*"))


def test_what_is_named(package: Path) -> None:
    """As __phello__.foo.py, in Debian's Python 3.9: importlib has no source for its bytecode."""
    tag = sys.implementation.cache_tag
    cached = package / f"inner/__pycache__/a.b.{tag}.pyc"
    cached.parent.mkdir()
    cached.write_bytes(b"by time")
    others = [cached.with_name(f"gone.{tag}.pyc"), cached.with_name("a.b.cpython-20.pyc")]
    named = [cached, *others, package / "inner/tests/t.py", package / "none.py"]
    outcome = run(said="".join(f"{path}\n" for path in named))
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert found(package) == ["inner/a.b.py", "inner/tests/t.py"]
    assert cached.read_bytes()[4:8] == b"\1\0\0\0"


def test_nothing_is_named(package: Path) -> None:
    assert run().returncode == 0
    assert found(package) == []


def test_who_may_read_it(package: Path) -> None:
    (package / "__init__.py").chmod(0o640)
    assert run(package).returncode == 0
    assert Path(cache_from_source(str(package / "__init__.py"))).stat().st_mode & 0o777 == 0o640


def test_it_can_not_be_written(package: Path) -> None:
    (package / "__pycache__").write_text("a file")
    outcome = run(package)
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("bytecode can't be written: ")
    assert "Traceback" not in outcome.stderr
    assert found(package) == ["inner/a.b.py"]


def test_hashes_of_strings_that_change_from_run_to_run() -> None:
    outcome = subprocess.run(
        [sys.executable, bytecode.__file__],
        env={"PYTHONHASHSEED": "1"},
        input="",
        text=True,
        capture_output=True,
        check=False,
    )
    assert outcome.returncode == 1
    assert outcome.stderr == "bytecode is the same each time with PYTHONHASHSEED=0 only\n"
