"""A private root for apt: this machine's proxies, CA and credentials, but none of its packages.

apt reads its own configuration first (proxies, auth.conf.d, certificates), then the file
written here, which points everything else into a folder of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from lading.process import Finished

# Lists that the command line can't empty: hooks of this machine (a desktop's, a cache's), its
# default release and its additional architectures mean nothing here.
CONFIGURATION = """\
#clear APT::Update;
#clear APT::Default-Release;
#clear APT::Architectures;
#clear APT::Solver;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
Dir::State "{root}/state";
Dir::State::lists "lists";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
Dir::Cache::archives "archives";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Log "/dev/null";
Dir::Etc::SourceList "{root}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "{root}/preferences";
Dir::Etc::PreferencesParts "/dev/null";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Get::List-Cleanup "true";
Acquire::Languages "none";
Acquire::PDiffs "false";
Acquire::ForceHash "SHA256";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
pkgCacheGen::ForceEssential ",";
"""

# On bookworm, init-system-helpers depends on usrmerge | usr-is-merged. The first one would pull
# in all of perl, to convert what is merged from the beginning.
PREFERENCES = """\
Package: usrmerge
Pin: release *
Pin-Priority: -1
"""

ROLLING = ("sid", "unstable", "experimental")


def sources(suite: str, mirrors: Mapping[str, str]) -> list[tuple[str, str]]:
    """What a suite is made up of: (mirror, suite on it), its updates and security's among them."""
    main = [(mirrors["debian"], suite)]
    if suite in ROLLING:
        return main
    return [
        *main,
        (mirrors["debian"], f"{suite}-updates"),
        (mirrors["debian-security"], f"{suite}-security"),
    ]


class AptRoot(Struct, frozen=True, kw_only=True):
    """A folder that apt takes for its system: no package is installed there."""

    root: Path

    def write(
        self, suite: str, architecture: str, mirrors: Mapping[str, str], keyring: Path
    ) -> None:
        """Writes its configuration; the lists that earlier runs fetched stay."""
        for name in ("state/lists/partial", "cache/archives/partial"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        for folder in (self.root, *self.root.glob("*/"), *self.root.glob("*/*/")):
            folder.chmod(0o755)  # whatever the umask: apt downloads as a user of its own
        # A copy: apt checks signatures as a user who can read this folder, if no other.
        trusted = self.root / "keyring.gpg"
        trusted.write_bytes(keyring.read_bytes())
        trusted.chmod(0o644)
        lines = [
            f"deb [arch={architecture} signed-by={trusted}] {mirror} {part} main\n"
            for mirror, part in sources(suite, mirrors)
        ]
        (self.root / "sources.list").write_text("".join(lines))
        (self.root / "status").write_text("")
        (self.root / "preferences").write_text(PREFERENCES)
        text = CONFIGURATION.format(root=self.root, architecture=architecture)
        if any(mirror.startswith("file:") for mirror in mirrors.values()):
            # What lies in somebody's own folder, the user that apt downloads as may not read.
            text += 'APT::Sandbox::User "root";\n'
        self._configuration.write_text(text)

    def run(self, program: str, *arguments: str) -> Finished:
        """Runs apt-get or apt-cache in this root; its messages in English."""
        from lading.process import run

        command = [program, "-c", str(self._configuration), *arguments]
        return run(command, env={"LC_ALL": "C", "LANGUAGE": None, "DEBIAN_FRONTEND": None})

    def helper(self, *arguments: str) -> Finished:
        """Runs apt's own downloader, with its proxies and certificates."""
        return self.run("/usr/lib/apt/apt-helper", *arguments)

    @property
    def _configuration(self) -> Path:
        return self.root / "apt.conf"


def suites_in(listing: str) -> list[str]:
    """The releases in a mirror's listing of dists/ (an HTML page): codenames, and sid."""
    names = re.findall(r'href="(?:\./)?([a-z]+)/?"', listing)
    aliases = {"stable", "oldstable", "oldoldstable", "testing", "unstable", "experimental"}
    return sorted({name for name in names if name not in aliases})


def messages(finished: Finished, marks: Sequence[str] = ("E:", "W:", "Err:")) -> list[str]:
    """apt's errors and warnings, each once, with the lines that belong to them."""
    found: list[str] = []
    following = False
    for line in (finished.output + finished.errors).splitlines():
        marked = line.startswith(tuple(marks))
        following = marked or (following and line.startswith("  "))
        if following and line.strip() not in found:
            found.append(line.strip())
    return found
