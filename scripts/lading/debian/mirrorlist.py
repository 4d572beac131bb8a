"""Which Debian mirrors this machine's user wants: said, configured for apt, or the default.

No host stands here: apt and mmdebstrap know theirs.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from lading.errors import EnvironmentProblem

VARIABLES: Mapping[str, str] = {
    "debian": "LADING_DEBIAN_MIRROR",
    "debian-security": "LADING_DEBIAN_SECURITY_MIRROR",
}
LABELS: Mapping[str, str] = {"Debian": "debian", "Debian-Security": "debian-security"}
"""What Debian's two archives call themselves, and what lading's locks call them."""

FORMAT = "$(ORIGIN)\t$(LABEL)\t$(RELEASE)\t$(COMPONENT)\t$(REPO_URI)"
USABLE = re.compile(r"(https?|file)://?/?[^\s\[\]]+")


def mirrors(environ: Mapping[str, str]) -> dict[str, str]:
    """The mirrors of Debian's archives, "debian" and "debian-security", as URLs without a slash
    at the end: from the variables, else from apt's configuration, else mmdebstrap's own.

    Raises `EnvironmentProblem` when a variable is no URL, or there is no apt on this machine.
    """
    found = _said(environ)
    for more in (_from_apt, _from_mmdebstrap):
        if not all(archive in found for archive in VARIABLES):
            found = {**more(), **found}
    if missing := [archive for archive in VARIABLES if archive not in found]:
        raise EnvironmentProblem(
            f"no mirror of {' and '.join(missing)} is known",
            do=f"set {' and '.join(VARIABLES[archive] for archive in missing)} to its URL",
        )
    return {archive: found[archive] for archive in VARIABLES}


def _said(environ: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for archive, variable in VARIABLES.items():
        if url := environ.get(variable, "").strip().rstrip("/"):
            if not USABLE.fullmatch(url):
                raise EnvironmentProblem(
                    f"{variable} is not the URL of a mirror: {url}",
                    do="use http://…, https://… or file:///…, up to the folder that has dists/",
                )
            found[archive] = url
    return found


def _from_apt() -> dict[str, str]:
    """The mirrors that this machine's own apt uses, if it is Debian's."""
    from lading.process import run

    if shutil.which("apt-get") is None:
        raise EnvironmentProblem(
            "this machine has no apt, so no Debian base can be made on it",
            do="use a base of the kind `image:`, or run lading on Debian or Ubuntu",
        )
    codename = _codename(Path("/etc/os-release"))
    found: dict[str, str] = {}
    # Where apt has no indexes yet (most container images), its sources' names are not known.
    for option in ("--release-info", "--no-release-info"):
        if len(found) < len(VARIABLES):
            command = ["apt-get", "indextargets", "--format", FORMAT, option]
            finished = run([*command, "Created-By: Packages"], env={"LC_ALL": "C"})
            found = {**configured(finished.output, codename), **found}
    return {archive: url for archive, url in found.items() if USABLE.fullmatch(url)}


def _codename(os_release: Path) -> str:
    """The codename of this machine's Debian; empty if it is another distribution."""
    try:
        lines = os_release.read_text().splitlines()
    except OSError:
        return ""
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    if values.get("ID", "").strip('"') != "debian":
        return ""
    return values.get("VERSION_CODENAME", "").strip('"')


def configured(targets: str, codename: str) -> dict[str, str]:
    """Debian's archives among the lines that `apt-get indextargets` printed in `FORMAT`.

    What its Release file calls Debian is Debian. Of what has not been fetched yet, only this
    machine's own release, `codename`, and only from a folder that is called like Debian's:
    other projects have folders of that name too, but with suites or components of their own.
    """
    found: dict[str, str] = {}
    for line in targets.splitlines():
        if line.count("\t") != 4:
            continue
        origin, label, release, component, url = line.split("\t")
        if component != "main":
            continue
        archive = LABELS.get(label) if origin == "Debian" else None
        if origin.startswith("$(") and codename:
            archive = _guessed(release, url, codename)
        if archive is not None and archive not in found:
            found[archive] = _first_of_list(url).rstrip("/")
    return found


def _guessed(release: str, url: str, codename: str) -> str | None:
    folder = url.rstrip("/").rpartition("/")[2].removesuffix(".list")
    if release == codename and folder == "debian":
        return "debian"
    if release in (f"{codename}-security", f"{codename}/updates") and "security" in folder:
        return "debian-security"
    return None


def _first_of_list(url: str) -> str:
    """The URL itself; of a list of mirrors in a file (Debian's cloud images), its first."""
    scheme, _, path = url.partition(":")
    if scheme != "mirror+file":
        return url
    try:
        lines = Path("/" + path.strip("/")).read_text().splitlines()
    except OSError:
        return url
    urls = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    return urls[0] if urls else url


def _from_mmdebstrap() -> dict[str, str]:
    """The mirrors that mmdebstrap uses of its own accord: it writes a sources.list and stops."""
    from lading.debian.mmdebstrap import require_mmdebstrap
    from lading.process import run

    require_mmdebstrap()
    command = ["mmdebstrap", "--mode=chrootless", "--variant=custom", "--format=null"]
    command += ["--skip=update,cleanup,check/qemu", '--setup-hook=cat "$1/etc/apt/sources.list"']
    finished = run([*command, "stable", "/dev/null"])
    return by_suite(finished.output + finished.errors)  # a hook's output is among mmdebstrap's own


def by_suite(sources: str) -> dict[str, str]:
    """The archives in a sources.list of Debian's alone."""
    found: dict[str, str] = {}
    for line in sources.splitlines():
        match = re.match(r"deb (?:\[[^]]*\] )?(\S+) (\S+) ", line)
        if match:
            archive = "debian-security" if "-security" in match[2] else "debian"
            found.setdefault(archive, match[1].rstrip("/"))
    return found
