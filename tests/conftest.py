"""For all tests: engines and a registry of one's own, and an environment without CI."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import engines

# CI means frozen locks; what is tested about that sets it itself.
os.environ.pop("CI", None)

# How long something takes says nothing of it where engines build beside it.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# Whoever starts the tests in the background may have SIGINT ignored, which programs inherit: the
# tests that send one would wait in vain.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first: the others are done beside it."""
    items.sort(key=lambda item: item.get_closest_marker("longest") is None)


def needs(kind: str) -> None:
    """Skips the test, saying what is missing, when `kind` can't be started here."""
    reason = engines.missing(kind)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def docker() -> Iterator[engines.Running]:
    """A private Docker Engine."""
    needs("docker")
    with engines.private_engine("docker") as running:
        yield running


@pytest.fixture(scope="session")
def podman() -> Iterator[engines.Running]:
    """A private Podman."""
    needs("podman")
    with engines.private_engine("podman") as running:
        yield running


@pytest.fixture(scope="session", params=["docker", "podman"])
def running(request: pytest.FixtureRequest) -> engines.Running:
    """Each of the two, in turn."""
    found: engines.Running = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def registry() -> Iterator[str]:
    """A registry on the loopback, as "127.0.0.1:PORT"."""
    needs("registry")
    with engines.registry() as address:
        yield address
