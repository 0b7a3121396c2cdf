"""Whether a state is news: laws over any order of reads, and the cases that streams, poller and console rely on."""

from collections.abc import Sequence
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from agentruns import Action, Failure, Progress, Run, RunRef, RunStatus, Usage
from agentruns._values.news import (
    NONE_ANSWERED,
    AnsweredActions,
    Novelty,
    actions_of,
    compare,
    goes_back,
    shows_answered,
)

PENDING, RUNNING, PAUSED, COMPLETED, FAILED = RunStatus

ids = st.sampled_from(["r", "s"])
names = st.sampled_from("abc")


@st.composite
def runs(draw: st.DrawFn, ids: st.SearchStrategy[str] = ids) -> Run:
    status = draw(st.sampled_from(RunStatus))
    pending = draw(st.sets(names, min_size=1)) if status is PAUSED else set()
    return Run(
        RunRef(draw(ids)),
        status,
        draw(st.sampled_from([status.value, "vendor's word"])),
        tuple(Action(name, "approve") for name in sorted(pending)),
        output=draw(st.none() | st.just("text")),
        progress=draw(st.none() | st.builds(Progress, st.integers(0, 2))),
        usage=draw(st.none() | st.just(Usage(1, 2))),
    )


answered = st.frozensets(st.tuples(ids, names), max_size=2)


def accepted(reads: Sequence[Run], answered: AnsweredActions = NONE_ANSWERED) -> list[Run]:
    """Return the states that a reader accepts, in order."""
    last, found = None, list[Run]()
    for run in reads:
        if compare(last, run, answered) is not Novelty.STALE:
            last = run
            found.append(run)
    return found


# Laws -----------------------------------------------------------------------------------------------------------------


@given(st.lists(runs(st.just("r"))), answered)
def test_what_is_accepted_of_a_run_never_goes_backwards(reads: list[Run], answered: AnsweredActions) -> None:
    for number, run in enumerate(states := accepted(reads, answered)):
        later = states[number + 1 :]
        if run.status.is_over:
            assert {each.status for each in later} <= {run.status}, "it left its end"
        if run.status is RUNNING and later:
            assert later[0].status is not PENDING


@given(st.lists(runs(st.just("r"))), answered)
def test_a_state_that_is_accepted_is_never_stale_to_itself_and_never_news_twice(
    reads: list[Run], answered: AnsweredActions
) -> None:
    assert all(compare(run, run, answered) is Novelty.SAME for run in accepted(reads, answered))


@given(runs(), runs(), answered)
def test_a_stale_state_stays_stale_however_often_it_is_read(last: Run, run: Run, answered: AnsweredActions) -> None:
    states = accepted([last, run, run], answered)
    assert states == ([last] if compare(last, run, answered) is Novelty.STALE else [last, run, run])


@given(st.none() | runs(), runs(), answered)
def test_each_state_has_the_novelty_of_its_first_difference(
    last: Run | None, run: Run, answered: AnsweredActions
) -> None:
    match compare(last, run, answered):
        case Novelty.NEWS:
            assert run != last
            assert not shows_answered(run, answered)
        case Novelty.ANSWERED:
            assert run != last
            assert shows_answered(run, answered)
        case Novelty.PROGRESS:
            assert last is not None
            assert run == last
            assert run.progress != last.progress
        case Novelty.SAME:
            assert last is not None
            assert (run, run.progress) == (last, last.progress)
        case Novelty.STALE:
            assert last is not None
            assert goes_back(last, run) or (last.status.in_flight and shows_answered(run, answered))


@given(st.none() | runs(), runs(), answered)
def test_a_pause_that_was_answered_is_never_news(last: Run | None, run: Run, answered: AnsweredActions) -> None:
    assert compare(last, run, answered | actions_of(run)) is not Novelty.NEWS or run.status is not PAUSED


@given(runs(), runs(), answered)
def test_once_the_run_goes_on_the_pause_that_was_answered_is_stale(
    last: Run, run: Run, answered: AnsweredActions
) -> None:
    if last.status.in_flight and run.status is PAUSED:
        assert compare(last, run, answered | actions_of(run)) is Novelty.STALE


@given(runs(), st.none() | st.builds(Progress, st.integers(0, 9)), answered)
def test_a_state_that_differs_in_progress_alone_is_progress(
    run: Run, progress: Progress | None, answered: AnsweredActions
) -> None:
    last = accepted([run], answered)[0]
    expected = Novelty.SAME if progress == run.progress else Novelty.PROGRESS
    assert compare(last, evolve(run, progress=progress), answered) is expected


@given(runs(), answered)
def test_the_first_state_is_never_stale(run: Run, answered: AnsweredActions) -> None:
    expected = Novelty.ANSWERED if shows_answered(run, answered) else Novelty.NEWS
    assert compare(None, run, answered) is expected


@given(runs(st.just("r")), runs(st.just("s")))
def test_another_run_is_always_news(last: Run, run: Run) -> None:
    assert compare(last, run) is Novelty.NEWS


@given(runs(), st.sets(names))
def test_answers_to_another_run_change_nothing(run: Run, ids: set[str]) -> None:
    assert not shows_answered(run, {("another", each) for each in ids})


# Cases ----------------------------------------------------------------------------------------------------------------


def state(status: RunStatus, *actions: str, **changes: Any) -> Run:
    made = Run(RunRef("r"), status, status.value, tuple(Action(each, "approve") for each in actions))
    return evolve(made, **changes)


@pytest.mark.parametrize(
    ("last", "run", "novelty"),
    [
        (state(PENDING), state(RUNNING), Novelty.NEWS),
        (state(RUNNING), state(PENDING), Novelty.STALE),
        (state(RUNNING), state(PAUSED, "a"), Novelty.NEWS),
        (state(PAUSED, "a"), state(PENDING), Novelty.NEWS),  # a vendor may put a run that was answered in line again
        (state(PAUSED, "a"), state(PAUSED, "b"), Novelty.NEWS),
        (state(COMPLETED), state(RUNNING), Novelty.STALE),
        (state(COMPLETED), state(PAUSED, "a"), Novelty.STALE),
        (state(COMPLETED), state(FAILED), Novelty.STALE),
        (state(COMPLETED), state(COMPLETED, output="late"), Novelty.NEWS),
        (state(FAILED), state(FAILED, failure=Failure("why")), Novelty.NEWS),
        (state(RUNNING), state(RUNNING, vendor_status="thinking"), Novelty.NEWS),
        (state(RUNNING), state(RUNNING, progress=Progress(1)), Novelty.PROGRESS),
        (state(RUNNING), state(RUNNING, usage=Usage(1, 1)), Novelty.SAME),
        (state(RUNNING), state(RUNNING, poll_after=3.0), Novelty.SAME),
    ],
)
def test_where_a_run_may_go_from_where_it_is(last: Run, run: Run, novelty: Novelty) -> None:
    assert compare(last, run) is novelty


@pytest.mark.parametrize(
    ("last", "run", "novelty"),
    [
        (state(PAUSED, "a"), state(PAUSED, "a"), Novelty.SAME),
        (state(PAUSED, "a", "b"), state(PAUSED, "b"), Novelty.ANSWERED),  # one of two answers has come to bear
        (state(PAUSED, "a", "b"), state(RUNNING), Novelty.NEWS),
        (state(RUNNING), state(PAUSED, "a"), Novelty.STALE),
        (state(RUNNING), state(PAUSED, "c"), Novelty.NEWS),
        (state(RUNNING), state(PAUSED, "b", "c"), Novelty.STALE),
    ],
)
def test_a_pause_is_known_by_the_actions_that_were_answered(last: Run, run: Run, novelty: Novelty) -> None:
    assert compare(last, run, {("r", "a"), ("r", "b")}) is novelty
