"""conda's mpi4py: its RPATH keeps a host's MPI out, which `check` says, with what to do."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.conftest import Copy
from tests.support import images
from tests.support.channels import Channel
from tests.unit.checks.elves import elf

MODULE = "lib/python3.12/site-packages/mpi4py/MPI.cpython-312-x86_64-linux-gnu.so"
PROJECT = """\
lading: 1
name: lab
bases:
  tiny: {{image: "{registry}/lab/tiny:1"}}
images:
  mpi:
    base: tiny
    conda: {{channels: [lab], packages: [mpi4py]}}
"""
ALLOWED = f"""\
    allow: {{"M3:/opt/conda/{MODULE}": the host's library is bound over the image's}}
"""


def test_the_rpath_of_condas_mpi4py(project: Copy, registry: str, tmp_path: Path) -> None:
    images.push(images.tiny_image((*images.TOOLS, "readlink")), registry, "lab/tiny", "1")
    project.write("project.yaml", PROJECT.format(registry=registry))
    with Channel(tmp_path / "channel") as channel:
        library = elf(soname="libmpi.so.12", defines=["MPI_Init", "PMPI_Init", "MPI_Send"])
        channel.package("mpich", "4.3.2", {"lib/libmpi.so.12": library})
        # As conda builds it: DT_RPATH, and not RUNPATH, from the module to the prefix's lib.
        module = elf(needed=["libmpi.so.12"], rpath="$ORIGIN/../../../", wants=["MPI_Init"])
        channel.package("mpi4py", "4.1.2", {MODULE: module}, depends=["mpich"])
        outcome = project.doit("check:mpi", CONDA_CHANNEL_ALIAS=channel.alias)
    assert outcome.code == 1
    said = " ".join(outcome.output.split())
    assert "its DT_RPATH leads to /opt/conda/lib/libmpi.so.12" in said
    assert "bind the host's library over /opt/conda/lib/libmpi.so.12" in said
    report = json.loads((project.root / "build/mpi/check.json").read_text())
    findings = report["portability"]["findings"]
    (error,) = [finding for finding in findings if finding["level"] == "error"]
    assert (error["id"], error["paths"]) == ("M3", [f"/opt/conda/{MODULE}"])
    assert report["portability"]["facts"]["mpi"]["swap"] == "no"

    (project.root / "project.yaml").write_text(PROJECT.format(registry=registry) + ALLOWED)
    project.done("check:mpi")
