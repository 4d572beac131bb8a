"""environment.yaml and lists of packages, as people have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.conda.environment import Spec, channels_of, checked, parse
from lading.errors import DeclarationError

YAML = """\
name: lab
channels:
  - conda-forge
  - lab/extra
  - nodefaults
dependencies:
  - python=3.12
  - numpy>=1.26,<2   # not yet
  - bioconda::samtools =1.19
  - scipy=1.15.0=py313hf8f2a0b_0
  - pip
  - pip:
      - astropy==6.0
      - -r more.txt
variables:
  OMP_NUM_THREADS: 1
prefix: /home/me/miniconda3/envs/lab
"""


def test_environment_yaml() -> None:
    found = parse("recipes/x/environment.yaml", YAML)
    assert [channel for channel, _ in found.channels] == ["conda-forge", "lab/extra"]
    assert [spec.text for spec in found.specs] == [
        "python=3.12",
        "numpy>=1.26,<2",
        "bioconda::samtools =1.19",
        "scipy=1.15.0=py313hf8f2a0b_0",
        "pip",
    ]
    assert found.specs[1].where == "recipes/x/environment.yaml:8"
    assert found.pip == (
        ("astropy==6.0", "recipes/x/environment.yaml:13"),
        ("-r more.txt", "recipes/x/environment.yaml:14"),
    )
    assert found.variables == {"OMP_NUM_THREADS": "1"}
    assert found.ignored == (
        "recipes/x/environment.yaml:1: name: ignored; the image's name counts",
        "recipes/x/environment.yaml:17: prefix: ignored; `prefix:` in project.yaml counts",
    )
    names, urls = channels_of(found)
    assert names == ("conda-forge", "lab/extra", "bioconda")
    assert urls == {}


def test_a_list() -> None:
    found = parse("recipes/x/conda.in", "# mine\npython=3.12\n\nnumpy   # any\n'scipy'\n"[:-9])
    assert found.specs == (
        Spec(text="python=3.12", where="recipes/x/conda.in:2"),
        Spec(text="numpy", where="recipes/x/conda.in:4"),
    )


@pytest.mark.parametrize(
    ("text", "name", "channel", "rest"),
    [
        ("numpy", "numpy", "", "numpy"),
        ("NumPy >=1.2", "numpy", "", "NumPy >=1.2"),
        ("lab/main::tool=2", "tool", "lab/main", "tool=2"),
        ("http://127.0.0.1:80/lab::tool[build=0]", "tool", "http://127.0.0.1:80/lab", None),
        ("tool!=1", "tool", "", "tool!=1"),
    ],
)
def test_the_parts_of_a_spec(text: str, name: str, channel: str, rest: str | None) -> None:
    spec = checked(text, "here:1")
    assert (spec.name, spec.channel) == (name, channel)
    assert rest is None or spec.rest == rest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a]", "environment.yaml:1: expected a mapping"),
        ("dependencies: python", "environment.yaml:1: expected a list of packages"),
        ("dependencies:\n- a\n- [b]", "environment.yaml:3: expected a package"),
        ("dependencies:\n- npm: [b]", "environment.yaml:2: expected a package, or the key 'pip'"),
        ("dependencies:\n- pip: b", "environment.yaml:2: expected a list of requirements"),
        ("channels: {a: b}", "environment.yaml:1: expected a list of channels"),
        ("dependencies:\n- https://x.example/a-1-0.conda", "environment.yaml:2: "),
        ("dependencies:\n- ./a.conda", "names a file, not a package"),
        ("variables: {1a: b}", "no name of a variable"),
        ("a: [", "environment.yaml:1"),
    ],
)
def test_what_can_not_be_meant(text: str, said: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        parse("environment.yaml", text)
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["@EXPLICIT\n", "file:///a/b-1-0.conda\n", "::numpy\n", "=3\n"])
def test_lines_that_are_no_package(text: str) -> None:
    with pytest.raises(DeclarationError, match=r"^conda\.in:1: "):
        parse("conda.in", text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for path in ("x.yaml", "x.in"):
        try:
            parse(path, text)
        except DeclarationError as error:
            assert str(error).startswith("x.")


def test_channels_by_url_get_a_name() -> None:
    found = parse(
        "e.yaml",
        "channels: ['https://conda.example.org/t/lab/', conda-forge]\ndependencies: [a]",
    )
    with pytest.raises(DeclarationError, match=r"e\.yaml:1: a channel's URL with a password"):
        channels_of(found)
    found = parse("e.yaml", "channels: ['https://conda.example.org/our/lab/']\n")
    assert channels_of(found) == (("lab",), {"lab": "https://conda.example.org/our/lab"})


@pytest.mark.parametrize(
    ("channels", "said"),
    [
        ("[lab, 'https://x.example/lab']", "two channels called lab"),
        ("['https://x.example/lab', 'https://y.example/lab']", "two channels called lab"),
        ("['https://me:secret@x.example/lab']", "a channel's URL with a password"),
        ("['a b']", "'a b' is no channel"),
        ("['../lab']", "'../lab' is no channel"),
    ],
)
def test_channels_that_can_not_be_meant(channels: str, said: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        channels_of(parse("e.yaml", f"channels: {channels}\n"))
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)
