"""ci: what `doit ci` writes, run as fresh runners would, against a registry that has all or most.

That the first run makes all, and a source once for all that need it, shows tests/e2e/test_ci.py, on
one that takes seconds; `ci-mpi` shows the latter with MPICH, which takes minutes.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from lading.ci import github
from lading.project import load
from tests.bench import generated
from tests.bench.figures import Figure, Goal, Samples
from tests.bench.workshop import IMAGE, NotMeasured, Workshop
from tests.support import engines, runners
from tests.support.registries import pretend_pushed
from tests.support.runners import Job, Runners

COUNT = 100
SETUP = 'ci: {setup: "true"}\n'
"""Runners that have this lading, and set none up."""
PATIENCE = 1800
"""Seconds that a step may take: MPICH is compiled in one."""
MPI = "mpi4py"
_MPICH = "source-mpich-on-debian-11"
SECOND = "second"
SECOND_IMAGE = f"""
  {SECOND}:
    description: Another mpi4py on the same MPICH
    base: debian-11
    apt: {{build: [build-essential]}}
    source: [mpich]
    pip:
      requirements: recipes/{SECOND}/requirements.in
      no-binary: [mpi4py]
      build-constraints: ["setuptools<69"]
    mpi: mpich
    test: [mpiexec -n 2 python -m mpi4py.bench helloworld]
"""
OPTION = ("--enable-fast=all,O3", "--enable-fast=all,O2")
"""A change of MPICH's options, as it is made in project.yaml."""


def measure(workshop: Workshop) -> Iterator[Figure]:
    """This project, and 100 images: nothing to do, and one changed line."""
    if why := engines.missing("registry"):
        raise NotMeasured(why)
    with engines.registry() as address:
        # Its runners set up as its own scripts do it, in each clone anew; that is not measured.
        project = workshop.project("ci")
        yield from _both(workshop, project, address, "this project", IMAGE, 15)
        folder = generated.write(
            workshop.source, workshop.folder / "ci-100", workshop.base(), IMAGE, COUNT
        )
        generated.lock_again(workshop.state(folder))
        changed = generated.names(COUNT)[41]
        yield from _both(workshop, folder, address, f"{COUNT} images", changed, 15)


def _both(
    workshop: Workshop, project: Path, registry: str, what: str, image: str, limit: float
) -> Iterator[Figure]:
    """Figures of a run in which nothing is to do, and of one after a change of one image."""
    _prepare(workshop, project, registry)
    pretend_pushed(workshop.state(project))
    place = _runners(workshop, project)
    jobs = runners.github(place, project / github.PATH)
    yield Figure(
        what=f"{what}: nothing to do",
        ours=Samples(values=(_seconds(jobs, {"stale"}),)),
        goal=Goal(kind="within", limit=limit),
    )
    recipe = project / f"recipes/{image}/requirements.in"
    recipe.write_text(recipe.read_text() + "astropy>1\n")
    generated.lock_again(workshop.state(project), image)
    runners.commit(project, "One line more")
    engine = workshop.any_engine()
    place.before = lambda job: {"DOCKER_HOST": engine.url} if job != "stale" else {}
    jobs = runners.github(place, project / github.PATH, since="HEAD^")
    seconds = _seconds(jobs, {"stale", image})
    yield Figure(
        what=f"{what}: one changed line",
        ours=Samples(values=(seconds,)),
        note=f"of which {jobs['stale'].seconds:.1f} s to find it; the store is as a cache has it",
    )
    yield Figure(
        what="images built",
        ours=Samples(values=(float(len(jobs) - 1),)),
        unit="of them",
        goal=Goal(kind="within", limit=1),
    )


def measure_mpi(workshop: Workshop) -> Iterator[Figure]:
    """This project, and one more image on MPICH: all is pushed; then an option of MPICH changes."""
    if why := engines.missing("registry"):
        raise NotMeasured(why)
    engine = workshop.any_engine()
    project = workshop.project("ci-mpi")
    (project / "scripts/doit").unlink()  # its own steps are run by the part `ci`
    declared = project / "project.yaml"
    declared.write_text(declared.read_text() + SECOND_IMAGE)
    recipe = project / f"recipes/{SECOND}/requirements.in"
    recipe.parent.mkdir()
    recipe.write_text("mpi4py==3.1.4\n")
    workshop.doit(project, f"lock:{SECOND}", engine=engine)
    with engines.registry() as address:
        _prepare(workshop, project, address)
        pretend_pushed(workshop.state(project))
        place = _runners(workshop, project)
        _seconds(runners.github(place, project / github.PATH), {"stale"})
        was, now = OPTION
        if was not in declared.read_text():
            raise NotMeasured(f"MPICH is not configured with {was}")
        declared.write_text(declared.read_text().replace(was, now))
        both = (f"{verb}:{name}" for verb in ("lock", "fetch") for name in (MPI, SECOND))
        workshop.doit(project, *both, "build:base:debian-11", engine=engine)
        runners.commit(project, "Another option")
        count = 0

        def before(job: str) -> Mapping[str, str]:
            """A store as a cache has it: what was downloaded, and nothing of what is compiled."""
            nonlocal count
            count += 1
            store = workshop.folder / f"ci-mpi-store-{count}"
            shutil.copytree(workshop.store.root, store, copy_function=os.link)
            found = {"LADING_CACHE": str(store)}
            return found if job == "stale" else {**found, "DOCKER_HOST": engine.url}

        place.before = before
        jobs = runners.github(place, project / github.PATH, since="HEAD^")
        seconds = _seconds(jobs, {"stale", _MPICH, MPI, SECOND})
        built = place.built()
        yield Figure(
            what="MPICH with another option",
            ours=Samples(values=(seconds,)),
            note=f"built: {', '.join(built)}; MPICH took {jobs[_MPICH].seconds:.0f} s of it",
        )
        compiled = [name for name in built if name.startswith("mpich")]
        yield Figure(
            what="MPICH compiled",
            ours=Samples(values=(float(len(compiled)),)),
            unit="times",
            goal=Goal(kind="within", limit=1),
        )
        images = load(declared).images
        yield Figure(
            what="images built: its two dependants",
            ours=Samples(values=(float(sum(name in images for name in built)),)),
            unit="of them",
            goal=Goal(kind="within", limit=2),
        )


def _prepare(workshop: Workshop, project: Path, registry: str) -> None:
    """A repository with the workflow, as its people would have it."""
    text = (project / "project.yaml").read_text()
    setup = "" if (project / "scripts/doit").exists() else SETUP
    (project / "project.yaml").write_text(f"{text}registry: {registry}/{project.name}\n{setup}")
    ignored = "/build/\n/dist/\n/.doit.db*\n/.lading*\n/.venv/\n*.egg-info/\n__pycache__/\n"
    (project / ".gitignore").write_text(ignored)
    workshop.doit(project, "ci")
    runners.git(project, "init", "--quiet", "--initial-branch", "main")
    runners.commit(project, "The beginning")


def _runners(workshop: Workshop, project: Path) -> Runners:
    """Runners that share this workshop's store, and keep no other caches."""
    environ = workshop.environ()
    if (project / "scripts/doit").exists():
        del environ["PYTHONPATH"]  # they have the lading that they set up
    else:
        environ["PATH"] = f"{Path(sys.prefix) / 'bin'}:{environ['PATH']}"
    return Runners(
        project,
        workshop.folder / f"{project.name}-runners",
        environ,
        caches=None,
        patience=PATIENCE,
        say=lambda text: None,
    )


def _seconds(jobs: dict[str, Job], expected: set[str]) -> float:
    """How long the jobs took together. Raises where others ran, or one failed."""
    went = {name: job.result for name, job in jobs.items()}
    if went != dict.fromkeys(expected, "success"):
        logs = "\n".join(job.log for job in jobs.values() if job.result != "success")
        raise NotMeasured(f"jobs went otherwise: {went}", why=logs[-2000:])
    return sum(job.seconds for job in jobs.values())
