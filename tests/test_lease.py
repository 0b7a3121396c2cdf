"""A lease: what an owner does within it is cut off when it ends, before others may begin."""

import asyncio
from contextlib import suppress

import pytest
import pytest_asyncio

from agentruns._keeping.journal import lease as module
from agentruns._keeping.journal.lease import Lease, LeaseLostError

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]

SECONDS = 10.0
ENDS = 8.0
"""When the owner stops to act: others wait for ten seconds."""


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest_asyncio.fixture
async def lease(monkeypatch: pytest.MonkeyPatch) -> Lease:
    monkeypatch.setattr(module, "clock", now)
    lease = Lease(SECONDS)
    lease.renew(now())
    return lease


async def test_what_is_done_within_a_lease_is_cut_off_before_others_may_begin(lease: Lease) -> None:
    with pytest.raises(LeaseLostError):
        async with lease.held():
            await asyncio.sleep(60)
    assert now() == pytest.approx(ENDS)


async def test_what_ends_in_time_is_left_alone(lease: Lease) -> None:
    async with lease.held():
        await asyncio.sleep(ENDS - 1)
    await asyncio.sleep(60)  # nothing is cut off later


async def test_a_lease_that_is_renewed_lasts_on(lease: Lease) -> None:
    async def renew() -> None:
        for _ in range(5):
            await asyncio.sleep(3)
            lease.renew(now())

    renewing = asyncio.create_task(renew())
    with pytest.raises(LeaseLostError):
        async with lease.held():
            await asyncio.sleep(60)
    await renewing
    assert now() == pytest.approx(5 * 3 + ENDS)


async def test_it_lasts_from_when_the_store_was_asked_and_not_from_its_answer(lease: Lease) -> None:
    asked = now()
    await asyncio.sleep(5)
    lease.renew(asked)
    assert lease.left() == pytest.approx(ENDS - 5)


async def test_nothing_begins_when_it_is_over(lease: Lease) -> None:
    await asyncio.sleep(ENDS + 1)
    with pytest.raises(LeaseLostError):
        async with lease.held():
            pytest.fail("it began")


async def test_what_was_begun_before_a_lapse_is_cut_off_though_the_lease_is_renewed(lease: Lease) -> None:
    """As a machine finds that was asleep: its store may be heard of before its timers are looked at."""
    loop = asyncio.get_running_loop()

    def sleeps() -> None:
        loop.now += 100  # type: ignore[attr-defined]
        lease.renew(now())

    loop.call_later(1, sleeps)
    with pytest.raises(LeaseLostError):
        async with lease.held():
            await asyncio.sleep(200)
    assert now() == pytest.approx(101)
    async with lease.held():
        await asyncio.sleep(1)


async def test_what_is_under_way_is_cut_off_at_once_when_the_store_says_that_it_was_over(lease: Lease) -> None:
    asyncio.get_running_loop().call_later(2, lease.lapse)
    with pytest.raises(LeaseLostError):
        async with lease.held():
            await asyncio.sleep(60)
    assert now() == pytest.approx(2)


async def test_a_timeout_and_a_cancellation_of_what_is_done_within_stay_what_they_are(lease: Lease) -> None:
    with pytest.raises(TimeoutError):
        async with lease.held():
            raise TimeoutError
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3), lease.held():
            await asyncio.sleep(60)
    assert now() == pytest.approx(3)


async def test_a_task_that_would_go_on_at_the_same_moment_does_not(lease: Lease) -> None:
    """As a process finds that was stopped: all its timers are due at once."""
    loop, did = asyncio.get_running_loop(), []

    def stands_still() -> None:
        loop.now += 100  # type: ignore[attr-defined]

    async def act() -> None:
        async with lease.held():
            await asyncio.sleep(2)
            did.append(now())

    loop.call_later(1, stands_still)
    with pytest.raises(LeaseLostError):
        await act()
    assert did == []


async def test_a_task_that_somebody_else_cancels_as_well_is_cancelled(lease: Lease) -> None:
    async def act() -> None:
        async with lease.held():
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(5)  # it cleans up, when the lease is over

    acting = asyncio.create_task(act())
    await asyncio.sleep(ENDS + 1)
    acting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await acting
    assert acting.cancelled()


async def test_a_task_whose_act_was_cut_off_goes_on_uncancelled(lease: Lease) -> None:
    with pytest.raises(LeaseLostError):
        async with lease.held():
            await asyncio.sleep(60)
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(1)


async def test_who_swallows_that_it_is_cut_off_hears_of_it_all_the_same(lease: Lease) -> None:
    async def swallows() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    async def fails() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise OSError("the connection was closed") from None

    for act in (swallows, fails):
        lease.renew(now())
        with pytest.raises(LeaseLostError):
            async with lease.held():
                await act()
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()


async def test_what_has_ended_when_the_lease_was_over_is_not_taken_for_done(lease: Lease) -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(LeaseLostError):
        async with lease.held():
            loop.now += 100  # type: ignore[attr-defined] # as one does that blocks the loop


async def test_an_act_is_cut_off_soon_after_a_sleep_of_the_machine_in_which_its_timers_stood_still(
    lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = 0.0

    def sleeps() -> None:
        nonlocal slept
        slept = 3600.0

    monkeypatch.setattr(module, "clock", lambda: now() + slept)
    asyncio.get_running_loop().call_later(1.25, sleeps)
    with pytest.raises(LeaseLostError):
        async with lease.held():
            await asyncio.sleep(60)
    assert now() == pytest.approx(1.5)


async def test_one_timer_looks_for_all_who_act(lease: Lease) -> None:
    async def act() -> None:
        async with lease.held():
            await asyncio.sleep(2)

    acting = asyncio.gather(*[act() for _ in range(100)])
    await asyncio.sleep(1.25)
    loop = asyncio.get_running_loop()
    assert len([each for each in loop._scheduled if not each.cancelled()]) == 100 + 1  # type: ignore[attr-defined]
    await acting


async def test_nothing_looks_any_more_when_the_last_act_is_over(lease: Lease) -> None:
    async with lease.held():
        async with lease.held():
            pass
        assert lease._timer is not None
    assert lease._timer is None
