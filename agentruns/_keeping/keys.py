"""
Work under a key: what a stream does goes through the journal, before it is done and after.

A start is entered before it is sent. Whoever follows the same key later, in this process or another, attaches to the
run that was started; a start whose process died is gone through with under the keys of its origin, or settled by
looking (`dialect.Recovers`), never sent a second time blindly. A handler is entered before it is run, its answer after;
an answer that was given is posted, not asked for again. A handler that was cut off by a crash may or may not have had
its effect: it is run again only if its tool is `repeatable`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic
from weakref import WeakValueDictionary

import attrs
from attrs import frozen

from agentruns._aio.shield import run_shielded
from agentruns._aio.tasks import Tasks
from agentruns._api.flow import Attempts
from agentruns._api.operations import Operations
from agentruns._values import codec
from agentruns._values.commands import Checkpoint, Ownership, first_request
from agentruns._values.exchange import Request
from agentruns._values.generic import DetailT_co, OriginT_co
from agentruns._values.run import Action, Run, RunRef, RunStatus, ToolOutput
from agentruns.dialects.protocol import Recovers
from agentruns.errors import (
    APIError,
    ConfigurationError,
    ConflictError,
    OutcomeUnknownError,
    RunError,
    ServerError,
    ToolOutcomeUnknownError,
    UnsupportedError,
)
from agentruns.tools import Tool, answer

if TYPE_CHECKING:  # imported with the first journal: `import agentruns` stays light
    from .journal import Handling, Journal, Work

_LOOK_SECONDS: Final = 0.5
"""Seconds between two looks whether a handler that somebody else runs has answered."""

_FIRST_LOOK: Final = 0.05

_STARTS_SECONDS: Final = 120.0
"""How long a start elsewhere is waited for whose run might be taken for ours: longer than any looks for its own."""

_MARGIN: Final = 0.9
"""How much of the time for which a vendor remembers a key is trusted."""

_NOTHING_HAPPENED: Final = (ConfigurationError, UnsupportedError, RunError, APIError)


@frozen
class Unfinished(Generic[OriginT_co, DetailT_co]):
    """
    Work of a journal that is not done: what started it, its last state, None if it is not known to have started.

    `client.stream(work.origin, key=work.key)` goes on with it. `created` and `updated` are seconds since the epoch;
    `alive` says that somebody is at it now.
    """

    key: str
    origin: OriginT_co | RunRef
    run: Run[DetailT_co] | None
    alive: bool
    created: float
    updated: float


class Keys:
    """The journal of one client, and the keys that its streams follow."""

    def __init__(self, journal: Journal, operations: Operations, tasks: Tasks) -> None:
        self.journal = journal
        self.dialect = operations.dialect
        self.operations = operations
        self._tasks = tasks
        self._followed: Counter[str] = Counter()
        self._locks: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()

    def work(self, key: str) -> KeyedWork:
        """Return the work named *key*, for one stream."""
        return KeyedWork(self, key)

    def lock(self, *act: str) -> asyncio.Lock:
        """Return what one stream of this client holds while it is at an act of a piece of work."""
        return self._locks.setdefault(act, asyncio.Lock())

    def is_forgotten(self, since: float) -> bool:
        """Tell whether the vendor no longer knows under which key it was asked so long ago, in seconds of the epoch."""
        remembered = getattr(self.dialect, "KEY_SECONDS", None)
        return remembered is not None and time.time() - since > _MARGIN * remembered

    def follow(self, key: str) -> None:
        """Count a stream that follows *key*."""
        self._followed[key] += 1

    def leave(self, key: str) -> None:
        """Leave *key* to other processes when its last stream does."""
        self._followed[key] -= 1
        if self._followed[key] <= 0:
            del self._followed[key]
            self._tasks.spawn(self.journal.release(key))

    def leave_soon(self, key: str) -> None:
        """Leave *key* for a stream that was let go of; the collector asks, in whichever thread."""
        self._tasks.call_soon(partial(self.leave, key))

    async def decided(self, run: Run, outputs: Sequence[ToolOutput]) -> None:
        """Enter answers given by hand, before they are posted, in whatever work *run* is the last state of."""
        answers = [(each.action.id, each.action.name, _json(each.output), each.is_error) for each in outputs]
        await self.journal.decided(run.id, answers, posting=True)

    async def moved(self, run: Run, resumed: Run) -> None:
        """Enter that a run was answered by hand, in whatever work it is the last state of."""
        over = resumed.status.is_over
        await self.journal.moved(run.id, resumed.to_json(), done=over)

    async def unfinished(self) -> AsyncIterator[Unfinished]:
        """Iterate over the work that is not done, oldest first."""
        async for work in self.journal.unfinished():
            yield self._read(work)

    async def find(self, key: str) -> Unfinished | None:
        """Return the work named *key*, done or not; None if there is none."""
        work = await self.journal.get(key)
        return None if work is None else self._read(work)

    async def origin_of(self, key: str) -> Any:
        """Return what started the work named *key*; None if there is none."""
        work = await self.journal.get(key)
        return None if work is None else self.restored(work)

    def _read(self, work: Work) -> Unfinished:
        run = None if work.run is None else Run.from_json(work.run)
        return Unfinished(work.key, self.restored(work), run, work.alive, work.created, work.updated)

    def restored(self, work: Work) -> Any:
        """Return what started the work, as it was given."""
        kept = codec.decode(work.origin)
        if isinstance(kept, Mapping) and set(kept) == {"ref"}:
            return RunRef(**kept["ref"])
        return self.dialect.Origin(**kept) if isinstance(kept, Mapping) else self.dialect.Origin(kept)


class KeyedWork:
    """One piece of work, as one stream follows it: the acts of the stream, each entered into the journal."""

    def __init__(self, keys: Keys, key: str) -> None:
        self._keys = keys
        self._journal = keys.journal
        self.key = key
        self._follows = False

    # Beginning --------------------------------------------------------------------------------------------------------

    def begins(self, _origin: Any, /) -> bool:
        """Return True: even a run that exists is entered under the key."""
        return True

    async def begin(self, origin: Any, attempts: Attempts) -> Run:
        """
        Start the run, or attach to the one that this key has started.

        Raise `ConfigurationError` for a key that names other work, `OutcomeUnknownError` for a start that died and
        cannot be settled, and whatever a start raises.
        """
        if not self._follows:
            self._follows = True
            self._keys.follow(self.key)
        async with self._keys.lock("begin", self.key):  # so no other stream of ours is at it
            if isinstance(origin, Run | RunRef):
                return await self._attach_to(origin, attempts)
            return await self._begin(origin, attempts)

    async def _begin(self, origin: Any, attempts: Attempts) -> Run:
        text = kept(origin)
        while True:
            work = await self._journal.begin(self.key, text)
            if work.fresh:
                return await self._start(partial(self._keys.operations.start, origin, self, attempts))
            self._check(work, origin)
            if work.run is not None:
                return await self._present(Run.from_json(work.run), attempts)
            if work.taken or work.mine:  # ours, if the journal could not be told that it was given up
                return await self._start_again(work, attempts)
            await self._journal.wait(self.key, work.updated)  # somebody else is starting it

    async def _attach_to(self, origin: Run | RunRef, attempts: Attempts) -> Run:
        run = origin if isinstance(origin, Run) else await self._keys.operations.fetch(origin, attempts=attempts)
        work = await self._journal.attach(self.key, kept(run.ref), run.to_json())
        if work.fresh:
            return run
        if work.run is None and (work.taken or work.mine):  # it could not be settled; the caller knows which run it is
            await run_shielded(self.saw(run))
            return run
        if not await self._was_at(work, run):
            self._check(work, run.ref)
        return await self._present(run if work.run is None else Run.from_json(work.run), attempts)

    async def _was_at(self, work: Work, run: Run) -> bool:
        """Tell whether the work is, or was, at that run: its name is no other work."""
        if work.run is not None and Run.from_json(work.run).id == run.id:
            return True
        return bool(await self._journal.answers(self.key, run.id))

    async def _present(self, run: Run, attempts: Attempts) -> Run:
        """Return the run as it is now, if it waited when it was last seen: it may have been answered since."""
        if run.status is not RunStatus.REQUIRES_ACTION:
            return run
        now = await self._keys.operations.fetch(run.ref, attempts=attempts)
        if now != run:
            await run_shielded(self.saw(now))
        return now

    def _check(self, work: Work, origin: Any) -> None:
        """Refuse a key that names other work; ids that are minted for each value do not make it other work."""
        before = self._keys.restored(work)
        if type(before) is not type(origin) or _intent(before) != _intent(origin):
            raise ConfigurationError(
                f"key {self.key!r} names other work in the journal {self._journal.path}: it began with {before!r}",
                field="key",
                remedy="use another key for this, or pass the same origin to go on with that",
            )

    async def _start_again(self, work: Work, attempts: Attempts) -> Run:
        """Go through with a start whose process died, or whose outcome was not clear."""
        dialect, origin = self._keys.dialect, self._keys.restored(work)
        if self._keys.is_forgotten(work.created):
            await self._journal.release(self.key)
            raise self._told(
                OutcomeUnknownError(
                    first_request(dialect.start(origin)),
                    "it was begun longer ago than the vendor remembers what it was asked",
                )
            )
        begin = partial(self._keys.operations.start, origin, self, attempts)
        # Without a note it died before the first request that must not be repeated.
        if not isinstance(dialect, Recovers) or work.start_note is None:
            return await self._start(begin, again=True)
        note = codec.decode(work.start_note)

        async def settle() -> Run:
            if work.group_name is not None:
                await self._journal.recovering(self.key)
            if "known" in note:
                note["known"] += await self._journal.runs_since(work.created)  # what other keys have found is not ours
            return await self._keys.operations.recover(origin, note, self, attempts)

        return await self._start(settle, again=True)

    async def _start(self, start: Callable[[], Awaitable[Run]], *, again: bool = False) -> Run:
        """
        Start the run, and enter what came of it.

        A clear refusal means that nothing was begun, unless that was tried before.
        """
        try:
            run = await start()
        except _NOTHING_HAPPENED as error:
            unclear = again or isinstance(error, ServerError)
            if isinstance(error, APIError):
                unclear = unclear or error.status == 408 or error.after_doubt
            end = self._journal.release if unclear else self._journal.forget_start
            await run_shielded(end(self.key))
            raise
        except OutcomeUnknownError as error:
            await run_shielded(self._journal.release(self.key))
            raise self._told(error) from error.__cause__
        except BaseException:
            await run_shielded(self._journal.release(self.key))
            raise
        await run_shielded(self.saw(run))
        return run

    def _told(self, error: OutcomeUnknownError) -> OutcomeUnknownError:
        """Return the error with what can be done about it under this key."""
        return OutcomeUnknownError(
            error.request,
            f"{error.reason}. Under key {self.key!r} the journal keeps it as begun",
            remedy="the same call looks again; "
            f"`client.stream(RunRef(id, parent), key={self.key!r})` goes on with a run that you know to be its own; "
            "if there is none, start it under another key",
        )

    async def note(self, note: Checkpoint) -> Ownership:
        """Keep what a start found out; wait first for a start elsewhere that could not be told from it."""
        text = _json(note.data)
        if not note.group:
            await self._journal.checkpoint(self.key, text)
            return Ownership.MINE
        if await self._journal.reserve(self.key, text, note.group, note.visible_after):
            return Ownership.MINE
        for pause in _looks():
            await asyncio.sleep(pause)
            if await self._journal.reserve(self.key, text, note.group, note.visible_after):
                break
        return Ownership.OTHERS

    async def claim(self, run_id: str) -> Ownership:
        """Tell whose run it is that was found by looking; wait while another start may yet turn out to be its own."""
        for pause in _looks():
            verdict = await self._journal.claim(self.key, run_id)
            if verdict != "open":
                return Ownership[verdict.upper()]
            await asyncio.sleep(pause)
        return Ownership.UNCLEAR

    # Going on ---------------------------------------------------------------------------------------------------------

    def keeps(self, run: Run) -> bool:
        """Tell whether the state is one that is entered: one that waits, or is over."""
        return not run.status.in_flight

    async def saw(self, run: Run) -> None:
        """Enter a state: of a run that has begun, waits, or is over."""
        await self._journal.saw(self.key, run.to_json(), done=run.status.is_over)

    async def handle(
        self, run: Run, handlers: Sequence[tuple[Action, Tool]], answers: MutableMapping[str, ToolOutput]
    ) -> None:
        """Run those handlers of a pause that have not answered yet; none, if it is not known what another one did."""
        known = {each.action_id: each for each in await self._journal.answers(self.key, run.id)}
        for action, tool in handlers:
            before = known.get(action.id)
            if before is not None and not tool.repeatable and self._is_cut_off(before):
                raise _unknown(run, action)
        await answer([(action, partial(self._once, run, tool)) for action, tool in handlers], answers)

    def _is_cut_off(self, known: Handling) -> bool:
        """Tell whether nobody runs a handler that has not answered: no live process, and no stream of ours."""
        at_it = self._keys.lock("handle", self.key, known.run_id, known.action_id).locked()
        return known.state == "running" and not (at_it if known.mine else known.alive)

    async def _once(self, run: Run, tool: Tool, action: Action) -> ToolOutput:
        """Return the answer to an action: the one that was given, else that of the handler."""
        async with self._keys.lock("handle", self.key, run.id, action.id):
            return await self._once_alone(run, tool, action)

    async def _once_alone(self, run: Run, tool: Tool, action: Action) -> ToolOutput:
        """Answer, as the only stream of this client that does."""
        place = (self.key, run.id, action.id)
        while True:
            known = await self._journal.handle(*place, action.name, repeatable=tool.repeatable)
            if known.fresh:
                break
            if known.output is not None:
                return ToolOutput(action, codec.decode(known.output), known.is_error)
            if known.mine and tool.repeatable:
                break
            if known.mine or not known.alive:
                raise _unknown(run, action)
            await asyncio.sleep(_LOOK_SECONDS)  # another process runs it
        try:
            output = await tool(action)
        except asyncio.CancelledError:
            await run_shielded(self._journal.cut_off(*place))
            raise
        except BaseException:
            await run_shielded(self._journal.abandon_handler(*place))
            raise
        given = _json(output.output)
        known = await run_shielded(self._journal.answered(*place, given, output.is_error))
        if known.output is None or known.output == given:
            return output
        return ToolOutput(action, codec.decode(known.output), known.is_error)  # somebody has answered by hand

    async def answer(self, run: Run, outputs: Sequence[ToolOutput], attempts: Attempts, *, again: bool = False) -> Run:
        """Post the answers, and enter the state that follows; what somebody else has posted is not posted again."""
        async with self._keys.lock("answer", self.key):
            work = await self._journal.get(self.key)
            handled = {each.action_id: each.state for each in await self._journal.answers(self.key, run.id)}
            if all(handled.get(action.id) == "posted" for action in run.actions):
                moved = None if work is None or work.run is None else Run.from_json(work.run)
                if moved is None or moved.id == run.id:
                    moved = await self._keys.operations.fetch(run.ref, attempts=attempts)
                if moved.id != run.id or moved.status is not RunStatus.REQUIRES_ACTION:
                    return moved
            was_tried = work is not None and work.posting_run == run.id
            since = work.posting_at if work is not None and was_tried else None
            again = again or was_tried
            if since is not None and self._keys.is_forgotten(since):
                raise OutcomeUnknownError(
                    Request("POST", f"/ (the answers to run {run.id})"),
                    "they were sent before, longer ago than the vendor remembers what it was asked",
                )
            await self._journal.posting(self.key, run.id)
            resumed = await self._answered(run, outputs, attempts, again=again)
            await run_shielded(self._posted(run, resumed))
            return resumed

    async def _answered(self, run: Run, outputs: Sequence[ToolOutput], attempts: Attempts, *, again: bool) -> Run:
        """Answer what of a pause nobody else has answered, in these words or others, and return what follows."""
        while True:
            try:
                return await self._keys.operations.answer(run, outputs, again=again, attempts=attempts)
            except ConflictError:
                followed = await self._keys.operations.answered_by(run, attempts)
                resumed = followed or await self._keys.operations.fetch(run.ref, attempts=attempts)
                waits = {action.id for action in resumed.actions} if resumed.id == run.id else set()
                left = [output for output in outputs if output.action.id in waits]
                if len(left) == len(outputs):
                    raise
                if not left:
                    return resumed
                run, outputs = resumed, left

    async def _posted(self, run: Run, resumed: Run) -> None:
        await self.saw(resumed)
        await self._journal.posted(self.key, run.id)

    def leave(self) -> None:
        """Follow the work no more."""
        if self._follows:
            self._follows = False
            self._keys.leave(self.key)

    def __del__(self) -> None:
        if self._follows:
            self._keys.leave_soon(self.key)


def _unknown(run: Run, action: Action) -> ToolOutcomeUnknownError:
    return ToolOutcomeUnknownError(
        run,
        f"the handler of {action.name!r} for action {action.id} was cut off before it answered, and may or may not "
        "have done its work",
    )


def _looks() -> Iterator[float]:
    """Yield the seconds between looks at the journal, ever longer ones, until nothing is to be waited for any more."""
    waited, pause = 0.0, _FIRST_LOOK
    while waited < _STARTS_SECONDS:
        yield pause
        waited += pause
        pause = min(1.6 * pause, _LOOK_SECONDS)


def _json(value: Any) -> str:
    return codec.encode(value).decode()


def kept(origin: Any) -> str:
    """Return the JSON text of what starts a run."""
    value = {"ref": codec.unstructure(origin)} if isinstance(origin, RunRef) else codec.unstructure(origin)
    return _json(codec.to_jsonable(value, "the origin"))


def _intent(origin: Any) -> Any:
    """Return what of an origin makes it what it is: all but the ids that are minted anew for each value."""
    if not attrs.has(type(origin)):
        return origin
    minted = {each.name for each in attrs.fields(type(origin)) if isinstance(each.default, attrs.Factory)}  # type: ignore[arg-type]
    value = codec.to_jsonable(codec.unstructure(origin), "the origin")
    return {name: value[name] for name in value if name not in minted}
