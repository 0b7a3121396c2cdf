"""
What may become of an action of a pause: its states, what changes them, and nothing else.

An action has two sides, each with its table. One is the answer: nobody is at it, a handler runs, it is decided by the
handler or by a person, and in the end it is posted. The other is the wait for a person, if the action is parked.
Whatever changes a row of the journal asks these tables, in Python or in SQL. So a rule about who may overrule whom is
one line here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, Generic, TypeVar

State = TypeVar("State", bound=enum.StrEnum)
Act = TypeVar("Act", bound=enum.Enum)


class IllegalMoveError(Exception):
    """Report a change that the state does not allow: a mistake in this package, not of its user."""


class Moves(Generic[State, Act]):
    """The table of a state machine: which act leads from which state to which."""

    def __init__(self, table: Mapping[tuple[State, Act], State]) -> None:
        self.table: Final = dict(table)

    def allows(self, state: State, act: Act) -> bool:
        """Tell whether *act* is possible in *state*."""
        return (state, act) in self.table

    def after(self, state: State, act: Act) -> State:
        """Return the state that *act* leads to; raise `IllegalMoveError` where it is not possible."""
        try:
            return self.table[state, act]
        except KeyError:
            raise IllegalMoveError(f"{act.name.lower()} is not possible when it is {state}") from None

    def sources(self, act: Act) -> str:
        """Return the states in which *act* is possible, as a list of SQL."""
        return ", ".join(f"'{state}'" for state, each in self.table if each is act)


class AnswerState(enum.StrEnum):
    """How the answer to an action stands; OPEN has no row."""

    OPEN = "open"
    RUNNING = "running"
    ANSWERED = "answered"
    POSTED = "posted"


class AnswerAct(enum.Enum):
    """What changes an answer."""

    HANDLE = enum.auto()
    """A handler begins."""
    HANDLE_AGAIN = enum.auto()
    """A handler that may be repeated begins in the place of one that was cut off."""
    ANSWER = enum.auto()
    """The handler has answered."""
    ABANDON = enum.auto()
    """The handler ended without an answer, and did nothing."""
    CUT_OFF = enum.auto()
    """The handler was cut off: what it did is not known, and nobody is at it."""
    DECIDE = enum.auto()
    """A person has answered; never over an answer that is there: the first one stands."""
    TAKE_BACK = enum.auto()
    """The vendor has refused a person's answer, or a person replaces one that failed."""
    UNFIT = enum.auto()
    """The vendor's dialect would not send the answer: what the handler did is done, and an answer is still due."""
    POST = enum.auto()
    """The vendor has taken the answer, or has that of somebody else."""


_O, _A = AnswerState, AnswerAct

ANSWER_MOVES: Final = Moves({
    (_O.OPEN, _A.HANDLE): _O.RUNNING,
    (_O.OPEN, _A.DECIDE): _O.ANSWERED,
    (_O.RUNNING, _A.HANDLE_AGAIN): _O.RUNNING,
    (_O.RUNNING, _A.ANSWER): _O.ANSWERED,
    (_O.RUNNING, _A.ABANDON): _O.OPEN,
    (_O.RUNNING, _A.CUT_OFF): _O.RUNNING,
    (_O.RUNNING, _A.DECIDE): _O.ANSWERED,
    (_O.ANSWERED, _A.TAKE_BACK): _O.OPEN,
    (_O.RUNNING, _A.UNFIT): _O.RUNNING,
    (_O.ANSWERED, _A.UNFIT): _O.RUNNING,
    (_O.ANSWERED, _A.POST): _O.POSTED,
})


class WaitState(enum.StrEnum):
    """How the wait for a person stands."""

    WAITING = "waiting"
    ANSWERED = "answered"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


class WaitAct(enum.Enum):
    """What changes a wait."""

    PARK = enum.auto()
    """The action is asked for, or asked for anew."""
    ANSWER = enum.auto()
    REFUSE = enum.auto()
    WITHDRAW = enum.auto()
    """Nobody needs the answer any more."""
    TAKE_BACK = enum.auto()
    """The answer cannot be sent: it is asked for again."""


_W, _D = WaitState, WaitAct

WAIT_MOVES: Final = Moves({
    (_W.WAITING, _D.PARK): _W.WAITING,
    (_W.WITHDRAWN, _D.PARK): _W.WAITING,
    (_W.WAITING, _D.ANSWER): _W.ANSWERED,
    (_W.WAITING, _D.REFUSE): _W.REFUSED,
    (_W.WAITING, _D.WITHDRAW): _W.WITHDRAWN,
    (_W.ANSWERED, _D.TAKE_BACK): _W.WAITING,
    (_W.REFUSED, _D.TAKE_BACK): _W.WAITING,
})
