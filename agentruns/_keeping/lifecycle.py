"""
Work under a key: what a stream does goes through the journal, before it is done and after.

Whoever follows the same key later, in this process or another, attaches to the run that was started, posts what was
answered and not posted, and runs no handler twice. Each act has a module of its own: `starting` (with `keeper`),
`handlers` and `posting`.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

from agentruns._api.flow import Attempts
from agentruns._values.run import Action, Run, ToolOutput
from agentruns.tools import Tool

from .handlers import HandlersOnce
from .keys import Keys
from .posting import PostingOnce
from .starting import Starting
from .work import keep_state


class JournaledLifecycle:
    """One piece of work, as one stream follows it: how it begins, is handled, and goes on, entered into the journal."""

    __slots__ = ("_follows", "_handlers", "_keys", "_posting", "_shares", "_starting", "key")

    def __init__(self, keys: Keys, key: str, digest: str | None = None) -> None:
        self.key = key
        self._shares = False
        self._keys = keys
        self._follows = False
        self._starting = Starting(keys, key, digest)
        self._handlers = HandlersOnce(keys, key)
        self._posting = PostingOnce(keys, key)

    def begins(self, _origin: Any, /) -> bool:
        """Return True: even a run that exists is entered under the key."""
        return True

    async def is_known(self) -> bool:
        """Tell whether the key names work that was begun before."""
        return await self._keys.journal.get(self.key) is not None

    async def begin(self, origin: Any, attempts: Attempts, /) -> Run:
        """Start the run, or attach to the one that this key has started; raise as `Starting.begin` does."""
        if not self._follows:
            self._follows = True
            self._keys.follow(self.key)
        async with self._keys.journal.acting():
            return await self._starting.begin(origin, attempts)

    def share(self) -> None:
        """Enter states in flight from now on, too, for those who look on in other processes."""
        self._shares = True

    def keeps(self, run: Run, /) -> bool:
        """Tell whether the state is one that is entered: one that waits, or is over, or any if they are shared."""
        return self._shares or not run.status.in_flight

    async def saw(self, run: Run, /) -> None:
        """Enter a state: of a run that has begun, waits, or is over."""
        await keep_state(self._keys.journal, self.key, run)

    async def handle(
        self,
        run: Run,
        handlers: Sequence[tuple[Action, Tool]],
        answers: MutableMapping[str, ToolOutput],
        _origin: Any,
        /,
    ) -> None:
        """Run those handlers that have not answered yet, once; raise as `HandlersOnce.handle` does."""
        await self._handlers.handle(run, handlers, answers)

    async def answer(
        self, run: Run, outputs: Sequence[ToolOutput], attempts: Attempts, _origin: Any, /, *, again: bool = False
    ) -> Run:
        """Post the answers, once; raise as `PostingOnce.post` does. What started the run, the journal knows."""
        async with self._keys.journal.acting():
            return await self._posting.post(run, outputs, attempts, again=again)

    def leave(self) -> None:
        """Follow the work no more; it may be left twice."""
        if self._follows:
            self._follows = False
            self._keys.leave(self.key)
