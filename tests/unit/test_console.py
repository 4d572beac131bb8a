"""What a person sees, on a terminal and elsewhere."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Mapping

import pytest

from lading import console
from lading.console import Console, duration, shortened, size

ESCAPE = "\x1b"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on(stream: io.StringIO, environ: Mapping[str, str] | None = None) -> Console:
    return Console(stream, {"TERM": "xterm", **(environ or {})})


def test_lines_in_a_log() -> None:
    out = io.StringIO()
    said = on(out)
    said.note("a note")
    said.done("build", "astropy", 11.84, "248 MB")
    said.done("dockerfile", "astropy-4.3", 0.04, "")
    said.failed("lock", "astropy", 250.0, "what\n  why\n\n")
    assert out.getvalue() == (
        "a note\n"
        "build      astropy  11.8 s · 248 MB\n"
        "dockerfile astropy-4.3  0.0 s\n"
        "lock       astropy  failed after 4 min 10 s\n  what\n    why\n"
    )


def test_lines_on_a_terminal_have_colour_and_the_same_words() -> None:
    out = Terminal()
    said = on(out)
    assert said.colour
    assert said.live
    said.done("build", "a", 1, "x")
    said.failed("lock", "a", 1, "why")
    assert out.getvalue().startswith("\x1b[1;32mbuild     \x1b[0m a  1.0 s · x\n\x1b[1;31mlock")


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_that_wants_plain_lines_gets_them(environ: dict[str, str]) -> None:
    out = Terminal()
    said = on(out, environ)
    with said.lines("build a", keep="RUN") as show, said.transfer("fetch a", 10) as advance:
        show("[1/2] RUN pip")
        advance(10)
        said.done("build", "a", 1, "x")
    assert out.getvalue() == "  build a: [1/2] RUN pip\nbuild      a  1.0 s · x\n"


def test_ci_has_no_progress_even_on_a_terminal() -> None:
    out = Terminal()
    with on(out, {"CI": "1"}).transfer("fetch a", 10) as advance:
        advance(10)
    assert out.getvalue() == ""


def test_progress_is_drawn_on_a_terminal_and_taken_away() -> None:
    out = Terminal()
    said = on(out)
    with said.lines("build a") as show, said.transfer("fetch [b]", 10_000_000) as advance:
        show("[1/2] RUN [red]pip[/red]")
        advance(5_000_000)
        said.note("in between [bold]")
        said._progress.refresh()
    text = out.getvalue()
    assert "build a" in text
    assert "RUN [red]pip[/red]" in text, "what looks like markup is text"
    assert "fetch [b]" in text
    assert "in between [bold]\n" in text
    assert text.rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in text[text.rindex("\x1b[?25l") :]
    before = len(text)
    said.note("after")
    assert out.getvalue()[before:] == "after\n"


def test_a_run_that_is_stopped_gives_the_terminal_back() -> None:
    out = Terminal()
    said = on(out)
    inside, go = threading.Event(), threading.Event()

    def work() -> None:
        with said.lines("build a"):
            inside.set()
            go.wait(5)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert inside.wait(5)
    assert "\x1b[?25h" not in out.getvalue()
    said.close()
    assert "\x1b[?25h" in out.getvalue()
    said.close()
    go.set()
    thread.join(5)
    assert not thread.is_alive()


def test_output_of_a_program_in_a_log() -> None:
    out = io.StringIO()
    with on(out).lines("build a", keep="RUN ") as show:
        show("#5 [2/4] RUN   uv pip install   --quiet " + "x" * 100)
        show("#5 0.3 noise")
    with on(out).lines("pull a") as show:
        show("RUN is not shown where nothing is kept")
    (line,) = out.getvalue().splitlines()
    assert line.startswith("  build a: #5 [2/4] RUN uv pip install --quiet xxx")
    assert len(line) <= 80


def test_bytes_in_a_log_are_told_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("lading.console.time.monotonic", lambda: now[0])
    out = io.StringIO()
    with on(out).transfer("fetch a", 40_000_000) as advance:
        for second in range(1, 32):
            now[0] = float(second)
            advance(1_000_000)
    assert out.getvalue().splitlines() == [
        "fetch a: 10 of 40 MB",
        "fetch a: 20 of 40 MB",
        "fetch a: 30 of 40 MB",
    ]


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_threads_do_not_write_into_each_others_lines(stream: type[io.StringIO]) -> None:
    out = stream()
    said = on(out)

    def work(name: str) -> None:
        with said.lines(f"build {name}", keep="RUN") as show:
            for number in range(10):
                show(f"RUN {name}{number}")
                said.failed("check", name, 1.0, f"{name} first\n{name} second\n{name} third")

    threads = [threading.Thread(target=work, args=(name * 3,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).replace("\r", "\n")
    blocks = re.findall(
        r"check +(\w+)  failed after 1\.0 s\n  (\w+) first\n  (\w+) second\n  (\w+) third\n",
        plain,
    )
    assert len(blocks) == 8 * 10
    assert all(len(set(block)) == 1 for block in blocks)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_stream_that_knows_fewer_characters(encoding: str) -> None:
    raw = io.BytesIO()
    said = Console(io.TextIOWrapper(raw, encoding=encoding), {})
    said.done("build", "a", 1, "1 → 2")
    assert raw.getvalue().startswith(b"build      a  1.0 s ")
    assert raw.getvalue().endswith(b" 1 ? 2\n")


def test_nobody_reads_any_more() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    said = on(Gone())
    said.note("a")
    said.note("b")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (11.84, "11.8 s"), (99.9, "99.9 s"), (100, "1 min 40 s"), (119.6, "2 min 0 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (15_400, "15 kB"),
        (9_500_000, "9.5 MB"),
        (248_123_456, "248 MB"),
        (1_500_000_000, "1.5 GB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_long_lines_are_cut() -> None:
    assert shortened("  a \t b\n") == "  a b"
    assert shortened("x" * 90, 80) == "x" * 79 + "…"
    assert len(shortened("word " * 100)) == 200


def test_rich_is_only_imported_when_something_is_drawn() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from lading.console import Console; c = Console(); c.note('x')\n"
        "with c.lines('a') as show: show('b')\n"
        "assert not [m for m in sys.modules if m.split('.')[0] == 'rich'], 'rich'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=console.__file__[:-18])
