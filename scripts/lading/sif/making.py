"""From an archive to a tested SIF, the same bytes every time.

`apptainer build` writes its clock, its host's paths and a random UUID into a SIF. So it only
unpacks the image here, into a folder; labels and times are mended there, mksquashfs packs it, and
`apptainer sif` assembles the SIF, whose header is set to what follows from the archive.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from lading.checks.declared import Result
from lading.errors import EnvironmentProblem, LadingError
from lading.files import PART, canonical_json, disk_errors, sha256_of
from lading.process import Finished
from lading.sif import header, inside, layout, sandbox, squashfs, workplace
from lading.sif.inside import Inside
from lading.sif.programs import Program

ROOM = 3.2
"""How often the image's unpacked size is on the disk at once: laid out, copied so by Apptainer, and
unpacked, where small files take whole blocks."""

# Of the SIF specification, as `sif add` is told them.
_DEFFILE, _PARTITION, _JSON = "1", "4", "6"
SBOM = "sbom.cdx.json"
"""What its bill of materials is called among the objects of a SIF."""
_ARCHITECTURES = {"linux/amd64": "2", "linux/arm64": "4"}


class Order(Struct, frozen=True, kw_only=True):
    """What the SIF is to be: all of it is in its bytes.

    `sha256` and `size` (bytes, unpacked) are the archive's; `epoch` is the locks' date; `sbom` is
    its bill of materials, CycloneDX in JSON.
    """

    name: str
    archive: Path
    sha256: str
    size: int
    epoch: int
    platform: str
    labels: Mapping[str, str]
    tests: tuple[str, ...]
    mpi: str
    compression: str
    sbom: bytes


class Host(Struct, frozen=True, kw_only=True):
    """A stand-in for a host's MPI: its folder, which holds `lib`, and its version."""

    folder: Path
    version: str


class Ran(Struct, frozen=True, kw_only=True):
    """A test's result, and how it was run: "contained", "with traps", "as %test" or
    "with a host's MPI".
    """

    how: str
    result: Result


class Made(Struct, frozen=True, kw_only=True):
    """A SIF that is whole: `size` in bytes."""

    sha256: str
    size: int
    tests: tuple[Ran, ...]


def make(
    program: Program,
    mksquashfs: str,
    order: Order,
    out: Path,
    environ: Mapping[str, str],
    *,
    show: Callable[[str], None] = lambda _: None,
    told: Callable[[Ran], None] = lambda _: None,
    replacing: Callable[[], None] = lambda: None,
    host: Callable[[bool], Host | None] = lambda _: None,
) -> Made:
    """Makes the SIF beside its name, tests it, and gives it its name if it passes.

    `show` is called with what is going on, `told` with each test's result, `replacing` just before
    `out` is replaced; `host`, for an image with MPI, with whether it has mpi4py. Raises
    `LadingError` for a test that fails, or an Apptainer that does; `EnvironmentProblem` for a full
    disk or a machine that lets no container run. Then there is no `out`, or the old one.
    """
    order, out = replace(order, archive=order.archive.absolute()), out.absolute()
    needed = round(order.size * ROOM) + (64 << 20)
    why = f"the image takes {ROOM} times its unpacked size while it is turned into a SIF"
    with (
        workplace.opened(environ, needed, why) as folder,
        _part(out) as part,
        disk_errors(folder),
    ):
        commands, packages, python = assemble(program, mksquashfs, order, folder, part, show)
        show("testing")
        opened = inside.opened(program, part, folder)
        stand_in = host(bool(python)) if order.mpi else None
        results = _results(opened, commands, packages, python, stand_in)
        tests = _test(order.name, results, told)
        made = Made(sha256=sha256_of(part), size=part.stat().st_size, tests=tests)
        with disk_errors(out), part.open("rb") as file:
            os.fsync(file.fileno())
            replacing()
            part.replace(out)
        return made


def assemble(
    program: Program,
    mksquashfs: str,
    order: Order,
    folder: Path,
    out: Path,
    show: Callable[[str], None],
) -> tuple[tuple[str, ...], str, str]:
    """Makes the SIF `out`, untested; returns its tests, its label python.packages, and, of an image
    with MPI, what the Python is called that has mpi4py.
    """
    show("laying out the archive")
    since = sandbox.clock(folder)
    settings = layout.write(order.archive, folder / "layout", lambda _: None)
    root = folder / "root"
    _built(
        program.run(
            *("build", "--disable-cache", "--fix-perms", "--sandbox", root.name, "oci:layout"),
            env=inside.settings(folder),
            cwd=folder,
            line=show,
        ),
        program,
        folder,
    )
    workplace.remove(folder / "layout")
    show("packing the file system")
    python = sandbox.with_mpi4py(root) if order.mpi else ""
    commands = sandbox.tests(order.tests, python)
    sandbox.mend(
        root,
        name=order.name,
        epoch=order.epoch,
        added=order.labels,
        commands=commands,
        since=since,
    )
    parts: dict[str, bytes] = {
        "deffile": sandbox.deffile(order.name).encode(),
        "inspect-metadata.json": sandbox.metadata(root),
        "oci-config.json": canonical_json(settings.get("config") or {}),
        SBOM: order.sbom,
    }
    packed = folder / "root.squashfs"
    squashfs.pack(mksquashfs, root, packed, order.compression, order.epoch, show)
    workplace.remove(root)
    show("assembling the SIF")
    workplace.check_room(out.parent, packed.stat().st_size, "the SIF is written there")
    _assembled(program, folder, parts, packed, order.platform, out)
    packed.unlink()
    header.normalise(out, header.identity(order.sha256), order.epoch, sboms=(SBOM,))
    labels = (settings.get("config") or {}).get("Labels") or {}
    return commands, labels.get("python.packages", ""), python


def _assembled(
    program: Program,
    folder: Path,
    parts: Mapping[str, bytes],
    packed: Path,
    platform: str,
    out: Path,
) -> None:
    """Puts the SIF together, its objects in the order and of the types of Apptainer's own."""

    def sif(verb: str, *arguments: str | Path) -> None:
        _built(
            program.run("sif", verb, *arguments, env=inside.settings(folder), cwd=folder),
            program,
            out.parent,
        )

    out.unlink(missing_ok=True)
    sif("new", out)
    for name, data in parts.items():
        (folder / name).write_bytes(data)
        kind = _DEFFILE if name == "deffile" else _JSON
        called = () if name == "deffile" else ("--filename", name)
        sif("add", "--datatype", kind, "--groupid", "1", *called, out, name)
    architecture = _ARCHITECTURES[platform]
    sif(
        *("add", "--datatype", _PARTITION, "--groupid", "1", "--filename", "root.squashfs"),
        *("--parttype", "2", "--partfs", "1", "--partarch", architecture, out, packed.name),
    )
    out.chmod(0o755)


def _built(finished: Finished, program: Program, folder: Path) -> None:
    if not finished.code:
        return
    lines = finished.output.strip().splitlines()
    full = ("no space left on device", "disk quota exceeded")
    if any(text in finished.output.lower() for text in full):
        raise EnvironmentProblem(
            f"no room left on the disk of {folder}",
            why="\n".join(lines[-3:]),
            do="free some, or name a folder with more room on a local disk: TMPDIR=/path doit …",
        )
    how = f"was ended by signal {-finished.code}" if finished.code < 0 else "failed"
    raise LadingError(
        f"{program.version} {how}",
        why="\n".join(lines[-10:]) or f"exit code {finished.code}; it printed nothing",
        do="nothing was written; mend what it says, and run it again",
    )


def _test(
    name: str,
    results: Iterable[tuple[str, Result]],
    told: Callable[[Ran], None],
) -> tuple[Ran, ...]:
    tests: list[Ran] = []
    for how, result in results:
        tested = Ran(how=how, result=result)
        tests.append(tested)
        told(tested)
    failed = [tested for tested in tests if tested.result.code]
    if failed:
        first = failed[0]
        raise LadingError(
            f"a test of {name} failed inside the SIF, {first.how}: "
            f"{first.result.command} (exit code {first.result.code})",
            why="\n".join(first.result.output.splitlines()[-30:]) or "it printed nothing",
            do=f"no SIF is written; it passed in the engine, so see what {_SEE[first.how]}",
        )
    return tuple(tests)


SWAPPED = "with a host's MPI"
WHO = """\
import sys
from mpi4py import MPI
said = MPI.Get_library_version().splitlines()[0]
with open("/proc/self/maps") as file:
    own = {line.split()[-1] for line in file if "libmpi" in line and "/host/" not in line}
print(said, *sorted(own))
sys.exit(bool(own) or sys.argv[1] not in said)
"""
"""Says whose MPI answers, and fails where it is not the host's alone."""

_SEE = {
    "contained": "Apptainer does otherwise: read-only, no home, an empty /tmp",
    "with traps": "the image takes from the home or the variables of who runs it",
    "as %test": "it needs of a home or a folder that it can write to",
    SWAPPED: "`doit check` says of the image's MPI",
}


def _results(
    opened: Inside, commands: Sequence[str], packages: str, python: str, host: Host | None
) -> Iterator[tuple[str, Result]]:
    for result in inside.contained(opened, commands):
        yield "contained", result
    for result in inside.trapped(opened, commands, inside.modules(packages)):
        yield "with traps", result
    if commands:
        yield "as %test", inside.scripted(opened)
    if host is not None:
        result = inside.swap(opened, host.folder, [python, "-c", WHO, host.version])
        yield SWAPPED, dataclasses.replace(result, command=f"whose MPI answers: {host.version}")


@contextmanager
def _part(out: Path) -> Iterator[Path]:
    """A name beside `out` for what is not whole; what is there at the end is removed, and what an
    earlier, killed run left, too.
    """
    part = out.with_name(f".{out.name}{PART}")
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def record(order: Order, made: Made, program: Program) -> dict[str, Any]:
    """What is known of a SIF, for the file beside it."""
    return {
        "key": order.labels["lading.key"],
        "archive": order.sha256,
        "size": made.size,
        "sha256": made.sha256,
        "program": program.version,
        "compression": order.compression,
        "tests": [
            {
                "how": tested.how,
                "command": tested.result.command,
                "code": tested.result.code,
                "seconds": round(tested.result.seconds, 3),
                "output": tested.result.output[-10_000:],
            }
            for tested in made.tests
        ],
    }
