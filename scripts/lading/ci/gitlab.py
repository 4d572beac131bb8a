"""The pipelines for GitLab, as text: one that finds what is stale, and its child, which makes it.

The first is a file of the project's. The child is made in each run, and has jobs for what is stale
alone; so it knows the keys, and nothing in it is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import indent

from lading.ci.layout import Layout
from lading.ci.runner import Runner, plain
from lading.ci.stale import Found
from lading.project import Project

PATH = ".gitlab/lading.yml"
CHILD = "dist/gitlab.yml"
STORE = ".cache/lading"


def pipeline(project: Project, runner: Runner) -> str:
    """What .gitlab-ci.yml includes, without the header."""
    since = "${CI_MERGE_REQUEST_DIFF_BASE_SHA:-${CI_COMMIT_BEFORE_SHA:-none}}"
    rules = """\
  rules:
    - if: $CI_PIPELINE_SOURCE == "merge_request_event"
    - if: $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH
"""
    script = [
        "mkdir -p dist",
        f"{runner.looking} stale --format gitlab > {CHILD}",
        f'{runner.looking} summary --since "{since}" > dist/changes.md',
    ]
    return f"""\
# In .gitlab-ci.yml: include: [{{local: {PATH}}}]

# What neither the registry nor anyone has, by keys; no engine is asked. What it writes has a job
# for each of these.
lading-stale:
{indent(_runners(project), "  ")}\
{rules}\
  variables:
    CI: "true"
    GIT_DEPTH: "0"
  script:
{_commands([*runner.look, *_login(runner), *script])}\
  artifacts:
    expose_as: what has changed in the locks
    paths: [dist/changes.md, {CHILD}]
    expire_in: 1 week

lading-images:
  needs: [lading-stale]
{rules}\
  trigger:
    include:
      - artifact: {CHILD}
        job: lading-stale
    strategy: depend
"""


def child(project: Project, plan: Layout, runner: Runner, found: Found, push: bool) -> str:
    """The pipeline of what is stale; `push`: what is made is sent to the registry."""
    stale = [item.name for item in found.images if item.stale]
    jobs = []
    of = {pair.id: f"source:{pair.source}@{pair.base}" for pair in plan.pairs}
    compiled = {id for id, item in found.sources.items() if item.stale}
    for pair in plan.pairs:
        if pair.id in compiled:
            tasks = [f"build:{pair.task}", *([f"push:{pair.task}"] if push else [])]
            product = f"{STORE}/derived/{found.sources[pair.id].key}/product.tar"
            needs = [of[one] for one in pair.needs if one in compiled]
            jobs.append(
                _job(of[pair.id], "sources", needs, runner, tasks)
                + f"  artifacts: {{paths: [{product}], expire_in: 1 day}}\n"
            )
    for group in plan.groups:
        needs = [of[one] for one in group.pairs if one in compiled]
        for name in group.images:
            if name not in stale:
                continue
            # What lacks only its tag is not downloaded for it: `push` makes what there is not.
            tasks = [f"push:{name}" if push else f"archive:{name}"]
            kept = f"  artifacts: {{when: always, paths: [dist/{name}.md], expire_in: 1 week}}\n"
            job = _job(f"image:{name}", "images", needs, runner, tasks)
            jobs.append(job + _said(runner, name) + kept)
    return _head(project) + "\n".join([*jobs, _summary([*stale])])


def pushes(environ: Mapping[str, str]) -> bool:
    """Whether this run is of the default branch, whose images are sent to the registry."""
    branch = environ.get("CI_COMMIT_BRANCH", "")
    return branch != "" and branch == environ.get("CI_DEFAULT_BRANCH", "")


def _head(project: Project) -> str:
    return f"""\
# Written by `doit stale --format gitlab`.
stages: [sources, images, summary]

# Also for merge requests.
workflow:
  rules:
    - if: $CI_PIPELINE_SOURCE == "parent_pipeline"

default:
{indent(_runners(project), "  ")}\

variables:
  CI: "true"
  LADING_CACHE: $CI_PROJECT_DIR/{STORE}

"""


def _said(runner: Runner, name: str) -> str:
    """What is said of an image, made or not; GitLab runs it in a shell of its own."""
    script = [*_login(runner), "mkdir -p dist", f"{runner.looking} summary {name} > dist/{name}.md"]
    return f"  after_script:\n{_commands(script)}"


def _summary(images: Sequence[str]) -> str:
    """The last stage is given what all before have left, and waits for all of them; of what was
    not even begun nothing is left.
    """
    command = f"""\
for image in {" ".join(images)}; do
  if [ -s "dist/$image.md" ]; then
    cat "dist/$image.md"
  else
    printf '`%s` was not made: its job did not get so far.\\n\\n' "$image"
  fi
done | tee summary.md"""
    script = [command if images else "echo Nothing was to be made. | tee summary.md"]
    return f"""\
summary:
  stage: summary
  when: always
  script:
{_commands(script)}\
  artifacts: {{paths: [summary.md], expire_in: 1 week}}
"""


def _job(name: str, stage: str, needs: Sequence[str], runner: Runner, tasks: Sequence[str]) -> str:
    """A job that builds, without its artifacts."""
    waits = "".join(f"\n    - job: {plain(one)}" for one in needs) if needs else " []"
    doit = [f"{runner.doit} {task}" for task in tasks]
    # Where there is no registry, what was made before is kept as long as GitLab keeps it.
    kept = STORE if runner.host else f"{STORE}, dist"
    return f"""\
{plain(name)}:
  stage: {stage}
  needs:{waits}
  cache: {{key: {plain(f"lading-{name}")}, paths: [{kept}]}}
  script:
{_commands([*runner.build, *_login(runner), *doit])}"""


def _runners(project: Project) -> str:
    tags = f"tags: [{', '.join(map(plain, project.ci.tags))}]\n" if project.ci.tags else ""
    return f"image: {plain(project.ci.image)}\n{tags}"


def _commands(commands: Sequence[str]) -> str:
    found = []
    for command in commands:
        first, *rest = command.splitlines()
        if rest:
            found.append(indent(f"- |\n{indent(command, '  ')}\n", "    "))
        else:
            found.append(f"    - {_command(first)}\n")
    return "".join(found)


def _command(command: str) -> str:
    """A command as YAML takes it for a text."""
    if " " not in command:
        return plain(command)
    simple = command[0].isalnum() or command[0] in "./"
    if simple and ": " not in command and " #" not in command and not command.endswith(":"):
        return command
    return "'" + command.replace("'", "''") + "'"


def _login(runner: Runner) -> list[str]:
    """GitLab's own registry takes what the job is given; another one what the project's variables
    say.
    """
    if not runner.host:
        return []
    return [f"DOCKER_CONFIG=$({runner.looking} ci --login)", "export DOCKER_CONFIG"]
