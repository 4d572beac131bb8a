"""A section that stands for several: one for each combination of its `matrix`.

Each variant is an ordinary section with a name of its own. What has no `{axis}` in it is read once,
so that a problem in it is one problem, and a thousand variants are read quickly.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import product
from typing import Any, Generic, TypeVar

from msgspec import Struct

from lading.schema import axes
from lading.schema.nodes import ListNode, MapNode, Node, ScalarNode, UnreadableError, read
from lading.schema.problems import Place, RejectedError, Report, quoted
from lading.schema.scalars import CONTROL, Schema, Text
from lading.schema.shapes import List, Map, Pairs, Record, pairs_of

T = TypeVar("T")

KEY = "matrix"
MOST = 5_000
"""Variants of one section; one more factor of ten in a matrix is quickly written."""

Values = dict[str, str]

_AXIS = Text(
    pattern=axes.NAME,
    longest=64,
    expected="the name of an axis: letters, digits, '_' or '-', a letter first",
)
_VALUE = Text(
    pattern=rf"[^\s{{}}{CONTROL}](?:[^{{}}{CONTROL}]*[^\s{{}}{CONTROL}])?",
    longest=256,
    expected="a value, as 5.3",
)
_VALUES = List(item=_VALUE, or_one=True, unique=True, expected="a list of values, as [5.2, 5.3]")
_PATTERN = Text(expected="the variants' names, as astropy-{astropy}")


class Matrix(Struct, frozen=True, kw_only=True):
    """What is left of the combinations: in the order of the axes, the last one fastest.

    pattern: what the variants are called. places: where each axis and each of its values stands.
    """

    combinations: tuple[Values, ...]
    pattern: str
    place: Place
    named: Place
    places: Mapping[str, tuple[Place, Mapping[str, Place]]]

    def guilty(self, values: Values) -> Place:
        """Where to say that a name can't be: at a value that alone can be part of none."""
        for axis, value in values.items():
            if not re.fullmatch("[a-z0-9._-]+", value):
                return self.places[axis][1][value]
        return self.named

    def pattern_of_all(self, name: str) -> str:
        """A pattern with all axes in it."""
        return "-".join([name, *(f"{{{axis}}}" for axis in self.places)])


class MatrixKind(Struct, frozen=True, kw_only=True):
    """`matrix:`: axes by name, each with its values; `exclude` and `name` are no axes."""

    def parse(self, node: Node, place: Place) -> Matrix:
        before = len(place.report.problems)
        pairs = pairs_of(node, place, "a mapping from axes to their values")
        places: dict[str, tuple[Place, Mapping[str, Place]]] = {}
        found: dict[str, tuple[str, ...]] = {}
        for name, (key, value) in pairs.items():
            at = place.child(name, key.line)
            if name in ("exclude", "name"):
                continue
            with suppress(RejectedError):
                _AXIS.parse(ScalarNode(name, False, key.line), at)
                values = _VALUES.parse(value, at)
                if not values:
                    raise at.rejected("an axis without values: there would be no variant at all")
                found[name] = values
                lines = [one.line for one in value.items] if isinstance(value, ListNode) else []
                places[name] = (
                    at,
                    {
                        one: at.child(number, line)
                        for number, (one, line) in enumerate(
                            zip(values, lines or [value.line], strict=True)
                        )
                    },
                )
        if not set(pairs) - {"exclude", "name"}:
            place.note("it has no axis; write one, as astropy: [5.2, 5.3]")
        pattern, named = "", place
        if "name" in pairs:
            key, value = pairs["name"]
            named = place.child("name", key.line)
            with suppress(RejectedError):
                pattern = _PATTERN.parse(value, named)
        if len(place.report.problems) > before:
            raise RejectedError
        if math.prod(map(len, found.values())) > MOST:
            raise place.rejected(f"more than {MOST:,} variants")
        every = [dict(zip(found, row, strict=True)) for row in product(*found.values())]
        if "exclude" in pairs:
            key, value = pairs["exclude"]
            every = _without(every, value, place.child("exclude", key.line), found)
        if len(place.report.problems) > before:
            raise RejectedError
        name = str(place.parent.key) if place.parent is not None else ""
        return Matrix(
            combinations=tuple(every),
            pattern=pattern or "-".join([name, *(f"{{{axis}}}" for axis in found)]),
            place=place,
            named=named,
            places=places,
        )

    def schema(self) -> Schema:
        partial: Schema = {"type": "object", "additionalProperties": _VALUE.schema()}
        return {
            "type": "object",
            "properties": {
                "name": {"description": "what the variants are called", **_PATTERN.schema()},
                "exclude": {
                    "description": "combinations, or parts of them, that are left out",
                    "anyOf": [partial, {"type": "array", "items": partial}],
                },
            },
            "additionalProperties": _VALUES.schema(),
        }


def _without(
    every: list[Values], node: Node, place: Place, known: Mapping[str, Sequence[str]]
) -> list[Values]:
    """The combinations that no exclusion fits; each exclusion has to fit one."""
    items = node.items if isinstance(node, ListNode) else [node]
    left = every
    for number, item in enumerate(items):
        at = place.child(number, item.line) if isinstance(node, ListNode) else place
        before = len(place.report.problems)
        with suppress(RejectedError):
            pairs = pairs_of(item, at, "combinations to leave out, as {astropy: 5.2, debian: 13}")
            out: Values = {}
            for axis, (key, value) in pairs.items():
                here = at.child(axis, key.line)
                if axis not in known:
                    here.note(f"there is no axis {quoted(axis)}{at.report.hint(axis, known)}")
                    continue
                with suppress(RejectedError):
                    out[axis] = _VALUE.parse(value, here)
                    if out[axis] not in known[axis]:
                        hint = at.report.hint(out[axis], known[axis])
                        here.note(
                            f"{quoted(out[axis])} is no value of {axis}{hint}: it fits nothing"
                        )
            if not pairs:
                at.note("it says nothing, and would leave out everything")
            if len(place.report.problems) > before:
                continue
            rest = [one for one in left if not out.items() <= one.items()]
            if len(rest) == len(left):
                at.note("it leaves out nothing: what stands before it did that already")
            left = rest
    if not left:
        place.note("it leaves out every combination")
    return left


class Expanded(Struct, Generic[T], frozen=True, kw_only=True):
    """A map of records of which those with a `matrix` stand for several.

    said: what a variant is told besides, from the section's name and the variant's values. meant:
    words in braces that mean something else already. files: the project's files, of a variant, in
    which `{axis}` has a meaning.
    """

    map: Map[T]
    record: Record[T]
    said: Callable[[str, Values], dict[str, Any]] = lambda name, values: {}
    meant: frozenset[str] = frozenset()
    files: Callable[[T], Iterable[str]] = lambda made: ()

    def parse(self, node: Node, place: Place) -> dict[str, T]:
        before = len(place.report.problems)
        report = place.report
        report.defined[self.map.defines] = None
        pairs = pairs_of(node, place, self.map.expected)
        several = {name: pair[1] for name, pair in pairs.items() if _has_matrix(pair[1])}
        made: dict[str, T] = {}
        plain = MapNode([pair for name, pair in pairs.items() if name not in several], place.line)
        with suppress(RejectedError):
            made = self.map.parse(plain, place)
        if not several:
            if len(report.problems) > before:
                raise RejectedError
            return made
        lines = {name: pairs[name][0].line for name in pairs if name not in several}
        variants: dict[str, dict[str, T]] = {}
        whole = True
        for name, section in several.items():
            at = place.child(name, pairs[name][0].line)
            with suppress(RejectedError):
                self.map.key.parse(ScalarNode(name, False, at.line), at)
            template = _Template(self, name, at, section)
            key, matrix = template.matrix
            try:
                found = MatrixKind().parse(matrix, at.child(KEY, key.line))
            except RejectedError:
                whole = False
                template.fixed()
                continue
            variants[name] = template.variants(found, lines)
        # With a matrix that can't be read, nobody knows which names there are.
        report.defined[self.map.defines] = lines if whole else None
        if len(report.problems) > before:
            raise RejectedError
        ordered: dict[str, T] = {}
        for name in pairs:
            ordered |= variants.get(name) or {name: made[name]}
        return ordered

    def schema(self) -> Schema:
        made = self.map.schema()
        strict = made["additionalProperties"]
        loose: Schema = {
            **strict,
            # With an {axis} in it, anything can stand there.
            "properties": {
                name: one if name == KEY else {"description": one.get("description", "")}
                for name, one in strict["properties"].items()
            },
        }
        made["additionalProperties"] = {"if": {"required": [KEY]}, "then": loose, "else": strict}
        return made


def _has_matrix(node: Node) -> bool:
    pairs = node.pairs if isinstance(node, MapNode) else []
    return any(isinstance(key, ScalarNode) and key.text == KEY for key, _ in pairs)


class _Template(Generic[T]):
    """One section with a matrix: what is the same in all variants, and what is not."""

    def __init__(self, kind: Expanded[T], name: str, place: Place, section: Node) -> None:
        self.kind, self.name, self.place = kind, name, place
        self.record = kind.record
        self.pairs: Pairs = pairs_of(section, place, self.record.expected)
        self.matrix = self.pairs.pop(KEY)
        self.record.check_keys({**self.pairs}, place)
        self.varying = {key: pair for key, pair in self.pairs.items() if _has_words(pair[1])}

    def fixed(self) -> dict[str, Any]:
        """What is the same in all variants."""
        pairs = {key: pair for key, pair in self.pairs.items() if key not in self.varying}
        return self.record.given(pairs, self.place)

    def _unquoted(self, known: Iterable[str]) -> bool:
        """Whether an {axis} stands without quotes, where for YAML it is a mapping; noted."""
        before = len(self.place.report.problems)
        for key, (at, value) in self.pairs.items():
            _check_quotes(value, self.place.child(key, at.line), known)
        return len(self.place.report.problems) > before

    def variants(self, matrix: Matrix, lines: dict[str, int]) -> dict[str, T]:
        """The variants by name; `lines` has the names that are taken, and gets the new ones."""
        report = self.place.report
        before = len(report.problems)
        if self._unquoted(matrix.places):
            return {}
        given = self.fixed()
        used: set[str] = set()
        known = {*matrix.places, *self.kind.meant}
        for key, (at, value) in self.varying.items():
            _check(value, self.place.child(key, at.line), known, used)
        unknown = len(report.problems) > before
        seen = _Seen()
        found: list[tuple[Values, str, T]] = []
        for name, values in self._named(matrix, lines):
            if unknown:
                continue  # what would follow from it is no news
            pairs = {key: (k, _filled(value, values)) for key, (k, value) in self.varying.items()}
            begun, asked = len(report.problems), len(report.references)
            varying = self.record.given(pairs, self.place)
            if seen.only_new(report, begun, asked):
                continue
            also = self.record.also(Place(report, self.place.line, name, self.place.parent))
            said = self.kind.said(self.name, values)
            with suppress(RejectedError):
                found.append((values, name, self.record.make(**given, **varying, **also, **said)))
        if len(report.problems) == before:
            files = _Files(self.place, known, used)
            for values, _, made in found:
                files.look(self.kind.files(made), values)
            for axis, (place, _) in matrix.places.items():
                if axis not in used:
                    place.note(
                        f"nothing but the name has {quoted('{' + axis + '}')} in it: its variants "
                        "would be the same under several names"
                    )
        return {name: made for _, name, made in found}

    def _named(self, matrix: Matrix, lines: dict[str, int]) -> Iterator[tuple[str, Values]]:
        """The variants' names, each with its values, noted where it can't be one."""
        unknown = [word for word in axes.words(matrix.pattern) if word not in matrix.places]
        for word in dict.fromkeys(unknown):
            matrix.named.note(_no_axis(word, matrix.places, matrix.place))
        if unknown:
            return
        mine: dict[str, Values] = {}
        places: set[tuple[int, str]] = set()
        twice = False
        for values in matrix.combinations:
            name = axes.filled(matrix.pattern, values)
            place = matrix.guilty(values)
            # Of the names that one value spoils, one is enough.
            if (place.line, place.path) in places:
                continue
            try:
                self.kind.map.key.parse(ScalarNode(name, False, place.line), place)
            except RejectedError:
                places.add((place.line, place.path))
                continue
            if name in mine:
                if not twice:
                    matrix.named.note(
                        f"two variants are called {quoted(name)}: {_said(mine[name])} and "
                        f"{_said(values)}; `name:` has to tell them apart, as "
                        f"{matrix.pattern_of_all(self.name)}"
                    )
                twice = True
                continue
            mine[name] = values
            if name in lines:
                place.note(
                    f"the variant {_said(values)} would be called {quoted(name)}, and so is what "
                    f"line {lines[name]} declares; `name:` can call it something else"
                )
                continue
            yield name, values
        lines |= dict.fromkeys(mine, matrix.place.line)


class _Seen:
    """What the variants before had to say, to say it once."""

    def __init__(self) -> None:
        self.problems: set[tuple[int, str, str]] = set()
        self.references: set[tuple[str, str, int]] = set()

    def only_new(self, report: Report, begun: int, asked: int) -> bool:
        """Drops what the variants before said from the problems and references that came to the
        report behind these numbers; whether there are problems.
        """
        problems = report.problems
        new = problems[begun:]
        del problems[begun:]
        for problem in new:
            said = (problem.place.line, problem.place.path, problem.message)
            if said not in self.problems:
                self.problems.add(said)
                problems.append(problem)
        references = report.references[asked:]
        del report.references[asked:]
        for section, what, name, place in references:
            if (section, name, place.line) not in self.references:
                self.references.add((section, name, place.line))
                report.references.append((section, what, name, place))
        return bool(new)


def _no_axis(word: str, known: Iterable[str], place: Place) -> str:
    hint = place.report.hint(word, list(known))
    return (
        f"there is no axis {quoted(word)}{hint}; braces that are meant as they stand are doubled: "
        f"{{{{{word}}}}}"
    )


def _said(values: Values) -> str:
    return ", ".join(f"{axis}={value}" for axis, value in values.items())


def _has_words(node: Node) -> bool:
    """Whether something in it changes from variant to variant, or is in doubled braces."""
    if isinstance(node, ScalarNode):
        return "{" in node.text and axes.WORD.search(node.text) is not None
    if isinstance(node, ListNode):
        return any(map(_has_words, node.items))
    return any(_has_words(key) or _has_words(value) for key, value in node.pairs)


def _check(node: Node, place: Place, known: Iterable[str], used: set[str]) -> None:
    """Notes the words in braces that are no axis; `used` gets those that are."""
    if isinstance(node, ListNode):
        for number, item in enumerate(node.items):
            _check(item, place.child(number, item.line), known, used)
    elif isinstance(node, MapNode):
        for key, value in node.pairs:
            text = key.text if isinstance(key, ScalarNode) else ""
            at = place.child(text, key.line)
            _check(key, at, known, used)
            _check(value, at, known, used)
    else:
        for word in axes.words(node.text):
            used.add(word)
            if word not in known:
                place.note(_no_axis(word, known, place))


def _check_quotes(node: Node, place: Place, known: Iterable[str]) -> None:
    if isinstance(node, ListNode):
        for number, item in enumerate(node.items):
            _check_quotes(item, place.child(number, item.line), known)
    elif isinstance(node, MapNode):
        first = [(key, value) for key, value in node.pairs if isinstance(key, ScalarNode)]
        for key, value in first:
            nothing = isinstance(value, ScalarNode) and value.null
            if nothing and key.text in known and len(node.pairs) == 1:
                place.note(
                    f'for YAML {{{key.text}}} is a mapping: write it in quotes, "{{{key.text}}}"'
                )
            else:
                _check_quotes(value, place.child(key.text, key.line), known)


def _filled(node: Node, values: Values) -> Node:
    """The node with the values in their places."""
    if isinstance(node, ScalarNode):
        if "{" not in node.text:
            return node
        # Not plain: a value that is called null is a text.
        return ScalarNode(axes.filled(node.text, values), False, node.line)
    if isinstance(node, ListNode):
        return ListNode([_filled(item, values) for item in node.items], node.line)
    pairs = [(_filled(key, values), _filled(value, values)) for key, value in node.pairs]
    return MapNode(pairs, node.line)


_INCLUDE = re.compile(r"^(?:-[rc]|--(?:requirement|constraint)(?=[\s=]))[\s=]*(?P<path>.+)")
_COMMENT = re.compile(r"(?:^|\s)#.*$")


class _Files:
    """The words in braces of the project's files; each file is read once."""

    def __init__(self, place: Place, known: Iterable[str], used: set[str]) -> None:
        self.place, self.known, self.used = place, known, used
        self.includes: dict[str, list[str]] = {}

    def look(self, paths: Iterable[str], values: Values) -> None:
        """Looks into these files and those that they include, by the values of one variant."""
        waiting, seen = list(paths), set()
        while waiting:
            path = waiting.pop()
            if path in seen:
                continue
            seen.add(path)
            if path not in self.includes:
                self.includes[path] = self._read(path)
            folder = os.path.dirname(path)  # noqa: PTH120 (pathlib is slow: for each variant)
            waiting += [
                os.path.normpath(os.path.join(folder, axes.filled(one, values)))  # noqa: PTH118
                for one in self.includes[path]
            ]

    def _read(self, path: str) -> list[str]:
        """What a file includes. One that can't be read is for who locks it to say."""
        from lading.files import content_of

        try:
            text = content_of(f"{self.place.report.root}/{path}").decode("utf-8", "replace")
        except (OSError, ValueError):
            return []
        for number, raw in enumerate(text.splitlines(), 1):
            line = _COMMENT.sub("", raw)
            for word in axes.words(line):
                self.used.add(word)
                if word not in self.known:
                    no_axis = _no_axis(word, self.known, self.place)
                    self.place.note(f"{path}:{number}: {no_axis}")
        found = map(_INCLUDE.match, _lines(path, text))
        return [include["path"].strip().strip("'\"") for include in found if include]


def _lines(path: str, text: str) -> Iterator[str]:
    """The lines that may include a file: of environment.yaml, those of its `pip:`."""
    if not path.endswith((".yaml", ".yml")):
        yield from (_COMMENT.sub("", line) for line in text.splitlines())
        return
    with suppress(UnreadableError):
        if (tree := read(text)) is not None:
            yield from _texts(tree)


def _texts(node: Node) -> Iterator[str]:
    if isinstance(node, ScalarNode):
        yield node.text
    elif isinstance(node, ListNode):
        for item in node.items:
            yield from _texts(item)
    else:
        for _, value in node.pairs:
            yield from _texts(value)
