"""`doit audit [NAME …]`."""

from __future__ import annotations

from lading.asking import Asking, chosen


class Audit(Asking):
    """`doit audit`: known vulnerabilities of what is locked."""

    doc_purpose = "ask for known vulnerabilities of the Python packages that are locked"
    doc_usage = "[NAME …]"
    doc_description = (
        "Asked by pip-audit, of the service that its own settings name: "
        "PIP_AUDIT_VULNERABILITY_SERVICE (pypi, osv, esms) and PIP_AUDIT_OSV_URL. Without a name: "
        "all images, on all platforms; of those that are `default: false`, what is locked. Exit "
        "code 1 where something is known, 2 where not all could be asked for."
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
        named = chosen(state.everywhere, pos_args) if pos_args else None
        code, said = audit.asked(state, named, format, ignore)
        self.outstream.write(said)
        return code
