"""What the base's own conda leaves as it is, where it installs into its own prefix: for pip, that
is installed, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lading.conda.explicit import Package
from lading.errors import LadingError
from lading.layers.kind import Tools
from lading.requirements import normalised

if TYPE_CHECKING:
    from lading.layers.conda import Request

LOOK = r"""
import glob, io, json, os, re, sys
prefix = sys.argv[1]
owners = {}
for path in glob.glob(os.path.join(glob.escape(prefix), "conda-meta", "*.json")):
    with io.open(path, encoding="utf-8") as file:
        record = json.load(file)
    for inside in record.get("files", []):
        owners[os.path.join(prefix, inside)] = record.get("name", "")
found = []
pattern = os.path.join(glob.escape(prefix), "lib", "python*", "site-packages", "*-info")
for path in glob.glob(pattern):
    for file in (os.path.join(path, "METADATA"), os.path.join(path, "PKG-INFO"), path):
        if os.path.isfile(file):
            with io.open(file, encoding="utf-8", errors="replace") as text:
                head = text.read().split("\n\n")[0]
            said = dict(re.findall(r"(?m)^(Name|Version): *(\S+)", head))
            if len(said) == 2:
                found.append([said["Name"], said["Version"], owners.get(file, "")])
            break
print("\n@lading has " + json.dumps(sorted(found)))
"""
"""Says each Python package of a prefix: its name, its version, and the conda package that brought
it, if one did.
"""


def distributions(asked: Request, packages: Sequence[Package], tools: Tools) -> Mapping[str, str]:
    """The Python packages of the base's prefix that `packages` don't replace: normalised name
    (PEP 503) to version. Raises `LadingError` when the base can't tell.
    """
    prefix = asked.section.prefix
    result = tools.in_base()([f"{prefix}/bin/python", "-c", LOOK, prefix])
    said = re.search(r"^@lading has (\[.*\])$", result.output, re.MULTILINE)
    if result.code or said is None:
        raise LadingError(
            f"{asked.where}: what the base has in {prefix} can't be found out",
            why=result.output.strip()[-2000:],
            do="pip's packages go on top of it; without them it is not asked",
        )
    replaced = {package.name for package in packages}
    return {
        normalised(name): version
        for name, version, owner in json.loads(said[1])
        if owner not in replaced
    }
