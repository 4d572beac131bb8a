"""Files of locks are written all or none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lading import together
from lading.errors import EnvironmentProblem
from lading.files import write_text

OLD = {"locks/a/one.txt": "1", "locks/a/two.txt": "2", "locks/a/gone.txt": "3"}
NEW = {"locks/a/one.txt": "10", "locks/a/two.txt": "20", "locks/b/new.txt": "40"}
GONE = ("locks/a/gone.txt",)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path, text in OLD.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def there(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text()
        for path in sorted((root / "locks").rglob("*"))
        if path.is_file()
    }


def test_all_are_written_and_what_is_gone_goes(root: Path) -> None:
    together.write(root, NEW, GONE)
    assert there(root) == NEW
    together.write(root, NEW, GONE)
    assert there(root) == NEW


def test_whatever_interrupts_it_they_are_the_old_ones_or_the_new_ones(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each of the calls that change the disk, one after the other."""
    seen: set[str] = set()
    for number in range(100):
        for path in there(root):
            (root / path).unlink()
        for path, text in OLD.items():
            (root / path).write_text(text)
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, str(root), str(number)], capture_output=True, check=False
        )
        together.settle(root)
        found = there(root)
        assert found in (OLD, NEW), number
        seen.add("old" if found == OLD else "new")
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert number > 6
    assert seen == {"old", "new"}


KILLED = f"""
import os, sys
from pathlib import Path
from lading import together
left = [int(sys.argv[2])]
def counted(event, arguments):
    changes = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
    if event in changes or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        if left[0] == 0:
            os.kill(os.getpid(), 9)
        left[0] -= 1
sys.addaudithook(counted)
together.write(Path(sys.argv[1]), {NEW!r}, {GONE!r})
"""


@pytest.mark.parametrize("at", range(1, 4))
def test_what_has_begun_is_done_before_an_interruption_is_heard(
    root: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    replace: Callable[..., None] = os.replace
    calls: list[Path] = []

    def interrupted(source: Path, target: Path) -> None:
        if Path(source).is_relative_to(root / together.MOVING):
            calls.append(target)
            if len(calls) == at:
                raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        together.write(root, NEW, GONE)
    assert there(root) == NEW


def test_where_one_can_t_be_written_nothing_has_changed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "locks/b").write_text("a file, where a folder is to be")
    before = there(root)
    calls: list[Path] = []

    def full(path: Path, text: str) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise EnvironmentProblem("no room left on the disk")
        write_text(path, text)

    monkeypatch.setattr("lading.together.write_text", full)
    with pytest.raises(EnvironmentProblem):
        together.write(root, NEW, GONE)
    assert there(root) == before
