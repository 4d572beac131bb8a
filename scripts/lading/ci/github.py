"""The workflow for GitHub Actions, as text.

A first job finds what is stale. Each source on a base is a job; the images that need the same
sources are one job with a matrix, whose entries the first job gives. So nothing waits for what it
does not need, and the file says nothing of locks: it changes only with what needs what.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import indent

from lading.ci.layout import FIRST, Group, Layout, Pair
from lading.ci.runner import Runner, plain
from lading.project import Project

PATH = ".github/workflows/lading.yml"
DEFAULT = "github.ref_name == github.event.repository.default_branch"
PUSHED = f"github.event_name != 'pull_request' && {DEFAULT}"
"""Of a pull request nothing is pushed, whoever made it; nor of another branch."""
STORE = "${{ env.LADING_CACHE }}"
"""Where the runner's own environment has the store: a step asks it."""
TOKEN_HOST = "ghcr.io"
"""The registry that takes the token of the run itself."""


def workflow(project: Project, plan: Layout, runner: Runner) -> str:
    """The workflow, without the header."""
    jobs = [_first(project, plan, runner)]
    jobs += [_whole(project, plan, runner)] if plan.groups else []
    jobs += [_source(project, pair, runner) for pair in plan.pairs]
    jobs += [_images(project, group, runner) for group in plan.groups]
    return _HEAD + "\n".join(indent(job, "  ") for job in jobs)


_HEAD = """\
name: lading

on:
  push:
    branches: ['**']
  pull_request:
  workflow_dispatch:

permissions:
  contents: read

# What was pushed to a branch is built to its end; of a pull request only the newest counts.
concurrency:
  group: lading-${{ github.event.pull_request.number || github.ref }}
  cancel-in-progress: ${{ github.event_name == 'pull_request' }}

# Locks are frozen, and what is said is plain.
env:
  CI: "true"

jobs:
"""


def _first(project: Project, plan: Layout, runner: Runner) -> str:
    names = [*(pair.id for pair in plan.pairs), *(group.id for group in plan.groups)]
    found = "".join(f"    {name}: ${{{{ steps.find.outputs.{name} }}}}\n" for name in names)
    outputs = f"  outputs:\n{found}" if names else ""
    head = f"""\
# What neither the registry nor anyone has, by keys; no engine is asked. Of a source its key, of
# images a matrix. A branch that is not the default one runs as a pull request, or by hand.
{FIRST}:
  name: what is stale
  if: ${{{{ github.event_name != 'push' || {DEFAULT} }}}}
  runs-on: {plain(project.ci.runs_on)}
  timeout-minutes: 15
{_permissions(runner, "read")}\
{outputs}\
  steps:
"""
    tags = f" ${{{{ {PUSHED} && '--push' || '--no-push' }}}}" if runner.host else ""
    steps = [
        _checkout("0  # what has changed in the locks is said"),
        _python(runner),
        _run("set up", runner.look),
        *_login(runner),
        f"""\
- name: find
  id: find
  run: {runner.looking} stale --format github{tags} >> "$GITHUB_OUTPUT"
""",
        f"""\
- name: say what has changed in the locks
  env:
    BEFORE: ${{{{ github.event.pull_request.base.sha || github.event.before }}}}
  run: {runner.looking} summary --since "${{BEFORE:-none}}" >> "$GITHUB_STEP_SUMMARY"
""",
    ]
    return head + _steps(steps)


def _whole(project: Project, plan: Layout, runner: Runner) -> str:
    lost = " || ".join(f"needs.{FIRST}.outputs.{group.id} == ''" for group in plan.groups)
    said = (
        "::error title=what is to be made is not known::A value of a secret stands in it, so GitHub"
        " does not hand it on. Is it the user's name? Make REGISTRY_USERNAME a variable instead of"
        " a secret."
    )
    return f"""\
# GitHub drops an output in which the value of a secret stands, and says so in a warning: the jobs
# behind would be skipped, and all would look well. Of images there is always one, [] if none.
whole:
  name: what is stale is known
{_needs([])}\
  if: ${{{{ !cancelled() && needs.{FIRST}.result == 'success' && ({lost}) }}}}
  runs-on: {plain(project.ci.runs_on)}
  steps:
    - run: |
        echo "{said}"
        exit 1
"""


def _source(project: Project, pair: Pair, runner: Runner) -> str:
    key = f"needs.{FIRST}.outputs.{pair.id}"
    head = f"""\
# Compiled once, and handed to the images that need it.
{pair.id}:
  name: {pair.source} on {pair.base}
{_needs(pair.needs)}\
  if: ${{{{ !cancelled() && {key} != ''{_went_well(pair.needs)} }}}}
  runs-on: {plain(project.ci.runs_on)}
{_permissions(runner, "write")}\
  steps:
"""
    steps = [
        *_begin(runner, pair.id),
        *(_handed(one) for one in pair.needs),
        _run("compile", [f"{runner.doit} build:{pair.task}"]),
        *_push(runner, [f"{runner.doit} push:{pair.task}"]),
        f"""\
- name: hand on
  uses: actions/upload-artifact@v6
  with:
    name: {pair.id}
    path: {STORE}/derived/${{{{ {key} }}}}/product.tar
    if-no-files-found: error
    compression-level: 1
    retention-days: 1
""",
    ]
    return head + _steps(steps)


def _images(project: Project, group: Group, runner: Runner) -> str:
    entries = f"needs.{FIRST}.outputs.{group.id}"
    some = f"{entries} != '' && {entries} != '[]'"
    head = f"""\
{group.id}:
  name: ${{{{ matrix.name }}}}
{_needs(group.pairs)}\
  if: ${{{{ !cancelled() && {some}{_went_well(group.pairs)} }}}}
  runs-on: {plain(project.ci.runs_on)}
{_permissions(runner, "write")}\
  strategy:
    fail-fast: false
    matrix:
      include: ${{{{ fromJSON({entries}) }}}}
  env:
    IMAGES: ${{{{ matrix.images }}}}
  steps:
"""
    steps = [
        *_begin(runner, "${{ matrix.name }}"),
        *_kept(runner),
        *(_handed(one) for one in group.pairs),
        *_make(runner),
        f"""\
- name: say what was made
  if: ${{{{ !cancelled() }}}}
  run: {runner.doit} summary $IMAGES >> "$GITHUB_STEP_SUMMARY"
""",
    ]
    return head + _steps(steps)


# -- a job's head -----------------------------------------------------------------------------


def _needs(pairs: Iterable[str]) -> str:
    return f"  needs: [{', '.join([FIRST, *pairs])}]\n"


def _went_well(pairs: Iterable[str]) -> str:
    """A job that had nothing to do is skipped, and does not stand in the way."""
    return "".join(
        f" && (needs.{pair}.result == 'success' || needs.{pair}.result == 'skipped')"
        for pair in pairs
    )


def _permissions(runner: Runner, packages: str) -> str:
    if runner.host != TOKEN_HOST:
        return ""
    return f"  permissions:\n    contents: read\n    packages: {packages}\n"


# -- steps ------------------------------------------------------------------------------------


def _steps(steps: Sequence[str]) -> str:
    return indent("".join(steps), "    ")


def _run(name: str, commands: Sequence[str], more: str = "") -> str:
    head = f"- name: {name}\n{indent(more, '  ')}"
    return head + "  run: |\n" + "".join(f"    {command}\n" for command in commands)


def _checkout(depth: str) -> str:
    return f"""\
- uses: actions/checkout@v6
  with:
    fetch-depth: {depth}
    persist-credentials: false
"""


def _python(runner: Runner) -> str:
    cached = "    cache: pip\n    cache-dependency-path: scripts/requirements.txt\n"
    return '- uses: actions/setup-python@v6\n  with:\n    python-version: "3.13"\n' + (
        cached if runner.doit.startswith("./") else ""
    )


def _begin(runner: Runner, name: str) -> list[str]:
    """What comes first in a job that builds."""
    place = [
        "cache=${XDG_CACHE_HOME:-$HOME/.cache}",
        'echo "LADING_CACHE=${LADING_CACHE:-$cache/lading}" >> "$GITHUB_ENV"',
    ]
    store = f"""\
- uses: actions/cache@v5
  with:
    path: {STORE}
    key: lading/{name}/${{{{ hashFiles('project.yaml', 'recipes/**', 'locks/**') }}}}
    restore-keys: lading/{name}/
"""
    bases = [
        "sudo apt-get update -q",
        "sudo apt-get install -qy --no-install-recommends mmdebstrap uidmap",
        "# Ubuntu's runners allow programs no user namespaces, which mmdebstrap works in.",
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ]
    hosted = "if: ${{ runner.environment == 'github-hosted' }}\n"
    return [
        _checkout("1"),
        _python(runner),
        _run("where the store is", place),
        store,
        *([_run("bring what makes Debian bases", bases, hosted)] if runner.debian else []),
        _run("set up", runner.build),
        *_login(runner),
    ]


def _login(runner: Runner) -> list[str]:
    """Pull requests from forks are given no secrets, and read what everybody can read. Who logs in
    is no secret, and as one would be taken out of what a job hands on.
    """
    if not runner.host:
        return []
    user, password = (
        "vars.REGISTRY_USERNAME || secrets.REGISTRY_USERNAME",
        "secrets.REGISTRY_PASSWORD",
    )
    if runner.host == TOKEN_HOST:
        user, password = "github.actor", "secrets.GITHUB_TOKEN"
    return [
        f"""\
- name: log in
  env:
    REGISTRY_USERNAME: ${{{{ {user} }}}}
    REGISTRY_PASSWORD: ${{{{ {password} }}}}
  run: |
    config=$({runner.looking} ci --login)
    echo "DOCKER_CONFIG=$config" >> "$GITHUB_ENV"
"""
    ]


def _make(runner: Runner) -> list[str]:
    """What lacks only its tag is not downloaded for it: `push` makes what there is not."""
    archive = [f"{runner.doit} --continue $(printf 'archive:%s ' $IMAGES)"]
    if not runner.host:
        return [_run("make", archive)]
    return [
        _run("make", archive, f"if: ${{{{ !({PUSHED}) }}}}\n"),
        *_push(runner, [f"{runner.doit} --continue $(printf 'push:%s ' $IMAGES)"], "make and push"),
    ]


def _push(runner: Runner, commands: Sequence[str], name: str = "push") -> list[str]:
    if not runner.host:
        return []
    return [_run(name, commands, f"if: ${{{{ {PUSHED} }}}}\n")]


def _kept(runner: Runner) -> list[str]:
    """Where there is no registry, what was made before is kept as long as GitHub keeps it."""
    if runner.host:
        return []
    return [
        """\
- uses: actions/cache@v5
  with:
    path: dist
    key: lading-dist/${{ matrix.name }}/${{ matrix.key }}
"""
    ]


def _handed(pair: str) -> str:
    key = f"needs.{FIRST}.outputs.{pair}"
    return f"""\
- uses: actions/download-artifact@v7
  if: ${{{{ {key} != '' }}}}
  with:
    name: {pair}
    path: {STORE}/derived/${{{{ {key} }}}}
"""
