"""What a declaration may hold, declared once: parsers of YAML nodes and their JSON schema.

A `Kind` turns a node into plain data and describes itself as JSON schema (draft 2020-12). Kinds
are composed: a `Record` of fields, a `List` of texts, a `Map` from names to records. A kind never
stops at the first problem: each is noted in the `Report` with its line and its path, parsing
goes on beside it, and what can't be used is given up with `RejectedError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from lading.schema.nodes import ListNode, MapNode, Node, ScalarNode
from lading.schema.problems import Place, RejectedError, any_of, quoted
from lading.schema.scalars import CONTROL, Schema, Text

S = TypeVar("S")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Kind(Protocol[T_co]):
    """What can stand somewhere in a declaration."""

    def parse(self, node: Node, place: Place) -> T_co:
        """The data of a node. Raises `RejectedError` when the report got a problem."""

    def schema(self) -> Schema:
        """The same as JSON schema: it accepts at least what `parse` accepts."""


class List(Struct, Generic[T], frozen=True, kw_only=True):
    """Items in their order; with `or_one`, one item may stand without its list."""

    item: Kind[T]
    expected: str = "a list"
    or_one: bool = False
    unique: bool = False

    def parse(self, node: Node, place: Place) -> tuple[T, ...]:
        if self.or_one and isinstance(node, ScalarNode):
            return (self.item.parse(node, place),)
        if not isinstance(node, ListNode):
            raise place.unexpected(self.expected, node)
        before = len(place.report.problems)
        found: list[T] = []
        seen: set[T] = set()
        for index, item in enumerate(node.items):
            at = place.child(index, item.line)
            try:
                value = self.item.parse(item, at)
            except RejectedError:
                continue
            if self.unique and value in seen:
                at.note(f"{quoted(str(value))} is in the list already")
            seen.add(value)
            found.append(value)
        if len(place.report.problems) > before:
            raise RejectedError
        return tuple(found)

    def schema(self) -> Schema:
        item = self.item.schema()
        made: Schema = {"type": "array", "items": item}
        if self.unique:
            made["uniqueItems"] = True
        return {"anyOf": [item, made]} if self.or_one else made


class Map(Struct, Generic[T], frozen=True, kw_only=True):
    """Names of the user's own, and what each stands for; what `Reference`s to `defines` find."""

    key: Text
    value: Kind[T]
    expected: str
    defines: str = ""

    def parse(self, node: Node, place: Place) -> dict[str, T]:
        before = len(place.report.problems)
        place.report.defined[self.defines] = None
        pairs = pairs_of(node, place, self.expected)
        place.report.defined[self.defines] = pairs
        made: dict[str, T] = {}
        for name, (key, value) in pairs.items():
            at = place.child(name, key.line)
            with suppress(RejectedError):  # as a quoted text: the key `null` is no null
                self.key.parse(ScalarNode(name, False, key.line), at)
            with suppress(RejectedError):
                made[name] = self.value.parse(value, at)
        if len(place.report.problems) > before:
            raise RejectedError
        return made

    def schema(self) -> Schema:
        names = {key: value for key, value in self.key.schema().items() if key != "type"}
        return {
            "type": "object",
            "propertyNames": names,
            "additionalProperties": self.value.schema(),
        }


class Field(Struct, frozen=True, kw_only=True):
    """One key of a record. One that is not `passed` is checked and that is all."""

    kind: Kind[Any]
    about: str
    required: bool = False
    passed: bool = True


def _nothing(place: Place) -> dict[str, Any]:
    return {}


class Record(Struct, Generic[T], frozen=True, kw_only=True):
    """Known keys, made into a T: each key's value is passed by name, `-` turned into `_`.

    `also` gives further arguments from the place, as a name or a line. Of the keys in
    `exactly_one`, exactly one is given.
    """

    make: Callable[..., T]
    fields: Mapping[str, Field]
    expected: str
    exactly_one: tuple[str, ...] = ()
    also: Callable[[Place], dict[str, Any]] = _nothing

    def parse(self, node: Node, place: Place) -> T:
        before = len(place.report.problems)
        pairs = pairs_of(node, place, self.expected)
        self.check_keys(pairs, place)
        given = self.given(pairs, place)
        if len(place.report.problems) > before:
            raise RejectedError
        return self.make(**given, **self.also(place))

    def given(self, pairs: Pairs, place: Place) -> dict[str, Any]:
        """What `make` gets of these keys; those that can't be used are left out, and noted."""
        given: dict[str, Any] = {}
        for name, (key, value) in pairs.items():
            field = self.fields.get(name)
            if field is None:
                continue
            try:
                parsed = field.kind.parse(value, place.child(name, key.line))
            except RejectedError:
                continue
            if field.passed:
                given[name.replace("-", "_")] = parsed
        return given

    def check_keys(self, pairs: Pairs, place: Place) -> None:
        """Notes keys that are unknown, and those that are missing or too many."""
        for name, (key, _) in pairs.items():
            if name not in self.fields:
                hint = place.report.hint(name, self.fields)
                place.child(name, key.line).note(f"unknown key{hint}")
        for name, field in self.fields.items():
            if field.required and name not in pairs:
                place.note(f"the key {quoted(name)} is missing: {field.about}")
        if self.exactly_one and sum(name in pairs for name in self.exactly_one) != 1:
            place.note(f"expected exactly one of the keys {any_of(self.exactly_one)}")

    def schema(self) -> Schema:
        made: Schema = {
            "type": "object",
            "properties": {
                name: {"description": field.about, **field.kind.schema()}
                for name, field in self.fields.items()
            },
            "additionalProperties": False,
        }
        required = [name for name, field in self.fields.items() if field.required]
        if required:
            made["required"] = required
        if self.exactly_one:
            made["oneOf"] = [{"required": [name]} for name in self.exactly_one]
        return made


class Either(Struct, Generic[T], frozen=True, kw_only=True):
    """A long form, which is a mapping, or a short form, which is none."""

    long: Kind[T]
    short: Kind[T]

    def parse(self, node: Node, place: Place) -> T:
        kind = self.long if isinstance(node, MapNode) else self.short
        return kind.parse(node, place)

    def schema(self) -> Schema:
        return {"anyOf": [self.short.schema(), self.long.schema()]}


class Converted(Struct, Generic[S, T], frozen=True, kw_only=True):
    """What another kind gives, made into something else."""

    kind: Kind[S]
    into: Callable[[S], T]

    def parse(self, node: Node, place: Place) -> T:
        return self.into(self.kind.parse(node, place))

    def schema(self) -> Schema:
        return self.kind.schema()


Pairs = dict[str, tuple[ScalarNode, Node]]


def pairs_of(node: Node, place: Place, expected: str) -> Pairs:
    """A mapping's pairs by their key's text; a key that is no text or comes twice is noted."""
    if not isinstance(node, MapNode):
        raise place.unexpected(expected, node)
    pairs: Pairs = {}
    for key, value in node.pairs:
        if not isinstance(key, ScalarNode):
            Place(place.report, key.line, place.key, place.parent).note(
                "a key is a text here, not a mapping or a list"
            )
        elif key.plain and key.text == "<<":
            place.child(key.text, key.line).note(
                "merge keys are not supported: write the keys out, or give a whole value an "
                "anchor (&name) and use its alias (*name)"
            )
        elif key.text in pairs:
            first = pairs[key.text][0].line
            place.child(key.text, key.line).note(f"this key is given in line {first} already")
        else:
            pairs[key.text] = (key, value)
    return pairs


VARIABLES = Map(
    key=Text(
        pattern="[A-Za-z_][A-Za-z0-9_]*",
        longest=255,
        expected="the name of an environment variable: letters, digits, '_'",
    ),
    value=Text(
        pattern=rf"(?:[^{CONTROL}]|\t)*",
        longest=65_536,
        expected='a text in one line ("" for an empty one)',
    ),
    expected="a mapping of environment variables",
)
