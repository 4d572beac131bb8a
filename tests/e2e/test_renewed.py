"""A lock that Dependabot has renewed: said in CI, locked again, compared, explained and audited.

No engine is needed: what is asked of a package index is asked of the user's own.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.e2e.conftest import Copy, copied, plain_environ
from tests.support.osv import Osv

LOCK = "locks/images/astropy/linux-amd64/requirements.txt"


def test_a_pull_request_of_dependabots(tmp_path: Path) -> None:
    environ = {**plain_environ(), "DOCKER_HOST": "unix:///nonexistent/engine.sock"}
    project = Copy(root=copied(tmp_path / "project"), environ=environ)
    who = ["-c", "user.name=A", "-c", "user.email=a@b.example"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "before"]):
        subprocess.run(["git", *command], cwd=project.root, check=True)

    text = (project.root / LOCK).read_text()
    hashes = " \\\n    ".join(f"--hash=sha256:{digit * 64}" for digit in "12")
    entry = r"(?m)^numpy==\S+ \\\n    --hash=\S+$"
    assert re.search(entry, text)
    (project.root / LOCK).write_text(
        re.sub(entry, lambda _: f"numpy==2.5.4 \\\n    {hashes}", text)
    )

    refused = project.doit("lock:astropy", CI="1")
    assert refused.code == 1
    assert "run `doit lock:astropy` without them" in refused.output
    assert "its versions are taken as pins" in project.done("lock:astropy")
    assert re.search(r"\nnumpy==2\.5\.4 \\\n    --hash=\S+\n    # file: numpy-2\.5\.4-\S+ \d+\n",
                     (project.root / LOCK).read_text())  # fmt: skip
    assert "nothing to do" in project.done("lock:astropy", CI="1")

    told = project.done("diff", "--format", "markdown")
    assert re.search(r"\| Python packages \| `numpy` \| `\S+` \| `2\.5\.4` \| \d+ MB \|", told)

    told = project.done("why", "astropy", "pyerfa")
    assert re.search(r"recipes/astropy/requirements\.in:\d+: astropy\n +astropy \d", told)

    with Osv() as osv:
        flaw = {"id": "X-1", "summary": "odd", "affected": []}
        osv.known["numpy", "2.5.4"] = [flaw]
        service = {
            "PIP_AUDIT_VULNERABILITY_SERVICE": "osv",
            "PIP_AUDIT_OSV_URL": f"{osv.origin}/v1/query",
        }
        found = project.doit("audit", "astropy", **service)
    assert found.code == 1
    assert "numpy 2.5.4: astropy\n  X-1: not mended yet\n" in found.output
    assert project.doit("audit", "astropy", **service).code == 2, "the service is down"
