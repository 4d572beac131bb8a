"""A Dockerfile, carried over as far as it goes; what does not is listed with its line and why."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lading.errors import DeclarationError
from lading.new import runs
from lading.new.draft import Draft, Left, free
from lading.new.instructions import Instruction
from lading.new.instructions import read as read_instructions
from lading.new.runs import Build
from lading.new.shell import Command, NotPlainError, commands, substituted, words_of

_NOT_HERE = {
    "ENTRYPOINT": "an image has none here: Apptainer and `docker run` call programs by their name",
    "USER": "under Apptainer an image runs as whoever calls it",
    "WORKDIR": "under Apptainer a program starts where its caller is",
    "EXPOSE": "under Apptainer the ports are the host's",
    "VOLUME": "under Apptainer folders come from the host, by --bind",
    "HEALTHCHECK": "under Apptainer nobody asks for it; `test:` runs when the image is made",
    "STOPSIGNAL": "under Apptainer a program ends as any other does",
    "ONBUILD": "what happens in other people's builds is theirs to declare",
    "SHELL": "commands here are /bin/sh's",
}
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INSTALLS_CONDA = re.compile(r"mini(?:conda|forge)|mambaforge|anaconda3?-", re.IGNORECASE)
_NOBODYS = ("/root", "/home", "/tmp", "/var/tmp", "/dev", "/proc", "/sys")
_MOST_BYTES = 10_000_000
_MOST_FILES = 200


def read(draft: Draft, path: Path, arguments: Mapping[str, str]) -> None:
    """Fills in a draft. `arguments` are values for ARG. A base that the draft has already stays.

    Raises `DeclarationError` where it is no Dockerfile, or starts from nothing that can be a base.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        raise DeclarationError(f"{path} can't be read, or is not UTF-8") from None
    Reader(draft, path, arguments).read(text)


class Reader:
    """Reads a Dockerfile's last stage and those that it starts from, an instruction at a time."""

    def __init__(self, draft: Draft, path: Path, arguments: Mapping[str, str]) -> None:
        self.draft = draft
        self.name = path.name
        self.arguments = dict(arguments)
        self.globals: dict[str, str] = {}
        self.variables: dict[str, str] = {}
        self.build = Build(draft=draft, folder=path.parent, name=self.name)
        self.workdir: Instruction | None = None
        self.origin: dict[str, Instruction] = {}
        """Which instruction brought what stands at a path in the image."""

    def read(self, text: str) -> None:
        """All of it. Raises `DeclarationError`."""
        found = read_instructions(self.name, text)
        stages = self._stages(found)
        wanted = self._wanted(stages)
        self.build.base_has_conda = not self.draft.base and not _INSTALLS_CONDA.search(
            "".join(one.rest for one in found if one.word in ("RUN", "ADD"))
        )
        others = [one for stage in stages if stage not in wanted for one in stage]
        if others:
            why = "in a stage that the last one does not start from; compilers stay behind anyway"
            for one in others:
                self._left(one, why)
        reference = self._base(wanted[0][0])
        if not self.draft.base:
            self.draft.base = reference
        for stage in wanted:
            for one in stage[1:]:
                self._instruction(one)
        if self.workdir is not None and self.build.at != "/":
            self._left(self.workdir, _NOT_HERE["WORKDIR"])
        self._files()
        runs.finish(self.build)
        if (self.draft.conda or self.draft.conda_file) and not self.draft.channels:
            self._default_channel()
        self.draft.left.sort(key=lambda one: int(one.where.rpartition(":")[2] or 0))
        if self.draft.bare and self.draft.left:
            raise DeclarationError(
                f"nothing of {self.name} but its base could be carried over",
                why="\n".join(f"{one.where}: {one.text}\n    {one.why}" for one in self.draft.left),
            )

    def _default_channel(self) -> None:
        if not any(b"channels:" in content for content in self.draft.recipe.values()
                   if isinstance(content, bytes)):  # fmt: skip
            self.draft.channels.append("conda-forge")
            self.draft.notes.append(f"{self.name} names no channel: conda-forge is taken")

    def _stages(self, found: list[Instruction]) -> list[list[Instruction]]:
        """The instructions from each FROM on; the ARGs before the first are for all FROMs."""
        stages: list[list[Instruction]] = []
        for one in found:
            if one.word == "FROM":
                stages.append([one])
            elif stages:
                stages[-1].append(one)
            elif one.word == "ARG":
                self._arg(one, self.globals)
            else:
                raise DeclarationError(f"{self.name}:{one.line}: {one.word} stands before any FROM")
        if not stages:
            raise DeclarationError(f"{self.name}: there is no FROM in it: this is no Dockerfile")
        return stages

    def _wanted(self, stages: list[list[Instruction]]) -> list[list[Instruction]]:
        """The last stage, and before it the stages that it starts from."""
        named: dict[str, list[Instruction]] = {}
        for stage in stages:
            words = stage[0].rest.split()
            stage_name = words[2].lower() if len(words) == 3 and words[1].lower() == "as" else ""
            named.setdefault(stage_name, stage)
        wanted = [stages[-1]]
        while True:
            start = (wanted[0][0].rest.split() or [""])[0].lower()
            before = named.get(start) if start else None
            if before is None or before in wanted:
                return wanted
            wanted.insert(0, before)

    def _base(self, start: Instruction) -> str:
        text, unknown = substituted((start.rest.split() or [""])[0], self.globals)
        where = f"{self.name}:{start.line}"
        if unknown:
            raise DeclarationError(
                f"{where}: FROM {text}: ${unknown[0]} has no value",
                do=f"give one: --build-arg {unknown[0]}=…",
            )
        if text.lower() == "scratch" or not text:
            raise DeclarationError(f"{where}: FROM {text}: an image from nothing has no Python")
        return text

    def _left(self, one: Instruction, why: str, text: str = "") -> None:
        left = Left(where=f"{self.name}:{one.line}", text=text or one.text, why=why)
        self.draft.left.append(left)

    # -- one instruction --------------------------------------------------------------------

    def _instruction(self, one: Instruction) -> None:
        known: dict[str, Callable[[Instruction], None]] = {
            "ARG": lambda one: self._arg(one, self.variables),
            "ENV": self._env,
            "LABEL": self._label,
            "MAINTAINER": lambda one: self._set_label("maintainer", one.rest, one),
            "RUN": self._run,
            "COPY": self._copy,
            "ADD": self._copy,
            "CMD": self._cmd,
            "WORKDIR": self._workdir,
        }
        if one.word in known:
            try:
                known[one.word](one)
            except NotPlainError as reason:
                self._left(one, str(reason))
        elif one.word in _NOT_HERE:
            self._left(one, _NOT_HERE[one.word])
        else:
            raise DeclarationError(
                f"{self.name}:{one.line}: {one.word} is no instruction of a Dockerfile"
            )

    def _pairs(self, one: Instruction, pattern: re.Pattern[str]) -> dict[str, str]:
        """NAME=VALUE …, or NAME and the rest of the line; a name or value that can't be is left."""
        rest = one.rest.replace("\\\n", " ")
        if "=" not in (rest.split() or [""])[0]:
            name, _, value = rest.partition(" ")
            value, unknown = substituted(value.strip().strip('"'), self.variables)
            if unknown or not value:
                self._left(one, _missing(name, unknown) if unknown else "it has no value")
                return {}
            pairs = {name: value}
        else:
            words, unknown = words_of(rest, self.variables)
            pairs = dict(word.partition("=")[::2] for word in words)
            for name, value in list(pairs.items()):
                missing = [each for each in unknown if f"${each}" in value or f"${{{each}" in value]
                if missing:
                    self._left(one, _missing(name, missing), f"{one.word} {name}={value}")
                    del pairs[name]
        for name in [name for name in pairs if not pattern.fullmatch(name) or "\n" in pairs[name]]:
            self._left(one, "not a name that can stand here", f"{one.word} {name}={pairs[name]}")
            del pairs[name]
        return pairs

    def _arg(self, one: Instruction, into: dict[str, str]) -> None:
        words, _ = words_of(one.rest, {**self.globals, **into})
        for word in words:
            name, equals, value = word.partition("=")
            if name in self.arguments:
                into[name] = self.arguments[name]
            elif equals:
                into[name] = value
            elif name in self.globals:
                into[name] = self.globals[name]
            if name in into:
                self.draft.notes.append(
                    f"{self.name}:{one.line}: ARG {name}: {into[name]!r} is written out instead"
                )

    def _env(self, one: Instruction) -> None:
        for name, value in self._pairs(one, _VARIABLE).items():
            self.variables[name] = value
            self.draft.env[name] = value

    def _label(self, one: Instruction) -> None:
        for name, value in self._pairs(one, _LABEL).items():
            self._set_label(name, value, one)

    def _set_label(self, name: str, value: str, one: Instruction) -> None:
        value = value.strip().strip("'\"")
        if name == "description" and value:
            self.draft.description = self.draft.description or value
        elif name.startswith("python."):
            self._left(one, "written by itself, from what is locked", f"LABEL {name}={value}")
        else:
            self.draft.labels[name] = value

    def _cmd(self, one: Instruction) -> None:
        listed = one.listed
        if listed is None:
            text = " ".join(one.rest.replace("\\\n", " ").split())
            listed = ["/bin/sh", "-c", text] if text else []
        self.draft.cmd = listed

    def _workdir(self, one: Instruction) -> None:
        text, unknown = substituted(one.rest.strip("'\""), self.variables)
        if unknown:
            self._left(one, f"${unknown[0]} has no value here")
            return
        self.build.at = posixpath.normpath(posixpath.join(self.build.at, text))
        self.workdir = one

    # -- RUN --------------------------------------------------------------------------------

    def _run(self, one: Instruction) -> None:
        at = self.build.at
        for flag, value in one.flags:
            if flag == "mount":
                self._mount(value)
        listed = one.listed
        if listed is not None:
            said = " ".join(listed)
            groups = [
                [Command(words=tuple(listed), text=said, filled=shlex.join(listed), variables={})]
            ]
            if not listed:
                return
        elif one.documents and one.rest not in ("", "sh", "bash", "/bin/sh", "/bin/bash"):
            self._left(one, "a text that a program reads; make it a file and name it in `files:`")
            return
        else:
            text = one.documents[0] if one.documents else one.rest
            groups = _groups(commands(text, self.variables))
        for group in groups:
            line = one.line_at(group[0].at) if not one.documents else one.line
            where = f"{self.name}:{line}"
            why = runs.carry(self.build, group, where)
            if why:
                said = " | ".join(command.text for command in group)
                self.draft.left.append(Left(where=where, text=said, why=why))
        # Each RUN begins where WORKDIR says.
        self.build.at = at

    def _mount(self, value: str) -> None:
        """`--mount=type=bind,source=…,target=…` brings a file for one RUN."""
        said = dict(pair.partition("=")[::2] for pair in value.split(","))
        target = said.get("target") or said.get("dst") or said.get("destination")
        source = said.get("source") or said.get("src") or "."
        if said.get("type", "bind") == "bind" and target and "from" not in said:
            target = posixpath.normpath(posixpath.join(self.build.at, target))
            self.build.brought[target] = self.build.folder / source
            self.build.used.add(target)

    # -- COPY and ADD -----------------------------------------------------------------------

    def _copy(self, one: Instruction) -> None:
        if any(flag == "from" for flag, _ in one.flags):
            self._left(one, "what other stages and images made does not go in; see `source:`")
            return
        if one.documents:
            self._left(one, "a text in the Dockerfile; make it a file and name it in `files:`")
            return
        listed = one.listed
        words, unknown = (listed, ()) if listed else words_of(one.rest, self.variables)
        if unknown or len(words) < 2:
            self._left(one, f"${unknown[0]} has no value here" if unknown else "it names no target")
            return
        *sources, target = words
        into = target.endswith("/") or len(sources) > 1
        whole = posixpath.normpath(posixpath.join(self.build.at, target))
        for source in sources:
            self._bring(one, source, whole, into or whole == self.build.at)

    def _bring(self, one: Instruction, source: str, target: str, into: bool) -> None:
        said = f"{one.word} {source}"
        if one.word == "ADD" and re.match("[a-z]+://", source):
            left = Left(where=f"{self.name}:{one.line}", text=one.text, why="")
            why = runs.fetched(self.build, source, posixpath.basename(source), left)
        elif one.word == "ADD" and runs.is_tarball(source):
            why = "a tarball that is unpacked; name it by URL in `sources:`, or unpack it"
        else:
            path = self.build.folder / source.lstrip("/")
            why = ""
            if not path.resolve().is_relative_to(self.build.folder.resolve()) or not path.exists():
                why = f"there is no {source} beside the Dockerfile"
            elif path.is_file() and into:
                target = posixpath.join(target, path.name)
            if not why:
                self.build.brought[target] = path
                self.origin[target] = one
        if why:
            self._left(one, why, said if "://" not in source else "")

    def _files(self) -> None:
        """What was brought and not only read by an installation goes in by `files:`."""
        for target, one in self.origin.items():
            path = self.build.brought[target]
            if target in self.build.used and path.is_file():
                continue
            said = f"{one.word} {self.build.shown(path)} {target}"
            if path.resolve() == self.build.folder.resolve():
                if target not in self.build.used:
                    self._left(one, "the whole folder; name in `files:` what is needed of it", said)
            elif f"{target}/".startswith(tuple(f"{place}/" for place in _NOBODYS)):
                self._left(one, "under Apptainer that folder is the host's; choose another", said)
            elif target == "/" or (path.is_dir() and not _small(path)):
                self._left(
                    one, "copy what is needed into the recipe, and name it in `files:`", said
                )
            else:
                name = free(path.name, self.draft.recipe)
                self.draft.recipe[name] = path
                self.draft.files[target] = name


def _missing(name: str, unknown: Sequence[str]) -> str:
    if name in unknown:
        return f"the base's {name} is not known here; what the image installs is found without it"
    return f"${unknown[0]} has no value here"


def _groups(found: list[Command]) -> list[list[Command]]:
    """Commands that pipe into each other, together."""
    groups: list[list[Command]] = []
    for command in found:
        if command.joint == "|" and groups:
            groups[-1].append(command)
        else:
            groups.append([command])
    return groups


def _small(folder: Path) -> bool:
    files = [path for path in folder.rglob("*") if path.is_file()][: _MOST_FILES + 1]
    return len(files) <= _MOST_FILES and sum(path.stat().st_size for path in files) <= _MOST_BYTES
