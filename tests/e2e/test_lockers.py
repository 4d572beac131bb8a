"""One requirements.in as of one day, locked in each of the ways there are; and what is installed.

The base has a Python and no pip, as Debian's has it.
"""

from __future__ import annotations

import shutil

from tests.e2e.conftest import Copy

PROJECT = """\
lading: 1
name: lockers
bases:
  debian-13: {debian: {suite: trixie, packages: [python3]}}
images:
  uv:        {base: debian-13, as-of: 2024-06-30, pip: {requirements: r.in}}
  pip-tools: {base: debian-13, as-of: 2024-06-30, pip: {requirements: r.in, locker: pip-tools}}
  freeze:
    base: debian-13
    as-of: 2024-06-30
    pip: {requirements: r.in, locker: freeze}
    test: [python -c "import requests; assert requests.__version__ == '2.32.3'"]
"""


def test_three_lockers_come_to_the_same_pins(project: Copy) -> None:
    for name in ("images", "sources"):
        shutil.rmtree(project.root / "locks" / name)
    project.write("project.yaml", PROJECT)
    project.write("r.in", "requests\npackaging<24.1\n")

    def locked(name: str) -> str:
        text = (project.root / f"locks/images/{name}/linux-amd64/requirements.txt").read_text()
        return text.partition("\n\n")[2]

    project.done("lock:uv", "lock:pip-tools")
    said = project.done("check:freeze")
    assert "  the base has no pip: one is brought along\n" in said
    pins = locked("uv")
    # Each of them has moved on since.
    for pin in ("certifi==2024.6.2", "idna==3.7", "packaging==24.0", "urllib3==2.2.2"):
        assert f"{pin} \\\n    --hash=sha256:" in pins
    assert "charset-normalizer==3.3.2" in pins
    assert "    # via: requests\n" in pins
    assert locked("pip-tools") == pins
    assert locked("freeze") == pins
