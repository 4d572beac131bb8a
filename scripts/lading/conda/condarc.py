"""What the user has told conda about channels, read as conda reads it; never written.

The files, their order and how they are merged: 'Using the .condarc conda configuration file' in
conda's manual. A later file goes before an earlier one, CONDA_* variables before all files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

from lading import files
from lading.errors import EnvironmentProblem
from lading.schema.nodes import ListNode, MapNode, Node, ScalarNode, UnreadableError, read

SYSTEM = Path("/")
"""Below it lie the configuration files of the whole machine."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """conda's settings about channels. `alias` is empty for the default of the tool that asks.

    custom: a channel's name (or how it begins) to the URL below which it lies.
    several: a name that stands for several channels, to these.
    tokens: the URLs that a token of anaconda-client is for.
    """

    alias: str = ""
    custom: Mapping[str, str] = field(default_factory=dict)
    several: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    proxies: Mapping[str, str] = field(default_factory=dict)
    certificates: str = ""
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)


def settings(environ: Mapping[str, str]) -> Settings:
    """The settings in force for a process with this environment.

    Raises `EnvironmentProblem` for a file that conda could not read either.
    """
    scalars: dict[str, str] = {}
    maps: dict[str, dict[str, Any]] = {"custom_channels": {}, "custom_multichannels": {}}
    maps["proxy_servers"] = {}
    defaults: list[str] = []
    for path in _files(environ):
        found = _read(path, environ)
        for name in ("channel_alias", "ssl_verify"):
            if isinstance(found.get(name), str):
                scalars[name] = found[name]
        for name, merged in maps.items():
            if isinstance(found.get(name), dict):
                merged.update(found[name])
        if isinstance(found.get("default_channels"), list):
            more = found["default_channels"]
            defaults = [*more, *(one for one in defaults if one not in more)]
    for name in ("channel_alias", "ssl_verify"):
        if environ.get(f"CONDA_{name.upper()}"):
            scalars[name] = environ[f"CONDA_{name.upper()}"]
    several = {
        name: tuple(map(str, channels))
        for name, channels in maps["custom_multichannels"].items()
        if isinstance(channels, list)
    }
    if environ.get("CONDA_DEFAULT_CHANNELS"):
        defaults = [one for one in re.split(r"[,&]", environ["CONDA_DEFAULT_CHANNELS"]) if one]
    if defaults:
        several["defaults"] = tuple(map(str, defaults))
    verify = scalars.get("ssl_verify", "")
    return Settings(
        alias=scalars.get("channel_alias", ""),
        custom={name: str(url) for name, url in maps["custom_channels"].items()},
        several=several,
        proxies={name: str(url) for name, url in maps["proxy_servers"].items() if url},
        certificates=str(files.at_home(verify)) if "/" in verify else "",
        tokens=_tokens(environ),
    )


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    """The files there are, the one that counts most last."""
    home = files.at_home(environ.get("HOME") or "~")
    places = [
        SYSTEM / "etc/conda/.condarc",
        SYSTEM / "etc/conda/condarc",
        SYSTEM / "etc/conda/condarc.d",
        SYSTEM / "var/lib/conda/.condarc",
        SYSTEM / "var/lib/conda/condarc",
        SYSTEM / "var/lib/conda/condarc.d",
    ]
    root = environ.get("CONDA_ROOT") or _root_of(environ.get("CONDA_EXE", ""))
    folders = [Path(root)] if root else []
    if environ.get("XDG_CONFIG_HOME"):
        folders.append(Path(environ["XDG_CONFIG_HOME"]) / "conda")
    folders += [home / ".config" / "conda", home / ".conda"]
    for folder in folders:
        places += [folder / ".condarc", folder / "condarc", folder / "condarc.d"]
    places.append(home / ".condarc")
    if environ.get("CONDA_PREFIX"):
        prefix = Path(environ["CONDA_PREFIX"])
        places += [prefix / ".condarc", prefix / "condarc", prefix / "condarc.d"]
    if environ.get("CONDARC"):
        places.append(files.at_home(environ["CONDARC"]))
    for place in dict.fromkeys(places):
        if place.is_file():
            yield place
        elif place.is_dir():
            yield from sorted(path for path in place.iterdir() if path.suffix in (".yml", ".yaml"))


def _root_of(program: str) -> str:
    return str(Path(program).parent.parent) if program else ""


def _read(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        tree = read(path.read_text(encoding="utf-8"))
    except UnreadableError as error:
        raise EnvironmentProblem(
            f"{path}:{error.line}: conda's configuration can't be read", why=error.message
        ) from None
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(
            f"{path}: conda's configuration can't be read", why=str(error)
        ) from error
    found = _plain(tree, environ) if tree is not None else {}
    return found if isinstance(found, dict) else {}


def _plain(node: Node, environ: Mapping[str, str]) -> Any:
    """A node as plain data; variables in texts are put in, as conda does."""
    match node:
        case ScalarNode():
            return "" if node.null else _expanded(node.text, environ)
        case ListNode():
            return [_plain(item, environ) for item in node.items]
        case MapNode():
            return {
                key.text: _plain(value, environ)
                for key, value in node.pairs
                if isinstance(key, ScalarNode)
            }


def _expanded(text: str, environ: Mapping[str, str]) -> str:
    return re.sub(
        r"\$(?:\{(\w+)\}|(\w+))", lambda m: environ.get(m[1] or m[2], m[0]), text, flags=re.ASCII
    )


def _tokens(environ: Mapping[str, str]) -> dict[str, str]:
    """anaconda-client's tokens: files named by the URL they are for."""
    home = files.at_home(environ.get("HOME") or "~")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    folders = [data / "binstar", home / ".continuum" / "binstar", config / "binstar"]
    if environ.get("BINSTAR_CONFIG_DIR"):
        folders = [Path(environ["BINSTAR_CONFIG_DIR"]) / "data"]
    found: dict[str, str] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.token")) if folder.is_dir() else ():
            url = unquote_plus(path.name.removesuffix(".token")).rstrip("/")
            try:
                token = path.read_text().strip()
            except (OSError, ValueError):
                continue
            # A token for the site's API is also for its channels.
            found[url] = token
            found[re.sub(r"([./])api([./]|$)", r"\1conda\2", url, count=1)] = token
    return found
