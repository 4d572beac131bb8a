"""Why pip's packages can't be locked for a base, and what to do about it, said plainly."""

from __future__ import annotations

from lading.errors import LadingError
from lading.facts import Facts

APT = "apt: {run: [python3]}"
CONDA = "conda: {channels: [conda-forge], packages: [python=3.12]}"


def unfit(image: str, facts: Facts) -> LadingError:
    """A base whose Python nothing can be installed for, or that has none."""
    if facts.musl:
        return LadingError(
            f"images.{image}: its base has musl {facts.musl} as its C library, and no glibc",
            why="packages are locked for glibc, as are a cluster's MPI and drivers made for it",
            do="choose a base with glibc: of python, a -slim in place of an -alpine",
        )
    what = f"images.{image}: its base has no Python 3" + (f" ({facts.os})" if facts.os else "")
    if not facts.glibc:
        return LadingError(what, do="choose a base that has one, and glibc")
    compiled = "one that `source:` compiles is not there yet when pip's packages are locked"
    choose = "or choose a base that has one (for a `debian:` base: packages: [python3])"
    if facts.package_manager == "apt" and facts.os.startswith("debian"):
        return LadingError(what, why=compiled, do=f"`{APT}` or `{CONDA}` brings one; {choose}")
    manager = facts.package_manager
    why = {
        "apt": "its apt has other archives than Debian's",
        "": "the base has no package manager",
    }.get(manager, f"the base has {manager}, not Debian's apt")
    return LadingError(
        what,
        why=f"`apt:` can't bring one: {why}; {compiled}",
        do=f"`{CONDA}` brings one, and needs nothing of the base but its glibc; {choose}",
    )
