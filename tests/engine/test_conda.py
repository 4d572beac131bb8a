"""conda packages in an image: what activation would set is set, and all runs without it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from lading import context, dockerfile
from lading.conda.activation import Variable
from lading.engines import Engine, Mount, RunResult
from lading.errors import LadingError
from lading.facts import Facts
from lading.layers import conda
from lading.layers.conda import CondaLock, Request
from lading.layers.conda_kind import CONDA, comparison
from lading.layers.conda_section import CondaSection
from lading.layers.kind import InBase, Tools
from lading.parts import Start
from lading.steps import Env, Stage
from lading.store import Store
from tests.support.channels import PLACEHOLDER, Channel, python

ACTIVATE = """\
export TOOL_HOME="$CONDA_PREFIX/share/tool"
export CONDA_BACKUP_TOOL_HOME=before
export PATH="$CONDA_PREFIX/share/tool/bin:$PATH"
echo noise=1
false
"""
AFTER = """\
#!/bin/sh
echo "$PKG_NAME $PKG_VERSION in $PREFIX" > "$PREFIX/made"
"""
MODULE = b"import sys\nPREFIX = sys.prefix\n"


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Channel]:
    """A channel with a Python, a module for it, and a program that wants to be activated."""
    with Channel(tmp_path_factory.mktemp("channel")) as found:
        python(found)
        found.package(
            "module",
            "1.0",
            {
                "site-packages/module/__init__.py": MODULE,
                "site-packages/module-1.0.dist-info/METADATA": "Name: module\n",
            },
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
                ("share/tool/bin/helper", b"#!/bin/sh\necho helping\n"),
            ],
            placeholders={"bin/tool": "text"},
            depends=["module"],
        )
        found.package("loud", "1.0", {"etc/conda/activate.d/loud.sh": "export LOUD='5 $ each'\n"})
        yield found


@pytest.fixture
def tools(channel: Channel, engine: Engine, base: str, tmp_path: Path) -> Tools:
    """What locking may use; the base is the tiny image."""

    def run(
        command: Sequence[str],
        *,
        mounts: Sequence[Mount] = (),
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        line: Callable[[str], None] | None = None,
    ) -> RunResult:
        return engine.run(base, command, mounts=mounts, env=env, workdir=workdir, line=line)

    def in_base() -> InBase:
        return run

    environ = {**os.environ, "CONDA_CHANNEL_ALIAS": channel.alias, "HOME": str(tmp_path)}
    return Tools(environ=environ, store=Store(tmp_path / "store"), note=print, in_base=in_base)


def built(engine: Engine, base: str, asked: Request, lock: CondaLock, tools: Tools) -> str:
    """An image with the layer and nothing else."""
    CONDA.prepare(asked, lock, tools)
    added = CONDA.contribute(
        asked, lock, Start(reference=base, platform="linux/amd64", root=tools.store.root, epoch=0)
    )
    folder = tools.store.root.parent / "context"
    for at, content in added.files.items():
        context.put(content, folder / at, tools.store.root, tools.store)
    values = {**added.env, "PATH": ":".join([*added.path, "$PATH"])}
    # The tiny image lacks what every other has: libm, and what else this Python is linked to.
    values["LD_LIBRARY_PATH"] = "/opt/conda/lib"
    stage = Stage(base=base, why="", steps=(Env(values=values, why=""), *added.steps))
    (folder / "Dockerfile").write_text(dockerfile.render("", [stage]))
    name = "localhost/lading/test-conda:1"
    engine.build(folder, name, platform="linux/amd64", log=print)
    return name


def test_everything_runs_without_activation(
    engine: Engine, base: str, tools: Tools, tmp_path: Path
) -> None:
    section = CondaSection(channels=("lab",), packages=("tool", "python"))
    asked = conda.request(tmp_path, "trial", section, Facts(glibc="2.31"), "linux/amd64", None)
    lock = CONDA.lock(asked, None, tools)
    script = "etc/conda/activate.d/tool.sh"
    assert lock.variables == (
        Variable(name="PATH", value="/opt/conda/share/tool/bin", script=script),
        Variable(name="TOOL_HOME", value="/opt/conda/share/tool", script=script),
    )
    assert f"+TOOL_HOME=/opt/conda/share/tool  # {script}\n" in comparison(lock)
    assert lock.scripts == (("tool", ("bin/.tool-post-link.sh",)),)

    name = built(engine, base, asked, lock, tools)
    try:

        def ran(*command: str) -> str:
            result = engine.run(name, command, read_only=True, user="1000:1000")
            assert result.code == 0, result.output
            return result.output.strip()

        assert ran("tool") == "/opt/conda /opt/conda/share/tool"
        assert ran("helper") == "helping"
        assert ran("cat", "/opt/conda/made") == "tool 2.0 in /opt/conda"
        look = "import module; print(module.PREFIX, module.__cached__); open(module.__cached__)"
        prefix, cached = ran("python", "-c", look).split()
        assert prefix == "/opt/conda"
        assert "/site-packages/module/__pycache__/" in cached
        assert ran("ls", "/opt/conda/conda-meta").split()[0] == "history"
        assert "CACHEDIR.TAG" not in ran("ls", "-a", "/opt/conda")
    finally:
        engine.remove(name)


def test_a_value_that_apptainer_would_change_is_refused(tools: Tools, tmp_path: Path) -> None:
    section = CondaSection(channels=("lab",), packages=("loud",))
    asked = conda.request(tmp_path, "trial", section, Facts(glibc="2.31"), "linux/amd64", None)
    with pytest.raises(LadingError, match="would not arrive under Apptainer: LOUD") as refused:
        CONDA.lock(asked, None, tools)
    assert "set by etc/conda/activate.d/loud.sh of loud" in refused.value.why
    # What the image sets itself counts, and nothing is wrong.
    asked = replace(asked, overridden=("LOUD",))
    assert CONDA.lock(asked, None, tools).variables == ()
