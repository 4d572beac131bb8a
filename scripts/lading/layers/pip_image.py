"""What the pip layer adds to an image: the stages, steps, variables and files of its lock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lading.facts import Facts
from lading.layers.pip import PipLock
from lading.requirements import Pin, Sources
from lading.steps import Content, Contribution, Mount, Run, Stage, Step, Stored, Unpacked

VENV = "/opt/venv"
LENT = "/dev/shm/lading"
"""Where a build lends files to a step: a mount point below / would stay behind in the layer."""


SHARED = "share/requirements"
"""Where in the context the requirement files lie that go into the image as they are."""


def contribute(start: str, facts: Facts, lock: PipLock, sources: Sources) -> Contribution:
    """The layer's stages, steps, variables and files. What is built is built FROM `start`."""
    built = [pin for pin in lock.pins if not pin.is_wheel]
    wheels = [pin for pin in lock.pins if pin.is_wheel]
    files: dict[str, Content] = {
        "pip/bin/uv": Unpacked(sha256=lock.installer.artifact.sha256),
        "pip/requirements.txt": _plain(wheels, hashes=True),
        **{f"pip/wheels/{p.artifact.name}": Stored(sha256=p.artifact.sha256) for p in wheels},
        **{f"{SHARED}/{path}": data for path, data in sources.files.items()},
    }
    stages: tuple[Stage, ...] = ()
    if built:
        files["pip/built.txt"] = _plain(built, hashes=False)
        for pin in built:
            # A folder of its own each: archives by URL can have the same name.
            name = f"pip/sdists/{pin.name}/{pin.artifact.name}"
            files[name] = Stored(sha256=pin.artifact.sha256)
            for needed in lock.build[pin.name]:
                name = f"pip/build-{pin.name}/{needed.artifact.name}"
                files[name] = Stored(sha256=needed.artifact.sha256)
        stages = (_build_stage(start, facts, built),)
    wanted = {pin.name: pin.version for pin in lock.pins}
    asked = [_exactly(name, wanted[name]) for name in sources.names() if name in wanted]
    return Contribution(
        stages=stages,
        steps=(_install(facts, wheels, built),),
        path=(f"{VENV}/bin",),
        env={"VIRTUAL_ENV": VENV},
        labels={
            "python.version": facts.python_version,
            "python.packages": " ".join(asked),
        },
        files=files,
    )


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


COMPILE = (
    f"{{ {VENV}/bin/python -m compileall -qq -j 0 -x '/tests?/'\n"
    f"--invalidation-mode unchecked-hash {VENV}/lib || true; }}"
)
"""Files that no Python can compile are found in many packages, and do no harm."""

FORGET_TIMES = (
    f"find {VENV} -name uv_cache.json -delete && find {VENV} -path '*.dist-info/RECORD'\n"
    "-exec sed -i '/uv_cache\\.json,/d' {} +"
)
"""uv notes beside each package when its wheel's inode last changed, which no build can repeat."""


def _build_stage(start: str, facts: Facts, built: Sequence[Pin]) -> Stage:
    steps: list[Step] = [
        Run(
            why=f"{pin.name} {pin.version} has no wheel: it is built here, from locked build "
            "requirements, and only the wheel leaves this stage.",
            mounts=(
                Mount(source="pip/bin", target=f"{LENT}/bin"),
                Mount(source=f"pip/sdists/{pin.name}", target=f"{LENT}/sdists"),
                Mount(source=f"pip/build-{pin.name}", target=f"{LENT}/build"),
            ),
            commands=(
                *QUIET,
                f"{LENT}/bin/uv build --wheel --quiet --python {facts.python}\n"
                f"--no-index --find-links {LENT}/build\n"
                f"--out-dir /wheels {LENT}/sdists/{pin.artifact.name}",
            ),
        )
        for pin in built
    ]
    return Stage(
        name="wheels",
        base=start,
        steps=tuple(steps),
        why="A stage for what has to be built; what it needs for that stays behind.",
    )


def _install(facts: Facts, wheels: Sequence[Pin], built: Sequence[Pin]) -> Run:
    mounts = [Mount(source="pip", target=f"{LENT}/pip")]
    install = f"{LENT}/pip/bin/uv pip install --quiet --python {VENV}\n--no-index --no-deps"
    commands = [*QUIET, f"{LENT}/pip/bin/uv venv --quiet --python {facts.python} {VENV}"]
    if wheels:
        commands.append(
            f"{install} --require-hashes\n"
            f"--find-links {LENT}/pip/wheels\n"
            f"--requirements {LENT}/pip/requirements.txt"
        )
    if built:
        mounts.append(Mount(source="/wheels", target=f"{LENT}/built", stage="wheels"))
        commands.append(f"{install}\n--find-links {LENT}/built --requirements {LENT}/pip/built.txt")
    if wheels or built:
        commands += [COMPILE, FORGET_TIMES]
    return Run(
        why="The Python packages, into a virtual environment of their own. The wheels are lent to "
        "this one step and are never a layer; the hashes are checked once more; bytecode is "
        "compiled, but for the packages' own tests, so that a read-only image starts fast.",
        mounts=tuple(mounts),
        commands=tuple(commands),
    )
