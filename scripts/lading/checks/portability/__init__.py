"""The portability checks: whether Apptainer makes of an archive what Docker makes of it.

They read the bytes that will ship, and need no engine: headers, configuration, and a little of
some files; nothing is unpacked. Which checks there are, and why, stands with each of them: A* in
`archives` and `machine`, E* and C* in `configuration`, F* in `tree`, `loader`, `bytecode` and
`view`, M* in `mpi`.

What is the same under both is none of theirs. Fonts: an image has those it has, and is without
them under Docker, too (dariober/cnv_facets#38); that caches of them can't be written is E8 and E9.
Files over 8 GiB: tar has a size for them, and squashfs takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lading.archive.tarfiles import DamagedError
from lading.checks.portability import bytecode, configuration, loader, machine, tree
from lading.checks.portability.archives import RefusedError, opened
from lading.checks.portability.findings import (
    Allowed,
    Finding,
    Found,
    Level,
    Report,
    allowed,
    grouped,
    shown,
    told,
)
from lading.checks.portability.mpi import SONAMES, Mpi, glibc
from lading.checks.portability.printed import table
from lading.checks.portability.subject import Subject
from lading.checks.portability.view import merged
from lading.errors import EnvironmentProblem, LadingError

__all__ = [
    "SONAMES",
    "Allowed",
    "Finding",
    "Level",
    "Report",
    "allowed",
    "examine",
    "table",
]


def examine(
    path: Path,
    *,
    platform: str,
    mpi: str = "",
    allow: Sequence[Allowed] = (),
    digests: bool = True,
) -> Report:
    """Checks the archive of one image: a docker-archive, or a tar of an OCI layout.

    `mpi` is the flavour that the image declares (a key of `SONAMES`), or empty; `digests` is
    False where whoever wrote the archive has verified them a moment ago (they are most of the
    time that it takes).

    Raises `LadingError` for an archive that is damaged, `DeclarationError` where there is none,
    `EnvironmentProblem` for a disk that fails.
    """
    founds: list[Found] = []
    facts: dict[str, Any] = {}
    try:
        with ExitStack() as stack:
            try:
                image = opened(path, platform, stack, digests=digests)
                view = merged(image.layers, image.problems)
                subject = Subject(view=view, settings=image.settings, platform=platform, mpi=mpi)
                checked, facts = _checked(subject)
                image.verify()
                founds += [*image.problems, *checked]
            except RefusedError as refused:
                founds.append(refused.found)
    except DamagedError as error:
        raise LadingError(
            f"{shown(str(path))} can't be checked: it is damaged, or no archive of an image",
            why=shown(str(error)),
            do="save the image again",
        ) from None
    except OSError as error:
        raise EnvironmentProblem(f"{path} can't be read", why=str(error)) from error
    return Report(
        archive=shown(path.name),
        platform=platform,
        findings=grouped(founds, allow),
        facts=told(facts),
        unused=tuple(one for one in allow if not any(one.covers(found) for found in founds)),
    )


def _checked(subject: Subject) -> tuple[list[Found], dict[str, Any]]:
    loading = loader.Loader(subject)
    mpi = Mpi(subject=subject, loader=loading)
    of_mpi = mpi.check()
    founds = [
        *machine.settings(subject),
        *machine.check(subject, loading),
        *configuration.check(subject),
        *tree.check(subject),
        *loader.check(subject, loading),
        *bytecode.check(subject),
        *of_mpi,
    ]
    version = glibc(mpi.files)
    facts: dict[str, Any] = {
        "paths": len(subject.files),
        "python": subject.python,
        "glibc": ".".join(map(str, version)) if version else "",
        "mpi": mpi.facts(of_mpi),
    }
    return founds, facts
