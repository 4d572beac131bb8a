"""project.yaml: what is read, what is refused and how, and its JSON schema."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from lading import project
from lading.errors import DeclarationError
from lading.layers.pip_section import PipSection
from lading.project import Base, DebianBase, Image, Project, json_schema, load, schema_text

GOOD = """\
lading: 1
name: python-containers
platform: linux/arm64
maintainer: Jane Doe <jane@example.org>
registry: localhost:5000/group
labels: {org.opencontainers.image.vendor: Example HPC Centre}
bases:
  debian-13: {debian: {suite: trixie, packages: [python3, libstdc++6]}}
  slim: {image: "docker.io/library/python:3.9-slim"}
images:
  astropy:
    base: debian-13
    version: 1.10
    description: >
      Astronomy,
      in two lines
    as-of: 2021-08-15
    pip:
      requirements: recipes/astropy/requirements.in
      constraints: recipes/constraints.txt
      no-binary: [mpi4py, ":all:"]
      build-constraints: ["setuptools<69", "numpy >=1.20, <2 ; python_version < '3.10'"]
    env: {OMP_NUM_THREADS: 1, LANG: on, EMPTY: "", SPACE: "a\\tb"}
    labels: {purpose: test}
    files: {/opt/data: recipes/data, /etc/motd: recipes/motd}
    run: [echo one, echo two]
    cmd: [python3, -i]
    test: python -c "import astropy"
  bare:
    base: slim
    default: false
    as-of: "2021-08-15"
    run:
      before-layers: echo first
      after-layers: [echo last]
"""

Load = Callable[[str], Project]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "recipes/astropy").mkdir(parents=True)
    (root / "recipes/data").mkdir()
    for name in ("astropy/requirements.in", "constraints.txt", "motd"):
        (root / "recipes" / name).write_text("astropy\n")
    (root / "recipes/out").symlink_to("/etc")
    return root


@pytest.fixture
def read(root: Path) -> Load:
    def read(text: str) -> Project:
        (root / "project.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
        return load(root / "project.yaml", today=date(2026, 11, 22))

    return read


def refused(read: Load, text: str) -> list[str]:
    """The lines of the error, without the file's name."""
    with pytest.raises(DeclarationError) as caught:
        read(text)
    assert caught.value.exit_code == 3
    lines = str(caught.value).splitlines()
    assert all(re.match(r"project\.yaml:\d+: ", line) for line in lines)
    return [line.removeprefix("project.yaml:") for line in lines]


def image(*lines: str) -> str:
    """A project whose one image has these lines, the first of which is line 5."""
    start = "lading: 1\nname: x\nbases: {b: {image: x}}\nimages: {i: {base: b,\n"
    return start + ",\n".join(lines) + "}}\n"


def test_everything(read: Load, root: Path) -> None:
    assert read(GOOD) == Project(
        root=root,
        name="python-containers",
        platform="linux/arm64",
        maintainer="Jane Doe <jane@example.org>",
        registry="localhost:5000/group",
        labels={"org.opencontainers.image.vendor": "Example HPC Centre"},
        bases={
            "debian-13": Base(
                name="debian-13",
                debian=DebianBase(suite="trixie", packages=("python3", "libstdc++6")),
            ),
            "slim": Base(name="slim", image="docker.io/library/python:3.9-slim"),
        },
        images={
            "astropy": Image(
                name="astropy",
                base="debian-13",
                version="1.10",
                description="Astronomy, in two lines",
                as_of=date(2021, 8, 15),
                pip=PipSection(
                    requirements="recipes/astropy/requirements.in",
                    constraints=("recipes/constraints.txt",),
                    no_binary=("mpi4py", ":all:"),
                    build_constraints=(
                        "setuptools<69",
                        "numpy >=1.20, <2 ; python_version < '3.10'",
                    ),
                ),
                env={"OMP_NUM_THREADS": "1", "LANG": "on", "EMPTY": "", "SPACE": "a\tb"},
                labels={"purpose": "test"},
                files={"/opt/data": "recipes/data", "/etc/motd": "recipes/motd"},
                run={"after-layers": ("echo one", "echo two")},
                cmd=("python3", "-i"),
                test=('python -c "import astropy"',),
                line=11,
            ),
            "bare": Image(
                name="bare",
                base="slim",
                default=False,
                as_of=date(2021, 8, 15),
                run={"before-layers": ("echo first",), "after-layers": ("echo last",)},
                line=29,
            ),
        },
    )


def test_the_least(read: Load, root: Path) -> None:
    least = Project(root=root, name="x")
    assert read("lading: 1\nname: x\n") == least
    assert read("\ufefflading: 1\r\nname: x\r\n") == least
    assert least.platform == "linux/amd64"


def test_the_root_has_no_symbolic_links(root: Path, tmp_path: Path) -> None:
    (root / "project.yaml").write_text(GOOD)
    (tmp_path / "link").symlink_to(root)
    assert load(tmp_path / "link/project.yaml").root == root.resolve()


def test_aliases_stand_for_their_values(read: Load) -> None:
    text = image("env: &e {A: &a x, B: *a}") + "labels: &l {k: v}\n"
    assert read(text).images["i"].env == {"A": "x", "B": "x"}


def test_all_problems_at_once_sorted_by_line(read: Load) -> None:
    text = """\
images:
  mpi4py:
    bsae: debian-13
    default: yes
    pip: {requirements: nowhere.in, no_binary: [mpi4py]}
  base: {base: debian-31}
  ../../x: {base: debian-13, base: debian-13}
bases:
  debian-13: {debian: {suite: trixie, packages: [Python]}, image: x}
name: Python
lading: 1
maintainer:
"""
    assert refused(read, text) == [
        "2: images.mpi4py: the key 'base' is missing: the name of the base it starts from",
        "3: images.mpi4py.bsae: unknown key (did you mean 'base'?)",
        "4: images.mpi4py.default: expected true or false, without quotes, not 'yes'",
        "5: images.mpi4py.pip.no_binary: unknown key (did you mean 'no-binary'?)",
        "5: images.mpi4py.pip.requirements: there is no file 'nowhere.in' in the project",
        "6: images.base: 'base' is reserved: tasks are called like that",
        "6: images.base.base: there is no base 'debian-31' (did you mean 'debian-13'?)",
        "7: images.../../x: expected the name of an image: small letters and digits, with '.', "
        "'_' or '-' between them, not '../../x'",
        "7: images.../../x.base: this key is given in line 7 already",
        "9: bases.debian-13: expected exactly one of the keys 'debian' or 'image'",
        "9: bases.debian-13.debian.packages[0]: expected the name of a Debian package: small "
        "letters, digits, '+', '-', '.', not 'Python'",
        "10: name: expected the name of the project: small letters and digits, with '.', '_' or "
        "'-' between them, not 'Python'",
        "12: maintainer: expected a text in one line, not nothing",
    ]


def test_a_newer_format_is_refused_for_that_alone(read: Load) -> None:
    (line,) = refused(read, "name: X\nnew: []\nlading: 2\n")
    assert line.startswith("3: lading: this lading is too old for version '2'")


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("version: -x", "5: images.i.version: expected a tag of an image"),
        ("version: [1]", "5: images.i.version: expected a tag of an image"),
        (f"version: {'1' * 129}", "5: images.i.version: expected at most 128 characters"),
        ("version: ~", "5: images.i.version: expected a tag"),
        ("description: ''", "5: images.i.description: expected a text, not ''"),
        ('description: "\\x1b[1m"', "not '\\x1b[1m'"),
        ("as-of: 2026-11-23", "5: images.i.as-of: expected today (2026-11-22) or a day before"),
        ("as-of: 2021-08-15 12:00:00", "5: images.i.as-of: expected a day"),
        ("as-of: 20210815", "5: images.i.as-of: expected a day"),
        ("env: {1A: x}", "5: images.i.env.1A: expected the name of an environment variable"),
        ('env: {A: "x\\ny"}', "5: images.i.env.A: expected a text in one line"),
        ('env: {A: "x\\0y"}', "5: images.i.env.A: expected a text in one line"),
        ("env: {A: }", '5: images.i.env.A: expected a text in one line ("" for an empty one)'),
        ("env: {A: {B: C}}", "5: images.i.env.A: expected a text"),
        ("env: [A=x]", "5: images.i.env: expected a mapping of environment variables, not a list"),
        ("labels: {-: x}", "5: images.i.labels.-: expected a label"),
        ("files: {opt/x: recipes/motd}", "5: images.i.files.opt/x: expected an absolute path"),
        ("files: {/: recipes/motd}", "5: images.i.files./: expected an absolute path"),
        ("files: {/a/../b: recipes/motd}", "5: images.i.files./a/../b: expected an absolute"),
        ("files: {/a//b: recipes/motd}", "5: images.i.files./a//b: expected an absolute path"),
        ("files: {/a/: recipes/motd}", "5: images.i.files./a/: expected an absolute path"),
        ("files: {/a: /etc/passwd}", "5: images.i.files./a: expected a path that stays inside"),
        ("files: {/a: recipes/out/passwd}", "a symbolic link that leads out of the project"),
        ("files: {/a: recipes/out}", "a symbolic link that leads out of the project"),
        ("pip: {}", "5: images.i.pip: the key 'requirements' is missing"),
        ("pip: requirements.in", "5: images.i.pip: expected a mapping with the key 'requi"),
        ("pip: {requirements: recipes/data}", "'recipes/data' is not a file"),
        (
            "pip: {requirements: recipes/motd, no-binary: [-r]}",
            "5: images.i.pip.no-binary[0]: expected the name of a Python package, not '-r'",
        ),
        (
            "pip: {requirements: recipes/motd, build-constraints: 'a @ file:///x'}",
            "5: images.i.pip.build-constraints: expected a package and its versions",
        ),
        ("run: {middle: [x]}", "5: images.i.run.middle: unknown key"),
        ("run: {before: [x]}", "unknown key (did you mean 'before-layers'?)"),
        ('run: ["a\\nUSER root"]', "5: images.i.run[0]: expected a command in one line"),
        ("test: ['']", "5: images.i.test[0]: expected a command"),
        ("test: {a: b}", "5: images.i.test: expected a command or a list of commands"),
        ("cmd: python3 -i", "5: images.i.cmd: expected a list, as [python3, -i]"),
        ("<<: {a: b}", "5: images.i.'<<': merge keys are not supported"),
        ("? [a]\n: b", "5: images.i: a key is a text here, not a mapping or a list"),
        ("brew: [x]", "5: images.i.brew: unknown key"),
    ],
)
def test_an_image_refused(read: Load, lines: str, problem: str) -> None:
    found = refused(read, image(lines))
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("bases: {b: {}}", "expected exactly one of the keys 'debian' or 'image'"),
        ("bases: {b: {debian: trixie}}", "expected a mapping with the keys 'suite'"),
        ("bases: {b: {debian: {suite: Trixie}}}", "expected the code name of a release"),
        ("bases: {b: {debian: {suite: sid, packages: [aa, aa]}}}", "'aa' is in the list already"),
        ("bases: {B: {image: x}}", "expected the name of a base"),
        (f"bases: {{{'b' * 65}: {{image: x}}}}", "expected at most 64 characters"),
        ("bases: [b]", "expected a mapping of bases"),
        ("bases: {b: {image: x}}\nimages: {source: {base: b}}", "'source' is reserved"),
        ("images: {a: {base: b}}", "there is no base 'b'"),
        ("images:", "expected a mapping of images, not nothing"),
        ("registry: https://example.org", "expected a registry without its scheme"),
        ("platform: linux/amd46", "(did you mean 'linux/amd64'?)"),
        ('maintainer: "a\\nb"', "expected a text in one line"),
    ],
)
def test_a_project_refused(read: Load, bad: str, problem: str) -> None:
    found = refused(read, f"lading: 1\nname: x\n{bad}\n")
    assert len(found) == 1
    assert found[0].startswith(f"{3 + bad.count(chr(10))}: ")
    assert problem in found[0]


@pytest.mark.parametrize(
    ("reference", "good"),
    [
        ("python", True),
        ("python:3.9-slim", True),
        ("example.org:5000/a/b__c:tag", True),
        ("[::1]:5000/a", True),
        (f"a/b@sha256:{'0' * 64}", True),
        (f"a/b:c@sha256:{'0' * 64}", True),
        (f"a/b@sha256:{'0' * 63}", False),
        ("Python", False),
        ("a b", False),
        ("a:", False),
        ("-a", False),
        ("https://example.org/a", False),
        ("a\\nRUN b", False),
        ("a." * 400, False),
    ],
)
def test_references_of_images(read: Load, reference: str, good: bool) -> None:
    text = f'lading: 1\nname: x\nbases: {{b: {{image: "{reference}"}}}}\n'
    if good:
        assert read(text).bases["b"].image == reference
    else:
        assert refused(read, text)[0].startswith("3: bases.b.image: expected")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "project.yaml:1: the file is empty"),
        (b"# later\n---\n", "project.yaml:1: the file is empty"),
        (b"lading: 1\nname: \xff\n", "project.yaml:2: this is not UTF-8 (byte 0xff)"),
        ("lading: 1".encode("utf-16"), "project.yaml:1: this is not UTF-8"),
        (b"lading: 1\nname: \0\n", "project.yaml:2: the character U+0000"),
        (b"lading: 1\n---\nlading: 1\n", "project.yaml:2: expected one document"),
        (b"lading: 1\n\tname: x\n", "project.yaml:2: this is not YAML"),
        (b"[" * 1_000_000, "project.yaml:1: nested more than 50 deep"),
        (b"{a: " * 500_000, "project.yaml:1: nested more than 50 deep"),
        (b"- 1\n", "project.yaml:1: expected a mapping with the keys 'lading', 'name'"),
        (b"? " + b"k" * 1_000_000 + b"\n: 1\n", "kkk\u2026': unknown key"),
        (b"#" * (2 << 20) + b"\n", "project.yaml is larger than 2 MiB"),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else "",
)
def test_no_project_at_all(root: Path, data: bytes, problem: str) -> None:
    (root / "project.yaml").write_bytes(data)
    with pytest.raises(DeclarationError) as caught:
        load(root / "project.yaml")
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 1000


class TestNoFile:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DeclarationError, match=r"there is no project\.yaml in"):
            load(tmp_path / "project.yaml")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DeclarationError, match="is not a file"):
            load(tmp_path)

    def test_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(DeclarationError, match="can't be read: Not a directory"):
            load(tmp_path / "file/project.yaml")

    @pytest.mark.timeout(10)
    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "project.yaml")
        with pytest.raises(DeclarationError, match="is not a file"):
            load(tmp_path / "project.yaml")

    def test_a_loop_of_links(self, tmp_path: Path) -> None:
        (tmp_path / "project.yaml").symlink_to("project.yaml")
        with pytest.raises(DeclarationError, match="can't be read"):
            load(tmp_path / "project.yaml")


def test_a_thousand_images_are_quick(root: Path) -> None:
    one = """\
  i{0}:
    base: b
    version: 1.{0}
    pip: {{requirements: recipes/astropy/requirements.in}}
    test:
      - python -c "import astropy"
"""
    text = "lading: 1\nname: x\nbases: {b: {image: x}}\nimages:\n"
    (root / "project.yaml").write_text(text + "".join(one.format(i) for i in range(1000)))
    times = []
    for _ in range(5):
        start = time.process_time()
        assert len(load(root / "project.yaml").images) == 1000
        times.append(time.process_time() - start)
    assert min(times) < 0.25


def test_the_import_is_light() -> None:
    heavy = "docker, requests, packaging, rich, subprocess, json, difflib, uv"
    code = f"import sys, lading.project; print(set('{heavy}'.split(', ')) & set(sys.modules))"
    env = os.environ | {"PYTHONPATH": str(Path(project.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    assert done.stdout == "set()\n"


def test_the_committed_schema_is_the_generated_one() -> None:
    committed = Path(project.__file__).with_name("project.schema.json")
    assert committed.read_text() == schema_text(), (
        "run: PYTHONPATH=scripts python -m lading.project > scripts/lading/project.schema.json"
    )


def fits(schema: dict[str, Any], value: Any) -> bool:
    """Whether a value fits a JSON schema, of which it knows the words that ours uses."""
    types: dict[str, type | tuple[type, ...]] = {
        "object": dict,
        "array": list,
        "string": str,
        "number": (int, float),
        "boolean": bool,
    }
    for word, rule in schema.items():
        match word:
            case "type":
                allowed = [rule] if isinstance(rule, str) else rule
                name = "boolean" if isinstance(value, bool) else None
                if name not in allowed and (
                    name or not any(isinstance(value, types[each]) for each in allowed)
                ):
                    return False
            case "const":
                good = value == rule
            case "enum":
                good = value in rule
            case "not":
                good = not fits(rule, value)
            case "if":
                good = fits(schema["then" if fits(rule, value) else "else"], value)
            case "anyOf":
                good = any(fits(each, value) for each in rule)
            case "oneOf":
                good = sum(fits(each, value) for each in rule) == 1
            case "pattern":
                good = not isinstance(value, str) or re.search(rule, value) is not None
            case "maxLength":
                good = not isinstance(value, str) or len(value) <= rule
            case "items":
                good = not isinstance(value, list) or all(fits(rule, each) for each in value)
            case "uniqueItems":
                good = not isinstance(value, list) or len(set(value)) == len(value)
            case "required":
                good = not isinstance(value, dict) or set(rule) <= set(value)
            case "propertyNames":
                good = not isinstance(value, dict) or all(fits(rule, str(each)) for each in value)
            case "properties":
                good = not isinstance(value, dict) or all(
                    fits(rule[key], each) for key, each in value.items() if key in rule
                )
            case "additionalProperties":
                known = schema.get("properties", {})
                others = [each for key, each in value.items() if key not in known]
                good = all(rule and fits(rule, each) for each in others)
            case "$schema" | "title" | "description" | "format" | "then" | "else":
                good = True
            case _:
                raise AssertionError(f"unknown word {word}")
        if word != "type" and not good:
            return False
    return True


class Editor(yaml.SafeLoader):
    """YAML as editors read it (1.2): days are texts, and so are `on` and `yes`."""


Editor.yaml_implicit_resolvers = {
    first: [
        (tag, re.compile("true|false", re.I) if tag.endswith(":bool") else pattern)
        for tag, pattern in resolvers
        if not tag.endswith(":timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "lading: 1\nname: 1\n",
        image("version: 4.3"),
        image("version: true"),
        image("test: [1, true, x]"),
        image("env: {A: 1.5}"),
        image("pip: {requirements: recipes/motd, no-binary: mpi4py}"),
        image("run: x"),
        image("cmd: []", "files: {}", "env: {}"),
        "lading: 1\nname: x\nbases: {b: {debian: {suite: sid}}}\n",
    ],
)
def test_what_is_accepted_fits_the_schema(read: Load, text: str) -> None:
    read(text)
    assert fits(json_schema(), yaml.load(text, Loader=Editor))


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "lading: 2\nname: x",
        "lading: 1",
        "lading: 1\nname: X",
        image("bsae: x"),
        image("default: 'true'"),
        image("version: -x"),
        image("as-of: 2021-8-15"),
        image("env: {1: x}"),
        image("run: {middle: x}"),
        image("test: ['']"),
        image("cmd: x"),
        image("files: {/a/../b: recipes/motd}"),
        image("files: {/a: ../x}"),
        image("pip: {requirements: recipes/motd, no-binary: [a, a]}"),
        "lading: 1\nname: x\nplatform: x",
        "lading: 1\nname: x\nbases: {b: {}}",
        "lading: 1\nname: x\nbases: {b: {image: x, debian: {suite: sid}}}",
        "lading: 1\nname: x\nbases: {b: {image: x}}\nimages: {base: {base: b}}",
    ],
)
def test_what_is_refused_for_its_form_does_not_fit_the_schema(read: Load, text: str) -> None:
    refused(read, text)
    assert not fits(json_schema(), yaml.load(text, Loader=Editor))


def test_a_command_whose_quote_does_not_close_is_refused(tmp_path: Path) -> None:
    """In a list in brackets YAML takes the comma for the end of the command."""
    text = (
        "lading: 1\nname: x\nbases: {b: {image: debian:13}}\nimages:\n  i:\n    base: b\n"
        '    test: [python -c "import a, b"]\n'
    )
    (tmp_path / "project.yaml").write_text(text)
    with pytest.raises(DeclarationError) as caught:
        load(tmp_path / "project.yaml")
    assert "project.yaml:7: images.i.test[0]" in str(caught.value)
    assert "a quote does not close" in str(caught.value)
    (tmp_path / "project.yaml").write_text(text.replace("import a, b", "import a; b = 'it''s'"))
    assert load(tmp_path / "project.yaml").images["i"].test


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["args: {PATH: x}", "run: [x]"], "5: images.i.args.PATH: expected the name of a variable"),
        (["args: {A: 'a\"b'}", "run: [x]"], "5: images.i.args.A: expected letters, digits"),
        (["args: {A: b}"], "4: images.i.args: nothing could use them: the image has no `run:`"),
        (["args: {A: b}", "run: [x]", "env: {A: c}"], "4: images.i.args.A: `env:` sets it"),
    ],
)
def test_arguments_that_can_not_be(read: Load, lines: list[str], problem: str) -> None:
    (found,) = refused(read, image(*lines))
    assert found.startswith(problem), found
