"""What the scenarios need to know of a vendor, and nothing more."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

from attrs import evolve, field, frozen

from agentruns._api.retry import Backoff, Retry
from agentruns._connect import connect
from agentruns.client import Client
from agentruns.dialects import load, wire
from agentruns.dialects.names import find
from agentruns.dialects.vendor import Vendor
from agentruns.emulator import Call, Emulator, Turn
from agentruns.emulator.clock import Clock

QUICK: Final = Backoff(initial=0.01, maximum=0.05)


@frozen
class Live:
    """A real server: no faults can be planned on it, and what starts a run there may cost."""

    base_url: str
    token: str = field(repr=False)
    script: tuple[Turn, ...] = ()
    """What the next run is to do, for a case that `directs`"""


class Case:
    """
    One vendor under test: its dialect, and an emulator of it or the base URL of a real server.

    What the dialect cannot do is seen from its functions; a scenario that needs it is skipped, with the reason.
    """

    name: ClassVar[str] = ""
    """What the table calls this case; by default the dialect's name"""

    dialect: ClassVar[Any] = None
    """The dialect: a module, an object, or a name as `connect` takes it"""

    emulated: ClassVar[Any] = None
    """The emulator's class, or `module:attribute` of it; by default the dialect's `EMULATOR`, or that of its name"""

    base_url: ClassVar[str] = ""
    """A real server, instead of an emulator: scenarios that plan faults are skipped then"""

    directs: ClassVar[bool] = False
    """Whether `origin` makes runs of the real server do what the first turn of `server.script` says"""

    start_path: ClassVar[str] = ""
    """The path, as a shell pattern, of the POST that starts a run"""

    resume_path: ClassVar[str] = ""
    """The path of the request that answers one"""

    resume_method: ClassVar[str] = "POST"
    """The method of that request"""

    poll_path: ClassVar[str] = ""
    """The path of the GET that reads one"""

    list_path: ClassVar[str] = ""
    """The path of the GET that lists runs"""

    id_field: ClassVar[str] = "id"
    """Where the run's id stands in the answer to the GET that reads one"""

    rows_field: ClassVar[str] = ""
    """Where the rows stand in the answer to the GET that lists runs: `data`, `result.runs`"""

    row_id_field: ClassVar[str] = "id"
    """Where the run's id stands in such a row"""

    settles_answers: ClassVar[bool | None] = None
    """Whether an answer whose reply got lost is sent again or found; by default, unless `answered_by` never tells"""

    repeats_starts: ClassVar[bool | None] = None
    """Whether a start may be sent again after a lost answer; by default, if the dialect has no `recover`"""

    error: ClassVar[str] = "Boom"
    """An error that makes a run fail"""

    token: ClassVar[str] = ""
    """The token of the real server; by default from the variable that the dialect names"""

    hurry: ClassVar[float] = 20.0
    """How much faster than in life the pauses pass that flows ask for by `Sleep`"""

    not_applicable: ClassVar[Mapping[str, str]] = {}
    """By scenario, the reason why this vendor cannot show it; each reason stands in the table at the end"""

    @property
    def vendor(self) -> Vendor:
        """The dialect, checked as `connect` checks it."""
        return Vendor.of(load(self.dialect) if isinstance(self.dialect, str) else self.dialect)

    @property
    def label(self) -> str:
        """What the table calls this case."""
        return self.name or self.vendor.NAME

    @property
    def can_repeat_starts(self) -> bool:
        """Whether a start is sent again whose answer got lost."""
        return self.vendor.recover is None if self.repeats_starts is None else self.repeats_starts

    @property
    def can_find_starts(self) -> bool:
        """Whether a start whose answer got lost, and which is not sent again, is found by looking."""
        return self.vendor.recover not in {None, wire.never_found}

    @property
    def can_settle_answers(self) -> bool:
        """Whether an answer whose reply got lost is sent again, or found by looking."""
        finds = self.vendor.answered_by is not wire.never_answered
        return finds if self.settles_answers is None else self.settles_answers

    def emulator(self, *script: Turn, clock: Clock | None = None) -> Emulator[Any]:
        """Return an emulator that plays *script*, not started; by the clock of a test, if one is given."""
        vendor = self.vendor
        kind = self.emulated or vendor.EMULATOR or vendor.NAME
        if isinstance(kind, str) and ":" in kind:
            kind = find(kind, f"emulator of {vendor.NAME}")
        return Emulator(kind, script=script, clock=clock)

    @asynccontextmanager
    async def serve(self, *script: Turn) -> AsyncIterator[Emulator[Any] | Live]:
        """Give a server: the real one, or an emulator that plays *script*."""
        if self.base_url:
            yield Live(self.base_url, self.token or os.environ.get(self.vendor.TOKEN_VARIABLE, ""), script)
        else:
            async with self.emulator(*script) as emulator:
                yield emulator

    def connect(
        self,
        server: Emulator[Any] | Live,
        attempts: int = 4,
        *,
        journal: Path | None = None,
        token: str | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> Client:
        """Return a client of *server*, not open yet; *changes* replace functions of the dialect."""
        is_real = isinstance(server, Live)
        return connect(
            evolve(self.vendor, **changes or {}),
            token=server.token if token is None else token,
            base_url=server.base_url,
            schedule=None if is_real else QUICK,
            retry=Retry(attempts=attempts, backoff=QUICK),
            budget=None if is_real else 10_000,
            journal=journal,
        )

    def call(self, number: int) -> Call:
        """Return what makes a run pause: the *number* tells several of one pause apart."""
        return Call(f"ask_{number}", {"question": f"Shall I, {number}?"})

    async def origin(self, client: Client, server: Any) -> Any:
        """Return what starts a run, after making what it needs."""
        raise NotImplementedError(f"the case of {self.label} needs `async def origin(self, client, server)`")
