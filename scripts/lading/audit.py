"""What pip-audit knows against Python packages: it asks the service that its own settings name.

PIP_AUDIT_VULNERABILITY_SERVICE is pypi (its default), osv or esms; PIP_AUDIT_OSV_URL a site's own
address of an OSV. Proxies, and the site's CA, are the user's as for everything else.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from packaging.version import InvalidVersion, Version

from lading import net, process
from lading.errors import EnvironmentProblem

Package = tuple[str, str]
"""A Python package: normalised name (PEP 503) and version."""


class Flaw(Struct, frozen=True, kw_only=True):
    """A known vulnerability: its names, the versions that mend it, and what it is."""

    id: str
    aliases: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()
    about: str = ""


class Report(Struct, frozen=True, kw_only=True):
    """What was found. flaws: by package, where there are any. skipped: packages that the service
    does not know, with the reason.
    """

    flaws: Mapping[Package, tuple[Flaw, ...]]
    skipped: Mapping[Package, str]


def command(environ: Mapping[str, str]) -> list[str]:
    """How pip-audit is called: lading's own, or the one on PATH. Raises `EnvironmentProblem`."""
    if importlib.util.find_spec("pip_audit") is not None:
        return [sys.executable, "-m", "pip_audit"]
    found = shutil.which("pip-audit", path=environ.get("PATH"))
    if found is None:
        raise EnvironmentProblem(
            "pip-audit, which knows where to ask for vulnerabilities, is not installed",
            do=f"{sys.executable} -m pip install pip-audit, or have one on PATH",
        )
    return [found]


def audited(
    packages: Iterable[Package],
    environ: Mapping[str, str],
    cache: Path,
    ignored: Sequence[str] = (),
) -> Report:
    """Asks for all of these packages; `ignored` are names of vulnerabilities that don't count,
    `cache` a folder for what was answered.

    Raises `EnvironmentProblem` where there is no pip-audit, or its service does not answer.
    """
    program = command(environ)
    flaws: dict[Package, tuple[Flaw, ...]] = {}
    skipped: dict[Package, str] = {}
    versions: dict[str, list[str]] = {}
    for name, version in sorted(set(packages)):
        try:
            Version(version)
        except InvalidVersion:
            skipped[name, version] = "it has no version that can be compared"
            continue
        versions.setdefault(name, []).append(version)
    # One question holds one version of a package.
    while versions:
        batch = {name: known.pop(0) for name, known in versions.items()}
        versions = {name: known for name, known in versions.items() if known}
        answer = _asked(program, batch, environ, cache, ignored)
        for one in answer.get("dependencies", []):
            package = one["name"], batch.get(one["name"], "")
            if "skip_reason" in one:
                skipped[package] = one["skip_reason"]
            elif one["vulns"]:
                flaws[package] = tuple(_flaw(flaw) for flaw in one["vulns"])
    return Report(flaws=flaws, skipped=skipped)


def _flaw(data: Mapping[str, Any]) -> Flaw:
    return Flaw(
        id=data["id"],
        aliases=tuple(data.get("aliases", ())),
        mended=tuple(data.get("fix_versions", ())),
        about=" ".join(data.get("description", "").split()),
    )


def _asked(
    program: Sequence[str],
    batch: Mapping[str, str],
    environ: Mapping[str, str],
    cache: Path,
    ignored: Sequence[str],
) -> dict[str, Any]:
    """pip-audit's answer on one version of each package. That it found something, and that it
    failed, are one exit code to it.
    """
    with tempfile.TemporaryDirectory(prefix="lading-audit-") as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_text("".join(f"{name}=={version}\n" for name, version in batch.items()))
        # Everything is pinned: nothing is resolved, no pip is run, no environment made.
        arguments = ["--requirement", str(listed), "--disable-pip", "--no-deps"]
        arguments += ["--format", "json", "--desc", "on", "--aliases", "on"]
        arguments += ["--progress-spinner", "off", "--output", f"{folder}/answer.json"]
        arguments += ["--cache-dir", str(cache)]
        for name in ignored:
            arguments += ["--ignore-vuln", name]
        finished = process.run([*program, *arguments], env=_environment(environ))
        try:
            answer: dict[str, Any] = json.loads((Path(folder) / "answer.json").read_text())
            return answer
        except (OSError, ValueError):
            if finished.code == 0:
                return {}  # it writes an answer only where there is something to say
    raise EnvironmentProblem(
        "pip-audit could not ask for vulnerabilities",
        why=_why(finished.errors),
        do="PIP_AUDIT_VULNERABILITY_SERVICE says whom it asks (pypi, osv, esms), PIP_AUDIT_OSV_URL "
        "where a site's own OSV is; " + net.settings_hint(),
    )


def _environment(environ: Mapping[str, str]) -> dict[str, str | None]:
    """The user's settings; the site's CA under the name that pip-audit knows. Where its output
    goes, and in which form, is not theirs to say.
    """
    found: dict[str, str | None] = dict(environ)
    certificates = net.ca_bundle(environ)
    if certificates is not None:
        found["REQUESTS_CA_BUNDLE"] = certificates[1]
    found |= dict.fromkeys(("PIP_AUDIT_FORMAT", "PIP_AUDIT_OUTPUT", "PIP_AUDIT_DESC"))
    return found


def _why(errors: str) -> str:
    """The end of what it said; of a traceback the exception, which is all that tells something."""
    lines = [line for line in net.redact(errors).splitlines() if line.strip()]
    last = next((at for at in range(len(lines) - 1, -1, -1) if lines[at].startswith(" ")), -1)
    said = lines[last + 1 :] if any("Traceback" in line for line in lines) else lines
    told = [re.sub(r"^(?:ERROR|CRITICAL):[\w.:]*\s*", "", line) for line in said]
    return "\n".join(line for line in told if not line.startswith("WARNING"))[-1500:]
