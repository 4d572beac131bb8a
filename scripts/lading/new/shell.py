"""Shell commands of a Dockerfile, taken apart as far as that can be done without running them.

What a shell would decide while it runs (if, for, $(…)) is not guessed at: `NotPlainError`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

_OPERATOR = re.compile(r"&&|\|\||;;|[;|&\n]")
_REDIRECT = re.compile(r"(?:[0-9]*|&)(?:>>|>\||>&|>|<<|<&|<)")
_VARIABLE = re.compile(
    r"\$(?:(?P<bare>[A-Za-z_][A-Za-z0-9_]*)"
    r"|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<how>:?[-+])(?P<other>[^{}$`]*))?\})"
)
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
# As many as there are: how many it is does not matter.
_PROCESSORS = re.compile(r"\$\(\s*nproc[^()`]*\)|`\s*nproc[^`]*`")
_KEYWORDS = frozenset(
    [
        "if",
        "then",
        "else",
        "elif",
        "fi",
        "for",
        "while",
        "until",
        "do",
        "done",
        "case",
        "esac",
        "{",
        "}",
        "!",
        "function",
    ]
)


class NotPlainError(Exception):
    """Only a shell could tell what this does: the reason."""


class Command(Struct, frozen=True, kw_only=True):
    """One command: its words without quotes, and its text as it stands, which begins `at`; `filled`
    with the values of its variables, or nothing where a quote keeps one from being filled in.

    joint: what stands before it ("", "&&", ";", "||", "|", "&"). variables: assignments before it.
    into: the file its output goes to, unless that is thrown away. unknown: variables without value.
    """

    words: tuple[str, ...]
    text: str
    filled: str = ""
    at: int = 0
    joint: str = ""
    variables: dict[str, str]
    into: str = ""
    unknown: tuple[str, ...] = ()


def substituted(text: str, variables: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """The text with its variables filled in, and the names of those that have no value."""
    unknown: list[str] = []

    def value(found: re.Match[str]) -> str:
        if found[0].startswith("\\"):
            return found[0][1:]
        given, missing = _value(found, variables)
        if missing:
            unknown.append(missing)
        return given

    pattern = re.compile(rf"\\\$|{_VARIABLE.pattern}")
    return pattern.sub(value, text), tuple(unknown)


def _value(found: re.Match[str], variables: Mapping[str, str]) -> tuple[str, str]:
    """What a variable stands for, and its name if it has no value."""
    name = found["bare"] or found["name"]
    there = variables.get(name)
    how, other = found["how"] or "", found["other"] or ""
    if how.endswith("+"):
        return (other if there or (there is not None and how == "+") else ""), ""
    if there or (there is not None and how != ":-"):
        return there, ""
    return (other, "") if how else (found[0], name)


def words_of(text: str, variables: Mapping[str, str]) -> tuple[list[str], tuple[str, ...]]:
    """The words of an instruction that is no command, as ENV and LABEL have them, and the
    variables without value.
    """
    reader = _Reader(text, variables, operators=False)
    reader.read()
    return reader.words, tuple(reader.unknown)


def commands(text: str, variables: Mapping[str, str]) -> list[Command]:
    """The commands of a text in their order. Raises `NotPlainError`."""
    text = _PROCESSORS.sub(lambda found: "2".ljust(len(found[0])), text)
    reader = _Reader(text, variables, operators=True)
    reader.read()
    return reader.found


class _Reader:
    """One pass over the text."""

    def __init__(self, text: str, variables: Mapping[str, str], *, operators: bool) -> None:
        self.text = text
        self.variables = dict(variables)
        self.operators = operators
        self.found: list[Command] = []
        self.at = 0
        self._begin("", 0)

    def _begin(self, joint: str, at: int) -> None:
        self.joint, self.start = joint, at
        self.words: list[str] = []
        self.quoted: list[bool] = []
        self.word: str | None = None
        self.bare = True
        self.unknown: list[str] = []
        self.into = ""
        self.redirect = ""

    def read(self) -> None:
        """All of it, into `found`."""
        text = self.text
        while self.at < len(text):
            char = text[self.at]
            operator = _OPERATOR.match(text, self.at) if self.operators else None
            redirect = _REDIRECT.match(text, self.at) if self.operators else None
            if text.startswith("\\\n", self.at):
                self.at += 2
            elif char == "\\" and self.at + 1 < len(text):
                self._add(text[self.at + 1], bare=False)
                self.at += 2
            elif char in "'\"":
                self._quoted(char)
            elif char == "$" or (char == "`" and self.operators):
                self._variable(split=self.operators)
            elif redirect and (self.word is None or not redirect[0][0].isdigit()):
                self._redirect(redirect)
            elif operator:
                self._end(operator[0])
            elif char in " \t\r\n":
                self._end_word()
                self.at += 1
            elif char == "#" and self.word is None and self.operators:
                found = text.find("\n", self.at)
                self.at = found if found >= 0 else len(text)
            elif char in "()" and self.operators:
                raise NotPlainError("a command in parentheses")
            else:
                self._add(char)
                self.at += 1
        if self.operators:
            self._end("")
        else:
            self._end_word()

    def _add(self, text: str, *, bare: bool = True) -> None:
        self.word = (self.word or "") + text
        self.bare = self.bare and bare

    def _quoted(self, quote: str) -> None:
        text, self.at = self.text, self.at + 1
        self._add("", bare=False)
        while self.at < len(text) and text[self.at] != quote:
            char = text[self.at]
            if quote == '"' and char == "\\" and text[self.at + 1 : self.at + 2] in '$`"\\\n':
                self._add(text[self.at + 1].strip("\n"), bare=False)
                self.at += 2
            elif quote == '"' and char in "$`":
                self._variable(split=False)
            else:
                self._add(char, bare=False)
                self.at += 1
        if self.at >= len(text):
            raise NotPlainError("a quote that does not close")
        self.at += 1

    def _variable(self, *, split: bool) -> None:
        found = _VARIABLE.match(self.text, self.at)
        if found is None:
            after = self.text[self.at + 1 : self.at + 2]
            if self.text[self.at] == "`" or after in ("(", "{"):
                raise NotPlainError("what only a shell can work out: $(…), `…` or ${…}")
            self._add("$")
            self.at += 1
            return
        value, missing = _value(found, self.variables)
        if missing:
            self.unknown.append(missing)
        # Without quotes, a shell makes several words of a value with spaces.
        for number, part in enumerate(re.split(r"\s+", value) if split else [value]):
            if number:
                self._end_word()
            if part or not split:
                self._add(part)
        self.at = found.end()

    def _redirect(self, found: re.Match[str]) -> None:
        if found[0].endswith("<<"):
            raise NotPlainError("a text that goes on in the next lines (<<)")
        self._end_word()
        self.at = found.end()
        self.redirect = found[0].lstrip("0123456789")

    def _end_word(self) -> None:
        word, self.word = self.word, None
        bare, self.bare = self.bare, True
        if word is None:
            return
        if self.redirect:
            harmless = self.redirect in (">&", "<&") or word == "/dev/null"
            self.into = self.into if harmless else word
            self.redirect = ""
            return
        if self.operators and not self.words and bare and word in _KEYWORDS:
            raise NotPlainError(f"a shell's own words ({word} …)")
        self.words.append(word)

    def _end(self, operator: str) -> None:
        self._end_word()
        if operator == ";;":
            raise NotPlainError("a shell's own words (case …)")
        variables: dict[str, str] = {}
        while self.words and (found := _ASSIGNMENT.fullmatch(self.words[0])):
            variables[found[1]] = found[2]
            del self.words[0]
        text = self.text[self.start : self.at]
        start = self.start + len(text) - len(text.lstrip())
        if not self.words:
            self.variables.update(variables)
        elif self.words[0] == "export":
            pairs = [_ASSIGNMENT.fullmatch(word) for word in self.words[1:]]
            self.variables.update({pair[1]: pair[2] for pair in pairs if pair})
        else:
            whole = " ".join(text.replace("\\\n", " ").split())
            quoted = "'" in whole and "$" in whole
            self.found.append(
                Command(
                    words=tuple(self.words),
                    text=whole,
                    filled="" if quoted else substituted(whole, self.variables)[0],
                    at=start,
                    joint=self.joint,
                    variables=variables,
                    into=self.into,
                    unknown=tuple(self.unknown),
                )
            )
        self.at += len(operator)
        joint = ";" if operator == "\n" else operator
        self._begin(joint, self.at)
