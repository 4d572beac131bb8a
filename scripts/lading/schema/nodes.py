"""YAML text to a tree of nodes that know their lines, whatever the text may be.

The tree is made from the parser's stream of events, not with yaml.compose: PyYAML's composer in
C overflows the stack on deep nesting, and a stream is read only once. Scalars keep their own
text (`1.10` stays `1.10`, `on` stays `on`): what it means is for the reader of the tree to say.

A stricter YAML than YAML 1.1: one document, no tags but `!!str`, no merge keys (`<<`; schema.py
refuses them), limits on depth and size. Anchors and aliases are understood.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

import yaml
from msgspec import Struct

from lading.errors import DeclarationError

MAX_DEPTH = 50
MAX_BYTES = 2 << 20
MAX_NODES = 200_000
"""Nodes in the tree with every alias written out, or ten aliased lists are a billion nodes."""

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STR = "tag:yaml.org,2002:str"
_NULL = frozenset(["", "~", "null", "Null", "NULL"])
# YAML 1.1, 5.1: the characters a stream may hold.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class UnreadableError(Exception):
    """This is no YAML, or none that is accepted here: the line (from 1) and the reason."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class ScalarNode(Struct):
    """A single value: its text; `plain` if it was written without quotes, block or tag."""

    text: str
    plain: bool
    line: int

    @property
    def null(self) -> bool:
        """Whether this is YAML's 'no value'."""
        return self.plain and self.text in _NULL


class ListNode(Struct):
    items: list[Node]
    line: int


class MapNode(Struct):
    """Pairs of key and value as written: keys can be anything, and can come twice."""

    pairs: list[tuple[Node, Node]]
    line: int


Node = ScalarNode | ListNode | MapNode


class _Open(Struct):
    """A list or map whose end has not come yet."""

    is_map: bool
    line: int
    anchor: str | None
    children: list[Node]
    nodes_before: int

    def closed(self) -> Node:
        if not self.is_map:
            return ListNode(self.children, self.line)
        pairs = zip(self.children[::2], self.children[1::2], strict=True)
        return MapNode(list(pairs), self.line)


def read(text: str) -> Node | None:
    """The tree of a text's one document, None if it holds none. Raises `UnreadableError`."""
    _check_characters(text)
    try:
        return _Builder().build(text)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # Without marks: the reader's errors; ValueError: escapes beyond Unicode (Python's parser).
        raise UnreadableError(1, f"this is not YAML: {str(error).splitlines()[0]}") from None


def text_of(path: Path) -> str:
    """A file's text. Raises `DeclarationError` where it is no file of UTF-8 text."""
    try:
        # Asked first: to open a pipe would wait, to read a device might never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise DeclarationError(f"{path.name} is not a file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise DeclarationError(
            f"there is no {path.name} in {path.parent.absolute()}",
            do="go to the folder of a project, or start one: lading init FOLDER",
        ) from None
    except OSError as error:
        raise DeclarationError(f"{path.name} can't be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise DeclarationError(f"{path.name} is larger than {MAX_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DeclarationError(
            f"{path.name}:{line}: this is not UTF-8 (byte 0x{data[error.start]:02x})",
            do="save the file as UTF-8",
        ) from None


class _Builder:
    """One pass over the events; holds what is open, what has an anchor, and counts nodes."""

    def __init__(self) -> None:
        self.open: list[_Open] = []
        self.anchors: dict[str, tuple[Node, int]] = {}
        self.nodes = 0
        self.root: Node | None = None

    def build(self, text: str) -> Node | None:
        documents = 0
        for event in yaml.parse(text, Loader=LOADER):
            if isinstance(event, yaml.ScalarEvent):
                self.scalar(event)
            elif isinstance(event, yaml.CollectionStartEvent):
                self.start(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self.end()
            elif isinstance(event, yaml.AliasEvent):
                self.alias(event)
            elif isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    message = "expected one document, here begins another ('---')"
                    raise UnreadableError(_line(event), message)
        return self.root

    def scalar(self, event: yaml.ScalarEvent) -> None:
        line = _line(event)
        if event.tag is not None:
            _check_tag(event.tag, line, allowed=_STR)
        text = event.value
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise UnreadableError(line, "half of a surrogate pair is no character")
        node = ScalarNode(text, event.implicit[0], line)
        self.count(1, line)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, 1)
        self.add(node)

    def start(self, event: yaml.CollectionStartEvent) -> None:
        line = _line(event)
        if event.tag is not None:
            _check_tag(event.tag, line)
        if len(self.open) == MAX_DEPTH:
            raise UnreadableError(line, f"nested more than {MAX_DEPTH} deep")
        if event.anchor is not None:
            self.anchors.pop(event.anchor, None)
        is_map = isinstance(event, yaml.MappingStartEvent)
        self.open.append(_Open(is_map, line, event.anchor, [], self.nodes))
        self.count(1, line)

    def end(self) -> None:
        done = self.open.pop()
        node = done.closed()
        if done.anchor is not None:
            self.anchors[done.anchor] = (node, self.nodes - done.nodes_before)
        self.add(node)

    def alias(self, event: yaml.AliasEvent) -> None:
        line = _line(event)
        name = event.anchor or ""
        if name not in self.anchors:
            inside = any(each.anchor == name for each in self.open)
            why = "stands inside what it names" if inside else f"has no anchor '&{name[:60]}' above"
            raise UnreadableError(line, f"the alias '*{name[:60]}' {why}")
        node, nodes = self.anchors[name]
        self.count(nodes, line)
        if isinstance(node, ScalarNode):  # problems are reported where the alias stands
            node = ScalarNode(node.text, node.plain, line)
        self.add(node)

    def count(self, nodes: int, line: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise UnreadableError(line, f"more than {MAX_NODES:,} values, aliases written out")

    def add(self, node: Node) -> None:
        if self.open:
            self.open[-1].children.append(node)
        else:
            self.root = node


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _check_tag(tag: str, line: int, allowed: str = "!") -> None:
    if tag not in ("!", allowed):
        shown = tag.replace("tag:yaml.org,2002:", "!!")[:60]
        raise UnreadableError(line, f"tags have no meaning here: leave out {shown!r}")


def _check_characters(text: str) -> None:
    found = _FORBIDDEN.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise UnreadableError(line, f"the character U+{ord(found[0]):04X} is not allowed in YAML")
    # libyaml compares every %TAG with all before it: 100,000 of them take a minute.
    found = re.search(r"^%TAG\b", text, re.MULTILINE)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise UnreadableError(line, "tags have no meaning here: leave out %TAG")


def _syntax_error(error: yaml.MarkedYAMLError, text: str) -> UnreadableError:
    mark = error.problem_mark or error.context_mark
    last = text.count("\n", 0, -1)  # an error at the end is not in a line after the last
    line = min(mark.line, last) if mark else 0
    message = f"this is not YAML: {error.problem or error.context}"
    if error.problem and error.context:
        message += f" ({error.context})"
    lines = text.split("\n")
    if line < len(lines) and re.match(r"[ -]*\t", lines[line]):
        message += "; indent with spaces, never with tabs"
    return UnreadableError(line + 1, message)
