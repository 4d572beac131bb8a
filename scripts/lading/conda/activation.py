"""What conda's activation would set, found out by comparing the environment before and after."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lading.errors import LadingError

MARK = "==lading=="
SAID = "/tmp/lading-said"
"""What a script prints goes there, and is shown at the end."""
_OWN = re.compile(r"PWD|OLDPWD|SHLVL|_|CONDA_SHLVL|CONDA_BACKUP_\w+|_CONDA_SET_\w+|BASH\w*")
"""What a shell sets by itself, and what scripts keep only to undo themselves."""
MANGLED = re.compile(r"[`$\"\\\n]")
"""What Apptainer changes in a variable of an image, or loses all variables over."""


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A variable that a package's script sets. Of PATH, `value` is what goes before it."""

    name: str
    value: str
    script: str


def script(prefix: str, scripts: Sequence[str]) -> str:
    """Shell text that sources the scripts in order; prints the environment before and after each.

    Between two bytes 0 there is either a mark or a variable; a line break is one of its value.
    """
    lines = [
        f"export CONDA_PREFIX={shlex.quote(prefix)} CONDA_SHLVL=1 CONDA_DEFAULT_ENV=base",
        f'export PATH={shlex.quote(prefix)}/bin:"$PATH"',
        f"exec 3>&1; trap 'cat {SAID} >&3' EXIT; : >{SAID}",
        _shown(""),
    ]
    for path in scripts:
        # Some scripts end with a status that means nothing, as conda takes it.
        lines.append(f"printf '\\000{MARK}? %s\\000' {shlex.quote(path)}")
        lines.append(f". {shlex.quote(f'{prefix}/{path}')} >{SAID} 2>&1 || true")
        lines.append(_shown(path))
    return "\n".join([*lines, f"printf '\\000{MARK}.\\000'"]) + "\n"


def _shown(path: str) -> str:
    return f"printf '\\000{MARK}%s\\000' {shlex.quote(path)}; env -0"


def compared(output: str) -> tuple[Variable, ...]:
    """The variables that scripts set, from what `script` printed; a later script counts.

    Raises `LadingError` where one did not come to its end, or takes variables away.
    """
    sections: list[tuple[str, dict[str, str]]] = []
    begun, ended = "its begin", False
    for item in output.split("\0"):
        if item == f"{MARK}.":
            ended = True
            break
        if item.startswith(f"{MARK}? "):
            begun = item.removeprefix(f"{MARK}? ")
        elif item.startswith(MARK):
            sections.append((item.removeprefix(MARK), {}))
        elif sections and (found := re.fullmatch(r"([A-Za-z_]\w*)=(.*)", item, re.DOTALL)):
            sections[-1][1][found[1]] = found[2]
    if not ended:
        raise LadingError(
            f"conda's activation ended at {begun}",
            why="\n".join(output.replace("\0", "\n").splitlines()[-10:]),
            do="a script in etc/conda/activate.d exits: ask for another version of its package",
        )
    set_by: dict[str, Variable] = {}
    for (_, before), (path, after) in pairwise(sections):
        for name, value in after.items():
            if before.get(name) == value or _OWN.fullmatch(name):
                continue
            if name == "PATH":
                head = value.removesuffix(before.get("PATH", "")).rstrip(":")
                earlier = set_by.get("PATH")
                value = f"{head}:{earlier.value}" if earlier is not None else head
            set_by[name] = Variable(name=name, value=value, script=path)
        for name in before.keys() - after.keys():
            set_by.pop(name, None)
    return tuple(variable for _, variable in sorted(set_by.items()))


def refuse_mangled(variables: Iterable[Variable], packages: Mapping[str, str]) -> None:
    """Raises `LadingError` for values that Apptainer would change; `packages` are those that the
    scripts are from.
    """
    wrong = [variable for variable in variables if MANGLED.search(variable.value)]
    if wrong:
        raise LadingError(
            "variables that activation sets would not arrive under Apptainer: "
            + ", ".join(variable.name for variable in wrong),
            why="\n".join(
                f"{v.name}={v.value!r}, set by {v.script} of {packages.get(v.script, '?')}"
                for v in wrong
            )
            + "\nApptainer changes $, \", \\ and line breaks in an image's variables, and over a "
            "backtick it loses all of them",
            do="set the variable in `env:` of the image, to a value without these: that counts",
        )
