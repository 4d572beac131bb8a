"""In a container: runs a command, and says on its last line how many seconds it took.

    python3 stopwatch.py COMMAND [ARGUMENT …]

Only the standard library: it is run by whatever Python the base has.
"""

from __future__ import annotations

import subprocess
import sys
import time


def main() -> int:
    """The command's exit code."""
    start = time.monotonic()
    code = subprocess.run(sys.argv[1:], check=False).returncode
    print(f"\nseconds: {time.monotonic() - start:.4f}", flush=True)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
