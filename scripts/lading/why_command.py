"""`doit why NAME PACKAGE`."""

from __future__ import annotations

from doit.exceptions import InvalidCommand

from lading.asking import Asking
from lading.names import images_of, meant


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

        known = images_of(self.opened().everywhere)
        if len(pos_args) != 2:
            raise InvalidCommand("an image and a package: `doit why NAME PACKAGE`")
        name, package = pos_args
        if name not in known:
            raise InvalidCommand(f"there is no image '{name}'{meant(name, known)}")
        if len(known[name]) > 1:
            some = [f"{image.name}{state.at}" for state, image in known[name][:4]]
            more = ", …" if len(known[name]) > len(some) else ""
            raise InvalidCommand(f"{name} is several images: name {', '.join(some)}{more}")
        ((state, image),) = known[name]
        self.outstream.write(f"{why.explained(state, image, package, every=all)}\n")
        return 0
