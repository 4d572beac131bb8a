"""`python -m lading.engines` says which engine answers, or why none does.

The exit code is then 2; 4 where none was named that is what is wrong, so that installing one helps.
"""

from __future__ import annotations

import os
import sys

from lading import engines
from lading.engines.found import NoEngine
from lading.errors import LadingError


def main() -> int:
    """Finds the engine as a run would, says where it is, and lets go of it."""
    try:
        engine = engines.connect(os.environ, lambda text: print(text, file=sys.stderr))
    except LadingError as error:
        print(error, file=sys.stderr)
        return 4 if isinstance(error, NoEngine) else error.exit_code
    print(f"{engine.kind} {engine.version} at {engine.where}")
    engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
