"""What the conda layer adds to an image: a prefix that was made beforehand, or what the base's own
conda installs.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from lading import compiling
from lading.conda import settled
from lading.conda.explicit import Package
from lading.conda.versions import SHA256, since
from lading.console import counted
from lading.layers.conda import TAR, CondaLock, Request
from lading.plan import Contribution
from lading.steps import Add, Content, Derived, Mount, Run, Step, Stored

LENT = "/dev/shm/lading"
"""Where a build lends files to a step: a mount point below / would stay behind in the layer."""
PACKAGES = "conda/packages"
BY_CONTENT = (3, 7)
"""Pythons before this one know bytecode by its source's time only (PEP 552)."""
COMPILED = (
    "Bytecode, but for the packages' own tests, so that a read-only image starts fast. Files that "
    "no Python can compile are found in many packages."
)


def contribute(asked: Request, lock: CondaLock) -> Contribution:
    """The layer's steps, variables and files."""
    by_conda = asked.section.installer == "conda"
    files, steps = _by_conda(asked, lock) if by_conda else _as_a_whole(lock)
    # Against its Python packages of pip's are built; bytecode is of no use there.
    has_python = lock.python_version or asked.upon
    here = [step for step in steps if step.why != COMPILED] if has_python else []
    path = next((v.value for v in lock.variables if v.name == "PATH"), "")
    return Contribution(
        tools=tuple(here),
        tool_files=files if here else {},
        steps=tuple(steps),
        path=(*filter(None, path.split(":")), f"{lock.prefix}/bin"),
        env={
            "CONDA_PREFIX": lock.prefix,
            **{v.name: v.value for v in lock.variables if v.name != "PATH"},
            **asked.wanted.variables,
        },
        labels=_labels(asked, lock),
        files=files,
    )


def beside(lock: CondaLock, at: str) -> Contribution:
    """The steps and files of a further prefix; `at` is where in the context its files lie."""
    files, steps = _as_a_whole(lock, at)
    return Contribution(steps=tuple(steps), files=files)


def _labels(asked: Request, lock: CondaLock) -> dict[str, str]:
    versions = {package.name: package.version for package in lock.packages}
    names = sorted({spec.name for spec in asked.wanted.specs} & versions.keys())
    labels = {"conda.packages": " ".join(f"{name}={versions[name]}" for name in names)}
    if lock.python_version:
        labels["python.version"] = lock.python_version
    return labels


# -- a prefix made beforehand ---------------------------------------------------------------


def _as_a_whole(lock: CondaLock, at: str = "conda") -> tuple[dict[str, Content], list[Step]]:
    steps: list[Step] = [
        Add(
            source=f"{at}/{TAR}",
            target="/",
            why=f"{counted(len(lock.packages), 'conda package')}, installed into {lock.prefix} "
            "before the build from what is locked: the base needs neither conda nor a Python for "
            "it.",
        )
    ]
    if lock.scripts:
        names = ", ".join(name for name, _ in lock.scripts)
        steps.append(
            Run(
                why=f"Scripts that packages want run once they are installed: {names}.",
                commands=tuple(_script(lock, name, path) for name, path in _in_order(lock)),
            )
        )
    files: dict[str, Content] = {f"{at}/{TAR}": Derived(key=lock.key, name=TAR)}
    if lock.python_version:
        files[f"{at}/lent/{compiling.NAME}"] = compiling.program()
        steps.append(
            Run(
                why=COMPILED,
                mounts=(Mount(source=f"{at}/lent", target=LENT),),
                commands=(compiled(lock.prefix, lock.python_version),),
            )
        )
    return files, steps


def compiled(prefix: str, version: str) -> str:
    """The command that compiles all modules."""
    python, folder = f"{prefix}/bin/python", f"{prefix}/lib/python{'.'.join(map(str, of(version)))}"
    if of(version) >= BY_CONTENT:
        return compiling.command(python, LENT, folder)
    return f"{{ {python} -B -m compileall -qq -x '/tests?/'\n{folder} || true; }}"


def of(version: str) -> tuple[int, int]:
    """A Python's version, as far as the names of its folders go."""
    major, minor = re.findall(r"\d+", f"{version}.0")[:2]
    return int(major), int(minor)


def _in_order(lock: CondaLock) -> list[tuple[str, str]]:
    """Packages and their scripts: all pre-link ones first, as everything is linked at once."""
    pairs = [(name, path) for name, paths in lock.scripts for path in paths]
    return sorted(pairs, key=lambda pair: not pair[1].endswith("-pre-link.sh"))


def _script(lock: CondaLock, name: str, path: str) -> str:
    """Runs a package's script as conda does, and shows what it has to say."""
    package = next(package for package in lock.packages if package.name == name)
    build = package.stem.rsplit("-", 2)[2]
    number = re.search(r"\d+$", build)
    settings = {
        "PREFIX": lock.prefix,
        "ROOT_PREFIX": lock.prefix,
        "PKG_NAME": name,
        "PKG_VERSION": package.version,
        "PKG_BUILDNUM": number[0] if number else "0",
    }
    said = f"{lock.prefix}/.messages.txt"
    words = " ".join(f"{key}={shlex.quote(value)}" for key, value in settings.items())
    return (
        f'{words}\n"$(command -v bash || command -v sh)" {shlex.quote(f"{lock.prefix}/{path}")}\n'
        f"&& {{ [ ! -f {said} ] || {{ cat {said} && rm {said}; }}; }}"
    )


# -- by the base's own conda ----------------------------------------------------------------


def _by_conda(asked: Request, lock: CondaLock) -> tuple[dict[str, Content], list[Step]]:
    at = f"{LENT}/conda"
    facts = asked.facts
    sha256 = since(facts.conda_version, SHA256)
    files: dict[str, Content] = {
        "conda/explicit.txt": _explicit(lock, f"{at}/packages", sha256=sha256),
        "conda/settled.py": Path(settled.__file__).read_bytes(),
        f"conda/{compiling.NAME}": compiling.program(),
        **{
            f"{PACKAGES}/{p.channel}/{p.subdir}/{p.file}": Stored(sha256=p.sha256)
            for p in lock.packages
        },
    }
    own = lock.prefix == facts.conda
    python = f"{lock.prefix if lock.python_version else facts.conda}/bin/python"
    return files, [
        Run(
            why=f"By the base's own conda {facts.conda_version}: exactly the locked packages, lent "
            f"to this one step, with no network. It checks each {'sha256' if sha256 else 'md5'} "
            "once more. What would differ from build to build is settled behind it.",
            mounts=(Mount(source="conda", target=at),),
            commands=(
                f"export HOME={LENT.rpartition('/')[0]}",
                f"conda {'install' if own else 'create'} -y -p {lock.prefix} --no-deps --offline"
                f"\n--file {at}/explicit.txt",
                "conda clean -a -y",
                f"{python} -B {at}/settled.py {lock.prefix} {at}/packages >{compiling.NOTED}",
                # Of an old Python's there are none.
                f"[ ! -s {compiling.NOTED} ] ||\n{compiling.of_noted(python, at)}",
            ),
        )
    ]


def _explicit(lock: CondaLock, folder: str, *, sha256: bool) -> bytes:
    def line(package: Package) -> str:
        check = f"#sha256:{package.sha256}" if sha256 else f"#{package.md5}" if package.md5 else ""
        return f"file://{folder}/{package.channel}/{package.subdir}/{package.file}{check}\n"

    return ("@EXPLICIT\n" + "".join(map(line, lock.packages))).encode()
