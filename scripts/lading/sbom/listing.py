"""What an image consists of: what it has installed, with what its locks say of it.

Names are package URLs (the purl specification), which say what a thing is and never where it is
to be had.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace
from packageurl import PackageURL

from lading import references
from lading.compose import Locked
from lading.debian import Deb
from lading.layers.apt import AptLock
from lading.layers.conda import CondaLock
from lading.layers.pip import PipLock
from lading.layers.source import SourceLock
from lading.layers.source_section import SourceBuild
from lading.project import Base
from lading.requirements import Pin, normalised
from lading.sbom.installed import Installed, InstalledConda, InstalledDeb


class Component(Struct, frozen=True, kw_only=True):
    """One thing that an image is made of.

    sha256: of the file it came in, in hexadecimal. wants: the refs of those it depends on.
    declared: whether project.yaml or a file of requirements asks for it. made_with: for what it
    was there when the image was made, which has it not: "to build mpi4py".
    """

    ref: str
    name: str
    version: str = ""
    kind: Literal["library", "container", "operating-system"] = "library"
    purl: PackageURL | None = None
    sha256: str = ""
    licences: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    declared: bool = False
    made_with: tuple[str, ...] = ()


class FromSource(Struct, frozen=True, kw_only=True):
    """A source that an image has: its lock, and the packages that it was compiled with."""

    source: SourceBuild
    lock: SourceLock
    tools: AptLock | None = None


def of(
    base: Base,
    locked: Locked,
    sources: Sequence[FromSource],
    installed: Installed,
    specs: Iterable[str] = (),
) -> tuple[Component, ...]:
    """All components, each once, sorted by their refs. specs: the conda packages (their names) that
    are asked for.
    """
    apts = [layer.lock for layer in locked.layers if isinstance(layer.lock, AptLock)]
    condas = [layer.lock for layer in locked.layers if isinstance(layer.lock, CondaLock)]
    pips = [layer.lock for layer in locked.layers if isinstance(layer.lock, PipLock)]
    return _once(
        [
            *_base(base, locked, installed),
            *_debian(locked, apts, sources, installed),
            *_sources(sources),
            *_conda(condas, installed, {*specs}),
            *_python(pips, installed),
        ]
    )


def _once(found: Iterable[Component]) -> tuple[Component, ...]:
    """Each component once. What is in the image is not what it was only made with."""
    known: dict[str, Component] = {}
    for one in found:
        other = known.get(one.ref)
        if other is None or (other.made_with and not one.made_with):
            known[one.ref] = one
        elif other.made_with:
            both = dict.fromkeys((*other.made_with, *one.made_with))
            known[one.ref] = replace(other, made_with=tuple(both))
        else:
            known[one.ref] = replace(
                other,
                sha256=other.sha256 or one.sha256,
                licences=other.licences or one.licences,
                wants=tuple(dict.fromkeys((*other.wants, *one.wants))),
                declared=other.declared or one.declared,
            )
    return tuple(
        replace(one, wants=tuple(sorted({ref for ref in one.wants if ref in known} - {one.ref})))
        for _, one in sorted(known.items())
    )


def purl(
    kind: str,
    name: str,
    version: str,
    *,
    namespace: str = "",
    **qualifiers: str,
) -> PackageURL:
    """A package URL; qualifiers that say nothing are left out."""
    said = {key: value for key, value in qualifiers.items() if value}
    return PackageURL(kind, namespace or None, name, version or None, said)


def _component(url: PackageURL, **more: object) -> Component:
    fields = {"name": url.name, "version": url.version or "", **more}
    return Component(ref=url.to_string(), purl=url, **fields)  # type: ignore[arg-type]


# -- the base -------------------------------------------------------------------------------


def _base(base: Base, locked: Locked, installed: Installed) -> Iterator[Component]:
    if base.image is not None and locked.base.digest:
        found = references.parse(base.image)
        url = purl(
            "oci",
            found.repository.rpartition("/")[2],
            locked.base.digest,
            repository_url=f"{found.registry}/{found.repository}",
            tag=found.tag,
        )
        yield _component(url, kind="container", declared=True)
    name, release = _system(locked, installed)
    if name:
        yield Component(
            ref=f"os:{name}-{release}".rstrip("-"),
            name=name,
            version=release,
            kind="operating-system",
            declared=True,
        )


def _system(locked: Locked, installed: Installed) -> tuple[str, str]:
    """The distribution and its release, as its os-release has them, else as the base's lock does:
    "debian", "13".
    """
    known = installed.system
    if known.get("ID"):
        return known["ID"], known.get("VERSION_ID") or known.get("VERSION_CODENAME", "")
    name, _, release = locked.base.facts.os.partition(" ")
    return name, release


# -- Debian packages ------------------------------------------------------------------------


def _debian(
    locked: Locked, apts: Sequence[AptLock], sources: Sequence[FromSource], installed: Installed
) -> Iterator[Component]:
    tools = [(f"to compile {one.source.name}", one.tools) for one in sources if one.tools]
    run = [deb for lock in apts for deb in lock.sets.get("run", ())]
    every = [*locked.base.debs, *(deb for lock in apts for deb in lock.debs)]
    every += [deb for _, lock in tools for deb in lock.debs]
    sums = {(deb.name, deb.version, deb.architecture): deb.sha256 for deb in every}
    name, release = _system(locked, installed)
    where = name or "debian", "-".join(filter(None, (name, release)))
    there = installed.debs
    if not there:
        # An image can be without dpkg's own records.
        there = tuple(
            _as_installed(deb)
            for deb in {deb.name: deb for deb in (*locked.base.debs, *run)}.values()
        )
    urls = {(deb.name, deb.architecture): _deb_url(deb, where) for deb in there}
    for one in there:
        yield _component(
            urls[one.name, one.architecture],
            sha256=sums.get((one.name, one.version, one.architecture), ""),
            wants=tuple(
                url.to_string()
                for other in one.wants
                if (url := _of_architecture(urls, other, one.architecture)) is not None
            ),
        )
    has = {(one.name, one.version, one.architecture) for one in there}
    built = [("to build", deb) for lock in apts for deb in lock.sets.get("build", ())]
    built += [(what, deb) for what, lock in tools for deb in lock.debs]
    for what, deb in built:
        if (deb.name, deb.version, deb.architecture) not in has:
            url = _deb_url(_as_installed(deb), where)
            yield _component(url, sha256=deb.sha256, made_with=(what,))


def _as_installed(deb: Deb) -> InstalledDeb:
    return InstalledDeb(name=deb.name, version=deb.version, architecture=deb.architecture)


def _deb_url(deb: InstalledDeb, where: tuple[str, str]) -> PackageURL:
    namespace, distro = where
    return purl(
        "deb",
        deb.name,
        deb.version,
        namespace=namespace,
        arch=deb.architecture,
        distro=distro,
        # What Debian's security notices are for; scanners look for it here.
        upstream=deb.source,
    )


def _of_architecture(
    urls: Mapping[tuple[str, str], PackageURL], name: str, architecture: str
) -> PackageURL | None:
    for wanted in (architecture, "all"):
        if (name, wanted) in urls:
            return urls[name, wanted]
    return next((url for (other, _), url in urls.items() if other == name), None)


# -- sources --------------------------------------------------------------------------------


def _sources(sources: Sequence[FromSource]) -> Iterator[Component]:
    refs = {one.source.name: _source_url(one) for one in sources}
    for one in sources:
        yield _component(
            refs[one.source.name],
            sha256=one.lock.artifact.sha256,
            wants=tuple(refs[name].to_string() for name in one.source.needs if name in refs),
            declared=True,
        )


def _source_url(one: FromSource) -> PackageURL:
    return purl(
        "generic",
        one.source.name,
        one.lock.version,
        checksum=f"sha256:{one.lock.artifact.sha256}",
        file_name=one.lock.artifact.name,
    )


# -- conda packages -------------------------------------------------------------------------


def _conda(
    locks: Sequence[CondaLock], installed: Installed, specs: set[str]
) -> Iterator[Component]:
    locked = {package.stem: package for lock in locks for package in lock.packages}
    there = {f"{one.name}-{one.version}-{one.build}": one for one in installed.condas}
    for stem, package in locked.items():
        one = there.get(stem) or InstalledConda(name=package.name, version=package.version)
        there[stem] = replace(
            one,
            build=stem.rsplit("-", 1)[1],
            channel=package.channel.rpartition("/")[2],
            subdir=package.subdir,
            file=package.file,
            sha256=package.sha256,
        )
    urls: dict[str, str] = {}
    for one in there.values():
        urls.setdefault(one.name, _conda_url(one).to_string())
    for one in there.values():
        yield _component(
            _conda_url(one),
            sha256=one.sha256,
            licences=(one.licence,) if one.licence else (),
            wants=tuple(urls[name] for name in one.wants if name in urls),
            declared=one.name in specs,
        )


def _conda_url(one: InstalledConda) -> PackageURL:
    kinds = [kind for kind in ("conda", "tar.bz2") if one.file.endswith(f".{kind}")]
    return purl(
        "conda",
        one.name,
        one.version,
        build=one.build,
        channel=one.channel,
        subdir=one.subdir,
        type=kinds[0] if kinds else "",
    )


# -- Python packages ------------------------------------------------------------------------


def _python(locks: Sequence[PipLock], installed: Installed) -> Iterator[Component]:
    for one in installed.pythons:
        yield _component(purl("pypi", one.name, one.version), licences=one.licences)
    known = {one.name: one.version for one in installed.pythons}
    for lock in locks:
        yield from _pins(lock.pins, known)
        yield from _pins([lock.installer], known, "to install Python packages")
        for name, pins in sorted(lock.build.items()):
            yield from _pins(pins, known, f"to build {name}")


def _pins(pins: Sequence[Pin], known: Mapping[str, str], what: str = "") -> Iterator[Component]:
    refs = {normalised(pin.name): _pin_url(pin, known) for pin in pins}
    for pin in pins:
        # What wants a package stands with the package: here it is turned round.
        wants = [
            refs[normalised(other.name)].to_string()
            for other in pins
            if pin.name in (via.partition("[")[0] for via in other.via)
        ]
        yield _component(
            refs[normalised(pin.name)],
            sha256=pin.artifact.sha256,
            wants=tuple(wants),
            declared=not what and any(via.startswith("-r ") for via in pin.via),
            made_with=(what,) if what else (),
        )


def _pin_url(pin: Pin, known: Mapping[str, str]) -> PackageURL:
    # A URL need not tell a version; what is installed does.
    name = normalised(pin.name)
    return purl("pypi", name, pin.version or known.get(name, ""))
