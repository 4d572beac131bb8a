"""`matrix:` of images and sources: what it expands to, what is refused, what doit makes of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from lading import compose, requirements
from lading.errors import DeclarationError
from lading.layers import conda
from lading.project import Project, load
from lading.schema import axes
from tests.support.projects import Trial
from tests.unit.test_dockerfile import ASTROPY, BASE, golden, on, pip_lock

HEAD = """\
lading: 1
name: x
bases:
  debian-12: {image: x}
  debian-13: {image: y}
images:
"""
# The first line of an image is line 7.

GOOD = """\
  mpi4py:
    matrix:
      mpi4py: [3.10, "4.1.0"]
      debian: [12, 13]
      name: mpi-{mpi4py}-on-{debian}
      exclude: [{mpi4py: 3.10, debian: 13}]
    base: debian-{debian}
    description: mpi4py {mpi4py}
    labels: {"org.example.{debian}": "{mpi4py} {{mpi4py}} ${mpi4py} {} {1: 2}"}
    env: {MPI4PY: "{mpi4py}"}
    pip: {requirements: "recipes/{debian}.in", build-constraints: ["mpi4py=={mpi4py}"]}
    test: ["python -c 'assert {mpi4py}'"]
  plain:
    base: debian-12
    description: with {braces} and {{more}}
"""

Load = Callable[[str], Project]


@pytest.fixture
def read(tmp_path: Path) -> Load:
    (tmp_path / "recipes").mkdir()
    for name in ("12.in", "13.in", "a.in"):
        (tmp_path / "recipes" / name).write_text("mpi4py\n")

    def read(text: str) -> Project:
        (tmp_path / "project.yaml").write_text(HEAD + text)
        return load(tmp_path / "project.yaml", today=date(2026, 11, 22))

    return read


def refused(read: Load, text: str) -> list[str]:
    """The problems, without the file's name."""
    with pytest.raises(DeclarationError) as caught:
        read(text)
    assert caught.value.exit_code == 3
    return [line.removeprefix("project.yaml:") for line in str(caught.value).splitlines()]


def test_a_matrix_is_an_image_for_each_combination(read: Load) -> None:
    images = read(GOOD).images
    assert list(images) == ["mpi-3.10-on-12", "mpi-4.1.0-on-12", "mpi-4.1.0-on-13", "plain"]
    one = images["mpi-3.10-on-12"]
    assert (one.name, one.base, one.description) == ("mpi-3.10-on-12", "debian-12", "mpi4py 3.10")
    assert one.labels == {"org.example.12": "3.10 {mpi4py} ${mpi4py} {} {1: 2}"}
    assert one.env == {"MPI4PY": "3.10"}
    assert one.test == ("python -c 'assert 3.10'",)
    assert one.pip is not None
    assert one.pip.requirements == "recipes/12.in"
    assert one.pip.build_constraints == ("mpi4py==3.10",)
    assert (one.matrix, one.variant_of) == ({"mpi4py": "3.10", "debian": "12"}, "mpi4py")
    assert images["plain"].description == "with {braces} and {{more}}"
    assert images["plain"].matrix == {}


VALUES = [str(number) for number in range(12)] + ["1.0", "a", "b-c", "5.10"]


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.lists(st.sampled_from(VALUES), min_size=1, max_size=4, unique=True),
        min_size=1,
        max_size=4,
    ),
    st.data(),
)
def test_there_are_as_many_as_there_are_combinations(
    read: Load, values: list[list[str]], data: st.DataObject
) -> None:
    names = [f"axis{number}" for number in range(len(values))]
    every = list(product(*values))
    out = data.draw(st.lists(st.sampled_from(every), unique=True, max_size=len(every) - 1))
    text = "  i:\n    base: debian-12\n    matrix:\n"
    text += "".join(
        f"      {n}: [{', '.join(map(repr, v))}]\n" for n, v in zip(names, values, strict=True)
    )
    if out:
        text += "      exclude:\n"
        for row in out:
            pairs = ", ".join(f"{n}: '{v}'" for n, v in zip(names, row, strict=True))
            text += f"        - {{{pairs}}}\n"
    text += f"    description: '{' '.join(f'{{{name}}}' for name in names)}'\n"
    images = read(text).images
    left = [row for row in every if row not in out]
    assert [tuple(image.matrix.values()) for image in images.values()] == left
    assert list(images) == [f"i-{'-'.join(row)}" for row in left]
    assert [image.description for image in images.values()] == [" ".join(row) for row in left]


@pytest.mark.parametrize(
    ("lines", "problems"),
    [
        (
            "matrix: {a: []}",
            ["8: images.i.matrix.a: an axis without values: there would be no variant at all"],
        ),
        ("matrix: {exclude: []}", ["8: images.i.matrix: it has no axis"]),
        (
            "matrix: {a: [1, 1], 2: x, b: [~]}",
            [
                "8: images.i.matrix.a[1]: '1' is in the list already",
                "8: images.i.matrix.2: expected the name of an axis",
                "8: images.i.matrix.b[0]: expected a value",
            ],
        ),
        (
            "matrix:\n      a: [1]\n      unused: [2]\n    env: {A: '{a}'}",
            ["10: images.i.matrix.unused: nothing but the name has '{unused}' in it"],
        ),
        (
            "matrix:\n      version: [1,\n        B]\n    env: {A: '{version} {versoin}'}",
            [
                "10: images.i.matrix.version[1]: expected the name of an image",
                "11: images.i.env.A: there is no axis 'versoin' (did you mean 'version'?)",
            ],
        ),
        (
            "matrix:\n      a: [1, 2]\n      name: fixed\n    env: {A: '{a}'}",
            ["10: images.i.matrix.name: two variants are called 'fixed': a=1 and a=2"],
        ),
        (
            "matrix:\n      a: [1, 2]\n      name: i-{b}\n    env: {A: '{a}'}",
            ["10: images.i.matrix.name: there is no axis 'b'"],
        ),
        (
            "matrix: {a: [1, 2]}\n    env: {A: '{a}'}\n  i-2: {base: debian-12}",
            ["8: images.i.matrix: the variant a=2 would be called 'i-2', and so is what line 11"],
        ),
        (
            "matrix:\n      a: [1, 2]\n      exclude: [{a: 3}, {b: 1}, {a: 1}, {a: 1}, {a: 2}]\n"
            "    env: {A: '{a}'}",
            [
                "10: images.i.matrix.exclude[0].a: '3' is no value of a: it fits nothing",
                "10: images.i.matrix.exclude[1].b: there is no axis 'b'",
                "10: images.i.matrix.exclude[3]: it leaves out nothing",
                "10: images.i.matrix.exclude: it leaves out every combination",
            ],
        ),
        (
            "matrix: {a: [12, 14]}\n    base: debian-{a}",
            ["9: images.i.base: there is no base 'deb"],
        ),
        ("matrix: {a: [1, 2]}\n    version: {a}", ["9: images.i.version: for YAML {a} is a mapp"]),
        (
            "matrix: {a: [1, 2, 3]}\n    bsae: x\n    test: ['{a} \"']",
            [
                "9: images.i.bsae: unknown key (did you mean 'base'?)",
                *(f"10: images.i.test[0]: '{one} \"': a quote does not close" for one in "123"),
            ],
        ),
        (
            "matrix: {a: [1, 2, 3]}\n    test: ['{a}', '\"']",
            ["9: images.i.test[1]: '\"': a quote does not close"],
        ),
        (
            f"matrix: {{{', '.join(f'a{n}: [1, 2, 3, 4, 5, 6, 7, 8, 9]' for n in range(9))}}}",
            ["8: images.i.matrix: more than 5,000 variants"],
        ),
        (
            "matrix: {a: [1]}\n    matrix: {b: [1]}\n    env: {A: '{a}'}",
            ["9: images.i.matrix: this key is given in line 8 already"],
        ),
        ("matrix: 3", ["8: images.i.matrix: expected a mapping from axes to their values"]),
    ],
)
def test_what_is_refused_with_its_line_and_once(
    read: Load, lines: str, problems: list[str]
) -> None:
    base = "" if "base:" in lines.partition("  i-2")[0] else "    base: debian-12\n"
    first, _, rest = lines.partition("\n  i-2")
    text = f"  i:\n    {first}\n{base}" + (f"  i-2{rest}\n" if rest else "")
    found = refused(read, text)
    assert len(found) == len(problems), found
    for said, expected in zip(found, problems, strict=True):
        assert said.startswith(expected), found


def test_a_requirement_file_has_a_variants_values(read: Load, tmp_path: Path) -> None:
    (tmp_path / "recipes/a.in").write_text(
        "# {nobody} minds\nmpi4py=={mpi4py}; python_version < '4'\n-r b-{mpi4py}.in\n"
    )
    (tmp_path / "recipes/b-1.in").write_text("one\n")
    (tmp_path / "recipes/b-2.in").write_text("two[{mpi4py}]\n")
    text = (
        "  i:\n    matrix: {mpi4py: [1, 2]}\n    base: debian-12\n"
        "    pip: {requirements: recipes/a.in}\n"
    )
    two = read(text).images["i-2"]
    found = requirements.read(tmp_path, "recipes/a.in", values=two.matrix)
    assert [line.text for line in found.lines] == [
        "mpi4py==2; python_version < '4'",
        "-r b-2.in",
        "two[2]",
    ]
    # Of an image without a matrix nothing is filled in.
    (tmp_path / "recipes/a.in").write_text("mpi4py=={mpi4py}\n")
    plain = requirements.read(tmp_path, "recipes/a.in", values={})
    assert plain.files["recipes/a.in"] == b"mpi4py=={mpi4py}\n"


def test_a_word_in_a_requirement_file_that_is_no_axis(read: Load, tmp_path: Path) -> None:
    (tmp_path / "recipes/a.in").write_text("x\n-r b.in\n")
    (tmp_path / "recipes/b.in").write_text("\nmpi4py=={mpi4yp}\n")
    text = (
        "  i:\n    matrix: {mpi4py: [1, 2]}\n    base: debian-12\n    env: {A: '{mpi4py}'}\n"
        "    pip: {requirements: recipes/a.in}\n"
    )
    (problem,) = refused(read, text)
    assert problem.startswith(
        "7: images.i: recipes/b.in:2: there is no axis 'mpi4yp' (did you mean 'mpi4py'?)"
    )


@pytest.mark.parametrize(
    ("section", "files"),
    [
        (
            "pip: {requirements: a.in}",
            {"a.in": "-r b-{mpi4py}.in\n", "b-1.in": "x\n", "b-2.in": "x=={v}\n"},
        ),
        (
            "conda: {file: e.yaml}",
            {
                "e.yaml": "channels: [a]\ndependencies:\n- python\n- pip: ['-r z.in']\n",
                "z.in": "x=={mpi4py}.{v}\n",
            },
        ),
        (
            "conda: {file: r/e.yml}",
            {"r/e.yml": "dependencies:\n  - pip:\n    - -r ../z.in\n", "z.in": "x=={mpi4py}.{v}\n"},
        ),
    ],
    ids=["at the root", "environment.yaml", "in a folder"],
)
def test_an_axis_may_be_in_an_included_file_alone(
    read: Load, tmp_path: Path, section: str, files: dict[str, str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    image = f"  i:\n    matrix: {{mpi4py: [1, 2], v: 3}}\n    base: debian-12\n    {section}\n"
    assert list(read(image).images) == ["i-1-3", "i-2-3"]


def test_environment_yaml_has_a_variants_values(tmp_path: Path, read: Load) -> None:
    (tmp_path / "recipes/e.yaml").write_text(
        "channels: [a]\ndependencies:\n- numpy={numpy}\n- pip: ['x=={numpy}']\n"
    )
    text = (
        "  i:\n    matrix: {numpy: [1, 2]}\n    base: debian-12\n"
        "    conda: {file: recipes/e.yaml}\n"
    )
    image = read(text).images["i-2"]
    assert image.conda is not None
    wanted = conda.read_wanted(tmp_path, image.name, image.conda, values=image.matrix)
    assert [spec.text for spec in wanted.specs] == ["numpy=2"]
    assert [line for line, _ in wanted.pip] == ["x==2"]


def test_sources_have_a_matrix_too(read: Load, tmp_path: Path) -> None:
    source = (
        "    version: '{version}'\n    urls: ['https://x/m-{version}.tar.gz']\n"
        "    configure: --with={device}\n"
    )
    text = (
        "  i:\n    matrix: {mpich: [4.0, 4.1]}\n    base: debian-12\n"
        "    source: ['mpich-{mpich}-ch3']\nsources:\n  mpich:\n    matrix: "
        "{version: [4.0, 4.1], device: ch3}\n" + source
    )
    project = read(text)
    assert list(project.sources) == ["mpich-4.0-ch3", "mpich-4.1-ch3"]
    one = project.sources["mpich-4.1-ch3"]
    assert (one.name, one.version, one.urls, one.configure) == (
        "mpich-4.1-ch3",
        "4.1",
        ("https://x/m-4.1.tar.gz",),
        "--with=ch3",
    )
    assert [image.source for image in project.images.values()] == [
        ("mpich-4.0-ch3",),
        ("mpich-4.1-ch3",),
    ]
    # {version} means the version also where it is no axis.
    assert read(
        text.replace("version: [4.0, 4.1]", "v: [4.0, 4.1]").replace("'{version}'", "'{v}'")
    ).sources["mpich-4.1-ch3"].urls == ("https://x/m-{version}.tar.gz",)
    assert refused(read, text.replace("mpich-{mpich}-ch3", "mpich-{mpich}")) == [
        "10: images.i.source[0]: there is no source 'mpich-4.0' (did you mean 'mpich-4.0-ch3'?)",
        "10: images.i.source[0]: there is no source 'mpich-4.1' (did you mean 'mpich-4.1-ch3'?)",
    ]
    # A matrix that can't be read says nothing of the names that others use.
    assert len(refused(read, text.replace("device: ch3", "device: []"))) == 1


@given(st.text(alphabet="ab{}$ ", max_size=30))
def test_what_is_filled_in_has_no_axis_left_and_the_rest_stays(text: str) -> None:
    found = axes.filled(text, {"a": "1", "b": "2"})
    if not list(axes.words(text)) and "{{" not in text:
        assert found == text
    assert axes.filled_bytes(text.encode(), {"a": "1", "b": "2"}) == found.encode()
    assert axes.filled(text, {}) == text


YAML = """\
lading: 1
name: trial
bases:
  slim: {image: docker.io/library/python:3.13-slim}
images:
  a:
    matrix: {a: ["1.0", "2.0"]}
    base: slim
    pip: {requirements: recipes/one.in}
    labels: {org.example.a: "{a}"}
  other:
    base: slim
"""


def test_the_variants_are_made_together_or_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = Trial.make(tmp_path / "project", YAML)
    assert trial.key("a-1.0") != trial.key("a-2.0")
    assert trial.doit("archive:a-1.0") == 0
    assert [path.name for path in sorted(trial.root.glob("dist/*.tar"))] == ["a-1.0.tar"]
    assert trial.doit("archive:a") == 0
    made = [path.name for path in sorted(trial.root.glob("dist/*.tar"))]
    assert made == ["a-1.0.tar", "a-2.0.tar"]
    assert trial.doit("build:a-*") == 0
    # In the group of all, each is once.
    assert trial.doit() == 0
    assert len(list(trial.root.glob("dist/*.tar"))) == 3
    capsys.readouterr()
    assert trial.doit("a") == 3
    assert "did you mean archive:a?" in capsys.readouterr().err


def test_asked_for_by_the_name_of_the_matrix_it_is_asked_for_by_name(tmp_path: Path) -> None:
    trial = Trial.make(tmp_path / "project", YAML)
    assert trial.doit("archive:a") == 0
    for name in ("a-1.0", "a-2.0"):
        trial.engine.remove(trial.state().name(trial.image(name)))
    assert trial.doit("archive:a") == 0
    assert not trial.holds("a-1.0")
    # Now it is wanted in the engine, and loaded from the archive.
    assert trial.doit("build:a") == 0
    assert trial.holds("a-1.0")
    assert trial.holds("a-2.0")


VARIANT = """\
  astropy:
    matrix: {astropy: ["5.3", "6.0"], site: [north]}
    base: debian-13
    description: astropy {astropy}, for {site}
    labels: {org.example.site: "{site}"}
    env: {SITE: "{site}"}
    args: {THREADS: 4}
    pip: {requirements: "recipes/a.in"}
    run: {after-layers: ["echo {astropy} $THREADS >/opt/made"]}
    test: ["python -c 'import astropy'"]
"""


def test_the_dockerfile_of_a_variant(read: Load) -> None:
    declared = read(VARIANT)
    image = declared.images["astropy-5.3-north"]
    base = replace(BASE, digest="sha256:" + "f" * 64, debs=(), suite="")
    locked = on(base, pip_lock(ASTROPY))
    golden("variant.Dockerfile", compose.plan(declared, image, locked).text("k"))
