"""What a registry has of the keys that a run needs: asked for all at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from msgspec import Struct

from lading.errors import EnvironmentProblem, LadingError
from lading.references import parse
from lading.registry import kept
from lading.registry.kept import Kept
from lading.registry.repository import Repository

AT_ONCE = 16


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

    A registry that can't be asked has nothing: that is said once, by `note`, and so is a tag that
    is not believed.
    """
    from lading.net import session

    silent = Event()

    with session(environ, retries=0) as http:

        def one(item: tuple[str, Wanted]) -> tuple[str, Answer | str | None]:
            name, asked = item
            if silent.is_set():
                return name, None
            there = Repository(http, parse(asked.repository), environ)
            try:
                found = kept.found(there, asked.key, product=asked.product)
                if found is None:
                    return name, None
                return name, Answer(kept=found, tagged=_tagged(there, found, asked.tag))
            except EnvironmentProblem as error:
                if silent.is_set():
                    return name, None
                silent.set()
                return name, f"{error.what}; what it may have is made here"
            except LadingError as error:
                return name, f"{asked.repository}:{asked.key[:12]} is not taken: {error.what}"

        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = list(pool.map(one, wanted.items()))
    for _, answer in answers:
        if isinstance(answer, str):
            note(f"  {answer}")
    return {name: answer for name, answer in answers if isinstance(answer, Answer)}


def _tagged(there: Repository, found: Kept, tag: str) -> bool:
    if not tag:
        return False
    headers = there.head(f"manifests/{tag}")
    return headers is not None and headers.get("Docker-Content-Digest") == found.digest
