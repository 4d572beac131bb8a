"""What the apt layer adds to an image: locked .debs, installed with no network.

`install` serves whatever is built on a base as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from lading import compiling
from lading.console import counted
from lading.debian import Deb
from lading.plan import Contribution
from lading.steps import Content, Mount, Run, Stored

if TYPE_CHECKING:
    from lading.layers.apt import AptLock

LENT = "/dev/shm/lading/apt"
"""Where a build lends the packages to a step: never in a layer, and nothing stays behind."""

SCRIPT = """\
# Installs the packages beside it, and no others, with no network. Nothing is left of it but the
# packages, and they are the same, byte for byte, whenever it runs.
set -eu
umask 022
lent=$(dirname "$0")
work=$(mktemp -d /dev/shm/lading-apt.XXXXXX)
export HOME="$work" LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive PERL_HASH_SEED=0
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial"
{ cat "$lent/apt.conf"; printf 'Dir::State "%s/state";\\nDir::Cache "%s/cache";\\n' "$work" "$work"
} >"$work/apt.conf"

# What is younger than this was made by the step itself.
touch "$work/start"
# A package that has a service would start it.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\\nexit 101\\n' >"$policy"
  chmod 755 "$policy"
  made=yes
fi
[ ! -e /etc/machine-id ] || cp -p /etc/machine-id "$work/machine-id"

apt-get -c "$work/apt.conf" install -q --yes --no-remove --allow-downgrades \\
    --allow-change-held-packages "$lent"/debs/*.deb </dev/null

[ -z "${made:-}" ] || rm "$policy"
if [ -e "$work/machine-id" ]; then
  cmp -s "$work/machine-id" /etc/machine-id || cat "$work/machine-id" >/etc/machine-id
else
  rm -f /etc/machine-id
fi
# Debian's packages compile by the time of a source, and not to the same bytes each time.
find /usr/lib /usr/share -name '*.pyc' -newer "$work/start" >"$work/compiled"
for python in /usr/bin/python3.[0-9] /usr/bin/python3.[0-9][0-9]; do
  if [ -s "$work/compiled" ] && [ -x "$python" ]; then
    PYTHONHASHSEED=0 "$python" -S -B "$lent/bytecode.py" <"$work/compiled"
  fi
done
# Caches, logs, copies of what was before, and locks.
find /var/log -type f -newer "$work/start" -delete
# What was drawn by lot: identities and keys that no two machines should share.
find /etc/ssh /var/lib/dbus -type f '(' -name 'ssh_host_*_key*' -o -name machine-id ')' \\
    -newer "$work/start" -delete 2>/dev/null || true
rm -rf /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/lib/dpkg/lock* \\
    /var/lib/dpkg/triggers/Lock /var/cache/ldconfig/* /var/cache/man/* /etc/.pwd.lock \\
    /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid-
rm -rf "$work"
"""

CONFIGURATION = """\
// The packages that are lent are all there is: no list, no mirror, no log, no hook.
#clear APT::Update;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
Dir::State::lists "lists";
Dir::Cache::archives "archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::Log "/dev/null";
Dir::Log::Terminal "";
Dir::Log::History "";
Dir::Log::Planner "";
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Get::AllowUnauthenticated "true";
Dpkg::Use-Pty "false";
"""


@cache
def _configuration() -> bytes:
    """apt's configuration: dpkg leaves out what lading's own bases are without."""
    from lading.debian.rootfs import DPKG_CONFIGURATION

    options = [line for line in DPKG_CONFIGURATION.splitlines() if not line.startswith("#")]
    options += ["log=/dev/null", "force-confdef", "force-confold"]
    lines = "".join(f'DPkg::Options:: "--{option}";\n' for option in options)
    return (CONFIGURATION + lines).encode()


def install(debs: Sequence[Deb], at: str, why: str) -> tuple[Run, Mapping[str, Content]]:
    """A step that installs these packages, and the files that it is lent, below `at` in the
    context. The base needs apt; `debs` are all that it has not (or has in another version).
    """
    files: dict[str, Content] = {
        f"{at}/install.sh": SCRIPT.encode(),
        f"{at}/{compiling.NAME}": compiling.program(),
        f"{at}/apt.conf": _configuration(),
        **{f"{at}/debs/{deb.file}": Stored(sha256=deb.sha256) for deb in debs},
    }
    step = Run(
        why=why,
        mounts=(Mount(source=at, target=LENT),),
        commands=(f"sh {LENT}/install.sh",),
    )
    return step, files


def contribute(lock: AptLock) -> Contribution:
    """Packages of `run` in the image; these and those of `build` where something is built."""
    files: Mapping[str, Content] = {}
    tool_files: Mapping[str, Content] = {}
    steps: tuple[Run, ...] = ()
    tools: tuple[Run, ...] = ()
    if run := lock.sets.get("run", ()):
        step, files = install(
            run,
            "apt/run",
            f"Debian packages, as locked: {counted(len(run), 'package')}. They are lent to this "
            "one step, and installed with no network; documentation, caches and logs stay out.",
        )
        steps = (step,)
    # What the image has is there where something is built, too; `build` holds all of it.
    tools, tool_files = steps, files
    if build := lock.sets.get("build", ()):
        step, tool_files = install(
            build,
            "apt/build",
            f"Debian packages to build with, as locked: {counted(len(build), 'package')}.",
        )
        tools = (step,)
    return Contribution(tools=tools, tool_files=tool_files, steps=steps, files=files)
