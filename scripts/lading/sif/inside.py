"""The tests that an image declares, run inside its SIF by Apptainer.

Twice: shut off from the host altogether, and with what hosts let in and should not: a home with
modules that don't work, and variables that lead to them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from lading.checks.declared import Result
from lading.errors import EnvironmentProblem
from lading.sif.programs import Program

CONTAINED = ("--containall", "--no-home")
UNPACKED = "to temporary sandbox"
"""What Apptainer and SingularityCE say when they unpack a SIF because they can't mount it."""
_MINORS = range(6, 20)
"""Of Python 3, for whichever the image has."""


class Inside(Struct, frozen=True, kw_only=True):
    """A SIF (or the folder it is unpacked into), and a folder for what is needed for a while."""

    program: Program
    sif: Path
    folder: Path

    def run(
        self,
        arguments: Sequence[str],
        *,
        verb: str = "exec",
        options: Sequence[str] = CONTAINED,
        env: Mapping[str, str] | None = None,
        what: str = "",
        line: Callable[[str], None] | None = None,
    ) -> Result:
        """Runs a command in it; `what` is what the result calls it."""
        start = time.monotonic()
        finished = self.program.run(
            verb,
            *options,
            self.sif,
            *arguments,
            env={**settings(self.folder), **(env or {})},
            cwd=self.folder,
            line=line,
        )
        return Result(
            command=what or " ".join(arguments),
            code=finished.code,
            output=finished.output,
            seconds=time.monotonic() - start,
        )

    def shell(self, command: str, **how: Sequence[str] | Mapping[str, str]) -> Result:
        """Runs one line of `test:` by /bin/sh, as it is run in the engine."""
        return self.run(["/bin/sh", "-c", command], what=command, **how)  # type: ignore[arg-type]


def settings(folder: Path) -> dict[str, str | None]:
    """Where Apptainer or SingularityCE puts what it needs for a while: into our folder."""
    return {
        f"{kind}_{what}": str(folder)
        for kind in ("APPTAINER", "SINGULARITY")
        for what in ("TMPDIR", "CACHEDIR")
    }


def opened(program: Program, sif: Path, folder: Path) -> Inside:
    """The SIF, run as this machine lets it be run: mounted, else (/dev/fuse is closed, say) out of
    a folder that it is unpacked into, once: `exec` does that too, by itself, but every time.

    Raises `EnvironmentProblem` where neither goes.
    """
    inside = Inside(program=program, sif=sif, folder=folder)
    mounted = inside.run(["/bin/sh", "-c", "true"])
    if not mounted.code and UNPACKED not in mounted.output:
        return inside
    unpacked = folder / "unpacked"
    finished = program.run("build", "--sandbox", unpacked, sif, env=settings(folder), cwd=folder)
    said = finished.output
    if not finished.code:
        inside = replace(inside, sif=unpacked)
        result = inside.run(["/bin/sh", "-c", "true"])
        if not result.code:
            return inside
        said = result.output
    ends = ["\n".join(text.strip().splitlines()[-3:]) for text in (mounted.output, said)]
    raise EnvironmentProblem(
        f"{program.version} can't run containers here, so the SIF can't be tested",
        why="\n".join(dict.fromkeys(ends)),
        do="ask for user namespaces and access to /dev/fuse (or an Apptainer with setuid), "
        "or make the SIF on a machine that has them",
    )


def contained(inside: Inside, commands: Iterable[str]) -> list[Result]:
    """The tests with nothing of the host: no home, no variables, empty /tmp, own processes."""
    return [inside.shell(command) for command in commands]


def trapped(inside: Inside, commands: Iterable[str], modules: Iterable[str]) -> list[Result]:
    """The tests as a user with an old and untidy home would run them."""
    home = inside.folder / "home"
    env = set_traps(home, modules)
    options = ("--home", str(home))
    return [inside.shell(command, options=options, env=env) for command in commands]


def scripted(inside: Inside) -> Result:
    """`apptainer test`, which anyone who has the SIF can run."""
    return inside.run([], verb="test", what="apptainer test")


def swap(inside: Inside, folder: Path, command: Sequence[str], at: str = "/host/mpi") -> Result:
    """A command with a host's MPI, bound in from its folder: what is in its lib is found before
    the image's own.
    """
    env = {f"{kind}ENV_LD_LIBRARY_PATH": f"{at}/lib" for kind in ("APPTAINER", "SINGULARITY")}
    return inside.run(command, options=(*CONTAINED, "--bind", f"{folder}:{at}:ro"), env=env)


def modules(packages: str) -> tuple[str, ...]:
    """The modules to set traps for: numpy, and what the label python.packages names."""
    names = re.findall(r"([A-Za-z0-9_.-]+)==", packages)
    return tuple(sorted({"numpy", *(re.sub(r"[-.]+", "_", name).lower() for name in names)}))


def set_traps(home: Path, modules: Iterable[str]) -> dict[str, str]:
    """Makes the home; returns the variables that lead into it."""
    outside = home / "outside"
    places = [home / f".local/lib/python3.{minor}/site-packages" for minor in _MINORS]
    for place in (outside, *places):
        for module in modules:
            (place / module).mkdir(parents=True)
            text = f"raise ImportError('the {module} of the host, in {place.name}')\n"
            (place / module / "__init__.py").write_text(text)
    startup = outside / "startup.py"
    startup.write_text("raise SystemExit('the PYTHONSTARTUP of the host')\n")
    for name in (".bashrc", ".bash_profile", ".profile"):
        (home / name).write_text("echo the host\\'s own settings >&2\nexit 1\n")
    return {"PYTHONPATH": str(outside), "PYTHONSTARTUP": str(startup)}
