"""What a journal tells of one piece of work and of one answered action."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import field, frozen

from agentruns._values import codec

from .moves import AnswerState


@frozen
class Glance:
    """
    How some work stands: by its key, when it was changed last, and whether another living process is at it.

    `runs` are those, of the ids that were asked about, at which some work is, or was. `readings` has the versions of
    what is to be had from whoever reads runs, by the ids of those that somebody reads, or has read to the end.
    """

    stands: Mapping[str, tuple[float, bool]]
    runs: frozenset[str]
    readings: Mapping[str, float] = field(factory=dict)


@frozen
class Work:
    """
    One piece of work, named by its key.

    `origin`, `start_note` and `run` are JSON texts: what starts it, what the start found out before its next request
    (None once a run is known), and the last state seen. `group_name` names the starts from which this one cannot be
    told. `posting_run` is the run whose answers were last about to be posted, `posting_at` when that was tried first.
    `digest` names what was asked for, None where that is not known. `alive` tells whether the journal that is at it is
    still open somewhere, `mine` whether it is this one. Of a `begin`, `fresh` says that the work is new, and `taken`
    that it was taken over from an owner that is gone. Times are seconds since the epoch;
    `updated` grows with every change, whatever the clock does.
    """

    key: str
    vendor: str
    origin: str = field(repr=False)
    state: Literal["starting", "open", "done"]
    start_note: str | None = field(repr=False)
    group_name: str | None
    posting_run: str | None
    posting_at: float | None
    run: str | None = field(repr=False)
    owner: str
    alive: bool
    mine: bool
    created: float
    updated: float
    digest: str | None = None
    fresh: bool = False
    taken: bool = False


@frozen
class Handling:
    """
    One action of one pause.

    `output` is JSON text. Of a `handle`, `fresh` says that the handler is to be run now, and `taken` that an earlier
    attempt at it was cut off. `alive` and `mine` are those of whoever ran the handler. `digest` names what was asked,
    None where that is not known.
    """

    run_id: str
    action_id: str
    name: str
    state: AnswerState
    output: str | None = field(repr=False)
    is_error: bool
    owner: str
    alive: bool
    mine: bool
    digest: str | None = None
    fresh: bool = False
    taken: bool = False

    def is_of(self, digest: str | None) -> bool:
        """Tell whether this is of an action of that digest, as far as that is known."""
        return self.digest is None or digest is None or self.digest == digest


@frozen
class GivenAnswer:
    """An answer that a person gives to an action: `output` is JSON text, `digest` names what the person was asked."""

    action_id: str
    name: str
    output: str = field(repr=False)
    is_error: bool = False
    digest: str | None = None

    def says(self, output: str | None, is_error: bool) -> bool:
        """Tell whether another answer, JSON text as well, says the same."""
        if output is None or self.is_error != is_error:
            return False
        if self.output == output:
            return True
        mine, other = (codec.decode(text, trusted=True) for text in (self.output, output))
        return bool(mine == other)


@frozen
class StandingAnswer:
    """An answer that was given before: `output` is JSON text, `posted` tells that the vendor has taken it."""

    action_id: str
    output: str = field(repr=False)
    is_error: bool
    posted: bool = False


@frozen
class Decision:
    """
    What became of answers that a person gave.

    Where *standing* is not empty, other answers were there first, and nothing has changed. Else `entered` has what was
    put into the journal, each with what stood there before, for whoever must take it back; `withdrawn` has the ids of
    the parked actions that wait no more, `fresh_posting` the work whose answers nobody was posting before.
    """

    standing: tuple[StandingAnswer, ...] = ()
    entered: tuple[tuple[int, GivenAnswer, Handling | None], ...] = ()
    fresh_posting: tuple[int, ...] = ()
    withdrawn: tuple[str, ...] = ()
