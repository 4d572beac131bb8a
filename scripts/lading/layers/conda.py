"""The conda layer's lock: what is wanted of it, for the base's platform and glibc, and its files.

Three files: `conda.lock`, py-rattler's LockFile, is the truth; `explicit.txt`, conda's own form
of it, follows from it; `prefix.yaml` says what the packages' contents bring with them. All of
them name channels, none a server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from lading import locks
from lading.conda import environment, explicit
from lading.conda.activation import Variable
from lading.conda.environment import Environment
from lading.conda.explicit import Package
from lading.errors import DeclarationError, LadingError
from lading.facts import Facts
from lading.files import digest_of, write_text
from lading.layers.conda_section import LOCKERS, PREFIX, CondaSection
from lading.locks import Header
from lading.schema import axes
from lading.store import Artifact

FORMAT = 1
TAR = "prefix.tar"
"""What the staged prefix of a lock is called in the store, under its key."""
FILES = ("explicit.txt", "prefix.yaml", "conda.lock")
"""The lock's files; the one that makes it valid is the last."""

SUBDIRS = {"linux/amd64": ("linux-64", "x86_64"), "linux/arm64": ("linux-aarch64", "aarch64")}
"""What conda calls a platform, and its oldest processor."""

KERNEL = "4.18"
"""The Linux that packages are resolved for: of the oldest systems that HPC centres run (EL 8)."""


class Request(Struct, frozen=True, kw_only=True, dict=True):
    """Everything a conda lock is made from. `overridden`: variables that the image sets itself.
    `environment`: of several prefixes which one; empty for the first. `upon`: where pip's packages
    go on top of what a base's own conda has installed into its own prefix, the base's digest.
    """

    image: str
    section: CondaSection
    wanted: Environment
    names: tuple[str, ...]
    urls: Mapping[str, str]
    facts: Facts
    platform: str
    as_of: date | None
    overridden: tuple[str, ...] = ()
    environment: str = ""
    upon: str = ""

    @property
    def where(self) -> str:
        """Where in project.yaml it is asked for."""
        return _where(self.image, self.environment)

    @property
    def subdir(self) -> str:
        return SUBDIRS[self.platform][0]

    @property
    def specs(self) -> tuple[str, ...]:
        return tuple(spec.text for spec in self.wanted.specs)

    @property
    def constraints(self) -> tuple[str, ...]:
        """What holds although nobody asks for it: a base's own conda needs the base's Python."""
        if own(self.section, self.facts) and self.facts.python.startswith(f"{self.facts.conda}/"):
            return (f"python={'.'.join(self.facts.python_version.split('.')[:2])}.*",)
        return ()

    @property
    def virtual(self) -> tuple[tuple[str, str, str], ...]:
        """The virtual packages of the target: name, version, build. Never the host's."""
        found = [("__unix", "0", "0"), ("__linux", KERNEL, "0")]
        if self.facts.glibc:
            found.append(("__glibc", self.facts.glibc, "0"))
        found.append(("__archspec", "1", SUBDIRS[self.platform][1]))
        if self.section.cuda:
            found.append(("__cuda", self.section.cuda, "0"))
        return tuple(found)

    @property
    def target(self) -> str:
        """In words, what is resolved for."""
        said = f"glibc {self.facts.glibc}" if self.facts.glibc else "no glibc"
        cuda = f", CUDA {self.section.cuda}" if self.section.cuda else ""
        return f"{self.subdir}, {said}{cuda}" + (f", as of {self.as_of}" if self.as_of else "")

    @cached_property
    def digest(self) -> str:
        """The sha256 of the inputs: where channels are is none of them, nor the installer."""
        return digest_of(
            {
                "channels": self.names,
                "urls": dict(self.urls),
                "specs": self.specs,
                "constraints": self.constraints,
                "virtual": self.virtual,
                "subdir": self.subdir,
                "priority": self.section.channel_priority,
                "prefix": self.section.prefix,
                "as-of": str(self.as_of or ""),
                "overridden": self.overridden,
                **({} if self.section.locker == LOCKERS[0] else {"locker": self.section.locker}),
                **({"upon": self.upon} if self.upon else {}),
            }
        )


def request(
    root: Path,
    image: str,
    section: CondaSection,
    facts: Facts,
    platform: str,
    as_of: date | None,
    overridden: Sequence[str] = (),
    named: str = "",
    below_pip: str = "",
    values: Mapping[str, str] | None = None,
) -> Request:
    """Reads what is wanted, once; `named` is the environment, of several prefixes; `below_pip` the
    digest of the base, where pip's packages go on top; `values` are a variant's, by axis. Raises
    `DeclarationError` for what can't be locked.
    """
    where = _where(image, named)
    section = placed(where, section, facts)
    wanted = read_wanted(root, image, section, named, values)
    names, urls = environment.channels_of(wanted)
    if not names:
        raise DeclarationError(
            f"{where}: no channel is named",
            do="channels: [conda-forge]",
        )
    if not wanted.specs:
        raise DeclarationError(f"{where}: {section.file or 'packages'} names no package")
    if section.locker == "conda-export" and as_of is not None:
        raise DeclarationError(
            f"{where}.locker: a trial install is of today, and can't be as of {as_of}",
            do="leave out `as-of`, or `locker`",
        )
    return Request(
        image=image,
        section=section,
        wanted=wanted,
        names=names,
        urls=urls,
        facts=facts,
        platform=platform,
        as_of=as_of,
        overridden=tuple(sorted(overridden)),
        environment=named,
        upon=below_pip if own(section, facts) else "",
    )


def own(section: CondaSection, facts: Facts) -> bool:
    """Whether the base's own conda installs into its own prefix. What is there already stays."""
    return section.installer == "conda" and section.prefix == facts.conda


def _where(image: str, named: str) -> str:
    return f"images.{image}.conda" + (f".environments.{named}" if named else "")


def placed(here: str, section: CondaSection, facts: Facts) -> CondaSection:
    """The section with the prefix that it means on a base with these facts.

    Raises `DeclarationError` where the base lacks the conda that is asked for, or has one in the
    way.
    """
    for key, value in (("installer", section.installer), ("locker", section.locker)):
        if value.startswith("conda") and not facts.conda_version:
            raise DeclarationError(
                f"{here}.{key}: {value}, but the base has no conda",
                do=f"take a base that has one on its PATH, or leave `{key}` out; if it has one, "
                "lock the base again: doit upgrade:base:NAME",
            )
    if section.installer == "conda" and section.prefix == PREFIX:
        return replace(section, prefix=facts.conda)
    if section.installer != "conda" and section.prefix == facts.conda:
        raise DeclarationError(
            f"{here}: the base's own conda is in {facts.conda} already",
            do=("installer: conda, which installs into it; or " if facts.conda_version else "")
            + "another `prefix`, as /opt/packages",
        )
    return section


def read_wanted(
    root: Path,
    image: str,
    section: CondaSection,
    named: str = "",
    values: Mapping[str, str] | None = None,
) -> Environment:
    """What the section and its file ask for; the section's own channels go before the file's.
    `values`, of a variant, stand in the file's places of `{axis}`.
    """
    here = _where(image, named)
    if section.file:
        try:
            text = (root / section.file).read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise DeclarationError(f"{section.file}: can't be read", why=str(error)) from error
        wanted = environment.parse(section.file, axes.filled(text, values or {}))
    else:
        specs = [environment.checked(text, f"{here}.packages") for text in section.packages]
        wanted = Environment(specs=tuple(specs))
    own = tuple((channel, f"{here}.channels") for channel in section.channels)
    return replace(wanted, channels=(*own, *wanted.channels))


# -- the lock's files -----------------------------------------------------------------------


class CondaLock(Struct, frozen=True, kw_only=True, dict=True):
    """A conda lock as read.

    specs: what was asked for, for conda's own history. scripts: packages whose link scripts run
    in the image, with these scripts. distributions: the Python packages that come along, by
    normalised name (PEP 503).
    """

    header: Header
    packages: tuple[Package, ...]
    prefix: str
    specs: tuple[str, ...]
    variables: tuple[Variable, ...]
    scripts: tuple[tuple[str, tuple[str, ...]], ...]
    distributions: Mapping[str, str]
    texts: Mapping[str, str]

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        return tuple(package.artifact for package in self.packages)

    @property
    def python_version(self) -> str:
        """Of the Python among the packages; empty without one."""
        return next((p.version for p in self.packages if p.name == "python"), "")

    @cached_property
    def key(self) -> str:
        """The sha256 that the staged prefix is called by."""
        return prefix_key(self.prefix, self.specs, self.packages)


def prefix_key(prefix: str, specs: Sequence[str], packages: Sequence[Package]) -> str:
    """Of everything that a staged prefix is made from."""
    listed = [[package.url, package.sha256] for package in packages]
    return digest_of({"format": FORMAT, "prefix": prefix, "specs": specs, "packages": listed})


def read(folder: Path) -> CondaLock | None:
    """The lock in this folder; None if there is none. Raises `LadingError` if it is damaged, or
    explicit.txt is not what follows from conda.lock.
    """
    texts: dict[str, str] = {}
    for name in FILES:
        text = locks.read(folder / name)
        if text is None:
            return None
        texts[name] = text
    return parsed(texts, folder)


def parsed(texts: Mapping[str, str], folder: Path) -> CondaLock:
    """The lock out of its files' texts; `folder` is for messages."""
    paths = {name: str(folder / name) for name in FILES}
    header, _ = locks.split(texts["conda.lock"], paths["conda.lock"])
    for name in FILES[:2]:
        if locks.split(texts[name], paths[name])[0] != header:
            raise _apart(paths[name], "its header is another one")
    packages = explicit.locked(texts["conda.lock"], paths["conda.lock"])
    listed = explicit.listed(texts["explicit.txt"], paths["explicit.txt"])
    expected = tuple((package.url, package.sha256) for package in packages)
    if listed != expected:
        odd = sorted(set(listed) ^ set(expected))
        raise _apart(paths["explicit.txt"], odd[0][0] if odd else "the order is another one")
    said = _parse_prefix(texts["prefix.yaml"], paths["prefix.yaml"])
    return replace(said, header=header, packages=packages, texts=dict(texts))


def _apart(path: str, why: str) -> LadingError:
    return LadingError(
        f"{path}: does not follow from conda.lock",
        why=why,
        do="undo the edit, or delete conda.lock and lock again",
    )


def write(folder: Path, lock: CondaLock) -> None:
    """Writes the lock's files, conda.lock last."""
    for name in FILES:
        write_text(folder / name, lock.texts[name])


def _prefix_text(lock: CondaLock) -> str:
    """The body of prefix.yaml: YAML, in a form that is read line by line."""
    quote = json.dumps
    lines = [f"prefix: {lock.prefix}"]
    lines += ["specs:", *(f"  - {quote(spec)}" for spec in lock.specs)]
    if lock.variables:
        lines.append("variables:  # what activation would set")
        lines += [f"  {v.name}: {quote(v.value)}  # {v.script}" for v in lock.variables]
    if lock.scripts:
        lines.append("scripts:  # run while the image is built")
        lines += [f"  {name}: {quote(list(paths))}" for name, paths in lock.scripts]
    if lock.distributions:
        lines.append("python:  # what pip takes for installed")
        lines += [f"  {name}: {quote(version)}" for name, version in lock.distributions.items()]
    return "\n".join(lines) + "\n"


_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PREFIX_LINE = re.compile(
    r"prefix: (?P<prefix>/\S+)"
    r"|(?P<head>specs|variables|scripts|python):(?:  #.*)?"
    rf"|  - (?P<item>{_QUOTED})"
    rf"|  (?P<key>[\w.-]+): (?P<value>{_QUOTED}|\[.*\])(?:  # (?P<note>.*))?|"
)


def _parse_prefix(text: str, path: str) -> CondaLock:
    """What prefix.yaml says; the rest of the lock is empty. Raises `LadingError`."""
    header, body = locks.split(text, path)
    first = text[: len(text) - len(body)].count("\n") + 1
    prefix, head = "", ""
    specs: list[str] = []
    variables: list[Variable] = []
    scripts: list[tuple[str, tuple[str, ...]]] = []
    distributions: dict[str, str] = {}
    for number, line in enumerate(body.split("\n"), first):
        found = _PREFIX_LINE.fullmatch(line)
        try:
            if found is None:
                raise ValueError("not a line of a lock")
            head = found["head"] or head
            prefix = found["prefix"] or prefix
            value = json.loads(found["item"] or found["value"] or "null")
            if found["item"]:
                specs.append(value)
            elif found["key"] and head == "variables":
                one = Variable(name=found["key"], value=str(value), script=found["note"] or "")
                variables.append(one)
            elif found["key"] and head == "scripts":
                scripts.append((found["key"], tuple(map(str, value))))
            elif found["key"] and head == "python":
                distributions[found["key"]] = str(value)
        except ValueError as error:
            raise LadingError(
                f"{path}:{number}: not a lock of a conda prefix",
                why=str(error),
                do="undo the edit, or delete the file and lock again",
            ) from error
    return CondaLock(
        header=header,
        packages=(),
        prefix=prefix,
        specs=tuple(specs),
        variables=tuple(variables),
        scripts=tuple(scripts),
        distributions=distributions,
        texts={},
    )


def dressed(asked: Request, old: CondaLock | None, made: CondaLock) -> CondaLock:
    """The lock with its files' texts: one header, whose date moves when any of them moves."""
    bodies = {
        "conda.lock": made.texts["conda.lock"],
        "explicit.txt": explicit.render(made.packages, asked.subdir),
        "prefix.yaml": _prefix_text(made),
    }
    before = None
    if old is not None:
        kept = {name: locks.split(text, name)[1] for name, text in old.texts.items()}
        before = (old.header, "".join(f"{kept[name].strip()}\n" for name in FILES))
    header = locks.renewed(
        before,
        asked.digest,
        "".join(f"{bodies[name].strip()}\n" for name in FILES),
        f"doit lock:{asked.image}",
    )
    of = f", environment {asked.environment}" if asked.environment else ""
    about = {
        "conda.lock": f"The conda packages of the image {asked.image}{of}: {asked.target}.\n"
        "# A LockFile, as rattler and pixi have it; behind channel:/// stands a channel's name.",
        "explicit.txt": "The same as a list. For conda itself, put your channel_alias in the place "
        "of channel:// .",
        "prefix.yaml": "What these packages bring to the image with them.",
    }
    texts = {name: locks.text_of(header, bodies[name], about[name]) for name in FILES}
    return replace(made, header=header, texts=texts)
