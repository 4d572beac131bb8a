"""What people write down for conda: environment.yaml, or a list of packages, one a line."""

from __future__ import annotations

import re
from functools import lru_cache

from msgspec import Struct, field

from lading.conda.names import declared
from lading.errors import DeclarationError
from lading.schema.nodes import ListNode, MapNode, Node, ScalarNode, UnreadableError, read

IGNORED = {
    "name": "the image's name counts",
    "prefix": "`prefix:` in project.yaml counts",
    "platforms": "`platform:` in project.yaml counts",
}
_SPEC = r"(?:(?P<channel>[^\s:]+(?:://[^\s:]+(?::\d+[^\s:]*)?)?)::)?(?P<rest>[A-Za-z0-9_*.].*)"


class Spec(Struct, frozen=True, kw_only=True):
    """One line for conda's solver, and where it stands: "recipes/x/environment.yaml:7"."""

    text: str
    where: str

    @property
    def channel(self) -> str:
        """The channel in CHANNEL::PACKAGE, or nothing."""
        found = re.fullmatch(_SPEC, self.text)
        return (found["channel"] or "") if found else ""

    @property
    def rest(self) -> str:
        """The spec without its channel."""
        found = re.fullmatch(_SPEC, self.text)
        return found["rest"] if found else self.text

    @property
    def name(self) -> str:
        """The package's name."""
        return re.split(r"[\s=<>!~\[]", self.rest, maxsplit=1)[0].lower()


class Environment(Struct, frozen=True, kw_only=True):
    """What is asked for. `channels` are pairs of channel and where it stands, as are `pip`, the
    lines of the `pip:` section; `ignored` says what was read and means nothing here.
    """

    channels: tuple[tuple[str, str], ...] = ()
    specs: tuple[Spec, ...] = ()
    pip: tuple[tuple[str, str], ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


@lru_cache(maxsize=64)
def parse(path: str, text: str) -> Environment:
    """The environment that a file asks for: YAML by its name, else a list.

    Raises `DeclarationError` with the line of what can't be understood.
    """
    return _yaml(path, text) if path.endswith((".yaml", ".yml")) else _list(path, text)


def _list(path: str, text: str) -> Environment:
    specs: list[Spec] = []
    for number, line in enumerate(text.splitlines(), 1):
        content = re.sub(r"(^|\s)#.*$", "", line).strip()
        if content:
            specs.append(checked(content, f"{path}:{number}"))
    return Environment(specs=tuple(specs))


def checked(text: str, where: str) -> Spec:
    """A spec, looked at only as far as it must be before conda's solver reads it."""
    if re.match(r"@EXPLICIT|[./~]|[a-z]+://(?!\S+::)", text):
        raise DeclarationError(
            f"{where}: {text[:200]!r} names a file, not a package",
            do="name the packages: lading resolves them, and locks each with its sha256",
        )
    if not re.fullmatch(_SPEC, text):
        raise DeclarationError(
            f"{where}: {text[:200]!r} is no package", do="write it as NAME, NAME=1.2 or 'NAME>=1.2'"
        )
    return Spec(text=text, where=where)


def _yaml(path: str, text: str) -> Environment:
    try:
        tree = read(text)
    except UnreadableError as error:
        raise DeclarationError(f"{path}:{error.line}: {error.message}") from None
    if not isinstance(tree, MapNode):
        raise DeclarationError(
            f"{path}:1: expected a mapping with the key 'dependencies', as conda has it"
        )
    found = _Reader(path)
    for key, value in tree.pairs:
        found.key(key, value)
    return Environment(
        channels=tuple(found.channels),
        specs=tuple(found.specs),
        pip=tuple(found.pip),
        variables=found.variables,
        ignored=tuple(found.ignored),
    )


class _Reader:
    """Reads environment.yaml key by key."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.channels: list[tuple[str, str]] = []
        self.specs: list[Spec] = []
        self.pip: list[tuple[str, str]] = []
        self.variables: dict[str, str] = {}
        self.ignored: list[str] = []

    def key(self, key: Node, value: Node) -> None:
        name = key.text if isinstance(key, ScalarNode) else ""
        match name:
            case "channels":
                for item in self._items(value, "a list of channels"):
                    text = self._text(item, "the name of a channel")
                    if text != "nodefaults":  # it means that nothing is added, as here
                        self.channels.append((text, self._at(item)))
            case "dependencies":
                for item in self._items(value, "a list of packages"):
                    self._dependency(item)
            case "variables":
                self._variables(value)
            case _:
                reason = IGNORED.get(name, "it means nothing here")
                self.ignored.append(f"{self._at(key)}: {name or 'a key'}: ignored; {reason}")

    def _dependency(self, item: Node) -> None:
        if isinstance(item, MapNode):
            for key, value in item.pairs:
                if not isinstance(key, ScalarNode) or key.text != "pip":
                    raise DeclarationError(
                        f"{self._at(key)}: expected a package, or the key 'pip' with a list"
                    )
                for line in self._items(value, "a list of requirements"):
                    self.pip.append(
                        (self._text(line, "a requirement, as pip has it"), self._at(line))
                    )
            return
        self.specs.append(checked(self._text(item, "a package"), self._at(item)))

    def _variables(self, value: Node) -> None:
        if not isinstance(value, MapNode):
            raise DeclarationError(f"{self._at(value)}: expected a mapping of variables")
        for key, item in value.pairs:
            name = self._text(key, "the name of a variable")
            if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
                raise DeclarationError(f"{self._at(key)}: {name!r} is no name of a variable")
            self.variables[name] = self._text(item, "a text", empty=True)

    def _items(self, node: Node, expected: str) -> list[Node]:
        if isinstance(node, ScalarNode) and node.null:
            return []
        if not isinstance(node, ListNode):
            raise DeclarationError(f"{self._at(node)}: expected {expected}")
        return node.items

    def _text(self, node: Node, expected: str, *, empty: bool = False) -> str:
        if (
            not isinstance(node, ScalarNode)
            or "\n" in node.text
            or not (empty or node.text.strip())
        ):
            raise DeclarationError(f"{self._at(node)}: expected {expected}")
        return node.text.strip()

    def _at(self, node: Node) -> str:
        return f"{self.path}:{node.line}"


def channels_of(found: Environment) -> tuple[tuple[str, ...], dict[str, str]]:
    """All channels that an environment names, those of single packages last, and the URLs of
    those that it gives by URL. Raises `DeclarationError`.
    """
    single = [(spec.channel, spec.where) for spec in found.specs if spec.channel]
    return declared([*found.channels, *single])
