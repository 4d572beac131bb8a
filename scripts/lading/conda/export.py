"""`conda env export` of a trial install: the script that makes it, and what it says, polished.

The name and the prefix of the trial, and where its channels are, mean nothing outside of it: what
counts are versions and builds.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lading.conda import environment
from lading.conda.channels import Channel
from lading.conda.names import URL, last_part
from lading.conda.versions import NAMED_PRIORITIES, OPTIONAL_PINS, since
from lading.errors import DeclarationError, LadingError

MARK = "==lading: exported=="
TRIAL = "lading-trial"


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """A package as exported; `channel` is its name where the export says it."""

    name: str
    version: str
    build: str
    channel: str = ""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What a trial install came to; `pip` are requirements that conda takes for pip's."""

    packages: tuple[Pinned, ...]
    pip: tuple[str, ...]


def script(channels: Iterable[Channel], specs: Sequence[str]) -> str:
    """Shell text that installs the specs into an environment of its own, and exports it."""
    given = " ".join(f"-c {shlex.quote(channel.name)}" for channel in channels)
    wanted = " ".join(shlex.quote(spec) for spec in specs)
    return (
        '[ -z "$SSL_CERT_FILE" ] || export CONDA_SSL_VERIFY="$SSL_CERT_FILE" '
        'REQUESTS_CA_BUNDLE="$SSL_CERT_FILE"\n'
        f"conda create -y -n {TRIAL} --override-channels {given} {wanted} &&\n"
        f"conda env export -n {TRIAL} >/tmp/export.yaml &&\n"
        f"echo && echo {shlex.quote(MARK)} && cat /tmp/export.yaml\n"
    )


def condarc(
    channels: Iterable[Channel], priority: str, version: str, pinned: Sequence[str] = ()
) -> str:
    """conda's configuration for the trial: where these channels are; it may hold passwords.

    pinned: what holds if a package comes along; an old conda is not told, and checked later.
    """
    named = since(version, NAMED_PRIORITIES)
    places = {
        channel.name: channel.url.rstrip("/").removesuffix(f"/{channel.name}")
        for channel in channels
    }
    return json.dumps(
        {
            "custom_channels": places,
            # conda 4 adds them to those that are given.
            "default_channels": [],
            "channel_priority": priority if named else priority == "strict",
            "pinned_packages": list(pinned) if since(version, OPTIONAL_PINS) else [],
            "show_channel_urls": False,
            "auto_update_conda": False,
        }
    )


def parse(output: str, channels: Mapping[str, str]) -> Exported:
    """What the script printed; `channels` are the URLs of those asked for, by name.

    Raises `LadingError` for what is no export.
    """
    found = re.search(rf"^{re.escape(MARK)}\n", output, re.MULTILINE)
    text = output[found.end() :] if found else ""
    try:
        said = environment.parse("export.yaml", text)
    except DeclarationError as error:
        raise _odd(error.what, text) from error
    packages: list[Pinned] = []
    for spec in said.specs:
        parts = spec.rest.split("=")
        if len(parts) != 3 or not all(parts):
            raise _odd(f"{spec.text!r} has not a version and a build", text)
        name, version, build = parts
        channel = _named(spec.channel, channels)
        packages.append(Pinned(name=name, version=version, build=build, channel=channel))
    if not packages:
        raise _odd("it names no package", text)
    return Exported(packages=tuple(packages), pip=tuple(line for line, _ in said.pip))


def _named(channel: str, channels: Mapping[str, str]) -> str:
    """A channel's name, where it may be given by its URL, without the folder of a platform."""
    if not re.fullmatch(URL, channel):
        return channel
    plain = re.sub(r"/(?:noarch|linux-[a-z0-9]+)/?$", "", channel).rstrip("/")
    return next((n for n, url in channels.items() if url.rstrip("/") == plain), last_part(plain))


def _odd(why: str, text: str) -> LadingError:
    return LadingError(
        "what `conda env export` said can't be read",
        why=f"{why}\n{text[:1000]}".strip(),
        do="locker: rattler, which needs no trial install",
    )
