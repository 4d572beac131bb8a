"""`--from FILE`: what people have already, by what kind of file it is."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lading import process
from lading.errors import DeclarationError
from lading.new import dockerfile
from lading.new.draft import Draft, Left, free
from lading.new.environments import decoded, take_environment
from lading.new.requirement_files import content, left_out, take
from lading.requirements import normalised, refused

KINDS = (
    "a requirements file (.txt, .in), environment.yml, pyproject.toml, uv.lock, pylock.toml "
    "or a Dockerfile"
)


def read(
    draft: Draft, path: Path, extras: Sequence[str] = (), arguments: Mapping[str, str] | None = None
) -> None:
    """Fills in a draft from a file; extras: of a Python project; arguments: values for ARG.

    Raises `DeclarationError` for a file that is of no known kind, or can't be understood.
    """
    name, shown = path.name, str(path)
    if not path.is_file():
        raise DeclarationError(f"there is no file {shown}")
    match = re.fullmatch
    if extras and name not in ("pyproject.toml", "uv.lock"):
        raise DeclarationError(f"{shown} has no extras: they are pyproject.toml's and uv.lock's")
    is_dockerfile = r"(?i)(dockerfile|containerfile)(\..+)?|.+\.(dockerfile|containerfile)"
    if match(is_dockerfile, name):
        dockerfile.read(draft, path, arguments or {})
    elif arguments:
        raise DeclarationError(f"{shown} has no ARG, for which --build-arg has a value")
    elif name.endswith((".yml", ".yaml")):
        take_environment(draft, path, shown)
    elif name == "pyproject.toml":
        _pyproject(draft, path, shown, extras)
    elif name == "uv.lock":
        _uv_lock(draft, path, shown, extras)
    elif match(r"pylock(\..+)?\.toml", name):
        _pylock(draft, path, shown)
    elif name.endswith((".txt", ".in")):
        draft.requirements.append(f"-r {take(draft, path, shown)}")
    else:
        raise DeclarationError(
            f"{shown}: what kind of file this is can't be told from its name",
            do=f"name {KINDS}",
        )


def _pyproject(draft: Draft, path: Path, shown: str, extras: Sequence[str]) -> None:
    """What the project needs: PEP 621's `dependencies`, and the extras that are named."""
    project = _toml(path, shown).get("project")
    if not isinstance(project, dict):
        raise DeclarationError(
            f"{shown}: it has no table [project] (PEP 621), where its dependencies would stand"
        )
    dynamic = _texts(project.get("dynamic", []), shown, "dynamic")
    if "dependencies" in dynamic or ("optional-dependencies" in dynamic and extras):
        raise DeclarationError(
            f"{shown}: its dependencies are `dynamic`: only its build knows them",
            do="name the file that they come from, as requirements.txt",
        )
    optional = project.get("optional-dependencies", {})
    if not isinstance(optional, dict):
        raise DeclarationError(f"{shown}: project.optional-dependencies is no table")
    known = {normalised(extra): extra for extra in optional}
    unknown = [extra for extra in extras if normalised(extra) not in known]
    if unknown:
        told = ", ".join(optional) or "none"
        raise DeclarationError(f"{shown}: it has no extra {unknown[0]!r}; its extras: {told}")
    name = str(project.get("name", ""))

    def needs(extra: str) -> list[str]:
        if extra not in known:
            return []  # that is a warning to pip
        return _texts(optional[known[extra]], shown, f"optional-dependencies.{known[extra]}")

    own = _texts(project.get("dependencies", []), shown, "dependencies")
    wanted = list(_resolved(own, name, needs))
    for extra in map(normalised, extras):
        wanted += _resolved(needs(extra), name, needs, frozenset([extra]))
    _lines(draft, shown, list(dict.fromkeys(wanted)))
    _not_itself(draft, shown, name)
    if project.get("requires-python"):
        draft.notes.append(f"{shown}: it wants Python {project['requires-python']}; the base's has")
        draft.notes[-1] += " to fit"


def _resolved(
    needed: Iterable[str],
    name: str,
    needs: Callable[[str], Sequence[str]],
    within: frozenset[str] = frozenset(),
    marker: str = "",
) -> Iterator[str]:
    """What is needed (PEP 508), with the project's own extras (`name[extra]`) as what these need:
    `needs` knows it by their normalised names (PEP 685). within: those that this is part of;
    marker: what all of it is subject to.
    """
    from packaging.markers import Marker
    from packaging.requirements import InvalidRequirement, Requirement

    for text in needed:
        try:
            one = Requirement(text)
        except InvalidRequirement:
            yield text  # what is wrong with it is said of all that can't be taken
            continue
        if marker:
            both = f"({marker}) and ({one.marker})" if one.marker else marker
            one.marker, text = Marker(both), ""
        if normalised(one.name) != normalised(name):
            yield text or str(one)
            continue
        for extra in sorted({normalised(extra) for extra in one.extras} - within):
            inner = within | {extra}
            yield from _resolved(needs(extra), name, needs, inner, str(one.marker or ""))


def _texts(value: object, shown: str, key: str) -> list[str]:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return list(value)
    raise DeclarationError(f"{shown}: project.{key} is no list of texts")


def _uv_lock(draft: Draft, path: Path, shown: str, extras: Sequence[str]) -> None:
    """What uv says is in its lock, with all hashes; it needs the pyproject.toml beside it."""
    if not path.with_name("pyproject.toml").is_file():
        raise DeclarationError(f"{shown}: uv reads it only with the pyproject.toml beside it")
    uv = Path(sys.executable).with_name("uv")
    command = [
        str(uv) if uv.exists() else "uv",
        *("export", "--frozen", "--offline", "--no-emit-project", "--no-dev", "--no-header"),
        *("--no-annotate", "--format", "requirements-txt", "--project", str(path.parent)),
        *(f"--extra={extra}" for extra in extras),
    ]
    ended = process.run(command)
    if ended.code != 0:
        raise DeclarationError(f"{shown}: uv can't read it", why=ended.errors or ended.output)
    name = free("requirements.in", draft.recipe)
    text = f"# What {path.name} had, written by `uv export`.\n{ended.output}"
    kept = [line for line in text.splitlines() if _kept(draft, shown, line)]
    draft.recipe[name] = "".join(f"{line}\n" for line in kept).encode()
    draft.requirements.append(f"-r {name}")
    _not_itself(draft, shown, "")


def _kept(draft: Draft, shown: str, line: str) -> bool:
    problem = None if line.startswith((" ", "#")) else refused(line.rstrip("\\ "))
    if problem is not None:
        left_out(draft, shown, line.rstrip("\\ "), problem)
    return problem is None


def _pylock(draft: Draft, path: Path, shown: str) -> None:
    """The packages of a PEP 751 lock, with the hashes of all their files."""
    from packaging.pylock import Pylock, PylockValidationError

    try:
        lock = Pylock.from_dict(_toml(path, shown))
    except PylockValidationError as error:
        raise DeclarationError(f"{shown}: this is no lock of PEP 751", why=str(error)) from None
    for package in lock.packages:
        files: list[Any] = list(package.wheels or ())
        files += [package.sdist] if package.sdist else []
        if not files or package.version is None:
            what = "a checkout, a folder or an archive of its own, which has no version to ask for"
            draft.left.append(Left(where=shown, text=str(package.name), why=what))
            continue
        hashes = sorted({file.hashes["sha256"] for file in files if "sha256" in file.hashes})
        marker = f" ; {package.marker}" if package.marker else ""
        pins = "".join(f" \\\n    --hash=sha256:{each}" for each in hashes)
        draft.requirements.append(f"{package.name}=={package.version}{marker}{pins}")


def _lines(draft: Draft, shown: str, wanted: Sequence[str]) -> None:
    for text in wanted:
        problem = refused(text)
        if problem is None:
            draft.requirements.append(text)
        else:
            left_out(draft, shown, text, problem)


def _not_itself(draft: Draft, shown: str, name: str) -> None:
    what = name or "the project itself"
    draft.notes.append(
        f"{shown}: what {what} needs goes in; {what} does not: name a wheel of it by URL"
    )


def _toml(path: Path, shown: str) -> dict[str, Any]:
    try:
        return tomllib.loads(decoded(content(path, shown), shown))
    except tomllib.TOMLDecodeError as error:
        raise DeclarationError(f"{shown}: this is not TOML: {error}") from None
