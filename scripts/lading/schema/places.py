"""Where in project.yaml something stands, for messages after it was read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lading.errors import LadingError
from lading.schema.nodes import ListNode, MapNode, Node, ScalarNode, UnreadableError, read, text_of


class Places:
    """The lines of a project.yaml; without them where it can't be read any more."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        try:
            self.tree = read(text_of(path))
        except (LadingError, UnreadableError):
            self.tree = None

    def of(self, keys: Sequence[str], text: str = "") -> str:
        """ "project.yaml:12: images.x.apt.run" of these keys; the line is the one of a text below
        them, else of the last key that is written there.
        """
        said = ".".join(keys)
        node, line = self.tree, 0
        for key in keys:
            pair = _value(node, key)
            if pair is None:
                break
            line, node = pair[0], pair[1]
        else:
            line = next((at for at, found in _scalars(node) if found == text), line)
        return f"{self.name}:{line}: {said}" if line else f"{self.name}: {said}"


def _value(node: Node | None, key: str) -> tuple[int, Node] | None:
    for known, value in node.pairs if isinstance(node, MapNode) else ():
        if isinstance(known, ScalarNode) and known.text == key:
            return known.line, value
    return None


def _scalars(node: Node | None) -> Iterator[tuple[int, str]]:
    if isinstance(node, ScalarNode):
        yield node.line, node.text
    elif isinstance(node, ListNode):
        for item in node.items:
            yield from _scalars(item)
    elif isinstance(node, MapNode):
        for _, value in node.pairs:
            yield from _scalars(value)
