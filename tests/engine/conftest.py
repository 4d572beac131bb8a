"""A real Docker Engine and a real Podman for the session, each with its own storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.engines import Engine, connect
from tests.support import engines, images


def needs(kind: str) -> None:
    """Skips the test, saying what is missing, when `kind` can't be started here."""
    reason = engines.missing(kind)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session", params=["docker", "podman"])
def running(request: pytest.FixtureRequest) -> Iterator[engines.Running]:
    """A private engine that answers."""
    needs(request.param)
    with engines.private_engine(request.param) as started:
        yield started


@pytest.fixture(scope="session")
def engine(running: engines.Running) -> Iterator[Engine]:
    """lading's connection to the private engine."""
    connected = connect(running.environ)
    yield connected
    connected.close()


@pytest.fixture(scope="session")
def tiny() -> images.TinyImage:
    """A tiny image, in no engine yet."""
    return images.tiny_image()


@pytest.fixture(scope="session")
def base(engine: Engine, tiny: images.TinyImage, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of the tiny image, which the engine holds."""
    archive = tmp_path_factory.mktemp("base") / "base.tar"
    images.write_archive(tiny, archive)
    engine.load(archive)
    return images.BASE


@pytest.fixture(scope="session")
def registry() -> Iterator[str]:
    """A registry on the loopback, as "127.0.0.1:PORT"."""
    needs("registry")
    with engines.registry() as address:
        yield address


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """An empty build context."""
    folder = tmp_path / "context"
    folder.mkdir()
    return folder
