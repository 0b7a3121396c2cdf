"""How work begins, is handled, and goes on: directly, or through a journal."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, Protocol

from agentruns._api.flow import Attempts
from agentruns._api.operations import Operations
from agentruns._keeping.keys import Keys
from agentruns._keeping.lifecycle import JournaledLifecycle
from agentruns._values.run import Run, RunRef, ToolOutput
from agentruns.tools import answer

from .answers import Handlers


class Lifecycle(Protocol):
    """What a stream does with its run, besides reading it."""

    @property
    def key(self) -> str | None:
        """Return the key of the work, None if it has none."""
        ...

    def begins(self, origin: Any, /) -> bool:
        """Tell whether `begin` has anything to do for *origin*; else it is a run, to be followed as it is."""
        ...

    async def is_known(self) -> bool:
        """Tell whether the work was begun before."""
        ...

    async def begin(self, origin: Any, attempts: Attempts, /) -> Run:
        """Start the run, or attach to the one that was started."""
        ...

    def share(self) -> None:
        """Keep states in flight, too: others look on."""
        ...

    def keeps(self, run: Run, /) -> bool:
        """Tell whether `saw` has anything to do for *run*."""
        ...

    async def saw(self, run: Run, /) -> None:
        """Keep a state, before it is shown."""
        ...

    async def handle(
        self, run: Run, handlers: Handlers, answers: MutableMapping[str, ToolOutput], origin: Any, /
    ) -> None:
        """
        Run the *handlers* of a pause, and enter each answer into *answers*, by the id of its action.

        *origin* is what started the run, None if the stream does not know. Raise `ConfigurationError`, before any
        handler, where the vendor has to be told, and nobody knows.
        """
        ...

    async def answer(
        self, run: Run, outputs: Sequence[ToolOutput], attempts: Attempts, origin: Any, /, *, again: bool = False
    ) -> Run:
        """Post the answers; *again*, if that was tried before and its outcome is not clear."""
        ...

    def leave(self) -> None:
        """Follow the work no more; it may be left twice."""
        ...


class FoundLifecycle:
    """
    Work on a run that exists: under the key that a journal has it under, if there is one, else directly.

    So whoever answers the run is one, in whatever process it was begun.
    """

    __slots__ = ("_direct", "_found", "_keys", "_shares")

    def __init__(self, direct: DirectLifecycle, keys: Keys) -> None:
        self._direct = direct
        self._found: JournaledLifecycle | None = None
        self._keys = keys
        self._shares = False

    @property
    def key(self) -> str | None:
        """Return the key of the work, None if it has none."""
        return None if self._found is None else self._found.key

    @property
    def _way(self) -> Lifecycle:
        return self._found or self._direct

    def begins(self, _origin: Any, /) -> bool:
        """Return True: the key of the run is to be found."""
        return True

    async def is_known(self) -> bool:
        """Return True: there is nothing to start."""
        return True

    async def begin(self, origin: Run | RunRef, attempts: Attempts, /) -> Run:
        """Find the key of the run, and attach to the work; a run that has none is read."""
        key = await self._keys.key_of(origin.id)
        if key is not None:
            self._found = self._found or JournaledLifecycle(self._keys, key)
            if self._shares:
                self._found.share()
            return await self._found.begin(origin, attempts)
        return origin if isinstance(origin, Run) else await self._keys.operations.fetch(origin, attempts=attempts)

    def share(self) -> None:
        """Keep states in flight, too, if there is a key."""
        self._shares = True

    def keeps(self, run: Run, /) -> bool:
        """Tell whether `saw` has anything to do for *run*."""
        return self._way.keeps(run)

    async def saw(self, run: Run, /) -> None:
        """Keep a state, if there is a key."""
        await self._way.saw(run)

    async def handle(
        self, run: Run, handlers: Handlers, answers: MutableMapping[str, ToolOutput], origin: Any, /
    ) -> None:
        """Run the handlers: once, if there is a key."""
        await self._way.handle(run, handlers, answers, origin)

    async def answer(
        self, run: Run, outputs: Sequence[ToolOutput], attempts: Attempts, origin: Any, /, *, again: bool = False
    ) -> Run:
        """Post the answers: once, if there is a key."""
        return await self._way.answer(run, outputs, attempts, origin, again=again)

    def leave(self) -> None:
        """Follow the work no more."""
        self._way.leave()


class DirectLifecycle:
    """Work without a journal; it has no state, and serves all streams of a client."""

    key = None

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def begins(self, origin: Any, /) -> bool:
        """Return True for what starts a run."""
        return not isinstance(origin, Run | RunRef)

    async def is_known(self) -> bool:
        """Return False: each start is a new one."""
        return False

    async def begin(self, origin: Any, attempts: Attempts, /) -> Run:
        """Start the run."""
        return await self._operations.start(origin, attempts=attempts)

    def share(self) -> None:
        """Do nothing: nobody else can look on."""

    def keeps(self, _run: Run, /) -> bool:
        """Return False: nothing is kept."""
        return False

    async def saw(self, _run: Run, /) -> None:
        """Do nothing."""

    async def handle(
        self, run: Run, handlers: Handlers, answers: MutableMapping[str, ToolOutput], origin: Any, /
    ) -> None:
        """Run the handlers that have not answered yet."""
        self._operations.origin_for(run, origin)
        await answer(handlers, answers)

    async def answer(
        self, run: Run, outputs: Sequence[ToolOutput], attempts: Attempts, origin: Any, /, *, again: bool = False
    ) -> Run:
        """Post the answers."""
        return await self._operations.answer(run, outputs, origin=origin, again=again, attempts=attempts)

    def leave(self) -> None:
        """Do nothing."""
