"""What the pip layer adds to an image: the stages, steps, variables and files of its lock."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from lading import compiling
from lading.facts import Facts
from lading.layers.pip import PipLock, Request
from lading.parts import FILES, OUT, Start
from lading.plan import Contribution, Part, Share
from lading.requirements import Pin, normalised
from lading.steps import Content, Derived, Mount, Run, Stored, Unpacked

VENV = "/opt/venv"
LENT = "/dev/shm/lading"
"""Where a build lends files to a step: a mount point below / would stay behind in the layer."""


SHARED = "share/requirements"
"""Where in the context the requirement files lie that go into the image as they are."""
SETTLE = "pip/settle.py"


def contribute(start: Start, facts: Facts, lock: PipLock, request: Request) -> Contribution:
    """The layer's steps, variables and files. What has no wheel is built upon `start`, each
    package as a part of its own.
    """
    sources = request.sources
    wheels = [pin for pin in lock.pins if pin.is_wheel]
    built = [pin for pin in lock.pins if not pin.is_wheel]
    parts = _parts(start, request, lock, built)
    files: dict[str, Content] = {
        "pip/bin/uv": Unpacked(sha256=lock.installer.artifact.sha256),
        "pip/requirements.txt": _plain(wheels, hashes=True),
        f"pip/{compiling.NAME}": compiling.program(),
        **{f"pip/wheels/{p.artifact.name}": Stored(sha256=p.artifact.sha256) for p in wheels},
        **{f"{SHARED}/{_shared(path)}": data for path, data in sources.files.items()},
    }
    if request.below is not None:
        files[SETTLE] = Path(__file__).with_name("pip_settle.py").read_bytes()
    if built:
        files["pip/built.txt"] = _plain(built, hashes=False)
        for pin, part in zip(built, parts, strict=True):
            files[f"pip/built/{pin.name}"] = Derived(key=part.key, name=FILES)
    wanted = {pin.name: pin.version for pin in lock.pins}
    asked = [_exactly(name, wanted[name]) for name in sources.names() if name in wanted]
    own = request.below is None
    step = (
        _install(facts, wheels, built)
        if request.below is None
        else _on_conda(request.below.prefix, facts, wheels, built)
    )
    return Contribution(
        steps=(step,),
        path=(f"{VENV}/bin",) if own else (),
        env={"VIRTUAL_ENV": VENV} if own else {},
        labels={
            "python.version": facts.python_version,
            "python.packages": " ".join(asked),
        },
        files=files,
        parts=parts,
    )


def home(request: Request) -> str:
    """The prefix that the Python packages of an image lie in."""
    return request.below.prefix if request.below is not None else VENV


def _shared(path: str) -> str:
    """What a requirement file is called in the image; of environment.yaml it is its `pip:`."""
    return f"{path}.pip" if path.endswith((".yaml", ".yml")) else path


def _exactly(name: str, version: str) -> str:
    """NAME==VERSION; of some archives by URL the version shows only when they are built."""
    return f"{name}=={version}" if version else name


def _plain(pins: Iterable[Pin], *, hashes: bool) -> bytes:
    """What the installer is given: names and versions, no URL, since nothing is downloaded."""
    lines = (
        _exactly(pin.name, pin.version)
        + (f" --hash=sha256:{pin.artifact.sha256}" if hashes else "")
        for pin in pins
    )
    return "".join(line + "\n" for line in lines).encode()


QUIET = (
    "umask 022",
    "export HOME=/dev/shm UV_NO_CACHE=1 UV_OFFLINE=1 UV_NO_CONFIG=1 UV_NO_PROGRESS=1\n"
    "UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=hardlink",
)
"""For every step that runs uv: no network, nothing left behind, no byte written twice."""


SOURCE = "/lading/source"
TOOLS = "/lading/env"
"""Where a wheel is built, and with what: the same places each time."""

FORGET_TIMES = (
    f"find {VENV} -name uv_cache.json -delete && find {VENV} -path '*.dist-info/RECORD'\n"
    "-exec sed -i '/uv_cache\\.json,/d' {} +"
)
"""uv notes beside each package when its wheel's inode last changed, which no build can repeat."""


def _parts(start: Start, request: Request, lock: PipLock, built: Sequence[Pin]) -> tuple[Part, ...]:
    """The wheels of packages that have none, each a part of its own, in the order of `built`.

    Those that are built without isolation come behind the others, which they can be built with,
    and behind each other in the order in which they are declared.
    """
    shared = tuple(map(normalised, request.section.no_build_isolation))
    parts: dict[str, Part] = {}
    for pin in built:
        if pin.name not in shared:
            parts[pin.name] = _part(start, request, lock, pin, {})
    for pin in sorted((pin for pin in built if pin.name in shared), key=_place_in(shared)):
        parts[pin.name] = _part(start, request, lock, pin, dict(parts))
    return tuple(parts[pin.name] for pin in built)


def _place_in(names: Sequence[str]) -> Callable[[Pin], int]:
    return lambda pin: names.index(pin.name)


def _part(
    start: Start, request: Request, lock: PipLock, pin: Pin, at_hand: Mapping[str, Part]
) -> Part:
    """The wheel of one package, built in an environment of its locked build requirements; with
    `at_hand`, wheels that were built themselves, of all of those, too.
    """
    section, facts = request.section, request.facts
    needed = lock.build[pin.name]
    files: dict[str, Content] = {
        "pip/bin/uv": Unpacked(sha256=lock.installer.artifact.sha256),
        f"pip/sdist/{pin.artifact.name}": Stored(sha256=pin.artifact.sha256),
        **{f"pip/build/{one.artifact.name}": Stored(sha256=one.artifact.sha256) for one in needed},
        **{
            f"pip/built/{name}": Derived(key=part.key, name=FILES) for name, part in at_hand.items()
        },
        "pip/environment.txt": _plain(needed, hashes=False)
        + "".join(f"{name}\n" for name in at_hand).encode(),
    }
    sdist = f"{LENT}/pip/sdist/{pin.artifact.name}"
    found = "".join(
        f"\n--find-links {LENT}/pip/{place}"
        # A backend of its own may need nothing, and then there is no such folder.
        for place in (*(("build",) if needed else ()), *(f"built/{name}" for name in at_hand))
    )
    # What conda installs is a part of the image's other packages: built without isolation, a
    # package sees it, too.
    alone = pin.name not in map(normalised, section.no_build_isolation)
    seen = "" if alone or request.below is None else " --system-site-packages"
    path = "" if request.below is None else f"{request.below.prefix}/bin:"
    step = Run(
        why="Built from locked build requirements; only the wheel leaves. Compilers write the "
        "paths of what they read into it: where uv would choose names, each build would differ.",
        mounts=(Mount(source="pip", target=f"{LENT}/pip"),),
        commands=(
            *QUIET,
            *_variables(section.build_env),
            f"mkdir -p {OUT} {SOURCE}",
            f"{facts.python} -c 'import shutil, sys; shutil.unpack_archive(*sys.argv[1:])'\n"
            f"{sdist} {SOURCE}",
            f"{LENT}/pip/bin/uv venv --quiet --python {facts.python}{seen} {TOOLS}",
            f"{LENT}/pip/bin/uv pip install --quiet --python {TOOLS} --no-index --no-deps"
            f"{found}\n--requirements {LENT}/pip/environment.txt",
            f'export PATH="{TOOLS}/bin:{path}$PATH"',
            f"{LENT}/pip/bin/uv build --wheel --quiet --no-index --out-dir {OUT}\n"
            f"--python {TOOLS} --no-build-isolation {SOURCE}/*/",
            # uv puts a .gitignore beside what it builds.
            f"rm -f {OUT}/.gitignore",
        ),
    )
    what = _exactly(pin.name, pin.version)
    upon = replace(start, parts=(*start.parts, *at_hand.values()))
    made = upon.part(
        f"wheel-{pin.name}",
        f"the wheel of {what}",
        (step,),
        files,
        why=f"{what} has no wheel, or none is wanted: it is built here, with no network.",
    )
    return replace(made, shares=(Share(key=made.key, name=FILES),))


def _variables(values: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"export {name}={shlex.quote(value)}" for name, value in sorted(values.items()))


def _install(facts: Facts, wheels: Sequence[Pin], built: Sequence[Pin]) -> Run:
    commands = [*QUIET, f"{LENT}/pip/bin/uv venv --quiet --python {facts.python} {VENV}"]
    commands += _installed(VENV, wheels, built)
    if wheels or built:
        commands += [
            compiling.command(f"{VENV}/bin/python", f"{LENT}/pip", f"{VENV}/lib"),
            FORGET_TIMES,
        ]
    return Run(
        why="The Python packages, into a virtual environment of their own. The wheels are lent to "
        "this one step and are never a layer; the hashes are checked once more; bytecode is "
        "compiled, but for the packages' own tests, so that a read-only image starts fast.",
        mounts=(Mount(source="pip", target=f"{LENT}/pip"),),
        commands=tuple(commands),
    )


def _on_conda(prefix: str, facts: Facts, wheels: Sequence[Pin], built: Sequence[Pin]) -> Run:
    """pip's packages go into conda's own prefix, as they do with `pip:` in environment.yaml.

    Not into a virtual environment that sees conda's packages: its Python has another sys.prefix,
    below which conda's packages look for their data (PROJ, Jupyter …) in vain, and conda's programs
    run the Python that does not see pip's. And so there is one Python on PATH. When it is archived,
    they are a layer of their own all the same (lading.archive.normal).
    """
    where = f"{facts.python}\n--break-system-packages"
    short = ".".join(facts.python_version.split(".")[:2])
    packages = f"{prefix}/lib/python{short}/site-packages"
    settle = (
        f"{facts.python} -B {LENT}/{SETTLE}\n{packages} >{compiling.NOTED}",
        compiling.of_noted(facts.python, f"{LENT}/pip"),
    )
    return Run(
        why="pip's packages, beside conda's in its prefix: nothing of conda's is replaced. The "
        "wheels are lent to this one step and are never a layer; the hashes are checked once more; "
        "the bytecode of these packages alone is compiled.",
        mounts=(Mount(source="pip", target=f"{LENT}/pip"),),
        # Where there is no virtual environment, uv leaves its lock in TMPDIR.
        commands=(*QUIET, "export TMPDIR=/dev/shm", *_installed(where, wheels, built), *settle),
    )


def _installed(where: str, wheels: Sequence[Pin], built: Sequence[Pin]) -> list[str]:
    """The commands that install into an environment, or into the prefix of a Python."""
    install = f"{LENT}/pip/bin/uv pip install --quiet --python {where}\n--no-index --no-deps"
    commands: list[str] = []
    if wheels:
        commands.append(
            f"{install} --require-hashes\n"
            f"--find-links {LENT}/pip/wheels\n"
            f"--requirements {LENT}/pip/requirements.txt"
        )
    if built:
        found = "".join(f"\n--find-links {LENT}/pip/built/{pin.name}" for pin in built)
        commands.append(f"{install}{found}\n--requirements {LENT}/pip/built.txt")
    return commands
