"""What apt would add to a Debian base that can't be run here: asked of this machine's own apt.

It is told another architecture, and that what the base's lock names is installed: the control files
of these .debs are its status, as dpkg would have written it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lading import debian, platforms
from lading.errors import EnvironmentProblem
from lading.layers.base import BaseLock

if TYPE_CHECKING:
    from lading.layers.kind import Tools
    from lading.process import Finished

WORK = "/lading/apt"
"""Where the script finds its files in a container."""

# What this machine has installed, holds or prefers is nothing to the base.
CONFIGURATION = """\
#clear APT::Architectures;
#clear APT::Solver;
#clear DPkg::Pre-Invoke;
#clear DPkg::Pre-Install-Pkgs;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
Dir::State "{root}/state";
Dir::State::status "{root}/dpkg/status";
Dir::Etc::PreferencesParts "/dev/null";
Dir::Log "/dev/null";
"""


def wanted(base: BaseLock) -> bool:
    """Whether this base's programs run neither here nor by an emulator."""
    platform = f"linux/{architecture(base)}"
    return bool(base.suite) and platform in platforms.MACHINES and not platforms.runs(platform)


def architecture(base: BaseLock) -> str:
    """Debian's name for what the base is for; empty for a base that is no Debian base of ours."""
    return next((deb.architecture for deb in base.debs if deb.architecture != "all"), "")


def ask(
    base: BaseLock,
    tools: Tools,
    files: Mapping[str, str],
    folder: Path,
    env: Mapping[str, str],
) -> Finished:
    """Runs the script that would be run in the base, with this machine's apt, in an empty folder.

    files: what it needs, by name, and says to lie in `WORK`; resolve.sh and apt.conf among it.
    """
    import shutil

    from lading.process import run

    if shutil.which("apt-get") is None:
        raise EnvironmentProblem(
            f"what Debian {base.suite} has for {architecture(base)} can't be asked here",
            why="that takes apt, where programs of that architecture do not run",
            do="apt-get install apt, or do it on such a machine",
        )
    ours = CONFIGURATION.format(architecture=architecture(base), root=folder)
    for name, text in files.items():
        text = text.replace(WORK, str(folder)) + (ours if name == "apt.conf" else "")
        (folder / name).write_text(text)
    (folder / "state").mkdir()
    (folder / "dpkg").mkdir()
    (folder / "dpkg/status").write_text(status(base, tools), encoding="utf-8")
    return run(
        ["/bin/sh", str(folder / "resolve.sh")],
        env={**env, "DPKG_ADMINDIR": str(folder / "dpkg")},
        line=lambda _: None,
    )


def status(base: BaseLock, tools: Tools) -> str:
    """dpkg's status with all of the base installed; what the store lacks of it is fetched."""
    from lading.debian import repository

    mirrors = debian.mirrors(tools.environ)
    tools.store.fetch(base.artifacts, lambda _: debian.locate(base.debs, mirrors))
    return "\n".join(
        f"{installed(repository.stanza_of(deb, tools.store.path(deb.sha256)))}\n"
        for deb in base.debs
    )


def installed(control: str) -> str:
    """A control file as a stanza of dpkg's status: the state comes behind the name."""
    name, _, rest = control.partition("\n")
    if not name.startswith("Package:"):
        return f"{control}\nStatus: install ok installed"
    return f"{name}\nStatus: install ok installed\n{rest}"
