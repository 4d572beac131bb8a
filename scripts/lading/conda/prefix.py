"""A prefix as one tar archive: the same bytes wherever it was staged."""

from __future__ import annotations

import json
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from lading.conda.explicit import Package

TIME = 315_532_800
"""1980-01-01, the earliest day that a zip archive can hold: when every file says it was made."""
_NOT_OURS = ("CACHEDIR.TAG",)
"""What py-rattler adds at the top of a prefix, and conda does not."""


def write(staged: Path, prefix: str, out: Path) -> None:
    """Writes what is staged as a tar of the folder `prefix`, numeric owner 0, sorted, one time.

    Hard links inside of the prefix are kept; everything can be read by everybody.
    """
    first: dict[tuple[int, int], str] = {}
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in _walk(staged):
            inside = path.relative_to(staged).as_posix()
            if inside in _NOT_OURS or _stale(path):
                continue
            member, content = _member(path, f"{prefix.strip('/')}/{inside}".rstrip("/."), first)
            if content:
                with path.open("rb") as file:
                    archive.addfile(member, file)
            else:
                archive.addfile(member)


def _walk(folder: Path) -> Iterator[Path]:
    """A folder and all below it, sorted; links are not followed."""
    yield folder
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        else:
            yield Path(entry.path)


def _stale(path: Path) -> bool:
    """Whether this is bytecode of a source that is there, valid by the source's time, which is
    another one now (PEP 552: flags 0).
    """
    if path.suffix != ".pyc" or path.parent.name != "__pycache__" or path.is_symlink():
        return False
    source = path.parent.parent / f"{path.name.partition('.')[0]}.py"
    with path.open("rb") as file:
        return source.exists() and file.read(8)[4:] == bytes(4)


def _member(
    path: Path, name: str, first: dict[tuple[int, int], str]
) -> tuple[tarfile.TarInfo, bool]:
    """A member of the archive, and whether its content follows."""
    status = path.lstat()
    member = tarfile.TarInfo(name)
    member.mtime = TIME
    mode = stat.S_IMODE(status.st_mode)
    # No setuid, and nothing that only its owner can read.
    runs = 0o111 if mode & 0o111 else 0
    if stat.S_ISDIR(status.st_mode):
        member.type, member.mode = tarfile.DIRTYPE, 0o755
    elif stat.S_ISLNK(status.st_mode):
        member.type, member.mode = tarfile.SYMTYPE, 0o777
        member.linkname = str(path.readlink())
    else:
        member.mode = 0o644 | runs
        same = first.setdefault((status.st_dev, status.st_ino), name)
        if same != name:
            member.type, member.linkname = tarfile.LNKTYPE, same
        else:
            member.size = status.st_size
            return member, True
    return member, False


def as_conda_leaves_it(
    staged: Path, prefix: str, packages: Iterable[Package], specs: Iterable[str]
) -> None:
    """Makes `conda-meta` what conda itself would have written, so that it can go on from there.

    Where a package came from is told by its channel's name: no server is in an image.
    """
    meta = staged / "conda-meta"
    wanted = {_name_of(spec): spec for spec in specs}
    for package in packages:
        path = meta / f"{package.stem}.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        at = f"{prefix}/pkgs/{package.stem}"
        record |= {
            "channel": package.channel,
            "url": package.url,
            "extracted_package_dir": at,
            "link": {"source": at, "type": 1},
            "package_tarball_full_path": f"{prefix}/pkgs/{package.file}",
        }
        asked = wanted.get(package.name)
        record["requested_spec"] = asked or "None"
        record["requested_specs"] = [asked] if asked else []
        path.write_text(json.dumps(record, indent=2, sort_keys=True), encoding="utf-8")
    (meta / "history").write_text(history(packages, specs), encoding="utf-8")


def history(packages: Iterable[Package], specs: Iterable[str]) -> str:
    """conda-meta/history, by which conda knows what was asked for."""
    lines = [
        "==> 1980-01-01 00:00:00 <==",
        "# cmd: lading",
        *(f"+{package.channel}/{package.subdir}::{package.stem}" for package in packages),
        f"# update specs: {list(specs)!r}",
    ]
    return "\n".join(lines) + "\n"


def _name_of(spec: str) -> str:
    """The package that a spec is about."""
    plain = spec.rpartition("::")[2].strip()
    for at, char in enumerate(plain):
        if char in " =<>!~[":
            return plain[:at].lower()
    return plain.lower()
