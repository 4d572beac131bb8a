"""What conda learned when, as far as it matters to a base that has an old one."""

from __future__ import annotations

import re

SHA256 = (24, 9)
"""The first that takes a sha256 in an explicit file; those before take an md5."""
CONDA_FORMAT = (4, 7)
"""The first that reads packages in the `.conda` format."""
OPTIONAL_PINS = (4, 4)
"""The first for which a pinned package is only held, and not installed for it."""
NAMED_PRIORITIES = (4, 6)
"""The first that has names for `channel_priority`; before, it is true or false."""


def since(version: str, first: tuple[int, int]) -> bool:
    """Whether a conda of this version ("4.10.3") is not older than `first`."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2]) >= first
