"""What follows from what was printed: whether ranks met, whose MPI answered, and why."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lading.checks.mpi.host import MOUNTED, SONAMES, HostMpi
from lading.checks.mpi.inside import LIMIT, Said
from lading.checks.mpi.report import NO, YES, Outcome, Swap

RANKS = 2
NAMED = re.compile(r"lib(?:p?mpi|mpich|open-(?:pal|rte))\w*\.so")
"""Libraries of an MPI; libfabric, UCX and the like may be anybody's."""
MAIN = re.compile(r"lib(?:mpi|mpich)\.so")
"""The one of them that programs ask for."""


@dataclass(frozen=True, kw_only=True)
class Rank:
    """What one rank said of itself; `ring` in seconds, None if another block came back."""

    rank: int
    size: int
    version: str
    module: str
    mapped: tuple[str, ...]
    ring: float | None


def ranks(said: Said) -> tuple[Rank, ...]:
    """The lines of `rank.py`, in order; what is none of them is passed over."""
    found: list[Rank] = []
    for text in re.findall(r"^@rank (\{.*\})$", said.output, re.MULTILINE):
        try:
            value = json.loads(text)
            one = Rank(**{**value, "mapped": tuple(map(str, value["mapped"]))})
        except (ValueError, TypeError, KeyError):
            continue
        if isinstance(one.rank, int) and isinstance(one.size, int) and one.version:
            found.append(one)
    return tuple(sorted(found, key=lambda one: one.rank))


def known(version: str) -> tuple[str, str]:
    """The name and the number in what MPI_Get_library_version says, or in a launcher's version."""
    for name, pattern in (
        ("Open MPI", r"Open MPI\)? v?([\w.]+)"),
        ("Cray MPICH", r"CRAY MPICH version\s+([\w.]+)"),
        ("MPICH", r"MPICH Version:\s*([\w.]+)"),
        ("Intel MPI", r"Intel\(R\) MPI Library ([\w.]+)"),
        ("MPICH", r"HYDRA build details:\s+Version:\s*([\w.]+)"),
    ):
        found = re.search(pattern, version)
        if found:
            return name, found[1]
    return "", ""


def glibc(said: Said | None) -> str:
    """ "2.41" from getconf; empty where it says something else."""
    found = re.search(r"^glibc (\d+\.\d+)", said.output, re.MULTILINE) if said else None
    return found[1] if found else ""


def linked(said: Said | None) -> dict[str, str]:
    """The MPI libraries a program asks for, and the file each is found in (empty: none)."""
    found: dict[str, str] = {}
    for line in said.output.splitlines() if said else ():
        match = re.match(r"\s*(\S+) => (?:(/.*?)(?: \(0x[0-9a-f]+\))?|not found)\s*$", line)
        if match and NAMED.match(posixpath.basename(match[1])):
            found[match[1]] = match[2] or ""
    return found


def last(said: Said, count: int = 8) -> str:
    """The last lines that say something."""
    lines = [line for line in said.output.splitlines() if line.strip()]
    return "\n".join(lines[-count:])


# -- the image's own MPI --------------------------------------------------------------------


def outcomes(parts: Mapping[str, Said], programs: Iterable[str]) -> tuple[Outcome, ...]:
    """How the image's own MPI ran. What the image does not have is not asked of it."""
    found: list[Outcome] = []
    launcher = parts.get("launcher")
    if launcher is None or launcher.code in (126, 127):
        why = (
            f"it does not start\n{last(launcher)}" if launcher else "the image has none on its PATH"
        )
        return (Outcome(name="mpiexec", passed=False, why=why),)
    them = ranks(parts["ranks"]) if "ranks" in parts else ()
    differ = _differ(launcher.output, them[0].version if them else "")
    if "ranks" in parts:
        found += _ranks(parts["ranks"], them, differ)
    if "helloworld" in parts:
        pairs = re.findall(r"process (\d+) of (\d+)", parts["helloworld"].output)
        found.append(_met("mpi4py.bench helloworld", parts["helloworld"], pairs, differ))
    for name in programs:
        said = parts.get(f"run {name}")
        if said is not None:
            pairs = re.findall(r"[Pp]rocess (\d+) of (\d+)", said.output)
            found.append(_met(name, said, pairs, differ))
    return tuple(found)


def _differ(launcher: str, library: str) -> str:
    """What it means that each process is alone."""
    said = {"mpiexec": launcher, "the library": library}
    names = {what: " ".join(filter(None, known(text))) for what, text in said.items()}
    pair = [f"{what} is {name}" for what, name in names.items() if name]
    return (
        "every rank says '0 of 1': the launcher and the library are of different MPIs, and each "
        "process runs alone" + (f" ({', '.join(pair)})" if pair else "")
    )


def _ranks(said: Said, them: tuple[Rank, ...], differ: str) -> list[Outcome]:
    pairs = [(str(one.rank), str(one.size)) for one in them]
    met = _met(f"mpiexec -n {RANKS}: ranks of {RANKS}", said, pairs, differ)
    if not met.passed:
        return [met]
    times = [one.ring for one in them]
    name = "ring exchange of 1 MiB"
    if None in times:
        why = "another block came back than was sent"
        return [met, Outcome(name=name, passed=False, why=why, output=said.output)]
    slowest = max(time for time in times if time is not None)
    return [met, Outcome(name=name, passed=True, seconds=round(slowest, 6))]


def _met(name: str, said: Said, pairs: list[tuple[str, str]], differ: str) -> Outcome:
    """Whether each rank was there once, of as many as were started."""
    expected = [(str(number), str(RANKS)) for number in range(RANKS)]
    why = ""
    if said.code == 124:
        why = f"it did not end within {LIMIT} seconds"
    elif pairs and {size for _, size in pairs} == {"1"}:
        why = differ
    elif said.code:
        why = f"exit code {said.code}\n{last(said)}"
    elif pairs and sorted(pairs) != expected:
        seen = ", ".join(f"{rank} of {size}" for rank, size in pairs)
        why = f"{RANKS} ranks were started, and these said they were there: {seen}"
    elif not pairs:
        why = f"no rank says who it is\n{last(said)}"
    return Outcome(name=name, passed=not why, why=why, output=said.output)


# -- whether a host's takes its place -------------------------------------------------------


NOTHING = Said(code=1, output="")
"""Of a part that did not come to its end."""


@dataclass(frozen=True, kw_only=True)
class Culprit:
    """Why a library was loaded that should not have been, and how to mend it."""

    why: str
    do: str = ""


def swap(
    way: str,
    prefix: str,
    parts: Mapping[str, Said],
    host: HostMpi,
    programs: Iterable[str],
    *,
    python: bool,
    over: Iterable[str] = (),
) -> Swap:
    """Whether the host's MPI answered to all that ran with the image's own: these programs, and
    mpi4py if `python`. `over`: the image's files that the host's is bound over.
    """
    allowed = frozenset(over)
    version, mapped = "", set[str]()
    failures: list[tuple[Culprit, Said]] = []
    if python:
        said = parts.get(f"{prefix} ranks", NOTHING)
        them = ranks(said)
        mapped |= {path for one in them for path in one.mapped}
        version = " ".join(filter(None, known(them[0].version))) if them else ""
        culprit = _of_ranks(them, said, host, allowed)
        failures += [(culprit, said)] if culprit else []
    for name in programs:
        libraries = linked(parts.get(f"{prefix} linked {name}"))
        mapped |= set(filter(None, libraries.values()))
        said = parts.get(f"{prefix} run {name}", NOTHING)
        same = parts.get(f"{prefix} same {name}", NOTHING)
        culprit = _of_program(name, libraries, same, said, allowed)
        failures += [(culprit, said)] if culprit else []
    if not failures:
        return Swap(way=way, verdict=YES, version=version, mapped=tuple(sorted(mapped)))
    culprit, output = failures[0]
    return Swap(
        way=way,
        verdict=NO,
        version=version,
        mapped=tuple(sorted(mapped)),
        why=culprit.why,
        do=culprit.do,
        output=output.output,
    )


def _of_ranks(
    them: tuple[Rank, ...], said: Said, host: HostMpi, allowed: frozenset[str]
) -> Culprit | None:
    if not them:
        ended = "did not end in time" if said.code == 124 else f"exit code {said.code}"
        return Culprit(why=f"with {host.name} of the host it does not run ({ended})\n{last(said)}")
    if not them[0].mapped:
        return Culprit(
            why=f"no MPI library is loaded at all: MPI is linked into {them[0].module} itself",
            do="link it with the shared library (MPICH: without --disable-shared)",
        )
    foreign = _foreign((path for one in them for path in one.mapped), allowed)
    if foreign:
        return _passed_over(foreign, host)
    for one in them:
        name, number = known(one.version)
        if number != host.version:
            answered = f"{name} {number}" if name else one.version
            return Culprit(why=f"{answered} answers, not {host.name} of the host")
    if [(one.rank, one.size) for one in them] != [(rank, RANKS) for rank in range(RANKS)]:
        seen = ", ".join(f"{one.rank} of {one.size}" for one in them)
        return Culprit(why=f"with {host.name} of the host the ranks do not meet: {seen}")
    if said.code:
        return Culprit(why=f"with {host.name} of the host: exit code {said.code}\n{last(said)}")
    return None


def _of_program(
    name: str,
    libraries: Mapping[str, str],
    same: Said,
    ran: Said,
    allowed: frozenset[str],
) -> Culprit | None:
    """`same` says whether the file it gets is the host's: what it answers, it does not tell."""
    if ran is NOTHING:
        return Culprit(why=f"{name} was not seen to run with the host's MPI")
    if not libraries:
        return Culprit(
            why=f"{name} asks for no MPI library: MPI is linked into it",
            do="link it with the shared library",
        )
    foreign = _foreign(filter(None, libraries.values()), allowed)
    if foreign:
        return Culprit(why=f"{name} takes {', '.join(foreign)}, of the image")
    if same.code:
        return Culprit(why=f"{name} takes another file than the host's")
    pairs = re.findall(r"[Pp]rocess (\d+) of (\d+)", ran.output)
    if ran.code or sorted(pairs) != [(str(rank), str(RANKS)) for rank in range(RANKS)]:
        return Culprit(why=f"{name} does not run with the host's MPI\n{last(ran)}")
    return None


def _foreign(paths: Iterable[str], allowed: frozenset[str]) -> list[str]:
    """Those that are not the host's."""
    return sorted({p for p in paths if not p.startswith(f"{MOUNTED}/") and p not in allowed})


def _passed_over(foreign: list[str], host: HostMpi) -> Culprit:
    debians = [path for path in foreign if "/libmpich.so" in path]
    if debians:
        soname = SONAMES[host.flavour]
        return Culprit(
            why=f"{debians[0]} of the image is asked for, by Debian's name for it, where a host "
            f"has {soname}",
            do=f"build against an MPI that calls itself {soname}: from source, or a wheel",
        )
    return Culprit(why=f"{', '.join(foreign)} of the image is loaded, not the host's")


# -- why the loader took it -----------------------------------------------------------------


def explained(parts: Mapping[str, Said], flavour: str) -> Culprit | None:
    """Why the loader took the image's library, from what LD_DEBUG=libs,files made it say in each
    part; None if that does not tell.
    """
    told = parts["abi"].output if "abi" in parts else ""
    for said in parts.values():
        searched = tried = ""
        opened: dict[str, str] = {}
        for line in said.output.splitlines():
            if "search path=" in line:
                searched = line
            elif found := re.search(r"trying file=(.+)$", line):
                tried = found[1]
            elif found := re.search(r"file=(/.+) \[\d+\];\s+dynamically loaded by (\S+)", line):
                opened[found[1]] = found[2]
            elif found := re.search(r"file=(.+) \[\d+\];\s+generating link map", line):
                culprit = _taken(found[1], tried, searched, opened, told, flavour)
                if culprit is not None:
                    return culprit
    return None


def _taken(
    name: str, tried: str, searched: str, opened: Mapping[str, str], told: str, flavour: str
) -> Culprit | None:
    """What led to a library that is being loaded: a full path, or a DT_RPATH."""
    if not MAIN.match(posixpath.basename(name)) or name.startswith(f"{MOUNTED}/"):
        return None
    if name in opened:
        by = "mpi4py's wheel" if "/_ctypes." in opened[name] else opened[name]
        return Culprit(
            why=f"{name} of the image is opened by its full path, by {by}",
            do=f"ENV MPI4PY_MPIABI={flavour}"
            if told != flavour
            else "install MPI into /usr/local: this mpi4py opens one in its own prefix",
        )
    by_rpath = re.search(r"\(RPATH from file (.+)\)", searched)
    if not by_rpath or tried.startswith(f"{MOUNTED}/") or not tried.endswith(f"/{name}"):
        return None
    return Culprit(
        why=f"{by_rpath[1]} has a DT_RPATH that leads to {tried} of the image before "
        "LD_LIBRARY_PATH is looked at",
        do="link with -Wl,--enable-new-dtags (RUNPATH), or patchelf --set-rpath",
    )
