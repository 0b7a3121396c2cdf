"""The tables of what may become of an action of a pause: what they allow, and that the journal follows them."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agentruns._keeping.journal import schema
from agentruns._keeping.journal.decisions import Decisions
from agentruns._keeping.journal.handlings import Handlings
from agentruns._keeping.journal.moves import (
    ANSWER_MOVES,
    WAIT_MOVES,
    AnswerAct,
    AnswerState,
    IllegalMoveError,
    Moves,
    WaitAct,
    WaitState,
)
from agentruns._keeping.journal.owners import Owners
from agentruns._keeping.journal.parked import ParkedActions, ParkedRow
from agentruns._keeping.journal.records import Records
from agentruns._keeping.journal.values import GivenAnswer

TABLES = [(ANSWER_MOVES, AnswerState, AnswerAct), (WAIT_MOVES, WaitState, WaitAct)]
RUN = '{"ref":{"id":"run-1","parent":""},"status":"requires_action","actions":[{"id":"a"}]}'


@pytest.mark.parametrize(("moves", "states", "acts"), TABLES)
def test_an_act_that_is_not_in_the_table_raises_and_one_that_is_leads_on(
    moves: Moves[Any, Any], states: Any, acts: Any
) -> None:
    for state in states:
        for act in acts:
            if moves.allows(state, act):
                assert moves.after(state, act) is moves.table[state, act]
            else:
                with pytest.raises(IllegalMoveError, match=f"is not possible when it is {state}"):
                    moves.after(state, act)


@pytest.mark.parametrize(("moves", "states", "acts"), TABLES)
def test_sql_asks_for_the_states_of_the_table(moves: Moves[Any, Any], states: Any, acts: Any) -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        for act in acts:
            for state in states:
                (found,) = database.execute(f"SELECT ? IN ({moves.sources(act)})", (state,)).fetchone()
                assert bool(found) == moves.allows(state, act)


@pytest.mark.parametrize(("moves", "states", "acts"), TABLES)
def test_every_state_can_be_reached_and_every_act_is_possible_somewhere(
    moves: Moves[Any, Any], states: Any, acts: Any
) -> None:
    first = {AnswerState.OPEN, WaitState.WAITING}
    assert {*moves.table.values()} | first >= set(states)
    assert {act for _, act in moves.table} == set(acts)


def test_what_is_posted_stays_as_it_is() -> None:
    assert not any(ANSWER_MOVES.allows(AnswerState.POSTED, act) for act in AnswerAct)


def test_who_answers_a_waiting_action_first_ends_the_wait() -> None:
    for over in (WaitState.ANSWERED, WaitState.REFUSED):
        assert [act for act in WaitAct if WAIT_MOVES.allows(over, act)] == [WaitAct.TAKE_BACK]


class Someone:
    """Stands in for Owners: always alive."""

    me = "owner"

    def alive(self, owner: str) -> bool:
        return owner == self.me


class Follows(RuleBasedStateMachine):
    """Whatever is asked of the journal, a row changes as the table says, or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        schema.establish(self.connection)
        self.records = Records(self.connection, cast("Owners", Someone()), "narrative")
        self.handlings = Handlings(self.records)
        self.parked = ParkedActions(self.records)
        self.records.begin("k", "{}", RUN)
        self.answer = AnswerState.OPEN
        self.wait: WaitState | None = None

    def teardown(self) -> None:
        self.connection.close()

    def may(self, act: AnswerAct, do: Callable[[], object]) -> None:
        do()
        if ANSWER_MOVES.allows(self.answer, act):
            self.answer = ANSWER_MOVES.after(self.answer, act)

    @rule()
    def handle(self) -> None:
        self.may(AnswerAct.HANDLE, lambda: self.handlings.handle("k", "run-1", "a", "name", False))

    @rule()
    def answers(self) -> None:
        if self.answer is not AnswerState.OPEN:
            self.may(AnswerAct.ANSWER, lambda: self.handlings.answered("k", "run-1", "a", '"handler"', False))

    @rule()
    def abandon(self) -> None:
        self.may(AnswerAct.ABANDON, lambda: self.handlings.abandon_handler("k", "run-1", "a"))

    @rule()
    def decide(self) -> None:
        self.may(
            AnswerAct.DECIDE, lambda: Decisions(self.records).decided("run-1", [GivenAnswer("a", "name", '"person"')])
        )

    @rule()
    def post(self) -> None:
        self.may(AnswerAct.POST, lambda: self.handlings.posted("k", "run-1"))

    @rule()
    def unfit(self) -> None:
        if self.answer is not AnswerState.OPEN:
            self.may(AnswerAct.UNFIT, lambda: self.handlings.unfit("k", "run-1", "a"))

    @rule()
    def take_back(self) -> None:
        self.parked.take_back("run-1", "a")
        if self.wait is not None and WAIT_MOVES.allows(self.wait, WaitAct.TAKE_BACK):
            self.wait = WAIT_MOVES.after(self.wait, WaitAct.TAKE_BACK)

    @rule()
    def park(self) -> None:
        row = ParkedRow("narrative", "run-1", "a", "k", WaitState.WAITING, 1.0, None, None, RUN)
        found = self.parked.park(row)
        if self.wait is None or WAIT_MOVES.allows(self.wait, WaitAct.PARK):
            self.wait = WaitState.WAITING
        assert found.state is self.wait

    @rule(act=st.sampled_from([WaitAct.ANSWER, WaitAct.REFUSE, WaitAct.WITHDRAW]))
    def settle(self, act: WaitAct) -> None:
        did = self.parked.settle(("narrative", "run-1", "a"), act, None if act is WaitAct.WITHDRAW else '"x"')
        assert did == (self.wait is not None and WAIT_MOVES.allows(self.wait, act))
        if did and self.wait is not None:
            self.wait = WAIT_MOVES.after(self.wait, act)

    @invariant()
    def the_rows_say_so(self) -> None:
        found = [each.state for each in self.handlings.answers("k", "run-1")]
        assert found == ([] if self.answer is AnswerState.OPEN else [self.answer])
        rows = self.parked.called("a", "run-1")
        assert [row.state for row in rows] == ([] if self.wait is None else [self.wait])


TestFollows = Follows.TestCase
TestFollows.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
