"""ci: what `doit ci` writes, run as fresh runners would, against a registry that has all or most.

That the first run makes all, and a source once for all that need it, shows tests/e2e/test_ci.py, on
one that takes seconds: MPICH takes ten minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from lading.ci import github
from tests.bench import generated
from tests.bench.figures import Figure, Goal, Samples
from tests.bench.workshop import IMAGE, NotMeasured, Workshop
from tests.support import engines, runners
from tests.support.registries import pretend_pushed
from tests.support.runners import Job, Runners

COUNT = 100
SETUP = 'ci: {setup: "true"}\n'
"""Setting up is not measured: the runners have this lading."""


def measure(workshop: Workshop) -> Iterator[Figure]:
    """This project, and 100 images: nothing to do, and one changed line."""
    if why := engines.missing("registry"):
        raise NotMeasured(why)
    with engines.registry() as address:
        project = workshop.project("ci")
        # So that runners take the lading of this workshop, and set none up.
        (project / "scripts/doit").unlink()
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
    place = Runners(
        project,
        workshop.folder / f"{project.name}-runners",
        _environ(workshop),
        say=lambda text: None,
    )
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


def _prepare(workshop: Workshop, project: Path, registry: str) -> None:
    """A repository with the workflow, as its people would have it."""
    text = (project / "project.yaml").read_text()
    (project / "project.yaml").write_text(f"{text}registry: {registry}/{project.name}\n{SETUP}")
    (project / ".gitignore").write_text("/build/\n/dist/\n/.doit.db*\n/.lading.lock\n")
    workshop.doit(project, "ci")
    runners.git(project, "init", "--quiet", "--initial-branch", "main")
    runners.commit(project, "The beginning")


def _environ(workshop: Workshop) -> dict[str, str]:
    environ = workshop.environ()
    return {**environ, "PATH": f"{Path(sys.prefix) / 'bin'}:{environ['PATH']}"}


def _seconds(jobs: dict[str, Job], expected: set[str]) -> float:
    """How long the jobs took together. Raises where others ran, or one failed."""
    went = {name: job.result for name, job in jobs.items()}
    if went != dict.fromkeys(expected, "success"):
        logs = "\n".join(job.log for job in jobs.values() if job.result != "success")
        raise NotMeasured(f"jobs went otherwise: {went}", why=logs[-2000:])
    return sum(job.seconds for job in jobs.values())
