"""A new entry in project.yaml: whatever the file looks like, all else stays byte for byte."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from lading.errors import DeclarationError
from lading.new.insertion import inserted
from lading.project import Image, Project, load

IMAGE: dict[str, Any] = {
    "description": "mine: a 'first' one",
    "default": False,
    "base": "slim",
    "as-of": date(2021, 8, 15),
    "apt": {"build": ["gcc"], "run": ["libgomp1", "bc"]},
    "env": {"A": "1.10", "B": "no", "C": "", "D": "~"},
    "test": ['python -c "import a, b"', "true # no comment"],
}
HEAD = "lading: 1\nname: trial\nbases:\n  slim: {image: docker.io/library/python:3.13-slim}\n"


def project(folder: Path, text: str) -> Project:
    path = folder / "project.yaml"
    path.write_bytes(text.encode())
    return load(path)


def images(found: Project) -> dict[str, Image]:
    """The images without their lines."""
    return {name: replace(image, line=0) for name, image in found.images.items()}


def untouched(old: str, new: str) -> bool:
    """Whether the new text is the old one with something put in at one place."""
    pairs = enumerate(zip(old, new, strict=False))
    before = next((index for index, (a, b) in pairs if a != b), len(old))
    return new.endswith(old[before:])


def in_order(old: str, new: str) -> bool:
    """Whether all characters of the old text are in the new one, in their order."""
    rest = iter(new)
    return all(char in rest for char in old)


# -- where it goes --------------------------------------------------------------------------

SHORT = {"base": "slim", "test": ["a b"]}
AS_BLOCK = "mine:\n    base: slim\n    test:\n      - a b\n"
PLACES = {
    "behind the last, before the next section": (
        "images:\n  a:\n    base: slim\n\n# The last section.\nlabels: {}\n",
        "images:\n  a:\n    base: slim\n\n  mine:\n    base: slim\n    test:\n      - a b\n"
        "\n# The last section.\nlabels: {}\n",
    ),
    "as close as the others": (
        "images:\n  a: {base: slim}\n  b: {base: slim}  # b\n",
        "images:\n  a: {base: slim}\n  b: {base: slim}  # b\n"
        "  mine:\n    base: slim\n    test:\n      - a b\n",
    ),
    "behind the comments that belong to the last": (
        "images:\n  a: {base: slim}\n    # of a\n  # b: {base: slim}\n"
        "# of what follows\nlabels: {}",
        "images:\n  a: {base: slim}\n    # of a\n  # b: {base: slim}\n"
        "  mine:\n    base: slim\n    test:\n      - a b\n# of what follows\nlabels: {}",
    ),
    "indented as the rest": (
        "images:\n    a: {base: slim}",
        "images:\n    a: {base: slim}\n    mine:\n        base: slim\n        test:\n"
        "            - a b\n",
    ),
    "into nothing": (
        "images: {}  # none yet\nlabels: {}\n",
        "images:  # none yet\n  mine:\n    base: slim\n    test:\n      - a b\nlabels: {}\n",
    ),
    "into null": (
        "images:\n  # none yet\n",
        "images:\n  # none yet\n  mine:\n    base: slim\n    test:\n      - a b\n",
    ),
    "into a section of its own": (
        "labels: {}\n",
        "labels: {}\n\nimages:\n  mine:\n    base: slim\n    test:\n      - a b\n",
    ),
    "before the end of the document": (
        "labels: {}\n...\n",
        "labels: {}\n\nimages:\n  mine:\n    base: slim\n    test:\n      - a b\n...\n",
    ),
    "into braces": (
        "images: {a: {base: slim}}\n",
        "images: {a: {base: slim}, mine: {base: slim, test: [a b]}}\n",
    ),
    "behind a last comma": (
        "images: {a: {base: slim}, }\n",
        "images: {a: {base: slim}, mine: {base: slim, test: [a b]} }\n",
    ),
    "into braces with a line for each": (
        "images: {\n  a: {base: slim}  # a, not b\n}\n",
        "images: {\n  a: {base: slim},  # a, not b\n  mine: {base: slim, test: [a b]}\n}\n",
    ),
    "behind a block of text": (
        "images:\n  a:\n    base: slim\n    description: >\n      a\n      b\n\n\nlabels: {}\n",
        "images:\n  a:\n    base: slim\n    description: >\n      a\n      b\n\n"
        "  mine:\n    base: slim\n    test:\n      - a b\n\n\nlabels: {}\n",
    ),
    "behind empty lines that count": (
        "images:\n  a:\n    base: slim\n    description: |+\n      a\n\n\nlabels: {}\n",
        "images:\n  a:\n    base: slim\n    description: |+\n      a\n\n\n"
        "  mine:\n    base: slim\n    test:\n      - a b\nlabels: {}\n",
    ),
    "behind an alias": (
        "images:\n  a: &a {base: slim}\n  b: *a\n",
        "images:\n  a: &a {base: slim}\n  b: *a\n"
        "  mine:\n    base: slim\n    test:\n      - a b\n",
    ),
    "where tabs stand between things": (
        "images:\t# all\n  a:\t{base:\tslim}\t# a\n",
        "images:\t# all\n  a:\t{base:\tslim}\t# a\n"
        "  mine:\n    base: slim\n    test:\n      - a b\n",
    ),
    "behind a key with a question mark": (
        "images:\n  ? a\n  : base: slim\n",
        "images:\n  ? a\n  : base: slim\n\n  mine:\n    base: slim\n    test:\n      - a b\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("place", PLACES)
def test_where_it_goes(tmp_path: Path, place: str, mark: str, newline: str) -> None:
    old, expected = (mark + (HEAD + text).replace("\n", newline) for text in PLACES[place])
    new = inserted(old, "images", "mine", SHORT)
    assert new == expected
    assert project(tmp_path, new).images["mine"].test == ("a b",)


def test_all_values_come_back_as_they_were(tmp_path: Path) -> None:
    mine = project(tmp_path, inserted(HEAD, "images", "mine", IMAGE)).images["mine"]
    assert (mine.description, mine.default) == (IMAGE["description"], False)
    assert mine.as_of == IMAGE["as-of"]
    assert mine.env == IMAGE["env"]
    assert list(mine.test) == IMAGE["test"]
    assert mine.apt is not None and mine.apt.run == ("libgomp1", "bc")


def test_a_base_is_one_line_beside_the_others(tmp_path: Path) -> None:
    text = HEAD + "\nimages: {}\n"
    new = inserted(text, "bases", "other", {"image": "a/b:1"}, one_line=True)
    assert new == HEAD + "  other: {image: 'a/b:1'}\n\nimages: {}\n"


@pytest.mark.parametrize(
    "images",
    [
        "images: &x {a: {base: slim}}\nlabels: *x\n",  # what is added would be there twice
        "labels: &x {}\nimages: *x\n",
        "images: [a]\n",
        "images: word\n",
    ],
)
def test_what_nothing_can_be_added_to_is_refused_with_what_to_write(images: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        inserted(HEAD + images, "images", "mine", SHORT)
    assert "nothing can be added" in str(caught.value)
    assert "mine:\n" in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "a\n", "- a\n", "a: [\n", "a: 1\n---\nb: 2\n"])
def test_what_is_no_project_is_refused(text: str) -> None:
    with pytest.raises(DeclarationError):
        inserted(text, "images", "mine", SHORT)


# -- any project ----------------------------------------------------------------------------

COMMENTS = st.sampled_from(["", "", "# a: {b}", "#", "# 'x", "# mine:"])
LINES = st.lists(COMMENTS, max_size=3)
VALUES = st.one_of(
    st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1),
    st.sampled_from(["a: b", "- a", "#x", "{a}", "*a", "1.10", "null x", "'", '"', "x\\y"]),
).filter(lambda text: bool(text.strip()) and not any(c in text for c in "\u2028\u2029\x85"))


@st.composite
def entries(draw: st.DrawFn, name: str, step: int) -> list[str]:
    """An image in lines of its own, as somebody might have written it."""
    description = draw(VALUES).replace("'", "''")
    flow = f"{name}: {{base: slim, description: '{description}'}}"
    block = [
        f"{name}:" + draw(st.sampled_from(["", "  # here", " &anchor"])),
        " " * step + "base: slim" + draw(st.sampled_from(["", " # base"])),
    ]
    if draw(st.booleans()):
        header = draw(st.sampled_from(["|", ">", "|-", ">+", "|+", "|2-"]))
        inside = " " * (step + 2 if header == "|2-" else 2 * step)
        block += [
            f"{' ' * step}description: {header}",
            f"{inside}one",
            *[""] * draw(st.integers(0, 2)),
        ]
    if draw(st.booleans()):
        block += [" " * step + "test:", *[" " * step + "- echo"] * draw(st.integers(1, 2))]
    if draw(st.booleans()):
        block += [" " * step + "env: {A: b,", " " * step + "  C: d}"]
    return draw(st.sampled_from([[flow], block]))


@st.composite
def projects(draw: st.DrawFn) -> str:
    """The text of a valid project.yaml."""
    step = draw(st.integers(1, 4))
    parts = [
        ["lading: 1"],
        ["name: trial"],
        ["bases:", " " * step + "slim: {image: docker.io/library/python:3.13-slim}"],
    ]
    kind = draw(st.sampled_from(["block", "block", "flow", "empty", "missing"]))
    if kind == "block":
        lines = ["images:" + draw(st.sampled_from(["", "  # all"]))]
        for name in draw(st.sampled_from([["a"], ["a", "b"], ["c", "a", "b"]])):
            lines += [" " * draw(st.integers(0, 6)) + text for text in draw(LINES) if text]
            lines += [" " * step + line if line else "" for line in draw(entries(name, step))]
            lines += draw(st.sampled_from([[], [""]]))
        parts.append(lines)
    elif kind == "flow":
        comma, end = draw(st.sampled_from(["", ","])), draw(st.sampled_from(["}", " }", "\n  }"]))
        parts.append(["images: {a: {base: slim}, b: {base: slim}" + comma + end])
    elif kind == "empty":
        parts.append([draw(st.sampled_from(["images: {}", "images: {} # none", "images: { }"]))])
    draw(st.randoms()).shuffle(parts)
    lines = []
    for part in parts:
        lines += [*draw(LINES), *part]
    lines += draw(st.sampled_from([[], ["..."], ["# end"], ["", ""]]))
    start = draw(st.sampled_from(["", "---\n", "\ufeff"]))
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    text = "\n".join(lines) + draw(st.sampled_from(["", "\n"]))
    return start + text.replace("\n", newline)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(text=projects())
@example(text=HEAD + "images:\n  a: {base: slim}\n  # b\n\n\n# c")
def test_any_project(tmp_path: Path, text: str) -> None:
    before = images(project(tmp_path, text))
    new = inserted(text, "images", "mine", IMAGE)
    after = images(project(tmp_path, new))
    assert list(after) == [*before, "mine"]
    assert {name: after[name] for name in before} == before
    assert after["mine"].env == IMAGE["env"]
    if "images: {" in text:
        assert in_order(text.replace("{}", "").replace("images: ", "images:"), new)
    else:
        assert untouched(text, new)
    again = inserted(new, "images", "more", SHORT)
    assert list(project(tmp_path, again).images) == [*before, "mine", "more"]
