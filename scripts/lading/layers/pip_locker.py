"""Locking by pip itself: by pip-tools' `pip-compile`, or by a trial install and `pip freeze`.

Both run in a throwaway container of the base, with its own Python, in a virtual environment of
their own as the image has one. What they come to are versions, and sha256 of the files that these
may be; the lock that follows from them, and what is installed from it, are as with uv. The index
that they ask is lading's (see pip_index.py).
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from lading import net, requirements, uv
from lading.errors import EnvironmentProblem, LadingError
from lading.layers import (
    pip,
    pip_in_base,
    pip_index,
    pip_locker_answers,
    pip_locker_inside,
    pip_locker_problems,
)
from lading.layers.kind import InBase, Tools
from lading.layers.pip import Answer, PipLock, Request
from lading.layers.pip_index import Index, Offered
from lading.requirements import Pin

if TYPE_CHECKING:
    from lading.engines import RunResult

PINS = Path(__file__).with_name("pip_tools.txt")
"""pip-tools and pip, for every Python of a base; `scripts/pin` writes it."""
INSIDE = "/lading/locker"
WHAT = {"pip-tools": "pip-compile, of pip-tools", "freeze": "a trial install, and pip freeze"}


def answered(asked: Request, old: PipLock | None, tools: Tools) -> Answer:
    """What the locker of the section answers; pins of `old` are kept where they still fit.

    Raises `uv.NotResolved` where no versions fit, `LadingError` for what can't be built in the
    base, `EnvironmentProblem` where there is no engine, or an index does not answer.
    """
    section = asked.section
    where = f"images.{asked.image}: locker: {section.locker}"
    _refuse_old(asked, where)
    try:
        in_base = pip_in_base.in_container(asked, tools)
    except EnvironmentProblem as error:
        raise EnvironmentProblem(
            f"{where} resolves in the base, which takes an engine",
            why=f"{error.what}\n{error.why}",
            do=f"{error.do}; or locker: uv, which needs none".removeprefix("; "),
        ) from error
    tools.note(f"  {WHAT[section.locker]}, in the base")
    with tempfile.TemporaryDirectory(prefix="lading-locker-") as name:
        folder = Path(name) / "given"
        folder.mkdir()
        index = _index(asked, tools, Path(name))
        question = _question(asked, old, folder, index.secret)
        runs = _Runs(asked=asked, old=old, tools=tools, in_base=in_base, folder=folder)
        with pip_index.served(index, folder):
            result = runs.run(question, () if section.locker == "freeze" else None)
            if result.code and pip_locker_inside.LACKS in result.output:
                tools.note("  the base has no pip: one is brought along")
                result = runs.run(question, ("pip",))
            kept = question["pinned"] and section.locker == "freeze"
            if result.code and kept and not index.problems:
                # pip knows no preferences: what it is told to keep, it must.
                tools.note("  not all that was locked before fits: what moves is for pip to say")
                result = runs.run({**question, "pinned": []}, runs.brought)
    if index.problems:
        raise index.problems[0]
    found = re.search(
        rf"^{re.escape(pip_locker_inside.MARK)}(.*)$", result.output, flags=re.MULTILINE
    )
    if result.code or found is None:
        raise pip_locker_problems.problem(asked, index, result.output, where)
    answer: dict[str, Any] = json.loads(found[1])
    if section.locker == "pip-tools":
        versions, hashes = pip_locker_answers.compiled(answer["answer"])
    else:
        tools.note(f"  by pip {answer['pip']}")
        versions = pip_locker_answers.frozen(asked, answer)
        hashes = {name: frozenset(taken) for name, taken in index.taken.items()}
    return Answer(
        versions=tuple(version for version in versions if version.name not in asked.installed),
        hashes=hashes,
    )


def _refuse_old(asked: Request, where: str) -> None:
    if uv.numbers(asked.facts.python_version) < (3, 8):
        raise LadingError(
            f"{where} needs Python 3.8 or newer in the base",
            why=f"it has Python {asked.facts.python_version}",
            do="locker: uv",
        )


class _Runs(Struct, kw_only=True):
    """Containers that are asked one after the other; `brought` is what the last one was lent."""

    asked: Request
    old: PipLock | None
    tools: Tools
    in_base: InBase
    folder: Path
    brought: tuple[str, ...] | None = ()

    def run(self, question: Mapping[str, Any], wanted: tuple[str, ...] | None) -> RunResult:
        """Asks one; of pip-tools and what it needs it is lent what is `wanted`; None: all."""
        from lading.engines import Mount

        self.brought = wanted
        wheels = self.folder / "tools"
        shutil.rmtree(wheels, ignore_errors=True)
        pip_in_base.lend(_tools(self.asked, wanted, self.tools), self.asked, self.tools, wheels)
        (self.folder / "asked.json").write_text(json.dumps(question))
        binary = pip_in_base.program(self.asked, self.old, self.tools)
        return self.in_base(
            [self.asked.facts.python, f"{INSIDE}/inside.py", f"{INSIDE}/asked.json"],
            mounts=[
                Mount(source=binary, target="/lading/uv"),
                Mount(source=self.folder, target=INSIDE),
                *pip_in_base.conda_prefix(self.asked, self.tools),
            ],
            env={**pip_in_base.settings({}), **self.asked.section.build_env},
        )


# -- what the container is given -------------------------------------------------------------


def _index(asked: Request, tools: Tools, folder: Path) -> Index:
    """The index that it sees: the user's, as of the day; of what conda installs, that alone."""
    environ = tools.environ
    default = uv.default_index(net.uv_environment(environ))
    offered = Offered(
        as_of=asked.as_of,
        only=asked.sources.hashes(),
        instead=uv.stand_ins(asked.installed, folder),
    )
    places = pip_index.places(asked.sources.index_options(), environ, default)
    return Index(places, offered, tools.store, environ)


def _question(asked: Request, old: PipLock | None, folder: Path, secret: str) -> dict[str, Any]:
    """What the container is asked; writes the files that it reads."""
    section, sources = asked.section, asked.sources
    work = folder / "work"
    for path, data in sources.files.items():
        at = work / uv.read_as(path)
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(for_pip(path, data))
    builds = ""
    if section.build_constraints:
        builds = ".build-constraints.txt"
        (work / builds).write_text("\n".join(section.build_constraints) + "\n")
    shutil.copyfile(pip_locker_inside.__file__, folder / "inside.py")
    return {
        "locker": section.locker,
        "uv": "/lading/uv",
        "socket": f"{INSIDE}/{pip_index.SOCKET}",
        "secret": secret,
        "work": f"{INSIDE}/work",
        "tools": f"{INSIDE}/tools",
        "scratch": "/tmp/lading-locker",
        "requirements": [uv.read_as(path) for path in sources.asked],
        "constraints": [*sources.constraints, *_installed(asked, work)],
        "no_binary": list(section.no_binary),
        "build_constraints": builds,
        # A requirement stands for what comes by URL.
        "pinned": [p.requirement for p in (old.pins if old is not None else ()) if not p.url],
    }


def _installed(asked: Request, work: Path) -> list[str]:
    """What conda installs, as constraints, for pip knows of no other version of it either."""
    if not asked.installed:
        return []
    lines = [f"{name}=={version}\n" for name, version in sorted(asked.installed.items())]
    (work / ".installed.txt").write_text("".join(lines))
    return [".installed.txt"]


def for_pip(path: str, data: bytes) -> str:
    """A requirement file without the indexes and hashes that it names; its lines stay its lines.

    It is the index that knows them: pip would ask another one, or want a hash of everything.
    """
    lines = []
    for line in requirements.written_out(path, data).split("\n"):
        if requirements.INDEX_OPTION.match(line) or line.startswith("--require-hashes"):
            line = ""
        lines.append(re.sub(r"\s+--hash[= ]\S+", "", line))
    return "\n".join(lines)


def _tools(asked: Request, wanted: Sequence[str] | None, tools: Tools) -> tuple[Pin, ...]:
    """The wheels of pip-tools, or of what of it is wanted, for the base's Python."""
    found = pinned_tools(PINS.read_text(), asked.facts.python_version)
    names = [name for name in found if wanted is None or name in wanted]
    versions = [uv.Version(name=name, version=found[name][0]) for name in names]
    try:
        return pip.pinned(
            replace(asked, as_of=None),
            versions,
            (),
            net.uv_environment(tools.environ),
            demanded={name: found[name][1] for name in names},
        )
    except EnvironmentProblem:
        raise
    except LadingError as error:
        raise LadingError(
            f"images.{asked.image}: what locker: {asked.section.locker} runs can't be had",
            why=f"{error.what}\n{error.why}".strip(),
            do="have it in the index that is configured (its versions: layers/pip_tools.txt), or "
            "take locker: uv",
        ) from error


def pinned_tools(text: str, python: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Of a requirements file with markers, what a Python of that version on Linux installs:
    version and sha256 by name.
    """
    from packaging.markers import Marker

    environment = {
        "python_version": ".".join(python.split(".")[:2]),
        "python_full_version": python,
        "implementation_version": python,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    found = {}
    entry = re.compile(
        r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; (?P<marker>[^\\\n]+))? \\\n"
        r"(?P<hashes>(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
        re.MULTILINE,
    )
    for match in entry.finditer(text):
        if match["marker"] and not Marker(match["marker"].strip()).evaluate(environment):
            continue
        found[match["name"]] = match["version"], pip_locker_answers.sha256_in(match["hashes"])
    return found
