"""What the part `conda` compares: the same packages, and a base as miniconda's image is.

The base has the Debian packages of the Dockerfile of continuumio/miniconda3:4.10.3, and a prefix
with a Python, a real conda 4.3.16, what it needs, and what a miniconda besides has of packages
that the package index has, too. The real one has more: OpenSSL, Tk, ncurses, … of its own.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from lading import net, uv
from lading.engines import Engine
from lading.errors import LadingError
from lading.files import write_text
from tests.bench.network import LENT
from tests.bench.workshop import Workshop
from tests.support import miniconda
from tests.support.channels import Channel

DEBS = (
    *("bzip2", "ca-certificates", "git", "libglib2.0-0", "libsm6", "libxext6", "libxrender1"),
    *("mercurial", "openssh-client", "procps", "subversion", "wget"),
)
BESIDES = ("pip", "setuptools", "wheel", "cryptography", "pyOpenSSL", "PySocks", "tqdm", "six")
BASES = f"""
  bare: {{debian: {{suite: bookworm}}}}
  like-miniconda: {{debian: {{suite: bookworm, packages: [{", ".join(DEBS)}]}}}}
"""
IMAGES = """
  conda:
    base: bare
    conda: {channels: [lab], packages: [astropy]}
  like-miniconda:
    base: like-miniconda
"""
BASE = "localhost/lesson/miniconda:1"
LESSON = "localhost/lesson/conda:1"


def packages(workshop: Workshop, channel: Channel, *wanted: str) -> list[str]:
    """Takes up Python packages with all that they need, out of wheels; their names."""
    folder = workshop.folder / "wheels" / wanted[0]
    target = uv.Target(
        python_version=platform.python_version(), glibc="2.28", platform="linux/amd64"
    )
    command = ["pip", "install", "--quiet", "--target", str(folder), "--only-binary", ":all:"]
    finished = uv.here(
        [*command, *target.arguments(), *wanted],
        workshop.folder,
        net.uv_environment(workshop.environ()),
    )
    if finished.code:
        raise LadingError(f"{', '.join(wanted)} can't be fetched", why=finished.errors)
    short = ".".join(platform.python_version().split(".")[:2])
    # As conda's own packages, they bring their bytecode.
    compiling = [sys.executable, "-m", "compileall", "-qq", "-j", "0", str(folder)]
    subprocess.run(compiling, check=False)
    known = {file.rsplit("-", 2)[0] for file in channel.records["linux-64"]}
    names: list[str] = []
    for found in metadata.distributions(path=[str(folder)]):
        name = found.metadata["Name"].lower()
        if name in known:
            continue
        names.append(name)
        inside = {str(path) for path in found.files or () if ".." not in path.parts}
        inside |= {
            str(path.relative_to(folder))
            for one in list(inside)
            if one.endswith(".py")
            for path in (folder / one).parent.glob(f"__pycache__/{Path(one).stem}.*.pyc")
        }
        members = [
            (f"lib/python{short}/site-packages/{path}", (folder / path).read_bytes())
            for path in sorted(inside)
            if (folder / path).is_file()
        ]
        channel.crafted(name, found.version, members, depends=["python"])
    return names


def declared(project: Path) -> None:
    """Adds the two images to a copy of the project."""
    file = project / "project.yaml"
    text = file.read_text().replace("\nsources:", f"{BASES}\nsources:", 1)
    write_text(file, text + IMAGES)


def base(engine: Engine, debian: str, tars: Sequence[Path], folder: Path) -> None:
    """Builds the base as miniconda's image is, on a Debian that the engine has."""
    folder.mkdir()
    for number, tar in enumerate(tars):
        shutil.copy(tar, folder / f"{number}.tar")
    adds = "".join(f'ADD ["{number}.tar", "/"]\n' for number in range(len(tars)))
    text = f"FROM {debian}\n{adds}ENV PATH=/opt/conda/bin:$PATH LD_LIBRARY_PATH=/opt/conda/lib\n"
    (folder / "Dockerfile").write_text(text)
    engine.build(folder, BASE, platform="linux/amd64", log=lambda _: None)


def lesson(lock: str, channel: Channel, folder: Path) -> None:
    """Writes the context of the lesson's Dockerfile.4: an explicit file, installed by conda."""
    at = "/dev/shm/lent"
    records = {
        name: (subdir, record)
        for subdir, listed in channel.records.items()
        for name, record in listed.items()
    }
    lines = ["@EXPLICIT"]
    (folder / "lent").mkdir(parents=True)
    for line in lock.splitlines():
        file = line.partition("#")[0].rpartition("/")[2]
        if "#sha256:" not in line or file.startswith("python-"):
            continue  # the base has this very Python already
        subdir, record = records[file]
        target = folder / "lent" / subdir / file
        target.parent.mkdir(exist_ok=True)
        shutil.copy(channel.folder / subdir / file, target)
        lines.append(f"file://{at}/{subdir}/{file}#{record['md5']}")
    (folder / "lent" / "explicit.txt").write_text("\n".join(lines) + "\n")
    (folder / "Dockerfile").write_text(
        f"FROM {BASE}\n"
        f"RUN --mount=type=bind,source=lent,target={at} \\\n"
        f"    conda install -y --no-deps --offline --file {at}/explicit.txt && conda clean -a -y\n"
        "ENV CONDA_PREFIX=/opt/conda\n"
    )


def by_hand(channel: Channel, folder: Path) -> dict[str, str]:
    """Writes the contexts of the lesson's first three Dockerfiles for conda, which ask the channel
    when they are built; what each builds is called like, by the step of the lesson.
    """
    install, clean = f"conda install -y -c {channel.name}", "conda clean -a -y"
    commands = {
        "conda 1": f"{install} astropy",
        "conda 2": f"{install} astropy && {clean}",
        "conda 3": f"conda env update -n root -f /environment.yaml && {clean}",
    }
    settings = {
        "channel_alias": channel.alias,
        "default_channels": [],  # added to those that are given
        "auto_update_conda": False,
    }
    for step, command in commands.items():
        lent = folder / step / "lent"
        lent.mkdir(parents=True)
        (lent / "condarc").write_text(json.dumps(settings))
        (folder / step / "environment.yaml").write_text(
            f"channels: [{channel.name}]\ndependencies: [astropy]\n"
        )
        (folder / step / "Dockerfile").write_text(
            f"FROM {BASE}\n"
            "COPY environment.yaml /\n"
            f"RUN --mount=type=bind,source=lent,target={LENT} \\\n"
            f"    export CONDARC={LENT}/condarc && {command}\n"
            "ENV CONDA_PREFIX=/opt/conda\n"
        )
    return {step: f"localhost/lesson/{step.replace(' ', '-')}:1" for step in commands}


def everything(workshop: Workshop, channel: Channel) -> list[str]:
    """Takes up conda and all packages of the comparison; those that the base has besides conda."""
    miniconda.packages(channel, workshop.store)
    besides = packages(workshop, channel, *BESIDES)
    packages(workshop, channel, "astropy")
    _depend(channel, "astropy", ("numpy", "pyerfa", "pyyaml", "packaging"))
    return besides


def _depend(channel: Channel, name: str, on: Sequence[str]) -> None:
    for file, record in channel.records["linux-64"].items():
        if file.startswith(f"{name}-"):
            listed = [r["name"] for r in channel.records["linux-64"].values()]
            record["depends"] = ["python", *(one for one in on if one in listed)]
    channel.index()


def synthetic(folder: Path, records: int) -> str:
    """Writes a channel of so many records of packages that are nowhere; a spec to solve for.

    As on a large channel, a package has a dozen versions, and each needs some others, of versions
    near its own.
    """
    versions = 12
    names = records // versions
    found: dict[str, dict[str, object]] = {}
    for number in range(names):
        for version in range(versions):
            near = f">={max(version - 3, 0)}.0,<{version + 4}.0"
            # Some hundred packages are below the last; every fifth is too new for the base.
            depends = [f"p{number // 2 - step} {near}" for step in range(5) if number > 10]
            glibc = "3.0" if number % 5 == 0 and version > versions - 3 else "2.17"
            file = f"p{number}-{version}.0-h{number % 97:02}_0.conda"
            found[file] = {
                "name": f"p{number}",
                "version": f"{version}.0",
                "build": f"h{number % 97:02}_0",
                "build_number": 0,
                "depends": [f"__glibc >={glibc}", *depends],
                "subdir": "linux-64",
                "sha256": f"{number * versions + version:064x}",
                "md5": f"{number * versions + version:032x}",
                "size": 1000,
                "timestamp": 1_700_000_000_000,
            }
    for subdir, listed in (("linux-64", found), ("noarch", {})):
        (folder / subdir).mkdir(parents=True)
        text = json.dumps({"info": {"subdir": subdir}, "packages": {}, "packages.conda": listed})
        (folder / subdir / "repodata.json").write_text(text)
    return f"p{names - 1}"
