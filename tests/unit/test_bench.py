"""The benchmark's pure parts: its table, its verdicts, and the projects that it makes up."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from datetime import date
from pathlib import Path

import pytest

from lading import locks
from lading.checks import portability
from lading.errors import LadingError
from lading.locks import Header
from lading.net.configured import Indexes
from lading.project import Base, DebianBase, load
from lading.state import State
from tests.bench import clock, condas, costs, figures, generated, lesson_mpi, network
from tests.bench.__main__ import LESSON, LONG, PARTS, arguments
from tests.bench.clock import Timed
from tests.bench.figures import Figure, Goal, Samples
from tests.bench.lesson import dockerfile
from tests.bench.parts import checks, mpi
from tests.bench.parts.build import was_cached
from tests.bench.parts.lock import hashing
from tests.bench.wire import counting, requests_in
from tests.support import miniconda
from tests.support.projects import REPOSITORY

BASE = Base(name="debian-13", debian=DebianBase(suite="trixie", packages=("python3",)))


def samples(*values: float) -> Samples:
    return Samples(values=values)


# -- figures --------------------------------------------------------------------------------


def test_samples_show_the_median_and_how_far_they_spread() -> None:
    assert str(samples(3.0, 1.0, 2.0)) == "2.00 (1.00–3.00)"
    assert str(samples(0.3124)) == "0.31"
    with pytest.raises(ValueError, match="nothing"):
        Samples(values=())


@pytest.mark.parametrize(
    ("value", "text"), [(0.3124, "0.31"), (9.994, "9.99"), (12.84, "12.8"), (248.4, "248")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert figures.number(value) == text


@pytest.mark.parametrize(
    ("kind", "limit", "ours", "theirs", "reached"),
    [
        ("faster", 15, 1.0, 15.0, True),
        ("faster", 15, 1.0, 14.9, False),
        ("faster", 15, 1.0, None, False),
        ("share", 0.55, 5.5, 10.0, True),
        ("share", 0.55, 5.6, 10.0, False),
        ("share", 1.3, 1.0, None, False),
        ("within", 0.35, 0.35, None, True),
        ("within", 0.35, 0.36, 99.0, False),
    ],
)
def test_goals(kind: str, limit: float, ours: float, theirs: float | None, reached: bool) -> None:
    goal = Goal(kind=kind, limit=limit)  # type: ignore[arg-type]
    assert goal.reached(ours, theirs) is reached


def test_a_ratio_is_shown_the_way_round_that_its_goal_has_it() -> None:
    pair = {"ours": samples(2.0), "theirs": samples(10.0)}
    assert Figure(what="x", goal=Goal(kind="faster", limit=15), **pair).ratio == "5.0×"  # type: ignore[arg-type]
    assert Figure(what="x", goal=Goal(kind="share", limit=1), **pair).ratio == "0.20×"  # type: ignore[arg-type]
    assert Figure(what="x", ours=samples(1.0)).ratio == ""
    assert Figure(what="x", ours=samples(0.0), theirs=samples(1.0)).ratio == ""


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    goal = Goal(kind="share", limit=1)
    assert Figure(what="x", goal=goal, missing="no engine").reached is None
    assert Figure(what="x", goal=goal, ours=samples(1.0)).reached is None
    assert Figure(what="x", ours=samples(1.0)).reached is None


def test_the_table_fits_into_80_columns() -> None:
    wide = Figure(
        what="a name that is longer than its column is wide",
        ours=samples(12.34, 45.67, 89.01),
        theirs=samples(12.34, 45.67, 89.01),
        cpu=88.8,
        unit="MB",
        goal=Goal(kind="share", limit=0.55),
        note="a note " * 20,
    )
    missing = Figure(what="bake", missing="there is no docker client with buildx " * 4)
    text = "\n".join(
        [
            figures.heading(),
            figures.line(wide),
            figures.line(missing),
            figures.conclusion([wide, missing] * 9),
        ]
    )
    assert max(len(line) for line in text.splitlines()) <= figures.WIDTH
    assert "≤0.55 NO" in text


def test_a_line_of_the_table() -> None:
    figure = Figure(
        what="100 images",
        ours=samples(0.4, 0.41, 0.39),
        cpu=0.35,
        goal=Goal(kind="within", limit=0.5),
    )
    expected = "  100 images            0.40 (0.39–0.41) 0.35                          ≤0.5 ok"
    assert figures.line(figure) == expected
    assert figures.heading().splitlines()[0].index("target") == expected.index("≤")


def test_the_conclusion_names_what_was_missed_and_what_is_unknown() -> None:
    goal = Goal(kind="within", limit=1)
    found = [
        Figure(what="good", ours=samples(0.5), goal=goal),
        Figure(what="bad", ours=samples(1.5), goal=goal),
        Figure(what="gone", goal=goal, missing="no engine"),
        Figure(what="told", ours=samples(9.0)),
    ]
    text = figures.conclusion(found)
    assert text == "1 of 2 targets reached\nmissed: bad\nnot measured: gone"


def test_a_busy_machine_is_said_to_be_one() -> None:
    assert figures.busy(0.9, 2) == ""
    text = figures.busy(4.2, 2)
    assert "load 4.2 on 2 CPUs" in text
    assert max(len(line) for line in text.splitlines()) <= figures.WIDTH


# -- clock ----------------------------------------------------------------------------------


def test_a_process_is_timed_and_its_output_kept() -> None:
    run = clock.timed([sys.executable, "-c", "import time; time.sleep(0.2); print('done')"])
    assert run.output == "done\n"
    assert run.seconds >= 0.2
    assert 0 < run.cpu < run.seconds


def test_a_process_that_fails_is_an_error_with_its_last_lines() -> None:
    with pytest.raises(LadingError, match="exit code 3") as caught:
        clock.timed([sys.executable, "-c", "print('why'); raise SystemExit(3)"])
    assert caught.value.why == "why"


def test_contestants_take_turns_until_patience_ends() -> None:
    order: list[str] = []

    def contestant(name: str) -> Timed:
        order.append(name)
        return Timed(seconds=1.0, cpu=0.5, output=name)

    first, second = clock.alternating(2, lambda: contestant("a"), lambda: contestant("b"))
    assert order == ["a", "b", "a", "b"]
    assert [run.output for run in (*first, *second)] == ["a", "a", "b", "b"]
    assert len(clock.alternating(3, lambda: contestant("c"), limit=0.0)[0]) == 1


# -- made-up projects -----------------------------------------------------------------------


def test_a_generated_declaration_is_one_that_lading_takes(tmp_path: Path) -> None:
    for name in generated.names(3):
        recipe = tmp_path / "recipes" / name / "requirements.in"
        recipe.parent.mkdir(parents=True)
        recipe.write_text("astropy\n")
    (tmp_path / "project.yaml").write_text(generated.declaration(BASE, 3))
    project = load(tmp_path / "project.yaml")
    assert list(project.images) == ["image-0001", "image-0002", "image-0003"]
    assert project.bases == {"debian-13": BASE}
    assert {image.base for image in project.images.values()} == {"debian-13"}


def test_a_generated_matrix_has_a_thousand_variants(tmp_path: Path) -> None:
    recipe = tmp_path / "recipes/image/requirements.in"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("astropy>={a}.{b}\n")
    (tmp_path / "project.yaml").write_text(generated.matrix(BASE))
    project = load(tmp_path / "project.yaml")
    assert list(project.images) == generated.variants()
    assert project.images["image-1-2-3"].description == "1.2.3"


def test_fifty_images_with_nothing_to_do_take_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some 0.3 s of processor time, most of it to begin with; the limit is for slow machines."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    base = load(REPOSITORY / "project.yaml").bases["debian-13"]
    root = generated.write(REPOSITORY, tmp_path / "project", base, "astropy", 50)
    environ = {"PATH": "", "HOME": str(tmp_path), "LADING_CACHE": str(tmp_path / "cache")}

    def state() -> State:
        return State(load(root / "project.yaml"), environ=environ)

    generated.lock_again(state())
    generated.pretend_made(state())
    done = clock.timed([Path(sys.executable).with_name("doit")], cwd=root, env=environ)
    assert done.output.startswith("nothing to do: 302 tasks are up to date (")
    assert done.cpu < 1.5


def test_a_lock_gets_other_inputs_and_keeps_all_else() -> None:
    old = Header(command="doit lock:a", date=date(2026, 11, 22), inputs="0" * 64)
    text = locks.text_of(old, "numpy==2.0\n", "What goes into the image a.")
    new = generated.relocked(text, "1" * 64, "doit lock:b")
    header, body = locks.split(new, "new")
    assert header == Header(command="doit lock:b", date=date(2026, 11, 22), inputs="1" * 64)
    assert body == locks.split(text, "old")[1]
    assert new.startswith("# What goes into the image a.\n")


def test_the_makefile_has_a_chain_of_six_steps_for_each_image() -> None:
    text = generated.makefile(2)
    assert text.startswith("all: stamps/image-0001/archive stamps/image-0002/archive\n")
    assert "stamps/%/lock: recipes/%/requirements.in\n\t@mkdir -p $(@D) && touch $@\n" in text
    assert "stamps/%/archive: stamps/%/check\n\t@mkdir -p $(@D) && touch $@\n" in text
    assert text.count("\n\t@") == 6


def test_the_bake_file_has_a_target_for_each_image() -> None:
    file, text = generated.bake(2, "localhost/base:1")
    found = json.loads(file)
    assert found["group"]["default"]["targets"] == sorted(found["target"])
    assert found["target"]["image-0002"]["context"] == "recipes/image-0002"
    assert text.startswith("FROM localhost/base:1\n")


# -- the others' ways -----------------------------------------------------------------------


def test_pip_in_a_container_asks_the_users_indexes_but_no_folder_of_this_machine() -> None:
    places = Indexes(
        default="https://index.example/simple",
        extra=("file:///opt/more/simple", "https://more.example/simple"),
        find_links=("/opt/wheels",),
        from_pip=True,
    )
    text = network.pip_conf(network.remote_only(places), "/lent/ca.pem")
    assert "index-url = https://index.example/simple\n" in text
    assert "extra-index-url =\n    https://more.example/simple\n" in text
    assert "cert = /lent/ca.pem\n" in text
    assert "/opt" not in text
    local = Indexes(default="file:///opt/simple", from_pip=True)
    assert "index-url" not in network.pip_conf(network.remote_only(local), "")


def test_proxies_are_passed_on_as_they_are_spelled() -> None:
    environ = {"https_proxy": "http://p.example:1", "NO_PROXY": "", "HOME": "/root"}
    assert network.proxies(environ) == {"https_proxy": "http://p.example:1"}


def test_the_certificates_and_the_settings_are_lent(tmp_path: Path) -> None:
    bundle = tmp_path / "site.pem"
    bundle.write_text("a certificate")
    environ = {"SSL_CERT_FILE": str(bundle), "HOME": str(tmp_path), "NETRC": str(tmp_path / "none")}
    env = network.lend(environ, tmp_path / "lent")
    assert (tmp_path / "lent" / "ca.pem").read_text() == "a certificate"
    assert env["SSL_CERT_FILE"] == f"{network.LENT}/settings/ca.pem"
    assert f"cert = {network.LENT}/settings/ca.pem" in (tmp_path / "lent" / "pip.conf").read_text()


def test_the_lessons_dockerfile_keeps_neither_pip_nor_settings() -> None:
    env = {"PIP_CONFIG_FILE": "/x/pip.conf", "HTTPS_PROXY": "http://user:secret@proxy.example"}
    text = dockerfile("localhost/base:1", "-r /requirements.in", env, "--no-cache-dir", "ARG A\n")
    assert text.startswith("FROM localhost/base:1\nARG A\nRUN ")
    assert "PIP_CONFIG_FILE=/x/pip.conf" in text
    assert "python3 -m pip install --no-cache-dir -r /requirements.in" in text
    assert "secret" not in text
    assert "ENV" not in text


def test_the_lessons_dockerfile_for_mpi_keeps_no_settings() -> None:
    env = {
        "PIP_CONFIG_FILE": "/x/pip.conf",
        "SSL_CERT_FILE": "/x/ca.pem",
        "HTTPS_PROXY": "http://user:secret@proxy.example",
    }
    text = lesson_mpi.dockerfile("localhost/base:1", "4.0.2", "requirements.in", env)
    assert text.startswith("FROM localhost/base:1\n")
    assert "secret" not in text
    assert "ENV" not in text
    steps = text.split("RUN ")[1:]
    assert [network.LENT in step for step in steps] == [True, True, True]
    assert "./configure ${MPICH_CONFIGURE_OPTIONS}" in steps[1]
    assert "--enable-fast=all,O3" in text
    assert "PIP_CONSTRAINT=/constraints.txt" in steps[2]
    assert 'CAInfo "/x/ca.pem"' in lesson_mpi.apt_conf(env)
    assert "CAInfo" not in lesson_mpi.apt_conf({})


def test_compiled_sources_are_counted() -> None:
    said = (
        "build      source:mpich@debian-11  530.1 s · 30 MB\n"
        "  build mpich 4.0.2 on debian-11: step 9/12 after 57.6 s: make\n"
        "build      mpi4py  7.6 s · 143 MB\n"
    )
    assert mpi.compiled(said) == ["mpich@debian-11"]
    assert mpi.compiled("build      mpi4py  7.6 s · 143 MB\n") == []


def test_files_that_pip_compile_had_to_hash_are_counted() -> None:
    said = "Generating hashes:\n  numpy\n    Hashing numpy-1.whl\n    Hashing numpy-1.tar.gz\n"
    assert "2 files" in hashing(said)
    assert hashing("Generating hashes:\n  numpy\n") == ""


def test_a_build_is_cold_when_no_run_step_was_cached() -> None:
    log = "#4 [1/3] FROM localhost/base:1\n#4 CACHED\n#5 [2/3] RUN --mount=type=bind x\n#5 0.1 y\n"
    assert not was_cached(log)
    assert was_cached(f"{log}#5 CACHED\n")
    assert was_cached("STEP 3/9: RUN x\n--> Using cache 47a2\n")


def test_the_image_of_many_files_is_one_that_is_checked(tmp_path: Path) -> None:
    """And its files are such as are looked into."""
    report = portability.examine(checks.image_of(tmp_path, 40), platform="linux/amd64")
    assert (report.errors, report.facts["python"]) == ((), "3.13")
    assert report.facts["paths"] > 40
    assert not [finding for finding in report.findings if finding.id in ("F10", "F11")]
    assert [path.name for path in tmp_path.iterdir()] == ["many.tar"]


# -- requests -------------------------------------------------------------------------------


def test_requests_are_found_where_they_begin() -> None:
    data = b"GET /v1.41/images/json?filters=x HTTP/1.1\r\nHost: a\r\n\r\n"
    data += b"POST /build HTTP/1.1\r\nX-GET: GET /no HTTP/1.1\r\n\r\n"
    assert requests_in(data) == ["/v1.41/images/json", "/build"]


def test_requests_are_counted_on_their_way(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def answer() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1000)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with (
            counting(path, tmp_path) as (url, asked),
            socket.socket(socket.AF_UNIX) as client,
        ):
            client.connect(url.removeprefix("unix://"))
            client.sendall(b"GET /_ping HTTP/1.1\r\nHost: engine\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
        thread.join(5)
    assert asked == ["/_ping"]
    assert not (tmp_path / "counted.sock").exists()


# -- what is asked for ----------------------------------------------------------------------


def test_it_needs_no_more_than_the_tool_itself() -> None:
    """Who measures has set up lading, and not what tests it."""
    root = Path(__file__).resolve().parents[2]
    pins = {line.split("==")[0] for line in (root / "scripts/requirements.txt").open()}
    pins_of_tests = {line.split("==")[0] for line in (root / "tests/requirements.txt").open()}
    more = sorted(name for name in pins_of_tests - pins if name.isidentifier())
    assert "pytest" in more
    code = f"import sys; sys.modules.update(dict.fromkeys({more})); import tests.bench.__main__"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert not process.stderr
    assert set(miniconda.OURS) <= pins


def test_parts_run_in_the_tables_order_and_all_of_them_without_a_word() -> None:
    assert arguments([]) == [part for part in PARTS if part not in LONG]
    assert arguments(["--full"]) == list(PARTS)
    assert arguments(["noop", "lock"]) == ["lock", "noop"]
    assert arguments(["--lesson"]) == ["lock", "build", "size", "steps", "conda", "mpi"]


def test_the_lessons_table() -> None:
    """A row for each step, in one order; medians; what nobody has measured is left open."""
    found = [
        Figure(what="x", step="pip 2", ours=samples(1, 9, 5), theirs=samples(12.5)),
        Figure(what="x", step="pip 2", unit="MB", ours=samples(231.4), theirs=samples(250)),
        Figure(what="x", step="mpi again", ours=samples(9.7)),
        Figure(what="of no step", ours=samples(1)),
    ]
    head, rule, *rows = costs.table(found).splitlines()
    assert head.count("|") == rule.count("|") == 6
    assert [row.split(" | ")[0] for row in rows] == [f"| {label}" for label in costs.STEPS.values()]
    cells = dict(
        zip(costs.STEPS, (row.removesuffix(" |").split(" | ")[1:] for row in rows), strict=True)
    )
    assert cells["pip 2"] == ["231", "250", "5.0 s", "12 s"]
    assert cells["mpi again"] == ["–", "–", "9.7 s", "…"]
    assert cells["conda 1"] == ["…"] * 4
    assert cells["activation"][0] == cells["activation"][2] == costs.NOTHING


def test_each_step_is_measured() -> None:
    """By a part that `--lesson` runs."""
    modules = [condas.__name__, *(PARTS[name][1].__module__ for name in LESSON)]
    text = "".join(Path(str(sys.modules[name].__file__)).read_text() for name in modules)
    for step in costs.STEPS.keys() - costs.FREE:
        kind = f'f"{step.removesuffix(" docker").removesuffix(" podman")} {{kind}}"'
        assert f'"{step}"' in text or kind in text, step


def test_an_unknown_part_is_refused_with_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        arguments(["nope"])
    assert caught.value.code == 2
    assert "there are lock, build" in capsys.readouterr().err


def test_the_synthetic_channel_is_one_that_can_be_solved(tmp_path: Path) -> None:
    spec = condas.synthetic(tmp_path, 1200)
    repodata = json.loads((tmp_path / "linux-64" / "repodata.json").read_text())
    records = repodata["packages.conda"].values()
    assert len(records) == 1200
    names = {record["name"] for record in records}
    assert spec in names
    needed = {one.split()[0] for record in records for one in record["depends"]} - {"__glibc"}
    assert needed <= names
    # Of the last package, some hundred are below.
    below, todo = {spec}, [spec]
    while todo:
        name = todo.pop()
        found = {o.split()[0] for r in records if r["name"] == name for o in r["depends"]}
        todo += found - below - {"__glibc"}
        below |= found - {"__glibc"}
    assert 20 < len(below) < 200
