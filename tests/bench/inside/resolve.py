"""In a container: resolves a requirement file as `doit lock` does, and prints the pins.

python3 resolve.py FILE PYTHON_VERSION GLIBC PLATFORM
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lading import net, requirements, uv
from lading.errors import LadingError


def main() -> int:
    """0 when every package has its one file and hash."""
    path, python_version, glibc, platform = sys.argv[1:]
    target = uv.Target(python_version=python_version, glibc=glibc, platform=platform)
    environment = net.uv_environment(os.environ)
    sources = requirements.read(Path.cwd(), path, ())
    versions = uv.resolve(sources, target, environment=environment)
    files = uv.locate(
        versions,
        target,
        index_options=sources.index_options(),
        environment=environment,
        just_resolved=True,
    )
    for version in versions:
        file = uv.best([file for file in files if file.name == version.name], target)
        if file is None:
            print(f"no file of {version.requirement} fits", file=sys.stderr)
            return 1
        print(f"{version.requirement} --hash=sha256:{file.sha256}")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except LadingError as error:
        raise SystemExit(f"ERROR: {error}") from None
