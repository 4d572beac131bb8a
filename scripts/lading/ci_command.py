"""`doit ci`: write the workflows that let runners make what is stale."""

from __future__ import annotations

from doit.exceptions import InvalidCommand

from lading.asking import Asking
from lading.errors import LadingError
from lading.state import State

HOSTS = ("github", "gitlab")

NO_REGISTRY = """\
project.yaml names no registry, so each run makes all images again, as far as its caches do not
help. With `registry: registry.example.org/group` what one run has made no other one makes again.
"""


class Ci(Asking):
    """`doit ci [github] [gitlab]`."""

    doc_purpose = "write the workflows for GitHub Actions and GitLab"
    doc_usage = "[github] [gitlab]"
    doc_description = (
        "From project.yaml: a first job that finds what is stale, then a job an image, and one\n"
        "for each source that is compiled. The same project gives the same files. One that was\n"
        "changed by hand is not overwritten. What runners are like says `ci:` in project.yaml."
    )
    cmd_options = (
        {
            "name": "force",
            "long": "force",
            "type": bool,
            "default": False,
            "help": "overwrite what was changed by hand, or was not written by lading",
        },
        {
            "name": "check",
            "long": "check",
            "type": bool,
            "default": False,
            "help": "write nothing; exit code 1 where a file would be another one",
        },
        {
            "name": "login",
            "long": "login",
            "type": bool,
            "default": False,
            "help": "what the workflows log in with: writes docker's configuration of this run,"
            " with REGISTRY_USERNAME and REGISTRY_PASSWORD in it, and says the folder",
        },
    )

    def _execute(self, force: bool, check: bool, login: bool, pos_args: list[str]) -> int:
        if login:
            return self._login()
        if unknown := [name for name in pos_args if name not in HOSTS]:
            raise InvalidCommand(f"'{unknown[0]}' is neither {' nor '.join(HOSTS)}")
        state = self.opened()
        wanted = written(state, pos_args or HOSTS)
        changed = {name: text for name, text in wanted.items() if _there(state, name) != text}
        if not check:
            _write(state, changed, force)
        for name in wanted:
            said = "is as it would be" if name not in changed else "is another"
            self.outstream.write(f"{name} {said if check else _done(name in changed)}\n")
        if not check and not state.project.registry:
            self.outstream.write(NO_REGISTRY)
        return 1 if check and changed else 0

    def _login(self) -> int:
        from lading.ci import login, runner

        state = self.opened()
        host = runner.host(state.project.registry)
        self.outstream.write(f"{login.configured(host, state.environ)}\n")
        return 0


def written(state: State, hosts: tuple[str, ...] | list[str]) -> dict[str, str]:
    """The files' texts by their paths in the project."""
    from lading.ci import github, gitlab, layout, runner
    from lading.ci.written import headed

    project = state.project
    _refuse_subfolder(state)
    how = runner.of(project)
    found = {}
    if "github" in hosts:
        found[github.PATH] = headed(github.workflow(project, layout.of(project), how))
    if "gitlab" in hosts:
        found[gitlab.PATH] = headed(gitlab.pipeline(project, how))
    return found


def _refuse_subfolder(state: State) -> None:
    """Both read workflows at the top of a repository alone, and run them there."""
    root = state.project.root
    if (root / ".git").exists():
        return
    above = next((folder for folder in root.parents if (folder / ".git").exists()), None)
    if above is not None:
        raise LadingError(
            f"the project is not at the top of its repository, which is {above}",
            why="GitHub and GitLab read workflows there alone, and these would run there",
            do="make the project a repository of its own",
        )


def _write(state: State, changed: dict[str, str], force: bool) -> None:
    from lading.ci.written import refuse_edited
    from lading.files import write_text

    for name in changed:
        there = _there(state, name)
        if there is not None and not force:
            refuse_edited(name, there)
    for name, text in changed.items():
        write_text(state.project.root / name, text)


def _there(state: State, name: str) -> str | None:
    try:
        return (state.project.root / name).read_text()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LadingError(f"{name} can't be read", why=str(error)) from error


def _done(changed: bool) -> str:
    return "is written" if changed else "was so already"
