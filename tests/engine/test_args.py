"""`args:`: what --build-arg sets by hand, on both engines, and what the image is then called by."""

from __future__ import annotations

import subprocess
from datetime import date
from pathlib import Path

from lading import compose
from lading.compose import Locked
from lading.engines import Engine
from lading.facts import Facts
from lading.layers.base import BaseLock
from lading.locks import Header
from lading.plan import KEY_LABEL
from lading.project import Base, Image, Project
from tests.support import engines


def test_an_image_with_other_arguments_is_not_the_one_with_the_key(
    engine: Engine, running: engines.Running, base: str, context: Path
) -> None:
    image = Image(
        name="one",
        base="tiny",
        args={"SITE": "the default, 1.0", "OTHER": "o"},
        run={"after-layers": ('echo "$SITE $OTHER" >/said', "sh -c 'echo $SITE' >>/said")},
    )
    lock = BaseLock(
        header=Header(command="x", date=date(2026, 11, 22), inputs="0" * 64),
        facts=Facts(),
        text="",
        digest="sha256:" + "0" * 64,
    )
    project = Project(
        root=context, name="x", bases={"tiny": Base(name="tiny", image="x")}, images={"one": image}
    )
    text = compose.plan(project, image, Locked(base=lock)).text("0123")
    # A base without a registry, and without a file that the image would get of the locks.
    head, _, rest = text.partition("\nFROM ")
    rest = rest.partition("\n")[2].replace('COPY ["share", "/usr/share/lading/"]\n', "")
    (context / "Dockerfile").write_text(f"{head}\nFROM {base}\n{rest}")

    def built(*arguments: str) -> tuple[str, str]:
        """What it says, and what it is called by."""
        tag = "localhost/lading/test-args:1"
        podman = ["podman", "--url", running.url]
        client = podman if running.kind == "podman" else ["/usr/bin/docker"]
        subprocess.run(
            [*client, "build", "--network", "none", *arguments, "-t", tag, str(context)],
            env={**running.environ, "DOCKER_BUILDKIT": "1"},
            check=True,
        )
        info = engine.inspect(tag)
        assert info is not None
        return engine.run(info.id, ["/bin/cat", "/said"]).output, info.labels[KEY_LABEL]

    assert built() == ("the default, 1.0 o\nthe default, 1.0\n", "0123")
    assert built("--build-arg", "SITE=mine") == ("mine o\nmine\n", "0123-by-hand")
    assert built() == ("the default, 1.0 o\nthe default, 1.0\n", "0123")
