"""Projects of many images in which, by the record, everything is done already."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

from msgspec.structs import replace

from lading import archive, locks
from lading.archive import Archive
from lading.files import write_text
from lading.layers.pip_kind import PIP
from lading.project import Base, Image
from lading.state import State
from lading.verbs import check, sbom

SIZE = 256_000_000
"""The size in bytes that archives are said to have, and have: they are files full of holes."""


def names(count: int) -> list[str]:
    """The names of the images."""
    return [f"image-{number:04}" for number in range(1, count + 1)]


def variants() -> list[str]:
    """The names of the variants of one image with three axes: a thousand."""
    return [f"image-{number // 100}-{number // 10 % 10}-{number % 10}" for number in range(1000)]


def _head(base: Base) -> list[str]:
    """The lines of a project.yaml above its images."""
    kind = (
        {"debian": {"suite": base.debian.suite, "packages": list(base.debian.packages)}}
        if base.debian
        else {"image": base.image}
    )
    lines = ["lading: 1", "name: generated", "platform: linux/amd64", "bases:"]
    return [*lines, f"  {base.name}: {json.dumps(kind)}", "images:"]


def matrix(base: Base) -> str:
    """The project.yaml of a project whose one image has a thousand variants."""
    section = {"requirements": "recipes/image/requirements.in"}
    lines = [
        *_head(base),
        "  image:",
        "    matrix:",
        *(f"      {axis}: {json.dumps(list(map(str, range(10))))}" for axis in "abc"),
        f"    base: {base.name}",
        '    description: "{a}.{b}.{c}"',
        f"    pip: {json.dumps(section)}",
        '    labels: {org.example.c: "{c}"}',
        '    test: [python -c "import astropy"]',
    ]
    return "\n".join(lines) + "\n"


def declaration(base: Base, count: int) -> str:
    """The project.yaml of a project with so many images, all on one base."""
    lines = _head(base)
    for name in names(count):
        section = {"requirements": f"recipes/{name}/requirements.in"}
        lines += [
            f"  {name}:",
            f"    base: {base.name}",
            f"    pip: {json.dumps(section)}",
            '    test: [python -c "import astropy"]',
        ]
    return "\n".join(lines) + "\n"


def write(source: Path, target: Path, base: Base, model: str, count: int) -> Path:
    """Writes the project, with requirements and locks like those of the image `model`.

    The inputs that the locks name are still the model's: see `lock_again`. A `count` of 0 is one
    image with a matrix, and its thousand variants.
    """
    target.mkdir()
    write_text(target / "project.yaml", declaration(base, count) if count else matrix(base))
    shutil.copy(source / "dodo.py", target / "dodo.py")
    shutil.copytree(source / "locks" / "bases" / base.name, target / "locks" / "bases" / base.name)
    recipes = names(count) or ["image"]
    for name in recipes:
        shutil.copytree(source / "recipes" / model, target / "recipes" / name)
    if not count:
        with (target / "recipes/image/requirements.in").open("a") as file:
            file.write("astropy>={a}.{b}\n")
    for name in names(count) or variants():
        shutil.copytree(source / "locks" / "images" / model, target / "locks" / "images" / name)
    return target


def relocked(text: str, inputs: str, command: str) -> str:
    """A lock's text with the digest of other inputs in its header."""
    header, body = locks.split(text, "the model's lock")
    about = text.partition("\n")[0].removeprefix("# ")
    new = replace(header, inputs=inputs, command=command)
    return locks.text_of(new, body.removeprefix("\n"), about)


def lock_again(state: State, only: str = "") -> None:
    """Lets the locks name the digests of this project's own inputs; of one image only, if named."""
    for image in state.project.images.values():
        if only and image.name != only:
            continue
        digest = state.request(image, PIP).digest
        for path in state.lock_folder(image).glob("*.txt"):
            text = relocked(path.read_text(), digest, f"doit lock:{image.name}")
            path.write_text(text)
    state.locks_changed()


def pretend_made(state: State) -> int:
    """Writes the records of checks and archives for all default images; how many these are."""
    images = [image for image in state.project.images.values() if image.default]
    for image in images:
        _pretend(state, image)
    return len(images)


def _pretend(state: State, image: Image) -> None:
    key = state.key(image)
    assert key is not None
    record = {"key": key, "checks": check.checks(image), "passed": True}
    write_text(state.check_file(image), json.dumps(record))
    tar = state.archive(image)
    tar.parent.mkdir(parents=True, exist_ok=True)
    with tar.open("wb") as file:
        file.truncate(SIZE)
    said = Archive(sha256="0" * 64, size=SIZE, config=f"sha256:{'0' * 64}", layers=())
    archive.record(state.record(image), said, key=key, name=state.name(image))
    write_text(sbom.path(state, image), "{}\n")
    sbom.note(state, image)


def makefile(count: int) -> str:
    """The same six steps for make, with a stamp file for each step of each image."""
    steps = ("lock", "fetch", "dockerfile", "build", "check", "archive")
    stamps = " ".join(f"stamps/{name}/archive" for name in names(count))
    rules = ["stamps/%/lock: recipes/%/requirements.in"]
    rules += [f"stamps/%/{b}: stamps/%/{a}" for a, b in pairwise(steps)]
    recipe = "\n\t@mkdir -p $(@D) && touch $@\n"
    return f"all: {stamps}\n.SECONDARY:\n" + recipe.join(rules) + recipe


def bake(count: int, base: str) -> tuple[str, str]:
    """The same images for `docker buildx bake`: its file, and the Dockerfile they share."""
    targets = {
        name: {"context": f"recipes/{name}", "dockerfile": "Dockerfile", "tags": [f"{name}:1"]}
        for name in names(count)
    }
    file = {"group": {"default": {"targets": list(targets)}}, "target": targets}
    return json.dumps(file, indent=1), f"FROM {base}\nCOPY requirements.in /etc/requirements.in\n"
