"""Tests that wait run on a loop whose time jumps to the next timer; the others on a real one."""

import asyncio
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings

from agentruns.testing import plugin
from tests import postgres_server
from tests.scripted_wire import VirtualLoop


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("unhurried", deadline=None)  # a slow machine is no failure
    settings.load_profile("unhurried")
    if not config.pluginmanager.is_registered(plugin):  # an older installation of this package may not name it
        config.pluginmanager.register(plugin)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in the background: so would children
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "virtual: run on a loop whose time jumps to the next timer")


@pytest.fixture
def prompt_origami(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have clients look at runs of Origami at once, and not 15 s after the start, as its page advises."""
    monkeypatch.setattr("agentruns.dialects.origami.POLL_SECONDS", (0.05, 0.05))


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("virtual"):
        return {"virtual": VirtualLoop}
    return {"real": asyncio.new_event_loop}


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.Server]:
    """Return a PostgreSQL server that runs; each test takes a schema of its own in it."""
    with postgres_server.server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return where a new journal is, of each store."""
    if request.param == "sqlite":
        return str(tmp_path / "journal.db")
    running: postgres_server.Server = request.getfixturevalue("postgres")
    return running.url(schema=f"s{uuid4().hex[:12]}")
