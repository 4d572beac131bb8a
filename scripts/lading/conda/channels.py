"""Channels by name: where the user's configuration says that they are.

A declaration and a lock hold names; a URL is looked up when a server is asked. What conda takes
for a name's URL without any configuration is the library's own default, and stands nowhere here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import quote

from lading import net
from lading.conda import condarc, worker
from lading.conda.condarc import Settings
from lading.conda.names import URL, last_part
from lading.errors import EnvironmentProblem


@dataclass(frozen=True, kw_only=True)
class Channel:
    """A channel: its name, and its URL, credentials included: not to be shown as it is."""

    name: str
    url: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Looks channels up for a process with this environment.

    named: channels that the declaration gives by URL, by the name that the lock gives them.
    """

    environ: Mapping[str, str] = field(repr=False)
    named: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def settings(self) -> Settings:
        return condarc.settings(self.environ)

    def all(self, names: Iterable[str]) -> tuple[Channel, ...]:
        """The channels of these names, in order; a name that stands for several gives these."""
        found: dict[str, Channel] = {}
        for name in names:
            for one in self._several(name):
                channel = self.one(one)
                found.setdefault(channel.name, channel)
        return tuple(found.values())

    def one(self, name: str) -> Channel:
        """The channel of a name (or a URL, in a configuration's list of several)."""
        if re.fullmatch(URL, name):
            return Channel(name=last_part(name), url=self._with_token(name))
        if name in self.named:
            return Channel(name=name, url=self._with_token(self.named[name]))
        return Channel(name=name, url=self._with_token(f"{self._below(name)}/{name}"))

    def _several(self, name: str) -> tuple[str, ...]:
        if name in self.settings.several:
            return self.settings.several[name]
        if name == "defaults" and name not in self.settings.custom:
            raise EnvironmentProblem(
                "the channel `defaults` stands for several, and nothing says for which",
                do="name the channels themselves, or set `default_channels` in ~/.condarc",
            )
        return (name,)

    def _below(self, name: str) -> str:
        """The URL that a channel's name is put behind."""
        parts = name.split("/")
        for length in range(len(parts), 0, -1):
            url = self.settings.custom.get("/".join(parts[:length]))
            if url is not None:
                return url.rstrip("/")
        return (self.settings.alias or worker.default_alias()).rstrip("/")

    def _with_token(self, url: str) -> str:
        bare, known = net.without_credentials(url)
        if known is not None or "/t/" in url:
            return url
        for place, token in self.settings.tokens.items():
            if token and (bare == place or bare.startswith(f"{place}/")):
                return f"{place}/t/{quote(token, safe='')}{bare[len(place) :]}"
        return url
