"""`doit summary`: what a run of CI has made, and what has moved in the locks, as Markdown."""

from __future__ import annotations

import sys

from lading.asking import Asking, chosen


class Summary(Asking):
    """`doit summary [NAME …]`, `doit summary --since COMMIT`."""

    doc_purpose = "say as Markdown what was made here, or what has moved in the locks"
    doc_usage = "[NAME ...]"
    doc_description = (
        "Of the images of these names, or of all that are not `default: false`: what they are\n"
        "called, their size, and what they passed. With --since COMMIT: what has moved in the\n"
        "locks since then. The workflows that `doit ci` writes show both."
    )
    cmd_options = (
        {
            "name": "since",
            "long": "since",
            "type": str,
            "default": "-",
            "help": "a commit; one that is not there, or none, says nothing",
        },
    )

    def _execute(self, since: str, pos_args: list[str]) -> int:
        from lading.ci import summary

        state = self.opened()
        state.say_on(sys.stderr)
        if since != "-":
            self.outstream.write(summary.moved(state, since))
        else:
            images = [image for _, image in chosen([state], pos_args)]
            self.outstream.write(summary.made(state, images))
        return 0
