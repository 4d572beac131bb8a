"""uv in a throwaway container of an image's base: where an sdist may say what it needs.

Only there is it run with the base's own Python; this machine's never sees it. Unlike a build, it
has the network, with the user's own settings for it: proxy, indexes, passwords, CA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lading import net, process, uv
from lading.layers import pip
from lading.project import Image
from lading.state import State
from lading.verbs import base as base_verb

if TYPE_CHECKING:
    from lading.engines import Mount

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
OF_THIS_MACHINE = ("UV_CACHE_DIR", "UV_CREDENTIALS_DIR")
"""Variables of uv that name a folder of this machine, and mean nothing in a container."""


def runner(state: State, image: Image) -> uv.Runner:
    """A way to run uv there. The base is made first, where the engine has it not."""
    base = state.base_of(image)
    lock = state.base_lock(base)
    assert lock is not None
    reference = base_verb.ensure(state, base)
    binary = _binary(state, image)
    target = ("--python-version", "--python-platform")

    def run(
        arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> process.Finished:
        from lading.engines import Mount

        # Inside the base its own Python and glibc are the target.
        command, *options = without(arguments, target)
        inside, mounts = _settings({**state.environ, **environment})
        result = state.engine.run(
            reference,
            ["/lading/uv", command, *options[:1], "--python", lock.facts.python, *options[1:]],
            network="host",
            mounts=[
                Mount(source=binary, target="/lading/uv"),
                Mount(source=folder, target="/lading/work", read_only=False),
                *mounts,
            ],
            env=inside,
            workdir="/lading/work",
        )
        return process.Finished(code=result.code, output=result.output)

    return run


def _settings(environ: Mapping[str, str]) -> tuple[dict[str, str], list[Mount]]:
    """The variables and files that give uv the user's network settings inside a container."""
    from lading.engines import Mount

    inside = {
        name: value
        for name, value in environ.items()
        if (name.startswith("UV_") and name not in OF_THIS_MACHINE and not uv.FOREIGN.match(name))
        or name.upper() in PROXIES
    }
    inside |= {"HOME": "/tmp", "UV_NO_CACHE": "1", "UV_PYTHON_DOWNLOADS": "never"}
    mounts: list[Mount] = []
    bundle = net.ca_bundle(environ)
    if bundle is not None and Path(bundle[1]).is_file():
        mounts.append(Mount(source=Path(bundle[1]).resolve(), target="/lading/ca.pem"))
        inside["SSL_CERT_FILE"] = "/lading/ca.pem"
    netrc = Path(environ.get("NETRC") or "~/.netrc").expanduser()
    if netrc.is_file():
        mounts.append(Mount(source=netrc.resolve(), target="/lading/netrc"))
        inside["NETRC"] = "/lading/netrc"
    for place in net.indexes(environ).all():
        # An index that is a folder of this machine is found there under the same path.
        path = net.local_path(place) if urlsplit(place).scheme in ("", "file") else None
        if path is not None and path.is_absolute() and path.exists():
            mounts.append(Mount(source=path.resolve(), target=str(path)))
    return inside, mounts


def without(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """The arguments without these options and their values."""
    kept: list[str] = []
    given = iter(arguments)
    for argument in given:
        if argument in options:
            next(given)
        else:
            kept.append(argument)
    return kept


def _binary(state: State, image: Image) -> Path:
    """The uv program for the image's platform, out of its wheel, in the store."""
    asked = state.request(image)
    environment = net.uv_environment(state.environ)
    pin = pip.installer(asked, pip.readable(state.lock_folder(image)), environment)
    if not state.store.has(pin.artifact):
        found = pip.sources(asked, [pin], environment)
        state.store.fetch([pin.artifact], lambda _: found)
    wheel = state.store.path(pin.artifact.sha256)
    return state.store.derived(pin.artifact.sha256, "uv", lambda out: uv.extract_binary(wheel, out))
