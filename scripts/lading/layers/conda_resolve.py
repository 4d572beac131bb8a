"""Resolving a conda lock: by py-rattler, or, with `locker: conda-export`, by a trial install.

What was resolved is fetched, and looked into: the packages' contents say what else they bring.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta

from msgspec.structs import replace

from lading import locks
from lading.conda import environment, explicit, worker
from lading.conda.activation import Variable
from lading.conda.channels import Channels
from lading.conda.explicit import Package
from lading.conda.names import declared
from lading.conda.versions import CONDA_FORMAT, since
from lading.errors import DeclarationError, EnvironmentProblem, LadingError
from lading.layers import conda, conda_own, conda_store, conda_trial
from lading.layers.conda import CondaLock, Request
from lading.layers.kind import Tools
from lading.locks import Header
from lading.requirements import normalised


def lock(asked: Request, old: CondaLock | None, tools: Tools) -> CondaLock:
    """Resolves a request, fetches what it resolved to, and looks what that brings along; pins of
    `old` are kept where they still fit. Raises `LadingError` with the solver's explanation.
    """
    channels = Channels(environ=tools.environ, named=asked.urls)
    for line in asked.wanted.ignored:
        tools.note(f"  {line}")
    exported = None
    if asked.section.locker == "conda-export":
        exported = conda_trial.tried(asked, channels, tools)
        body = conda_trial.solved(asked, exported, channels, tools)
    else:
        body = solved(asked, old, channels, tools)
    packages = explicit.locked(body, "conda.lock")
    foreign = [p for p in packages if p.subdir not in (asked.subdir, "noarch")]
    if foreign:
        raise LadingError(f"{foreign[0].file} is for {foreign[0].subdir}, not {asked.subdir}")
    refuse_unread(asked, packages)
    contents = conda_store.fetched(packages, channels, tools)
    stays = conda_own.distributions(asked, packages, tools) if asked.upon else {}
    made = CondaLock(
        header=Header(command="", date=locks.today(), inputs=""),
        packages=packages,
        prefix=asked.section.prefix,
        specs=asked.specs,
        variables=(),
        scripts=tuple((c.name, c.scripts) for c in contents if c.scripts),
        distributions={
            **stays,
            **{
                normalised(name): version
                for one in contents
                for name, version in sorted(one.distributions)
            },
        },
        texts={"conda.lock": body},
    )
    if exported is not None:
        conda_trial.refuse_pip(asked, exported, made.distributions, tools)
    variables: tuple[Variable, ...] = ()
    if not asked.environment:
        variables = conda_store.activated(asked, made, contents, tools)
    return conda.dressed(asked, old, replace(made, variables=variables))


def refuse_unread(asked: Request, packages: Sequence[Package]) -> None:
    """Raises `LadingError` for packages in a format that the conda that installs does not read."""
    version = asked.facts.conda_version
    if asked.section.installer != "conda" or since(version, CONDA_FORMAT):
        return
    newer = [package.file for package in packages if package.file.endswith(".conda")]
    if newer:
        raise LadingError(
            f"images.{asked.image}.conda: the base's conda {version} reads no .conda packages",
            why="\n".join(newer[:10]),
            do="a base with conda 4.7 or newer, `installer: rattler`, or versions from a time when "
            "packages were .tar.bz2 (as-of)",
        )


def solved(asked: Request, old: CondaLock | None, channels: Channels, tools: Tools) -> str:
    """The LockFile that py-rattler resolves the request to.

    Raises `DeclarationError` for a spec that is none, `EnvironmentProblem` for a channel that
    can't be asked, `LadingError` with the reason where nothing fits.
    """
    every = channels.all(asked.names)
    question = {
        "channels": [{"name": c.name, "url": c.url} for c in every],
        "specs": [_with_url(spec, channels) for spec in asked.wanted.specs],
        "constraints": list(asked.constraints),
        "virtual": [list(one) for one in asked.virtual],
        "subdir": asked.subdir,
        "priority": asked.section.channel_priority,
        # The whole of that day counts.
        "before": str(asked.as_of + timedelta(days=1)) if asked.as_of else "",
        "kept": [[p.file, p.sha256] for p in old.packages] if old is not None else [],
        "cache": str(tools.store.root / "repodata"),
    }
    try:
        text: str = conda_store.answered("solve", question, tools, channels.settings)
    except worker.Refused as refused:
        raise _explained(asked, refused, [c.name for c in every]) from refused
    return text


def _with_url(spec: environment.Spec, channels: Channels) -> str:
    """A spec as the solver takes it: it knows a single package's channel by its URL."""
    if not spec.channel:
        return spec.text
    (name,), _ = declared([(spec.channel, spec.where)])
    return f"{channels.one(name).url}::{spec.rest}"


def _explained(asked: Request, refused: worker.Refused, channels: Sequence[str]) -> LadingError:
    """Why nothing was resolved, in plain words."""
    named = ", ".join(channels)
    if refused.kind == "spec":
        text = str(refused.found["spec"])
        where = next(
            (spec.where for spec in asked.wanted.specs if text.endswith(spec.rest)),
            f"{asked.where}",
        )
        return DeclarationError(f"{where}: {text!r} is no spec of a package", why=refused.text)
    if refused.kind == "channel":
        return EnvironmentProblem(
            f"{asked.where}: a channel can't be read ({named})",
            why=refused.text.replace("Caused by: ", ""),
            do="check the channel's name, the network, and `channel_alias` and "
            "`custom_channels` in your .condarc",
        )
    if refused.kind != "unsolved":
        return LadingError(f"{asked.where}: {refused.text}")
    why = refused.text.removeprefix("Cannot solve the request because of: ").strip()
    hints = list(_hints(asked, why, refused.found.get("lacking", {})))
    guilty = [
        f"{spec.where}: {spec.text}"
        for spec in asked.wanted.specs
        if re.search(rf"(?<![\w.-]){re.escape(spec.name)}(?![\w.-])", why)
    ]
    return LadingError(
        f"{asked.where}: no packages of {named} fit {asked.target}",
        why=condensed(why) + ("\n\nasked for in\n" + "\n".join(guilty[:8]) if guilty else ""),
        do="; ".join(hints) or "loosen one of these specs",
    )


def _hints(
    asked: Request, why: str, lacking: Mapping[str, Mapping[str, Sequence[str]]]
) -> list[str]:
    hints: list[str] = []
    for name, found in lacking.items():
        if found.get("elsewhere"):
            there = ", ".join(found["elsewhere"])
            hints.append(f"{name} is there for {there}, not for {asked.subdir}")
        elif found.get("near"):
            hints.append(f"there is no {name}; do you mean {', '.join(found['near'])}?")
        elif found.get("versions"):
            hints.append(f"of {name} there are {', '.join(found['versions'])}")
        else:
            hints.append(f"there is no {name} in these channels")
    if "__glibc" in why:
        has = f"has glibc {asked.facts.glibc}" if asked.facts.glibc else "has no glibc"
        hints.append(f"the base {has}: choose a newer base, or older packages")
    if "__cuda" in why and not asked.section.cuda:
        hints.append("packages for CUDA are resolved with `cuda:`, as cuda: 12.4")
    return hints


LONGEST = 40
"""Lines of an explanation that are shown."""


def condensed(text: str) -> str:
    """The solver's explanation, cut to what a screen holds."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    if len(lines) > LONGEST:
        lines = [*lines[:LONGEST], f"… and {len(lines) - LONGEST} lines more"]
    return "\n".join(lines)
