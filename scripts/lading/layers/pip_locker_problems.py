"""What can go wrong when pip or pip-compile runs in a base, said plainly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from lading import net, process, uv
from lading.errors import EnvironmentProblem, LadingError
from lading.layers.pip import Request
from lading.layers.pip_index import Index
from lading.requirements import normalised

_BUILDS = re.compile(
    r"subprocess-exited-with-error|metadata-generation-failed|failed-wheel-build|"
    r"Failed building wheel for|Failed to build|Command errored out|BackendUnavailable|"
    r"Preparing metadata .* did not run successfully"
)
_NO_NETWORK = re.compile(
    r"Max retries exceeded|NewConnectionError|NameResolutionError|Name or service not known|"
    r"Temporary failure in name resolution|CERTIFICATE_VERIFY_FAILED|ProxyError"
)
_NO_ANSWER = re.compile(
    r"ResolutionImpossible|No matching distribution found|Could not find a version|"
    r"conflicting dependencies|has requirement .*, but you|requires .*, which is not installed"
)
_NOISE = re.compile(
    r"(?:Looking in |Collecting |Downloading |Using cached |INFO: |WARNING: |\[notice\]|"
    r"Requirement already |Installing |Getting |Preparing |Building wheel|Created wheel|Stored in )"
    r"|The above exception was|During handling of|(?:pip|piptools)\._\S+: |$"
)


def explanation(text: str, secret: str) -> str:
    """What of pip's output says why it failed: no traceback, no progress, and nothing of where
    lading's own index is.
    """
    text = net.redact(text.replace("\r\n", "\n"))
    text = re.sub(rf"https?://127\.0\.0\.1:\d+/{re.escape(secret)}[^\s)]*", "the index", text)
    lines = [line.rstrip() for line in _without_tracebacks(text.splitlines())]
    kept = [line for line in lines if not _NOISE.match(line.strip())]
    return "\n".join(kept[-30:])


def _without_tracebacks(lines: Iterable[str]) -> Iterator[str]:
    """The lines but those of Python's tracebacks; the exception at the end of one stays."""
    within: int | None = None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip() == "Traceback (most recent call last):":
            within = indent
        elif within is None:
            yield line
        elif line.strip() and indent <= within:
            within = None
            yield line


def problem(asked: Request, index: Index, output: str, where: str) -> LadingError:
    """What failed in the container, in our words."""
    said = explanation(output, index.secret)
    if process.NO_ROOM.search(output):
        return EnvironmentProblem(f"{where}: the disk is full", why=said, do="make room")
    if _NO_NETWORK.search(output):
        return EnvironmentProblem(
            f"{where}: the network can't be reached from the base",
            why=said,
            do=net.settings_hint(environ=index.environ),
        )
    if _BUILDS.search(output):
        # What is built for something else is told of first.
        built = re.findall(r"Failed (?:building wheel for|to build) '?([A-Za-z0-9._-]+)", output)
        name = normalised(built[-1]) if built else _collected(output)
        return LadingError(
            f"{where}: {name} has no wheel here, and can't be built in the base",
            why=said,
            do="locker: uv, which takes wheels where there are any, and builds the others in the "
            "image, with what `apt: build:` brings"
            if asked.section.locker == "freeze"
            else "ask for a version that has a wheel; or locker: uv, which takes wheels where "
            "there are any",
        )
    if _NO_ANSWER.search(output):
        return uv.NotResolved("\n".join([*_missing(asked, index, output), said]))
    return LadingError(f"{where} failed", why=said, do="locker: uv")


def _collected(output: str) -> str:
    """What pip was at when it stopped; older ones say no more."""
    found = re.findall(r"Collecting ([A-Za-z0-9._-]+)", output)
    return normalised(found[-1]) if found else "a package"


def _missing(asked: Request, index: Index, output: str) -> list[str]:
    """What the index knows of packages that pip did not find."""
    said = []
    for name in sorted(
        set(re.findall(r"No matching distribution found for ([A-Za-z0-9._-]+)", output))
    ):
        project = normalised(name)
        if project in index.unknown:
            said.append(f"no index that is asked has a package {project}")
        elif project in index.later:
            said.append(f"{project}: all of its files came after {asked.as_of}")
        elif project in index.undated:
            said.append(
                f"{project}: its index does not say when its files came, which `as-of` goes by"
            )
    return said
