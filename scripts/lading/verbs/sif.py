"""sif: make dist/NAME.sif of the archive, with Apptainer, and run the tests inside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lading.console import counted, duration, shortened, size
from lading.errors import LadingError
from lading.files import canonical_json, digest_of, write_text
from lading.project import Image
from lading.state import State
from lading.verbs import check as check_verb
from lading.verbs import sbom

if TYPE_CHECKING:
    from lading.sif.making import Host

FORMAT = 4
"""Raised when the same archive gives another SIF, or is tested in another way."""


def current(state: State, image: Image) -> bool:
    """Whether dist/ has the SIF of today's archive: one stat each, no Apptainer is asked."""
    if not state.archived(image):
        return False
    try:
        found = json.loads(record(state, image).read_bytes())
        there = path(state, image).stat().st_size
        return bool(found["inputs"] == _inputs(state, image) and found["size"] == there)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def path(state: State, image: Image) -> Path:
    """dist/NAME.sif."""
    return state.project.root / "dist" / f"{image.name}{state.at}.sif"


def record(state: State, image: Image) -> Path:
    """What is known of the SIF, beside it."""
    return state.project.root / "dist" / f"{image.name}{state.at}.sif.json"


def _archive(state: State, image: Image) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(state.record(image).read_bytes())
    return found


def _inputs(state: State, image: Image) -> str:
    """What a SIF is made from and tested by: the archive (which names the key), its SBOM, how it
    is compressed, and the tests.
    """
    archive = _archive(state, image)
    return digest_of(
        [
            FORMAT,
            archive["sha256"],
            archive["key"],
            archive["sbom"]["sha256"],
            state.project.sif.compression,
            list(image.test),
            image.mpi,
        ]
    )


def make(state: State, image: Image) -> str:
    """Makes the SIF, and tests it; without Apptainer, says what to do on the cluster."""
    from lading.sif import making, programs

    if not state.archived(image):
        raise LadingError(
            f"there is no archive of {image.name} to make a SIF of",
            do=f"doit archive:{image.name}{state.at}",
        )
    settings = state.project.sif
    program = programs.find(settings.command, state.environ, elsewhere(path(state, image).stem))
    mksquashfs = programs.mksquashfs(state.environ)
    order = _order(state, image)

    def told(tested: making.Ran) -> None:
        result = tested.result
        verdict = "passed" if not result.code else f"failed ({result.code})"
        line = f"  {verdict}  {duration(result.seconds)}  {image.name}, {tested.how}: "
        state.console.note(shortened(line + result.command, 80))

    target = path(state, image)
    # Without its record a SIF is not current: a kill in between costs making it again.
    with state.console.lines(f"sif {image.name}") as show:
        made = making.make(
            program, mksquashfs, order, target, state.environ,
            show=show, told=told, replacing=lambda: record(state, image).unlink(missing_ok=True),
            host=lambda mpi4py: _host(state, image, mpi4py),
        )  # fmt: skip
    found = {"inputs": _inputs(state, image), **making.record(order, made, program)}
    write_text(record(state, image), json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return (
        f"dist/{target.name}, {size(made.size)}, {made.sha256[:12]}, "
        f"{counted(len(made.tests), 'test')} passed inside it"
    )


def _order(state: State, image: Image) -> Any:
    from lading.sif.making import Order

    document, sha256 = sbom.ensure(state, image)
    archive = _archive(state, image)
    locks = state.all_locked(image)
    texts = hashlib.sha256(canonical_json(dict(locks.texts))).hexdigest()
    return Order(
        name=image.name,
        archive=state.archive(image),
        sha256=archive["sha256"],
        size=archive["size"],
        epoch=locks.header.epoch,
        platform=state.project.platform,
        labels={
            "lading.key": archive["key"],
            "lading.locks": f"sha256:{texts}",
            "lading.archive": f"sha256:{archive['sha256']}",
            "lading.sbom": f"sha256:{sha256}",
        },
        tests=image.test,
        mpi=image.mpi,
        compression=state.project.sif.compression,
        sbom=document.read_bytes(),
    )


def _host(state: State, image: Image, mpi4py: bool) -> Host | None:
    """The stand-in for a host's MPI that `check` has shown to take over; None where there is none
    for this image.
    """
    from lading.checks import mpi
    from lading.sif.making import Host

    if not mpi4py:
        state.console.note(f"  {image.name}: without mpi4py no host's MPI is tried in the SIF")
        return None
    checked = check_verb.read(state, image).get("mpi") or {}
    base = state.base_lock(state.base_of(image))
    find = mpi.finder(image.mpi, state.project.platform, state.store, state.environ)
    own = str(checked.get("mpi", "")).rpartition(" ")[2]
    found = find(own, base.facts.glibc if base is not None else "")
    if isinstance(found, mpi.NoHost):
        state.console.note(f"  {image.name}: no host's MPI is tried in the SIF: {found.why}")
        return None
    return Host(folder=found.folder, version=found.version)


def elsewhere(name: str) -> str:
    """How to come to a SIF where Apptainer is: what to copy, and the one command to type."""
    return (
        f"Or on the cluster: scp dist/{name}.tar cluster:  and there:  "
        f"apptainer build {name}.sif docker-archive:{name}.tar"
    )


def clean(state: State, image: Image) -> None:
    """Removes the SIF and its record."""
    record(state, image).unlink(missing_ok=True)
    path(state, image).unlink(missing_ok=True)
