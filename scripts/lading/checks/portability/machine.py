"""A4 and A5: whether the image is for the target's processor, system and kernel."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from lading.checks.portability.findings import Found
from lading.checks.portability.loader import Loader
from lading.checks.portability.subject import Subject

# e_machine, as the ELF gABI lists it, by the architecture's name in OCI (Go's GOARCH).
_MACHINES = {
    "386": 3,
    "ppc64le": 21,
    "s390x": 22,
    "arm": 40,
    "amd64": 62,
    "arm64": 183,
    "riscv64": 243,
    "loong64": 258,
}
_NAMES = {number: name for name, number in _MACHINES.items()}
_RUNS_TOO = {"amd64": ("386",), "arm64": ("arm",)}
_KERNEL = (4, 18, 0)
"""Enterprise Linux 8, the oldest that clusters still run with support."""
_OLD_KERNEL = (3, 10, 0)


def settings(subject: Subject) -> Iterator[Found]:
    """A4 in the configuration. Apptainer believes the label, and compares it with nothing."""
    system, _, rest = subject.platform.partition("/")
    architecture = rest.partition("/")[0]
    for key, wanted in (("os", system), ("architecture", architecture)):
        found = str(subject.settings.get(key) or "")
        if found != wanted:
            yield Found(
                "A4",
                "error",
                key,
                f"the image says {found or 'nothing'}, the target is {wanted}",
                f"build it for {subject.platform}",
            )


def check(subject: Subject, loader: Loader) -> Iterator[Found]:
    """A4 and A5 in programs and libraries.

    Programs for other processors lie in packages as data (cross compilers, firmware): an error is
    only what would be run, loaded or imported.
    """
    architecture = subject.platform.split("/")[1] if "/" in subject.platform else ""
    fits = {architecture, *_RUNS_TOO.get(architecture, ())}
    used = {*subject.searched, *loader.trusted, *loader.configured}
    for path, node in subject.files:
        if node.elf is None:
            continue
        name = _NAMES.get(node.elf.machine)
        if name is not None and name not in fits and architecture in _MACHINES:
            module = "-packages/" in path and path.endswith(".so")
            runs = posixpath.dirname(path) in used or module
            yield Found(
                "A4",
                "error" if runs else "info",
                path,
                f"it is for {name}: 'Exec format error'" if runs else f"it is for {name}",
                f"build it for {subject.platform}" if runs else "nothing, if it is meant as data",
            )
        if node.elf.kernel is not None and node.elf.kernel > _OLD_KERNEL:
            # apptainer/apptainer#369, nipreps/fmriprep#2535: Qt's library is 'not found' on an
            # older kernel though it is there, for ld.so compares its ABI tag.
            kernel = ".".join(map(str, node.elf.kernel))
            yield Found(
                "A5",
                "warn" if node.elf.kernel > _KERNEL else "info",
                path,
                f"on a host with a kernel older than Linux {kernel} the loader does not find it",
                "strip --remove-section=.note.ABI-tag it, or take a build for older kernels",
            )
