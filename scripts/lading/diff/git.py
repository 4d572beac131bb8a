"""What git says of a project: revisions, files that differ, and files as they were.

Nothing is checked out, and nothing in the repository is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec import Struct

from lading import process
from lading.errors import LadingError

# In words that can be looked at; what a diff tool of the user's would say does not count. A lock
# that git has to fetch first (a partial clone) may ask for no password.
_SETTINGS = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


class Revision(Struct, frozen=True, kw_only=True):
    """A commit: as it was named, and its hash. Without one it is the working tree."""

    name: str
    commit: str = ""

    def __str__(self) -> str:
        if not self.commit or self.commit.startswith(self.name):
            return self.name
        return f"{self.name} ({self.commit[:10]})"


WORKING_TREE = Revision(name="the working tree")


class Repository(Struct, frozen=True, kw_only=True):
    """The repository that a project is in; `root` is the project's folder, anywhere in it."""

    root: Path

    def commit(self, name: str) -> Revision | None:
        """The commit of this name; None if there is none."""
        if name.startswith("-"):
            return None
        said = self._git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        return Revision(name=name, commit=said.output.strip()) if said.code == 0 else None

    def common(self, one: Revision, other: Revision) -> Revision:
        """The newest commit that both come from. Raises `LadingError` where there is none."""
        said = self._git("merge-base", one.commit, other.commit)
        if said.code:
            raise LadingError(
                f"{one} and {other} have no commit in common here",
                why=said.errors.strip(),
                do=self.hint(one.name),
            )
        return Revision(name=f"{one.name}...{other.name}", commit=said.output.strip())

    def hint(self, name: str) -> str:
        """What to do about a commit that is not there."""
        if self._git("rev-parse", "--is-shallow-repository").output.strip() == "true":
            return (
                "this clone is shallow, and has only the newest commits: `git fetch --unshallow`, "
                f"or `git fetch --depth=1 origin {name}` (in CI: a checkout with its whole history)"
            )
        return "`git log --oneline` shows commits, `git branch --all` names"

    def changed(self, old: Revision, new: Revision, below: str) -> list[str]:
        """The files below a folder that differ, as paths from the project's folder."""
        ends = [old.commit, *([new.commit] if new.commit else [])]
        listing = ["diff", "--name-only", "--no-renames", "--no-ext-diff", "--relative", "-z"]
        found = self._lines(*listing, *ends, "--", below)
        if not new.commit:
            found += self._lines("ls-files", "--others", "--exclude-standard", "-z", "--", below)
        return sorted(set(found))

    def files(self, revision: Revision, folders: Iterable[str]) -> list[str]:
        """The files of a commit in these folders, as paths from the project's folder."""
        return self._lines("ls-tree", "-r", "--name-only", "-z", revision.commit, "--", *folders)

    def texts(self, revision: Revision, paths: Iterable[str]) -> Mapping[str, str]:
        """Files as they are in a commit. Raises `LadingError` for one that can't be had."""

        def one(path: str) -> str:
            said = self._git("show", "--no-textconv", f"{revision.commit}:./{path}")
            if said.code:
                raise LadingError(
                    f"{path} can't be had as it was in {revision}", why=said.errors.strip()
                )
            return said.output

        paths = list(paths)
        with ThreadPoolExecutor(8) as workers:
            return dict(zip(paths, workers.map(one, paths), strict=True))

    def _lines(self, *arguments: str) -> list[str]:
        said = self._git(*arguments)
        if said.code:
            raise LadingError(f"git {arguments[0]} failed", why=said.errors.strip())
        return [line for line in said.output.split("\0") if line]

    def _git(self, *arguments: str) -> process.Finished:
        return process.run(["git", *arguments], cwd=self.root, env=_SETTINGS)


def opened(root: Path) -> Repository:
    """The repository that a folder is in. Raises `LadingError` where there is none, or no commit
    in it, `EnvironmentProblem` where there is no git.
    """
    found = Repository(root=root)
    said = found._git("rev-parse", "--is-inside-work-tree")
    if said.code or said.output.strip() != "true":
        raise LadingError(
            "locks are compared as git has them, and this project is in no git repository",
            why=said.errors.strip().removeprefix("fatal: "),
            do="git init, and commit the locks",
        )
    if found.commit("HEAD") is None:
        raise LadingError("there is no commit to compare with yet", do="commit the locks")
    return found
