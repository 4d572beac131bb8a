"""The lesson's way to a conda lock: a trial install in the base, by the base's own conda.

What it came to, exactly, is locked as everything else: in a throwaway container with the network
conda resolves, installs and exports; the channels then say the sha256 of these very builds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lading import net
from lading.conda import export, worker
from lading.conda.channels import Channels
from lading.conda.export import Exported
from lading.errors import LadingError
from lading.layers import conda_store
from lading.layers.kind import Tools
from lading.requirements import normalised

if TYPE_CHECKING:
    from lading.layers.conda import Request

WORK = "/lading/conda"


def tried(asked: Request, channels: Channels, tools: Tools) -> Exported:
    """What conda installs of the request in the base. Raises `LadingError` with what it said."""
    from lading.engines import Mount

    every = channels.all(asked.names)
    version = asked.facts.conda_version
    tools.note(f"  a trial install in the base, by its conda {version}")
    in_base = tools.in_base()
    with tempfile.TemporaryDirectory(prefix="lading-conda-") as name:
        folder = Path(name)
        (folder / "condarc").write_text(
            export.condarc(every, asked.section.channel_priority, version, asked.constraints)
        )
        (folder / "trial.sh").write_text(export.script(every, asked.specs))
        env = {"CONDARC": f"{WORK}/condarc"}
        if asked.section.cuda:
            env["CONDA_OVERRIDE_CUDA"] = asked.section.cuda
        result = in_base(
            ["/bin/sh", f"{WORK}/trial.sh"],
            mounts=[Mount(source=folder, target=WORK)],
            env=env,
        )
    if result.code:
        said = [line for line in result.output.splitlines() if line.strip()]
        raise LadingError(
            f"images.{asked.image}.conda: the trial install failed",
            why=net.redact("\n".join(said[-30:])),
            do="locker: rattler says which packages fight, and why",
        )
    found = export.parse(result.output, {c.name: c.url for c in every})
    _refuse_another_python(asked, found)
    return found


def _refuse_another_python(asked: Request, found: Exported) -> None:
    """Raises `LadingError` for a Python that the base's own conda could not go on with."""
    for constraint in asked.constraints:
        wanted = constraint.removeprefix("python=").removesuffix("*")
        for package in found.packages:
            if package.name == "python" and not f"{package.version}.".startswith(wanted):
                raise LadingError(
                    f"images.{asked.image}.conda: python {package.version} in place of the base's "
                    f"{asked.facts.python_version}, which its conda needs",
                    do=f"ask for python={wanted.rstrip('.')}, too; or `prefix`, as /opt/packages",
                )


def solved(asked: Request, found: Exported, channels: Channels, tools: Tools) -> str:
    """The LockFile of exactly what was exported.

    Raises `LadingError` for a package that no channel has as it was installed.
    """
    every = channels.all(asked.names)
    question = {
        "channels": [{"name": c.name, "url": c.url} for c in every],
        "packages": [[p.name, p.version, p.build, p.channel] for p in found.packages],
        "subdir": asked.subdir,
        "cache": str(tools.store.root / "repodata"),
    }
    try:
        text: str = conda_store.answered("exact", question, tools, channels.settings)
    except worker.Refused as refused:
        raise LadingError(
            f"images.{asked.image}.conda: what the trial install came to can't be locked",
            why=refused.text,
            do="lock again: a channel may just have been updated",
        ) from refused
    return text


def refuse_pip(asked: Request, found: Exported, brought: Mapping[str, str], tools: Tools) -> None:
    """Raises `LadingError` for Python packages that came in by no locked package.

    `brought`: those that the conda packages bring along, by normalised name; conda may take them
    for pip's.
    """
    theirs = [line for line in found.pip if normalised(line.partition("==")[0]) not in brought]
    for line in found.pip:
        if line not in theirs:
            tools.note(f"  pip: {line}: ignored; a conda package brings it along")
    if theirs:
        raise LadingError(
            f"images.{asked.image}.conda: the trial install brought Python packages that no conda "
            "package has",
            why=", ".join(theirs),
            do="a package's script calls pip: ask for them in `pip:`, which locks them",
        )
