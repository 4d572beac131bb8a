"""The one printer: steps to the text of a Dockerfile.

The text runs on BuildKit (Docker 20.10's and newer) and on Podman (4.3 and newer) alike: no
`# syntax=` line, no heredoc, no `COPY --link`.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache

from lading.steps import BY_HAND, Add, Arg, Cmd, Copy, Env, Label, Mount, Run, Stage, Step, User

WIDTH = 96
SPECIAL = re.compile(r'([\\"$])')


def render(title: str, stages: Sequence[Stage]) -> str:
    """The Dockerfile of these stages, in order; `title` is the comment on top."""
    parts = [_comment(title)]
    for stage in stages:
        name = f" AS {stage.name}" if stage.name else ""
        parts.append(f"{_comment(stage.why)}FROM {stage.base}{name}\n")
        parts += [_comment(step.why) + instruction(step) for step in stage.steps]
    return "\n".join(parts)


def quoted(value: str) -> str:
    """A value in double quotes, meant to the letter: nothing in it is expanded."""
    return '"' + SPECIAL.sub(r"\\\1", value) + '"'


@cache
def _comment(text: str) -> str:
    lines = [line for paragraph in text.splitlines() for line in _wrapped(paragraph)]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def _wrapped(paragraph: str) -> list[str]:
    if len(paragraph) <= WIDTH - 2 and paragraph.isprintable():
        return [paragraph]  # as textwrap would say, only slower
    lines = textwrap.wrap(paragraph, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    return lines or [""]


def instruction(step: Step) -> str:
    """One step, without its comment."""
    match step:
        case Arg():
            given = "" if step.value is None else f"={quoted(step.value)}"
            return f"ARG {step.name}{given}\n"
        case Env():
            return "ENV " + _pairs(step.values, "    ")
        case Label():
            text = _pairs({json.dumps(k): v for k, v in step.values.items()}, "      ")
            set_by_hand = "".join(f"${{{name}:+{BY_HAND}}}" for name in step.unless)
            return "LABEL " + (text[:-2] + set_by_hand + text[-2:] if set_by_hand else text)
        case Copy():
            stage = f"--from={step.stage} " if step.stage else ""
            return f"COPY {stage}{json.dumps([step.source, step.target])}\n"
        case Add():
            return f"ADD {json.dumps([step.source, step.target])}\n"
        case Cmd():
            return f"CMD {json.dumps(list(step.arguments))}\n"
        case User():
            return f"USER {step.name}\n"
        case Run():
            mounts = [f"--mount={_mount(mount)}" for mount in step.mounts]
            # A line break in a command is where it may be folded.
            folded = (" \\\n        ".join(command.splitlines()) for command in step.commands)
            commands = " && \\\n    ".join(folded)
            return "RUN " + " \\\n    ".join([*mounts, commands]) + "\n"


def _pairs(values: Mapping[str, str], indent: str) -> str:
    return f" \\\n{indent}".join(f"{k}={_value(v)}" for k, v in values.items()) + "\n"


def _value(value: str) -> str:
    # The one variable that is meant to be expanded: what the base has on its PATH.
    head, path, tail = value.partition("$PATH")
    return quoted(head)[:-1] + path + tail + '"' if path and not tail else quoted(value)


def _mount(mount: Mount) -> str:
    stage = f"from={mount.stage}," if mount.stage else ""
    return f"type=bind,{stage}source={mount.source},target={mount.target}"
