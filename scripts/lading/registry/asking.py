"""What a registry has of the keys that a run needs: asked for all at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING

from msgspec import Struct

from lading.errors import EnvironmentProblem, LadingError
from lading.net import CutOff
from lading.references import parse
from lading.registry import kept
from lading.registry.kept import Kept
from lading.registry.repository import Known, Refused, Repository, Unwell

if TYPE_CHECKING:
    import requests

AT_ONCE = 16
PAUSE = 1.0
"""Seconds until a registry is asked again that answered with an error, or in part."""


class Wanted(Struct, frozen=True, kw_only=True):
    """Something that may have been pushed: where, under which key, and the tag it has for people,
    which is asked for only where one is given.
    """

    repository: str
    key: str
    tag: str = ""
    product: bool = False


class Answer(Struct, frozen=True, kw_only=True):
    """What is there, and whether the tag for people names it."""

    kept: Kept
    tagged: bool


def ask(
    wanted: Mapping[str, Wanted], environ: Mapping[str, str], note: Callable[[str], None]
) -> dict[str, Answer]:
    """What is there of `wanted`, by the same names; one request for each that is not there.

    A registry that can't be asked has nothing: that is said once, by `note`; so is what it does not
    let this user see, and a tag that is not believed.
    """
    from lading.net import session

    asked = _Asked(environ)
    answers: list[tuple[str, Answer | None]] = []
    try:
        with session(environ, retries=0) as http, ThreadPoolExecutor(AT_ONCE) as pool:
            answers += pool.map(lambda item: (item[0], asked.one(http, item[1])), wanted.items())
    except EnvironmentProblem as error:  # CA certificates are named that are not there
        asked.down(error)
    for text in asked.said():
        note(f"  {text}")
    return {name: answer for name, answer in answers if answer is not None}


class _Asked:
    """One run's questions to registries, from several threads, and what there is to say of them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._known: dict[str, Known] = {}
        self._down: EnvironmentProblem | None = None
        self._refused: dict[str, list[Refused]] = {}
        self._notes: list[str] = []
        self._lock = Lock()

    def one(self, http: requests.Session, wanted: Wanted) -> Answer | None:
        """What is there of one; None also where that can't be known."""
        for last in (False, True):
            if self._down is not None:
                return None
            try:
                return self._found(http, wanted)
            except (Unwell, CutOff) as error:
                if last:
                    self.down(error)
                else:
                    time.sleep(PAUSE)  # one such answer in a hundred is no reason to build
            except EnvironmentProblem as error:
                self.down(error)
            except Refused as error:
                with self._lock:
                    self._refused.setdefault(parse(wanted.repository).registry, []).append(error)
                return None
            except LadingError as error:
                with self._lock:
                    text = f"{wanted.repository}:{wanted.key[:12]} is not taken: {error.what}"
                    self._notes.append(text)
                return None
        return None

    def _found(self, http: requests.Session, wanted: Wanted) -> Answer | None:
        reference = parse(wanted.repository)
        with self._lock:
            known = self._known.setdefault(reference.registry, Known())
        there = Repository(http, reference, self._environ, known)
        found = kept.found(there, wanted.key, product=wanted.product)
        if found is None:
            return None
        tagged = bool(wanted.tag) and kept.named(there, found, wanted.tag)
        return Answer(kept=found, tagged=tagged)

    def down(self, error: EnvironmentProblem) -> None:
        """Nothing more is asked of it in this run."""
        with self._lock:
            self._down = self._down or error

    def said(self) -> Iterator[str]:
        """What people have to know: one warning for each reason."""
        if self._down is not None:
            yield said(self._down)
        for host, errors in self._refused.items():
            what = f"{host} does not show {_repositories(len(errors))}"
            yield said(LadingError(what, why=errors[0].why, do=errors[0].do))
        yield from sorted(self._notes)


def _repositories(count: int) -> str:
    return f"{count} repositories" if count > 1 else "1 repository"


def said(error: LadingError) -> str:
    """A warning: what failed, that it costs nothing but time, why, and what to do."""
    more = LadingError("", why=error.why, do=error.do)
    return f"{error.what}; what it may have is made here{more}".replace("\n", "\n  ")
