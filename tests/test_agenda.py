"""The line of watched runs: a run stands in one place, and a move that would lose it or read it twice raises."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentruns import Run, RunRef
from agentruns._polling.agenda import Agenda
from agentruns._polling.listener import Change
from agentruns._polling.watch import Stage, Watch
from tests.scripted_wire import VirtualLoop

MOVES: dict[str, Callable[[Agenda, Watch], object]] = {
    "plan": lambda agenda, watch: agenda.plan(watch, 0.0),
    "cancel": Agenda.cancel,
    "end": Agenda.end,
    "begin_reading": Agenda.begin_reading,
    "finish_reading": Agenda.finish_reading,
    "collect": lambda agenda, _: agenda.collect(1e6),
}
LEGAL = {
    (Stage.IDLE, "plan"): Stage.PLANNED,
    (Stage.IDLE, "end"): Stage.ENDED,
    (Stage.PLANNED, "plan"): Stage.PLANNED,
    (Stage.PLANNED, "cancel"): Stage.IDLE,
    (Stage.PLANNED, "end"): Stage.ENDED,
    (Stage.PLANNED, "begin_reading"): Stage.READING,
    (Stage.PLANNED, "collect"): Stage.DUE,
    (Stage.DUE, "cancel"): Stage.IDLE,
    (Stage.DUE, "end"): Stage.ENDED,
    (Stage.DUE, "begin_reading"): Stage.READING,
    (Stage.ENDED, "cancel"): Stage.IDLE,
    (Stage.ENDED, "end"): Stage.ENDED,
    (Stage.ENDED, "begin_reading"): Stage.READING,
    (Stage.READING, "finish_reading"): Stage.IDLE,
}
IGNORED = {
    (Stage.IDLE, "cancel"),
    (Stage.IDLE, "collect"),
    (Stage.DUE, "plan"),
    (Stage.DUE, "collect"),
    (Stage.ENDED, "plan"),
    (Stage.ENDED, "collect"),
    (Stage.READING, "plan"),
    (Stage.READING, "cancel"),
    (Stage.READING, "collect"),
}


class Listens:
    """A listener with no wish of its own."""

    ends_at = float("inf")
    look_by = float("inf")
    patience = 60.0
    patient_since = float("-inf")

    def __init__(self) -> None:
        self.expired = 0

    def on_state(self, run: Run, now: float, change: Change | None) -> bool:
        return False

    def on_error(self, error: Exception) -> None:
        raise AssertionError(error)

    def on_deadline(self) -> None:
        self.expired += 1


def watch(name: str = "r", due: float = 5.0) -> Watch:
    made = Watch(RunRef(name), 1.0, 0.0)
    made.listeners = (Listens(),)
    made.due = due
    return made


def agenda(on_due: Callable[[float, float], None] = lambda now, late: None) -> Agenda:
    return Agenda(on_due)


@given(st.lists(st.sampled_from(sorted(MOVES)), max_size=30))
def test_a_run_moves_as_the_table_says_and_in_no_other_way(moves: list[str]) -> None:
    line, run = agenda(), watch()
    for name in moves:
        stage = run.stage
        if (stage, name) in LEGAL:
            MOVES[name](line, run)
            assert run.stage is LEGAL[stage, name]
        elif (stage, name) in IGNORED:
            MOVES[name](line, run)
            assert run.stage is stage
        else:
            with pytest.raises(RuntimeError, match=stage.name):
                MOVES[name](line, run)
            assert run.stage is stage
        assert line.has_due == (run.stage in {Stage.DUE, Stage.ENDED})
        assert (run.timer is None) == (run.stage is not Stage.PLANNED)


def test_a_run_for_which_nobody_listens_is_not_planned() -> None:
    line, run = agenda(), watch()
    run.listeners = ()
    line.plan(run, 0.0)

    assert run.stage is Stage.IDLE


def test_a_planned_run_can_be_brought_forward_but_not_put_off() -> None:
    line, run = agenda(), watch(due=5.0)
    for due in (5.0, 9.0, 3.0):
        run.due = due
        line.plan(run, 0.0)
    stages = []
    for now in (2.9, 3.0):
        line.collect(now)
        stages.append(run.stage)

    assert stages == [Stage.PLANNED, Stage.DUE]


def test_while_contact_is_lost_a_run_comes_up_when_the_least_patience_ends() -> None:
    line, run = agenda(), watch(due=500.0)
    run.contact.failed(OSError(), 0.0)  # not lost: nothing that waiting helps against
    line.plan(run, 0.0)
    assert run.timer is not None
    assert run.timer.when == 500.0
    run.contact.lost_since = 10.0
    line.plan(run, 20.0)

    assert run.timer.when == 70.0


def test_a_run_that_a_listener_wants_read_sooner_comes_up_then_if_the_vendor_has_asked_for_no_pause() -> None:
    line, run = agenda(), watch(due=50.0)
    run.listeners[0].look_by = 7.0  # type: ignore[misc]
    line.plan(run, 0.0)
    assert run.timer is not None
    assert run.timer.when == 50.0, "it was not read yet"
    run.contact.answered(floor=3.0)
    line.plan(run, 0.0)
    assert run.timer.when == 50.0
    run.contact.answered(floor=0.0)
    line.plan(run, 8.0)
    assert run.timer.when == 50.0, "that time has passed"
    line.plan(run, 0.0)

    assert run.timer.when == 7.0


def test_what_a_list_has_shown_to_be_over_goes_in_order_before_what_is_due() -> None:
    line, due, first, second = agenda(), watch("due"), watch("first"), watch("second")
    for each in (due, first, second):
        line.plan(each, 0.0)
    line.collect(5.0)
    line.end(first)
    line.end(second)
    assert line.first_ended() is first
    line.begin_reading(first)

    assert line.first_ended() is second
    assert line.first_due() is due


def test_the_most_pressing_of_the_due_runs_goes_first_unless_it_is_followed_no_more() -> None:
    line, runs = agenda(), [watch(str(number)) for number in range(6)]
    for each in runs:
        line.plan(each, 0.0)
    line.collect(5.0)

    def next_run() -> Watch:
        chosen = line.most_pressing(lambda each, _: float(each.ref.id), 5.0, most=3, seconds=0.5)
        line.begin_reading(chosen)
        return chosen

    assert [next_run() for _ in range(3)] == [runs[5], runs[4], runs[3]]
    line.cancel(runs[2])
    assert [next_run(), next_run()] == [runs[1], runs[0]]


def test_what_is_overdue_is_spread_over_half_of_what_was_missed() -> None:
    line, runs = agenda(), [watch(str(number), due=float(number)) for number in range(5)]
    for each in runs:
        line.plan(each, 0.0)
    line.spread_overdue(100.0, 4.0)

    assert [each.due for each in runs] == pytest.approx([100.0, 100.4, 100.8, 101.2, 101.6])
    assert all(each.stage is Stage.PLANNED for each in runs)


def test_deadlines_come_up_once_and_not_after_they_were_cancelled() -> None:
    kept, cancelled = Listens(), Listens()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        line = agenda()
        line.open(loop)
        line.set_deadline(kept, 2.0, loop.time())
        line.cancel_deadline(line.set_deadline(cancelled, 1.0, loop.time()))
        await asyncio.sleep(5)
        line.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
    assert (kept.expired, cancelled.expired) == (1, 0)


def test_every_pair_of_stage_and_move_has_its_rule() -> None:
    refused: dict[Any, str] = {
        (Stage.IDLE, "begin_reading"): "nothing says that it is to be read",
        (Stage.IDLE, "finish_reading"): "it is not read",
        (Stage.PLANNED, "finish_reading"): "it is not read",
        (Stage.DUE, "finish_reading"): "it is not read",
        (Stage.ENDED, "finish_reading"): "it is not read",
        (Stage.READING, "end"): "the read that is under way ends first",
        (Stage.READING, "begin_reading"): "it would be read twice at once",
    }
    assert {*LEGAL, *IGNORED, *refused} == {(stage, name) for stage in Stage for name in MOVES}
