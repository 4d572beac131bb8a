"""What a package's archive holds: whether it may be unpacked, and what matters of it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

ACTIVATION = "etc/conda/activate.d/"
VARIABLES = "etc/conda/env_vars.d/"
_LINK_SCRIPT = re.compile(r"bin/\.(?P<name>[^/]+)-(?:post|pre)-link\.sh")
_DISTRIBUTION = re.compile(
    # setuptools of old: NAME-VERSION-pyX.Y.egg-info
    r"(?:^|.*/)site-packages/([^/]+?)-([^/-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info(?:/|$)"
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A member of an archive: `link` is hard, symbolic or empty; `target` is where it leads."""

    name: str
    link: str = ""
    target: str = ""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a package brings.

    activation: its shell scripts that set variables when conda activates.
    variables: its JSON files that do.
    scripts: its scripts that run when it is installed.
    distributions: the Python packages in it, as (name, version).
    links, folders: its symbolic links, and the folders that it puts something into.
    """

    name: str = ""
    activation: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()
    distributions: tuple[tuple[str, str], ...] = ()
    links: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Contents:
        pairs = tuple((name, version) for name, version in data["distributions"])
        rest = {name: tuple(value) for name, value in data.items() if name != "name"}
        return cls(**{**rest, "name": data["name"], "distributions": pairs})


def contents(
    file: str,
    subdir: str,
    entries: Iterable[Entry],
    index: Mapping[str, Any],
    paths: Mapping[str, Any],
) -> Contents:
    """The contents of the package `file` in the folder `subdir` of its channel; `index` and `paths`
    are the JSON files in its info.
    """
    entries = list(entries)
    names = [entry.name for entry in entries]
    problems = [*dangers(entries), *_of_paths(paths)]
    expected = f"{index.get('name')}-{index.get('version')}-{index.get('build')}"
    stem = file.removesuffix(".conda").removesuffix(".tar.bz2")
    if expected != stem:
        problems.append(f"it says that it is {expected[:200]}")
    if index.get("subdir", subdir) != subdir:
        problems.append(f"it says that it is for {str(index['subdir'])[:200]}, not {subdir}")
    return Contents(
        name=stem.rsplit("-", 2)[0],
        activation=tuple(sorted(_below(names, ACTIVATION, ".sh"))),
        variables=tuple(sorted(_below(names, VARIABLES, ".json"))),
        scripts=tuple(sorted(name for name in names if _LINK_SCRIPT.fullmatch(name))),
        distributions=tuple(
            sorted({(m[1], m[2]) for name in names if (m := _DISTRIBUTION.match(name))})
        ),
        links=tuple(sorted(_placed(e.name) for e in entries if e.link == "symbolic")),
        folders=tuple(sorted({parent for name in names for parent in _parents(_placed(name))})),
        problems=tuple(problems),
    )


def together(packages: Iterable[Contents]) -> list[str]:
    """What stands against unpacking these packages into one prefix: a file of one that lies
    behind a link of another.
    """
    packages = list(packages)
    links = {link: package.name for package in packages for link in package.links}
    return [
        f"{package.name} puts files behind {folder!r}, which is a link in {links[folder]}"
        for package in packages
        for folder in package.folders
        if folder in links
    ]


def _placed(name: str) -> str:
    """A name such that a package for any Python and one for a certain Python compare."""
    return re.sub(r"^lib/python[0-9.]+/(?=site-packages/)", "", posixpath.normpath(name))


def _below(names: Sequence[str], folder: str, suffix: str) -> list[str]:
    return [name for name in names if name.startswith(folder) and name.endswith(suffix)]


def dangers(entries: Iterable[Entry]) -> list[str]:
    """Why an archive must not be unpacked: names and links that lead out of the prefix, and files
    behind links. An absolute link always leads out, for the prefix lies elsewhere at first.
    """
    found: list[str] = []
    links: set[str] = set()
    seen: set[str] = set()
    for entry in entries:
        name = posixpath.normpath(entry.name)
        if _escapes(entry.name):
            found.append(f"{entry.name!r} lies outside of the prefix")
            continue
        through = [parent for parent in _parents(name) if parent in links]
        if through:
            found.append(f"{entry.name!r} lies behind the link {through[0]!r}")
        if entry.link == "symbolic":
            if entry.target.startswith("/") or "\0" in entry.target or _winds(entry.target):
                found.append(f"the link {entry.name!r} leads to {entry.target!r}")
            elif _escapes(posixpath.join(posixpath.dirname(name), entry.target)):
                found.append(f"the link {entry.name!r} leads out of the prefix: {entry.target!r}")
            links.add(name)
        elif entry.link == "hard":
            target = posixpath.normpath(entry.target)
            if _escapes(entry.target) or any(parent in links for parent in _parents(target)):
                found.append(f"the hard link {entry.name!r} leads to {entry.target!r}")
            elif target not in seen:
                found.append(f"the hard link {entry.name!r} leads to nothing: {entry.target!r}")
        seen.add(name)
    return found


def _of_paths(paths: Mapping[str, Any]) -> list[str]:
    """The same for info/paths.json, whose names are what an installer goes by."""
    listed = paths.get("paths", [])
    if not isinstance(listed, list):
        return ["info/paths.json is no list of paths"]
    names = [path["_path"] for path in listed if isinstance(path, dict) and "_path" in path]
    if not all(isinstance(name, str) for name in names) or len(names) != len(listed):
        return ["info/paths.json is no list of paths"]
    return [
        f"{name!r}, in info/paths.json, lies outside of the prefix"
        for name in names
        if _escapes(name)
    ]


def _escapes(path: str) -> bool:
    inside = posixpath.normpath(path)
    return path.startswith("/") or "\0" in path or inside == ".." or inside.startswith("../")


def _winds(path: str) -> bool:
    """Whether a path goes up after it went down: where to depends on other links."""
    return re.search(r"(?:^|/)(?!\.\.?/)[^/]+/(?:.*/)?\.\.(?:/|$)", path) is not None


def _parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts))]
