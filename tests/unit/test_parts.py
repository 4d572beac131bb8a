"""What is built by itself: wheels of packages that have none, and how parts are made and kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from lading.errors import LadingError
from lading.layers import pip_image
from lading.layers.pip import Request
from lading.layers.pip_section import PipSection
from lading.parts import FILES, PRODUCT, Start
from lading.plan import Contribution, Part, Share
from lading.requirements import Pin, Sources
from lading.steps import Add, Derived, Run, Stored
from lading.verbs import part as part_verb
from tests.support.projects import Trial
from tests.unit.test_dockerfile import ASTROPY, BASE, DOCOPT, SETUPTOOLS, UV, pin, pip_lock

NUMPY = pin("numpy", "2.1", "numpy-2.1-cp313-cp313-manylinux_2_28_x86_64.whl", "5")
MPI4PY = pin("mpi4py", "4.0", "mpi4py-4.0.tar.gz", "6")
H5PY = pin("h5py", "3.12", "h5py-3.12.tar.gz", "7")
START = Start(
    reference="localhost/lading/base/debian-13:0123",
    platform="linux/amd64",
    root=Path("/nowhere"),
    epoch=BASE.header.epoch,
)


def contributed(
    *pins: Pin,
    build: Mapping[str, tuple[Pin, ...]] | None = None,
    start: Start = START,
    **section: Any,
) -> Contribution:
    """What the pip layer adds for these pins; sdists are built with setuptools unless said."""
    wanted = {one.name: (SETUPTOOLS,) for one in pins if not one.is_wheel} | dict(build or {})
    request = Request(
        image="astropy",
        section=PipSection(requirements="r.in", **section),
        sources=Sources(roots=("r.in",), constraints=(), files={"r.in": b"x\n"}),
        facts=BASE.facts,
        platform="linux/amd64",
        as_of=None,
    )
    return pip_image.contribute(start, BASE.facts, pip_lock(*pins, build=wanted), request)


def parts(*pins: Pin, **given: Any) -> dict[str, Part]:
    found = contributed(*pins, **given).parts
    return {part.plan.name.removeprefix("wheel-"): part for part in found}


def commands(part: Part) -> str:
    (step,) = [step for step in part.plan.stages[0].steps if isinstance(step, Run)]
    return "\n".join(step.commands)


# -- wheels that are built ------------------------------------------------------------------


def test_pins_that_it_is_not_built_with_leave_a_wheel_alone() -> None:
    before = parts(ASTROPY, DOCOPT, MPI4PY)
    newer = replace(ASTROPY, version="9", artifact=replace(ASTROPY.artifact, sha256="9" * 64))
    other = replace(MPI4PY, version="5", artifact=replace(MPI4PY.artifact, sha256="8" * 64))
    after = parts(newer, NUMPY, DOCOPT, other)
    assert before["docopt"] == after["docopt"]
    assert before["mpi4py"].key != after["mpi4py"].key


def test_what_a_wheel_is_built_with_is_in_its_key() -> None:
    newer = replace(SETUPTOOLS, artifact=replace(SETUPTOOLS.artifact, sha256="9" * 64))
    tools = Contribution(
        tools=(Run(commands=("true",), why="x"),), tool_files={"apt/x": b"the tools"}
    )
    found = [
        parts(DOCOPT),
        parts(DOCOPT, build={"docopt": (newer,)}),
        parts(DOCOPT, build={"docopt": (SETUPTOOLS, NUMPY)}),
        parts(DOCOPT, build_env={"MPICC": "/usr/bin/mpicc"}),
        parts(DOCOPT, build_env={"MPICC": "/usr/bin/mpicc -v"}),
        parts(DOCOPT, start=replace(START, reference="localhost/other:1")),
        parts(DOCOPT, start=START.with_tools(tools)),
    ]
    assert len({one["docopt"].key for one in found}) == len(found)
    assert parts(DOCOPT)["docopt"].key == found[0]["docopt"].key


def test_variables_reach_the_build_as_they_are() -> None:
    text = commands(parts(DOCOPT, build_env={"B": "it's $x", "A": "1"})["docopt"])
    assert "export A=1\nexport B='it'\"'\"'s $x'\n" in text
    assert text.index("export B") < text.index("uv build")


def test_without_isolation_it_comes_last_with_the_others_at_hand() -> None:
    found = contributed(
        DOCOPT, H5PY, MPI4PY, build={"h5py": (SETUPTOOLS, NUMPY)}, no_build_isolation=("H5Py",)
    )
    names = [part.plan.name for part in found.parts]
    assert names == ["wheel-docopt", "wheel-h5py", "wheel-mpi4py"], "in the order of the pins"
    docopt, h5py, mpi4py = found.parts
    assert (docopt.parts, mpi4py.parts) == ((), ())
    assert h5py.parts == (docopt, mpi4py)
    files = h5py.plan.files
    assert files["pip/environment.txt"] == b"setuptools==80.0\nnumpy==2.1\ndocopt\nmpi4py\n"
    assert files["pip/built/docopt"] == Derived(key=docopt.key, name=FILES)
    assert files["pip/built/mpi4py"] == Derived(key=mpi4py.key, name=FILES)
    assert files[f"pip/build/{NUMPY.artifact.name}"] == Stored(sha256=NUMPY.artifact.sha256)
    assert not [at for at in mpi4py.plan.files if "built" in at]
    assert mpi4py.plan.files["pip/environment.txt"] == b"setuptools==80.0\n"
    text = commands(h5py)
    assert text.index("uv venv") < text.index("uv pip install") < text.index("uv build")
    # What is at hand may itself need, to run, what nobody has locked to build with.
    assert "--no-deps" in text
    for place in ("build", "built/docopt", "built/mpi4py"):
        assert text.count(f"--find-links /dev/shm/lading/pip/{place}\n") == 1
    # uv's own isolation builds in folders with names of chance, which compilers write down.
    for part in found.parts:
        assert "--no-build-isolation /lading/source/*/" in commands(part)


def test_without_isolation_they_stand_on_each_other_in_the_order_declared() -> None:
    for order, first, second in (
        (("mpi4py", "h5py"), MPI4PY, H5PY),
        (("h5py", "mpi4py"), H5PY, MPI4PY),
    ):
        found = parts(DOCOPT, H5PY, MPI4PY, no_build_isolation=order)
        assert found[first.name].parts == (found["docopt"],)
        assert found[second.name].parts == (found["docopt"], found[first.name])
        assert list(found) == ["docopt", "h5py", "mpi4py"]


def test_a_name_without_a_package_to_build_does_nothing() -> None:
    assert (
        parts(ASTROPY, DOCOPT, no_build_isolation=("astropy", "else"))["docopt"]
        == parts(DOCOPT)["docopt"]
    )


def test_what_stays_behind(tmp_path: Path) -> None:
    """Of what a wheel is built with, nothing reaches the image's own context."""
    found = contributed(ASTROPY, DOCOPT)
    assert found.files["pip/built/docopt"] == Derived(key=found.parts[0].key, name=FILES)
    assert not [at for at in found.files if "setuptools" in at or "sdist" in at]
    assert UV.artifact.sha256 in str(found.files["pip/bin/uv"])


# -- what it is built upon ------------------------------------------------------------------


def source(start: Start, name: str = "a", text: bytes = b"x") -> Part:
    made = start.part(
        name, f"{name} 1", (Run(commands=("make",), why="x"),), {"s/x": text}, why="w"
    )
    return replace(made, shares=(Share(key=f"{made.key}-share", name=PRODUCT),))


def test_a_start_with_tools() -> None:
    below = source(replace(START, epoch=START.epoch + 5))
    tools = Contribution(
        tools=(Add(source="a.tar", target="/", why="x"),),
        tool_files={"a.tar": Derived(key=below.key, name=PRODUCT)},
        parts=(below,),
    )
    start = START.with_tools(tools)
    assert start.epoch == START.epoch + 5
    made = source(start, "b")
    assert made.parts == (below,)
    assert made.epoch == below.epoch
    assert made.plan.files["a.tar"] == Derived(key=below.key, name=PRODUCT)
    assert START.with_tools(replace(tools, tools=())) == START


def test_a_part_is_an_image_of_what_came_out_and_nothing_else() -> None:
    text = source(START).plan.text("abc")
    last = [line for line in text.split("FROM ")[-1].splitlines() if line and line[0] != "#"]
    assert last == [
        "scratch",
        'COPY --from=build ["/lading/out/", "/"]',
        'LABEL "lading.key"="abc"',
    ]


# -- making it ------------------------------------------------------------------------------


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial.make(tmp_path / "project")


def built(trial: Trial) -> list[str]:
    return [
        call["tag"].rpartition("/")[2].partition(":")[0] for call in trial.engine.named("build")
    ]


def test_made_once_with_all_it_needs(trial: Trial) -> None:
    start = replace(START, root=trial.root)
    low = source(start, "low")
    mid = source(replace(start, parts=(low,)), "mid")
    top = source(replace(start, parts=(low, mid)), "top")
    state = trial.state()
    assert not part_verb.there(state, top)
    part_verb.ensure(state, top)
    assert built(trial) == ["low", "mid", "top"]
    for part in (low, mid, top):
        assert part_verb.there(state, part)
    part_verb.ensure(state, top)
    part_verb.ensure(trial.state(), mid)
    assert built(trial) == ["low", "mid", "top"]
    assert trial.engine.held == {}
    # A share that is gone is taken from the product, without an engine.
    state.store.made(top.shares[0].key, PRODUCT).unlink()
    assert not part_verb.there(state, top)
    part_verb.ensure(state, top)
    assert built(trial) == ["low", "mid", "top"]
    assert part_verb.there(state, top)
    # One that is damaged is thrown away, and made anew by the next run.
    state.store.made(top.shares[0].key, PRODUCT).unlink()
    product = state.store.made(top.key, PRODUCT)
    product.chmod(0o644)
    product.write_bytes(product.read_bytes()[:100])
    with pytest.raises(LadingError, match="damaged on this machine's disk"):
        part_verb.ensure(state, top)
    part_verb.ensure(state, top)
    assert built(trial) == ["low", "mid", "top", "top"]


def test_its_files_as_a_folder(trial: Trial) -> None:
    part = source(replace(START, root=trial.root))
    part = replace(part, shares=(Share(key=part.key, name=FILES),))
    state = trial.state()
    part_verb.ensure(state, part)
    made = state.store.made(part.key, FILES)
    assert (made / "hello").read_bytes() == b"hello"


def test_one_name_twice_at_the_same_time(trial: Trial) -> None:
    """Two images on two bases build the wheel of one package, each its own."""
    start = replace(START, root=trial.root)
    both = [source(start, "wheel-x", text) for text in (b"one", b"two")]
    meet = threading.Barrier(2, timeout=10)

    def both_are_here() -> None:
        meet.wait()

    trial.engine.before["build"] = both_are_here
    seen: dict[str, bytes] = {}
    real = trial.engine.build

    def build(context: Path, tag: str, **given: Any) -> str:
        found = real(context, tag, **given)
        seen[tag.partition(":")[2]] = (context / "s/x").read_bytes()
        return found

    trial.engine.build = build  # type: ignore[method-assign]
    state = trial.state()
    failed: list[Exception] = []

    def run(part: Part) -> None:
        try:
            part_verb.ensure(state, part)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(part,)) for part in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert seen == {both[0].key[:16]: b"one", both[1].key[:16]: b"two"}


def test_one_part_for_two_at_the_same_time(trial: Trial) -> None:
    start = replace(START, root=trial.root)
    low = source(start, "low")
    above = [source(replace(start, parts=(low,)), name) for name in ("left", "right")]
    trial.engine.before["build"] = lambda: time.sleep(0.1)
    state = trial.state()
    threads = [threading.Thread(target=part_verb.ensure, args=(state, part)) for part in above]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(built(trial)) == ["left", "low", "right"]


def test_somebody_elses_image_under_its_name_is_not_kept(trial: Trial) -> None:
    part = source(replace(START, root=trial.root))
    real = trial.engine.hold
    trial.engine.hold = lambda ref, labels=None: real(ref, {"lading.key": "0" * 64})  # type: ignore[method-assign]
    state = trial.state()
    with pytest.raises(LadingError, match="another image under that name"):
        part_verb.ensure(state, part)
    assert not part_verb.there(state, part)
