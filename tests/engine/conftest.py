"""Connections to the engines, and the least that there is to build on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.engines import Engine, connect
from tests.support import engines, images


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


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """An empty build context."""
    folder = tmp_path / "context"
    folder.mkdir()
    return folder
