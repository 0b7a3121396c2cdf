"""Processes that are killed at every point of a piece of work: the next one goes on, and nothing is done twice."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from attrs import evolve

from agentruns.emulator import Fault
from tests.crash import killed_processes
from tests.crash.killed_processes import (
    AT_ONCE,
    EXHAUSTIVE,
    PLOTS,
    SEEDS,
    STORE,
    UNSURE,
    Kept,
    Plot,
    Story,
    journal_in,
    note,
    origin_of,
    settled,
    story,
)
from tests.crash.worker import DURING, Kill
from tests.postgres_server import Server

pytestmark = pytest.mark.timeout(1200 if EXHAUSTIVE or STORE != "sqlite" else 120)

SIDES = ("before", "within", "after") if EXHAUSTIVE else ("before", "after")


def plot_of(vendor: str) -> Plot:
    """Return what is to be done; the whole of it where everything is looked at."""
    return PLOTS[vendor] if EXHAUSTIVE else PLOTS[vendor].shorter()


def all_of(stories: Sequence[tuple[str, Callable[[], object]]]) -> None:
    """Tell stories, a few at once; whatever fails is named, and stops none of the others."""
    troubles: list[str] = []

    def one(named: tuple[str, Callable[[], object]]) -> None:
        name, tell = named
        try:
            tell()
        except AssertionError as error:
            troubles.append(f"{name}: {error}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for outcome in [pool.submit(one, each) for each in stories]:
            outcome.result()
    if troubles:
        pytest.fail(f"{len(troubles)} of {len(stories)}\n" + "\n".join(sorted(troubles)))


def at_every_point(plot: Plot, what: Any, sides: Sequence[str], tell: Callable[[Plot, Kill], bool]) -> None:
    """Tell a story for each point, on each side of it, until the life that is to be killed survives."""
    with story(plot) as told:
        said = told.lives()
        assert said is not None
        points = said[what]
    survived: set[int] = set()
    killed: set[int] = set()

    def one(kill: Kill) -> None:
        died = tell(plot, kill)
        (killed if died else survived).add(kill.n)
        note(f"{plot} {what}: {'killed' if died else 'survived'}")

    def all_at(*numbers: int) -> None:
        kills = [Kill(what, n, side) for n in numbers for side in sides]  # type: ignore[arg-type]
        all_of([(f"{plot}, {kill}", partial(one, kill)) for kill in kills])

    last = points + 1
    all_at(*range(1, last + 1))
    while last not in survived:  # commits are shared by what comes at once: another life may have more of them
        assert last < 3 * points + 10, "there is no end of points"
        last += 1
        all_at(last)
    assert killed, "nobody was killed"


def finished(told: Story, said: dict[str, Any] | None) -> None:
    """Check that a life has come to the end that one life without trouble comes to."""
    plot = told.plot
    assert said is not None
    assert said.get("status") == "completed", f"{said}"
    assert plot.vendor == "middesk" or said["output"] == "Done.", f"{said}"
    assert told.started == plot.runs
    assert set(told.effects.values()) <= {1}, f"{told.effects}"
    assert len(told.effects) == plot.effects, f"{told.effects}"
    assert_tidy(told)


def assert_tidy(told: Story) -> None:
    told.kept()  # it is whole
    assert told.beside == []


def asks_what_happened(told: Story, said: dict[str, Any] | None) -> None:
    """Check that a life has ended with a start that may or may not have been sent, and says how to go on."""
    assert said is not None
    assert said.get("error") == "OutcomeUnknownError", f"{said}"
    assert "look at what the vendor has before you decide" in said["message"]
    assert told.started <= told.plot.runs
    assert told.effects == Counter()
    assert_tidy(told)


def next_life(told: Story, kept: Kept, started: int, *, repeatable: bool = False) -> None:
    """Live on after a death, as the journal that is left says it must go."""
    said = told.lives(repeatable=repeatable)
    if kept.cut_off and not repeatable:
        assert said is not None
        assert said.get("error") == "ToolOutcomeUnknownError", f"{said}"
        assert any(action in said["message"] for action in kept.cut_off)
        assert set(told.effects.values()) <= {1}, f"{told.effects}"
        assert_tidy(told)
        done = told.effects
        finished_by_hand(told, said=told.lives(by_hand=True), before=done)
        note(f"{told.plot}: decided by hand")
    elif kept.asked and started == 0:
        asks_what_happened(told, said)
        assert told.started == 0
        note(f"{told.plot}: outcome unknown")
    elif repeatable:
        assert said is not None
        assert said.get("status") == "completed", f"{said}"
        assert told.started == told.plot.runs
        assert len(told.effects) == told.plot.effects
        assert max(told.effects.values(), default=1) <= 2
        assert sum(told.effects.values()) <= told.plot.effects + len(kept.cut_off)
        assert_tidy(told)
    else:
        finished(told, said)
        note(f"{told.plot}: finished")


def finished_by_hand(told: Story, said: dict[str, Any] | None, before: Counter[str]) -> None:
    """Check that work is done whose handlers were answered for: what had happened was not done again."""
    assert said is not None
    assert said.get("status") == "completed", f"{said}"
    assert told.started == told.plot.runs
    assert set(told.effects.values()) <= {1}, f"{told.effects}"
    assert before <= told.effects
    assert_tidy(told)


@pytest.mark.parametrize("vendor", PLOTS)
def test_a_life_without_trouble_does_everything_once(vendor: str) -> None:
    with story(plot_of(vendor)) as told:
        finished(told, told.lives())
        finished(told, told.lives())  # and the next has nothing to do


# One death, at every point --------------------------------------------------------------------------------------------


def killed_once(plot: Plot, kill: Kill, *, repeatable: bool = False) -> bool:
    with story(plot) as told:
        said = told.lives(kill=kill, repeatable=repeatable)
        if said is not None:
            finished(told, said)
            return False
        kept = told.kept()
        started = settled(told, 0.05) if kept.asked else told.started  # what was sent may still arrive
        assert started <= told.plot.runs
        assert set(told.effects.values()) <= {1}
        next_life(told, kept, started, repeatable=repeatable)
        return True


@pytest.mark.parametrize("vendor", PLOTS)
def test_a_process_that_is_killed_around_any_commit_is_followed_by_one_that_goes_on(vendor: str) -> None:
    at_every_point(plot_of(vendor), "commit", SIDES, killed_once)


def test_a_repeatable_handler_that_was_cut_off_is_run_again_and_the_work_gets_done() -> None:
    at_every_point(PLOTS["narrative"].shorter(), "commit", SIDES, partial(killed_once, repeatable=True))


# Two deaths, the second of who decides by hand ------------------------------------------------------------------------


def killed_by_hand(plot: Plot, kill: Kill) -> bool:
    """Kill one in the middle of its handlers, and the next while it answers for them."""
    with story(plot) as told:
        life = told.begin(handler_seconds=30.0)
        deadline = time.monotonic() + 50
        while len(told.effects) < 2 and time.monotonic() < deadline:
            time.sleep(0.002)
        life.kill()
        assert life.end() is None
        before = told.effects
        said = told.lives(by_hand=True, kill=kill)
        if said is not None:
            finished_by_hand(told, said, before)
            return False
        said = told.lives(by_hand=True)
        if said is not None and said.get("error") == "ToolOutcomeUnknownError":  # of the next pause
            said = told.lives(by_hand=True)
        finished_by_hand(told, said, before)
        return True


@pytest.mark.parametrize("what", ["commit", "request"])
@pytest.mark.parametrize("vendor", ["narrative", "middesk", "origami"])
def test_what_was_decided_by_hand_is_not_done_twice_if_the_process_is_killed_meanwhile(vendor: str, what: str) -> None:
    at_every_point(plot_of(vendor), what, SIDES if what == "commit" and EXHAUSTIVE else ["before"], killed_by_hand)


# Deaths around requests -----------------------------------------------------------------------------------------------


def killed_at_request(plot: Plot, kill: Kill, *, arrives: bool) -> bool:
    """Kill a process during a request that is carried out at once and answered late, or that is itself late."""
    with story(plot) as told:
        told.emulator.fail(Fault.delay(4 * DURING, committed=arrives, method="POST", times=None))
        said = told.lives(kill=kill)
        told.emulator.faults.clear()
        if said is not None:
            finished(told, said)
            return False
        kept = told.kept()
        said = told.lives()
        if plot.vendor in UNSURE and kept.asked and said is not None and "error" in said:
            asks_what_happened(told, said)
            note(f"{plot}: outcome unknown")
        else:
            finished(told, said)
            note(f"{plot}: finished")
        settled(told, 4 * DURING)
        assert told.started <= told.plot.runs
        return True


@pytest.mark.parametrize("arrives", [True, False], ids=["carried out", "under way"])
@pytest.mark.parametrize("vendor", PLOTS)
def test_a_request_that_outlives_its_process_is_not_sent_a_second_time(vendor: str, arrives: bool) -> None:
    at_every_point(plot_of(vendor), "request", ["within"], partial(killed_at_request, arrives=arrives))


# Any death ------------------------------------------------------------------------------------------------------------


def killed_at_random(vendor: str, seed: int, *, at_once: int, repeatable: bool) -> None:
    """Kill processes at moments that come as they may, until one has come to an end."""
    chance = random.Random(f"{vendor} {seed} {at_once}")
    with story(plot_of(vendor)) as told:
        deaths = ended = 0
        while not ended:
            seconds = chance.choice([0.0, 0.02])
            living = [told.begin(repeatable=repeatable, handler_seconds=seconds) for _ in range(at_once)]
            for life in living:
                if deaths < 4 * at_once:
                    time.sleep(chance.expovariate(1 / chance.choice([0.02, 0.05, 0.12])))
                    life.kill()
            outcomes = [life.end() for life in living]
            deaths += outcomes.count(None)
            ended = sum(said is not None for said in outcomes)
            assert told.started <= told.plot.runs
            for said in outcomes:
                if said is not None:
                    ends_as_documented(told, said)
        note(*[f"{vendor}: killed at random"] * deaths)
        kept = told.kept()
        said = told.lives(repeatable=repeatable, by_hand=True)
        assert said is not None
        if vendor in UNSURE and kept.asked and "error" in said:
            asks_what_happened(told, said)
            note(f"{vendor}: outcome unknown")
            return
        assert said.get("status") == "completed", f"{said}"
        assert told.started == told.plot.runs
        if not repeatable:
            assert set(told.effects.values()) <= {1}, f"{told.effects}"
        assert_tidy(told)


def ends_as_documented(told: Story, said: dict[str, Any]) -> None:
    error = said.get("error")
    known = {None, "ToolOutcomeUnknownError", *(["OutcomeUnknownError"] if told.plot.vendor in UNSURE else [])}
    assert error in known, f"{said}"
    note(f"{told.plot}: ended with {error or 'the run'}")


@pytest.mark.parametrize("repeatable", [False, True], ids=["once", "repeatable"])
@pytest.mark.parametrize("vendor", PLOTS)
def test_processes_killed_at_any_moment_are_followed_by_one_that_goes_on(vendor: str, repeatable: bool) -> None:
    all_of([
        (f"seed {seed}", partial(killed_at_random, vendor, seed, at_once=1, repeatable=repeatable))
        for seed in range(SEEDS)
    ])


@pytest.mark.parametrize("vendor", PLOTS)
def test_several_processes_at_one_key_killed_at_any_moment_are_followed_by_one_that_goes_on(vendor: str) -> None:
    all_of([
        (f"seed {seed}", partial(killed_at_random, vendor, seed, at_once=3, repeatable=False)) for seed in range(SEEDS)
    ])


@pytest.mark.parametrize("vendor", PLOTS)
def test_several_processes_at_one_key_come_to_one_end(vendor: str) -> None:
    with story(plot_of(vendor)) as told:
        living = [told.begin(handler_seconds=0.05) for _ in range(3)]
        outcomes = [life.end() for life in living]
        for said in outcomes:
            finished(told, said)
        assert len({said["run"] for said in outcomes if said}) == 1


def test_processes_that_are_killed_are_followed_by_others_with_a_journal_in_postgres(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(killed_processes, "journal_of", lambda _: journal_in(postgres))
    plot = PLOTS["narrative"].shorter()
    kills = [Kill("commit", 2, "within"), Kill("commit", 4, "after"), Kill("request", 2, "after")]
    all_of([(f"{kill}", partial(killed_once, plot, kill)) for kill in kills])


# Many pieces of work --------------------------------------------------------------------------------------------------

MANY = 5


def batch_killed_at_random(vendor: str, seed: int) -> None:
    chance = random.Random(f"batch {vendor} {seed}")
    with story(PLOTS[vendor].shorter()) as told:
        others = [origin_of(vendor, told.emulator) for _ in range(MANY - 1)]
        if vendor == "middesk":
            others = [evolve(each, business_id=str(UUID(int=number))) for number, each in enumerate(others)]
        for _ in range(4):
            life = told.begin(others=others, handler_seconds=0.01)
            time.sleep(chance.uniform(0.01, 0.15))
            life.kill()
            said = life.end()
            note(f"{vendor}: batch {'killed' if said is None else 'ended'} at random")
            assert told.started <= MANY * told.plot.runs
        said = told.lives(others=others, by_hand=True)
        assert said is not None
        if vendor in UNSURE and said.get("error") == "OutcomeUnknownError":
            note(f"{vendor}: outcome unknown")
        else:
            assert said.get("status") == "completed", f"{said}"
            assert told.started == MANY * told.plot.runs
        assert told.started <= MANY * told.plot.runs
        assert set(told.effects.values()) <= {1}, f"{told.effects}"
        assert_tidy(told)


@pytest.mark.parametrize("vendor", ["narrative", "middesk"])
def test_a_batch_whose_process_is_killed_starts_only_what_is_not_done(vendor: str) -> None:
    all_of([(f"seed {seed}", partial(batch_killed_at_random, vendor, seed)) for seed in range(SEEDS)])
