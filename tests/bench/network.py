"""The user's network settings, for pip and uv in containers: indexes, certificates, proxies."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from lading import net
from lading.net.configured import Indexes, indexes

LENT = "/dev/shm/lent"
"""Where containers and builds find what is lent to them; it stays in no layer."""
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def is_local(place: str) -> bool:
    """Whether an index or a find-links names a folder of this machine."""
    return place.startswith("file:") or "://" not in place


def remote_only(places: Indexes) -> Indexes:
    """Without the folders of this machine."""
    return replace(
        places,
        default=None if places.default is None or is_local(places.default) else places.default,
        extra=tuple(place for place in places.extra if not is_local(place)),
        find_links=tuple(place for place in places.find_links if not is_local(place)),
    )


def pip_conf(places: Indexes, certificates: str) -> str:
    """These settings as pip's configuration file."""
    lines = ["[global]", "disable-pip-version-check = true", "break-system-packages = true"]
    lines += ["root-user-action = ignore"]
    if certificates:
        lines.append(f"cert = {certificates}")
    if places.default:
        lines.append(f"index-url = {places.default}")
    if places.no_index:
        lines.append("no-index = true")
    for key, values in (("extra-index-url", places.extra), ("find-links", places.find_links)):
        if values:
            lines.append("\n    ".join([f"{key} =", *values]))
    return "\n".join(lines) + "\n"


def proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables that are set, as they are spelled."""
    spelled = (*_PROXIES, *(name.lower() for name in _PROXIES))
    return {name: environ[name] for name in spelled if environ.get(name)}


def lend(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Writes pip.conf and the certificates into `folder`, which will be lent at `LENT`/settings.

    Returns the variables that make pip and lading find them there. Indexes in folders of this
    machine are left out: containers and builds see none of its folders.
    """
    folder.mkdir(parents=True)
    inside = f"{LENT}/settings"
    env = {**proxies(environ), "PIP_CONFIG_FILE": f"{inside}/pip.conf"}
    certificates = ""
    bundle = net.ca_bundle(environ)
    if bundle is not None and Path(bundle[1]).is_file():
        shutil.copy(bundle[1], folder / "ca.pem")
        certificates = env["SSL_CERT_FILE"] = f"{inside}/ca.pem"
    netrc = Path(environ.get("NETRC") or "~/.netrc").expanduser()
    if netrc.is_file():
        shutil.copy(netrc, folder / "netrc")
        env["NETRC"] = f"{inside}/netrc"
    (folder / "pip.conf").write_text(pip_conf(remote_only(indexes(environ)), certificates))
    return env
