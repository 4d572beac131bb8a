"""Which .debs a Debian base consists of, asked of apt itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from lading.debian.aptroot import AptRoot, messages, suites_in
from lading.debian.mirrorlist import mirrors as mirrors_of
from lading.debian.packages import Deb, debian_architecture
from lading.errors import DeclarationError, EnvironmentProblem, LadingError
from lading.process import NO_ROOM

if TYPE_CHECKING:
    from lading.process import Finished

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
"""A package's name (Debian policy 5.6.1)."""
SUITE = re.compile(r"[a-z][a-z0-9]*")
LINE = re.compile(r"'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})")
"""A line of `apt-get --print-uris` with Acquire::ForceHash."""


def resolve(
    suite: str,
    packages: Sequence[str],
    architecture: str,
    mirrors: Mapping[str, str] | None = None,
    *,
    cache: Path | None = None,
    keyring: Path = KEYRING,
) -> tuple[Deb, ...]:
    """The .debs of mmdebstrap's variant minbase and of `packages` with all they depend on,
    sorted by name: from the release, its updates and its security suite.

    What the mirrors say is believed if Debian's keyring signed it. `cache` is a folder that
    keeps their indexes for the next time. Uses the network.

    Raises `DeclarationError` for names that can't be, `LadingError` for a suite or a package
    that isn't there, `EnvironmentProblem` when no mirror can be reached.
    """
    architecture = debian_architecture(architecture)
    _check_names(suite, packages)
    _check_machine(keyring)
    found = mirrors if mirrors is not None else _default_mirrors()
    with _root(cache, f"{suite}-{architecture}") as folder:
        apt = AptRoot(root=folder)
        apt.write(suite, architecture, found, keyring)
        _update(apt, suite, found)
        _check_known(apt, suite, packages)
        return _solve(apt, suite, packages, architecture, found)


def _default_mirrors() -> Mapping[str, str]:
    import os

    return mirrors_of(os.environ)


def _check_names(suite: str, packages: Sequence[str]) -> None:
    if not SUITE.fullmatch(suite):
        raise DeclarationError(
            f"{suite!r} is not the name of a Debian suite",
            do="use a release's codename, like bookworm or trixie",
        )
    for name in packages:
        # "foo-" would be apt's way to say "not foo".
        if not NAME.fullmatch(name) or name.endswith("-"):
            raise DeclarationError(
                f"{name!r} is not the name of a Debian package",
                do="name packages without a version: the lock pins it",
            )


def _check_machine(keyring: Path) -> None:
    if not keyring.is_file():
        raise EnvironmentProblem(
            "what a Debian mirror says can't be verified on this machine",
            why=f"Debian's keys are missing: {keyring}",
            do="apt-get install debian-archive-keyring",
        )


@contextmanager
def _root(cache: Path | None, name: str) -> Iterator[Path]:
    """The folder of a private apt root: a kept one, taken by one process at a time, or not."""
    import tempfile

    from lading.files import disk_errors, locked

    if cache is None:
        with tempfile.TemporaryDirectory(prefix="lading-apt-") as folder:
            path = Path(folder)
            path.chmod(0o755)  # for the user that apt downloads as
            yield path
        return
    root = (cache / name).absolute()
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    with locked(root / "taken", "another lading"):
        yield root


# -- the indexes ----------------------------------------------------------------------------


def _update(apt: AptRoot, suite: str, mirrors: Mapping[str, str]) -> None:
    finished = apt.run("apt-get", "update", "--error-on=any", "-q")
    if finished.code == 0:
        return
    raise update_error(suite, mirrors, finished, lambda: _listed(apt, mirrors["debian"]))


def _listed(apt: AptRoot, mirror: str) -> list[str]:
    """The suites that a mirror lists, if it has a page of them at all."""
    page = apt.root / "dists.html"
    page.unlink(missing_ok=True)
    apt.helper("download-file", f"{mirror}/dists/", str(page))
    return suites_in(page.read_text(errors="replace")) if page.exists() else []


UNREACHABLE = re.compile(
    r"Could not (resolve|connect)|Temporary failure resolving|Connection (failed|refused|timed out)"
    r"|Unable to connect|Cannot initiate|Network is unreachable|No route to host"
    r"|[Cc]ertificate verif|SSL|\b(50[0-9]|407)\b|Connection reset"
)
EXPIRED = re.compile(r"is expired|is not valid yet|(EXP|REV)KEYSIG|Release file .* expired")
UNSIGNED = re.compile(r"NO_PUBKEY|BADSIG|is not signed|signatures? (couldn't|were invalid)|NODATA")
TORN = re.compile(r"Hash Sum mismatch|unexpected size|Mirror sync in progress")
MISSING = re.compile(r"does (not|no longer) have a Release file|\b404\b|File not found")


def update_error(
    suite: str,
    mirrors: Mapping[str, str],
    finished: Finished,
    listed: Callable[[], Sequence[str]],
) -> LadingError:
    """What `apt-get update` failed of. `listed` says, when asked, which suites there are."""
    lines = messages(finished) or (finished.output + finished.errors).splitlines()[-5:]
    text, why = "\n".join(lines), "\n".join(lines[:12])
    mirror = mirrors["debian"]
    variables = "$LADING_DEBIAN_MIRROR, $LADING_DEBIAN_SECURITY_MIRROR"
    if NO_ROOM.search(text):
        return EnvironmentProblem("no room left on the disk for Debian's indexes", why=why)
    if EXPIRED.search(text):
        return LadingError(
            f"what the mirror says about Debian {suite} is out of date, or this clock is wrong",
            why=why,
            do=f"look at `date`, or take another mirror ({variables})",
        )
    if TORN.search(text):
        return EnvironmentProblem(
            f"the mirror of Debian {suite} is just being updated", why=why, do="try again later"
        )
    if UNREACHABLE.search(text):
        return EnvironmentProblem(
            f"no mirror of Debian {suite} can be reached",
            why=why,
            do=f"look at the network and at apt's proxy, or set {variables}",
        )
    if MISSING.search(text):
        known = listed()
        has = f"the mirror has {', '.join(known)}" if known else "is that the name of a release?"
        return LadingError(
            f"the mirror has no complete Debian {suite}: {mirror}",
            why=why,
            do=f"{has}" if suite not in known else f"take another mirror ({variables})",
        )
    if UNSIGNED.search(text):
        return LadingError(
            f"the signature on the mirror's Debian {suite} is not one of Debian's",
            why=why,
            do="upgrade the package debian-archive-keyring, or take another mirror",
        )
    return EnvironmentProblem(f"apt can't read the indexes of Debian {suite}", why=why)


def _check_known(apt: AptRoot, suite: str, packages: Sequence[str]) -> None:
    """Raises `LadingError` for packages that are not in the indexes, each with its likes.

    apt itself would take a name it doesn't know for a regular expression.
    """
    known = set(apt.run("apt-cache", "pkgnames").output.split())
    unknown = [name for name in packages if name not in known]
    if not unknown:
        return
    import difflib

    lines = []
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.75)
        lines.append(name + (f" (did you mean {' or '.join(near)}?)" if near else ""))
    raise LadingError(
        f"Debian {suite} has no package {', '.join(unknown)}",
        why="\n".join(lines),
        do="correct the base's `packages:` in project.yaml",
    )


# -- the packages ---------------------------------------------------------------------------


def _solve(
    apt: AptRoot,
    suite: str,
    packages: Sequence[str],
    architecture: str,
    mirrors: Mapping[str, str],
) -> tuple[Deb, ...]:
    # These are the patterns by which mmdebstrap's minbase chooses.
    here = f"?or(?archive(^{suite}$),?codename(^{suite}$)),?architecture({architecture})"
    wanted = [f"?narrow({here},?essential)", f"?narrow({here},?priority(required))", *packages]
    finished = apt.run("apt-get", "install", "-q", "--print-uris", "--", *wanted)
    if finished.code != 0:
        unmet = [line for line in finished.output.splitlines() if line.startswith(" ")]
        raise LadingError(
            f"apt finds no way to install {', '.join(packages) or 'a base system'} "
            f"on Debian {suite}",
            why="\n".join([*unmet, *messages(finished)][-20:]),
            do="correct the base's `packages:` in project.yaml",
        )
    return parsed(finished.output, mirrors)


def parsed(output: str, mirrors: Mapping[str, str]) -> tuple[Deb, ...]:
    """The packages that `apt-get --print-uris` printed, sorted by name.

    Raises `LadingError` for a line that has no SHA256, or is from none of these mirrors.
    """
    debs = []
    for line in output.splitlines():
        if not line.startswith("'"):
            continue
        match = LINE.fullmatch(line.strip())
        path = _path(match["uri"], mirrors) if match else None
        if match is None or path is None:
            raise LadingError("apt's answer can't be understood", why=line)
        # apt's own file name is NAME_VERSION_ARCHITECTURE, with the epoch's colon as %3a.
        name, version, architecture = match["file"].removesuffix(".deb").split("_")
        deb = Deb(
            name=unquote(name),
            version=unquote(version),
            architecture=unquote(architecture),
            path=path,
            size=int(match["size"]),
            sha256=match["sha256"],
        )
        debs.append(deb)
    if not debs:
        raise LadingError("apt's answer names no packages", why=output[-2000:])
    return tuple(sorted(debs, key=lambda deb: (deb.name, deb.architecture)))


def _path(uri: str, mirrors: Mapping[str, str]) -> str | None:
    """The archive and the path in it of a URI; apt shows no password in one."""
    for archive, mirror in sorted(mirrors.items(), key=lambda item: -len(item[1])):
        prefix = _plain(mirror) + "/"
        if _plain(uri).startswith(prefix):
            return f"{archive}:{unquote(_plain(uri).removeprefix(prefix))}"
    return None


def _plain(uri: str) -> str:
    """Without credentials, and file URLs with one slash."""
    return re.sub(r"^(https?://)[^/@]*@", r"\1", re.sub(r"^file:/+", "file:/", uri))
