"""Tests marked `hasty` run on a loop that skips idle time, though what they talk over is real sockets."""

import asyncio
import logging
from collections.abc import Callable, Mapping

import pytest

from tests.hostile.hostile_servers import HastyLoop


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "hasty: run on a loop that skips idle time, over real sockets")


@pytest.hookimpl(tryfirst=True)
def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]] | None:
    return {"hasty": HastyLoop} if item.get_closest_marker("hasty") else None


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Let every logger speak."""
    caplog.set_level(logging.DEBUG)
    for name in ("agentruns", "aiohttp", "aiohttp.client", "aiohttp.internal", "asyncio"):
        caplog.set_level(logging.DEBUG, name)
    return caplog
