"""Runners of GitHub's and GitLab's, as far as the files of `doit ci` need them, on this machine.

Each job has a clone and a home of its own, and nothing else. Its commands are run by bash as
runners do; checking out, caches, handing artifacts on and what Actions else are used are played.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(kw_only=True)
class Job:
    """A job as it went: success, failure or skipped; what it printed, and how long it took.

    seconds: of its steps, without those called "set up".
    """

    name: str
    result: str = "skipped"
    outputs: dict[str, str] = field(default_factory=dict)
    log: str = ""
    summary: str = ""
    seconds: float = 0.0


@dataclass
class Runners:
    """Where jobs run: clones of `origin` below `folder`, in `environ`; `before` each of them.

    caches: what was kept of earlier jobs, by keys, in the order it was kept; None keeps nothing.
    """

    origin: Path
    folder: Path
    environ: Mapping[str, str]
    before: Callable[[str], Mapping[str, str]] = lambda job: {}
    secrets: Mapping[str, str] = field(default_factory=dict)
    artifacts: dict[str, Path] = field(default_factory=dict)
    caches: dict[str, Path] | None = field(default_factory=dict)
    count: int = 0
    patience: float = 300
    say: Callable[[str], object] = print

    def place(self, name: str) -> tuple[Path, dict[str, str]]:
        """An empty workspace with a home beside it, and the environment of a job in it."""
        self.count += 1
        top = self.folder / f"{self.count}"
        for folder in ("home", "temp", "work"):
            (top / folder).mkdir(parents=True)
        environ = {**self.environ, "HOME": str(top / "home"), **self.before(name)}
        return top / "work", environ

    def clone(self, target: Path) -> None:
        command = ["git", "clone", "--quiet", str(self.origin), str(target)]
        subprocess.run(command, check=True, capture_output=True)

    def bash(self, script: str, at: Path, environ: Mapping[str, str], job: Job) -> int:
        """Runs a script as both runners do: it ends where a command fails."""
        start = time.monotonic()
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=at,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=self.patience,
        )
        job.seconds += time.monotonic() - start
        job.log += f"$ {script.rstrip()}\n{done.stdout}"
        self.say(f"[{job.name}] $ {script.rstrip()}  [{done.returncode}]\n{done.stdout}")
        return done.returncode

    def built(self) -> list[str]:
        """What was compiled and built since this was asked last, by the logs of the builds."""
        logs = sorted(self.folder.glob("*/work/build/**/build.log"))
        found = []
        for log in logs:
            # build/IMAGE, and build/parts/SOURCE-BASE-KEY
            name = log.parent.name
            found.append(name.rpartition("-")[0] if log.parent.parent.name == "parts" else name)
            log.unlink()
        return sorted(found)

    def restore(self, keys: Sequence[str], to: Path) -> str:
        """Brings what a cache has under the first of these keys, else under the newest that begins
        with one of the others; the key that it had, empty for none.
        """
        if self.caches is None:
            return ""
        newest = [*reversed(self.caches)]
        found = [key for key in newest if key == keys[0]]
        for start in keys[1:]:
            found += [key for key in newest if key.startswith(start)]
        if not found:
            return ""
        shutil.copytree(self.caches[found[0]], to, dirs_exist_ok=True)
        return found[0]

    def keep(self, key: str, path: Path) -> None:
        """Keeps a folder, if it is there, for jobs to come."""
        if self.caches is None or not path.is_dir():
            return
        kept = self.folder / "caches" / hashlib.sha256(key.encode()).hexdigest()[:16]
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(path, kept)
        self.caches.pop(key, None)
        self.caches[key] = kept


# -- GitHub -----------------------------------------------------------------------------------


def github(
    runners: Runners, workflow: Path, event: str = "push", since: str = ""
) -> dict[str, Job]:
    """Runs a workflow; its jobs by name, those of a matrix as GitHub calls them."""
    text = yaml.load(workflow.read_text(), Loader=yaml.BaseLoader)
    context: dict[str, Any] = {
        "github": {
            "event_name": event,
            "ref": "refs/heads/main",
            "ref_name": "main",
            "event": {
                "before": since,
                "pull_request": {"base": {"sha": since}},
                "repository": {"default_branch": "main"},
            },
            "actor": "somebody",
        },
        "runner": {"environment": "self-hosted"},
        "secrets": runners.secrets,
        "vars": {},
        "needs": {},
    }
    if event != "pull_request":
        del context["github"]["event"]["pull_request"]
    runners.artifacts.clear()
    done: dict[str, Job] = {}
    results: dict[str, dict[str, Any]] = {}
    for id, job in text["jobs"].items():
        needs = job.get("needs", [])
        assert all(name in results for name in needs), "jobs stand behind what they need"
        here = {**context, "needs": {name: results[name] for name in needs}}
        ran = list(_github_job(runners, id, job, here, text.get("env", {})))
        for one in ran:
            done[one.name] = one
        every = {one.result for one in ran} or {"skipped"}
        result = "failure" if "failure" in every else every.pop()
        results[id] = {"result": result, "outputs": ran[0].outputs if ran else {}}
    return done


def _github_job(
    runners: Runners, id: str, job: Mapping[str, Any], context: dict[str, Any], env: dict[str, str]
) -> Iterator[Job]:
    failed = any(need["result"] != "success" for need in context["needs"].values())
    if not truth(value(job["if"], context) if "if" in job else not failed):
        return
    entries: Sequence[Any] = [{}]
    if "strategy" in job:
        entries = value(job["strategy"]["matrix"]["include"], context)
        assert entries, "GitHub refuses a matrix without entries"
        assert len(entries) <= 256
    for entry in entries:
        here = {**context, "matrix": entry}
        name = filled(job["name"], here) if entry else id
        yield _github_steps(runners, Job(name=name), job, here, env)


def _github_steps(
    runners: Runners,
    ran: Job,
    job: Mapping[str, Any],
    context: dict[str, Any],
    env: Mapping[str, str],
) -> Job:
    work, environ = runners.place(ran.name)
    names = ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ENV")
    files = {name: work.parent / name.lower() for name in names}
    environ |= {name: str(path) for name, path in files.items()}
    environ |= {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(work)}
    environ |= {"RUNNER_TEMP": str(work.parent / "temp")}
    context["env"] = {
        name: filled(text, context) for name, text in {**env, **job.get("env", {})}.items()
    }
    context |= {"steps": {}, "workspace": work}
    to_keep: dict[str, Path] = {}
    ran.result = "success"
    for step in job["steps"]:
        asked = step.get("if", "success()")
        context["failed"] = ran.result == "failure"
        if not truth(value(asked, context)) or (context["failed"] and "cancelled" not in asked):
            continue
        if "uses" in step:
            to_keep |= _played(runners, step, context, work)
            continue
        given = {name: filled(text, context) for name, text in step.get("env", {}).items()}
        files["GITHUB_OUTPUT"].write_text("")
        files["GITHUB_ENV"].write_text("")
        before = ran.seconds
        script = filled(step["run"], context)
        code = runners.bash(script, work, {**environ, **context["env"], **given}, ran)
        context["env"] |= _said(files["GITHUB_ENV"])
        if step.get("name") == "set up":
            ran.seconds = before
        if "id" in step:
            context["steps"][step["id"]] = {"outputs": _said(files["GITHUB_OUTPUT"])}
        if code:
            ran.result = "failure"
    summary = files["GITHUB_STEP_SUMMARY"]
    ran.summary = summary.read_text() if summary.exists() else ""
    for key, path in to_keep.items():
        if ran.result == "success":
            runners.keep(key, path)
    outputs = {name: filled(text, context) for name, text in job.get("outputs", {}).items()}
    # actions/runner's JobExtension.cs: "Skip output … since it may contain secret."
    secrets = [text for text in runners.secrets.values() if text]
    ran.outputs = {
        name: text
        for name, text in outputs.items()
        if not any(secret in text for secret in secrets)
    }
    return ran


def _said(file: Path) -> dict[str, str]:
    """What a step wrote for those behind it: NAME=TEXT."""
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


def _played(
    runners: Runners, step: Mapping[str, Any], context: dict[str, Any], work: Path
) -> dict[str, Path]:
    """What the Actions do that the workflow uses; what is to be kept when the job went well."""
    name = step["uses"].partition("@")[0]
    given = {key: filled(text, context) for key, text in step.get("with", {}).items()}
    path = work / given.get("path", "")
    if name == "actions/checkout":
        runners.clone(work)
    elif name == "actions/upload-artifact":
        assert path.is_file(), f"{path} is not there"
        kept = runners.folder / "artifacts" / given["name"]
        kept.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, kept / path.name)
        runners.artifacts[given["name"]] = kept
    elif name == "actions/download-artifact":
        kept = runners.artifacts[given["name"]]
        shutil.copytree(kept, path, copy_function=shutil.copyfile, dirs_exist_ok=True)
    elif name == "actions/cache":
        keys = [given["key"], *given.get("restore-keys", "").split()]
        # What has its very key is not kept once more.
        if runners.restore(keys, path) != given["key"]:
            return {given["key"]: path}
    else:
        assert name == "actions/setup-python", name
    return {}


def filled(text: str, context: Mapping[str, Any]) -> str:
    """A text with what its ${{ expressions }} are."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda found: _text(value(found[1], context)), text)


def _text(found: Any) -> str:
    if found is None:
        return ""
    return str(found).lower() if isinstance(found, bool) else str(found)


def truth(found: Any) -> bool:
    return found not in (None, False, "", 0)


_TOKEN = re.compile(r"\s*(?:('(?:[^']|'')*')|(&&|\|\||==|!=|[!(),])|([A-Za-z_][\w.-]*))")


def value(text: str, context: Mapping[str, Any]) -> Any:
    """What an expression is (GitHub's documentation, 'Evaluate expressions'), as far as needed."""
    text = text.strip().removeprefix("${{").removesuffix("}}").strip()
    tokens: list[str] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found is not None, f"not understood: {text[at:]}"
        tokens.append(found[0].strip())
        at = found.end()
    got = _either(tokens, context)
    assert not tokens, f"not understood: {tokens}"
    return got


def _either(tokens: list[str], context: Mapping[str, Any]) -> Any:
    left = _both(tokens, context)
    while tokens[:1] == ["||"]:
        tokens.pop(0)
        right = _both(tokens, context)
        left = left if truth(left) else right
    return left


def _both(tokens: list[str], context: Mapping[str, Any]) -> Any:
    left = _same(tokens, context)
    while tokens[:1] == ["&&"]:
        tokens.pop(0)
        right = _same(tokens, context)
        left = right if truth(left) else left
    return left


def _same(tokens: list[str], context: Mapping[str, Any]) -> Any:
    left = _one(tokens, context)
    while tokens[:1] and tokens[0] in ("==", "!="):
        equal = tokens.pop(0) == "=="
        left = (_text(left) == _text(_one(tokens, context))) is equal
    return left


def _one(tokens: list[str], context: Mapping[str, Any]) -> Any:
    token = tokens.pop(0)
    if token == "!":
        return not truth(_one(tokens, context))
    if token == "(":
        found = _either(tokens, context)
        assert tokens.pop(0) == ")"
        return found
    if token.startswith("'"):
        return token[1:-1].replace("''", "'")
    if tokens[:1] == ["("]:
        tokens.pop(0)
        given = []
        while tokens[0] != ")":
            given.append(_either(tokens, context))
            if tokens[0] == ",":
                tokens.pop(0)
        tokens.pop(0)
        return _called(token, given, context)
    found = context
    for part in token.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _called(name: str, given: Sequence[Any], context: Mapping[str, Any]) -> Any:
    if name == "fromJSON":
        return json.loads(given[0])
    known = {
        "cancelled": False,
        "success": not context.get("failed"),
    }
    if name == "hashFiles":
        return _hash_of(context["workspace"], given)
    return known[name]


def _hash_of(work: Path, patterns: Sequence[str]) -> str:
    """One sha256 of all files that a pattern is met by."""
    found = {path for pattern in patterns for path in work.glob(pattern.replace("**", "**/*"))}
    said = hashlib.sha256()
    for path in sorted(path for path in found if path.is_file()):
        said.update(hashlib.sha256(path.read_bytes()).digest())
    return said.hexdigest()


# -- GitLab -----------------------------------------------------------------------------------


def gitlab(
    runners: Runners, pipeline: Path, variables: Mapping[str, str]
) -> tuple[dict[str, Job], Path]:
    """Runs a pipeline, and the one that it starts; its jobs by name, and the child's text."""
    runners.artifacts.clear()
    text = yaml.load(pipeline.read_text(), Loader=yaml.BaseLoader)
    done: dict[str, Job] = {}
    child = Path()
    for name, job in text.items():
        if not any(_rule(rule["if"], variables) for rule in job["rules"]):
            continue
        if any(done[need].result != "success" for need in job.get("needs", [])):
            continue
        if "trigger" in job:
            (include,) = job["trigger"]["include"]
            child = runners.artifacts[include["job"]] / include["artifact"]
            done |= gitlab_child(runners, child, variables)
        else:
            done[name] = _gitlab_job(runners, name, job, variables, [])
    return done, child


def gitlab_child(runners: Runners, path: Path, variables: Mapping[str, str]) -> dict[str, Job]:
    """Runs the pipeline that another one starts; its jobs by name."""
    text = yaml.load(path.read_text(), Loader=yaml.BaseLoader)
    said = {**variables, "CI_PIPELINE_SOURCE": "parent_pipeline"}
    assert any(_rule(rule["if"], said) for rule in text["workflow"]["rules"])
    jobs = {name: job for name, job in text.items() if isinstance(job, dict) and "script" in job}
    assert jobs, "GitLab refuses a pipeline without jobs"
    done: dict[str, Job] = {}
    before: list[str] = []
    for stage in text["stages"]:
        for name, job in jobs.items():
            if job["stage"] != stage:
                continue
            needs = [need["job"] for need in job["needs"]] if "needs" in job else None
            waits = before if needs is None else needs
            if job.get("when") != "always" and any(done[one].result != "success" for one in waits):
                done[name] = Job(name=name)
                continue
            given = {**said, **text.get("variables", {}), **_plain(job.get("variables", {}))}
            done[name] = _gitlab_job(runners, name, job, given, waits)
        before += [name for name, job in jobs.items() if job["stage"] == stage]
    return done


def _plain(variables: Any) -> dict[str, str]:
    return dict(variables)


def _gitlab_job(
    runners: Runners,
    name: str,
    job: Mapping[str, Any],
    variables: Mapping[str, str],
    given: Sequence[str],
) -> Job:
    ran = Job(name=name)
    work, environ = runners.place(name)
    every = {**variables, **job.get("variables", {})}
    runners.clone(work)
    for one in given:
        if one in runners.artifacts:
            shutil.copytree(
                runners.artifacts[one], work, dirs_exist_ok=True, copy_function=shutil.copyfile
            )
    cache = job.get("cache", {})
    for path in cache.get("paths", ()):
        runners.restore([f"{cache['key']}:{path}"], work / path)
    own = {"CI_PROJECT_DIR": str(work), "GITLAB_CI": "true", **every}
    environ |= {key: re.sub(r"\$(\w+)", lambda m: own.get(m[1], ""), v) for key, v in own.items()}
    code = runners.bash("\n".join(job["script"]), work, environ, ran)
    if "after_script" in job:
        runners.bash("\n".join(job["after_script"]), work, environ, ran)
    ran.result = "failure" if code else "success"
    for path in cache.get("paths", ()) if not code else ():
        runners.keep(f"{cache['key']}:{path}", work / path)
    artifacts = job.get("artifacts", {})
    if not code or artifacts.get("when") == "always":
        for path in artifacts.get("paths", ()):
            if not (work / path).exists():
                ran.log += f"WARNING: {path}: no matching files\n"
                continue
            kept = runners.folder / "artifacts" / f"{runners.count}" / path
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(work / path, kept)
            runners.artifacts[name] = runners.folder / "artifacts" / f"{runners.count}"
            if path.endswith(".md"):
                ran.summary = kept.read_text()
    return ran


def _rule(text: str, variables: Mapping[str, str]) -> bool:
    """Whether a rule of this form is met: $NAME == "text" or $NAME == $OTHER."""
    left, right = text.split(" == ")
    known = [
        variables.get(side[1:], "") if side.startswith("$") else side.strip('"')
        for side in (left, right)
    ]
    return known[0] == known[1]


def git(root: Path, *arguments: str) -> str:
    """What git says; who commits is nobody."""
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    command = ["git", "-C", str(root), *who, *arguments]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=_alone())
    return said.stdout.strip()


def _alone() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}


def commit(root: Path, message: str) -> str:
    """Commits all there is; the commit."""
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", message)
    return git(root, "rev-parse", "HEAD")
