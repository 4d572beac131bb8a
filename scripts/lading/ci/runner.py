"""What both kinds of workflows say to a runner: how lading gets there, and how it is called."""

from __future__ import annotations

import re

from msgspec import Struct

from lading.errors import DeclarationError
from lading.project import Project
from lading.references import parse


class Runner(Struct, frozen=True, kw_only=True):
    """How a project's jobs begin: `look` sets up what needs no engine, `build` also an engine;
    `looking` and `doit` are what doit is then called by. `debian`: a base is made of packages.
    """

    look: tuple[str, ...]
    build: tuple[str, ...]
    looking: str
    doit: str
    debian: bool
    registry: str

    @property
    def host(self) -> str:
        """Where to log in to."""
        return host(self.registry)


def host(registry: str) -> str:
    """Where to log in to, as Docker reads the names of images: `somebody` is somebody on Docker
    Hub. Empty without a registry.
    """
    return parse(f"{registry}/image").registry if registry else ""


def of(project: Project) -> Runner:
    """Raises `DeclarationError` where nothing says how lading gets to a runner."""
    bases = {image.base for image in project.images.values() if image.default}
    debian = any(project.bases[name].debian is not None for name in bases)
    own = (project.root / "scripts" / "doit").is_file()
    setup = project.ci.setup
    if not own and not setup:
        raise DeclarationError(
            "nothing says how a runner gets lading: there is no scripts/doit here",
            do="say it in project.yaml, as you installed it: ci: {setup: [pip install …]}",
        )
    return Runner(
        look=(*setup, "./scripts/setup venv") if own else setup,
        build=(*setup, "./scripts/setup") if own else setup,
        looking=".venv/bin/doit" if own else "doit",
        doit="./scripts/doit" if own else "doit",
        debian=debian,
        registry=project.registry,
    )


def plain(text: str) -> str:
    """A text for YAML, in quotes where it could be taken for something else."""
    if re.fullmatch(r"[A-Za-z./][\w./@:-]*[\w/.]|[A-Za-z]", text) and text not in _WORDS:
        return text
    return "'" + text.replace("'", "''") + "'"


_WORDS = frozenset(
    word
    for low in ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
    for word in (low, low.title(), low.upper())
)
