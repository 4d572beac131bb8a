"""`doit stale`: what a runner would have to make."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from doit.exceptions import InvalidCommand

from lading.asking import Asking, chosen
from lading.errors import LadingError
from lading.state import State

if TYPE_CHECKING:
    from lading.ci.stale import Found

FORMATS = {
    "text": "for people",
    "json": "for programs",
    "github": "for the workflow that doit ci writes: the outputs of its first job",
    "gitlab": "for the pipeline that doit ci writes: the one that it starts",
}


class Stale(Asking):
    """`doit stale [NAME …] [--format json]`."""

    doc_purpose = "say what neither the registry nor this machine has; no engine is asked"
    doc_usage = "[NAME ...]"
    doc_description = (
        "Of the images of these names, or of all that are not `default: false`, and of the\n"
        "sources that are compiled for them. Nothing is made, and no lock is changed; an image\n"
        "whose locks are not current is among them.\n"
        "Exit code: 0 nothing is to be made, 1 something is, 2 not all could be asked, or be\n"
        "believed. With --format github or gitlab: 0, and what can't be asked is to be made."
    )
    cmd_options = (
        {
            "name": "format",
            "long": "format",
            "type": str,
            "default": "text",
            "choices": tuple(FORMATS.items()),
            "help": "how it is said",
        },
        {
            "name": "push",
            "long": "push",
            "type": bool,
            "default": True,
            "inverse": "no-push",
            "help": "what is made is pushed, so that what lacks only its tag in the registry is to"
            " be made; GitLab's own variables say it themselves",
        },
    )

    def _execute(self, format: str, push: bool, pos_args: list[str]) -> int:
        from lading.ci import gitlab, stale

        state = self.opened()
        if format == "gitlab":
            push = gitlab.pushes(state.environ)
        state.say_on(sys.stderr)
        workflows = format in ("github", "gitlab")
        if workflows and pos_args:
            raise InvalidCommand(f"--format {format} is for all images: leave the names out")
        # Of several platforms, a runner makes its own.
        images = [image for _, image in chosen([state], pos_args)]
        found = stale.find(state, images, push=push)
        for note in found.notes:
            state.console.note(note)
        if not workflows:
            self.outstream.write(stale.as_json(found) if format == "json" else stale.text(found))
            return found.code
        state.console.note(stale.text(found).rstrip())
        self.outstream.write(_workflow(state, format, found, push))
        return 0


def _workflow(state: State, format: str, found: Found, push: bool) -> str:
    """What the jobs behind the first one follow from. Raises `LadingError` where they can't know of
    something that is to be made.
    """
    from lading.annotations import command
    from lading.ci import github, gitlab, layout, runner, stale

    plan = layout.of(state.project)
    if format == "gitlab":
        pushed = bool(found.registry) and push
        return gitlab.child(state.project, plan, runner.of(state.project), found, pushed)
    for note in found.notes:
        state.console.note(command("warning", note))
    wanted = [id for id, item in found.sources.items() if item.stale]
    names = {item.name for item in found.images if item.stale}
    wanted += [group.id for group in plan.groups if names.intersection(group.images)]
    _refuse_unknown(state, github.PATH, wanted)
    return stale.outputs(found, plan)


def _refuse_unknown(state: State, path: str, wanted: Sequence[str]) -> None:
    """What a workflow of yesterday's has no job for would be left out without a word."""
    try:
        text = (state.project.root / path).read_text()
    except OSError:
        return  # a workflow of the user's own
    lacking = [id for id in wanted if f"outputs.{id} " not in text]
    if lacking:
        raise LadingError(
            f"{path} has no job for {', '.join(lacking)}",
            why="project.yaml has other sources, or images with others, than when it was written",
            do="run `doit ci`, and commit what it writes",
        )
