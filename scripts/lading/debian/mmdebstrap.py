"""The root file system of a Debian base, made by mmdebstrap from exactly the locked .debs.

No network is used. As root, it happens in namespaces of its own (mounts, processes, network,
hostname) and on a tmpfs where there is memory enough: when it ends, however it ends, no mount,
no process and no folder stays behind.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from lading import compiling
from lading.debian.packages import PATH, Deb
from lading.errors import EnvironmentProblem, LadingError
from lading.process import NO_ROOM, run

PREFIX = "lading-base-"
NEEDED = 3 << 30
"""Bytes of free memory from which on a tmpfs is used: a base takes a sixth of it."""

MERGED = {"amd64": ("lib32", "lib64", "libx32"), "i386": ("lib64",), "ppc64el": ("lib64",)}
"""Folders that are links into /usr, on these architectures, besides bin, sbin and lib."""

# The programs stay in one process tree, which the kernel ends when lading is killed; unshare
# itself doesn't listen to SIGTERM, so that its parent does.
KEEPER = 'setpriv --pdeathsig KILL "$@" & wait $!'
NAMESPACES = ["--mount", "--uts", "--net", "--ipc", "--pid", "--fork", "--kill-child"]
INSIDE = """\
hostname localhost
[ "$1" = disk ] || mount -t tmpfs -o mode=0755 lading "$TMPDIR" || exit 1
shift
"$@"
"""

SETUP = """\
set -eu
mkdir -p "$1/etc/dpkg/dpkg.cfg.d"
cp "$LADING_WORK/dpkg.cfg" "$1/etc/dpkg/dpkg.cfg.d/lading"
for folder in $LADING_MERGED; do mkdir -p "$1/usr/$folder"; ln -s "usr/$folder" "$1/$folder"; done
"""

# Debian's packages compile by the time of a source, and not to the same bytes each time.
RECOMPILE = """\
set -eu
for python in "$1"/usr/bin/python3.[0-9] "$1"/usr/bin/python3.[0-9][0-9]; do
  [ -x "$python" ] || continue
  cp "$LADING_WORK/bytecode.py" "$1/"
  chroot "$1" find /usr/lib /usr/share -path '*/__pycache__/*.pyc' >"$1/compiled"
  PYTHONHASHSEED=0 chroot "$1" "/usr/bin/${python##*/}" -S -B /bytecode.py <"$1/compiled"
  rm "$1/bytecode.py" "$1/compiled"
done
"""

SCRIPTS = {"setup.sh": SETUP, "customize.sh": RECOMPILE}


def _unheard(_line: str) -> None:
    """Nobody wants the log."""


def assemble(
    debs: Sequence[Deb],
    suite: str,
    epoch: int,
    files: Mapping[str, Path],
    out: Path,
    log: Callable[[str], None] = _unheard,
    *,
    work: Path | None = None,
) -> None:
    """Writes the root file system of these packages, all installed, as a tar at `out`: the same
    bytes on every machine. Without documentation, translations, caches, logs and devices, and
    with nothing of this machine.

    `epoch`: the latest time in it, in seconds. `files`: sha256 → path of the .deb. `log` gets
    mmdebstrap's lines. `work`: a folder for temporary files, on disk ($TMPDIR otherwise).

    Raises `EnvironmentProblem` when mmdebstrap is missing or the disk is full, `LadingError`
    when it fails or something else than the lock is installed.
    """
    from lading.debian import repository, rootfs
    from lading.files import disk_errors, written_whole

    require_mmdebstrap()
    architecture = _architecture(debs)
    with disk_errors(work or out), _workplace(work) as folder:
        repository.write(folder / "repository", debs, files, suite, architecture)
        texts = {**SCRIPTS, "dpkg.cfg": rootfs.DPKG_CONFIGURATION}
        texts[compiling.NAME] = compiling.program().decode()
        for name, text in texts.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o644)
        (folder / "tmp").mkdir()
        (folder / "tmp").chmod(0o755 if os.geteuid() == 0 else 0o1777)
        _mmdebstrap(folder, debs, suite, epoch, architecture, log)
        with written_whole(out) as file:
            installed = rootfs.write(folder / "root.tar", file, epoch)
            check_installed(debs, installed)


def require_mmdebstrap() -> None:
    """Raises `EnvironmentProblem` where there is no mmdebstrap, with how to get it."""
    if shutil.which("mmdebstrap") is not None:
        return
    if shutil.which("apt-get") is None:
        raise EnvironmentProblem(
            "Debian bases can be made on Debian and Ubuntu only: there is no apt here",
            do="use a base of the kind `image:`, or run lading on Debian or Ubuntu",
        )
    raise EnvironmentProblem(
        "a Debian base is made by mmdebstrap, which is not installed",
        do="apt-get install mmdebstrap",
    )


def _architecture(debs: Sequence[Deb]) -> str:
    found = {deb.architecture for deb in debs} - {"all"}
    if len(found) != 1:
        raise LadingError(
            "the lock of a Debian base is for one architecture",
            why=f"its packages are for {', '.join(sorted(found)) or 'none'}",
            do="make the base's lock again with `doit lock`",
        )
    return found.pop()


def check_installed(debs: Sequence[Deb], installed: Mapping[str, tuple[str, str]]) -> None:
    """Raises `LadingError` unless exactly the locked packages are installed."""
    locked = {deb.name: (deb.version, deb.architecture) for deb in debs}
    if locked == installed:
        return
    different = sorted(
        name for name in {*locked, *installed} if locked.get(name) != installed.get(name)
    )
    raise LadingError(
        "the base that was made is not the one that is locked",
        why="\n".join(
            f"{name}: locked {' '.join(locked.get(name, ('not',)))}, "
            f"installed {' '.join(installed.get(name, ('not',)))}"
            for name in different
        ),
        do="make the base's lock again with `doit lock`",
    )


# -- mmdebstrap -----------------------------------------------------------------------------


def _mmdebstrap(
    folder: Path,
    debs: Sequence[Deb],
    suite: str,
    epoch: int,
    architecture: str,
    log: Callable[[str], None],
) -> None:
    names = sorted(deb.name for deb in debs)
    mode = "root" if os.geteuid() == 0 else "unshare"
    command = [
        "mmdebstrap",
        f"--mode={mode}",
        # All at once: dpkg sorts them, nothing is solved, and what is locked is what gets in.
        "--variant=custom",
        f"--include={','.join(names)}",
        f"--architectures={architecture}",
        "--format=tar",
        # What these would clean, `rootfs` leaves out; the repository needs no signature.
        "--skip=check/signed-by,cleanup/apt,cleanup/reproducible",
        "--verbose",
        '--setup-hook=sh "$LADING_WORK/setup.sh" "$1"',
        '--customize-hook=sh "$LADING_WORK/customize.sh" "$1"',
        suite,
        str(folder / "root.tar"),
        f"deb [trusted=yes] copy:{quote(str(folder / 'repository'))} ./",
    ]
    # usrmerge's package only checks that / was merged from the beginning.
    merged = ["bin", "sbin", "lib", *MERGED.get(architecture, ())]
    environment = {
        "PATH": PATH,
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": str(epoch),
        "TMPDIR": str(folder / "tmp"),
        "LADING_WORK": str(folder),
        "LADING_MERGED": " ".join(merged) if "usr-is-merged" in names else "",
    }
    clean = ["env", "-i", *(f"{name}={value}" for name, value in environment.items())]
    finished = run([*clean, *_isolation(), *command], cwd=folder, line=log)
    if finished.code != 0:
        raise failure(suite, finished.output)


def failure(suite: str, output: str) -> LadingError:
    """What mmdebstrap failed of, with the end of its log."""
    last = "\n".join(output.splitlines()[-20:])
    what = f"mmdebstrap could not make the base Debian {suite}"
    if NO_ROOM.search(output):
        return EnvironmentProblem(
            f"{what}: no room left on the disk", why=last, do="free some room, or set TMPDIR"
        )
    if "newuidmap" in output or "/etc/subuid" in output:
        return EnvironmentProblem(
            f"{what} without root",
            why=last,
            do="apt-get install uidmap, give this user ranges in /etc/subuid and /etc/subgid "
            "(usermod --add-subuids … --add-subgids …), or run it as root",
        )
    return LadingError(what, why=last)


def _isolation() -> list[str]:
    """What the command is run through: namespaces, where root may have them."""
    if os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("setpriv")):
        return []  # mmdebstrap makes some itself
    spaces = ["unshare", *NAMESPACES, "--mount-proc"]
    if run([*spaces, "true"]).code != 0:
        return []  # a container that may not
    kind = "tmpfs" if _free_memory() >= NEEDED else "disk"
    keeper = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", KEEPER, "sh"]
    return [*keeper, *spaces, "sh", "-c", INSIDE, "sh", kind]


def _free_memory() -> int:
    """Bytes that this process could still take, by the kernel's estimate and its own limits."""
    free = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):  # cgroup v2, as a container sees its own
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / f"memory.{part}").read_text() for part in ("max", "current"))
        free.append(int(limit) - int(used))
    return min(free, default=0)


# -- where it works -------------------------------------------------------------------------


@contextmanager
def _workplace(parent: Path | None) -> Iterator[Path]:
    """A temporary folder that apt's user may read too; those of killed runs are swept up."""
    import fcntl
    import tempfile

    base = Path(parent or tempfile.gettempdir()).absolute()
    base.mkdir(parents=True, exist_ok=True)
    _sweep(base)
    fresh = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=base))
    with (fresh / "taken").open("w") as taken:
        fcntl.flock(taken, fcntl.LOCK_EX)  # ends with this process
        # Only now, under its lock, is it one that a later run could sweep up.
        folder = fresh.rename(base / fresh.name.removeprefix("."))
        try:
            folder.chmod(0o755)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(base: Path) -> None:
    import fcntl

    for taken in base.glob(f"{PREFIX}*/taken"):
        with suppress(OSError), taken.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(taken.parent, ignore_errors=True)
