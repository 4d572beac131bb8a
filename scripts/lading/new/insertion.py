"""A new entry in project.yaml, put in where it belongs; all else stays as it is, byte for byte.

The place is found in the parser's events, which know where each value begins and ends; the text
itself is only ever cut there and joined again. What comes out is read once more and compared with
what went in, so that a notation nobody thought of is refused, and never spoiled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import yaml
from msgspec import Struct, field

from lading.errors import DeclarationError
from lading.schema import nodes

Edit = tuple[int, int, str]
"""Characters from here to there become this text."""

_BREAK = re.compile(r"\r\n|\n|\r")
_BLANK_LINE = re.compile(r"(?:\r\n|\n|\r(?!\n))[ \t]*[\r\n]")
_TABS = re.compile(r"(?<=\S)[ \t]*\t[ \t]*")
_SHORT = 80
"""Characters up to which a list or a mapping stands in one line."""


class Span(Struct, kw_only=True):
    """A value and where it stands: characters of the text, from `start` to before `end`."""

    start: int
    end: int
    text: str | None = None
    flow: bool = False
    is_map: bool = False
    block: bool = False
    """Whether it is a text in lines of its own (`|`, `>`): it ends where the next thing begins."""
    keeps: bool = False
    """Whether that text ends in empty lines that count (`|+`)."""
    children: list[Span] = field(default_factory=list)

    @property
    def pairs(self) -> list[tuple[Span, Span]]:
        return list(zip(self.children[::2], self.children[1::2], strict=True))

    @property
    def last(self) -> Span:
        """The last single value in it."""
        at = self
        while at.children and not at.flow:
            at = at.children[-1]
        return at


def inserted(
    text: str, section: str, name: str, value: Mapping[str, Any], *, one_line: bool = False
) -> str:
    """The text with `name: value` as the last entry of a section, which is made if need be.

    The values are texts, dates, true and false, lists and mappings of these. Raises
    `DeclarationError` where the section stands in a way that nothing can be added to.
    """
    mark = text[:1] if text.startswith("\ufeff") else ""
    body = text[len(mark) :]
    try:
        before = nodes.read(body)
        made = mark + _edited(body, _edits(body, section, name, value, one_line))
        after = nodes.read(made[len(mark) :])
    except (yaml.YAMLError, nodes.UnreadableError, _NoPlaceError):
        before = after = made = None
    if made is None or _content(after) != _with(_content(before), section, name, _plain(value)):
        raise DeclarationError(
            f"`{section}:` of project.yaml stands in a way that nothing can be added to it",
            do=f"add it yourself, in `{section}:`\n"
            + "\n".join("     " + line for line in _block({name: value}, 2, one_line)),
        )
    return made


class _NoPlaceError(Exception):
    """There is nowhere to put it."""


# -- where ----------------------------------------------------------------------------------


def _edits(
    text: str, section: str, name: str, value: Mapping[str, Any], one_line: bool
) -> list[Edit]:
    root, end = _tree(text)
    if root is None or not root.is_map or not root.children:
        raise _NoPlaceError
    place = next((at for key, at in root.pairs if key.text == section), None)
    if place is None:
        if root.flow:
            return _in_flow(text, root, _line({section: {name: value}}))
        return _at_the_end(text, root, end, {section: {name: value}}, one_line)
    if place.is_map and place.children and not place.flow:
        column = _column(text, place)
        # As its entries do, else as it does itself.
        step = _step(text, place, column - _column(text, root))
        lines = _block({name: value}, step, one_line)
        if _spaced(text, place, one_line) and not place.last.keeps:
            lines = ["", *lines]
        at = _behind(text, place.last, _column(text, root))
        return [_lines_at(text, at, lines, column)]
    if place.is_map and (place.children or root.flow or text[place.start : place.end] != "{}"):
        return _in_flow(text, place, _line({name: value}))
    if root.flow or not (place.is_map or place.text in ("", "~", "null", "Null", "NULL")):
        raise _NoPlaceError
    # Nothing is there: `images:`, `images: null` or `images: {}`.
    before = len(text[: place.start].rstrip(" \t\r\n")) if place.start < place.end else place.start
    column, step = _column(text, root), _step(text, root)
    at = _behind(text, place, column)
    lines = _block({name: value}, step, one_line)
    return [(before, place.end, ""), _lines_at(text, at, lines, column + step)]


def _at_the_end(
    text: str, root: Span, end: int, value: Mapping[str, Any], one_line: bool
) -> list[Edit]:
    lines = _block(value, _step(text, root), one_line, deep=True)
    return [_lines_at(text, end, lines if root.last.keeps else ["", *lines], _column(text, root))]


def _in_flow(text: str, place: Span, entry: str) -> list[Edit]:
    """Into {braces}: behind the last entry, in a line of its own where the entries have one."""
    closing = place.end - 1
    if not place.children:
        return [(closing, closing, entry)]
    content = place.children[-1].end
    between = re.sub(r"#[^\r\n]*", lambda found: " " * len(found[0]), text[content:closing])
    comma = between.find(",")
    line_start = _line_start(text, closing)
    if line_start > content and not text[line_start:closing].strip():
        key = place.children[-2].start
        indent = re.match(r"[ \t]*", text[_line_start(text, key) :])
        added = f"{indent[0] if indent else ''}{entry}{_newline(text)}"
        comma_edit = [(content, content, ",")] if comma < 0 else []
        return [*comma_edit, (line_start, line_start, added)]
    at = content + comma + 1
    return [(at, at, f" {entry}")] if comma >= 0 else [(content, content, f", {entry}")]


def _behind(text: str, last: Span, column: int) -> int:
    """Where the line ends in which a value ends, and the comments that belong to its section:
    those that are indented by more than the section.
    """
    if last.block and last.keeps:
        at = last.end
    elif last.block:
        at = _line_end(text, len(text[: last.end].rstrip()))
    else:
        at = _line_end(text, last.end)
    for start, line, stop in _lines(text, at):
        content = line.lstrip(" \t")
        if content.startswith("#") and len(line) - len(content) > column:
            at = stop
        elif content.strip() or start < at:
            break
    return at


def _column(text: str, place: Span) -> int:
    """How far the keys of a mapping are indented."""
    key = place.children[0].start
    before = text[_line_start(text, key) : key]
    return before.rindex("?") if before.rstrip().endswith("?") else len(before)


def _step(text: str, place: Span, otherwise: int = 2) -> int:
    """By how much the first value indents that stands in lines of its own below a mapping."""
    for _, value in place.pairs:
        if value.is_map and value.children and not value.flow:
            step = _column(text, value) - _column(text, place)
            return step if 1 < step < 10 else 2
    return otherwise if 1 < otherwise < 10 else 2


def _spaced(text: str, place: Span, one_line: bool) -> bool:
    """Whether there is an empty line between two entries."""
    pairs = place.pairs
    if len(pairs) > 1:
        return bool(_BLANK_LINE.search(text, pairs[-2][1].last.end, pairs[-1][0].start))
    return not one_line and not pairs[0][1].flow


# -- lines ----------------------------------------------------------------------------------


def _lines_at(text: str, at: int, lines: list[str], column: int) -> Edit:
    newline = _newline(text)
    added = "".join(f"{' ' * column if line else ''}{line}{newline}" for line in lines)
    begun = at > 0 and text[at - 1] not in "\r\n"
    return (at, at, newline + added if begun else added)


def _newline(text: str) -> str:
    found = _BREAK.search(text)
    return found[0] if found else "\n"


def _line_start(text: str, at: int) -> int:
    return max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1


def _line_end(text: str, at: int) -> int:
    found = _BREAK.search(text, at)
    return found.end() if found else len(text)


def _lines(text: str, at: int) -> Iterator[tuple[int, str, int]]:
    while at < len(text):
        stop = _line_end(text, at)
        yield at, text[at:stop], stop
        at = stop


def _edited(text: str, edits: list[Edit]) -> str:
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


# -- what stands there ----------------------------------------------------------------------


def _tree(text: str) -> tuple[Span | None, int]:
    """The document's value, and where the document ends."""
    opened: list[Span] = []
    root: Span | None = None
    end = len(text)
    # Python's own parser: its marks count characters, and nothing here is large. Of tabs between
    # one thing and the next, which libyaml reads as spaces, it knows nothing.
    spaced = _TABS.sub(lambda found: " " * len(found[0]), text)
    for event in yaml.parse(spaced, Loader=yaml.SafeLoader):
        assert event.start_mark is not None and event.end_mark is not None
        start, stop = event.start_mark.index, event.end_mark.index
        if isinstance(event, yaml.DocumentEndEvent) and event.explicit:
            end = start
        elif isinstance(event, yaml.CollectionStartEvent):
            made = Span(start=start, end=stop, flow=bool(event.flow_style))
            made.is_map = isinstance(event, yaml.MappingStartEvent)
            opened.append(made)
        elif isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            if isinstance(event, yaml.CollectionEndEvent):
                made = opened.pop()
                made.end = stop if made.flow else made.last.end
            elif isinstance(event, yaml.ScalarEvent):
                made = Span(start=start, end=stop, text=event.value)
                made.block = event.style in ("|", ">")
                made.keeps = made.block and event.value.endswith("\n\n")
            else:
                made = Span(start=start, end=stop)
            if opened:
                opened[-1].children.append(made)
            else:
                root = made
    return root, end


def _content(node: nodes.Node | None) -> Any:
    """What a document says, without where it says it."""
    match node:
        case nodes.MapNode():
            return {"map": [(_content(key), _content(value)) for key, value in node.pairs]}
        case nodes.ListNode():
            return [_content(item) for item in node.items]
        case nodes.ScalarNode():
            return None if node.null else node.text
    return None


def _plain(value: Any) -> Any:
    """A value as `_content` has it when it is read."""
    if isinstance(value, Mapping):
        return {"map": [(key, _plain(item)) for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _with(content: Any, section: str, name: str, value: Any) -> Any:
    if not isinstance(content, dict):
        return ()
    pairs = list(content["map"])
    for index, (key, there) in enumerate(pairs):
        if key == section:
            had = there["map"] if isinstance(there, dict) else []
            pairs[index] = (key, {"map": [*had, (name, value)]})
            return {"map": pairs}
    return {"map": [*pairs, (section, {"map": [(name, value)]})]}


# -- as text --------------------------------------------------------------------------------


class _Emitter(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        # Lists are indented, as everywhere in project.yaml.
        super().increase_indent(flow, False)


def _block(value: Mapping[str, Any], step: int, one_line: bool, *, deep: bool = False) -> list[str]:
    """A mapping in lines: its entries' keys one below the other, or each entry in one line.

    deep: the entries are those of its one value.
    """
    node = _node(value)
    tops = [node, *(inner for _, inner in node.value)] if deep else [node]
    entries = [inner for top in tops[-1:] for _, inner in top.value]
    for top in tops:
        top.flow_style = False
    for entry in entries:
        entry.flow_style = one_line or not entry.value
        if one_line:
            _flat(entry)
    text: str = yaml.serialize(
        node, Dumper=_Emitter, indent=step, width=1 << 30, allow_unicode=True, line_break="\n"
    )
    return text.splitlines()


def _line(value: Mapping[str, Any]) -> str:
    node = _node(value)
    _flat(node)
    text: str = yaml.serialize(node, Dumper=_Emitter, width=1 << 30, allow_unicode=True)
    return text.strip()[1:-1]


def _flat(node: Any) -> None:
    if not isinstance(node, yaml.ScalarNode):
        node.flow_style = True
        for item in node.value:
            for inner in item if isinstance(item, tuple) else (item,):
                _flat(inner)


def _node(value: Any) -> Any:
    """A value as YAML's node: in one line where that is short and has only words in it."""
    tag = "tag:yaml.org,2002:"
    if isinstance(value, Mapping):
        pairs = [(_node(key), _node(item)) for key, item in value.items()]
        inner = [item for _, item in pairs]
        lists = all(isinstance(item, yaml.ScalarNode) or item.flow_style for item in inner)
        flow = lists and len(str(value)) <= _SHORT
        return yaml.MappingNode(f"{tag}map", pairs, flow_style=flow)
    if isinstance(value, list | tuple):
        items = [_node(item) for item in value]
        words = all(isinstance(item, str) and not re.search(r"[\s,'\"]", item) for item in value)
        return yaml.SequenceNode(f"{tag}seq", items, flow_style=words and len(str(value)) <= _SHORT)
    if isinstance(value, bool):
        return yaml.ScalarNode(f"{tag}bool", str(value).lower())
    if isinstance(value, date):
        return yaml.ScalarNode(f"{tag}timestamp", value.isoformat())
    return yaml.ScalarNode(f"{tag}str", str(value))
