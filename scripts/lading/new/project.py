"""`lading init`: an empty project, to be filled by `doit new`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import files
from pathlib import Path

import yaml

from lading.errors import LadingError
from lading.files import written_whole
from lading.platforms import PLATFORMS, native
from lading.project import load

_PROJECT = """\
# What this project builds: `doit` makes dist/NAME.tar of every image below that is not
# `default: false`; `doit list` shows the steps on the way, `doit new` adds an image.
lading: 1
name: {name}
platform: {platform}
# maintainer: Your Centre <support@centre.example>
# labels:
#   org.opencontainers.image.vendor: Your Centre

bases:
  # Made from a Debian mirror, package by package; no registry is needed.
  debian-13: {{debian: {{suite: trixie, packages: [python3]}}}}     # Python 3.13
  # From a registry, pinned to a digest when locked:
  # python-3.13-slim: {{image: "docker.io/library/python:3.13-slim"}}

images: {{}}
"""
_README = """\
# {name}

Container images for HPC systems, made by lading from `project.yaml` and `recipes/`.

    doit new mine --pip 'astropy>=6'   # adds an image
    doit list                          # what can be done
    doit                               # makes dist/NAME.tar of every image

`locks/` is made to be committed: with it, the next one who builds gets what you got. `dodo.py` is
the graph of what is done; it is yours to change.
"""
_IGNORED = """\
/.venv/
/build/
/dist/
/.doit.db*
/.lading.lock
__pycache__/
*.part
"""


def graph() -> bytes:
    """dodo.py: the checkout's own, or the one that was installed with lading."""
    own = Path(__file__).parents[3] / "dodo.py"
    if own.is_file():
        return own.read_bytes()
    installed = [one for one in files("lading") or () if one.match("share/lading/dodo.py")]
    if not installed:
        raise LadingError("lading was installed without its dodo.py", do="install it again")
    return Path(installed[0].locate()).read_bytes()


def start(folder: Path, say: Callable[[str], None]) -> None:
    """Writes a project into a folder, which is made if need be; what is there stays as it is.

    Raises `LadingError` where there is a project already, or something else by that name.
    """
    if folder.exists() and not folder.is_dir():
        raise LadingError(f"{folder} is there already, and is no folder")
    taken = [name for name in ("project.yaml", "dodo.py") if (folder / name).exists()]
    if taken:
        raise LadingError(
            f"{folder} has a {' and a '.join(taken)} already; nothing was written",
            do="`doit new NAME` adds an image to a project",
        )
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")[:64].strip("-")
    name = name or "containers"
    # A folder may be called null.
    text = name if yaml.safe_load(name) == name else json.dumps(name)
    made: list[Path] = []
    folders = [one for one in (folder / "recipes", folder, *folder.parents) if not one.exists()]
    contents = {
        "README.md": _README.format(name=name).encode(),
        ".gitignore": _IGNORED.encode(),
        "recipes/.gitkeep": b"",
        "dodo.py": graph(),
        "project.yaml": _PROJECT.format(name=text, platform=native() or PLATFORMS[0]).encode(),
    }
    kept = [file for file in contents if (folder / file).exists()]
    try:
        for file, content in contents.items():
            if file not in kept:
                with written_whole(folder / file) as out:
                    out.write(content)
                made.append(folder / file)
        load(folder / "project.yaml")
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        with suppress(OSError):  # what someone else has written meanwhile
            for path in folders:
                path.rmdir()
        raise
    for path in made:
        say(f"written  {path}")
    for file in kept:
        missing = file == ".gitignore" and "it should have /build/, /dist/ and /.doit.db* in it"
        say(f"kept     {folder / file}, which was there{'; ' + missing if missing else ''}")
    at = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    say(f"Next: {at}doit new NAME")
