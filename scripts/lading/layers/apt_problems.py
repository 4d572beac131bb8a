"""What can go wrong when apt is asked, said plainly."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from lading.errors import DeclarationError, LadingError
from lading.facts import Facts

VARIABLES = ("LADING_DEBIAN_MIRROR", "LADING_DEBIAN_SECURITY_MIRROR")


class Asked(Struct, frozen=True, kw_only=True):
    """Where in project.yaml the packages are declared, and the suite that was asked for them."""

    what: str
    suite: str


def no_debian(what: str, facts: Facts) -> DeclarationError:
    """The base is not Debian."""
    manager = facts.package_manager
    why = {
        "apt": "its apt has other archives than Debian's, which are the ones that can be locked",
        "": "the base has no package manager",
    }
    return DeclarationError(
        f"{what}: apt layers are for Debian, and this base is {facts.os or 'something else'}",
        why=why.get(manager, f"the base has {manager}, not apt"),
        do="take a Debian base, or install it with `run:` (which is not locked); a Python comes by "
        "`conda: {packages: [python=3.12]}`, too",
    )


def no_indexes(asked: Asked, text: str, mirrors: Mapping[str, str]) -> LadingError:
    """`apt-get update` failed."""
    from lading.debian.solver import update_error
    from lading.process import Finished

    known = {"debian": "in the base's own sources.list", **mirrors}
    return update_error(asked.suite, known, Finished(code=1, output=text), list)


def unknown(
    asked: Asked, found: Mapping[str, Sequence[str]], known: Sequence[str]
) -> DeclarationError:
    """Names that are no package: virtual ones with their providers, others with their likes."""
    lines: list[str] = []
    for name, providers in found.items():
        has = sorted({line.split()[0] for line in providers if line.strip()})
        if has:
            shown = ", ".join(has[:8]) + (f" and {len(has) - 8} more" if len(has) > 8 else "")
            lines.append(f"{name}: a virtual package, provided by {shown}")
        else:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.75)
            lines.append(f"{name}: not there" + (f" (did you mean {_or(near)}?)" if near else ""))
    return DeclarationError(
        f"{asked.what}: Debian {asked.suite} has no package {', '.join(found)}",
        why="\n".join(lines),
        do="name one of the packages that there are",
    )


def no_version(asked: Asked, name: str, version: str, has: Sequence[str]) -> DeclarationError:
    """A version that the archives don't have (any more)."""
    return DeclarationError(
        f"{asked.what}: Debian {asked.suite} has no {name} {version}",
        why=f"there is {name} {_or(has)}" if has else "",
        do=f"name {name} without a version: the lock pins it",
    )


def no_solution(asked: Asked, text: str, packages: Sequence[str]) -> LadingError:
    """apt finds no way to install the packages; its own explanation, condensed."""
    if "Packages need to be removed" in text:
        removed = re.search(r"will be REMOVED:\n((?:  .*\n)+)", text)
        names = ", ".join(removed[1].split()) if removed else "some"
        return LadingError(
            f"{asked.what}: on this base, {' '.join(packages)} can't be installed",
            why=f"packages of the base would have to go: {names}",
            do="leave out what conflicts with the base, or take another base",
        )
    return LadingError(
        f"{asked.what}: apt finds no way to install {' '.join(packages)}",
        why="\n".join(explanation(text)),
        do="leave out, or name other versions of, what conflicts",
    )


def explanation(text: str) -> list[str]:
    """The lines of apt's output that say why; the rest of it is the same each time."""
    unmet = re.search(r"have unmet dependencies:\n((?: .*\n?)+)", text)
    if unmet:
        return [" ".join(line.split()) for line in unmet[1].splitlines()]
    errors = [line.removeprefix("E: ") for line in text.splitlines() if line.startswith("E: ")]
    return errors or text.splitlines()[-5:]


def _or(names: Sequence[str]) -> str:
    return " or ".join(names)
