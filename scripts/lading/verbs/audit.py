"""audit: known vulnerabilities of the Python packages that images have locked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import asdict

from lading import audit
from lading.audit import Flaw, Package, Report
from lading.console import counted
from lading.debian import Deb
from lading.errors import EnvironmentProblem, LadingError
from lading.layers.apt import AptLock
from lading.layers.conda import CondaLock
from lading.layers.pip import PipLock
from lading.project import Image
from lading.requirements import normalised
from lading.state import State


class Listed(Struct, kw_only=True):
    """What images have locked. wanted: Python packages, and where each is. others: how many
    packages of other kinds there are, of which nothing is asked. problems: locks that can't be
    looked at, in words.
    """

    wanted: dict[Package, list[str]]
    others: dict[str, set[str]]
    problems: list[str]


def asked(
    state: State,
    images: Sequence[tuple[State, Image]] | None,
    form: str,
    ignored: Sequence[str],
) -> tuple[int, str]:
    """The exit code (2: not all could be asked for, 1: there is something known), and what to say,
    as text or JSON. images: each with the run for its platform; None are all of them, but for what
    is `default: false` and not locked.

    Raises `EnvironmentProblem` where the service does not answer.
    """
    every = [(one, image) for one in state.everywhere for image in one.project.images.values()]
    listed = _listed(every if images is None else images, named=images is not None)
    report = Report(flaws={}, skipped={})
    if listed.wanted:
        report = audit.audited(listed.wanted, state.environ, state.store.root / "audit", ignored)
    if listed.wanted and len(report.skipped) == len(listed.wanted):
        (name, version), why = next(iter(sorted(report.skipped.items())))
        raise EnvironmentProblem(
            "the service that pip-audit asks knows none of these packages",
            why=f"{name} {version}: {why}",
            do="PIP_AUDIT_VULNERABILITY_SERVICE says whom it asks: pypi, osv or esms",
        )
    say = _json if form == "json" else _text
    return (2 if listed.problems else 1 if report.flaws else 0), say(listed, report)


def _listed(images: Iterable[tuple[State, Image]], named: bool) -> Listed:
    found = Listed(wanted={}, others={}, problems=[])

    def add(name: str, version: str, where: str) -> None:
        places = found.wanted.setdefault((normalised(name), version), [])
        if where not in places:
            places.append(where)

    for state, image in images:
        name = f"{image.name}{state.at}"
        try:
            locks = [state.lock_or_pins(image, kind)[0] for kind in state.kinds(image)]
            base = state.base_lock(state.base_of(image))
        except LadingError as error:
            what = error.what.replace(f"{state.project.root}/", "")
            found.problems.append(f"{name} is not asked for: {what}")
            continue
        if None in locks:
            if named or image.default:
                found.problems.append(f"{name} is not asked for: it is not locked yet")
            continue
        for kind, lock in zip(state.kinds(image), locks, strict=True):
            if isinstance(lock, PipLock):
                for one in kind.pinned(lock):
                    add(one.name, one.forms[0], f"{name}{_part(one.part)}")
            elif isinstance(lock, CondaLock):
                # What of conda's packages is Python, the service knows by its name there.
                for package, version in lock.distributions.items():
                    add(package, version, f"{name} (conda)")
                known = {normalised(package) for package in lock.distributions}
                rest = {p.stem for p in lock.packages if normalised(p.name) not in known}
                found.others.setdefault("conda", set()).update(rest)
            elif isinstance(lock, AptLock):
                _debian(found, lock.debs)
        if base is not None:
            _debian(found, base.debs)
    return found


def _part(part: str) -> str:
    return f" ({part})" if part else ""


def _debian(found: Listed, debs: Iterable[Deb]) -> None:
    listed = {f"{deb.name} {deb.version}" for deb in debs}
    if listed:
        found.others.setdefault("Debian", set()).update(listed)


# -- in words -------------------------------------------------------------------------------


def _text(listed: Listed, report: Report) -> str:
    if not listed.wanted:
        return "".join(
            f"{line}\n" for line in [*listed.problems, "there is no Python package to ask for"]
        )
    lines: list[str] = []
    for (name, version), flaws in sorted(report.flaws.items()):
        lines.append(f"{name} {version}: {', '.join(listed.wanted[name, version])}")
        for flaw in flaws:
            lines += _flaw(flaw)
    if lines:
        lines += ["`doit upgrade:NAME package=PACKAGE` moves one of them", ""]
    count = counted(len(listed.wanted) - len(report.skipped), "Python package")
    known = sum(map(len, report.flaws.values()))
    some = f"{known} known in {len(report.flaws)} of {count}"
    lines.append(f"vulnerabilities: {some if known else f'none known in {count}'}")
    lines += [
        f"not known to the service: {name} {version} ({reason})"
        for (name, version), reason in sorted(report.skipped.items())
    ]
    others = [f"{len(some)} {whose}" for whose, some in listed.others.items() if some]
    if others:
        lines.append(
            f"not asked for: {' and '.join(others)} packages, which pip-audit does not know"
        )
    lines += listed.problems
    return "\n".join(lines) + "\n"


def _flaw(flaw: Flaw) -> list[str]:
    names = f"{flaw.id} ({', '.join(flaw.aliases)})" if flaw.aliases else flaw.id
    mended = f"mended in {', '.join(flaw.mended)}" if flaw.mended else "not mended yet"
    about = flaw.about if len(flaw.about) <= 300 else f"{flaw.about[:299]}…"
    return [f"  {names}: {mended}", *([f"    {about}"] if about else [])]


def _json(listed: Listed, report: Report) -> str:
    data = {
        "vulnerable": [
            {
                "name": name,
                "version": version,
                "where": listed.wanted[name, version],
                "vulnerabilities": [asdict(flaw) for flaw in flaws],
            }
            for (name, version), flaws in sorted(report.flaws.items())
        ],
        "audited": len(listed.wanted) - len(report.skipped),
        "skipped": [
            {"name": name, "version": version, "why": why}
            for (name, version), why in sorted(report.skipped.items())
        ],
        "not-audited": _counts(listed.others),
        "problems": listed.problems,
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _counts(others: Mapping[str, set[str]]) -> dict[str, int]:
    return {whose.lower(): len(some) for whose, some in others.items()}
