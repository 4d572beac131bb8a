"""shell: a shell in an image, or in what a build had made when it failed."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from lading import context, dockerfile
from lading.engines import BuildFailed, Mount
from lading.errors import DeclarationError, LadingError
from lading.plan import Part, Plan
from lading.project import Image
from lading.state import State
from lading.steps import Add, Arg, Copy, Run, Stage
from lading.verbs import base as base_verb
from lading.verbs import build as build_verb
from lading.verbs import lock as lock_verb
from lading.verbs import part as part_verb
from lading.verbs import source as source_verb

BEST = "command -v bash >/dev/null && exec bash; exec sh"
"""The shell that people want, where the image has it."""
KEPT = Run(commands=("true",), why="Podman takes steps out of its cache only where several run.")


class Place(Struct, frozen=True, kw_only=True):
    """Where a shell opens: an image, what is lent to it, and what to say first.

    `made`: the folder of what was only made for it, and goes with it, as the image does.
    """

    image: str
    said: str = ""
    mounts: Sequence[Mount] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    made: Path | None = None


def names(state: State) -> list[str]:
    """What a shell can be opened in: images, and sources, with and without their base."""
    sources = list(source_verb.on_bases(state.project))
    found = list(state.project.images)
    found += dict.fromkeys(f"source:{one.source.name}" for one in sources)
    return found + [f"source:{one.source.name}@{one.base.name}" for one in sources]


def opened(state: State, name: str) -> Place:
    """Where the shell opens; the image is built, or the source compiled, as far as that goes.

    Raises `LadingError` when there is no step to stop at.
    """
    kind, _, rest = name.rpartition(":")
    if not kind:
        return _in_image(state, state.project.images[name])
    one = _source(state, rest)
    if state.compiled_on(one.source, one.base) is not None:
        _tell_if_stale(
            state,
            (f"base:{one.base.name}", base_verb.lock_reason(state, one.base)),
            (f"source:{one.source.name}", source_verb.reason(state, one.source, [one.base])),
        )
    try:
        source_verb.ensure(state, one.source, one.base)
    except BuildFailed as failed:
        made = state.compiled_on(one.source, one.base)
        return stopped(state, _plans(state, [made.part] if made is not None else []), failed)
    raise LadingError(
        f"{one.source.name} compiles on {one.base.name}: there is no step where it stops",
        do="open a shell in an image that has it",
    )


def _source(state: State, rest: str) -> source_verb.OnBase:
    """The source, on the base that is named, or on the only one."""
    name, _, base = rest.partition("@")
    found = [
        one
        for one in source_verb.on_bases(state.project)
        if one.source.name == name and base in ("", one.base.name)
    ]
    if len(found) > 1:
        which = " or ".join(f"source:{name}@{one.base.name}" for one in found)
        raise DeclarationError(f"{name} is compiled on several bases", do=f"say which: {which}")
    return found[0]


def _tell_if_stale(state: State, *locks: tuple[str, str]) -> None:
    """Says of locks, each with why it is not current, that what is opened is made from them as
    they are: a shell changes no lock.
    """
    for name, why in locks:
        if why:
            state.console.note(
                f"the lock of {name} is not current: {why}\n"
                f"  -> this is as it is locked; `doit lock:{name}` makes the lock anew"
            )


def _in_image(state: State, image: Image) -> Place:
    state.all_locked(image)
    base = state.base_of(image)
    _tell_if_stale(
        state,
        (f"base:{base.name}", base_verb.lock_reason(state, base)),
        *(
            (f"source:{source.name}", source_verb.reason(state, source, [base]))
            for source in state.sources_of(image)
        ),
        (image.name, lock_verb.reason(state, image)),
    )
    try:
        return Place(image=build_verb.ensure(state, image))
    except BuildFailed as failed:
        plan = state.plan(image)
        parts = [*plan.parts, *(one.part for one in state.compiled(image) or ())]
        return stopped(state, {state.context(image): plan, **_plans(state, parts)}, failed)


def _plans(state: State, parts: Sequence[Part]) -> dict[Path, Plan]:
    """The plans of parts, and of what they stand on, by the folders of their contexts."""
    found: dict[Path, Plan] = {}
    for part in parts:
        found[part_verb.folder(state, part) / "context"] = part.plan
        found |= _plans(state, part.parts)
    return found


def stopped(state: State, plans: Mapping[Path, Plan], failed: BuildFailed) -> Place:
    """What the steps before the failed one have made, as an image; built out of the cache.

    `plans`: what can have failed, by the folder of its context. Raises the failure itself when it
    was at no step that runs something.
    """
    plan = plans.get(failed.context) if failed.context is not None else None
    at = located(plan.stages, failed.step) if plan is not None else None
    if plan is None or at is None or failed.context is None:
        raise failed
    stage, number = at
    before, step = plan.stages[stage], plan.stages[stage].steps[number]
    assert isinstance(step, Run)
    clear_leftovers(state)
    folder = state.project.root / "build" / f".shell.{plan.name}.{os.getpid()}"
    tag = tag_of(folder)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        shutil.copytree(failed.context, folder / "context", copy_function=_linked)
        text = dockerfile.render(plan.title, (*plan.stages[:stage], until(before, number)))
        # A new file: the old one is a link to the context's.
        (folder / "context" / "Dockerfile").unlink()
        (folder / "context" / "Dockerfile").write_text(text, encoding="utf-8")
        state.engine.build(
            folder / "context", tag, platform=state.project.platform, log=lambda _: None
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Place(
        image=tag,
        said=f"{failed}\n\n{told(step)}",
        mounts=[
            Mount(source=folder / "context" / mount.source, target=mount.target)
            for mount in step.mounts
            if not mount.stage
        ],
        env={
            one.name: one.value
            for one in before.steps[:number]
            if isinstance(one, Arg) and one.value is not None
        },
        made=folder,
    )


def tag_of(folder: Path) -> str:
    """The image that belongs to the folder `.shell.NAME.PROCESS`."""
    name, process = folder.name.removeprefix(".shell.").rsplit(".", 1)
    return f"localhost/lading/shell/{name}:{process}"


def clear_leftovers(state: State) -> None:
    """Removes what shells that were killed have left; others may be open just now."""
    for folder in (state.project.root / "build").glob(".shell.*.*"):
        try:
            os.kill(int(folder.suffix[1:]), 0)
        except ProcessLookupError:
            state.engine.remove(tag_of(folder))
            shutil.rmtree(folder, ignore_errors=True)
        except (PermissionError, ValueError):
            pass  # someone else's, or nothing of ours


def _linked(source: str, target: str) -> None:
    context.link(Path(source), Path(target))


def until(stage: Stage, number: int) -> Stage:
    """A stage up to a step, without that step, and without a name: it is the last."""
    steps = stage.steps[:number]
    kept = (KEPT,) if any(isinstance(step, Run) for step in steps) else ()
    return replace(stage, name="", steps=(*steps, *kept))


def told(step: Run) -> str:
    """What to say of a step that failed: its commands, to be run again, and what it is lent."""
    # The first command of a step that is lent files only names them.
    commands = [command for command in step.commands if not command.startswith(": lent ")]
    lines = ["the step that fails; the shell is in what those before it have made:", ""]
    lines += ["  " + " && \\\n  ".join(command.replace("\n", " ") for command in commands), ""]
    lent = ", ".join(mount.target for mount in step.mounts if not mount.stage)
    if lent:
        lines.append(f"it is lent {lent}, as here.")
    return "\n".join([*lines, "There is no network; nothing done here stays."])


PREFIX = re.compile(r"(?:\[[^]]*\] )?(?:STEP \d+/\d+: )?")
"""What stands before a step's text in the logs of BuildKit and Podman."""


def located(stages: Sequence[Stage], said: str) -> tuple[int, int] | None:
    """Where a step is that a builder's log names: its stage, and which of its steps that runs."""
    wanted = _plain(PREFIX.sub("", said, count=1))
    for one, stage in enumerate(stages):
        for number, step in enumerate(stage.steps):
            if isinstance(step, Run) and _plain(dockerfile.instruction(step)) == wanted:
                return one, number
    return _numbered(stages, said)


NUMBERED = re.compile(r"\[(?:(?P<stage>\S+) +)?(?P<number>\d+)/(?P<total>\d+)\] RUN ")
"""How BuildKit names a step: of stage-N where the stage has no name, of none where there is one."""


def _numbered(stages: Sequence[Stage], said: str) -> tuple[int, int] | None:
    """Where a step is by its number. BuildKit shows a step's text with variables filled in and
    quotes taken away, so that it need not be the Dockerfile's.
    """
    found = NUMBERED.match(said)
    if found is None:
        return None
    names = [stage.name or f"stage-{one}" for one, stage in enumerate(stages)]
    name = found["stage"] or (names[0] if len(names) == 1 else "")
    if name not in names:
        return None
    one = names.index(name)
    stage = stages[one]
    counted = [n for n, step in enumerate(stage.steps) if isinstance(step, Run | Copy | Add)]
    before = 0 if stage.base == "scratch" or stage.base in names else 1
    at = int(found["number"]) - before - 1
    if int(found["total"]) != len(counted) + before or not 0 <= at < len(counted):
        return None
    return (one, counted[at]) if isinstance(stage.steps[counted[at]], Run) else None


def _plain(text: str) -> str:
    """A step's text with no line ends, and one space where there were several."""
    return " ".join(text.replace("\\\n", " ").split())


def run(state: State, place: Place) -> int:
    """The shell, at this process's terminal or standard streams; its exit code."""
    if place.said:
        sys.stderr.write(f"{place.said}\n")
        sys.stderr.flush()
    try:
        env = {name: os.environ[name] for name in _shown()} | dict(place.env)
        return state.engine.interact(
            place.image, ["/bin/sh", "-c", BEST], mounts=place.mounts, env=env
        )
    finally:
        if place.made is not None:
            state.engine.remove(place.image)
            shutil.rmtree(place.made, ignore_errors=True)


def _shown() -> Iterator[str]:
    """The variables that say what a terminal can show."""
    yield from (name for name in ("TERM", "COLORTERM") if name in os.environ)
