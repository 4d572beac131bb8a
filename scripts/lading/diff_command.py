"""`doit diff [NAME] [REV [REV2]]`."""

from __future__ import annotations

from lading.asking import Asking


class Diff(Asking):
    """`doit diff`: what moved in the locks, between two commits or since one."""

    doc_purpose = "say what moved in the locks between two commits"
    doc_usage = "[NAME] [REV [REV2]]"
    doc_description = (
        "Without REV: between HEAD and the working tree. NAME is an image (with its base and its "
        "sources), base:NAME or source:NAME, for another platform NAME@PLATFORM; without, all of "
        "them. REV..REV2 and REV...REV2 mean what they mean to git. Nothing is checked out. For a "
        "pull request:\n"
        "doit diff origin/main...HEAD --format markdown"
    )
    cmd_options = (
        {
            "name": "format",
            "long": "format",
            "type": str,
            "default": "text",
            "choices": (
                ("text", "for a terminal"),
                ("markdown", "for a pull request"),
                ("json", "for programs"),
            ),
            "help": "how it is said",
        },
    )

    def _execute(self, format: str, pos_args: list[str]) -> int:
        from lading.verbs import diff

        state = self.opened()
        self.outstream.write(diff.told(state, pos_args, format))
        return 0
