"""What activation sets, found out with this machine's own shell."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.conda import activation
from lading.conda.activation import Variable
from lading.errors import LadingError


@pytest.fixture(params=["sh", "bash"])
def shell(request: pytest.FixtureRequest) -> str:
    found: str | None = shutil.which(request.param)
    if found is None:
        pytest.skip(f"no {request.param} here")
    return found


def run(shell: str, prefix: Path, **scripts: str) -> tuple[Variable, ...]:
    """The variables that these scripts set, in the order of their names."""
    for name, text in scripts.items():
        (prefix / f"{name}.sh").write_text(text)
    command = prefix / "command.sh"
    command.write_text(activation.script(str(prefix), [f"{name}.sh" for name in sorted(scripts)]))
    said = subprocess.run(
        [shell, str(command)],
        env={"PATH": os.environ["PATH"], "HOME": "/tmp"},
        capture_output=True,
        text=True,
    )
    return activation.compared(said.stdout)


def values(found: tuple[Variable, ...]) -> dict[str, str]:
    return {variable.name: variable.value for variable in found}


def test_what_scripts_set(shell: str, tmp_path: Path) -> None:
    found = run(
        shell,
        tmp_path,
        a='export A="$CONDA_PREFIX/a" GONE=1\nlocal_only=2\necho B=printed\nfalse\n',
        b='export B="$A/b"; unset GONE; export CONDA_BACKUP_A= _CONDA_SET_A=1\n',
        c='export A=again; cd /tmp; export C="two\nlines" D=\n',
    )
    assert values(found) == {
        "A": "again",
        "B": f"{tmp_path}/a/b",
        "C": "two\nlines",
        "D": "",
    }
    assert {v.name: v.script for v in found} == {"A": "c.sh", "B": "b.sh", "C": "c.sh", "D": "c.sh"}


def test_of_path_only_what_goes_before_it(shell: str, tmp_path: Path) -> None:
    found = run(
        shell, tmp_path, a='export PATH="/one:$PATH"\n', b='export PATH="/two/x:/two:$PATH"\n'
    )
    assert values(found) == {"PATH": "/two/x:/two:/one"}


def test_a_script_that_ends_the_shell_is_named(shell: str, tmp_path: Path) -> None:
    with pytest.raises(LadingError) as refused:
        run(shell, tmp_path, a="true\n", b="echo sorry; exit 3\n", c="export C=1\n")
    assert refused.value.what == "conda's activation ended at b.sh"
    assert "sorry" in refused.value.why


def test_nothing_set_is_nothing(shell: str, tmp_path: Path) -> None:
    assert run(shell, tmp_path, a=":\n") == ()


@given(st.text(max_size=200))
def test_any_output_is_read_or_refused(text: str) -> None:
    try:
        activation.compared(text)
    except LadingError as error:
        assert error.do


@pytest.mark.parametrize("value", ["a`b", "$HOME", 'a"b', "a\\b", "two\nlines"])
def test_what_apptainer_mangles_is_refused(value: str) -> None:
    wrong = Variable(name="WRONG", value=value, script="etc/conda/activate.d/x.sh")
    right = Variable(name="RIGHT", value="a b'c;d", script="etc/conda/activate.d/x.sh")
    with pytest.raises(LadingError) as refused:
        activation.refuse_mangled([wrong, right], {"etc/conda/activate.d/x.sh": "tool"})
    assert "WRONG" in refused.value.what
    assert "of tool" in refused.value.why
    assert "RIGHT" not in str(refused.value)
    activation.refuse_mangled([right], {})
