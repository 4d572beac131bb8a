"""How channels are named in declarations and locks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from lading import net
from lading.errors import DeclarationError

NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*"
"""The name of a channel, as conda-forge or pkgs/main."""
URL = r"(?:https?|file)://[^\s?#\[\]]+"


def declared(channels: Iterable[tuple[str, str]]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The names of channels as declared, in order, and the URLs of those that are given by URL.

    `channels` are pairs of a channel and where it is declared. Raises `DeclarationError` for what
    is neither name nor URL, for credentials, and for two of one name.
    """
    names: list[str] = []
    urls: dict[str, str] = {}
    for text, where in channels:
        if re.fullmatch(URL, text):
            bare, credentials = net.without_credentials(text)
            if credentials is not None or re.search(r"/t/[^/]+/", text):
                raise DeclarationError(
                    f"{where}: a channel's URL with a password or token in it",
                    do="leave it out here, and put it into ~/.netrc or conda's own configuration",
                )
            name = last_part(bare)
            if name in names and urls.get(name) != bare.rstrip("/"):
                raise DeclarationError(
                    f"{where}: two channels called {name}",
                    do="give one of them another name in `custom_channels` of your .condarc, and "
                    "use that",
                )
            urls[name] = bare.rstrip("/")
        elif re.fullmatch(NAME, text):
            name = text
            if name in urls:
                raise DeclarationError(f"{where}: two channels called {name}")
        else:
            raise DeclarationError(
                f"{where}: {text!r} is no channel", do="a channel is a name, as conda-forge"
            )
        if name not in names:
            names.append(name)
    return tuple(names), urls


def last_part(url: str) -> str:
    """The name that a channel's URL gives it."""
    path = urlsplit(url).path
    name = re.sub(r"[^A-Za-z0-9._-]", "-", path.rstrip("/").rpartition("/")[2])
    return name if re.fullmatch(NAME, name) else "channel"
