"""`doit new` and `lading init`: what they write, and that they spoil nothing."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from lading import cli, files
from lading.errors import LadingError
from lading.new import known, project, writing
from lading.new.asking import ask_all
from lading.new.command import as_typed
from lading.new.draft import Draft
from lading.project import load
from lading.requirements import read as read_requirements
from tests.support.index import only_loopback
from tests.support.projects import REPOSITORY, run_doit

Said = pytest.CaptureFixture[str]

YAML = """\
# Ours.
lading: 1
name: trial
bases:
  slim: {image: docker.io/library/python:3.13-slim}   # the newest
sources:
  mpich: {version: 4.0.2, urls: [https://h.example/mpich.tar.gz], configure: ""}
images:
  one:
    base: slim   # as it is
"""


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only_loopback(monkeypatch, tmp_path, tmp_path / "uv-cache")
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    (made / "project.yaml").write_text(YAML)
    (made / "dodo.py").write_bytes((REPOSITORY / "dodo.py").read_bytes())
    return made


def new(root: Path, *arguments: str) -> int:
    def none() -> Any:
        raise AssertionError("no engine is needed")

    before, sys.argv = sys.argv, ["doit", "new", *arguments]
    try:
        return run_doit(root, ["new", *arguments], {}, none)
    finally:
        sys.argv = before


def tree(root: Path) -> dict[str, bytes]:
    """All files of a folder, but for doit's own and dodo.py's bytecode."""
    found = {str(path.relative_to(root)): path for path in root.rglob("*")}
    return {
        name: path.read_bytes() if path.is_file() else b"folder"
        for name, path in found.items()
        if not name.startswith(".doit") and "__pycache__" not in name
    }


# -- what is written ------------------------------------------------------------------------


def test_a_name_is_enough(root: Path, capsys: Said) -> None:
    assert new(root, "mine") == 0
    assert (root / "project.yaml").read_text() == YAML + (
        "\n  mine:\n    base: slim\n    pip: {requirements: recipes/mine/requirements.in}\n"
    )
    assert (root / "recipes/mine/requirements.in").read_text().startswith("# ")
    assert read_requirements(root, "recipes/mine/requirements.in").names() == ()
    assert capsys.readouterr().out == (
        "written  recipes/mine/requirements.in\n"
        "added    images.mine in project.yaml, on the base slim\n"
        "Next: doit lock:mine\n"
    )


def test_all_options(root: Path, capsys: Said) -> None:
    arguments = [
        *[
            "mine",
            "--pip",
            "astropy>=6",
            "numpy",
            "--conda",
            "python=3.12",
            "--channel",
            "bioconda",
        ],
        *["conda-forge", "--apt-run", "bc", "--apt-build", "gcc", "g++", "--as-of", "2021-08-15"],
        *["--test", "true", "--test", 'python -c "import astropy, numpy"', "--no-default"],
        *["--description", "What: we want", "--base", "continuumio/miniconda3:4.10.3"],
    ]
    assert new(root, *arguments) == 0
    text = (root / "project.yaml").read_text()
    before, _, rest = YAML.partition("sources:")
    base = "  miniconda3-4.10.3: {image: 'docker.io/continuumio/miniconda3:4.10.3'}\n"
    assert text.startswith(before + base + "sources:" + rest)
    assert yaml.safe_load(text)["images"]["mine"] == {
        "description": "What: we want",
        "default": False,
        "base": "miniconda3-4.10.3",
        "as-of": date(2021, 8, 15),
        "apt": {"build": ["gcc", "g++"], "run": ["bc"]},
        "conda": {"channels": ["bioconda", "conda-forge"], "packages": ["python=3.12"]},
        "pip": {"requirements": "recipes/mine/requirements.in"},
        "test": ["true", 'python -c "import astropy, numpy"'],
    }
    assert (root / "recipes/mine/requirements.in").read_text() == "astropy>=6\nnumpy\n"
    assert "added    bases.miniconda3-4.10.3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("", "slim"),
        ("slim", "slim"),
        ("python:3.13-slim", "slim"),
        ("docker.io/python:3.13-slim", "slim"),
        ("python:3.9-slim", "python-3.9-slim"),
        ("r.example:5000/a/B_c:X..Y", ""),
        ("r.example:5000/a/b_c:X..Y", "b-c-x.y"),
        ("python@sha256:" + "0" * 64, "python-latest"),
    ],
)
def test_a_base_is_known_by_its_name_or_its_reference(wanted: str, name: str) -> None:
    there = known.read(YAML)
    if not name:
        with pytest.raises(LadingError):
            known.base(there, wanted)
        return
    found, definition = known.base(there, wanted)
    assert found == name
    assert (definition is None) == (name == "slim")


def test_a_project_without_bases_gets_debian(root: Path) -> None:
    (root / "project.yaml").write_text("lading: 1\nname: trial\n")
    assert new(root, "mine") == 0
    assert load(root / "project.yaml").bases["debian-13"].debian is not None


def test_what_doit_takes_for_its_variables_is_the_commands() -> None:
    typed = ["new", "x", "--pip", "astropy>=6", "--conda", "python=3.12"]
    assert as_typed(["x", "--pip", "--conda"], typed) == typed[1:]
    assert as_typed(["x", "--pip", "--conda"], ["-d", "y", *typed]) == typed[1:]
    assert as_typed(["x"], ["tests/unit", "-k", "new"]) == ["x"]
    assert as_typed(["new"], ["new", "new", "a=1"]) == ["new", "a=1"]


# -- what is there already ------------------------------------------------------------------


def read(root: Path, name: str, *arguments: str) -> dict[str, Any]:
    """The section that a file becomes."""
    assert new(root, "mine", "--from", str(root.parent / name), *arguments) == 0
    load(root / "project.yaml")
    found: dict[str, Any] = yaml.safe_load((root / "project.yaml").read_text())["images"]["mine"]
    return found


def test_from_a_requirements_file(root: Path, capsys: Said) -> None:
    (root.parent / "other").mkdir()
    (root.parent / "requirements.txt").write_text(
        "# ours\nastropy==6.0 \\\n    --hash=sha256:" + "0" * 64 + "  # pinned\n-r other/more.txt\n"
        "-c other/limits.txt\n--extra-index-url https://x.example/simple\n-e .\n--no-binary numpy\n"
        "--index-url https://me:secret@x.example/simple\ngit+https://x.example/y\n--pre\n"
    )
    (root.parent / "other/more.txt").write_text("numpy\n-r ../requirements.txt\n")
    (root.parent / "other/limits.txt").write_text("numpy<2\n")
    image = read(root, "requirements.txt")
    assert image["pip"] == {
        "requirements": "recipes/mine/requirements.txt",
        "no-binary": ["numpy"],
    }
    text = (root / "recipes/mine/requirements.txt").read_text()
    assert text.splitlines() == [
        "# ours",
        "astropy==6.0 \\",
        "    --hash=sha256:" + "0" * 64 + "  # pinned",
        "-r more.txt",
        "-c limits.txt",
        "--extra-index-url https://x.example/simple",
        "# Left out: a local or editable package can't be locked.",
        "# `no-binary` in project.yaml has what stood here.",
        "# Left out: credentials would get into the image.",
        "# Left out: a checkout has no sha256 that could be locked.",
        "# Left out: an option that has no effect here.",
    ]
    assert (root / "recipes/mine/more.txt").read_text() == "numpy\n-r requirements.txt\n"
    out = capsys.readouterr().out
    assert [f"requirements.txt:{line}:" in out for line in (7, 8, 9, 10, 11)] == [
        True, False, True, True, True,
    ]  # fmt: skip
    assert "secret" not in out


def test_from_an_environment(root: Path, capsys: Said) -> None:
    (root.parent / "environment.yml").write_text(
        "name: x\ndependencies:\n  - python=3.12\n  - pip:\n    - -r more.txt\n    - '-e .'  # us\n"
    )
    (root.parent / "more.txt").write_text("six\n")
    image = read(root, "environment.yml")
    assert image["conda"] == {
        "channels": ["conda-forge"],
        "file": "recipes/mine/environment.yaml",
    }
    assert "pip" not in image
    assert (root / "recipes/mine/environment.yaml").read_text() == (
        "name: x\ndependencies:\n  - python=3.12\n  - pip:\n    - -r more.txt\n"
        "    # Left out: a local or editable package can't be locked.\n"
    )
    assert (root / "recipes/mine/more.txt").read_text() == "six\n"
    out = capsys.readouterr().out
    assert "environment.yml:1: name: ignored" in out
    assert "conda-forge is taken" in out
    assert "environment.yml:6: -e ." in out


PYPROJECT = """\
[project]
name = "theirs"
version = "1"
requires-python = ">=3.11"
dependencies = ["six>=1", "x @ git+https://x.example/x"]
optional-dependencies = {plot = ["packaging", "six>=1"]}
"""


def test_from_a_pyproject(root: Path, capsys: Said) -> None:
    (root.parent / "pyproject.toml").write_text(PYPROJECT)
    read(root, "pyproject.toml", "--extra", "plot")
    assert (root / "recipes/mine/requirements.in").read_text() == "six>=1\npackaging\n"
    out = capsys.readouterr().out
    assert "theirs does not" in out
    assert "Python >=3.11" in out
    assert "checkout" in out


def test_extras_of_a_pyproject_that_are_other_extras_of_it(root: Path) -> None:
    (root.parent / "pyproject.toml").write_text(
        '[project]\nname = "My.Own"\ndependencies = ["six", "my-own[base]"]\n'
        "[project.optional-dependencies]\nbase = ['attrs']\n"
        "Plot_It = ['packaging; os_name == \"posix\"', 'my_own[all, gone]']\n"
        "all = ['six', 'my-own[plot-it] ; python_version > \"3\"']\n"
    )
    read(root, "pyproject.toml", "--extra", "ALL")
    assert (root / "recipes/mine/requirements.in").read_text().splitlines() == [
        "six",
        "attrs",
        'packaging; python_version > "3" and os_name == "posix"',
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.x]\n", "it has no table [project]"),
        (
            "[project]\ndependencies = 5\noptional-dependencies = {plot = []}\n",
            "project.dependencies is no list of texts",
        ),
        ("[project]\noptional-dependencies = 5\n", "project.optional-dependencies is no table"),
        ('[project]\ndynamic = ["dependencies"]\n', "its dependencies are `dynamic`"),
        ("[project]\n", "it has no extra 'plot'; its extras: none"),
        ("[project\n", "this is not TOML"),
    ],
)
def test_a_pyproject_that_does_not_say_it(root: Path, capsys: Said, text: str, said: str) -> None:
    (root.parent / "pyproject.toml").write_text(text)
    before = tree(root)
    file = str(root.parent / "pyproject.toml")
    assert new(root, "mine", "--from", file, "--extra", "plot") == 3
    assert said in capsys.readouterr().err
    assert tree(root) == before


UV_LOCK = """\
version = 1
revision = 3
requires-python = ">=3.11"

[[package]]
name = "six"
version = "1.17.0"
source = { registry = "https://x.example/simple" }
wheels = [{ url = "https://x.example/six-1.17.0-py2.py3-none-any.whl", hash = "sha256:HASH" }]

[[package]]
name = "theirs"
version = "1"
source = { virtual = "." }
dependencies = [{ name = "six" }]

[package.metadata]
requires-dist = [{ name = "six", specifier = ">=1" }]
""".replace("HASH", "a" * 64)


def test_from_a_lock_of_uv(root: Path) -> None:
    (root.parent / "pyproject.toml").write_text(
        '[project]\nname = "theirs"\nversion = "1"\nrequires-python = ">=3.11"\n'
        'dependencies = ["six>=1"]\n'
    )
    (root.parent / "uv.lock").write_text(UV_LOCK)
    read(root, "uv.lock")
    found = read_requirements(root, "recipes/mine/requirements.in")
    assert found.names() == ("six",)
    assert found.hashes() == {"six": frozenset(["a" * 64])}


def test_from_a_lock_of_pep_751(root: Path, capsys: Said) -> None:
    (root.parent / "pylock.toml").write_text(
        'lock-version = "1.0"\ncreated-by = "x"\n'
        '[[packages]]\nname = "six"\nversion = "1.17.0"\nmarker = "os_name == \'posix\'"\n'
        'wheels = [{name = "six-1.17.0-py3-none-any.whl", url = "https://x.example/six-1.17.0-py3-'
        f'none-any.whl", hashes = {{sha256 = "{"b" * 64}"}}}}]\n'
        '[[packages]]\nname = "own"\ndirectory = {path = "."}\n'
    )
    read(root, "pylock.toml")
    found = read_requirements(root, "recipes/mine/requirements.in")
    assert [line.text for line in found.lines] == [
        f'six==1.17.0 ; os_name == "posix"     --hash=sha256:{"b" * 64}'
    ]
    assert "own\n" in capsys.readouterr().out


def test_from_a_dockerfile(root: Path, capsys: Said) -> None:
    (root.parent / "Dockerfile").write_text(
        "FROM python:3.9-slim\nARG V\nCOPY run.sh conf /opt/own/\n"
        "ADD https://h.example/mpich-4.0.2.tar.gz /tmp/\n"
        "RUN cd /tmp && tar xf mpich-4.0.2.tar.gz && ./configure && make install\n"
        "ADD https://h.example/hdf5-1.2.tar.gz /tmp/\n"
        "RUN cd /tmp && tar xf hdf5-1.2.tar.gz && ./configure && make install\n"
        "RUN pip install six==$V\nUSER me\n"
    )
    (root.parent / "run.sh").write_text("true\n")
    (root.parent / "run.sh").chmod(0o755)
    (root.parent / "conf").mkdir()
    (root.parent / "conf/a").write_text("a\n")
    image = read(root, "Dockerfile", "--build-arg", "V=1.17.0")
    assert image["source"] == ["mpich", "hdf5"]
    assert image["files"] == {
        "/opt/own/run.sh": "recipes/mine/run.sh",
        "/opt/own": "recipes/mine/conf",
    }
    assert os.access(root / "recipes/mine/run.sh", os.X_OK)
    assert (root / "recipes/mine/conf/a").read_text() == "a\n"
    declared = load(root / "project.yaml")
    assert declared.sources["mpich"].urls == ("https://h.example/mpich.tar.gz",), "as it was"
    assert declared.sources["hdf5"].urls == ("https://h.example/hdf5-{version}.tar.gz",)
    out = capsys.readouterr().out
    assert "as it is sources.mpich, which project.yaml has already\n" in out
    assert "Not carried over:\n  Dockerfile:9: USER me\n      under Apptainer" in out


# -- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["one"], "has an image 'one' already"),
        (["Bad"], "is not the name of an image"),
        (["../x"], "is not the name of an image"),
        (["base"], "is reserved"),
        ([], "needs a name"),
        (["x", "y"], "unrecognized arguments: y"),
        (["x", "--nosuch"], "unrecognized arguments: --nosuch"),
        (["x", "--base", "slmi"], "there is no base called 'slmi'"),
        (["x", "--base", "a b:1"], "is not an image's name"),
        (["x", "--pip", "a b"], "'a b' is no requirement"),
        (["x", "--pip", "./a"], "can't be locked"),
        (["x", "--apt-run", "A"], "images.x.apt.run[0]: expected a Debian package"),
        (["x", "--test", "a 'b"], "images.x.test[0]: 'a 'b': a quote does not close"),
        (["x", "--as-of", "2999-01-01"], "images.x.as-of: expected today"),
        (["x", "--as-of", "then"], "--as-of then: a day"),
        (["x", "--from", "nosuch.txt"], "there is no file nosuch.txt"),
        (["x", "--from", "dodo.py"], "what kind of file this is"),
        (["x", "--from", "project.yaml", "--extra", "a"], "has no extras"),
        (["x", "--build-arg", "a"], "write it as NAME=VALUE"),
        (["x", "--build-arg", "a=b"], "belongs to a Dockerfile"),
        (["x", "--extra", "a"], "belongs to a pyproject.toml"),
        (["x", "--help", "--nosuch"], "unrecognized arguments: --nosuch"),
    ],
)
def test_nothing_is_written_of_what_can_not_be(
    root: Path, capsys: Said, arguments: list[str], said: str
) -> None:
    before = tree(root)
    assert new(root, *arguments) == 3
    found = capsys.readouterr()
    assert said in found.err
    assert "Traceback" not in found.err
    assert not re.search(r"project\.yaml:\d", found.err), "a line that nobody will see"
    assert tree(root) == before


def test_a_recipe_that_is_there_is_not_overwritten(root: Path, capsys: Said) -> None:
    (root / "recipes/mine").mkdir(parents=True)
    (root / "recipes/mine/requirements.in").write_text("mine\n")
    before = tree(root)
    assert new(root, "mine", "--pip", "six") == 1
    assert "recipes/mine/requirements.in is there already" in capsys.readouterr().err
    assert tree(root) == before


@pytest.mark.parametrize("text", ["lading: 1\nname: X\n", "lading: 1\nname: x\nimages: [\n", ""])
def test_a_project_with_problems_stays_as_it_is(root: Path, capsys: Said, text: str) -> None:
    (root / "project.yaml").write_text(text)
    before = tree(root)
    assert new(root, "mine", "--pip", "six") == 3
    assert "project.yaml" in capsys.readouterr().err
    assert tree(root) == before


def test_a_folder_without_a_project(tmp_path: Path, capsys: Said) -> None:
    assert new(tmp_path, "mine") == 3
    assert "start one: lading init FOLDER" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_help_is_the_options(root: Path, capsys: Said) -> None:
    assert new(root, "--help") == 0
    text = capsys.readouterr().out
    assert run_doit(root, ["help", "new"], {}, lambda: None) == 0  # type: ignore[arg-type, return-value]
    assert capsys.readouterr().out.strip() == text.strip()
    assert "--build-arg NAME=VALUE" in text


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, LadingError])
def test_whatever_comes_between_both_or_none_are_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    before = tree(root)
    real = files.written_whole

    def broken(path: Path, mode: int = 0o644) -> Any:
        if path.name == "project.yaml":
            raise error("now")
        return real(path, mode)

    monkeypatch.setattr(files, "written_whole", broken)
    with pytest.raises(error):
        writing.write(root, "mine", Draft(requirements=["six"]))
    assert tree(root) == before
    monkeypatch.undo()
    writing.write(root, "mine", Draft(requirements=["six"]))
    assert "mine" in load(root / "project.yaml").images


def test_the_file_behind_a_link_and_its_mode_stay(root: Path) -> None:
    real = root.parent / "elsewhere.yaml"
    (root / "project.yaml").rename(real)
    real.chmod(0o640)
    (root / "project.yaml").symlink_to(real)
    assert new(root, "mine") == 0
    assert (root / "project.yaml").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert "mine" in load(root / "project.yaml").images


# -- questions ------------------------------------------------------------------------------


def answers(*given: str) -> Iterator[str]:
    yield from given
    raise EOFError


def test_the_questions_and_their_defaults(root: Path) -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return ""

    draft = Draft()
    assert ask_all(root, "", draft, ask, lambda text: None) == "mine"
    assert [question.rpartition("[")[2] for question in asked] == [
        "mine]: ", "none]: ", "slim]: ", *["none]: "] * 5, "yes]: ",
    ]  # fmt: skip
    writing.write(root, "mine", draft)
    assert load(root / "project.yaml").images["mine"].base == "slim"


def test_an_answer_that_can_not_be_is_asked_for_again(root: Path) -> None:
    given = answers(
        *["one", "two", "for us", "nosuch", "python:3.9-slim", "a 'b", "a b; x", "six 'a<2'"],
        *["numpy", "", "bc", "gcc", "true", "perhaps", "no"],
    )
    said: list[str] = []
    draft = Draft()
    assert ask_all(root, "", draft, lambda question: next(given), said.append) == "two"
    assert draft == Draft(
        base="python:3.9-slim", description="for us", default=False, requirements=["six", "a<2"],
        conda=["numpy"], channels=["conda-forge"], apt_run=["bc"], apt_build=["gcc"],
        test=["true"],
    )  # fmt: skip
    assert sum(text.startswith("  ") for text in said) == 5


def test_on_a_terminal_nobody_answers(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    before = tree(root)
    monkeypatch.setattr(sys, "stdin", Terminal("x\n"))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert new(root) == 1
    assert "nobody answers" in capsys.readouterr().err
    assert tree(root) == before


# -- lading init ----------------------------------------------------------------------------


def test_a_project_is_started(tmp_path: Path, capsys: Said) -> None:
    folder = tmp_path / "My Images"
    assert cli.main(["init", str(folder)]) == 0
    assert load(folder / "project.yaml").name == "my-images"
    assert (folder / "dodo.py").read_bytes() == (REPOSITORY / "dodo.py").read_bytes()
    assert sorted(tree(folder)) == [
        ".gitignore", "README.md", "dodo.py", "project.yaml", "recipes", "recipes/.gitkeep",
    ]  # fmt: skip
    assert f"Next: cd {folder} && doit new NAME\n" in capsys.readouterr().out
    assert new(folder, "mine", "--pip", "six") == 0
    assert run_doit(folder, ["list", "--all"], {}, lambda: None) == 0  # type: ignore[arg-type, return-value]
    assert "lock:mine" in capsys.readouterr().out


def test_a_project_is_for_this_machine_whatever_its_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "native", lambda: "linux/arm64")
    monkeypatch.setattr("lading.project.native", lambda: "linux/arm64")
    for name in ("null", "123", "true"):
        assert cli.main(["init", str(tmp_path / name)]) == 0
        found = load(tmp_path / name / "project.yaml")
        assert (found.name, found.platform) == (name, "linux/arm64")
        assert f'name: "{name}"\n' in (tmp_path / name / "project.yaml").read_text()


def test_nothing_is_overwritten_by_a_start(tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "README.md").write_text("mine\n")
    (tmp_path / ".gitignore").write_text("mine\n")
    assert cli.main(["init", str(tmp_path)]) == 0
    assert (tmp_path / "README.md").read_text() == "mine\n"
    out = capsys.readouterr().out
    assert "README.md, which was there\n" in out
    assert ".gitignore, which was there; it should have /build/" in out
    before = tree(tmp_path)
    assert cli.main(["init", str(tmp_path)]) == 1
    assert "has a project.yaml and a dodo.py already" in capsys.readouterr().err
    assert tree(tmp_path) == before
    assert cli.main(["init", str(tmp_path / "README.md")]) == 1


def test_a_start_that_is_interrupted_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(project, "load", stop)
    with pytest.raises(KeyboardInterrupt):
        project.start(tmp_path / "new/one", lambda text: None)
    assert list(tmp_path.iterdir()) == []
