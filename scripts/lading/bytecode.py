"""Runs in an image, by a Python of it: modules' bytecode, the same bytes whenever it is compiled.

With folders, all modules below them are compiled, but those of packages' own tests; without, what
standard input names, a path a line: modules, and .pyc files (PEP 3147) that are made again.
Bytecode goes by its source's content and is not checked at each start (PEP 552, unchecked hash):
an image's times are set when it is archived, and its users can't write what would be newer.

compileall writes other bytes from run to run, which stand for the same program:

- An object is marked as one that may be met again if anything else holds it at that moment: a
  name may be left over in a cache of the interpreter (python/cpython#78274). Here all are held.
- A set of constants is made anew, in another order and a copy for each use, if a string in it is
  known to the interpreter already. Here a module with sets is compiled twice, so that all are.
- Sets (up to Python 3.10) and what is noted of a class (3.13.0) go by the hashes of strings, so
  PYTHONHASHSEED has to be 0.

For any Python since 3.7, with nothing but its library.
"""

from __future__ import annotations

import importlib.util
import marshal
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType

UNCHECKED_HASH = b"\1\0\0\0"
TESTS = re.compile("/tests?/")


def bytecode(source: bytes, name: str) -> bytes:
    """What the .pyc of a module of this content holds; `name` is its path in tracebacks.

    Raises what `compile` does where the source is none for this Python.
    """
    code = compile(source, name, "exec", dont_inherit=True)
    held = parts(code)
    if any(isinstance(part, frozenset) for part in held):
        code = compile(source, name, "exec", dont_inherit=True)
        held += parts(code)
    content = importlib.util.source_hash(source) + marshal.dumps(code)
    return importlib.util.MAGIC_NUMBER + UNCHECKED_HASH + content


def parts(code: CodeType) -> list[object]:
    """All that a code object is written from, some of it more than once."""
    found: list[object] = [code]
    for part in found:
        if isinstance(part, CodeType):
            found += (part.co_consts, part.co_names, part.co_varnames, part.co_freevars)
            found += (part.co_cellvars, part.co_filename, part.co_name)
            found.append(getattr(part, "co_qualname", None))  # since 3.11
        elif isinstance(part, (tuple, frozenset)):
            found += part
        elif isinstance(part, slice):  # since 3.14
            found += (part.start, part.stop, part.step)
    return found


def below(folder: Path) -> Iterator[tuple[Path, Path]]:
    """The modules below a folder but for tests', and where the bytecode of each belongs."""
    for source in folder.rglob("*.py"):
        if not TESTS.search(f"/{source.relative_to(folder)}"):
            yield source, Path(importlib.util.cache_from_source(str(source)))


def named(lines: Iterable[str]) -> Iterator[tuple[Path, Path]]:
    """Modules that are named, by themselves or by their bytecode, and where that belongs."""
    ending = f".{sys.implementation.cache_tag}.pyc"
    for line in map(str.rstrip, lines):
        path = Path(line)
        if path.suffix == ".py":
            yield path, Path(importlib.util.cache_from_source(line))
        elif path.name.endswith(ending):
            # importlib knows no source of a name with a dot in it, as __phello__.foo.py.
            yield path.parent.with_name(f"{path.name[: -len(ending)]}.py"), path


def write(source: Path, target: Path) -> None:
    """Compiles a module, as far as it can be: files that no Python can are found in many packages.

    Raises OSError.
    """
    content, mode = source.read_bytes(), source.stat().st_mode
    try:
        made = bytecode(content, str(source))
    except Exception:  # whatever it is: who imports the module is told
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f"{target.name}.{os.getpid()}")
    # Who may read a module may read its bytecode, too, as where Python itself writes it.
    number = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode & 0o666)
    with os.fdopen(number, "wb") as file:
        file.write(made)
    beside.replace(target)


def main(folders: list[str]) -> None:
    """Compiles, with all processors. Exits with what has gone wrong, if anything has."""
    if sys.flags.hash_randomization:
        sys.exit("bytecode is the same each time with PYTHONHASHSEED=0 only")
    for number in range(256):
        # How a string is written depends on whether it is interned. One of a single character of
        # Latin-1 is the same object in all modules, and any of them may have interned it.
        sys.intern(chr(number))
    warnings.simplefilter("ignore")
    walked = (pair for folder in folders for pair in below(Path(folder)))
    pairs = [pair for pair in (walked if folders else named(sys.stdin)) if pair[0].is_file()]
    pairs.sort(key=lambda pair: pair[0].stat().st_size, reverse=True)
    several = len(os.sched_getaffinity(0))
    workers = [fork(pairs[number::several]) for number in range(several)]
    failed = [worker for worker in workers if os.waitpid(worker, 0)[1] != 0]
    if failed:
        sys.exit(1)


def fork(pairs: list[tuple[Path, Path]]) -> int:
    """A process that compiles these; 0 is its exit code where all went well."""
    process = os.fork()
    if process:
        return process
    try:
        for source, target in pairs:
            write(source, target)
    except OSError as error:
        print(f"bytecode can't be written: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
