"""The printer, and whole Dockerfiles held against the files in golden/.

`LADING_GOLDEN=1` in the environment writes the golden files again: look at the difference.
"""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest
from msgspec.structs import replace

from lading import compose, dockerfile, keys
from lading.compose import Layer, Locked
from lading.debian import Deb
from lading.facts import Facts
from lading.layers.base import BaseLock
from lading.layers.pip import PipLock, Request
from lading.layers.pip_kind import PIP
from lading.layers.pip_section import PipSection
from lading.locks import Header
from lading.plan import Plan
from lading.project import Base, DebianBase, Image, Project
from lading.requirements import Pin, Sources
from lading.steps import Arg, Cmd, Copy, Derived, Env, Label, Mount, Run, Stage
from lading.store import Artifact

GOLDEN = Path(__file__).parent / "golden"
DAY = date(2026, 11, 22)


def header(day: date = DAY) -> Header:
    return Header(command="doit lock:x", date=day, inputs="0" * 64)


def pin(name: str, version: str, file: str, mark: str) -> Pin:
    return Pin(
        name=name, version=version, artifact=Artifact(name=file, sha256=mark * 64, size=1000)
    )


UV = pin("uv", "0.13.9", "uv-0.13.9-py3-none-manylinux_2_17_x86_64.whl", "a")
ASTROPY = pin("astropy", "8.0.2", "astropy-8.0.2-cp311-abi3-manylinux_2_28_x86_64.whl", "b")
DOCOPT = pin("docopt", "0.6.2", "docopt-0.6.2.tar.gz", "c")
SETUPTOOLS = pin("setuptools", "80.0", "setuptools-80.0-py3-none-any.whl", "d")

BASE = BaseLock(
    header=header(date(2026, 11, 1)),
    facts=Facts(
        python="/usr/bin/python3",
        python_version="3.13.5",
        glibc="2.41",
        os="debian 13",
        package_manager="apt",
    ),
    text="the base's lock\n",
    suite="trixie",
    debs=(
        Deb(
            name="base-files",
            version="13.8",
            architecture="amd64",
            path="debian:pool/main/b/base-files/base-files_13.8_amd64.deb",
            size=1,
            sha256="e" * 64,
        ),
    ),
)


def pip_lock(*pins: Pin, build: dict[str, tuple[Pin, ...]] | None = None) -> PipLock:
    return PipLock(
        header=header(),
        pins=pins,
        installer=UV,
        build=build or {},
        texts={"requirements.txt": "the lock\n", "installer.txt": "the installer\n"},
    )


def on(base: BaseLock, lock: PipLock, text: bytes = b"astropy\n") -> Locked:
    path = "recipes/astropy/requirements.in"
    request = Request(
        image="astropy",
        section=PipSection(requirements=path),
        sources=Sources(roots=(path,), constraints=(), files={path: text}),
        facts=base.facts,
        platform="linux/amd64",
        as_of=None,
    )
    return Locked(base=base, layers=(Layer(kind=PIP, request=request, lock=lock),))


def project(tmp_path: Path, image: Image, base: Base | None = None) -> Project:
    base = base or Base(name="debian-13", debian=DebianBase(suite="trixie", packages=("python3",)))
    return Project(
        root=tmp_path,
        name="test",
        platform="linux/amd64",
        maintainer="Example HPC Centre",
        registry="",
        labels={"org.opencontainers.image.vendor": "Example"},
        bases={base.name: base},
        images={image.name: image},
    )


def image(**changes: object) -> Image:
    plain = Image(
        name="astropy",
        base="debian-13",
        pip=PipSection(requirements="recipes/astropy/requirements.in"),
    )
    return replace(plain, **changes)


def golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("LADING_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_wheels_only(tmp_path: Path) -> None:
    declared = image(description="The newest astropy")
    locked = on(BASE, pip_lock(ASTROPY))
    golden(
        "astropy.Dockerfile", compose.plan(project(tmp_path, declared), declared, locked).text("k")
    )


def test_sdist_is_a_part_of_its_own(tmp_path: Path) -> None:
    declared = image()
    locks = pip_lock(ASTROPY, DOCOPT, build={"docopt": (SETUPTOOLS,)})
    locked = on(BASE, locks)
    plan = compose.plan(project(tmp_path, declared), declared, locked)
    golden("sdist.Dockerfile", plan.text("k"))
    (part,) = plan.parts
    golden("sdist-part.Dockerfile", part.plan.text("k"))
    # What builds never reaches the image.
    assert not [at for at in plan.files if "setuptools" in at or "sdist" in at]
    assert [at for at in part.plan.files if "setuptools" in at]
    assert plan.files["pip/built/docopt"] == Derived(key=part.key, name="files")


def test_what_a_step_is_lent_stands_in_its_text(tmp_path: Path) -> None:
    """Podman keeps the result of a RUN by its text, also when its mounts hold something else."""

    def planned(*pins: Pin) -> Plan:
        built: dict[str, tuple[Pin, ...]] = {
            pin.name: (SETUPTOOLS,) for pin in pins if not pin.is_wheel
        }
        locked = on(BASE, pip_lock(*pins, build=built))
        return compose.plan(project(tmp_path, image()), image(), locked)

    def runs(plan: Plan) -> list[str]:
        return [part for part in plan.text("k").split("\n\n") if "RUN " in part]

    newer = replace(ASTROPY, artifact=replace(ASTROPY.artifact, sha256="9" * 64))
    assert runs(planned(ASTROPY)) == runs(planned(ASTROPY))
    assert runs(planned(ASTROPY)) != runs(planned(newer))
    other = replace(DOCOPT, artifact=replace(DOCOPT.artifact, sha256="8" * 64))
    one, two = planned(DOCOPT), planned(other)
    assert runs(one) != runs(two)
    assert runs(one.parts[0].plan) != runs(two.parts[0].plan)
    assert one.parts[0].key != two.parts[0].key


def test_everything_a_person_can_declare(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/site.cfg").write_text("x\n")
    declared = image(
        name="all",
        version="1.2",
        description='A "quoted" $text with \\ in it',
        env={"OMP_NUM_THREADS": "1", "WEIRD": 'a"b$PATH$c\\d'},
        labels={"org.example/x": "y", "maintainer": "Somebody else"},
        files={"/etc/site.cfg": "recipes/site.cfg"},
        run={"before-layers": ("mkdir /opt/site",), "after-layers": ("python -V", "true")},
        cmd=("python", "-i"),
    )
    base = Base(name="debian-13", image="docker.io/library/python:3.13-slim")
    lock = replace(BASE, digest="sha256:" + "f" * 64, debs=(), suite="")
    locked = on(lock, pip_lock(ASTROPY))
    text = compose.plan(project(tmp_path, declared, base), declared, locked).text("k")
    golden("everything.Dockerfile", text)
    assert f"FROM docker.io/library/python@sha256:{'f' * 64}\n" in text


def test_no_layer_at_all(tmp_path: Path) -> None:
    declared = image(pip=None)
    golden(
        "bare.Dockerfile",
        compose.plan(project(tmp_path, declared), declared, Locked(base=BASE)).text("k"),
    )


def test_printer() -> None:
    stage = Stage(
        name="first",
        base="scratch",
        why="why it is there, at a length that does not fit into one line of a comment, so that it "
        "has to be wrapped",
        steps=(
            Arg(name="A", value='x"y', why="a"),
            Env(values={"B": "$PATH", "C": "/x:$PATH", "D": "$PATH:/x"}, why="b"),
            Run(commands=("one", "two"), mounts=(Mount(source="s", target="/t"),), why="c"),
            Run(commands=("three",), mounts=(Mount(source="/s", target="/t", stage="q"),), why="d"),
            Copy(source="a b", target="/c/", why="e"),
            Label(values={"l": "m"}, why="f"),
            Cmd(arguments=("sh", "-c", 'echo "x"'), why="g"),
        ),
    )
    text = dockerfile.render("title\nsecond", [stage])
    assert text.startswith("# title\n# second\n\n# why it is there")
    assert 'ARG A="x\\"y"\n' in text
    assert 'ENV B="$PATH" \\\n    C="/x:$PATH" \\\n    D="\\$PATH:/x"\n' in text
    assert "RUN --mount=type=bind,source=s,target=/t \\\n    one && \\\n    two\n" in text
    assert "RUN --mount=type=bind,from=q,source=/s,target=/t \\\n    three\n" in text
    assert 'COPY ["a b", "/c/"]\n' in text
    assert 'CMD ["sh", "-c", "echo \\"x\\""]\n' in text
    assert all(len(line) <= 96 for line in text.splitlines() if line.startswith("#"))


def test_no_frontend_is_pulled_and_nothing_new_is_used(tmp_path: Path) -> None:
    declared = image(files={}, run={"after-layers": ("true",)})
    locks = pip_lock(ASTROPY, DOCOPT, build={"docopt": (SETUPTOOLS,)})
    locked = on(BASE, locks)
    text = compose.plan(project(tmp_path, declared), declared, locked).text("k")
    assert "syntax=" not in text
    assert "<<" not in text
    assert "--link" not in text


KEYED = [
    pytest.param({"env": {"A": "1"}}, id="variable"),
    pytest.param({"cmd": ("true",)}, id="command"),
    pytest.param({"labels": {"a": "b"}}, id="label"),
    pytest.param({"version": "2"}, id="version"),
    pytest.param({"run": {"after-layers": ("true",)}}, id="step"),
    pytest.param({"description": "other"}, id="description"),
]


def key(tmp_path: Path, declared: Image, locked: Locked, platform: str = "linux/amd64") -> str:
    plan = compose.plan(project(tmp_path, declared), declared, locked)
    return keys.key_of(plan, locked.texts, platform, tmp_path)


@pytest.mark.parametrize("change", KEYED)
def test_key_follows_declarations(tmp_path: Path, change: dict[str, object]) -> None:
    locked = on(BASE, pip_lock(ASTROPY))
    assert key(tmp_path, image(), locked) != key(tmp_path, image(**change), locked)


def test_key_follows_locks_files_and_platform(tmp_path: Path) -> None:
    locked = on(BASE, pip_lock(ASTROPY))
    first = key(tmp_path, image(), locked)
    assert first == key(tmp_path, image(), locked)
    assert first != key(tmp_path, image(), locked, platform="linux/arm64")
    assert first != key(tmp_path, image(), replace(locked, base=replace(BASE, text="other\n")))
    renamed = on(BASE, pip_lock(ASTROPY), b"astropy # new\n")
    assert first != key(tmp_path, image(), renamed)
    other = replace(pip_lock(ASTROPY), texts={"requirements.txt": "another\n"})
    assert first != key(tmp_path, image(), on(BASE, other))


def test_key_follows_the_recipes_own_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").write_text("1")
    declared = image(files={"/opt/data": "data"})
    locked = Locked(base=BASE)
    first = key(tmp_path, declared, locked)
    os.utime(tmp_path / "data/a", (1, 1))
    assert key(tmp_path, declared, locked) == first, "a time is no content"
    (tmp_path / "data/a").write_text("2")
    changed = key(tmp_path, declared, locked)
    assert changed != first
    (tmp_path / "data/a").chmod(0o755)
    assert key(tmp_path, declared, locked) not in (first, changed), "who may run it is content"
    (tmp_path / "data/b").write_text("")
    assert key(tmp_path, declared, locked) not in (first, changed)


def test_tests_are_not_part_of_the_image(tmp_path: Path) -> None:
    locked = Locked(base=BASE)
    assert key(tmp_path, image(), locked) == key(tmp_path, image(test=("true",)), locked)


def test_the_key_is_the_last_label_and_not_in_what_it_is_computed_over(tmp_path: Path) -> None:
    plan = compose.plan(project(tmp_path, image()), image(), Locked(base=BASE))
    assert plan.text("abc").rstrip().endswith('LABEL "lading.key"="abc"')
    assert plan.text("abc").startswith(plan.text("").rstrip("\n"))


def test_arguments_are_set_by_hand_and_tell_in_the_key(tmp_path: Path) -> None:
    declared = image(args={"SITE": "x 1"}, run={"after-layers": ("echo $SITE",)})
    text = compose.plan(project(tmp_path, declared), declared, on(BASE, pip_lock())).text("k")
    after = text.partition("ARG SITE\n")[2]
    assert 'RUN export SITE="${SITE:-x 1}" && \\\n    echo $SITE\n' in after
    assert after.endswith('LABEL "lading.key"="k${SITE:+-by-hand}"\n')
    # Without any nothing is different.
    plain = image(run={"after-layers": ("echo $SITE",)})
    text = compose.plan(project(tmp_path, plain), plain, on(BASE, pip_lock())).text("k")
    assert "ARG SITE" not in text
    assert text.endswith('LABEL "lading.key"="k"\n')
    # They stand before the first command that could use them.
    both = image(args={"A": "1"}, run={"before-layers": ("true",), "after-layers": ("false",)})
    text = compose.plan(project(tmp_path, both), both, on(BASE, pip_lock())).text("k")
    assert text.count("ARG A\n") == 1
    assert text.index("ARG A\n") < text.index("    true\n") < text.index("    false\n")
    assert text.count('export A="${A:-1}" && ') == 2
