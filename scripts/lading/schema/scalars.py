"""Kinds of single values: texts by pattern, choices, days, paths in the project.

Each is a `schema.Kind`: `parse` gives the data of a node or notes the problem, `schema` says the
same as JSON schema.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Mapping
from datetime import date
from typing import Any

from msgspec import Struct, field

from lading.schema.nodes import Node, ScalarNode
from lading.schema.problems import Place, any_of, quoted

Schema = dict[str, Any]

CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
"""What a single line of text can't hold, for use inside [] in the patterns of Python and JSON."""


class Text(Struct, frozen=True, kw_only=True):
    """A scalar's own text, whether YAML would read it as a text, a number or a boolean.

    All of it must match `pattern` (a regular expression that means the same in ECMA 262);
    `expected` says so in words; `refused` maps texts to the reason why not. `folded` makes one
    line of several.
    """

    expected: str
    pattern: str = f"[^{CONTROL}]+"
    longest: int = 4096
    refused: Mapping[str, str] = field(default_factory=dict)
    folded: bool = False

    def parse(self, node: Node, place: Place) -> str:
        if not isinstance(node, ScalarNode) or node.null:
            raise place.unexpected(self.expected, node)
        text = " ".join(node.text.split()) if self.folded else node.text
        if len(text) > self.longest:
            raise place.rejected(f"expected at most {self.longest:,} characters, not {len(text):,}")
        if not re.fullmatch(self.pattern, text):
            raise place.unexpected(self.expected, node)
        if text in self.refused:
            raise place.rejected(f"{quoted(text)} {self.refused[text]}")
        return text

    def schema(self) -> Schema:
        types = ["string"]
        if any(re.fullmatch(self.pattern, number) for number in ("1", "12", "1.5")):
            types.append("number")
        if re.fullmatch(self.pattern, "true"):
            types.append("boolean")
        made: Schema = {"type": types if len(types) > 1 else "string"}
        if not self.folded:
            made |= {"pattern": f"^(?:{self.pattern})$", "maxLength": self.longest}
        if self.refused:
            made["not"] = {"enum": sorted(self.refused)}
        return made


class Words(Text, frozen=True, kw_only=True):
    """Words as a shell takes them, whose quotes close."""

    def parse(self, node: Node, place: Place) -> str:
        text = super().parse(node, place)
        try:
            shlex.split(text)
        except ValueError:
            wrong = "it ends in a backslash" if text.endswith("\\") else "a quote does not close"
            raise place.rejected(f"{quoted(text)}: {wrong}") from None
        return text


class Reference(Struct, frozen=True, kw_only=True):
    """The name of something that `section` declares; looked up when all has been read."""

    section: str
    what: str
    name: Text

    def parse(self, node: Node, place: Place) -> str:
        name = self.name.parse(node, place)
        place.report.references.append((self.section, self.what, name, place))
        return name

    def schema(self) -> Schema:
        return self.name.schema()


class Choice(Struct, frozen=True, kw_only=True):
    """One of a few texts."""

    of: tuple[str, ...]

    def parse(self, node: Node, place: Place) -> str:
        if isinstance(node, ScalarNode) and not node.null:
            if node.text in self.of:
                return node.text
            hint = place.report.hint(node.text, self.of)
            raise place.rejected(f"expected {any_of(self.of)}, not {quoted(node.text)}{hint}")
        raise place.unexpected(any_of(self.of), node)

    def schema(self) -> Schema:
        return {"enum": list(self.of)}


class Boolean(Struct, frozen=True, kw_only=True):
    """true or false, as in YAML 1.2: `yes`, `on` and quoted texts are not meant."""

    def parse(self, node: Node, place: Place) -> bool:
        if isinstance(node, ScalarNode) and node.plain:
            if node.text in ("true", "True", "TRUE"):
                return True
            if node.text in ("false", "False", "FALSE"):
                return False
        raise place.unexpected("true or false, without quotes", node)

    def schema(self) -> Schema:
        return {"type": "boolean"}


class Version(Struct, frozen=True, kw_only=True):
    """The one version of a format that this program reads."""

    version: int

    def parse(self, node: Node, place: Place) -> int:
        if isinstance(node, ScalarNode) and node.plain:
            if node.text == str(self.version):
                return self.version
            if self.newer(node):
                raise place.rejected(
                    f"this lading is too old for version {quoted(node.text)}: it reads "
                    f"version {self.version}; renew lading"
                )
        raise place.unexpected(f"the number {self.version}, the version of this format", node)

    def newer(self, node: Node) -> bool:
        """Whether the node names a version that is to come."""
        text = node.text if isinstance(node, ScalarNode) and node.plain else ""
        # Huge numbers are compared by length: Python refuses to convert beyond 4,300 digits.
        digits = re.fullmatch("[1-9][0-9]*", text) is not None
        return digits and (len(text) > 9 or int(text) > self.version)

    def schema(self) -> Schema:
        return {"const": self.version}


class Day(Struct, frozen=True, kw_only=True):
    """A day as 2021-08-15, quoted or not, that is not in the future."""

    def parse(self, node: Node, place: Place) -> date:
        if not isinstance(node, ScalarNode) or not re.fullmatch(
            "[0-9]{4}-[0-9]{2}-[0-9]{2}", node.text
        ):
            raise place.unexpected("a day, as 2021-08-15", node)
        try:
            day = date.fromisoformat(node.text)
        except ValueError:
            raise place.rejected(f"the calendar has no day {quoted(node.text)}") from None
        if day > place.report.today:
            raise place.rejected(
                f"expected today ({place.report.today}) or a day before, not {day}"
            )
        return day

    def schema(self) -> Schema:
        return {"type": "string", "format": "date", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}


class ProjectPath(Struct, frozen=True, kw_only=True):
    """A file of the project (or, with `folders`, a folder): its path from the project's root.

    It is relative, with `/`, without `..`; it exists; symbolic links don't lead out of the project.
    The result is the path without `.` and doubled `/`.
    """

    folders: bool = False
    text = Text(
        expected="a path that stays inside the project (relative, without '..')",
        pattern=rf"(?!/)(?!(?:.*/)?\.\.(?:/|$))[^{CONTROL}]+",
    )

    def parse(self, node: Node, place: Place) -> str:
        from lading.files import resolved  # which the schema alone does without

        path = os.path.normpath(self.text.parse(node, place))
        root = str(place.report.root)
        try:
            real = resolved(root, path)
            if real == root:
                raise place.rejected(
                    "expected a path below the project's folder, not the folder itself"
                )
            if not real.startswith(root.rstrip("/") + "/"):
                raise place.rejected(
                    f"{quoted(path)} is a symbolic link that leads out of the project"
                )
            mode = os.stat(real).st_mode  # noqa: PTH116 (pathlib is slow: one a file)
        except FileNotFoundError:
            raise place.rejected(f"there is no file {quoted(path)} in the project") from None
        except (OSError, ValueError) as error:  # ValueError: the name can't be encoded
            reason = error.strerror if isinstance(error, OSError) else "no name a file can have"
            raise place.rejected(f"{quoted(path)} can't be read: {reason}") from None
        if stat.S_ISREG(mode) or (self.folders and stat.S_ISDIR(mode)):
            return path
        raise place.rejected(
            f"{quoted(path)} is not a file{' or a folder' if self.folders else ''}"
        )

    def schema(self) -> Schema:
        return self.text.schema()
