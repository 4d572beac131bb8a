"""The pip layer's locks, made by the real uv against an index on the loopback."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from importlib.metadata import version as version_of
from pathlib import Path

import pytest
from msgspec.structs import replace

from lading import locks, net, uv
from lading.errors import EnvironmentProblem, LadingError
from lading.facts import Facts
from lading.files import sha256_of, write_text
from lading.layers import pip, pip_image, sdist
from lading.layers.pip import PipLock, Request
from lading.layers.pip_kind import PIP
from lading.layers.pip_section import PipSection
from lading.moved import compare
from lading.parts import Start
from lading.process import Finished
from lading.requirements import Pin, render
from lading.store import Artifact, Store
from tests.support.index import Index, only_loopback, tar, wheel

FACTS = Facts(
    python="/usr/bin/python3",
    python_version="3.13.5",
    glibc="2.41",
    os="debian 13",
    package_manager="apt",
)
DAY, LATER = date(2026, 11, 22), date(2026, 12, 1)
UV = version_of("uv")
LINUX = "cp313-cp313-manylinux_2_28_x86_64"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uv-cache")


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> Iterator[Index]:
    only_loopback(monkeypatch, tmp_path, cache)
    monkeypatch.setattr(locks, "today", lambda: DAY)
    monkeypatch.setattr(net, "BACKOFF", 0.0)
    with Index() as made:
        monkeypatch.setenv("UV_DEFAULT_INDEX", made.url)
        made.wheel("uv", UV, tags="py3-none-manylinux_2_17_x86_64")
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def request(
    root: Path, files: Mapping[str, str], section: PipSection | None = None, **other: object
) -> Request:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    asked = pip.request(
        root, "image", section or PipSection(requirements="r.in"), FACTS, "linux/amd64", None
    )
    return replace(asked, **other)


def no_engine() -> uv.Runner:
    raise AssertionError("nothing here is built in a base")


def lock(
    asked: Request,
    store: Store,
    old: PipLock | None = None,
    in_base: Callable[[], uv.Runner] = no_engine,
) -> PipLock:
    return pip.lock(asked, old, store, net.uv_environment(os.environ), in_base)


# -- the lock -------------------------------------------------------------------------------


def test_the_text_of_a_lock(index: Index, store: Store, tmp_path: Path) -> None:
    one = index.wheel("NumPy", "2.1", tags=LINUX)
    index.wheel("numpy", "2.1", tags="cp313-cp313-manylinux_2_17_x86_64")
    two = index.wheel("Sci.Py", "1.14", requires=["numpy>=2"])
    asked = request(tmp_path, {"r.in": "sci_py  # the newest\n"})
    made = lock(asked, store)
    assert made.texts["requirements.txt"] == (
        "# What goes into the image image: Python 3.13.5, glibc 2.41, linux/amd64.\n"
        "# lading-lock: 1\n"
        "# command: doit lock:image\n"
        "# date: 2026-11-22\n"
        f"# inputs: sha256:{asked.digest}\n"
        "\n"
        "numpy==2.1 \\\n"
        f"    --hash=sha256:{one.sha256}\n"
        f"    # file: numpy-2.1-{LINUX}.whl {len(one.data)}\n"
        "    # via: sci-py\n"
        "sci-py==1.14 \\\n"
        f"    --hash=sha256:{two.sha256}\n"
        f"    # file: sci_py-1.14-py3-none-any.whl {len(two.data)}\n"
        "    # via: -r r.in\n"
    )
    assert made.texts["installer.txt"].startswith("# What installs it in the image image.\n")
    assert f"\nuv=={UV} \\\n" in made.texts["installer.txt"]
    assert set(made.texts) == {"requirements.txt", "installer.txt"}


def test_a_lock_says_nowhere_where_its_files_are(
    index: Index, store: Store, tmp_path: Path
) -> None:
    index.wheel("a", "1.0")
    made = lock(request(tmp_path, {"r.in": "a\n"}), store)
    assert "127.0.0.1" not in "".join(made.texts.values())
    assert "http" not in "".join(made.texts.values())


def _killed_at(name: str) -> Callable[..., None]:
    def write(path: Path, *_: object, **_named: object) -> None:
        if path.name == name:
            raise KeyboardInterrupt

    return write


def test_what_is_written_is_read_again(
    index: Index, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.wheel("a", "1.0", requires=["b"])
    index.wheel("b", "1.0")
    made = lock(request(tmp_path, {"r.in": "a\n"}), store)
    folder = tmp_path / "locks"
    assert pip.read(folder) is None
    (folder).mkdir()
    (folder / "build-gone.txt").write_text("left from an earlier lock")
    with monkeypatch.context() as killed:
        # Killed just before the last file, or just after it: a whole lock, the old or the new.
        killed.setattr(pip, "write_text", _killed_at("requirements.txt"))
        with pytest.raises(KeyboardInterrupt):
            pip.write(folder, made)
        assert (folder / "build-gone.txt").exists()
        killed.setattr(Path, "unlink", _killed_at("build-gone.txt"))
        killed.setattr(pip, "write_text", write_text)
        with pytest.raises(KeyboardInterrupt):
            pip.write(folder, made)
        assert pip.read(folder) == made
    pip.write(folder, made)
    assert pip.read(folder) == made
    assert sorted(path.name for path in folder.iterdir()) == ["installer.txt", "requirements.txt"]
    assert {artifact.name for artifact in made.artifacts} == {
        "a-1.0-py3-none-any.whl",
        "b-1.0-py3-none-any.whl",
        f"uv-{UV}-py3-none-manylinux_2_17_x86_64.whl",
    }


def test_the_date_moves_only_with_a_pin(
    index: Index, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.wheel("a", "1.0")
    first = lock(request(tmp_path, {"r.in": "a\n"}), store)
    monkeypatch.setattr(locks, "today", lambda: LATER)
    index.wheel("a", "2.0")
    again = lock(request(tmp_path, {"r.in": "a  # with a word on why\n"}), store, first)
    assert again.header.date == DAY
    assert again.header.inputs != first.header.inputs
    assert again.pins == first.pins
    moved = lock(request(tmp_path, {"r.in": "a>1\n"}), store, again)
    assert moved.header.date == LATER
    assert [pin.version for pin in moved.pins] == ["2.0"]


def test_pins_are_kept_and_without_a_lock_the_newest_is_taken(
    index: Index, store: Store, tmp_path: Path
) -> None:
    index.wheel("a", "1.0")
    asked = request(tmp_path, {"r.in": "a\n"})
    first = lock(asked, store)
    index.wheel("a", "2.0")
    assert [pin.version for pin in lock(asked, store, first).pins] == ["1.0"]
    assert [pin.version for pin in lock(asked, store).pins] == ["2.0"]


def test_a_file_that_is_gone_is_replaced_by_another_of_its_version(
    index: Index, store: Store, tmp_path: Path
) -> None:
    index.wheel("a", "1.0")
    built = index.wheel("a", "1.0", tags=LINUX)
    asked = request(tmp_path, {"r.in": "a\n"})
    first = lock(asked, store)
    assert [pin.artifact.name for pin in first.pins] == [built.name]
    index.drop(built.name)
    again = lock(asked, store, first)
    assert [pin.artifact.name for pin in again.pins] == ["a-1.0-py3-none-any.whl"]


def test_the_installer_stays_until_it_can_be_had_no_more(
    index: Index, store: Store, tmp_path: Path
) -> None:
    index.wheel("a", "1.0")
    older = index.wheel("uv", "0.1", tags="py3-none-manylinux_2_17_x86_64")
    asked = request(tmp_path, {"r.in": "a\n"})
    artifact = Artifact(name=older.name, sha256=older.sha256, size=len(older.data))
    first = replace(lock(asked, store), installer=Pin(name="uv", version="0.1", artifact=artifact))
    assert lock(asked, store, first).installer.version == "0.1"
    store.fetch([artifact], lambda _: {older.sha256: uv.url_sources(index.file_url(older.name))})
    index.drop(older.name)
    assert lock(asked, store, first).installer.version == "0.1"
    assert lock(asked, Store(tmp_path / "empty"), first).installer.version == UV


def test_hashes_that_the_user_demands_are_held_to(
    index: Index, store: Store, tmp_path: Path
) -> None:
    index.wheel("a", "1.0", tags=LINUX)
    plain = index.wheel("a", "1.0")
    hashed = f"a==1.0 \\\n    --hash=sha256:{plain.sha256.upper()}\n"
    made = lock(request(tmp_path, {"r.in": hashed}), store)
    assert [pin.artifact.sha256 for pin in made.pins] == [plain.sha256]
    with pytest.raises(LadingError, match=r"no file of a==1\.0 with one of the hashes"):
        lock(request(tmp_path, {"r.in": f"a==1.0 --hash=sha256:{'0' * 64}\n"}), store)
    index.hashes = index.sizes = False
    made = lock(request(tmp_path, {"r.in": hashed}), store)
    assert [pin.artifact.sha256 for pin in made.pins] == [plain.sha256]


def test_a_requirement_by_url(index: Index, store: Store, tmp_path: Path) -> None:
    one = index.wheel("a", "1.0", requires=["b"])
    index.wheel("b", "1.0")
    url = index.file_url(one.name)
    asked = request(tmp_path, {"r.in": f"a @ {url}\n"})
    made = lock(asked, store)
    assert f"a @ {url} \\\n    --hash=sha256:{one.sha256}\n" in made.texts["requirements.txt"]
    assert (made.pins[0].version, made.pins[0].artifact.size) == ("1.0", len(one.data))
    # Made again, the pin is still one: nothing moves.
    assert lock(asked, store, made).texts == made.texts
    found = pip.sources(asked, made.pins, net.uv_environment(os.environ))
    assert [source.url for source in found[one.sha256]] == [url]
    assert set(found) == {pin.artifact.sha256 for pin in made.pins}
    with pytest.raises(LadingError, match="its index says sha256"):
        lock(request(tmp_path, {"r.in": f"a @ {url}#sha256={'0' * 64}\n"}), store)


@pytest.mark.parametrize("name", ["a b-1.0-py3-none-any.whl", "..%2Fa-1.0-py3-none-any.whl"])
def test_a_file_name_that_would_not_fit_is_refused(index: Index, store: Store, name: str) -> None:
    file = uv.File(name="a", version="1", file=name, sha256="0" * 64, size=1, url="x")
    for odd in (file, replace(file, file="../a.tar.gz"), replace(file, file="a\n.tar.gz")):
        with pytest.raises(LadingError, match="is no name that a file can have here"):
            pip._artifact(odd)


# -- the inputs -----------------------------------------------------------------------------

FILES = {
    "r.in": "-r sub/n.in\n-c c.txt\na\n",
    "sub/n.in": "b\n",
    "c.txt": "a<2\n",
    "d.txt": "b<2\n",
}
SECTION = PipSection(requirements="r.in", constraints=("d.txt",))


def test_every_input_is_in_the_digest_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(change: str = "", **other: object) -> str:
        files = {path: text + ("# x\n" if path == change else "") for path, text in FILES.items()}
        return replace(request(tmp_path, files, SECTION), **other).digest

    digests = [
        digest(),
        *(digest(path) for path in FILES),
        digest(section=replace(SECTION, no_binary=("a",))),
        digest(section=replace(SECTION, build_constraints=("setuptools<69",))),
        digest(as_of=date(2021, 8, 15)),
        digest(as_of=date(2021, 8, 16)),
        digest(facts=replace(FACTS, python_version="3.13.6")),
        digest(facts=replace(FACTS, glibc="2.40")),
        digest(platform="linux/arm64"),
    ]
    assert len(set(digests)) == len(digests)
    # What a lock does not depend on: the rest of the base, other projects, versions of tools.
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99")
    other = request(tmp_path / "elsewhere", FILES, SECTION)
    renewed = replace(other, image="x", facts=replace(FACTS, os="debian 14", python="/bin/python"))
    assert renewed.digest == digests[0]


def test_a_constraint_and_a_requirement_are_not_the_same(tmp_path: Path) -> None:
    both = {"r.in": "a\n", "c.txt": "a<2\n"}
    plain = request(tmp_path, both, PipSection(requirements="r.in"))
    bound = request(tmp_path, both, PipSection(requirements="r.in", constraints=("c.txt",)))
    assert plain.digest != bound.digest


# -- damaged locks --------------------------------------------------------------------------

PINNED_B = f"b==2 \\\n    --hash=sha256:{'2' * 64}\n    # file: b-2.tar.gz 1\n"


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("requirements.txt", lambda text: text + "<<<<<<< ours\n", r"requirements\.txt:10: not a"),
        ("requirements.txt", lambda text: text.replace("lading-lock", "lock"), "not a lock"),
        ("requirements.txt", lambda text: text.replace("2026-11-22", "2026-13-22"), "not a lock"),
        ("requirements.txt", lambda text: text.replace("lock: 1", "lock: 2"), "by a newer lading"),
        ("requirements.txt", lambda text: text.replace("lock: 1", "lock: " + "1" * 5000), "not a"),
        ("requirements.txt", lambda text: "", "not a lock"),
        ("installer.txt", lambda text: text.replace("uv==", "uv>="), r"installer\.txt:7: not a"),
        ("installer.txt", lambda text: text[: text.index("uv==")], "one package is expected"),
        ("build-a.txt", lambda text: "\0", "not a lock"),
        ("requirements.txt", lambda text: text + PINNED_B, "what builds b is not locked beside it"),
    ],
)
def test_a_damaged_lock_is_named_with_its_line(
    tmp_path: Path, name: str, damage: Callable[[str], str], expected: str
) -> None:
    folder = tmp_path / "locks"
    folder.mkdir()
    header = locks.Header(command="doit lock:image", date=DAY, inputs="0" * 64)
    for file in ("requirements", "installer", "build-a"):
        pin = Pin(
            name="uv" if file == "installer" else "a",
            version="1",
            artifact=Artifact(
                name="a-1.tar.gz" if file == "requirements" else "x.whl", sha256="1" * 64, size=1
            ),
        )
        text = locks.text_of(header, render([pin]), "About.")
        (folder / f"{file}.txt").write_text(text)
    assert pip.read(folder) is not None
    (folder / name).write_text(damage((folder / name).read_text()))
    with pytest.raises(LadingError, match=expected) as caught:
        pip.read(folder)
    assert str(folder / name) in caught.value.what


def test_a_lock_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes(b"# \xff\n")
    with pytest.raises(LadingError, match=r"requirements\.txt: can't be read"):
        pip.read(tmp_path)


def test_a_lock_with_the_line_ends_of_windows_is_the_same(
    index: Index, store: Store, tmp_path: Path
) -> None:
    index.wheel("a", "1.0")
    made = lock(request(tmp_path, {"r.in": "a\n"}), store)
    pip.write(tmp_path / "locks", made)
    for path in (tmp_path / "locks").iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert pip.read(tmp_path / "locks") == made


# -- what has no wheel ----------------------------------------------------------------------


class Base:
    """Stands for uv in a container of the base: answers with what it was told, and remembers."""

    def __init__(self, answer: str, code: int = 0, said: str = "") -> None:
        self.answer, self.code, self.said = answer, code, said
        self.arguments: list[str] = []
        self.files: dict[str, str] = {}

    def __call__(self) -> uv.Runner:
        return self._run

    def _run(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> Finished:
        self.arguments = list(arguments)
        self.files = {
            str(path.relative_to(folder)): path.read_text()
            for path in folder.rglob("*")
            if path.is_file()
        }
        (folder / arguments[arguments.index("--output-file") + 1]).write_text(self.answer)
        return Finished(code=self.code, output=self.said)


PYPROJECT = '[build-system]\nrequires = ["hatchling>=1", "helper; python_version<\'3.10\'"]\n'


def test_build_requirements_of_an_sdist_are_locked(
    index: Index, store: Store, tmp_path: Path
) -> None:
    made = index.sdist("s", "1.0", {"pyproject.toml": PYPROJECT})
    index.wheel("w", "1.0")
    index.wheel("hatchling", "1.5", requires=["pluggy"])
    index.wheel("hatchling", "2.0", requires=["pluggy"])
    index.wheel("pluggy", "1.0")
    section = PipSection(requirements="r.in", build_constraints=("hatchling<2",))
    base = Base("s==1.0\n    # via -r r.in\nw==1.0\n    # via s\n")
    found = lock(request(tmp_path, {"r.in": "s\n"}, section), store, in_base=base)
    assert [(pin.name, pin.is_wheel) for pin in found.pins] == [("s", False), ("w", True)]
    assert [(pin.name, pin.version) for pin in found.build["s"]] == [
        ("hatchling", "1.5"),
        ("pluggy", "1.0"),
    ]
    assert store.path(made.sha256).read_bytes() == made.data
    assert found.texts["build-s.txt"].startswith("# What builds s for the image image.\n")
    assert "    # via: -c build-constraints.txt, -r build-s.in\n" in found.texts["build-s.txt"]
    assert base.files["build-constraints.txt"] == "hatchling<2\n"
    assert "--no-build" not in base.arguments
    pip.write(tmp_path / "locks", found)
    assert pip.read(tmp_path / "locks") == found


def test_build_requirements_are_kept_like_all_pins_and_move_when_they_are_to(
    index: Index, store: Store, tmp_path: Path
) -> None:
    index.sdist("s", "1.0", {"pyproject.toml": '[build-system]\nrequires=["b", "c"]\n'})
    index.wheel("b", "1.0")
    index.wheel("c", "1.0")
    asked = request(tmp_path, {"r.in": "s\n"})
    old = lock(asked, store, in_base=Base("s==1.0\n"))
    index.wheel("b", "2.0")
    index.wheel("c", "2.0")

    def built(lock: PipLock) -> dict[str, str]:
        return {pin.name: pin.version for pin in lock.build["s"]}

    assert built(lock(asked, store, old=old, in_base=Base("s==1.0\n"))) == {"b": "1.0", "c": "1.0"}
    some = PIP.loosened(old, lambda name: name == "b")
    assert built(lock(asked, store, old=some, in_base=Base("s==1.0\n"))) == {"b": "2.0", "c": "1.0"}
    every = PIP.loosened(old, lambda name: True)
    assert (every.pins, every.installer_moves) == ((), True)
    moved = lock(asked, store, old=every, in_base=Base("s==1.0\n"))
    assert built(moved) == {"b": "2.0", "c": "2.0"}
    told = {(c.part, c.name, c.new) for c in compare(PIP.pinned(old), PIP.pinned(moved))}
    assert told == {("to build s", "b", "2.0"), ("to build s", "c", "2.0")}


def test_build_requirements_are_as_of_the_day_too(
    index: Index, store: Store, tmp_path: Path
) -> None:
    index.sdist("s", "1.0", {"pyproject.toml": '[build-system]\nrequires=["b"]\n'})
    index.wheel("b", "1.0", at="2021-08-01T00:00:00Z")
    index.wheel("b", "2.0", at="2022-08-01T00:00:00Z")
    asked = request(tmp_path, {"r.in": "s\n"}, as_of=date(2021, 8, 15))
    base = Base("s==1.0\n")
    assert [pin.version for pin in lock(asked, store, in_base=base).build["s"]] == ["1.0"]
    at = base.arguments.index("--exclude-newer")
    assert base.arguments[at + 1] == "2021-08-16T00:00:00Z"


def test_no_binary_is_asked_in_the_base_and_takes_the_sdist(
    index: Index, store: Store, tmp_path: Path
) -> None:
    index.wheel("s", "1.0")
    index.sdist("s", "1.0", {})
    index.wheel("setuptools", "80.0")
    index.wheel("wheel", "0.45")
    section = PipSection(requirements="r.in", no_binary=("s",))
    base = Base("s==1.0\n    # via -r r.in\n")
    found = lock(request(tmp_path, {"r.in": "s\n"}, section), store, in_base=base)
    assert [pin.artifact.name for pin in found.pins] == ["s-1.0.tar.gz"]
    assert [pin.name for pin in found.build["s"]] == ["setuptools", "wheel"]
    at = base.arguments.index("--no-binary")
    assert base.arguments[at : at + 2] == ["--no-binary", "s"]


def test_two_archives_by_url_of_one_name_do_not_meet(
    index: Index, store: Store, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        index.add(
            "x",
            f"{name}.tar.gz",
            tar({f"{name}-1/pyproject.toml": b"[build-system]\nrequires=[]\n"}),
        )
    one, other = (f"{index.origin}/files/{name}.tar.gz" for name in ("a", "b"))
    # As if both were called the same: what is locked is their content.
    base = Base(f"a @ {one}\nb @ {other}\n")
    asked = request(tmp_path, {"r.in": f"a @ {one}\nb @ {other}\n"})
    found = lock(asked, store, in_base=base)
    same = replace(
        found,
        pins=tuple(
            replace(pin, artifact=replace(pin.artifact, name="v1.tar.gz")) for pin in found.pins
        ),
    )
    start = Start(reference="base", platform="linux/amd64", root=tmp_path, epoch=0)
    added = pip_image.contribute(start, FACTS, same, asked)
    files = added.files
    assert {"pip/built/a", "pip/built/b"} <= set(files)
    assert all("pip/sdist/v1.tar.gz" in part.plan.files for part in added.parts)
    assert len({part.key for part in added.parts}) == 2
    # Neither name tells a version, so none is asserted.
    assert files["pip/built.txt"] == b"a\nb\n"
    assert added.labels["python.packages"] == "a b"


def test_without_an_engine_an_sdist_is_a_problem_of_the_environment(
    index: Index, store: Store, tmp_path: Path
) -> None:
    index.sdist("s", "1.0", {})

    def none() -> uv.Runner:
        raise EnvironmentProblem("no container engine answers", do="install one")

    with pytest.raises(EnvironmentProblem, match="no container engine") as caught:
        lock(request(tmp_path, {"r.in": "s\n"}), store, in_base=none)
    assert "s==1.0 has no usable wheels" in str(caught.value)


def test_build_requirements_that_cannot_be_had(index: Index, store: Store, tmp_path: Path) -> None:
    index.sdist("s", "1.0", {"pyproject.toml": '[build-system]\nrequires=["nosuch"]\n'})
    with pytest.raises(LadingError, match=r"what builds s 1\.0 can't be had") as caught:
        lock(request(tmp_path, {"r.in": "s\n"}), store, in_base=Base("s==1.0\n"))
    assert "nosuch was not found" in caught.value.why


@pytest.mark.parametrize(
    ("members", "wanted"),
    [
        ({"s-1/setup.py": ""}, ["setuptools>=40.8.0", "wheel"]),
        ({"s-1/pyproject.toml": "[project]\nname='s'\n"}, ["setuptools>=40.8.0", "wheel"]),
        ({"s-1/pyproject.toml": "[build-system]\nrequires=[]\n"}, []),
        (
            {"s-1/pyproject.toml": "[build-system]\nrequires=['setuptools_scm', 'Cython <3']\n"},
            ["setuptools_scm", "Cython<3"],
        ),
        (
            {"./s-1/pyproject.toml": "[build-system]\nrequires=['setuptools[x]>=61']\n"},
            ["setuptools[x]>=61", "wheel"],
        ),
        # Only the one at the top counts.
        (
            {"s-1/sub/pyproject.toml": "[build-system]\nrequires=['x']\n", "pyproject.toml": "["},
            ["setuptools>=40.8.0", "wheel"],
        ),
        (
            {
                "../../pyproject.toml": "[",
                "/etc/pyproject.toml": "[",
                "s-1/pyproject.toml": "[build-system]\nrequires=['x']\n",
            },
            ["x"],
        ),
    ],
)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_what_an_sdist_is_built_with(
    tmp_path: Path, members: dict[str, str], wanted: list[str], kind: str
) -> None:
    path = tmp_path / "file"
    if kind == "tar":
        path.write_bytes(tar({name: text.encode() for name, text in members.items()}))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in members.items():
                archive.writestr(name.removeprefix("./"), text)
    name = {"tar": "s-1.tar.gz", "zip": "s-1.zip"}[kind]
    assert sdist.build_system(path, name) == wanted
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "text",
    [
        b"[build-system\n",
        b"\xff\xfe",
        b"build-system = 3\n",
        b"[build-system]\nrequires = 'setuptools'\n",
        b"[build-system]\nrequires = [1]\n",
        b"[build-system]\nrequires = ['-r /etc/passwd']\n",
        b"[build-system]\nrequires = ['--index-url https://h.example']\n",
        b'[build-system]\nrequires = ["a\\n--no-index"]\n',
        b"x = " + b"[" * 100_000,
    ],
)
def test_a_pyproject_that_makes_no_sense_is_an_error(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "s").write_bytes(tar({"s-1/pyproject.toml": text}))
    with pytest.raises(LadingError, match=r"^s-1\.tar\.gz: its pyproject\.toml can't be read"):
        sdist.build_system(tmp_path / "s", "s-1.tar.gz")


def damaged_archives() -> Iterator[tuple[str, bytes]]:
    whole = tar({"s-1/pyproject.toml": os.urandom(5000)})
    yield "s.tar.gz", whole[:2000]
    yield "s.tar.gz", whole[:10] + b"\xff" * 20 + whole[30:]
    yield "s.tar.gz", b""
    yield "s.tar.gz", b"not an archive at all"
    yield "s.zip", b"PK\3\4"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("s-1/pyproject.toml", "x" * 5000)
    data = bytearray(buffer.getvalue())
    yield "s.zip", bytes(data[:60] + b"\xff" * 8 + data[68:])
    encrypted = bytearray(data)
    encrypted[6] |= 1  # the flag for "encrypted", in the local header and in the directory
    encrypted[data.index(b"PK\1\2") + 8] |= 1
    yield "s.zip", bytes(encrypted)
    odd = bytearray(data)
    odd[8] = odd[data.index(b"PK\1\2") + 10] = 97  # a way to compress that nobody knows
    yield "s.zip", bytes(odd)


@pytest.mark.parametrize(("name", "data"), list(damaged_archives()))
def test_an_archive_that_is_damaged_is_an_error(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / "s").write_bytes(data)
    with pytest.raises(LadingError, match="not an archive of sources"):
        sdist.build_system(tmp_path / "s", name)


def test_a_pyproject_that_is_no_file(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s", "w") as archive:
        info = tarfile.TarInfo("s-1/pyproject.toml")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    assert sdist.build_system(tmp_path / "s", "s.tar") == ["setuptools>=40.8.0", "wheel"]


# -- what goes wrong ------------------------------------------------------------------------


def test_an_unknown_package_is_named_with_its_line(
    index: Index, store: Store, tmp_path: Path
) -> None:
    index.wheel("a", "1.0")
    files = {"r.in": "a\n-r sub/n.in\n", "sub/n.in": "\nno_such>=1  # typo\n"}
    with pytest.raises(LadingError) as caught:
        lock(request(tmp_path, files), store)
    assert caught.value.what == (
        "images.image: no versions fit Python 3.13.5, glibc 2.41, linux/amd64 "
        "(sub/n.in:2: no_such>=1)"
    )
    assert "no-such was not found in the package registry" in caught.value.why


@pytest.mark.parametrize("with_sdist", [False, True])
@pytest.mark.parametrize("requirement", ["a==1.0", "a<1.2", "b"])
def test_no_wheel_for_this_python_says_which_versions_have_one(
    index: Index, store: Store, tmp_path: Path, with_sdist: bool, requirement: str
) -> None:
    for version, tag in (("1.0", "cp39"), ("1.1", "cp310"), ("1.2", "cp313"), ("1.4", "cp313")):
        index.wheel("a", version, tags=f"{tag}-{tag}-manylinux_2_17_x86_64")
        if with_sdist:
            index.sdist("a", version, {})
    index.wheel("b", "1.0", requires=["a<1.2"])
    failing = Base("", 1, "error: No solution found when resolving dependencies\n  cause: a 1.0")
    with pytest.raises(LadingError) as caught:
        lock(request(tmp_path, {"r.in": requirement + "\n"}), store, in_base=failing)
    assert f"(r.in:1: {requirement})" in caught.value.what
    assert caught.value.do == "a has wheels for this Python from 1.2 to 1.4"


def test_no_wheel_at_all_for_this_platform(index: Index, store: Store, tmp_path: Path) -> None:
    index.wheel("a", "1.0", tags="cp313-cp313-win_amd64")
    with pytest.raises(LadingError) as caught:
        lock(request(tmp_path, {"r.in": "a\n"}), store)
    assert caught.value.do == f"no version of a has a wheel for {request(tmp_path, {}).target}"


def test_versions_that_exclude_each_other(index: Index, store: Store, tmp_path: Path) -> None:
    index.wheel("a", "1.0", requires=["c<2"])
    index.wheel("b", "1.0", requires=["c>2"])
    for version in ("1.0", "3.0"):
        index.wheel("c", version)
    with pytest.raises(LadingError, match=r"\(r\.in:1: a\)") as caught:
        lock(request(tmp_path, {"r.in": "a\nb\n"}), store)
    assert "all versions of b depend on c>2" in caught.value.why
    assert caught.value.exit_code == 1


def test_a_base_without_python(store: Store, tmp_path: Path) -> None:
    with pytest.raises(LadingError, match="its base has no Python"):
        lock(request(tmp_path, {"r.in": "a\n"}, facts=Facts(glibc="2.41")), store)


def test_a_base_without_glibc(index: Index, store: Store, tmp_path: Path) -> None:
    musl = replace(FACTS, glibc="")
    with pytest.raises(LadingError, match="no wheel is made for a base with glibc"):
        lock(request(tmp_path, {"r.in": "a\n"}, facts=musl), store)


def test_a_private_index_and_its_password(
    index: Index,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The password gets to the index, and neither to the lock nor to any error or output."""
    index.user, index.password = "ann", "s3cret"
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
    made = index.wheel("a", "1.0")
    index.sizes = False
    asked = request(tmp_path, {"r.in": "a\n"})
    found = lock(asked, store)
    pip.write(tmp_path / "locks", found)
    sources = pip.sources(asked, found.pins, net.uv_environment(os.environ))
    store.fetch(found.artifacts[:1], lambda _: sources)
    assert store.path(made.sha256).read_bytes() == made.data
    errors = []
    for text in ("nosuch\n", "a==2\n"):
        with pytest.raises(LadingError) as caught:
            lock(request(tmp_path, {"r.in": text}), store)
        errors.append(str(caught.value))
    index.stop()
    with pytest.raises(EnvironmentProblem) as down:
        lock(request(tmp_path, {"r.in": "zzz\n"}), store)
    errors.append(str(down.value))
    written = "".join(path.read_text() for path in (tmp_path / "locks").iterdir())
    said = "".join(capfd.readouterr())
    assert "s3cret" not in written + "".join(errors) + said + repr(found)


# -- where the files are --------------------------------------------------------------------


def pin_of(index: Index, name: str) -> Pin:
    upload = index.uploads[name]
    project, version = name.split("-")[:2]
    return Pin(
        name=project,
        version=version.removesuffix(".tar.gz"),
        artifact=Artifact(name=name, sha256=upload.sha256, size=len(upload.data)),
    )


def test_what_is_gone_is_left_out_and_the_rest_is_found(index: Index, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        for version in ("1.0", "2.0"):
            index.wheel(name, version)
    index.sdist("d", "1.0", {})
    index.wheel("d", "1.0")
    pins = [
        pin_of(index, f"{name}-{version}-py3-none-any.whl")
        for name in ("a", "b", "c")
        for version in ("1.0", "2.0")
    ] + [pin_of(index, "d-1.0.tar.gz"), pin_of(index, "d-1.0-py3-none-any.whl")]
    asked = request(tmp_path, {"r.in": "a\n"})
    environment = net.uv_environment(os.environ)
    everything = pip.sources(asked, pins, environment)
    assert set(everything) == {pin.artifact.sha256 for pin in pins}
    assert {source.url for source in everything[pins[-2].artifact.sha256]} == {
        index.file_url("d-1.0.tar.gz")
    }
    gone = {"b-1.0-py3-none-any.whl", "c-1.0-py3-none-any.whl", "c-2.0-py3-none-any.whl"}
    for name in gone:
        index.drop(name)
    found = pip.sources(asked, pins, environment)
    assert set(found) == {pin.artifact.sha256 for pin in pins if pin.artifact.name not in gone}


def test_another_file_under_a_locked_name_is_no_source(index: Index, tmp_path: Path) -> None:
    index.wheel("a", "1.0")
    pin = pin_of(index, "a-1.0-py3-none-any.whl")
    index.wheel("a", "1.0", files={"a.py": b"another"})
    asked = request(tmp_path, {"r.in": "a\n"})
    assert pin.artifact.sha256 not in pip.sources(asked, [pin], net.uv_environment(os.environ))


def test_an_index_that_is_down_or_locked_says_nothing_about_what_is_gone(
    index: Index, tmp_path: Path
) -> None:
    index.wheel("a", "1.0")
    pin = pin_of(index, "a-1.0-py3-none-any.whl")
    asked = request(tmp_path, {"r.in": "a\n"})
    index.user, index.password = "ann", "s3cret"
    with pytest.raises(EnvironmentProblem):
        pip.sources(asked, [pin], net.uv_environment(os.environ))
    index.stop()
    with pytest.raises(EnvironmentProblem):
        pip.sources(asked, [pin], net.uv_environment(os.environ))


def test_index_options_of_the_requirement_files_count(
    index: Index, store: Store, tmp_path: Path
) -> None:
    with Index() as second:
        second.wheel("only-there", "1.0", requires=["a"])
        index.wheel("a", "1.0")
        files = {
            "r.in": "-r sub/n.in\n",
            "sub/n.in": f"--extra-index-url {second.url}\nonly-there\n",
        }
        asked = request(tmp_path, files)
        found = lock(asked, store)
        assert [pin.name for pin in found.pins] == ["a", "only-there"]
        sources = pip.sources(asked, found.pins, net.uv_environment(os.environ))
        assert set(sources) == {pin.artifact.sha256 for pin in found.pins}


def test_a_folder_of_wheels(
    index: Index, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, data = wheel("local-only", "1.0")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / name).write_bytes(data)
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "wheels"))
    asked = request(tmp_path, {"r.in": "local-only\n"})
    found = lock(asked, store)
    assert (found.pins[0].artifact.name, found.pins[0].artifact.size) == (name, len(data))
    sources = pip.sources(asked, found.pins, net.uv_environment(os.environ))
    store.fetch([found.pins[0].artifact], lambda _: sources)
    assert sha256_of(store.path(found.pins[0].artifact.sha256)) == found.pins[0].artifact.sha256
    assert str(tmp_path) not in "".join(found.texts.values())
