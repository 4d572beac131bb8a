"""Which .debs a set of Debian packages adds to a base, asked of the base's own apt.

It runs in a throwaway container of the base, against Debian's archives on the user's mirrors.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from lading import debian
from lading.debian import Deb
from lading.errors import EnvironmentProblem, LadingError
from lading.layers import apt_elsewhere, apt_problems
from lading.layers.apt_elsewhere import WORK
from lading.layers.apt_problems import Asked
from lading.layers.base import BaseLock

if TYPE_CHECKING:
    from lading.engines import Mount, RunResult
    from lading.layers.kind import Tools
    from lading.process import Finished

MARK = "@lading "
"""How the lines of the container's output begin that say what follows."""

SCRIPT = r"""
export LC_ALL=C
unset LANGUAGE APT_CONFIG
say() { printf '\n@lading %s\n' "$*"; }
[ ! -r /etc/os-release ] || . /etc/os-release
apt=$(mktemp -d)
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
cat /lading/apt/apt.conf >"$apt/conf"
cat >>"$apt/conf" <<END
Dir::State::lists "$apt/lists";
Dir::Cache "$apt/cache";
Dir::Etc::Preferences "$apt/preferences";
END
[ -z "${SSL_CERT_FILE:-}" ] || echo "Acquire::https::CAInfo \"$SSL_CERT_FILE\";" >>"$apt/conf"
[ -z "${NETRC:-}" ] || echo "Dir::Etc::Netrc \"$NETRC\";" >>"$apt/conf"
touch "$apt/preferences"
suite=$(cat /lading/apt/suite)
suite=${suite:-${VERSION_CODENAME:-}}
say suite "$suite"
if [ -s /lading/apt/sources.list ]; then
  sed "s/@SUITE@/$suite/g" /lading/apt/sources.list >"$apt/sources.list"
  echo "Dir::Etc::SourceList \"$apt/sources.list\";" >>"$apt/conf"
  echo 'Dir::Etc::SourceParts "/dev/null";' >>"$apt/conf"
fi

say update
apt-get -c "$apt/conf" update -q --error-on=any
say ended $?
say targets
apt-get -c "$apt/conf" indextargets --format "$TARGETS" 'Created-By: Packages'
[ -z "$SETS" ] && exit 0
say installed
dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n'

apt-cache -c "$apt/conf" pkgnames >"$apt/names"
for wanted in $(cut -d ' ' -f 2- /lading/apt/sets | tr ' ' '\n' | sort -u); do
  name=${wanted%%=*}
  if ! grep -Fxq -e "$name" "$apt/names"; then
    say unknown "$name"
    apt-cache -c "$apt/conf" showpkg "$name" 2>&1 | sed -n '1,/^Reverse Provides:/d; p'
    lacking=yes
  elif [ "$name" != "$wanted" ]; then
    say versions "$wanted"
    apt-cache -c "$apt/conf" show "$name" | sed -n 's/^Version: //p' | sort -u
  fi
done
[ -z "$lacking" ] || { say names; cat "$apt/names"; }

solve() {
  failed=
  while read -r set packages; do
    say solve "$set"
    apt-get -c "$apt/conf" install -q --print-uris --no-remove --allow-downgrades $packages \
      </dev/null
    code=$?
    say ended $code
    [ $code = 0 ] || failed=yes
  done </lading/apt/sets
  [ -z "$failed" ]
}
cat /lading/apt/preferences >"$apt/preferences"
solve && exit 0
[ -s "$apt/preferences" ] || exit 0
: >"$apt/preferences"
say again
solve
exit 0
"""
"""What is run in the container. It always ends with 0: what failed is told by what it prints."""

CONFIGURATION = """\
#clear APT::Update;
#clear APT::Default-Release;
#clear DPkg::Post-Invoke;
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
Dir::Cache::archives "archives";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Acquire::GzipIndexes "false";
Acquire::Languages "none";
Acquire::PDiffs "false";
Acquire::ForceHash "SHA256";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
"""
# As root, since a rootless engine may have no other user for apt to download as.

PROXY = r'Acquire::https?::Proxy(::\S+)? "[^"]+";'
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Resolved(Struct, frozen=True, kw_only=True):
    """What was found: the .debs of each set, sorted by name, and packages of the base that get
    another version with them: name → (the base's version, the new one).
    """

    sets: Mapping[str, tuple[Deb, ...]]
    replaced: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    unpinned: bool = False
    """The versions of the old lock did not fit any more."""


def resolve(
    sets: Mapping[str, Sequence[str]],
    base: BaseLock,
    tools: Tools,
    *,
    old: Iterable[Deb] = (),
    what: str = "`apt:`",
) -> Resolved:
    """The .debs that `apt-get install` of each set's packages (NAME or NAME=VERSION) would add
    to the base, each set for itself. Versions of `old` are kept where they can still be had and
    still fit. `what` says in errors where the packages are declared.

    Raises `DeclarationError` or `LadingError` for packages that can't be had, `EnvironmentProblem`
    when no mirror can be reached.
    """
    sets = {name: packages for name, packages in sets.items() if packages}
    if not sets:
        return Resolved(sets={})
    if base.facts.package_manager != "apt" or not base.facts.os.startswith("debian"):
        raise apt_problems.no_debian(what, base.facts)
    output, mirrors = _asked(base, tools, sets, old)
    return answered(output, sets, mirrors, what)


def mirrors_of(base: BaseLock, tools: Tools) -> Mapping[str, str]:
    """Debian's archives: the user's mirrors, or, where this machine knows none, the base's own."""
    found = _users(tools)
    if found:
        return found
    output, _ = _asked(base, tools, {}, ())
    return _targets(sections(output))


def _users(tools: Tools) -> Mapping[str, str]:
    """The user's mirrors; none on a machine that has no apt and was told of none."""
    try:
        return debian.mirrors(tools.environ)
    except EnvironmentProblem:
        if any(tools.environ.get(name) for name in apt_problems.VARIABLES):
            raise
        return {}


def _asked(
    base: BaseLock, tools: Tools, sets: Mapping[str, Sequence[str]], old: Iterable[Deb]
) -> tuple[str, Mapping[str, str]]:
    """What the container printed, and the mirrors that it was told of."""
    from lading.debian.mirrorlist import FORMAT
    from lading.engines import Mount

    mirrors = _users(tools)
    if base.suite and not mirrors:
        mirrors = debian.mirrors(tools.environ)  # raises: such a base has no sources of its own
    env = {"TARGETS": FORMAT, "SETS": "yes" if sets else ""}
    files = _files(base, mirrors, sets, old)
    finished: RunResult | Finished
    with tempfile.TemporaryDirectory(prefix="lading-apt-") as name:
        folder = Path(name)
        if apt_elsewhere.wanted(base):
            finished = apt_elsewhere.ask(base, tools, files, folder, env)
        else:
            in_base = tools.in_base()
            for file, text in files.items():
                (folder / file).write_text(text)
            mounts = [Mount(source=folder, target=WORK), *_local(mirrors)]
            finished = in_base(["/bin/sh", f"{WORK}/resolve.sh"], mounts=mounts, env=env)
    if finished.code:
        raise LadingError("apt in the base failed", why=_end(finished.output))
    return finished.output, mirrors


def _files(
    base: BaseLock,
    mirrors: Mapping[str, str],
    sets: Mapping[str, Sequence[str]],
    old: Iterable[Deb],
) -> dict[str, str]:
    from lading.debian.aptroot import sources

    lines = [
        f"deb [signed-by={KEYRING}] {mirror} {part} main\n"
        for mirror, part in (sources(base.suite or "@SUITE@", mirrors) if mirrors else ())
    ]
    return {
        "resolve.sh": SCRIPT,
        "apt.conf": CONFIGURATION + proxies(),
        "suite": base.suite,
        "sources.list": "".join(lines),
        "preferences": preferences(old),
        "sets": "".join(f"{name} {' '.join(packages)}\n" for name, packages in sets.items()),
    }


def proxies() -> str:
    """The proxies that this machine's own apt is told to use, in apt's own form."""
    import shutil

    from lading.process import run

    if shutil.which("apt-config") is None:
        return ""
    lines = run(["apt-config", "dump"]).output.splitlines()
    return "".join(line + "\n" for line in lines if re.match(PROXY, line))


def preferences(debs: Iterable[Deb]) -> str:
    """Keeps these versions where they can be had (apt_preferences(5)); 990 is no downgrade."""
    wanted = sorted({(deb.name, deb.version) for deb in debs})
    return "".join(
        f"Package: {name}\nPin: version {version}\nPin-Priority: 990\n\n"
        for name, version in wanted
    )


def _local(mirrors: Mapping[str, str]) -> list[Mount]:
    """A mirror that is a folder of this machine is found in the container under the same path."""
    from lading import net
    from lading.engines import Mount

    paths = {net.local_path(url) for url in mirrors.values() if url.startswith("file:")}
    return [Mount(source=path.resolve(), target=str(path)) for path in sorted(paths)]


def _end(output: str) -> str:
    return "\n".join(output.splitlines()[-20:])


# -- what it printed ------------------------------------------------------------------------


class Section(Struct, frozen=True, kw_only=True):
    """A part of the container's output: what it is about, and its lines."""

    name: str
    about: str
    text: str
    code: int = 0


def sections(output: str) -> list[Section]:
    """The parts of the output, in order; each has the exit code that is told behind it."""
    found: list[Section] = []
    for part in re.split(rf"^{MARK}", output.replace("\r\n", "\n"), flags=re.MULTILINE)[1:]:
        head, _, text = part.partition("\n")
        name, _, about = head.partition(" ")
        if name == "ended" and found:
            last = found.pop()
            found.append(Section(name=last.name, about=last.about, text=last.text, code=int(about)))
        else:
            found.append(Section(name=name, about=about.strip(), text=text.rstrip("\n")))
    return found


def answered(
    output: str, sets: Mapping[str, Sequence[str]], mirrors: Mapping[str, str], what: str
) -> Resolved:
    """What the container's output says. Raises the errors of `resolve`."""
    found = sections(output)
    one = {section.name: section for section in found}
    if not {"suite", "update"} <= set(one):
        raise LadingError("apt's answer can't be understood", why=_end(output))
    asked = Asked(what=what, suite=one["suite"].about)
    mirrors = mirrors or _targets(found)
    if one["update"].code:
        raise apt_problems.no_indexes(asked, one["update"].text, mirrors)
    _check_names(asked, found, sets)
    again = [number for number, section in enumerate(found) if section.name == "again"]
    solved = [s for s in found[again[0] if again else 0 :] if s.name == "solve"]
    for section in solved:
        if section.code:
            raise apt_problems.no_solution(asked, section.text, sets[section.about])
    if {section.about for section in solved} != set(sets):
        raise LadingError("apt's answer can't be understood", why=_end(output))
    debs = {section.about: _debs(section.text, mirrors) for section in solved}
    before = _installed(one["installed"].text) if "installed" in one else {}
    return Resolved(
        sets=debs,
        replaced={
            deb.name: (before[deb.name], deb.version)
            for some in debs.values()
            for deb in some
            if deb.name in before
        },
        unpinned=bool(again),
    )


def _check_names(asked: Asked, found: Sequence[Section], sets: Mapping[str, Sequence[str]]) -> None:
    names = next((s.text.split() for s in found if s.name == "names"), [])
    unknown = {s.about: s.text.splitlines() for s in found if s.name == "unknown"}
    if unknown:
        raise apt_problems.unknown(asked, unknown, names)
    for section in found:
        if section.name == "versions":
            name, _, version = section.about.partition("=")
            has = section.text.split()
            if version not in has:
                raise apt_problems.no_version(asked, name, version, has)


def _targets(found: Sequence[Section]) -> dict[str, str]:
    from lading.debian.mirrorlist import configured

    said = {section.name: section for section in found}
    if "targets" not in said:
        return {}
    return configured(said["targets"].text, said["suite"].about)


def _installed(text: str) -> dict[str, str]:
    """dpkg's installed packages: name → version."""
    rows = (line.split() for line in text.splitlines())
    return {row[1]: row[2] for row in rows if len(row) == 3 and row[0] == "ii"}


def _debs(text: str, mirrors: Mapping[str, str]) -> tuple[Deb, ...]:
    from lading.debian.solver import parsed

    # Nothing to install is an answer, too: the base has it all.
    return parsed(text, mirrors) if re.search(r"^'", text, flags=re.MULTILINE) else ()
