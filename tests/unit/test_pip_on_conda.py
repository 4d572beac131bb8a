"""pip's packages on top of conda's: what is locked, what is refused, and where they go."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import date
from importlib.metadata import version as version_of
from pathlib import Path

import pytest
from msgspec.structs import replace

from lading import net, uv
from lading.errors import DeclarationError, LadingError
from lading.facts import Facts
from lading.layers import pip, pip_image, pip_settle
from lading.layers.kind import Tools
from lading.layers.pip import Below, PipLock, Request
from lading.layers.pip_section import PipSection
from lading.parts import Start
from lading.process import run
from lading.steps import Run
from lading.store import Store
from tests.support.index import Index, only_loopback

FACTS = Facts(python="/opt/conda/bin/python", python_version="3.12.4", glibc="2.41")
UV = version_of("uv")
HAS = {"six": "1.5.1", "numlike": "2025.1+conda", "odd": "unknown"}


def _no_stage(_tools: Tools) -> Path:
    raise AssertionError("nothing is built here")


BELOW = Below(prefix="/opt/conda", distributions=HAS, key="0" * 64, stage=_no_stage)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uv-cache")


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> Iterator[Index]:
    only_loopback(monkeypatch, tmp_path, cache)
    monkeypatch.setattr(net, "BACKOFF", 0.0)
    with Index() as made:
        monkeypatch.setenv("UV_DEFAULT_INDEX", made.url)
        made.wheel("uv", UV, tags="py3-none-manylinux_2_17_x86_64")
        made.wheel("six", "1.17.0")
        made.wheel("a", "1.0", requires=["six>=1.5", "numlike"])
        made.wheel("a", "2.0", requires=["six>=1.16"])
        yield made


Ask = Callable[..., Request]


@pytest.fixture
def asked(tmp_path: Path) -> Ask:
    def ask(text: str, yaml: str = "", below: Below | None = BELOW, **more: object) -> Request:
        (tmp_path / "requirements.in").write_text(text)
        given = {"recipes/environment.yml": yaml.encode()} if yaml else {}
        return pip.request(
            tmp_path,
            "lab",
            PipSection(requirements="requirements.in" if text else ""),
            FACTS,
            "linux/amd64",
            date(2025, 6, 1) if more.get("dated") else None,
            below=below,
            given=given,
        )

    return ask


def locked(
    asked: Request,
    tmp_path: Path,
    old: PipLock | None = None,
    note: Callable[[str], None] = print,
) -> PipLock:
    def no_engine() -> uv.Runner:
        raise AssertionError("no engine is needed")

    return pip.lock(asked, old, Store(tmp_path / "store"), {}, in_base=no_engine, note=note)


def test_what_conda_installs_is_taken(index: Index, asked: Ask, tmp_path: Path) -> None:
    """Also what no index has at all, and what is younger than the day that counts."""
    for dated in (False, True):
        lock = locked(asked("a\nsix\n", dated=dated), tmp_path)
        assert [(pin.name, pin.version) for pin in lock.pins] == [("a", "1.0")]
        assert lock.pins[0].via == ("-r requirements.in",)
    assert "six" not in lock.texts["requirements.txt"]
    # Without conda's packages it is the newest of all.
    index.wheel("numlike", "1.0")
    plain = locked(asked("a\n", below=None), tmp_path)
    assert [(pin.name, pin.version) for pin in plain.pins] == [("a", "2.0"), ("six", "1.17.0")]


def test_what_conda_installs_is_an_input(asked: Ask) -> None:
    other = replace(BELOW, distributions={**HAS, "six": "1.6"})
    digests = {asked("a\n", below=below).digest for below in (None, BELOW, other)}
    assert len(digests) == 3
    # Not where the prefix lies, nor how it is staged.
    assert asked("a\n", below=replace(BELOW, prefix="/opt/x", key="1")).digest in digests


def test_a_conflict_names_both_sides(index: Index, asked: Ask, tmp_path: Path) -> None:
    with pytest.raises(LadingError) as refused:
        locked(asked("a==2.0\n"), tmp_path)
    assert "what pip is asked for" in refused.value.what
    assert "(requirements.in:1: a==2.0)" in refused.value.what
    assert "does not fit what conda installs (six 1.5.1)" in refused.value.what
    assert "six>=1.16" in refused.value.why
    with pytest.raises(LadingError, match=r"environment\.yml:2: six>=1\.16"):
        locked(asked("", "\nsix>=1.16\n"), tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("six @ https://x.example/six-1.17.0-py3-none-any.whl", "conda installs six 1.5.1 already"),
        ("six[extra]>=1", "what an extra of it needs is not known"),
        ("Six [extra]", "what an extra of it needs is not known"),
    ],
)
def test_what_conda_can_not_answer(asked: Ask, tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        asked(f"a\n{line}\n")
    assert refused.value.what.startswith(f"requirements.in:2: {line}: ")
    assert said in refused.value.what
    asked("a[extra]\nsix[]\n")
    asked(f"{line}\n", below=None)
    # In a file of constraints, wherever that is named, an extra is wanted of nobody.
    (tmp_path / "limits.txt").write_text(f"{line}\n")
    with nullcontext() if "extra" in line else pytest.raises(DeclarationError, match=r"limits.*:1"):
        asked("-c limits.txt\na\n")


def test_an_extra_that_somebody_wants_of_conda_s_is_told_of(
    index: Index, asked: Ask, tmp_path: Path
) -> None:
    index.wheel("wants", "1.0", requires=["six[more]>=1", "six[more]"])
    notes: list[str] = []
    lock = locked(asked("wants\na\n"), tmp_path, note=notes.append)
    assert [pin.name for pin in lock.pins] == ["a", "wants"]
    assert notes == [
        "  six[more] is wanted, and six is conda's: what that extra needs is not locked; name it, "
        "if it is needed"
    ]


def test_nothing_goes_over_what_can_not_be_compared(
    index: Index, asked: Ask, tmp_path: Path
) -> None:
    """conda installs odd in a version that is none: pip would install another one over it."""
    index.wheel("odd", "1.0")
    with pytest.raises(LadingError, match=r"pip would install odd==1\.0 over conda.s odd unknown"):
        locked(asked("odd\n"), tmp_path)


def test_the_section_of_environment_yaml(index: Index, asked: Ask, tmp_path: Path) -> None:
    """By its name uv would refuse to read it; beside it there can be requirements."""
    index.wheel("b", "1.0")
    lock = locked(asked("", "\n\na\n"), tmp_path)
    assert [pin.via for pin in lock.pins] == [("-r recipes/environment.yml",)]
    both = asked("b\n", "a<2\n")
    assert both.sources.asked == ("requirements.in", "recipes/environment.yml")
    lock = locked(both, tmp_path, lock)
    assert [pin.name for pin in lock.pins] == ["a", "b"]
    assert both.sources.names() == ("a", "b")
    with pytest.raises(LadingError, match=r"recipes/environment\.yml:2: "):
        locked(asked("b\n", "\na==\n"), tmp_path)


def test_where_they_go(index: Index, asked: Ask, tmp_path: Path) -> None:
    """Into conda's prefix, where its Python finds them: nothing more on PATH, no variable."""
    request = asked("", "a\n")
    lock = locked(request, tmp_path)
    start = Start(reference="x", platform="linux/amd64", root=tmp_path, epoch=0)
    added = pip_image.contribute(start, FACTS, lock, request)
    assert added.path == ()
    assert added.env == {}
    assert added.labels == {"python.version": "3.12.4", "python.packages": "a==1.0"}
    (step,) = added.steps
    assert isinstance(step, Run)
    text = " ".join(step.commands)
    assert "uv venv" not in text
    assert "--python /opt/conda/bin/python\n--break-system-packages\n--no-index --no-deps" in text
    assert "--require-hashes" in text
    settle, compile_ = step.commands[-2:]
    assert settle.endswith(
        "pip/settle.py\n/opt/conda/lib/python3.12/site-packages >/dev/shm/modules"
    )
    assert compile_.endswith("/dev/shm/lading/pip/bytecode.py </dev/shm/modules")
    assert added.files["share/requirements/recipes/environment.yml.pip"] == b"a\n"
    assert pip_image.home(request) == "/opt/conda"


# -- after uv ---------------------------------------------------------------------------------


def installed(site: Path, name: str, by: str, modules: dict[str, str]) -> None:
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "INSTALLER").write_text(by)
    (info / "uv_cache.json").write_text("{}")
    for path, text in modules.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    rows = [*modules, f"{info.name}/INSTALLER", f"{info.name}/uv_cache.json", f"{info.name}/RECORD"]
    (info / "RECORD").write_text("".join(f"{row},,\n" for row in rows))


def test_only_what_uv_installed_is_to_be_compiled(tmp_path: Path) -> None:
    modules = {"{}.py": "1\n", "{0}/a.py": "1\n", "{0}/tests/b.py": "1\n"}
    for name, by in (("mine", "uv"), ("theirs", "conda\n")):
        installed(tmp_path, name, by, {path.format(name): t for path, t in modules.items()})
    finished = run([sys.executable, pip_settle.__file__, str(tmp_path)])
    assert finished.code == 0, finished.output
    assert finished.output.splitlines() == [f"{tmp_path}/mine.py", f"{tmp_path}/mine/a.py"]
    assert not (tmp_path / "mine-1.0.dist-info/uv_cache.json").exists()
    assert (tmp_path / "theirs-1.0.dist-info/uv_cache.json").exists()
    with (tmp_path / "mine-1.0.dist-info/RECORD").open(newline="") as file:
        assert [row[0] for row in csv.reader(file)][-2:] == [
            "mine-1.0.dist-info/INSTALLER",
            "mine-1.0.dist-info/RECORD",
        ]
