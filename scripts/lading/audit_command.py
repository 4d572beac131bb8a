"""`doit audit [NAME …]`."""

from __future__ import annotations

from doit.exceptions import InvalidCommand

from lading.asking import Asking
from lading.commands import meant


class Audit(Asking):
    """`doit audit`: known vulnerabilities of what is locked."""

    doc_purpose = "ask for known vulnerabilities of the Python packages that are locked"
    doc_usage = "[NAME …]"
    doc_description = (
        "Asked by pip-audit, of the service that its own settings name: "
        "PIP_AUDIT_VULNERABILITY_SERVICE (pypi, osv, esms) and PIP_AUDIT_OSV_URL. Without a name: "
        "all images that are locked. Exit code 1 where something is known, 2 where the service "
        "can't be asked."
    )
    cmd_options = (
        {
            "name": "format",
            "long": "format",
            "type": str,
            "default": "text",
            "choices": (("text", "for a terminal"), ("json", "for programs")),
            "help": "how it is said",
        },
        {
            "name": "ignore",
            "long": "ignore",
            "type": list,
            "default": [],
            "help": "a vulnerability that does not count, as CVE-2026-1 (can be given again)",
        },
    )

    def _execute(self, format: str, ignore: list[str], pos_args: list[str]) -> int:
        from lading.verbs import audit

        state = self.opened()
        images = state.project.images
        for name in pos_args:
            if name not in images:
                raise InvalidCommand(f"there is no image '{name}'{meant(name, images)}")
        wanted = [images[name] for name in dict.fromkeys(pos_args)] or list(images.values())
        code, said = audit.asked(state, wanted, format, ignore)
        self.outstream.write(said)
        return code
