"""
The package broken on purpose, one mechanism at a time: what the laws are worth.

A mutation replaces a function of the package while a seed is played. Each must break a law within a bounded number of
seeds; one that does not is either no mechanism that anything depends on, or shows that a law is missing.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest import mock

from attrs import evolve, frozen

from agentruns._api import api, flow, noting
from agentruns._api.limiter import Permits
from agentruns._api.window import Window
from agentruns._following.driver import Driver
from agentruns._following.turn import Turn
from agentruns._following.waiter import Waiter
from agentruns._keeping import handlers, keys, posting, starting
from agentruns._keeping.journal import Journal
from agentruns._keeping.journal.decisions import Decisions
from agentruns._keeping.journal.handlings import Handlings
from agentruns._keeping.journal.parked import ParkedActions
from agentruns._keeping.journal.records import Records
from agentruns._keeping.journal.starts import Starts
from agentruns._polling.contact import Contact
from agentruns._polling.poller import Poller
from agentruns._polling.watch import Watch
from agentruns._values import news
from agentruns._values.exchange import Request
from agentruns.dialects.narrative import answers as narrative_answers
from agentruns.dialects.origami import admission, runs
from agentruns.dialects.vendor import Vendor
from agentruns.errors import APIError

from . import disk
from .simulated_vendors import STANDS

Patch = tuple[Any, str, Any]
ALL: Final = tuple(STANDS)


@frozen
class Mutation:
    """One mechanism, what takes its place, and the vendors that depend on it."""

    name: str
    patches: Callable[[], Sequence[Patch]]
    vendors: Sequence[str] = ALL
    why: str = ""
    """Why no law can notice it, if none can."""


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _minted(starts: bool) -> Sequence[Patch]:
    """Mint the ids of starts, or of answers, anew for each attempt."""
    call = api.Api.call

    async def minted(self: Any, request: Request, *given: Any) -> Any:
        body, new = request.json, str(uuid.UUID(int=random.getrandbits(128), version=4))
        if request.method == "POST" and isinstance(body, Mapping):
            if "client_op_id" in body and (body["payload"]["kind"] == "user_message") is starts:
                request = evolve(request, json={**body, "client_op_id": new})
            if "Idempotency-Key" in request.headers and body["prompt"].startswith("do w") is starts:
                request = evolve(request, headers={"Idempotency-Key": new})
        return await call(self, request, *given)

    return [(api.Api, "call", minted)]


def _repeated() -> Sequence[Patch]:
    exchange = flow._exchange

    async def repeated(request: Request, *rest: Any) -> Any:
        return await exchange(evolve(request, idempotent=True), *rest)

    return [(flow, "_exchange", repeated)]


def _fresh(where: type, what: str) -> Sequence[Patch]:
    original = getattr(where, what)

    def fresh(*args: Any, **options: Any) -> Any:
        return evolve(original(*args, **options), fresh=True)

    return [(where, what, fresh)]


def _unkept_answers() -> Sequence[Patch]:
    def shown(handlings: Any, key: str, run_id: str, action_id: str, *_: Any) -> Any:
        return handlings.present((handlings._records.id_of(key), run_id, action_id))

    return [(Handlings, "answered", shown)]


def _answers_of_streams() -> Sequence[Patch]:
    original = Driver.answer

    async def dropping(self: Any, *args: Any) -> Any:
        try:
            return await original(self, *args)
        except Exception:
            self._pending = None
            raise

    return [(Driver, "answer", dropping)]


def _apart() -> Sequence[Patch]:
    acquire = Poller.acquire

    def apart(self: Any, ref: Any, *given: Any) -> Watch:
        self._watches.pop(ref.id, None)
        return acquire(self, ref, *given)

    return [(Poller, "acquire", apart)]


def _no_answers_counted() -> Sequence[Patch]:
    take = Window.take

    def counting(self: Any, now: float) -> None:
        take(self, now)
        if self.limit is not None:
            self.answered(now)

    def releasing(self: Any) -> None:
        limiter = self.limiter
        if limiter.limit is not None and self._vendor.calls:
            limiter._advance()

    return [(Window, "take", counting), (Permits, "release", releasing)]


def _drop_goes_on() -> Sequence[Patch]:
    release = Poller.release

    def releasing(self: Any, watched: Watch) -> None:
        watched.worker = None
        release(self, watched)

    return [(Poller, "release", releasing)]


def _listens_on() -> Sequence[Patch]:
    release = Poller.release

    def releasing(self: Any, watched: Watch) -> None:
        release(self, watched)
        if watched.followers <= 0:  # else a read that was about to begin would be planned again and again, at once
            watched.listeners = ()

    return [(Poller, "unsubscribe", _nothing), (Poller, "release", releasing)]


def _no_locks() -> Sequence[Patch]:
    perform = flow.perform

    async def alone(
        wanted: Any, send: Any, problem: Any, retry: Any, _locks: Any = None, *rest: Any, **others: Any
    ) -> Any:
        return await perform(wanted, send, problem, retry, None, *rest, **others)

    return [(api, "perform", alone)]


def _cut() -> Sequence[Patch]:
    async def once(self: Any, make: Any, **_: Any) -> Any:
        return await make(flow.Attempts())

    return [(Driver, "_once", once)]


def _kept_claims() -> Sequence[Patch]:
    async def doing(self: Any, key: str, act: Any, standing: str, _undo: Any) -> Any:
        return await self.do_for(key, act, standing)

    return [(Journal, "do_or_undo", doing)]


def _last_answers() -> Sequence[Patch]:
    decided = Decisions.decided

    def overruling(self: Any, run_id: str, answers: Any, *, posting: bool = False, again: bool = False) -> Any:
        return decided(self, run_id, answers, posting=posting, again=True)

    return [
        (Decisions, "decided", overruling),
        (ParkedActions, "standing", lambda *_: ()),
        (narrative_answers, "_check_replay", _nobody),
    ]


def _reopened() -> Sequence[Patch]:
    saw = Records.saw

    def reopening(self: Any, key: str, run: str, done: bool, **options: Any) -> None:
        saw(self, key, run, False, **options)

    return [(Records, "saw", reopening)]


def _noted_early() -> Sequence[Patch]:
    note = noting.Notes.note

    async def at_once(self: Any, wanted: Any, **_: Any) -> Any:
        return await note(self, wanted, at_once=True)

    return [(noting.Notes, "note", at_once)]


def _impatient() -> Sequence[Patch]:
    return [(Contact, "patience_ends", lambda self, _: self.lost_since or 0.0)]


async def _unguarded(work: Any) -> Any:
    return await work


def _without_recovery() -> Any:
    of = Vendor.of

    def instead(_: type[Vendor], dialect: Any) -> Vendor:
        return evolve(of(dialect), recover=None)

    return classmethod(instead)


MUTATIONS: Final[Sequence[Mutation]] = (
    Mutation("the id of a start is minted anew for each attempt", lambda: _minted(True), ("narrative", "origami")),
    Mutation("the id of an answer is minted anew for each attempt", lambda: _minted(False), ("narrative", "origami")),
    Mutation("what must not be repeated is repeated", _repeated, ("middesk", "conduit")),
    Mutation("the journal begins afresh each time", lambda: _fresh(Records, "begin")),
    Mutation("every handler is fresh", lambda: _fresh(Handlings, "handle"), ("narrative", "middesk", "origami")),
    Mutation("the journal keeps no answers", _unkept_answers, ("narrative", "middesk")),
    Mutation("a stream keeps no answers when posting fails", _answers_of_streams, ("narrative", "middesk", "origami")),
    Mutation("the last answer of a person stands", _last_answers, ("narrative", "middesk")),
    Mutation("the journal keeps no notes", lambda: [(Starts, "checkpoint", _nothing)], ("middesk", "conduit")),
    Mutation("starts are noted before they may be sent", _noted_early, ("middesk", "conduit")),
    Mutation(
        "starts that were refused stay noted", lambda: [(noting.Notes, "take_back", _at_once)], ("middesk", "conduit")
    ),
    Mutation("the journal keeps no states", lambda: [(Records, "saw", _nothing)]),
    Mutation("the journal keeps work open that is done", _reopened),
    Mutation("the journal keeps starts that were refused", lambda: [(Records, "forget_start", _nothing)]),
    Mutation("the journal keeps claims that nobody heard of", _kept_claims, ("narrative", "middesk", "origami")),
    Mutation(
        "writes are not waited for to the end",
        lambda: [(module, "run_shielded", _unguarded) for module in (handlers, posting, starting)],
        why="a write that was asked for is done, whatever happens to its caller: only the order may differ",
    ),
    Mutation("owners live for ever", lambda: [(disk.Locks, "alive", lambda self, owner: owner != "")]),
    Mutation("owners are taken for dead", lambda: [(disk.Locks, "alive", lambda self, owner: owner == self.me)]),
    Mutation("a key is not left when nobody follows it", lambda: [(keys.Keys, "leave", _nothing)]),
    Mutation("a key takes any origin", lambda: [(starting.Starting, "_check", _nothing)]),
    Mutation(
        "a start that died is begun anew instead of looked for",
        lambda: [(Vendor, "of", _without_recovery())],
        ("middesk", "conduit"),
    ),
    Mutation("a run may go back", lambda: [(news, "goes_back", _never)]),
    Mutation("each stream has a watch of its own", _apart),
    Mutation("a stream that leaves goes on listening", _listens_on),
    Mutation("letting go of a run ends no read", _drop_goes_on),
    Mutation("the budget counts from when a request was sent", _no_answers_counted),
    Mutation("the budget gives no rest", lambda: [(Permits, "pause", _nothing)]),
    Mutation("what waits for a connection gives no rest", lambda: [(Permits, "wait_resumed", _at_once)]),
    Mutation(
        "a refusal after doubt is taken for clear",
        lambda: [(APIError, "after_doubt", property(_never, _nothing))],
        ("narrative", "origami"),
    ),
    Mutation("what Origami forgets is not looked for", lambda: [(admission, "_look", _nobody)], ("origami",)),
    Mutation(
        "what the vendor was asked yesterday is asked again",
        lambda: [(keys.Keys, "key_expired", _never)],
        ("origami",),
    ),
    Mutation(
        "a run that another key has found is found again",
        lambda: [(Starts, "claim", lambda self, key, run_id: "mine")],
        ("middesk", "conduit"),
    ),
    Mutation("holds hold nobody", _no_locks, ("conduit", "middesk")),
    Mutation("a step that is cut off cuts off its work", _cut),
    Mutation(
        "an answered pause is answered again",
        lambda: [(Waiter, "shows_answered", _never), (news, "shows_answered", _never)],
        ("middesk",),
    ),
    Mutation("lost contact is not borne with", _impatient),
    Mutation("a run that is not visible yet is missing", lambda: [(Contact, "is_fresh", _never)]),
    Mutation("cut answers are taken for whole", lambda: [(flow, "undecodable", _nothing)]),
    Mutation("deadlines do not come", lambda: [(Turn, "deadline", property(lambda self: float("inf")))]),
    Mutation(
        "replays of Origami are taken for news",
        lambda: [(admission, "is_replay", _never), (runs, "is_replay", _never)],
        ("origami",),
    ),
)


def _never(*_: Any) -> bool:
    return False


async def _at_once(*_: Any) -> None:
    pass


def _nobody(*_: Any) -> Iterator[None]:
    yield from ()


BY_NAME: Final[Mapping[str, Mutation]] = {each.name: each for each in MUTATIONS}


@contextmanager
def mutated(name: str | None) -> Iterator[None]:
    """Break the package in one way."""
    with ExitStack() as stack:
        if name is not None:
            for where, what, instead in BY_NAME[name].patches():
                stack.enter_context(mock.patch.object(where, what, instead))
        yield
