"""scripts/setup and scripts/doit, where all that they call are stubs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.bench import clock
from tests.support.projects import REPOSITORY

PROGRAMS = ("bash", "cat", "cmp", "cp", "grep", "ln", "mkdir", "mktemp", "readlink", "rm", "sort")
PYTHON = """\
#!/bin/bash
# A Python that writes down what it is asked, and knows the packages of what itself has made.
echo "python $*" >>"$STUB/calls"
me=$(readlink -f "$0"); me=${me##*/}
case "$*" in
  *'import doit') [ "$(cat .venv/made-by 2>/dev/null)" = "$me" ] ;;
  '-m venv .venv')
    mkdir -p .venv/bin; ln -s "$STUB/bin/python3" .venv/bin/python; echo "$me" >.venv/made-by ;;
  *'-e .') printf '#!/bin/bash\\necho "doit $*"\\n' >.venv/bin/doit; chmod +x .venv/bin/doit ;;
  '-m lading.engines') echo "what lading.engines says" >&2; exit "${STUB_ENGINE:-0}" ;;
  '-m pip '*) [ -z "${STUB_PIP:-}" ] || { echo "what pip says"; exit 1; } ;;
esac
"""
APT = """\
#!/bin/bash
echo "apt-get $*" >>"$STUB/calls"
[ "$1" != "${STUB_APT:-}" ] || { echo "what apt says"; exit 100; }
[ "$1" = update ] || for package; do touch "$STUB/bin/$package"; chmod +x "$STUB/bin/$package"; done
"""


class Checkout:
    """A checkout with the scripts and little else, and a machine of stubs."""

    def __init__(self, root: Path, stubs: Path) -> None:
        self.root, self.stubs = root, stubs
        for name in ("scripts/doit", "scripts/setup", "scripts/requirements.txt"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, root / name)
        for name in ("tests/requirements.txt", "pyproject.toml", "project.yaml"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("bases: {a: {image: b}}\n" if "project" in name else "a\n")
        (stubs / "bin").mkdir(parents=True)
        for program in (*PROGRAMS, "chmod", "tail", "touch"):
            found = shutil.which(program)
            assert found is not None
            (stubs / "bin" / program).symlink_to(found)
        self.program("python3.11", PYTHON)
        (stubs / "bin/python3").symlink_to("python3.11")
        self.program("apt-get", APT)
        self.program("id", "#!/bin/bash\necho 0\n")
        self.program("runc")  # which some machines need beside Podman

    def program(self, name: str, text: str = "#!/bin/bash\n") -> None:
        """Puts a program on PATH."""
        (self.stubs / "bin" / name).write_text(text)
        (self.stubs / "bin" / name).chmod(0o755)

    def run(self, *command: str, **environ: str) -> tuple[int, str, str]:
        """Exit code, what was said, and on standard output."""
        path = {"PATH": str(self.stubs / "bin"), "STUB": str(self.stubs), "TMPDIR": str(self.stubs)}
        ended = subprocess.run(
            [str(self.root / command[0]), *command[1:]],
            cwd=self.stubs,
            env={**path, **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        return ended.returncode, ended.stderr, ended.stdout

    def calls(self) -> list[str]:
        """What was called since this was asked last, apart from whether it is there."""
        file = self.stubs / "calls"
        found = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [call for call in found if "import" not in call]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout", tmp_path / "stubs")


DEBIAN = pytest.mark.skipif(
    "debian" not in Path("/etc/os-release").read_text(), reason="packages are installed on Debian"
)
MADE = ["python -m venv .venv"]


def test_it_is_set_up_once(checkout: Checkout) -> None:
    assert checkout.run("scripts/doit", "list") == (0, "lading: setting up .venv\n", "doit list\n")
    assert checkout.calls()[0] == MADE[0]
    assert checkout.run("scripts/doit", "list") == (0, "", "doit list\n")
    assert checkout.calls() == [], "from then on it is doit, and nothing is asked"


def test_a_python_that_was_upgraded_is_noticed(checkout: Checkout) -> None:
    """Then .venv/bin/python still runs, and finds no package."""
    assert checkout.run("scripts/doit")[0] == 0
    checkout.calls()
    checkout.program("python3.12", PYTHON)
    (checkout.stubs / "bin/python3").unlink()
    (checkout.stubs / "bin/python3").symlink_to("python3.12")
    assert checkout.run("scripts/doit") == (0, "lading: setting up .venv\n", "doit \n")
    assert checkout.calls()[0] == MADE[0]
    assert checkout.run("scripts/doit") == (0, "", "doit \n")
    assert checkout.calls() == []


def test_a_checkout_that_was_moved_is_set_up_anew(checkout: Checkout, tmp_path: Path) -> None:
    assert checkout.run("scripts/doit")[0] == 0
    checkout.calls()
    checkout.root = checkout.root.rename(tmp_path / "moved")
    assert checkout.run("scripts/doit") == (0, "lading: setting up .venv\n", "doit \n")
    assert checkout.calls()[0] == MADE[0]


def test_one_that_knew_less_of_itself_is_not_made_anew(checkout: Checkout) -> None:
    assert checkout.run("scripts/doit")[0] == 0
    (checkout.root / ".venv/.set-up-at").write_text(f"{checkout.root}\n")
    checkout.calls()
    assert checkout.run("scripts/doit") == (0, "", "doit \n")
    assert checkout.calls() == ["python -m lading.engines"]
    assert checkout.run("scripts/doit") == (0, "", "doit \n")
    assert checkout.calls() == []


def test_from_then_on_it_costs_next_to_nothing(checkout: Checkout) -> None:
    """It takes 7 ms of processor time, and must not take 50."""
    command = [checkout.root / "scripts/doit"]
    path = {"PATH": str(checkout.stubs / "bin"), "STUB": str(checkout.stubs)}
    clock.timed(command, env=path)
    checkout.calls()
    assert min(clock.timed(command, env=path).cpu for _ in range(3)) < 0.05
    assert checkout.calls() == []


NOT_THERE = """\
lading: not there yet: podman
Install: apt-get install podman   (instead of podman: Docker Engine 20.10 or newer)
"""


@pytest.mark.parametrize("why", ["LADING_NO_INSTALL", "no root"])
def test_where_nothing_may_be_installed_it_is_said_what_to_install(
    checkout: Checkout, why: str
) -> None:
    if why == "no root":
        checkout.program("id", "#!/bin/bash\necho 1000\n")
    environ = {"STUB_ENGINE": "4", **({why: "1"} if why != "no root" else {})}
    code, said, out = checkout.run("scripts/doit", **environ)
    assert (code, out) == (2, "")
    assert said == f"lading: setting up .venv\n{NOT_THERE}"
    assert not any(call.startswith("apt-get") for call in checkout.calls())
    assert not (checkout.root / ".venv/.set-up").exists()
    code, said, _ = checkout.run("scripts/doit", **environ)
    assert (code, said) == (2, NOT_THERE), "the next run looks again, and only for that"


@DEBIAN
def test_podman_is_installed_where_that_may_be(checkout: Checkout) -> None:
    code, said, out = checkout.run("scripts/doit", STUB_ENGINE="4")
    assert (code, out) == (0, "doit \n")
    assert "lading: installing with apt-get: podman" in said
    installed = [call for call in checkout.calls() if call.startswith("apt-get")]
    assert installed[0] == "apt-get update"
    assert installed[1:] == ["apt-get install -y --no-install-recommends podman"]


@DEBIAN
@pytest.mark.parametrize("at", ["update", "install"])
def test_apt_that_fails_is_told(checkout: Checkout, at: str) -> None:
    code, said, out = checkout.run("scripts/doit", STUB_ENGINE="4", STUB_APT=at)
    assert (code, out) == (2, "")
    assert "what apt says\n" in said
    assert said.splitlines()[-1].startswith(f"lading: apt-get {at}")
    assert not (checkout.root / ".venv/.set-up").exists()


def test_an_engine_that_is_named_and_silent_is_told_and_nothing_installed(
    checkout: Checkout,
) -> None:
    code, said, out = checkout.run("scripts/doit", STUB_ENGINE="2")
    assert (code, out) == (2, "")
    assert said == "lading: setting up .venv\nlading: what lading.engines says\n"
    assert not any(call.startswith("apt-get") for call in checkout.calls())


def test_pip_that_fails_is_told(checkout: Checkout) -> None:
    code, said, _ = checkout.run("scripts/doit", STUB_PIP="1")
    assert code == 2
    assert "what pip says\nlading: the dependencies can't be installed (above).\n" in said


def test_without_a_python_it_is_said_which_is_needed(checkout: Checkout) -> None:
    (checkout.stubs / "bin/python3").unlink()
    (checkout.stubs / "bin/python3.11").unlink()
    code, said, _ = checkout.run("scripts/doit", LADING_NO_INSTALL="1")
    assert code == 2
    assert said.startswith("lading: Python 3.11 or newer is needed; none was found.\nInstall one ")
