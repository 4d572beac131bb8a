"""`{axis}` in a text: what stands for a value of a matrix, and what is meant as it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

NAME = "[A-Za-z][A-Za-z0-9_-]*"
WORD = re.compile(rf"\{{\{{(?P<kept>{NAME})\}}\}}|(?<!\$)\{{(?P<axis>{NAME})\}}")
"""`{axis}`, or `{{word}}`, which is `{word}` to the letter. Other braces are only braces: a
shell's ${variable}, Python's {1: 2}.
"""


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with the values in their places; a word that is no axis stays as it is."""

    def value(found: re.Match[str]) -> str:
        if found["kept"]:
            return f"{{{found['kept']}}}"
        return values.get(found["axis"], found[0])

    return WORD.sub(value, text) if values and "{" in text else text


def filled_bytes(data: bytes, values: Mapping[str, str]) -> bytes:
    """The same for what a file holds; what is not UTF-8 stays as it is."""
    if not values or b"{" not in data:
        return data
    text = data.decode("utf-8", "surrogateescape")
    return filled(text, values).encode("utf-8", "surrogateescape")


def words(text: str) -> Iterator[str]:
    """The words in braces that mean an axis, in order."""
    for found in WORD.finditer(text) if "{" in text else ():
        if found["axis"]:
            yield found["axis"]
