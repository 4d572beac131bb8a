"""The MPI checks of one image, from its first container to the report."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from lading.checks.mpi import judge
from lading.checks.mpi.host import LIB, NAMES, NEEDS, SONAMES, VENDOR, Finder, HostMpi, NoHost
from lading.checks.mpi.inside import Inside, Said
from lading.checks.mpi.report import NO, NOT_SHOWN, MpiReport, Outcome, Swap
from lading.engines import Engine

PROGRAMS = ("cpi",)
"""Programs that are run where an image has them: MPICH's example, which the lesson keeps."""

WAYS = {
    LIB: "by LD_LIBRARY_PATH",
    VENDOR: "under a vendor's name",
    NEEDS: "bound over the image's own",
}


def run(
    engine: Engine,
    image: str,
    flavour: str,
    find: Finder | None,
    programs: Sequence[str] = PROGRAMS,
) -> MpiReport:
    """Runs the image's MPI, then lets a host's take its place in each way that sites know.

    `flavour` is "mpich" or "openmpi"; without `find` no host is tried. Raises `LadingError` where
    the engine refuses, and as `Store.fetch` does where the stand-in can't be had.
    """
    inside = Inside(engine=engine, image=image, programs=tuple(programs))
    parts = inside.own()
    report = _own(parts, flavour, inside.programs)
    if report.problems:
        why = "not tried: first its own MPI has to work"
        return replace(report, swaps=(Swap(way="any", verdict=NOT_SHOWN, why=why),))
    if find is None:
        return report
    found = find(report.mpi.rpartition(" ")[2], report.glibc)
    if isinstance(found, NoHost):
        return replace(report, swaps=(Swap(way="any", verdict=NOT_SHOWN, why=found.why),))
    return replace(report, host=found.name, swaps=_swaps(inside, found, parts))


def _own(parts: Mapping[str, Said], flavour: str, programs: tuple[str, ...]) -> MpiReport:
    outcomes = judge.outcomes(parts, programs)
    them = _ranks(parts)
    launcher = parts.get("launcher")
    said = them[0].version if them else launcher.output if launcher else ""
    name, number = judge.known(said)
    libraries = _libraries(parts, programs)
    abi = "openmpi" if name == "Open MPI" else "mpich" if name else ""
    if all(one.passed for one in outcomes):
        if not outcomes:
            wanted = " or ".join(("mpi4py", *programs))
            why = f"nothing shows that MPI works here: the image has no {wanted}"
            outcomes = (Outcome(name="MPI programs", passed=False, why=why),)
        elif abi and abi != flavour:
            why = f"the image declares `mpi: {flavour}`, and {name} {number} answers in it"
            outcomes += (Outcome(name=f"mpi: {flavour}", passed=False, why=why),)
    return MpiReport(
        flavour=flavour,
        mpi=f"{name} {number}".strip(),
        abi=NAMES.get(abi, ""),
        soname=_soname(libraries, flavour),
        library=libraries[0] if libraries else "",
        glibc=judge.glibc(parts.get("glibc")),
        host="",
        outcomes=outcomes,
        swaps=(),
    )


def _ranks(parts: Mapping[str, Said]) -> tuple[judge.Rank, ...]:
    return judge.ranks(parts["ranks"]) if "ranks" in parts else ()


def _libraries(parts: Mapping[str, Said], programs: Sequence[str]) -> tuple[str, ...]:
    """The image's files that programs get when they ask for MPI."""
    found = [path for one in _ranks(parts) for path in one.mapped]
    for name in programs:
        if f"real {name}" in parts:
            found += parts[f"real {name}"].output.splitlines()
    main = (path for path in found if judge.MAIN.match(posixpath.basename(path)))
    return tuple(dict.fromkeys(main))


def _soname(libraries: Sequence[str], flavour: str) -> str:
    """libmpi.so.12 of libmpi.so.12.2.2."""
    if not libraries:
        return ""
    name = posixpath.basename(libraries[0])
    return SONAMES[flavour] if name.startswith(SONAMES[flavour]) else name


def _swaps(inside: Inside, host: HostMpi, own: Mapping[str, Said]) -> tuple[Swap, ...]:
    programs = [name for name in inside.programs if f"run {name}" in own]
    libraries = _libraries(own, programs)
    # A program names the links that lead to them.
    links = (judge.linked(own.get(f"linked {name}")).values() for name in programs)
    ours = {*libraries, *(path for paths in links for path in paths if path)}

    def judged(way: str, parts: Mapping[str, Said], over: Iterable[str] = ()) -> Swap:
        python = "ranks" in own
        return judge.swap(WAYS[way], way, parts, host, programs, python=python, over=over)

    parts = inside.taken(host.folder, host.flavour, host.ways, {})
    swaps = [judged(way, parts) for way in host.ways]
    if libraries:
        bound = dict.fromkeys(libraries, host.library)
        parts = inside.taken(host.folder, host.flavour, (NEEDS,), bound)
        swaps.append(judged(NEEDS, parts, ours))
    else:
        why = "the image has no MPI library that a file could be bound over"
        swaps.append(Swap(way=WAYS[NEEDS], verdict=NO, why=why))
    if not any(swap.verdict == NO and ours & set(swap.mapped) for swap in swaps):
        return tuple(swaps)
    culprit = judge.explained(inside.loaded(host.folder), host.flavour)
    if culprit is None:
        return tuple(swaps)
    return tuple(
        replace(swap, why=culprit.why, do=culprit.do)
        if swap.verdict == NO and ours & set(swap.mapped)
        else swap
        for swap in swaps
    )
