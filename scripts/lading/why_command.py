"""`doit why NAME PACKAGE`."""

from __future__ import annotations

from doit.exceptions import InvalidCommand

from lading.asking import Asking
from lading.commands import meant


class Why(Asking):
    """`doit why NAME PACKAGE`: who wants a package, and what bounds its version."""

    doc_purpose = "say who wants a package in an image, and what bounds its version"
    doc_usage = "NAME PACKAGE"
    doc_description = (
        "Out of the locks, the requirement files, and packages that were fetched before: no "
        "network and no engine is asked. From the declaration to the package, with what each one "
        "on the way asks of the next, for each layer of the image that has it."
    )
    cmd_options = (
        {
            "name": "all",
            "long": "all",
            "short": "a",
            "type": bool,
            "default": False,
            "help": "name all who want it, however many",
        },
    )

    def _execute(self, all: bool, pos_args: list[str]) -> int:
        from lading.verbs import why

        state = self.opened()
        images = state.project.images
        if len(pos_args) != 2:
            raise InvalidCommand("an image and a package: `doit why NAME PACKAGE`")
        name, package = pos_args
        if name not in images:
            raise InvalidCommand(f"there is no image '{name}'{meant(name, images)}")
        self.outstream.write(f"{why.explained(state, images[name], package, every=all)}\n")
        return 0
