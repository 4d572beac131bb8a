"""What a person sees of a run: one line a task, progress on a terminal, plain lines elsewhere.

Everything goes through the one `Console` of the process, so that several tasks at once never
write into each other's lines. `rich` draws on terminals and is imported only when something is
drawn; doit's own streams are never touched.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any

WIDTH_OF_VERB = 10

Advance = Callable[[int], None]
"""Called with the number of bytes that came, from any thread."""

Line = Callable[[str], None]
"""Called with each line of output."""


class Console:
    """Writes to one stream; knows whether a person is looking at it."""

    def __init__(
        self, stream: IO[str] | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        self._lock = threading.RLock()
        self._progress: Any = None
        self._tasks = 0
        self.to(stream or sys.stdout, os.environ if environ is None else environ)

    def to(self, stream: IO[str], environ: Mapping[str, str]) -> None:
        """From now on it writes there."""
        if isinstance(stream, io.TextIOWrapper):
            # A terminal or a log may know fewer characters than we write.
            stream.reconfigure(errors="replace")
        terminal = stream.isatty() and environ.get("TERM", "") != "dumb"
        with self._lock:
            self.close()
            self.stream = stream
            self.colour = terminal and not environ.get("NO_COLOR")
            self.live = self.colour and not environ.get("CI")

    # -- lines ------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """A line, or several, that stay."""
        self._print(text)

    def done(self, verb: str, name: str, seconds: float, what: str) -> None:
        """A task that did its work: how long it took, and what it made."""
        made = f" · {what}" if what else ""
        head = self._coloured(f"{verb:<{WIDTH_OF_VERB}}", "1;32")
        self._print(f"{head} {name}  {duration(seconds)}{made}")

    def failed(self, verb: str, name: str, seconds: float, text: str) -> None:
        """A task that failed: what failed, why, and what to do."""
        head = self._coloured(f"{verb:<{WIDTH_OF_VERB}}", "1;31")
        body = "\n".join("  " + line for line in text.rstrip().splitlines())
        self._print(f"{head} {name}  failed after {duration(seconds)}\n{body}")

    def _coloured(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def _print(self, text: str) -> None:
        with self._lock:
            if self._progress is not None:
                self._progress.console.print(
                    text, markup=False, highlight=False, soft_wrap=True, emoji=False
                )
            else:
                try:
                    self.stream.write(text + "\n")
                    self.stream.flush()
                except BrokenPipeError:
                    # Whoever read this has gone (`doit | head`); the work goes on.
                    unread(self.stream)
                    self.stream = io.StringIO()

    def close(self) -> None:
        """Gives the terminal back as it was, also when tasks were left in the middle."""
        with self._lock:
            if self._progress is not None:
                self._progress.stop()
                self._progress = None

    # -- progress ---------------------------------------------------------------------------

    @contextmanager
    def transfer(self, label: str, total: int) -> Iterator[Advance]:
        """Progress by bytes: a bar on a terminal, a line every ten seconds elsewhere."""
        with self._task(label, total) as (progress, task):
            if progress is None:
                yield _plain_advance(self, label, total)
            else:
                yield lambda count: progress.advance(task, count)

    @contextmanager
    def lines(self, label: str, keep: str = "") -> Iterator[Line]:
        """The output of a program: its newest line on a terminal.

        Elsewhere the lines that contain `keep` are shown, none if it is empty.
        """
        with self._task(label, None) as (progress, task):

            def show(text: str) -> None:
                if progress is not None:
                    progress.update(task, detail=shortened(text))
                elif keep and keep in text:
                    self.note(shortened(f"  {label}: {text}", 80))

            yield show

    @contextmanager
    def _task(self, label: str, total: int | None) -> Iterator[tuple[Any, Any]]:
        if not self.live:
            yield None, None
            return
        with self._lock:
            if self._progress is None:
                self._progress = _rich_progress(self.stream, self.colour)
                self._progress.start()
            progress = self._progress
            self._tasks += 1
            size = f"{total / 1e6:.0f} MB" if total else ""
            task = progress.add_task(label, total=total, detail=size)
        try:
            yield progress, task
        finally:
            with self._lock:
                progress.remove_task(task)
                self._tasks -= 1
                if self._tasks == 0:
                    self.close()


def unread(stream: IO[str]) -> None:
    """For a stream that nobody reads any more: the rest goes nowhere, also at the very end."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _rich_progress(stream: IO[str], colour: bool) -> Any:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        BarColumn(bar_width=12),
        TextColumn(
            "{task.fields[detail]}", markup=False, table_column=Column(ratio=1, no_wrap=True)
        ),
        console=RichConsole(file=stream, force_terminal=True, no_color=not colour),
        transient=True,
        expand=True,
    )


def _plain_advance(console: Console, label: str, total: int, every: float = 10.0) -> Advance:
    came, last, lock = 0, time.monotonic(), threading.Lock()

    def advance(count: int) -> None:
        nonlocal came, last
        with lock:
            came += count
            now = time.monotonic()
            if now - last < every:
                return
            last = now
            text = f"{label}: {came / 1e6:.0f} of {total / 1e6:.0f} MB"
        console.note(text)

    return advance


def shortened(text: str, width: int = 200) -> str:
    """One line of a program's output, its white space folded and its end cut off."""
    indent = text[: len(text) - len(text.lstrip(" "))]
    text = indent + " ".join(text.split())
    return text if len(text) <= width else f"{text[: width - 1]}…"


def counted(count: int, thing: str) -> str:
    """A number of things: 1 file, 2 files."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def duration(seconds: float) -> str:
    """Seconds as people read them: 0.4 s, 11.8 s, 4 min 10 s."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def size(count: int) -> str:
    """Bytes as people read them, in powers of ten as engines do: 248 MB, 1.5 GB."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            number = count / factor
            return f"{number:.1f} {unit}" if number < 10 else f"{number:.0f} {unit}"
    return f"{count} B"
