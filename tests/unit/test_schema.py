"""Trees of nodes, and the kinds that read them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from lading.schema import nodes
from lading.schema.nodes import ListNode, MapNode, ScalarNode, UnreadableError, read
from lading.schema.problems import Place, RejectedError, Report, quoted, written
from lading.schema.scalars import Boolean, Choice, Day, ProjectPath, Reference, Text, Version
from lading.schema.shapes import Converted, Either, Field, Kind, List, Map, Record

WORD = Text(pattern="[a-z]+", expected="a word")
TODAY = date(2026, 11, 22)


def parse(kind: Kind[Any], text: str, root: Path = Path("/nonexistent")) -> Any:
    """The data of a text, or its problems as lines `LINE: PATH: MESSAGE`."""
    report = Report(root=root, today=TODAY)
    tree = read(text)
    assert tree is not None
    result = None
    try:
        result = kind.parse(tree, Place(report, tree.line))
    except RejectedError:
        assert report.problems
    report.settle()
    return written(report.problems, "f").replace("f:", "") if report.problems else result


@pytest.fixture(params=["c", "python"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of PyYAML's parsers: the one in C is not everywhere."""
    if request.param == "python":
        monkeypatch.setattr(nodes, "LOADER", yaml.SafeLoader)
    else:
        assert nodes.LOADER is not yaml.SafeLoader, "PyYAML without libyaml is slow"


@pytest.mark.usefixtures("loader")
class TestRead:
    def test_a_tree(self) -> None:
        tree = read("a: [x, 'null', ~]\nb:\n  c: 1.10\n")
        assert isinstance(tree, MapNode)
        (_, a), (_, b) = tree.pairs
        assert isinstance(a, ListNode)
        assert [item.null for item in a.items if isinstance(item, ScalarNode)] == [
            False,
            False,
            True,
        ]
        assert isinstance(b, MapNode)
        assert b.pairs == [(ScalarNode("c", True, 3), ScalarNode("1.10", True, 3))]

    def test_an_alias_is_its_anchor_at_the_alias_line(self) -> None:
        assert read("- &a x\n- *a\n") == ListNode(
            [ScalarNode("x", True, 1), ScalarNode("x", True, 2)], 1
        )

    @pytest.mark.parametrize("text", ["", "# nothing\n", "\n\n"])
    def test_no_document(self, text: str) -> None:
        assert read(text) is None

    @pytest.mark.parametrize(
        ("text", "line", "message"),
        [
            ("[" * 1_000_000, 1, "more than 50 deep"),
            ("- " * 1_000_000, 1, "more than 50 deep"),
            ("{a: " * 1_000_000, 1, "more than 50 deep"),
            ("a: &a [*a]", 1, "stands inside what it names"),
            ("a: 1\nb: *nobody", 2, "no anchor '&nobody'"),
            ("a: 1\n---\nb: 2\n", 2, "another"),
            ("a:\n\t- b\n", 2, "never with tabs"),
            ("a: !!python/object:os.system x", 1, "!!python/object:os.system"),
            ("a: !!set {}", 1, "!!set"),
            ("%TAG !a! x\n---\na: 1", 1, "%TAG"),
            ("a: b\nc: \0", 2, "U+0000"),
            ("a: b\nc: \x1b[31m", 2, "U+001B"),
            ('a: "\\ud800"', 1, ""),
            ('a: "\\UFFFFFFFF"', 1, "not YAML"),
            ("a: [", 1, "not YAML"),
            ("a: [\n", 1, "not YAML"),
            ("a: [\nb\n", 2, "not YAML"),
            ("a: 'b", 1, "not YAML"),
            ("a: b: c", 1, "not YAML"),
        ],
    )
    def test_what_is_refused(self, text: str, line: int, message: str) -> None:
        with pytest.raises(UnreadableError) as caught:
            read(text)
        assert message in caught.value.message
        assert caught.value.line == line

    def test_an_alias_bomb(self) -> None:
        bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
        for last, name in zip("abcdefghi", "bcdefghij", strict=True):
            bomb += f"{name}: &{name} [{', '.join([f'*{last}'] * 9)}]\n"
        with pytest.raises(UnreadableError, match="aliases written out") as caught:
            read(bomb)
        assert caught.value.line == 6  # 9 ** 5 < 200,000 < 9 ** 6

    def test_too_many_values(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nodes, "MAX_NODES", 100)
        assert read("[" + "a," * 99 + "]") is not None
        with pytest.raises(UnreadableError, match="more than 100 values"):
            read("[" + "a," * 100 + "]")

    def test_str_tags_and_nesting_within_the_limit_are_fine(self) -> None:
        assert read("!!str 1") == ScalarNode("1", False, 1)
        assert read("[" * 50 + "]" * 50) is not None


class TestScalars:
    @pytest.mark.parametrize("text", ["on", "1.10", "2021-08-15", "0x1f", "'null'", "1e3", "08"])
    def test_a_text_is_what_was_written(self, text: str) -> None:
        kind = Text(expected="a text")
        assert parse(kind, text) == text.strip("'")

    @pytest.mark.parametrize(
        ("kind", "text", "message"),
        [
            (WORD, "null", "1: expected a word, not nothing"),
            (WORD, "'null'\n", None),
            (WORD, "[a]", "1: expected a word, not a list"),
            (WORD, "{a: b}", "1: expected a word, not a mapping"),
            (WORD, "A1", "1: expected a word, not 'A1'"),
            (WORD, "'a\n\n  b'", "1: expected a word, not 'a\\nb'"),
            (WORD, "a" * 5000, "1: expected at most 4,096 characters, not 5,000"),
            (
                Text(expected="a word", refused={"no": "is reserved"}),
                "no",
                "1: 'no' is reserved",
            ),
            (Choice(of=("red", "green")), "geen", "expected 'red' or 'green', not 'geen' (did you"),
            (Choice(of=("red", "green")), "[]", "expected 'red' or 'green', not a list"),
            (Boolean(), "yes", "expected true or false, without quotes, not 'yes'"),
            (Boolean(), "'true'", "expected true or false, without quotes, not 'true'"),
            (Version(version=1), "'1'", "expected the number 1, the version of this format"),
            (Version(version=1), "0", "expected the number 1"),
            (Version(version=1), "2", "this lading is too old for version '2'"),
            (Version(version=1), "9" * 9999, "this lading is too old for version '9999"),
            (Day(), "2021-02-29", "1: the calendar has no day '2021-02-29'"),
            (Day(), "2021-8-15", "expected a day, as 2021-08-15, not '2021-8-15'"),
            (Day(), "2021-08-15T00:00:00Z", "expected a day"),
            (Day(), "٢٠٢١-08-15", "expected a day"),
            (Day(), "2026-11-23", "expected today (2026-11-22) or a day before, not 2026-11-23"),
        ],
    )
    def test_problems(self, kind: Kind[Any], text: str, message: str | None) -> None:
        found = parse(kind, text)
        if message is None:
            assert found == "null"
        else:
            assert message in found

    def test_values(self) -> None:
        assert parse(Boolean(), "true") is True
        assert parse(Boolean(), "False") is False
        assert parse(Day(), "2026-11-22") == parse(Day(), "'2026-11-22'") == TODAY
        assert parse(Version(version=1), "1") == 1
        assert parse(Text(expected="a text", folded=True), "|\n  two\n  lines\n") == "two lines"

    def test_quoting_is_short_and_harmless(self) -> None:
        assert quoted("\x1b[31m\u202e\n") == "'\\x1b[31m\\u202e\\n'"
        assert quoted("x" * 1_000_000) == "'" + "x" * 59 + "…'"


class TestProjectPath:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = (tmp_path / "project").resolve()
        (root / "sub").mkdir(parents=True)
        (root / "sub/file").write_text("")
        (root / "inside").symlink_to("sub/file")
        (root / "loop").symlink_to("loop")
        (root / "out").symlink_to("..")
        (tmp_path / "secret").write_text("")
        (tmp_path / "project-too").write_text("")
        (root / "sibling").symlink_to("../project-too")
        return root

    @pytest.mark.parametrize(
        ("written", "path"),
        [("sub/file", "sub/file"), ("./sub//file", "sub/file"), ("inside", "inside")],
    )
    def test_good(self, root: Path, written: str, path: str) -> None:
        assert parse(ProjectPath(), written, root) == path

    @pytest.mark.parametrize(
        ("written", "message"),
        [
            ("/etc/passwd", "a path that stays inside the project"),
            ("../secret", "a path that stays inside the project"),
            ("sub/../../secret", "a path that stays inside the project"),
            ("out/secret", "a symbolic link that leads out of the project"),
            ("sibling", "a symbolic link that leads out of the project"),
            ("loop", "can't be read"),
            ("gone", "there is no file 'gone'"),
            ("sub/file/x", "can't be read"),
            ("sub", "is not a file"),
            (".", "not the folder itself"),
            ("x" * 300, "can't be read: File name too long"),
            ('"a\\0b"', "a path that stays inside the project"),
            ("''", "a path that stays inside the project"),
        ],
    )
    def test_bad(self, root: Path, written: str, message: str) -> None:
        assert message in parse(ProjectPath(), written, root)

    def test_a_folder_where_folders_may_be(self, root: Path) -> None:
        assert parse(ProjectPath(folders=True), "sub/", root) == "sub"


@dataclass(frozen=True, kw_only=True)
class Thing:
    name: str
    a_word: str = ""
    line: int = 0


THINGS = Map(
    key=WORD,
    expected="things",
    defines="things",
    value=Record(
        make=Thing,
        expected="a thing",
        fields={
            "a-word": Field(kind=WORD, about="a word", required=True),
            "checked": Field(kind=Boolean(), about="a flag", passed=False),
        },
        also=lambda place: {"name": place.key, "line": place.line},
    ),
)


class TestComposites:
    def test_a_map_of_records(self) -> None:
        assert parse(THINGS, "x:\n  checked: true\n  a-word: y\n") == {
            "x": Thing(name="x", a_word="y", line=1)
        }

    def test_every_problem_at_once_by_line(self) -> None:
        found = parse(THINGS, "x: {a-wrod: y}\nY: {a-word: 1, a-word: z}\n? [k]\n: v\n<<: {}\nz: 3")
        assert found.splitlines() == [
            "1: x.a-wrod: unknown key (did you mean 'a-word'?)",
            "1: x: the key 'a-word' is missing: a word",
            "2: Y: expected a word, not 'Y'",
            "2: Y.a-word: this key is given in line 2 already",
            "2: Y.a-word: expected a word, not '1'",
            "3: a key is a text here, not a mapping or a list",
            "5: '<<': merge keys are not supported: write the keys out, or give a whole value an "
            "anchor (&name) and use its alias (*name)",
            "6: z: expected a thing, not '3'",
        ]

    def test_lists(self) -> None:
        words = List(item=WORD, or_one=True, unique=True)
        assert parse(words, "a") == ("a",)
        assert parse(words, "[a, b]") == ("a", "b")
        assert parse(words, "- a\n- 1\n- a\n") == (
            "2: [1]: expected a word, not '1'\n3: [2]: 'a' is in the list already"
        )
        assert parse(List(item=WORD), "a") == "1: expected a list, not 'a'"

    def test_exactly_one(self) -> None:
        fields = {"a": Field(kind=WORD, about=""), "b": Field(kind=WORD, about="")}
        kind: Kind[Any] = Record(make=dict, fields=fields, expected="", exactly_one=("a", "b"))
        assert parse(kind, "a: x") == {"a": "x"}
        for text in ("{}", "{a: x, b: y}"):
            assert parse(kind, text) == "1: expected exactly one of the keys 'a' or 'b'"

    def test_references_are_looked_up_when_all_is_read(self) -> None:
        use = Reference(section="things", what="thing", name=WORD)
        kind: Kind[Any] = Record(
            make=dict,
            expected="",
            fields={"use": Field(kind=use, about=""), "things": Field(kind=THINGS, about="")},
        )
        assert parse(kind, "use: abc\nthings: {abc: {a-word: x}}")["use"] == "abc"
        assert "no thing 'abd' (did you mean 'abc'?)" in parse(
            kind, "use: abd\nthings: {abc: {a-word: x}}"
        )
        # A name whose thing has a problem of its own is known all the same.
        assert parse(kind, "use: abc\nthings: {abc: {}}").count("\n") == 0
        assert parse(kind, "use: abc\nthings: 3") == "2: things: expected things, not '3'"
        assert parse(kind, "use: abc") == "1: use: there is no thing 'abc'"

    def test_either_and_converted(self) -> None:
        kind: Either[Any] = Either(
            long=THINGS, short=Converted(kind=WORD, into=lambda word: {word: None})
        )
        assert parse(kind, "a") == {"a": None}
        assert set(parse(kind, "a: {a-word: b}")) == {"a"}

    def test_keys_in_paths_are_shortened(self) -> None:
        found = parse(THINGS, f"? '{'k' * 100_000}'\n: {{}}\n? \"a\\e[31m\"\n: {{}}\n")
        assert max(map(len, found.splitlines())) < 200
        assert "3: 'a\\x1b[31m': expected a word" in found

    def test_suggestions_end_before_they_take_long(self) -> None:
        report = Report(root=Path(), today=TODAY, comparisons_left=5)
        hints = [report.hint("wrod", ("word", "world")) for _ in range(3)]
        assert hints == [" (did you mean 'word'?)"] * 2 + [""]
        assert report.hint("x" * 1_000_000, ("x",)) == ""

    def test_no_more_than_a_thousand_problems_are_written_out(self) -> None:
        found = parse(THINGS, "".join(f"{i}: {{a-word: x}}\n" for i in range(1_234)))
        assert found.count("\n") == 1000
        assert found.endswith("and 234 more problems")


def test_json_schema_of_kinds() -> None:
    assert THINGS.schema() == {
        "type": "object",
        "propertyNames": {"pattern": "^(?:[a-z]+)$", "maxLength": 4096},
        "additionalProperties": {
            "type": "object",
            "properties": {
                "a-word": {
                    "description": "a word",
                    "type": ["string", "boolean"],
                    "pattern": "^(?:[a-z]+)$",
                    "maxLength": 4096,
                },
                "checked": {"description": "a flag", "type": "boolean"},
            },
            "additionalProperties": False,
            "required": ["a-word"],
        },
    }
