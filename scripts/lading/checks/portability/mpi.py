"""M1 to M6: whether a host's MPI can take the place of the image's.

`APPTAINERENV_LD_LIBRARY_PATH=/host/lib apptainer exec --bind …` swaps the library if programs ask
for the ABI's soname, and if nothing finds the image's own before LD_LIBRARY_PATH is looked at.
MPICH ABI Compatibility Initiative (libmpi.so.12); Open MPI's own, libmpi.so.40.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from lading.checks.portability.elf import Elf
from lading.checks.portability.findings import Found
from lading.checks.portability.loader import Loader
from lading.checks.portability.subject import Subject
from lading.checks.portability.view import Placed
from lading.console import counted

SONAMES = {"mpich": "libmpi.so.12", "openmpi": "libmpi.so.40"}

# The library with MPI_Init in it, by any of its names, and the family around it.
_MAIN = re.compile(r"libmpi(?:ch|_abi)?\.so(?:\.\d+)*")
_FAMILY = re.compile(
    r"lib(?:p?mpi[a-z0-9_]*|mpich[a-z0-9]*|mpitrampoline|mpiwrapper)\.so(?:\.\d+)*"
)
_WHEEL = re.compile(r"(.*)/mpi4py/MPI\.([a-z]+)\.[^/]*\.so")
_PREFIX = re.compile(r"(.*)/lib(?:64)?/python\d+\.\d+/site-packages")
_MODULE = re.compile(r"(.*?)/lib(?:64)?/python[^/]*/(?:site-packages|dist-packages|lib-dynload)/")


@dataclass(frozen=True, kw_only=True)
class File:
    """An ELF file in the image."""

    path: str
    elf: Elf

    @property
    def folder(self) -> str:
        return posixpath.dirname(self.path)

    @property
    def name(self) -> str:
        return self.elf.soname or posixpath.basename(self.path)

    @property
    def of_mpi(self) -> bool:
        """Whether it is part of an MPI, not a user of one."""
        return bool(
            _FAMILY.fullmatch(posixpath.basename(self.path)) or _FAMILY.fullmatch(self.elf.soname)
        )

    @property
    def asks_for(self) -> list[str]:
        """The MPI libraries that it needs."""
        return [name for name in self.elf.needed if _MAIN.fullmatch(posixpath.basename(name))]


@dataclass(kw_only=True)
class Mpi:
    """The MPI of an image: its libraries and their users."""

    subject: Subject
    loader: Loader
    files: list[File] = field(default_factory=list)
    _found: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seen: set[int] = set()
        for path, node in self.subject.files:
            # A hard link is the same node once more.
            if node.elf is not None and id(node) not in seen:
                seen.add(id(node))
                self.files.append(File(path=path, elf=node.elf))
        self.files.sort(key=lambda one: one.path)

    @cached_property
    def libraries(self) -> list[File]:
        """The image's own MPI libraries, the ones with MPI_Init in them."""
        return [
            one
            for one in self.files
            if _MAIN.fullmatch(one.elf.soname) or _MAIN.fullmatch(posixpath.basename(one.path))
        ]

    @cached_property
    def users(self) -> list[File]:
        return [one for one in self.files if one.asks_for and not one.of_mpi]

    @cached_property
    def used(self) -> list[File]:
        """The users without the modules of mpi4py's wheel for ABIs that are not there.

        It has one for each; the one that is used is found when it is imported.
        """
        found = {
            one.path: all(self._finds(one, name) for name in one.asks_for)
            for members in self._wheels().values()
            for one in members
        }
        served = {_WHEEL.sub(r"\1", path) for path, there in found.items() if there}

        def idle(one: File) -> bool:
            match = _WHEEL.fullmatch(one.path)
            if match is None or found[one.path]:
                return False
            return match[1] in served or self.subject.mpi not in ("", match[2])

        return [one for one in self.users if not idle(one)]

    @cached_property
    def static(self) -> list[File]:
        """What has MPI linked in: defines MPI_Init, needs no MPI, is none, and wraps none.

        Tools that wrap MPI (Darshan, Score-P) define MPI_Init too, and take PMPI_Init from it.
        """
        return [
            one
            for one in self.files
            if {"MPI_Init", "MPI_Send"} & one.elf.defines
            and "PMPI_Init" not in one.elf.wants
            and not one.asks_for
            and not one.of_mpi
        ]

    @cached_property
    def concerned(self) -> bool:
        return bool(self.subject.mpi or self.users or self.static or self.libraries)

    def check(self) -> list[Found]:
        """M1 to M6; nothing for an image that has no MPI and declares none."""
        if not self.concerned:
            return []
        return [
            *self._wrong_abi(),
            *self._not_found(),
            *self._fixed(),
            *self._opened_by_path(),
            *self._both(),
            *self._glibc(),
        ]

    def facts(self, founds: Iterable[Found]) -> dict[str, Any]:
        """What check.json says about MPI, and whether a host's can take its place."""
        if not self.concerned:
            return {}
        against = [one for one in founds if one.id in ("M1", "M2", "M3", "M4")]
        first = self.libraries[0] if self.libraries else None
        needs = [one.elf.glibc for one in self.libraries if one.elf.glibc]
        if against:
            why = "; ".join(dict.fromkeys(f"{one.id} {one.path}" for one in against[:5]))
            swap = "no"
        elif self.used:
            why = f"{counted(len(self.used), 'file')} need {', '.join(self._asked())}"
            swap = "yes"
        else:
            why, swap = "nothing in the image uses it", "no"
        return {
            "flavour": self._flavour(),
            "abi": ", ".join(self._asked()),
            "soname": first.name if first else "",
            "library": first.path if first else "",
            "glibc_needed": _dotted(max(needs, default=None)),
            "users": len(self.used),
            "swap": swap,
            "why": why,
        }

    def _asked(self) -> list[str]:
        return sorted({name for one in self.used for name in one.asks_for})

    def _flavour(self) -> str:
        return " and ".join(sorted({_flavour(one) for one in self.libraries})) or self.subject.mpi

    def _wrong_abi(self) -> Iterator[Found]:
        for one in self.users:
            for name in one.asks_for:
                if posixpath.basename(name).startswith("libmpich.so"):
                    yield Found(
                        "M1",
                        "error",
                        one.path,
                        f"it needs {name}, Debian's name: a host's libmpi.so.12 can't take its "
                        "place",
                        "build it against an MPICH of its own build, not the distribution's",
                    )
        for one in self.static:
            yield Found(
                "M1",
                "error",
                one.path,
                "MPI is linked into it: a host's can't take its place",
                "link it against the shared libmpi",
            )

    def _not_found(self) -> Iterator[Found]:
        for one in self.used:
            for name in one.asks_for:
                if not self._finds(one, name):
                    yield Found(
                        "M2",
                        "error",
                        one.path,
                        f"no {name} is to be found: without a host's MPI it does not start",
                        f"install an MPI with {name} into /usr/local, and run ldconfig",
                    )
        wanted = SONAMES.get(self.subject.mpi)
        if wanted and self.loader.find(wanted) is None and not self._by_wheel(wanted):
            yield Found(
                "M2",
                "error",
                wanted,
                f"the image is for {self.subject.mpi}, and the loader finds no {wanted} in it",
                "install it into /usr/local, and run ldconfig",
            )

    def _finds(self, one: File, name: str) -> bool:
        runpath = self.loader.expanded(one.elf.runpath, one.folder)
        rpath = [folder for folder, _ in self._rpaths(one)]
        if self.loader.find(name, rpath, runpath) is not None:
            return True
        match = _WHEEL.fullmatch(one.path)
        return match is not None and self._by_wheel(posixpath.basename(name), match[1])

    def _by_wheel(self, name: str, folder: str = "") -> bool:
        """Whether the mpi4py wheel's own search finds it, in `$prefix/lib`."""
        folders = [folder] if folder else list(self._wheels())
        return any(
            self.subject.view.file(f"{prefix}/lib/{name}") is not None
            for one in folders
            for prefix in self._prefixes(one)
        )

    def _fixed(self) -> Iterator[Found]:
        """M3: DT_RPATH, of a file or of what loads it, is searched before LD_LIBRARY_PATH."""
        for one in self.users:
            for name in one.asks_for:
                for folder, whose in self._rpaths(one):
                    if self.subject.view.file(f"{folder}/{name}") is None:
                        continue
                    by = "its DT_RPATH" if whose == one.path else f"the DT_RPATH of {whose}"
                    yield Found(
                        "M3",
                        "error",
                        one.path,
                        f"{by} leads to {folder}/{name} before LD_LIBRARY_PATH is looked at: the "
                        "host's MPI is passed over, and nothing says so",
                        self._unfixed(one, f"{folder}/{name}"),
                    )
                    break

    def _unfixed(self, one: File, library: str) -> str:
        """How to mend an RPATH. conda's packages are linked so on purpose, and as they are."""
        parents = [str(parent) for parent in PurePosixPath(one.path).parents]
        if not any(self.subject.view.file(f"{parent}/conda-meta/history") for parent in parents):
            return "link with -Wl,--enable-new-dtags (RUNPATH), or patchelf --set-rpath"
        flavour = "openmpi" if "libmpi.so.40" in one.asks_for else "mpich"
        return (
            "conda's packages are linked so. On the cluster, bind the host's library over "
            f"{library}, and say so in `allow`; or ask for {flavour}=*=external_*, conda-forge's "
            f"stand-in for an MPI of the system, and bring that one; or take {flavour} by "
            "`source:` and mpi4py by `pip:`"
        )

    def _rpaths(self, one: File) -> list[tuple[str, str]]:
        """The folders that DT_RPATH puts before all else, and the file each stands in.

        dlopen(3) and glibc's _dl_map_object: of the file itself, of what loads it, and of the
        program; none of them if the file has a RUNPATH.
        """
        if one.elf.runpath:
            return []
        if one.path not in self._found:
            self._found[one.path] = [
                (folder, loading.path)
                for loading in [one, *self._loaders(one)]
                if loading.elf.rpath and not loading.elf.runpath
                for folder in self.loader.expanded(loading.elf.rpath, loading.folder)
            ]
        return self._found[one.path]

    @cached_property
    def _by_needed(self) -> dict[str, list[File]]:
        found: dict[str, list[File]] = {}
        for one in self.files:
            for name in one.elf.needed:
                found.setdefault(posixpath.basename(name), []).append(one)
        return found

    def _loaders(self, one: File) -> list[File]:
        """What may have loaded a file: all that need it, and Python, which imports modules."""
        found: dict[str, File] = {}
        todo = [one]
        while todo:
            here = todo.pop()
            interpreter = self._interpreter(here)
            loading = [] if interpreter is None else [interpreter]
            if ".so" in here.name:
                loading += self._by_needed.get(here.name, ())
            self.subject.view.step(10 * len(loading))
            for other in loading:
                if other.path not in found and other.path != one.path:
                    found[other.path] = other
                    todo.append(other)
        return list(found.values())

    def _interpreter(self, module: File) -> File | None:
        """The Python that imports a module, by the prefix it is installed in."""
        match = _MODULE.match(module.path)
        if match is None or not module.path.endswith(".so"):
            return None
        prefix = match[1]
        for name in ("python3", "python"):
            program = self.subject.view.file(f"{prefix}/bin/{name}") or self.subject.view.file(
                f"/usr/bin/{name}"
            )
            if program is not None and program.node.elf is not None:
                return File(path=program.path, elf=program.node.elf)
        return None

    def _wheels(self) -> dict[str, list[File]]:
        """mpi4py's wheels: their modules for each ABI, by the folder they are installed in."""
        found: dict[str, list[File]] = {}
        for one in self.users:
            match = _WHEEL.fullmatch(one.path)
            if match:
                found.setdefault(match[1], []).append(one)
        return found

    def _prefixes(self, folder: str) -> list[str]:
        """Where the wheel looks: mpi4py/_mpiabi.py searches `lib` of these, but not of /usr."""
        match = _PREFIX.fullmatch(folder)
        if match is None:
            return []
        found = [match[1]]
        venv = self.subject.venv(match[1])
        if venv.get("include-system-site-packages", "").lower() == "true" and "home" in venv:
            found.append(posixpath.dirname(venv["home"]))
        return [prefix for prefix in found if prefix != "/usr"]

    def _opened_by_path(self) -> Iterator[Found]:
        """M4. With MPI4PY_MPIABI it opens nothing; with MPI4PY_LIBMPI, what that names."""
        env = self.subject.env
        if env.get("MPI4PY_MPIABI"):
            return
        library = env.get("MPI4PY_LIBMPI", "")
        if library and "/" not in library:
            return
        for folder in self._wheels():
            for prefix in self._prefixes(folder):
                found = self._first(prefix)
                if found is not None and found.node.elf is not None:
                    abi = "openmpi" if found.node.elf.openmpi else "mpich"
                    yield Found(
                        "M4",
                        "error",
                        f"{folder}/mpi4py",
                        f"this wheel opens {prefix}/lib/{posixpath.basename(found.path)} by its "
                        "full path: the host's MPI is passed over, and nothing says so",
                        f"ENV MPI4PY_MPIABI={abi}, or install MPI into /usr/local",
                    )

    def _first(self, prefix: str) -> Placed | None:
        for name in ("libmpi.so", "libmpi.so.12", "libmpi.so.40"):
            found = self.subject.view.file(f"{prefix}/lib/{name}")
            # Not the few words for a linker that PyPI's wheels of MPI call libmpi.so.
            if found is not None and found.node.elf is not None:
                return found
        return None

    def _both(self) -> Iterator[Found]:
        flavours: dict[str, str] = {}
        for one in self.libraries:
            flavours.setdefault(_flavour(one), one.path)
        for path in flavours.values() if len(flavours) > 1 else ():
            yield Found(
                "M5",
                "warn",
                path,
                "MPICH and Open MPI are both there: what is built with one and started by the "
                "other runs as many programs of one rank each",
                "keep one of them",
            )
        for name in self.subject.view.names("/var/lib/dpkg/info"):
            if re.fullmatch(r"lib(mpich|openmpi)-dev(:\w+)?\.list", name):
                yield Found(
                    "M5",
                    "warn",
                    f"/var/lib/dpkg/info/{name}",
                    "the distribution's MPI for developers is left over: what is built in the "
                    "image later takes it, and its soname",
                    f"apt-get purge {name.partition('.')[0].partition(':')[0]}",
                )

    def _glibc(self) -> Iterator[Found]:
        version = _dotted(glibc(self.files))
        if version:
            yield Found(
                "M6",
                "info",
                "glibc",
                f"the image's glibc has symbols up to GLIBC_{version}: a host's MPI library that "
                "needs newer ones does not load",
                "where the host is newer, take a newer base",
            )


def glibc(files: Iterable[File]) -> tuple[int, int] | None:
    """The newest version of symbols that the image's own glibc has, which is its own version, or
    an older one: not every release brings new ones.
    """
    return max(
        (f.elf.glibc for f in files if f.elf.soname == "libc.so.6" and f.elf.glibc), default=None
    )


def _dotted(version: tuple[int, int] | None) -> str:
    return ".".join(map(str, version)) if version else ""


def _flavour(one: File) -> str:
    return "openmpi" if one.elf.openmpi else "mpich"
