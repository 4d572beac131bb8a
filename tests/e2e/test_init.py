"""lading as a package: installed into an empty environment, it starts a project of one's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import copied, plain_environ
from tests.support.projects import REPOSITORY


def test_a_project_elsewhere_by_an_installed_lading(tmp_path: Path, cache: Path) -> None:
    source = copied(tmp_path / "source")
    environ = {**plain_environ(), "LADING_CACHE": str(cache)}

    def run(*command: object, at: Path = source) -> str:
        ended = subprocess.run(
            [str(word) for word in command], cwd=at, env=environ, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    build = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    run(sys.executable, *build, "--wheel-dir", tmp_path, ".")
    wheel = next(tmp_path.glob("lading-*.whl"))
    uv = Path(sys.executable).with_name("uv")
    run(uv, "venv", "-q", "--python", sys.executable, tmp_path / "venv")
    programs = tmp_path / "venv" / "bin"
    run(
        *(uv, "pip", "install", "-q", "--python", programs / "python"),
        *("--constraint", "scripts/requirements.txt", wheel),
    )
    assert run(programs / "lading", "--version").startswith("lading ")
    assert "cd p && doit new NAME" in run(programs / "lading", "init", "p", at=tmp_path)
    project = tmp_path / "p"
    assert (project / "dodo.py").read_bytes() == (REPOSITORY / "dodo.py").read_bytes()
    assert run(programs / "doit", "list", at=project).startswith("lock ")
    said = run(programs / "doit", "new", "x", "--pip", "six==1.17.0", at=project)
    assert said.endswith("Next: doit lock:x\n")
    # The base is the same as this repository's; to resolve it anew is what other tests do.
    base = "locks/bases/debian-13"
    shutil.copytree(REPOSITORY / base, project / base)
    run(programs / "doit", "lock:x", at=project)
    lock = project / "locks/images/x/linux-amd64/requirements.txt"
    assert "\nsix==1.17.0 \\\n" in lock.read_text()
