"""What a runner is given for the registry, where docker's client and lading look for it.

It is written into a folder of the run's own: the user's stays as it is, and two jobs on one machine
do not take each other's. All else of docker's configuration is in there too: contexts, builders,
helpers, and other registries' credentials.
"""

from __future__ import annotations

import json
import tempfile
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lading.engines.contexts import docker_config
from lading.errors import EnvironmentProblem
from lading.files import disk_errors
from lading.references import DOCKER_HUB

SETTINGS = "config.json"


def configured(host: str, environ: Mapping[str, str]) -> Path:
    """The folder that $DOCKER_CONFIG is to name; docker's own where nothing is given for `host`.

    REGISTRY_USERNAME and REGISTRY_PASSWORD are; or, of GitLab's own registry, what it gives a job.
    """
    own = docker_config(environ)
    user, password = _given(host, environ)
    if not host or not password:
        return own  # a pull request from a fork: it reads what everybody can read
    if not user:
        raise EnvironmentProblem(
            f"REGISTRY_PASSWORD is set for {host}, and REGISTRY_USERNAME is not",
            do="set both where the runner takes its variables and secrets from",
        )
    settings = _with(_settings(own / SETTINGS), host, user, password)
    with disk_errors(Path(tempfile.gettempdir())):
        # GitHub empties this folder behind each job.
        folder = Path(
            tempfile.mkdtemp(prefix="lading-docker-", dir=environ.get("RUNNER_TEMP") or None)
        )
        for each in own.iterdir() if own.is_dir() else ():
            if each.name != SETTINGS:
                (folder / each.name).symlink_to(each.absolute())
        (folder / SETTINGS).touch(mode=0o600)
        (folder / SETTINGS).write_text(json.dumps(settings, indent=1))
    return folder


def _given(host: str, environ: Mapping[str, str]) -> tuple[str, str]:
    names = ("REGISTRY_USERNAME", "REGISTRY_PASSWORD")
    if environ.get("CI_REGISTRY") == host:
        names = ("CI_REGISTRY_USER", "CI_REGISTRY_PASSWORD")
    return environ.get(names[0], ""), environ.get(names[1], "")


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(f"{path} can't be read", why=str(error)) from error
    if not isinstance(found, dict) or not all(
        isinstance(found.get(name) or {}, dict) for name in ("auths", "credHelpers")
    ):
        raise EnvironmentProblem(f"{path} is not docker's configuration")
    return found


def _with(settings: dict[str, Any], host: str, user: str, password: str) -> dict[str, Any]:
    """Docker's settings, with these credentials in the file itself, whatever helper there is."""
    from docker.auth import INDEX_URL

    name = INDEX_URL if host == DOCKER_HUB else host
    entry = {"auth": b64encode(f"{user}:{password}".encode()).decode()}
    helpers = {**(settings.get("credHelpers") or {})}
    helpers.pop(name, None)
    if settings.get("credsStore"):
        helpers[name] = ""  # as docker's client reads it: not the one for all others
    auths = {**(settings.get("auths") or {}), name: entry}
    return {**settings, "auths": auths, **({"credHelpers": helpers} if helpers else {})}
