"""How a source is compiled on a base, and what an image gets of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from msgspec import Struct
from msgspec.structs import replace

from lading.errors import LadingError
from lading.files import digest_of
from lading.layers import apt, apt_image
from lading.layers.apt import AptLock
from lading.layers.apt_section import AptSection
from lading.layers.base import BaseLock
from lading.layers.source import SourceLock, file_of
from lading.layers.source_section import SourceBuild
from lading.locks import Header
from lading.parts import LEFT_BEHIND, OUT, PRODUCT, Start
from lading.plan import Contribution, Part, Share
from lading.steps import Add, Arg, Content, Derived, Env, Mount, Run, Step, Stored

LENT = "/dev/shm/lading/source"
FOLDER = "/lading/source"
"""Where it is compiled: one path for all, since compilers write it into what they make."""
UNPACKED = "/lading/unpacked"
"""Where a tarball is unpacked first."""
PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./ -]*")
"""Options that a shell reads as the words that they are."""

TOOLS: Mapping[str, tuple[str, ...]] = {
    "configure": ("build-essential",),
    "cmake": ("build-essential", "cmake"),
    "meson": ("build-essential", "meson"),
    "commands": (),
}
"""Debian packages that each build system is, with a compiler for it."""
UNPACKERS: Mapping[str, str] = {
    **dict.fromkeys((".xz", ".txz"), "xz-utils"),
    **dict.fromkeys((".bz2", ".tbz", ".tbz2"), "bzip2"),
    **dict.fromkeys((".zst", ".tzst"), "zstd"),
    **dict.fromkeys((".lz", ".tlz"), "lzip"),
}
"""Debian packages of the programs that tar runs, by how a tarball's name ends."""
LDCONFIG = "if command -v ldconfig >/dev/null; then ldconfig; fi"
"""glibc's loader finds libraries by a cache; other loaders have none, and look themselves."""


LAST = Run(commands=(LDCONFIG,), why="Last, or what was compiled is not found.")
"""Once, behind all that is compiled."""


class Compiled(Struct, frozen=True, kw_only=True):
    """A source on a base: how it is made, and under which key an image's share of it lies."""

    source: SourceBuild
    part: Part
    texts: Mapping[str, str]
    headers: tuple[Header, ...]

    def contribution(self) -> Contribution:
        """What an image gets of it, and all of it where something is built against it."""
        name, at = self.source.name, f"sources/{self.source.name}"
        known = f"{name} {self.source.version}"
        return Contribution(
            tools=(
                Add(source=f"{at}.tar", target="/", why=f"{known}, to build against."),
                Run(commands=(LDCONFIG,), why="Its libraries are found."),
            ),
            tool_files={f"{at}.tar": Derived(key=self.part.key, name=PRODUCT)},
            steps=(
                Add(
                    source=f"{at}-share.tar",
                    target="/",
                    why=f"{known}, compiled on this base: its programs and shared libraries.",
                ),
                LAST,
            ),
            files={f"{at}-share.tar": Derived(key=self.part.shares[0].key, name=PRODUCT)},
            parts=(self.part,),
        )


def request(
    source: SourceBuild, needs: Sequence[SourceBuild], base: BaseLock, platform: str
) -> apt.Request | None:
    """The Debian packages that it is built with on a base, with those that run what it needs;
    None where there are none to ask for: a base without apt has to bring them itself.
    """
    unpacker = UNPACKERS.get(PurePosixPath(file_of(source)).suffix)
    build = (
        *TOOLS[source.system],
        *([unpacker] if unpacker else []),
        *(["patch"] if source.patches else []),
        *source.apt.build,
        *(package for one in (source, *needs) for package in one.apt.run),
    )
    if base.facts.package_manager != "apt" or not build:
        return None
    return apt.Request(
        image=f"source:{source.name}",
        section=AptSection(build=tuple(dict.fromkeys(build))),
        base=base,
        platform=platform,
    )


def compiled(
    source: SourceBuild, lock: SourceLock, tools: AptLock | None, start: Start, base: str
) -> Compiled:
    """The source, compiled upon `start`: the base, with what the source needs.

    tools: the packages it is built with, locked on this base; none where there is no apt.
    """
    epoch = max([start.epoch, lock.header.epoch, *([tools.header.epoch] if tools else [])])
    # A base can have all of them already.
    if tools is not None and (debs := tools.sets.get("build")):
        step, lent = apt_image.install(debs, "apt", "What it is built with.")
        start = replace(
            start, steps=(step, *start.steps), files={**start.files, **lent}, epoch=epoch
        )
    files: dict[str, Content] = {
        f"source/{lock.artifact.name}": Stored(sha256=lock.artifact.sha256)
    }
    for number, patch in enumerate(source.patches):
        # By its content, which thereby stands in the text of the step that it is lent to.
        files[f"source/patches/{number}"] = _content(start.root / patch)
    part = replace(start, epoch=epoch).part(
        f"{source.name}-{base}",
        f"{source.name} {source.version} on {base}",
        steps(source, lock.artifact.name),
        files,
        why=f"{source.name} {source.version} is compiled on {base}, with no network.",
    )
    share = Share(
        key=digest_of([part.key, LEFT_BEHIND, source.keep, source.drop]),
        name=PRODUCT,
        keep=source.keep,
        drop=source.drop,
    )
    texts = {f"{source.name}.yaml": lock.text}
    headers = [lock.header]
    if tools is not None:
        # In a folder: beside them it could be the lock of a source of that name.
        texts[f"apt/{source.name}.yaml"] = tools.text
        headers.append(tools.header)
    return Compiled(
        source=source,
        part=replace(part, shares=(share,)),
        texts=texts,
        headers=tuple(headers),
    )


def _content(patch: Path) -> bytes:
    try:
        return patch.read_bytes()
    except OSError as error:
        raise LadingError(f"{patch} can't be read", why=str(error)) from error


def steps(source: SourceBuild, file: str) -> tuple[Step, ...]:
    """From the tarball to what is installed below `OUT`; each step can be gone back to."""
    prefix = re.sub("[^A-Z0-9]", "_", source.name.upper())
    prefix = f"_{prefix}" if prefix[0].isdigit() else prefix
    arguments = {"VERSION": source.version}
    options = source.filled(getattr(source, source.system) or "") if not source.commands else ""
    if not source.commands:
        arguments[f"{source.system.upper()}_OPTIONS"] = options
        arguments["MAKE_OPTIONS"] = source.filled(source.make)
    arguments |= {"INSTALL_OPTIONS": source.filled(source.install)} if source.install else {}
    made: list[Step] = [
        Arg(name=f"{prefix}_{name}", value=value, why=f"From sources.{source.name}.")
        for name, value in arguments.items()
    ]

    def with_options(command: str, name: str) -> str:
        if name not in arguments:
            return command
        whole = f"{command} ${prefix}_{name}"
        # What is quoted in a variable's value is quoted only when it is read once more.
        return whole if PLAIN.fullmatch(arguments[name]) else f'eval "{whole}"'

    unpack = [
        f"mkdir -p {UNPACKED} {OUT}",
        f"tar -xf {LENT}/{shlex.quote(file)}\n-C {UNPACKED} --no-same-owner",
        # In most tarballs everything lies in one folder.
        f"set -- {UNPACKED}/*",
        f'if [ $# = 1 ] && [ -d "$1" ]; then mv "$1" {FOLDER};\nelse mv {UNPACKED} {FOLDER}; fi',
        *(
            f"patch -d {FOLDER} -p1 <{LENT}/patches/{number}"
            for number in range(len(source.patches))
        ),
    ]
    made.append(
        Run(
            commands=tuple(unpack),
            mounts=(Mount(source="source", target=LENT),),
            why="The tarball is lent to this step.",
        )
    )
    made.append(_environment(source))
    then = [
        ((ASIDE, source.filled(command)), f"`then:` of sources.{source.name}.")
        for command in source.then
    ]
    for commands, why in (*_built(source, with_options), *then):
        made.append(Run(commands=("umask 022", f"cd {FOLDER}", *commands), why=why))
    return tuple(made)


def _environment(source: SourceBuild) -> Env:
    """What every step of a build is told: no path of the build in what is compiled."""
    values = {
        "HOME": "/dev/shm",
        "CFLAGS": f"-O2 -ffile-prefix-map={FOLDER}=.",
        "CXXFLAGS": f"-O2 -ffile-prefix-map={FOLDER}=.",
        **{name: source.filled(value) for name, value in source.env.items()},
    }
    return Env(
        values=values, why="Where it is compiled does not show in what is, and leaves no trace."
    )


ASIDE = f"export DESTDIR={OUT}"
CORES = "-j $(nproc)"


def _built(
    source: SourceBuild, with_options: Callable[[str, str], str]
) -> list[tuple[tuple[str, ...], str]]:
    """The steps behind unpacking: the commands of each, and why."""

    def configure(command: str) -> str:
        return with_options(command, f"{source.system.upper()}_OPTIONS")

    def make(command: str) -> str:
        return with_options(command, "MAKE_OPTIONS")

    def install(command: str) -> str:
        return with_options(command, "INSTALL_OPTIONS")

    compiled, aside = "… compiled on all cores …", "… and installed aside."
    match source.system:
        case "configure":
            return [
                ((configure("./configure"),), "autotools: configured …"),
                ((make(f"make {CORES}"),), compiled),
                # make takes DESTDIR from its arguments only.
                ((install(f"make install DESTDIR={OUT}"),), aside),
            ]
        case "cmake":
            setup = "cmake -S . -B build -DCMAKE_BUILD_TYPE=Release"
            return [
                ((configure(setup),), "CMake: configured …"),
                ((make(f"cmake --build build {CORES}"),), compiled),
                ((ASIDE, install("cmake --install build")), aside),
            ]
        case "meson":
            setup = "meson setup build --buildtype=release"
            return [
                ((configure(setup),), "Meson: set up …"),
                ((make("ninja -C build"),), compiled),
                ((ASIDE, install("meson install -C build --no-rebuild")), aside),
            ]
        case _:
            return [
                ((ASIDE, source.filled(command)), f"From sources.{source.name}.")
                for command in source.commands
            ]
