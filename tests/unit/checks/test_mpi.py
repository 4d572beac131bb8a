"""The MPI checks on a recording engine: what is run, and what follows from what it prints."""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading import uv
from lading.checks.mpi import HostMpi, MpiReport, NoHost, host, inside, judge, run
from lading.checks.mpi.host import choose, locked, needed, unpack
from lading.checks.mpi.inside import Said, parts
from lading.engines import RunResult
from lading.engines.fake import RecordingEngine
from lading.errors import LadingError
from lading.layers import mpi_image
from lading.layers.source_image import LDCONFIG
from lading.store import Store

MODULE = "/opt/venv/lib/python3.13/site-packages/mpi4py/MPI.mpich.so"
OWN = "/usr/lib/libmpi.so.12.2.2"
HYDRA = "HYDRA build details:\n    Version:                                 4.0.2"
PLATFORM = "linux/amd64"


def part(name: str, text: str, code: int = 0) -> str:
    return f"\n@part {name}\n{text}\n\n@code {code}\n"


def rank(number: int, size: int = 2, **changed: Any) -> str:
    said = {
        "rank": number,
        "size": size,
        "version": "MPICH Version: 4.0.2 MPICH Release date: Thu Apr 7",
        "module": MODULE,
        "mapped": [OWN],
        "ring": 0.004,
        **changed,
    }
    return f"\n@rank {json.dumps(said)}\n"


def both(**changed: Any) -> str:
    return rank(1, **changed) + rank(0, **changed)


def hello(*pairs: tuple[int, int]) -> str:
    return "\n".join(f"Hello, World! I am process {r} of {s} on x." for r, s in pairs)


def own(**changed: str) -> str:
    """What an image with MPICH 4.0.2 and mpi4py prints."""
    said = {
        "glibc": part("glibc", "glibc 2.31"),
        "launcher": part("launcher", HYDRA),
        "ranks": part("ranks", both()),
        "helloworld": part("helloworld", hello((0, 2), (1, 2))),
        **changed,
    }
    return "".join(said.values())


def hosts(way: str, path: str, version: str = "5.0.2", name: str = "ranks") -> str:
    answer = both(version=f"MPICH Version: {version} x", mapped=[path])
    return part(f"{way} {name}", answer)


WELL = hosts("lib", "/host/mpi/lib/libmpi.so.12") + hosts(
    "vendor", "/host/mpi/vendor/libmpi_gnu_91.so.12"
)
BOUND = hosts("needs", OWN)


@pytest.fixture
def stand_in(tmp_path: Path) -> HostMpi:
    return HostMpi(flavour="mpich", version="5.0.2", glibc="2.28", folder=tmp_path)


def checked(
    stand_in: HostMpi | NoHost, *outputs: str, flavour: str = "mpich"
) -> tuple[MpiReport, RecordingEngine]:
    engine = RecordingEngine()
    engine.results = [RunResult(code=0, output=text) for text in outputs]
    return run(engine, "sha256:1", flavour, lambda version, glibc: stand_in), engine


def test_runs_as_apptainer_would(stand_in: HostMpi) -> None:
    _, engine = checked(stand_in, own(), WELL, BOUND)
    runs = engine.named("run")
    assert len(runs) == 3
    for one in runs:
        assert one["user"] == "1000:1000"
        assert one["read_only"] is True
        assert one["network"] == "none"
        assert set(one["tmpfs"]) >= {"/home/user", "/tmp"}
        assert one["env"]["HOME"] == "/home/user"
        assert all(mount.read_only for mount in one["mounts"])
    assert runs[0]["mounts"] == ()
    assert [mount.target for mount in runs[1]["mounts"]] == ["/host/mpi"]
    assert [mount.target for mount in runs[2]["mounts"]] == ["/host/mpi", OWN]
    assert runs[1]["env"]["WAYS"] == "lib vendor"


def test_all_is_well(stand_in: HostMpi) -> None:
    report, _ = checked(stand_in, own(), WELL, BOUND)
    assert report.passed
    assert report.swap == "yes"
    assert report.mpi == "MPICH 4.0.2"
    assert report.soname == "libmpi.so.12"
    assert report.library == OWN
    assert report.glibc == "2.31"
    assert report.host == "MPICH 5.0.2"
    assert report.lines() == [
        "MPI: MPICH 4.0.2, ABI of MPICH, libmpi.so.12",
        "glibc: 2.31; a host's MPI must not need a newer one",
        "passed  mpiexec -n 2: ranks of 2",
        "passed  ring exchange of 1 MiB  4.0 ms",
        "passed  mpi4py.bench helloworld",
        "swap: yes (MPICH 5.0.2)",
        "  yes  by LD_LIBRARY_PATH",
        "  yes  under a vendor's name",
        "  yes  bound over the image's own",
    ]
    written = json.loads(json.dumps(report.to_dict()))
    assert (written["swap"], written["passed"], written["mpi"]) == ("yes", True, "MPICH 4.0.2")


ALONE = "the launcher and the library are of different MPIs"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"ranks": part("ranks", both(size=1, rank=0))}, ALONE),
        ({"helloworld": part("helloworld", hello((0, 1), (0, 1)))}, ALONE),
        ({"ranks": part("ranks", rank(0))}, "2 ranks were started"),
        ({"ranks": part("ranks", rank(0) + rank(0))}, "2 ranks were started"),
        ({"ranks": part("ranks", both(ring=None))}, "another block came back"),
        ({"ranks": part("ranks", "ImportError: no", 1)}, "exit code 1\nImportError: no"),
        ({"ranks": part("ranks", "", 124)}, "did not end within 120 seconds"),
        ({"ranks": part("ranks", "@rank {broken")}, "no rank says who it is"),
        ({"launcher": ""}, "mpiexec: the image has none on its PATH"),
        ({"launcher": part("launcher", "libprrte.so.3: not found", 127)}, "libprrte.so.3"),
        ({"run": part("run cpi", "Process 0 of 1 is on x\nProcess 0 of 1 is on x")}, ALONE),
        ({"ranks": "", "helloworld": ""}, "the image has no mpi4py or cpi"),
    ],
)
def test_what_does_not_run_is_said(stand_in: HostMpi, changed: Mapping[str, str], why: str) -> None:
    report, engine = checked(stand_in, own(**changed))
    assert not report.passed
    assert why in "\n".join(report.problems)
    assert report.swap == "not shown"
    assert len(engine.named("run")) == 1


def test_a_launcher_of_another_mpi_is_named(stand_in: HostMpi) -> None:
    report, _ = checked(
        stand_in,
        own(
            launcher=part("launcher", "mpiexec (OpenRTE) 4.1.4\nmpirun (Open MPI) 4.1.4"),
            ranks=part("ranks", both(size=1, rank=0)),
        ),
    )
    assert "(mpiexec is Open MPI 4.1.4, the library is MPICH 4.0.2)" in report.problems[0]


def test_another_mpi_than_declared(stand_in: HostMpi) -> None:
    report, _ = checked(stand_in, own(), flavour="openmpi")
    assert report.problems == (
        "mpi: openmpi: the image declares `mpi: openmpi`, and MPICH 4.0.2 answers in it",
    )


def test_no_stand_in_is_no_error() -> None:
    report, _ = checked(NoHost(why="the image has glibc 2.17"), own())
    assert report.passed
    assert report.swap == "not shown"
    assert report.lines()[-1] == "  not shown  any: the image has glibc 2.17"


def test_without_a_finder_no_host_is_tried() -> None:
    engine = RecordingEngine()
    engine.results = [RunResult(code=0, output=own())]
    report = run(engine, "sha256:1", "mpich", None)
    assert (report.passed, report.swap, report.swaps) == (True, "not shown", ())


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (both(version="MPICH Version: 5.0.2", mapped=[OWN]), f"{OWN} of the image is loaded"),
        (both(version="MPICH Version: 4.0.2", mapped=[]), f"MPI is linked into {MODULE}"),
        (
            both(mapped=["/usr/lib/libmpich.so.12"]),
            "by Debian's name for it, where a host has libmpi.so.12",
        ),
        (both(mapped=["/host/mpi/lib/libmpi.so.12"]), "MPICH 4.0.2 answers, not MPICH 5.0.2"),
        ("ImportError: undefined symbol: MPI_X", "it does not run (exit code 0)"),
        (both(version="?", mapped=["/host/mpi/lib/libmpi.so.12"]), "? answers, not MPICH 5.0.2"),
        (
            rank(0, version="MPICH Version: 5.0.2", mapped=["/host/mpi/lib/libmpi.so.12"]),
            "the ranks do not meet: 0 of 2",
        ),
    ],
)
def test_why_a_host_does_not_take_over(stand_in: HostMpi, answer: str, why: str) -> None:
    report, _ = checked(stand_in, own(), part("lib ranks", answer), BOUND, "")
    assert report.swap == "no"
    assert why in report.swaps[0].why
    assert any("does not take over (by LD_LIBRARY_PATH" in text for text in report.problems)


def test_the_loader_is_asked_why(stand_in: HostMpi) -> None:
    passed_over = part("lib ranks", both()) + part("vendor ranks", both())
    told = part("python", OPENED)
    report, engine = checked(stand_in, own(), passed_over, BOUND, told)
    assert len(engine.named("run")) == 4
    assert len(report.problems) == 1
    assert report.problems[0].endswith(
        "(by LD_LIBRARY_PATH, under a vendor's name): /opt/venv/lib/libmpi.so.12 of the image is "
        "opened by its full path, by mpi4py's wheel\n-> ENV MPI4PY_MPIABI=mpich"
    )


# LD_DEBUG=libs,files of glibc 2.41, shortened.
OPENED = """\
         6:\tfile=/opt/venv/lib/libmpi.so [0];  dynamically loaded by /usr/lib/_ctypes.so [0]
         6:\tfile=/opt/venv/lib/libmpi.so.12 [0];  dynamically loaded by /usr/lib/_ctypes.so [0]
         6:\tfile=/opt/venv/lib/libmpi.so.12 [0];  generating link map
"""
RPATH = """\
         6:\tfile=libmpi.so.12 [0];  needed by /usr/bin/cpi [0]
         6:\tfind library=libmpi.so.12 [0]; searching
         6:\t search path=/usr/lib/mpi/glibc-hwcaps/x86-64-v3:/usr/lib/mpi\
\t\t(RPATH from file /usr/bin/cpi)
         6:\t  trying file=/usr/lib/mpi/glibc-hwcaps/x86-64-v3/libmpi.so.12
         6:\t  trying file=/usr/lib/mpi/libmpi.so.12
         6:\tfile=libmpi.so.12 [0];  generating link map
"""
ELSEWHERE = """\
         6:\t search path=/usr/lib/mpi\t\t(RPATH from file /usr/bin/cpi)
         6:\t  trying file=/usr/lib/mpi/libmpi.so.12
         6:\t search path=/host/mpi/lib\t\t(LD_LIBRARY_PATH)
         6:\t  trying file=/host/mpi/lib/libmpi.so.12
         6:\tfile=libmpi.so.12 [0];  generating link map
"""


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (OPENED, "/opt/venv/lib/libmpi.so.12 of the image is opened by its full path"),
        (RPATH, "/usr/bin/cpi has a DT_RPATH that leads to /usr/lib/mpi/libmpi.so.12"),
        (ELSEWHERE, ""),
        ("", ""),
    ],
)
def test_what_the_loader_says(said: str, why: str) -> None:
    found = judge.explained({"x": Said(code=0, output=said)}, "mpich")
    assert why in (found.why if found else "")
    assert bool(found) == bool(why)


def test_an_mpi4py_that_is_told_and_opens_it_all_the_same() -> None:
    said = {"abi": Said(code=0, output="mpich"), "x": Said(code=0, output=OPENED)}
    found = judge.explained(said, "mpich")
    assert found is not None
    assert "/usr/local" in found.do


# -- programs without Python ----------------------------------------------------------------

CPI = "Process 0 of 2 is on x\nProcess 1 of 2 is on x\npi is approximately 3.14"


def traced(path: str) -> str:
    return (
        "\tlinux-vdso.so.1 (0x00007ffd)\n"
        f"\tlibmpi.so.12 => {path} (0x00007f1a)\n"
        "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1a)\n"
        "\t/lib64/ld-linux-x86-64.so.2 (0x00007f1b)\n"
    )


def program(way: str, path: str, ran: str = CPI, same: int = 0) -> str:
    return (
        part(f"{way}linked cpi", traced(path))
        + part(f"{way}same cpi", "", same)
        + part(f"{way}run cpi", ran)
    )


BY_LINK = "/lib/libmpi.so.12"
PROGRAM_ALONE = {
    "ranks": "",
    "helloworld": "",
    "cpi": program("", BY_LINK) + part("real cpi", f"{OWN}\n/usr/lib/libc.so.6"),
}


def test_a_program_alone(stand_in: HostMpi) -> None:
    report, engine = checked(
        stand_in,
        own(**PROGRAM_ALONE),
        program("lib ", "/host/mpi/lib/libmpi.so.12")
        + program("vendor ", "/host/mpi/vendor/libmpi.so.12"),
        program("needs ", BY_LINK),
    )
    assert report.problems == ()
    assert report.swap == "yes"
    assert report.mpi == "MPICH 4.0.2"  # as its launcher says
    assert [mount.target for mount in engine.named("run")[2]["mounts"]] == ["/host/mpi", OWN]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (program("lib ", "/host/mpi/lib/libmpi.so.12", same=1), "another file than the host's"),
        ("", "cpi was not seen to run with the host's MPI"),
        (program("lib ", BY_LINK), f"cpi takes {BY_LINK}, of the image"),
        (program("lib ", "/host/mpi/lib/libmpi.so.12", "Abort"), "cpi does not run with"),
        (
            part("lib linked cpi", "\tstatically linked") + part("lib run cpi", CPI),
            "cpi asks for no MPI library: MPI is linked into it",
        ),
    ],
)
def test_a_program_that_does_not_swap(stand_in: HostMpi, said: str, why: str) -> None:
    report, _ = checked(stand_in, own(**PROGRAM_ALONE), said, program("needs ", BY_LINK), "")
    assert report.swap == "no"
    assert why in report.swaps[0].why


# -- what is printed ------------------------------------------------------------------------


@given(st.lists(st.tuples(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(max_size=60))))
def test_parts_are_found_whatever_is_between_them(said: list[tuple[str, str]]) -> None:
    clean = [(name, text.replace("@", "").replace("\r", "")) for name, text in said]
    found = parts("noise\n" + "".join(part(name, text) for name, text in clean) + "@part x\nno end")
    assert set(found) == {name for name, _ in clean}
    last = dict(clean)
    assert {name: one.output for name, one in found.items()} == {
        name: text.strip("\n") for name, text in last.items()
    }


def test_a_program_that_is_not_seen_again_is_no_yes(stand_in: HostMpi) -> None:
    cpi = {"cpi": program("", BY_LINK) + part("real cpi", OWN)}
    report, _ = checked(stand_in, own(**cpi), WELL, BOUND)
    assert [swap.verdict for swap in report.swaps] == ["no", "no", "no"]
    assert "cpi was not seen" in report.swaps[0].why


def test_a_container_that_dies_shows_nothing(stand_in: HostMpi) -> None:
    report, _ = checked(stand_in, own(), "", "")
    assert [swap.verdict for swap in report.swaps] == ["no", "no", "no"]


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x), max_leaves=4))
def test_ranks_of_any_kind(value: Any) -> None:
    for name in ("rank", "size", "version", "module", "mapped", "ring"):
        judge.ranks(Said(code=0, output=rank(0) + rank(1, **{name: value})))


@given(st.text())
def test_ranks_of_anything(text: str) -> None:
    judge.ranks(Said(code=0, output=text + "\n@rank {" + text + "}\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MPICH Version:\t3.4.3 MPICH Release date:\tThu", ("MPICH", "3.4.3")),
        ("Open MPI v5.0.11, package: Open MPI user@x", ("Open MPI", "5.0.11")),
        ("mpirun (Open MPI) 5.0.11\n\nReport bugs", ("Open MPI", "5.0.11")),
        ("MPI VERSION : CRAY MPICH version 8.1.29.8 (ANL base 3.4a2)", ("Cray MPICH", "8.1.29.8")),
        ("Intel(R) MPI Library 2021.17 for Linux* OS", ("Intel MPI", "2021.17")),
        (HYDRA, ("MPICH", "4.0.2")),
        ("something else", ("", "")),
    ],
)
def test_versions(text: str, expected: tuple[str, str]) -> None:
    assert judge.known(text) == expected


# -- the stand-in ---------------------------------------------------------------------------


def test_stand_ins_are_locked_for_each_platform() -> None:
    pins = locked()
    for flavour in ("mpich", "openmpi"):
        for platform in ("linux/amd64", "linux/arm64"):
            for version in ("", *(pin.version for pin in pins)):
                found = choose(pins, flavour, platform, version, "2.31")
                assert not isinstance(found, NoHost)
                assert found.version != version
                assert needed(found) == "2.28"


def test_the_newest_of_another_version_stands_in() -> None:
    pins = locked()
    newest, next_one = dict.fromkeys(pin.version for pin in pins if pin.name == "mpich")
    for version, expected in (("4.0.2", newest), (newest, next_one), (f"{newest}.post1", next_one)):
        found = choose(pins, "mpich", PLATFORM, version, "")
        assert not isinstance(found, NoHost)
        assert found.version == expected


def test_an_old_glibc_is_said() -> None:
    found = choose(locked(), "mpich", PLATFORM, "4.0.2", "2.17")
    assert isinstance(found, NoHost)
    assert "glibc 2.17" in found.why
    assert "2.28" in found.why
    assert isinstance(choose((), "mpich", PLATFORM, "", ""), NoHost)


def test_an_index_without_the_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locate(*_: object, **__: object) -> None:
        raise uv.NotResolved("there is no version of mpich==5.0.2\nand more")

    monkeypatch.setattr(uv, "locate", locate)
    found = host.finder("mpich", PLATFORM, Store(tmp_path), {})("4.0.2", "2.31")
    assert isinstance(found, NoHost)
    assert "mpich==5.0.2" in found.why
    assert found.why.endswith("there is no version of mpich==5.0.2")


def wheel(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def test_a_wheel_is_laid_out_in_three_ways(tmp_path: Path) -> None:
    data = "mpich-5.0.2.data/data"
    made = wheel(
        tmp_path / "x.whl",
        f"{data}/bin/mpiexec",
        f"{data}/include/mpi.h",
        f"{data}/lib/libmpi.so",
        f"{data}/lib/libmpi.so.12",
        f"{data}/lib/libother.so.1",
        f"{data}/lib/mpich/libfabric.so.1",
        f"{data}/../../escaped",
        "mpich-5.0.2.dist-info/METADATA",
    )
    folder = tmp_path / "made" / "here"
    unpack(made, folder, "mpich")
    assert sorted(path.name for path in folder.iterdir()) == ["bin", "lib", "needs", "vendor"]
    assert not list(tmp_path.rglob("escaped"))
    assert (folder / "bin/mpiexec").stat().st_mode & 0o777 == 0o755
    vendors = folder / "vendor"
    assert (vendors / "libmpi.so.12").resolve() == vendors / host.VENDORS
    assert (vendors / host.VENDORS).read_text() == f"{data}/lib/libmpi.so.12"
    for name in ("vendor", "needs"):
        assert (folder / name / "mpich/libfabric.so.1").is_file()
        assert (folder / name / "libother.so.1").is_file()
    assert not list((folder / "needs").glob("libmpi*"))


def test_a_wheel_of_something_else_is_refused(tmp_path: Path) -> None:
    made = wheel(tmp_path / "x.whl", "x.data/data/lib/libelse.so")
    with pytest.raises(LadingError, match=r"no libmpi\.so\.12"):
        unpack(made, tmp_path / "made", "mpich")


def test_the_scripts_are_shell(tmp_path: Path) -> None:
    for script in (inside.OWN, inside.TAKEN, inside.LOADED):
        text = inside.START + script
        subprocess.run(["sh", "-n"], input=text, text=True, check=True)
    # In an image that has nothing, each part still says how it ended.
    command = ["/bin/sh", "-c", inside.START + inside.OWN, "sh", "rank", "cpi"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert parts(done.stdout)["glibc"].code == 127


# -- what such an image needs ---------------------------------------------------------------


def test_what_an_image_of_wheels_needs() -> None:
    pins = {"mpi4py": "4.1.2", "mpich": "5.0.2"}
    assert mpi_image.environment("mpich", pins, "/opt/venv") == {"MPI4PY_MPIABI": "mpich"}
    (step,) = mpi_image.steps("mpich", pins, "/opt/venv")
    assert any("/opt/venv/lib >" in command for command in step.commands)
    assert step.commands[-1] == LDCONFIG


@pytest.mark.parametrize(
    ("version", "moves"), [("4.1.2", False), ("4.2.0.dev0", True), ("5", True)]
)
def test_an_mpi4py_that_would_open_it_finds_nothing(version: str, moves: bool) -> None:
    (step,) = mpi_image.steps("mpich", {"mpi4py": version, "mpich": "5.0.2"}, "/opt/venv")
    assert any(command.startswith("mv ") for command in step.commands) == moves
    assert any("/lib/lading-mpi >" in command for command in step.commands) == moves


def test_what_is_not_of_wheels_needs_less() -> None:
    assert mpi_image.steps("mpich", {"mpi4py": "3.1.3"}, "/opt/venv") == ()
    assert mpi_image.steps("openmpi", {"mpich": "5.0.2"}, "/opt/venv") == ()
    assert mpi_image.environment("mpich", {"numpy": "2"}, "/opt/venv") == {}


def test_the_stand_in_is_expected_by_what_is_known_before(tmp_path: Path) -> None:
    newest = next(pin for pin in locked() if pin.name == "mpich")
    expected = host.expected("mpich", PLATFORM, {"4.0.2", ""}, "2.31")
    assert expected is not None
    assert expected.version == newest.version
    other = host.expected("mpich", PLATFORM, {newest.version}, "2.31")
    assert other is not None
    assert other.version != newest.version
    assert host.expected("mpich", PLATFORM, set(), "2.17") is None


def test_one_that_is_unpacked_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    pin = next(pin for pin in locked() if pin.name == "mpich")
    assert not host.there(pin, store)
    store.derived(pin.artifact.sha256, host.LAYOUT, lambda folder: folder.mkdir())
    assert host.there(pin, store)

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("the index was asked")

    monkeypatch.setattr(uv, "locate", asked)
    found = host.fetched(pin, "mpich", PLATFORM, store, {})
    assert found.folder == store.made(pin.artifact.sha256, host.LAYOUT)
