"""The lesson's way to an image: `pip install` in a Dockerfile, nothing pinned.

The same base and the same builder as ours. The base has no pip, so pip is lent to the one step
and is in no layer; nor do the user's network settings stay in the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lading.engines import buildkit
from tests.bench import clock, tools
from tests.bench.clock import Timed
from tests.bench.network import LENT, lend
from tests.bench.workshop import Workshop
from tests.support.engines import Running

COPIED = "COPY requirements.in /requirements.in\n"


def dockerfile(
    reference: str,
    requirements: str,
    settings: Mapping[str, str],
    options: str = "",
    before: str = "",
) -> str:
    """The Dockerfile: one `pip install` of these words, with the options given to it; `before` are
    instructions that stand before it.
    """
    variables = [f"{name}={value}" for name, value in sorted(settings.items())]
    lent = " ".join(v for v in variables if v.split("=")[0] in ("PIP_CONFIG_FILE", "NETRC"))
    return (
        f"FROM {reference}\n"
        f"{before}"
        f"RUN --mount=type=bind,source=lent,target={LENT} \\\n"
        f"    PYTHONPATH={LENT}/pip {lent} \\\n"
        f"    python3 -m pip install {options} {requirements}\n"
        'CMD ["/bin/bash"]\n'
    )


class Lesson:
    """One of the lesson's Dockerfiles with its context, and a way to build it on either engine."""

    def __init__(
        self,
        workshop: Workshop,
        name: str,
        options: str = "",
        *,
        requirements: str | None = None,
        before: str = COPIED,
        words: str = "-r /requirements.in",
        arguments: Sequence[str] = (),
    ) -> None:
        """requirements: what is in requirements.in; without it, the measured image's. before: the
        instructions before `pip install`. words: what that installs. arguments: of the build.
        """
        self._workshop = workshop
        self._name = f"localhost/lesson/{name}:1"
        self._context = workshop.folder / f"lesson-{name}"
        self._arguments = arguments
        self._settings = lend(workshop.environ(), self._context / "lent" / "settings")
        tools.install(workshop, ["pip"], self._context / "lent" / "pip")
        if requirements is None:
            image = workshop.image()
            assert image.pip is not None
            requirements = (workshop.source / image.pip.requirements).read_text()
        (self._context / "requirements.in").write_text(requirements)
        made = dockerfile(workshop.reference(), words, self._settings, options, before)
        (self._context / "Dockerfile").write_text(made)

    @property
    def name(self) -> str:
        """What the image is called."""
        return self._name

    def build(self, kind: str) -> Timed:
        """Builds it with nothing cached, with the host's network, as a process."""
        engine = self._workshop.engine(kind)
        return built(engine, self._name, self._context, self._settings, self._arguments)


def built(
    running: Running,
    name: str,
    context: Path,
    settings: Mapping[str, str],
    more: Sequence[str] = (),
) -> Timed:
    """Builds a context with nothing cached, with the host's network, as a process."""
    environ = {**running.environ, "DOCKER_BUILDKIT": "1"}
    arguments = ["--network", "host", "--no-cache", "--tag", name, *more]
    for variable, value in settings.items():
        if variable.lower().endswith("_proxy"):
            arguments += ["--build-arg", f"{variable}={value}"]
    return clock.timed([*builder(running.kind, running.url), *arguments, context], env=environ)


def builder(kind: str, url: str) -> list[str | Path]:
    """The command that builds on this engine, as far as the options."""
    if kind == "podman":
        return ["podman", "--url", url, "build", "--format", "docker"]
    client = buildkit.capable(buildkit.clients(dict(DEFAULT_PATHS)))
    return [client.path, *client.build]


DEFAULT_PATHS = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
