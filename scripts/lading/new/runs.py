"""What the commands of RUN mean for an image: packages, tarballs that are compiled, small changes.

Each command is one of three: it goes into a section, it is of no use here (cleaning up, lists of
packages), or it is left, with the reason.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from msgspec import Struct, field

from lading.new.draft import Draft, Left
from lading.new.environments import take_environment
from lading.new.requirement_files import INSTALLERS, content, left_out, take, without
from lading.new.shell import Command
from lading.requirements import refused

_PYTHON = re.compile(r"python[0-9.]*")
_PIP = re.compile(r"pip[0-9.]*")
_CONDA = frozenset(["conda", "mamba", "micromamba"])
_TO_BUILD = re.compile(
    r"(?:build-essential|gcc|g\+\+|gfortran|clang|make|cmake|ninja-build|meson|autoconf|automake"
    r"|libtool|pkg-config|pkgconf|bison|flex|patch|swig|nasm|yasm)(?:-[0-9.]+)?|.+-dev|file"
)
_DEBIAN = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.](?:=[A-Za-z0-9:.+~-]+)?")
_TARBALL = re.compile(r"\.(?:tar(?:\.[a-z0-9]+)?|tgz|tbz2|txz)$")
_NAMED = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9_+-]*?)[-_]v?(?P<version>[0-9][A-Za-z0-9.+_-]*)")
_CACHES = ("/var/lib/apt", "/var/cache", "/var/log", "/var/tmp", "/tmp", "/root", "/home", "~")
_OWN_WORK = frozenset(["ln", "mkdir", "chmod", "echo", "printf", "sed", "touch", "cp", "mv", "rm"])
_TOUCHES_NOTHING = frozenset(
    ["cd", "set", "pwd", "ls", "cat", "true", ":", "sync", "hash", "which", "shopt", "ldconfig"]
)
_NETWORK = "it asks the network, which the build does not have"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Options of pip install that have a value, and those that mean nothing here.
_PIP_VALUES = _words(
    "-r --requirement -c --constraint -i --index-url --extra-index-url -f --find-links --no-binary "
    "--only-binary -e --editable -t --target --prefix --root --src --progress-bar --timeout "
    "--default-timeout --retries --trusted-host --cache-dir --upgrade-strategy --log --proxy "
    "--root-user-action --python-version --platform --implementation --abi --global-option "
    "--config-settings -C --use-feature --exists-action --cert"
)
_PIP_NOTHING = _words(
    "--no-cache-dir --no-cache -q --quiet -qq -v --verbose -U --upgrade --no-compile --compile "
    "--user --disable-pip-version-check --root-user-action --progress-bar --timeout --retries "
    "--default-timeout --cache-dir --upgrade-strategy --force-reinstall --ignore-installed -I "
    "--prefer-binary --no-input --no-warn-script-location --break-system-packages --system "
    "--require-hashes --exists-action --log --use-pep517 --no-python-version-warning "
    "--trusted-host --proxy --cert"
)
_CONDA_VALUES = _words("-c --channel -n --name -p --prefix -f --file --solver")


class Tarball(Struct, kw_only=True):
    """A tarball on its way from its URL to `make install`; `seen` are the commands so far."""

    url: str
    file: str
    unpacked: bool = False
    configure: str | None = None
    make: str = ""
    env: dict[str, str] = field(default_factory=dict)
    done: bool = False
    seen: list[Left] = field(default_factory=list)


class Build(Struct, kw_only=True):
    """Where a build has come to: what its commands find, and what they have done so far.

    brought: paths in the image, and the files or folders that COPY brought there. used: those of
    them that were only there to be read by an installation.
    """

    draft: Draft
    folder: Path
    name: str = "Dockerfile"
    environment: str = ""
    at: str = "/"
    brought: dict[str, Path] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    tarballs: list[Tarball] = field(default_factory=list)
    base_has_conda: bool = False
    downloads: bool = False
    """Whether a command that downloads was left, and may need a downloader."""

    def found(self, path: str) -> Path | None:
        """The file beside the Dockerfile that stands at a path in the image."""
        whole = posixpath.normpath(posixpath.join(self.at, path))
        for target in sorted(self.brought, key=len, reverse=True):
            if whole == target:
                self.used.add(target)
                return self.brought[target]
            if whole.startswith(f"{target.rstrip('/')}/") and self.brought[target].is_dir():
                inside = self.brought[target] / whole[len(target.rstrip("/")) + 1 :]
                if inside.is_file():
                    self.used.add(target)
                    return inside
        return None

    def shown(self, path: Path) -> str:
        """A file beside the Dockerfile, as people would name it."""
        return str(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else str(path)


def carry(build: Build, group: list[Command], where: str) -> str:
    """Carries a command over, or several that pipe into each other. The reason why not; nothing
    where it was carried, is of no use, or waits for what comes.
    """
    command = group[0]
    text = " | ".join(one.text for one in group)
    if command.joint == "||":
        return "" if command.words in (("true",), (":",)) else "it runs only if another one fails"
    if command.joint == "&":
        return "what comes before it goes on in the background"
    missing = sorted({name for one in group for name in one.unknown})
    if missing:
        names = ", ".join(f"${name}" for name in missing)
        return f"{names} has no value here; ARGs get one by --build-arg NAME=VALUE"
    if len(group) > 1:
        return _piped(build, group, Left(where=where, text=text, why=""))
    here = Left(where=where, text=text, why="")
    words = _unwrapped(build, list(command.words))
    if words and words[0] == "env":
        _assigned(command, words)
    if command.into.startswith("="):
        return f"the shell writes into a file called {command.into!r}: quotes are missing"
    tool = posixpath.basename(words[0]) if words else ""
    if tool in _CONDA or (tool == "conda-env"):
        return _conda(build, words, here)
    for pattern, what in _TOOLS:
        if pattern.fullmatch(tool):
            return what(build, command, words, here)
    return _other(build, command, words, here)


def _unwrapped(build: Build, words: list[str]) -> list[str]:
    """Without what only leads to the command: sudo, `conda run`, `python -m pip`, `uv pip`."""
    if words[0] == "sudo":
        words = [word for word in words[1:] if word not in ("-E", "-H")]
    if len(words) > 2 and posixpath.basename(words[0]) in _CONDA and words[1] == "run":
        words = words[2:]
        while words and words[0].startswith("-"):
            words = words[2:] if words[0] in ("-n", "--name", "-p", "--prefix") else words[1:]
    tool = posixpath.basename(words[0]) if words else ""
    if _PYTHON.fullmatch(tool) and words[1:3] == ["-m", "pip"]:
        return ["pip", *words[3:]]
    return words[1:] if tool == "uv" and words[1:2] == ["pip"] else words


def _assigned(command: Command, words: list[str]) -> None:
    """`env A=b command` is `A=b command`."""
    del words[0]
    given = dict(command.variables)
    while words and "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        given[name] = value
    command.variables.update(given)


# -- pip ------------------------------------------------------------------------------------


def _pip(build: Build, command: Command, words: list[str], here: Left) -> str:
    draft = build.draft
    if not words[1:] or words[1] in ("cache", "check", "list", "freeze", "config", "show"):
        return ""
    if words[1] != "install":
        return f"pip {words[1]} has no place: what is locked is what is installed"
    if command.into:
        return f"its output goes into {command.into}"
    wanted: list[str] = []
    for option, value in _options(words[2:], _PIP_VALUES):
        match option:
            case "":
                wanted.append(value)
            case "-r" | "--requirement" | "-c" | "--constraint":
                _pip_file(build, "-r" if option in ("-r", "--requirement") else "-c", value, here)
            case "-i" | "--index-url" | "--extra-index-url" | "-f" | "--find-links":
                _require(draft, f"{option} {value}", here)
            case "--no-binary":
                without(draft, value.split(","))
            case "--no-index":
                _require(draft, option, here)
            case "-e" | "--editable":
                _require(draft, f"-e {value}", here)
            case _ if option not in _PIP_NOTHING:
                why = "an option of pip that has no counterpart here"
                said = f"{option} {value}".strip()
                draft.left.append(Left(where=here.where, text=said, why=why))
    if set(map(str.lower, wanted)) <= INSTALLERS:
        return ""  # they only install, and lading has uv for that
    for text in wanted:
        if text.lower() != "pip":
            _require(draft, text, here)
    draft.build_env |= {k: v for k, v in command.variables.items() if not k.startswith("PIP_")}
    return ""


def _require(draft: Draft, text: str, here: Left) -> None:
    """A line of requirements.in, unless it can't be locked."""
    problem = refused(text)
    if problem is not None:
        left_out(draft, here.where, text, problem)
    elif text not in draft.requirements:
        draft.requirements.append(text)


def _pip_file(build: Build, option: str, path: str, here: Left) -> None:
    file = build.found(path)
    if file is None:
        why = f"no COPY brings {path} from beside the Dockerfile"
        build.draft.left.append(Left(where=here.where, text=f"{option} {path}", why=why))
        return
    line = f"{option} {take(build.draft, file, build.shown(file))}"
    if line not in build.draft.requirements:
        build.draft.requirements.append(line)


def _options(words: Iterable[str], with_value: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Options with their values, and words by themselves (with no option)."""
    rest = iter(words)
    for word in rest:
        if word == "--" or not word.startswith("-") or word == "-":
            if word != "--":
                yield "", word
        elif word.startswith("--"):
            option, equals, value = word.partition("=")
            yield option, value if equals or option not in with_value else next(rest, "")
        elif word[:2] in with_value:
            yield word[:2], word[2:].lstrip("=") or next(rest, "")
        else:
            yield word, ""


# -- conda ----------------------------------------------------------------------------------


def _conda(build: Build, words: list[str], here: Left) -> str:
    draft, verb = build.draft, words[1] if len(words) > 1 else ""
    rest = words[2:]
    if verb == "env" or posixpath.basename(words[0]) == "conda-env":
        verb, rest = (" ".join(["env", *words[2:3]]), words[3:]) if verb == "env" else (
            f"env {verb}", words[2:]
        )  # fmt: skip
    if verb == "config":
        return _conda_config(draft, rest)
    if verb in ("", "clean", "init", "activate", "info", "list", "deactivate", "env list"):
        return ""
    if verb not in ("install", "create", "env create", "env update", "update", "upgrade"):
        return f"conda {verb} has no counterpart here"
    options = list(_options(rest, _CONDA_VALUES))
    named = [value for option, value in options if option in ("-n", "--name")]
    place = [value for option, value in options if option in ("-p", "--prefix")]
    environment = (named or [""])[-1] or posixpath.basename((place or [""])[-1])
    environment = "" if environment == "base" else environment
    specs = [value for option, value in options if not option]
    if verb in ("update", "upgrade"):
        if set(specs) <= {"conda", "mamba"}:
            return ""
        return "what is newest is found when it is locked"
    if any(spec.startswith(("http", "/", ".")) for spec in specs):
        return "a package by its file, not by its name"
    files = [value for option, value in options if option in ("-f", "--file")]
    if verb.startswith("env "):
        files = files or ["environment.yml"]
    if verb == "env create" and not named and not place:
        environment = _named_in(build.found(files[0]))
    if (draft.conda or draft.conda_file) and environment != build.environment:
        return "a second environment: see `environments:` in the README"
    for path in files:
        file = build.found(path)
        if file is None:
            return f"no COPY brings {path} from beside the Dockerfile"
        if draft.conda or draft.conda_file:
            return "conda's packages stand in one place: either a file, or a list"
        if file.name.endswith((".yml", ".yaml")):
            take_environment(draft, file, build.shown(file))
        else:
            draft.recipe[file.name] = content(file, build.shown(file))
            draft.conda_file = file.name
    if specs and draft.conda_file:
        return f"conda's packages stand in one place: write them into {draft.conda_file}"
    for option, value in options:
        if option in ("-c", "--channel") and value not in draft.channels:
            draft.channels.append(value)
    draft.conda += [spec for spec in specs if spec not in draft.conda]
    build.environment = environment
    if environment:
        draft.conda_more["prefix"] = f"/opt/{environment}"
    elif build.base_has_conda:
        draft.conda_more["installer"] = "conda"
    return ""


def _named_in(file: Path | None) -> str:
    """The name that an environment.yml gives its environment."""
    text = content(file, file.name).decode(errors="replace") if file is not None else ""
    found = re.search(r"^name:\s*['\"]?([A-Za-z0-9._+-]+)", text, re.MULTILINE)
    return found[1] if found and found[1] != "base" else ""


def _conda_config(draft: Draft, rest: list[str]) -> str:
    if len(rest) == 3 and rest[0] in ("--add", "--prepend") and rest[1] == "channels":
        draft.channels.insert(0, rest[2])
    elif len(rest) == 3 and rest[0] == "--append" and rest[1] == "channels":
        draft.channels.append(rest[2])
    elif rest[1:2] == ["channel_priority"] and rest[2:3] in (["flexible"], ["false"]):
        draft.conda_more["channel-priority"] = "disabled"
    return ""


# -- Debian ---------------------------------------------------------------------------------


def _apt(build: Build, command: Command, words: list[str], here: Left) -> str:
    draft = build.draft
    said = list(_options(words[1:], frozenset(["-t", "-o", "--target-release", "--option"])))
    names = [value for option, value in said if not option]
    verb, packages = (names[0], names[1:]) if names else ("", [])
    if verb in ("purge", "remove", "autoremove", "autopurge"):
        for name in packages:
            if name in draft.apt_run:
                draft.apt_run.remove(name)
                draft.apt_build.append(name)
        return ""
    if verb in ("update", "clean", "autoclean", "upgrade", "dist-upgrade", ""):
        return ""
    if verb != "install":
        return f"{words[0]} {verb} has no counterpart here"
    for name in packages:
        if not _DEBIAN.fullmatch(name):
            why = "not the name of a Debian package, or one with its version"
            draft.left.append(Left(where=here.where, text=name, why=why))
            continue
        target = draft.apt_build if _TO_BUILD.fullmatch(name.partition("=")[0]) else draft.apt_run
        if name not in target:
            target.append(name)
    return ""


# -- tarballs -------------------------------------------------------------------------------


def is_tarball(name: str) -> bool:
    """Whether a file is a tarball, by its name."""
    return bool(_TARBALL.search(name))


def fetched(build: Build, url: str, file: str, here: Left) -> str:
    """A tarball that ADD, wget or curl brings."""
    if not re.match(r"https?://", url) or not _TARBALL.search(file):
        build.downloads = True
        return f"{_NETWORK}; a file of the project goes in by `files:`"
    name = posixpath.basename(file)
    build.tarballs.append(Tarball(url=url, file=name, seen=[here]))
    return ""


def _download(build: Build, command: Command, words: list[str], here: Left) -> str:
    url, file = "", command.into
    tool = posixpath.basename(words[0])
    with_value = frozenset(
        ["-O", "-P", "--output-document", "--directory-prefix", "-t", "-T", "--tries", "--timeout"]
        if tool == "wget"
        else ["-o", "--output", "-H", "--header", "--retry", "-A", "-x", "--max-time"]
    )
    urls: list[str] = []
    for option, value in _options(_apart(words[1:], with_value), with_value):
        if not option:
            urls.append(value)
        elif option in ("-O", "--output-document", "-o", "--output") and value:
            file = value
    if len(urls) != 1:
        build.downloads = True
        return _NETWORK
    url = urls[0] if "://" in urls[0] else f"http://{urls[0]}"
    name = posixpath.basename(url.partition("?")[0])
    return fetched(build, url, name if file in ("", "-") else file, here)


def _apart(words: list[str], with_value: frozenset[str]) -> Iterator[str]:
    """Short options that stand together, as in -qO FILE, each by itself."""
    for word in words:
        if re.fullmatch(r"-[A-Za-z]{2,}", word) and word[:2] not in with_value:
            yield from (f"-{letter}" for letter in word[1:])
        else:
            yield word


def _piped(build: Build, group: list[Command], here: Left) -> str:
    first, last = group[0].words, group[-1].words
    tool = posixpath.basename(first[0])
    if tool in ("wget", "curl") and posixpath.basename(last[0]) == "tar" and len(group) == 2:
        problem = _download(build, group[0], list(first), here)
        if not problem:
            build.tarballs[-1].unpacked = True
        return problem
    if tool == "yes" or (tool == "echo" and posixpath.basename(last[0]) in ("apt-get", "apt")):
        return carry(build, [group[-1]], here.where)
    if tool in ("wget", "curl"):
        build.downloads = True
        return _NETWORK
    return "commands that pipe into each other"


def _tar(build: Build, command: Command, words: list[str], here: Left) -> str:
    names = {posixpath.basename(word) for word in words[1:]}
    for tarball in reversed(build.tarballs):
        if tarball.file in names and not tarball.unpacked:
            tarball.unpacked = True
            tarball.seen.append(here)
            return ""
    return "what it unpacks is not brought here by wget, curl or ADD"


def _current(build: Build) -> Tarball | None:
    """The tarball that is being built."""
    return next((one for one in reversed(build.tarballs) if one.unpacked and not one.done), None)


def _configure(build: Build, command: Command, words: list[str], here: Left) -> str:
    tarball = _current(build)
    if tarball is None:
        return "there is no tarball that it would configure"
    tarball.configure = shlex.join(words[1:])
    tarball.env |= command.variables
    tarball.seen.append(here)
    return ""


def _make(build: Build, command: Command, words: list[str], here: Left) -> str:
    tarball = _current(build)
    if tarball is None or tarball.configure is None:
        return "only what `./configure` has prepared is known how to be made; see `sources:`"
    targets: list[str] = []
    options: list[str] = []
    for word in re.sub(r"(^| )(-j|--jobs[= ])( ?[0-9]+)?(?= |$)", " ", " ".join(words[1:])).split():
        (options if word.startswith("-") or "=" in word else targets).append(word)
    tarball.seen.append(here)
    if set(targets) & {"install", "install-strip"}:
        tarball.done = True
    elif set(targets) - {"all", "check", "test", "clean", "distclean"}:
        tarball.seen.pop()
        return "which of its targets an image needs has to be said in `sources:`"
    elif not set(targets) & {"check", "test", "clean", "distclean"}:
        tarball.make = shlex.join(options)
    return ""


def finish(build: Build) -> None:
    """Makes sources of the tarballs that came to their end; lists those that did not."""
    draft = build.draft
    for tarball in build.tarballs:
        url = posixpath.basename(tarball.url.partition("?")[0])
        named = [_NAMED.fullmatch(_TARBALL.sub("", name)) for name in (tarball.file, url)]
        found = named[0] or named[1]
        if not tarball.done or found is None:
            why = (
                "its name and version can't be told from the file's name"
                if tarball.done
                else "a tarball that does not come to its `./configure`, `make`, `make install`"
            )
            draft.left += [Left(where=one.where, text=one.text, why=why) for one in tarball.seen]
            build.downloads = True
            continue
        name = re.sub(r"[^a-z0-9]+", "-", found["name"].lower()).strip("-")
        source: dict[str, object] = {
            "version": found["version"],
            "urls": [tarball.url.replace(found["version"], "{version}")],
            "configure": tarball.configure or "",
        }
        if tarball.make:
            source["make"] = tarball.make
        if tarball.env:
            source["env"] = tarball.env
        # It is compiled by itself, and needs for it what the whole image had.
        tools = [package for package in draft.apt_build if package != "build-essential"]
        if tools:
            source["apt"] = {"build": tools}
        draft.sources[name] = source
        if name in ("mpich", "openmpi"):
            draft.mpi = draft.mpi or name
    needless = {"wget", "curl", "ca-certificates"} if not build.downloads else set()
    draft.apt_run = [name for name in draft.apt_run if name not in needless]
    if draft.mpi and any(re.match(r"mpi4py\b", line) for line in draft.requirements):
        without(draft, ["mpi4py"])  # its wheel would bring no MPI, or another


# -- the rest -------------------------------------------------------------------------------


def _other(build: Build, command: Command, words: list[str], here: Left) -> str:
    """Small changes go along as they stand; what is not known is left."""
    tool = posixpath.basename(words[0]) if words else ""
    if tool == "cd":
        build.at = posixpath.normpath(posixpath.join(build.at, (words[1:] or ["/"])[0]))
        return ""
    paths = [word for word in words[1:] if not word.startswith("-")]
    if tool == "rm" and all(not path.startswith("/") or path.startswith(_CACHES) for path in paths):
        return ""
    if tool == "mkdir" and all(path.startswith(_CACHES) for path in paths):
        return ""
    if tool in _TOUCHES_NOTHING or (tool in ("echo", "printf") and not command.into):
        return ""
    if tool in _OWN_WORK:
        target = command.into or (paths or ["."])[-1]
        lost = [path for path in paths if not path.startswith("/") or path.startswith(_CACHES)]
        if tool in ("cp", "mv") and lost:
            return "what it takes is not there then; of a source's tree: `then:` of that source"
        if posixpath.isabs(target) and not target.startswith(_CACHES):
            if not command.filled:
                return "a variable in quotes: write it out in `run:`"
            build.draft.run.append(command.filled)
            return ""
        return "it changes what is not there when the image is used"
    if tool == "git":
        build.downloads = True
        return f"{_NETWORK}; a commit's archive can be named by URL, as a requirement or a source"
    if tool in ("yum", "dnf", "apk", "zypper", "microdnf", "pacman"):
        return "only Debian's packages are known; see `conda:` and `sources:` for other ways"
    if tool in ("useradd", "adduser", "groupadd", "usermod", "chown", "su", "gosu"):
        return "under Apptainer an image runs as whoever calls it: it needs no users"
    if tool in ("cmake", "meson", "ninja"):
        return f"how {tool} builds it has to be said in `sources:`"
    return "what it does is not known; it can stand in `run:`, where there is no network"


_TOOLS: tuple[tuple[re.Pattern[str], Callable[[Build, Command, list[str], Left], str]], ...] = (
    (_PIP, _pip),
    (re.compile(r"apt-get|apt|aptitude"), _apt),
    (re.compile(r"wget|curl"), _download),
    (re.compile(r"tar"), _tar),
    (re.compile(r"configure"), _configure),
    (re.compile(r"g?make"), _make),
)
