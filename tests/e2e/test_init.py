"""lading as a package: installed into an empty environment, it starts a project of one's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import copied, plain_environ
from tests.support.channels import Channel
from tests.support.projects import REPOSITORY

DOCKERFILE = """\
FROM python:3.9-slim
LABEL maintainer="Jane Doe <jane@hpc.example>"
ARG SIX_VERSION=1.16.0
COPY requirements.txt /
RUN pip install --no-cache-dir six==${SIX_VERSION} && pip install --no-cache-dir -r requirements.txt
CMD ["python"]
"""
PYPROJECT = """\
[project]
name = "theirs"
version = "1"
requires-python = ">=3.9"
dependencies = ["idna<3.8"]
"""
ENVIRONMENT = "name: any\nchannels: [lab]\ndependencies:\n  - tool=1\n"


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
        *("--constraint", "scripts/requirements.txt", f"{wheel}[conda]"),
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
    assert "\nsix==1.17.0 \\\n" in locked(project, "x/linux-amd64/requirements.txt")

    # From what there is already, to a lock.
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "Dockerfile").write_text(DOCKERFILE)
    (theirs / "requirements.txt").write_text("certifi==2024.6.2\n")
    (theirs / "pyproject.toml").write_text(PYPROJECT)
    (theirs / "environment.yml").write_text(ENVIRONMENT)
    run(uv, "lock", "-q", "--python", sys.executable, at=theirs)
    with Channel(tmp_path / "channel") as channel:
        channel.package("tool", "1.0", {"share/tool": "1"})
        environ["CONDA_CHANNEL_ALIAS"] = channel.alias
        names = {"docker": "Dockerfile", "uv": "uv.lock", "conda": "environment.yml"}
        for name, file in names.items():
            words = ("new", name, "--from", theirs / file, "--base", "debian-13")
            assert run(programs / "doit", *words, at=project).endswith(f": doit lock:{name}\n")
        run(programs / "doit", *(f"lock:{name}" for name in names), at=project)
    pins = locked(project, "docker/linux-amd64/requirements.txt")
    assert "\nsix==1.16.0 \\\n" in pins
    assert "\ncertifi==2024.6.2 \\\n" in pins
    assert "\nidna==3.7 \\\n" in locked(project, "uv/linux-amd64/requirements.txt")
    assert "/tool-1.0-0.conda#sha256:" in locked(project, "conda/linux-amd64/explicit.txt")


def locked(project: Path, path: str) -> str:
    """What a lock of an image holds."""
    return (project / "locks/images" / path).read_text()
