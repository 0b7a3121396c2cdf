"""How long a run is waited for, and how often it is read, where the user names neither: as each vendor's page says."""

import asyncio
from itertools import pairwise
from typing import Any, Final

import pytest

from agentruns import Client, DeadlineExceededError, Retry
from agentruns._values.exchange import Request, Response
from agentruns.emulator import Emulator, Turn
from tests.hostile.hostile_servers import HOUSES, TOKEN
from tests.vendor_in_memory import VendorInMemory

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]


class NeverOver(VendorInMemory):
    """A vendor whose runs stay as they were when they were read first; `polled` are the times of the reads."""

    def __init__(self, vendor: Any) -> None:
        super().__init__(vendor)
        self._state: Response | None = None
        self.polled: list[float] = []

    async def __call__(self, request: Request) -> Response:
        if not self.is_poll(request):
            return await super().__call__(request)
        self.polled.append(asyncio.get_running_loop().time())
        if self._state is None:
            self._state = await super().__call__(request)
        return self._state

    def is_poll(self, request: Request) -> bool:
        parts = request.path.strip("/").split("/")
        return request.method == "GET" and len(parts) >= 2 and parts[-2] == "runs"


async def watched_in_vain(name: str, **options: Any) -> tuple[DeadlineExceededError, float, list[float]]:
    """Follow a run that never ends: the error, the seconds until it came, and the gaps between the reads."""
    house = HOUSES[name](*[Turn("Done.", running=3600.0 * 24)] * 2)
    if name == "origami":  # whose house is in a hurry
        emulator: Emulator[Any] = Emulator(
            name, script=[Turn("Done.", running=3600.0)], token=TOKEN, clock=asyncio.get_running_loop().time, **options
        )
        wire = NeverOver(emulator.state)
    else:
        wire = NeverOver(house.vendor)
    async with Client(house.dialect, wire, retry=Retry(), schedule=None) as client:
        origin = await house.origin(client)
        began = asyncio.get_running_loop().time()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.result(origin)
        ended = asyncio.get_running_loop().time()
    return caught.value, ended - began, [after - before for before, after in pairwise([began, *wire.polled])]


DEADLINES: Final = {"narrative": 600.0, "middesk": 6 * 3600.0, "origami": 21 * 60.0, "conduit": 600.0}

PACES: Final = {"narrative": (2.0, 8.0), "middesk": (0.5, 60.0), "origami": (15.0, 15.0), "conduit": (0.5, 15.0)}
"""The least and the longest gap: as pages advise it (narrative, origami), else within what our own design allows."""


@pytest.mark.parametrize("name", DEADLINES)
async def test_a_wait_without_a_timeout_lasts_as_long_as_the_vendor_says_that_a_run_may_take(name: str) -> None:
    error, seconds, _ = await watched_in_vain(name)

    assert seconds == pytest.approx(DEADLINES[name], abs=1.0)
    assert str(error).startswith(f"{DEADLINES[name]:g} s have passed")


@pytest.mark.parametrize("name", PACES)
async def test_while_nothing_has_been_learned_the_pace_of_reads_is_what_the_page_advises(name: str) -> None:
    _, _, gaps = await watched_in_vain(name)
    least, longest = PACES[name]

    assert least <= min(gaps)
    assert max(gaps) <= 1.5 * longest  # a little more never hurts the vendor
    assert gaps[-1] >= 0.9 * gaps[0]  # never faster: looks at a constant pace are spread by a tenth


async def test_without_the_header_that_asks_for_it_the_advised_pace_is_kept() -> None:
    _, _, gaps = await watched_in_vain("origami", retry_after=None)

    assert all(15.0 <= gap <= 16.6 for gap in gaps), gaps
