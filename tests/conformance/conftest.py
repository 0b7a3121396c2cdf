"""Vendors' own pauses pass quickly."""

import asyncio

import pytest

HURRY = 20
"""How much faster than in life a vendor's own pauses pass: those between two looks for a run, say."""


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / HURRY)

    monkeypatch.setattr("agentruns._api.flow.sleep", sleep)
