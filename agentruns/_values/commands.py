"""What a flow may ask for besides a request: to sleep, hold a lock, keep a checkpoint, claim a run, warn of rows."""

from __future__ import annotations

import enum
from collections.abc import Generator, Mapping
from typing import Final, TypeAlias, TypeVar

from attrs import frozen

from .exchange import Request, Response
from .generic import Json

T = TypeVar("T")


@frozen
class Sleep:
    """Ask, within a flow, for *seconds* of waiting."""

    seconds: float


@frozen
class AwaitSlot:
    """
    Ask, within a start that was refused because all slots for runs are taken, to wait until one may be free.

    The vendor asks to be left alone for *seconds*. The answer is `Ownership.OTHERS` where more than *longest* seconds
    would have to be waited, and nobody is so patient.
    """

    seconds: float
    longest: float


@frozen
class Lock:
    """Ask, within a flow, to be the only flow of this client that holds *key*, until the flow ends."""

    key: str


@frozen
class Checkpoint:
    """
    Ask, within the flow of a start, that *data* is kept before the next request is sent that is not idempotent.

    That is: right before, once it may be sent, unless a request of the flow is in doubt already. After a clear refusal,
    what was kept before stands until such a request is sent again, by whomever.

    *data* is made of plain JSON types: what it takes to find out, after a crash, what became of that request. *group*
    names the starts from which this one could not be told. While another of them is under way, or has died so lately
    that its run may not be visible yet (*visible_after* seconds), nothing is kept. When that is over, the answer is
    `Ownership.OTHERS`: look again, then, at what has to be known before the request.
    """

    data: Mapping[str, Json]
    group: str = ""
    visible_after: float = 0.0


@frozen
class ClaimRun:
    """Ask, within the flow of a start, whether the run of that id, which was found by looking, is its own."""

    run_id: str


@frozen
class SkippedRows:
    """Tell, within a flow, which rows of the list that *line* asked for were left out: for each, what does not fit."""

    line: str
    misfits: tuple[str, ...]


class Ownership(enum.IntEnum):
    """
    Whose a run is, as far as is known: the answer to `Checkpoint` and `ClaimRun`.

    A flow is sent responses and nothing else, so it travels as the status of one that no vendor gave. Only two helpers
    know that: `wire.checkpoint` and `wire.claim_run`.
    """

    MINE = 204
    UNCLEAR = 300
    OTHERS = 409


Command: TypeAlias = Request | Sleep | AwaitSlot | Lock | Checkpoint | ClaimRun | SkippedRows
Flow: TypeAlias = Generator[Command, Response, T]
"""
A vendor operation: yields what it wants sent, receives the answers, returns a value.

A request is answered by the vendor's response, of a status below 400: else the error is raised at the `yield`. `Sleep`
and `Lock` are answered when the seconds have passed and when the lock is held. For `Checkpoint` and `ClaimRun` use
`yield from wire.checkpoint(...)` and `yield from wire.claim_run(...)`, which return what was decided.
"""


def first_request(flow: Flow[T]) -> Request:
    """
    Return the first request of a flow, without sending it; the flow is closed then.

    Locks and checkpoints that it asks for before are granted. Raise what the flow raises before, `ValueError` if it
    makes no request.
    """
    try:
        wanted = next(flow)
        while not isinstance(wanted, Request):
            wanted = flow.send(GRANTED)
        return wanted
    except StopIteration:
        raise ValueError("this flow makes no request") from None
    finally:
        flow.close()


GRANTED: Final = Response(Ownership.MINE, {}, b"", Request("NONE", "/"))
"""What a flow is sent for a command that has no answer, or none but a verdict."""
