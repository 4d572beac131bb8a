"""One sha256: built twice on Docker and once on Podman, each time as if by another machine."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from lading import bytecode
from tests.e2e.conftest import DOIT, Copy, copied, plain_environ
from tests.engine.test_conda import ACTIVATE, AFTER, MODULE
from tests.support import machines
from tests.support.channels import PLACEHOLDER, Channel, python
from tests.support.engines import Running
from tests.support.machines import ELSEWHERE, HERE, THERE, Machine

PROJECT = """\
lading: 1
name: again
bases:
  debian-11: {debian: {suite: bullseye, packages: [python3]}}
  debian-13: {debian: {suite: trixie, packages: [python3]}}
sources:
  estr:
    version: 0.1.11
    urls: ["debian:pool/main/libe/libestr/libestr_{version}.orig.tar.gz"]
    configure: --prefix=/usr
    patches: [recipes/built.patch]
    then: printf '%s\\n' "$HOSTNAME" "$USER" "$PWD" "$(umask)" >$DESTDIR/usr/lib/built
    keep: ["**/*.a", "**/pkgconfig/**"]
images:
  astropy:
    base: debian-13
    pip: {requirements: recipes/astropy/requirements.in}
    test: [python -c "import astropy"]
  older:
    base: debian-11
    apt: [python3-yaml]
    pip: {requirements: recipes/older.in}
    files: {/opt/again: recipes/again}
    test:
      - env PYTHONHASHSEED=0 python /opt/again/again.py /opt/venv/lib/python3.9/site-packages/numpy
      - env PYTHONHASHSEED=0 python /opt/again/again.py /usr/lib/python3/dist-packages
  lab:
    base: debian-13
    conda: {channels: [lab], packages: [tool, python]}
    test: [tool, python -c "import module"]
  small:
    base: debian-13
    source: [estr]
    files: {/opt/small: recipes/small}
    run: ["date >/var/log/small.log", 'echo "$(umask)" >/opt/umask']
    test: [/opt/small/run]
"""
PATCH = """\
--- a/src/libestr.c
+++ b/src/libestr.c
@@ -35,3 +35,3 @@
 es_version(void)
 {
-\treturn VERSION;
+\tassert(sizeof VERSION); return VERSION " " __DATE__ " " __TIME__ " " __FILE__;
"""
"""Puts into the library what compilers know of the clock and of where they are."""

AGAIN = Path(__file__).parents[1] / "support/again.py"
IMAGES = ("astropy", "older", "lab", "small")
"""`older`: by itself, its Python 3.9 does not compile to the same bytecode each time; neither do
Debian's packages for it. Its tests compile once more what is compiled in it.
"""


def on(machine: Machine, project: Copy, home: Path, verb: str, engine: Running) -> str:
    """doit as it runs on such a machine; it has to succeed. What it printed."""
    tasks = [f"{verb}:{name}" for name in IMAGES]
    command = machine.command(DOIT, *tasks)
    outcome = project.run(*command, DOCKER_HOST=engine.url, **machine.environ(home))
    assert outcome.code == 0, outcome.output
    return outcome.output


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[Channel]:
    with Channel(tmp_path / "channel") as found:
        python(found)
        found.package(
            "module",
            "1.0",
            {"site-packages/module/__init__.py": MODULE},
            noarch="python",
            depends=["python"],
        )
        found.crafted(
            "tool",
            "2.0",
            [
                ("bin/tool", f"#!/bin/sh\necho {PLACEHOLDER} $TOOL_HOME\n".encode()),
                ("bin/.tool-post-link.sh", AFTER.encode()),
                ("etc/conda/activate.d/tool.sh", ACTIVATE.encode()),
            ],
            placeholders={"bin/tool": "text", "bin/.tool-post-link.sh": "text"},
            depends=["module"],
        )
        yield found


@pytest.mark.timeout(1200)
def test_one_sha256(
    docker: Running, podman: Running, cache: Path, channel: Channel, tmp_path: Path
) -> None:
    if why := machines.missing():
        pytest.skip(why)
    environ = {
        **plain_environ(),
        "LADING_CACHE": str(cache),
        "CONDA_CHANNEL_ALIAS": channel.alias,
    }
    first = Copy(root=copied(tmp_path / "first"), environ=environ)
    first.write("project.yaml", PROJECT)
    first.write("recipes/built.patch", PATCH)
    first.write("recipes/older.in", "numpy\n")
    for path in (Path(bytecode.__file__), AGAIN):
        first.write(f"recipes/again/{path.name}", path.read_text())
    first.write("recipes/small/run", "#!/bin/sh\ncat /usr/lib/built\n")
    (first.root / "recipes/small/run").chmod(0o755)
    on(HERE, first, tmp_path / "home", "archive", docker)
    made = {name: recorded(first, name) for name in IMAGES}

    # Each is built again, without a cache, by `doit verify`, which compares it with the first; at
    # the same time on another engine, in another clone, whose files nobody else may read.
    second = replace(first, root=tmp_path / "second place")
    shutil.copytree(first.root, second.root, symlinks=True)
    shutil.rmtree(second.root / "build")
    for path in (second.root, *second.root.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(on, THERE, first, tmp_path / "me", "verify", docker),
            pool.submit(on, ELSEWHERE, second, tmp_path / "ich", "verify", podman),
        ]
        outputs = [run.result() for run in runs]
    for output in outputs:
        assert said(output) == made
        assert ", and so is 1 part" in output


def recorded(project: Copy, name: str) -> str:
    found = json.loads((project.root / f"dist/{name}.json").read_text())["sha256"]
    assert isinstance(found, str)
    return found


def said(output: str) -> dict[str, str]:
    """The sha256 of each image that was made again."""
    return dict(re.findall(r"^  (\w+): sha256 ([0-9a-f]{64})$", output, re.MULTILINE))
