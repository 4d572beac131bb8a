"""How findings are grouped, allowed, printed and handed on; the command; whole MPI images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lading.checks import __main__ as command
from lading.checks.__main__ import main
from lading.checks.portability import Allowed, allowed, table
from lading.errors import DeclarationError
from tests.unit.checks.elves import elf
from tests.unit.checks.made import Item, binary, examined, named, where
from tests.unit.checks.test_portability_table import LOCAL, MPICH, SITE, USER, VENV, WHEEL

CLOSED = {f"opt/x{i}": Item(mode=0o600) for i in range(9)}


def test_one_fault_at_many_places_is_one_finding(tmp_path: Path) -> None:
    report = examined(tmp_path, CLOSED, {"srv/x": Item(mode=0o600)})
    error, warning = named(report, "F1")
    assert (error.count, error.paths) == (9, tuple(f"/opt/x{i}" for i in range(5)))
    assert (warning.count, warning.paths) == (1, ("/srv/x",))
    assert (len(report.errors), len(report.warnings)) == (1, 1)


def test_the_gravest_comes_first(tmp_path: Path) -> None:
    report = examined(tmp_path, CLOSED, env={"X": "`", "LANG": "-", "HOME": "/x"})
    levels = [finding.level for finding in report.findings]
    assert [finding.id for finding in report.findings] == ["E1", "F1", "E3", "E7"]
    assert levels == ["error", "error", "warn", "info"]


def test_what_is_allowed_is_shown_and_is_no_error(tmp_path: Path) -> None:
    allow = [
        Allowed(id="F1", path="/opt/x[0-3]", reason="a licence"),
        Allowed(id="E1", path="X", reason="known"),
        Allowed(id="F1", path="/opt/y"),
    ]
    report = examined(tmp_path, CLOSED, env={"X": "`"}, allow=allow)
    assert [(f.id, f.count, f.allowed) for f in report.findings] == [
        ("F1", 5, None),
        ("E1", 1, "known"),
        ("F1", 4, "a licence"),
    ]
    assert len(report.errors) == 1
    assert report.unused == (allow[2],)
    text = "\n".join(table(report))
    assert "allowed: a licence" in text
    assert "/opt/y is allowed, and not found" in text


@pytest.mark.parametrize("text", ["", "F1", "F1:", ":/x", "f1:/x", "F:/x", "F1 /x"])
def test_an_allowance_that_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(DeclarationError):
        allowed(text)


def test_an_allowance_is_an_id_and_a_path() -> None:
    assert allowed("F12:/a:b", "why") == Allowed(id="F12", path="/a:b", reason="why")


@pytest.mark.parametrize("width", [80, 60, 120])
def test_the_table_fits(tmp_path: Path, width: int) -> None:
    long = "opt/" + "/".join("a-long-name-of-a-folder" for _ in range(10))
    report = examined(
        tmp_path,
        {f"{long}/x": Item(mode=0o600), "opt/\x1b[31m\n": Item(mode=0o600)},
        LOCAL,
        {"opt/m.so": binary(elf(needed=["libmpi.so.12"], rpath="/usr/local/lib"))},
        config={"User": "me", "WorkingDir": "/w" * 80},
    )
    lines = table(report, width)
    assert max(map(len, lines)) <= width
    assert all(line.isprintable() and line == line.rstrip() for line in lines)
    assert lines[-1].endswith("warnings)") or "warnings" in "".join(lines[-2:])


def test_the_table_reads_like_this(tmp_path: Path) -> None:
    report = examined(tmp_path, {f"opt/x{i}": Item(mode=0o600) for i in range(2)})
    assert table(report) == [
        "error   F1  /opt/x0 and 1 more",
        "            /opt/x1",
        "              others than its owner can't read this file, and nobody is root",
        "              -> chmod a+rX it; COPY --chmod, or umask 022 in the step that",
        "              makes it",
        "image.tar: not ready for Apptainer (1 error, 0 warnings)",
    ]


def test_a_report_is_plain_data(tmp_path: Path) -> None:
    report = examined(tmp_path, CLOSED, VENV, env={"PATH": "/opt/venv/bin:/usr/bin"})
    found = json.loads(json.dumps(report.to_dict()))
    assert (found["passed"], found["errors"], found["warnings"]) == (False, 1, 0)
    assert found["findings"][0]["id"] == "F1"
    assert found["facts"]["python"] == "3.13.5"


def test_a_name_that_is_not_utf_8_is_escaped_in_facts_too(tmp_path: Path) -> None:
    user = {"opt/\udcff.so": binary(elf(needed=["libmpich.so.12"]))}
    allow = [Allowed(id="F1", path="/\udcff")]
    report = examined(tmp_path, user, allow=allow)
    assert report.facts["mpi"]["why"] == "M1 /opt/\\xff.so; M2 /opt/\\xff.so"
    assert json.dumps(report.to_dict()["facts"], ensure_ascii=False).encode()
    assert "\n".join(table(report)).encode()


def test_a_setting_without_end_is_cut_off(tmp_path: Path) -> None:
    report = examined(tmp_path, config={"WorkingDir": "/" + "w" * 100_000})
    assert sum(map(len, table(report))) < 8000


# -- the command ----------------------------------------------------------------------------------


def test_the_command_says_by_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examined(tmp_path, CLOSED)
    file = str(tmp_path / "image.tar")
    assert main([file]) == 1
    assert "not ready for Apptainer (1 error, 0 warnings)" in capsys.readouterr().out
    assert main([file, "--allow", "F1:/opt/*"]) == 0
    assert "ready for Apptainer (0 errors, 0 warnings, 1 allowed)" in capsys.readouterr().out
    assert main([file, "--platform", "linux/arm64", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {finding["id"] for finding in found["findings"]} == {"A4", "F1"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["none.tar"], 3),
        (["."], 3),
        (["image.tar", "--allow", "x"], 3),
        (["image.tar", "--mpi", "lam"], 3),
        ([], 3),
        (["damaged.tar"], 1),
    ],
)
def test_what_can_not_be_read_is_said_without_a_traceback(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    examined(tmp_path)
    (tmp_path / "damaged.tar").write_bytes((tmp_path / "image.tar").read_bytes()[:3000])
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.err and "Traceback" not in captured.err and not captured.out


def test_ctrl_c_is_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "examine", stopped)
    assert main([str(tmp_path / "image.tar")]) == 130
    assert capsys.readouterr().err == "stopped\n"


# -- whole images with MPI ------------------------------------------------------------------------


def test_a_wheel_with_mpich_in_usr_local_can_be_swapped(tmp_path: Path) -> None:
    report = examined(tmp_path, VENV, WHEEL, LOCAL, mpi="mpich")
    assert report.errors == ()
    mpi = report.facts["mpi"]
    assert (mpi["swap"], mpi["flavour"], mpi["soname"]) == ("yes", "mpich", "libmpi.so.12")
    assert mpi["library"] == "/usr/local/lib/libmpi.so.12"


def test_a_wheel_with_mpich_in_its_venv_can_not(tmp_path: Path) -> None:
    files = {**VENV, **WHEEL, "opt/venv/lib/libmpi.so.12": binary(MPICH)}
    report = examined(tmp_path, files, mpi="mpich")
    assert [finding.id for finding in report.errors] == ["M4"]
    assert report.facts["mpi"]["swap"] == "no"
    # With MPI4PY_MPIABI nothing opens it any more, and nothing finds it either.
    report = examined(tmp_path, files, mpi="mpich", env={"MPI4PY_MPIABI": "mpich"})
    assert where(report, "M4") == []


def test_a_wheel_searches_the_prefix_of_its_python_but_not_usr(tmp_path: Path) -> None:
    # mpi4py/_mpiabi.py: `lib` of sys.exec_prefix, unless that is /usr.
    for prefix, ids in (("usr/local", ["/usr/local"]), ("usr", [])):
        site = f"{prefix}/lib/python3.13/site-packages"
        module = f"{site}/mpi4py/MPI.mpich.cpython-313-x86_64-linux-gnu.so"
        library = {f"{prefix}/lib/libmpi.so.12": binary(MPICH), module: binary(USER)}
        found = where(examined(tmp_path, library), "M4", "error")
        assert found == [f"{one}/lib/python3.13/site-packages/mpi4py" for one in ids]


def test_debians_mpich_can_not(tmp_path: Path) -> None:
    files = {
        "usr/lib/x86_64-linux-gnu/libmpich.so.12": binary(
            elf(soname="libmpich.so.12", defines=["MPI_Init", "PMPI_Init"])
        ),
        "usr/lib/python3/dist-packages/mpi4py/MPI.cpython-313.so": binary(
            elf(needed=["libmpich.so.12"])
        ),
    }
    report = examined(tmp_path, files, mpi="mpich")
    assert [finding.id for finding in report.errors] == ["M1", "M2"]
    assert report.facts["mpi"]["swap"] == "no"


def test_the_newest_glibc_that_an_mpi_library_needs_is_a_fact(tmp_path: Path) -> None:
    library = elf(soname="libmpi.so.12", strings=["GLIBC_2.2.5", "GLIBC_2.34"])
    libc = elf(soname="libc.so.6", strings=["GLIBC_2.41"])
    report = examined(
        tmp_path,
        LOCAL,
        {
            "usr/local/lib/libmpi.so.12": binary(library),
            "usr/lib/libc.so.6": binary(libc),
            f"{SITE}/x.so": binary(USER),
        },
    )
    assert report.facts["glibc"] == "2.41"
    assert report.facts["mpi"]["glibc_needed"] == "2.34"
    assert report.facts["mpi"]["users"] == 1


def test_an_image_without_mpi_says_nothing_about_it(tmp_path: Path) -> None:
    report = examined(tmp_path, VENV)
    assert report.facts["mpi"] == {}
    assert not [f for f in report.findings if f.id.startswith("M")]
