"""
What a journal is kept in: what a store must provide, and nothing else.

`Journal` is the same over every store. So are the operations, `Records` and what stands on it (`Starts`, `Handlings`,
`Decisions`, `Tended`, `ParkedActions`): each is SQL that SQLite and PostgreSQL both read, and the few expressions that
they spell in two ways are a `Spelling`. A store is a `Location` that opens a `Ledger`: a connection that carries out
batches of writes, each as one transaction which no other overlaps, and that knows which owners are alive. `Writer`
hands it what many tasks write. For those who only look, it opens a `LedgerReader`: `JournalReader` is the same over
every store, and asks what `EntryQueries` spells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from .lease import Lease

if TYPE_CHECKING:
    from .queries import EntryQueries
    from .records import Records
    from .write import Write

T = TypeVar("T")

READ_SECONDS: Final = 10.0
"""How long one read of a `LedgerReader` may take: what somebody has made for it could keep it for ever."""


class News(Protocol):
    """What tells of the writes of others, for use in any thread; nothing blocks."""

    def version(self) -> int:
        """Return how often others have written, as far as that was told."""
        ...

    def call(self, seen: int, news: Callable[[], None]) -> Callable[[], None]:
        """Call *news* once, in whichever thread, when the version is not *seen*; return what takes that back."""
        ...


class Ledger(Protocol):
    """
    An open store, for use in one thread; every method blocks.

    What one transaction has read stays true until it is committed: transactions come one after the other, whichever
    process they are of, or look as if they did.
    """

    @property
    def owner(self) -> str:
        """Return the id of the owner that this open store is."""
        ...

    def carry_out(self, batch: Sequence[Write[Any]]) -> None:
        """
        Commit a batch, so that it outlives a crash; where it fails, each write alone.

        Each write is told what became of it: nothing is raised. Where others take the owner for dead, it is another one
        from then on: what was dead stays so.
        """
        ...

    @property
    def lease(self) -> Lease | None:
        """Return for how long the owner may act; None where others see for themselves whether it is there."""
        ...

    @property
    def news(self) -> News | None:
        """Return what tells of the writes of others; None where one must look, by `version`."""
        ...

    def snapshots(self) -> Snapshots | None:
        """Return what reads in another thread while this writes; None where a read is best done as a write is."""
        ...

    @property
    def idle_seconds(self) -> float | None:
        """Return after how long a silence `idle` is due; None if it never is."""
        ...

    def version(self) -> int:
        """Return a number that changes whenever another connection has written."""
        ...

    def idle(self) -> None:
        """Say that the owner is still there; nothing is raised."""
        ...

    def compact(self) -> None:
        """Give room that is not used back, where that costs others nothing."""
        ...

    def close(self) -> None:
        """Close the store; the owner is gone at once."""
        ...


class Snapshots(Protocol):
    """What reads an open store and waits for nobody who writes to it, for use in one thread; every method blocks."""

    def read(self, act: Callable[[Records], T], standing: str) -> T:
        """Return what *act* finds, all of it of one moment; raise `JournalError`, which says how things stand."""
        ...

    def close(self) -> None:
        """Read no more."""
        ...


class LedgerReader(Protocol):
    """An open store that is only read, for use in one thread; every method blocks, and all raise `JournalError`."""

    @property
    def news(self) -> News | None:
        """Return what tells of the writes of others; None where one must look, by `version`."""
        ...

    def version(self) -> int:
        """Return a number that changes whenever another connection has written."""
        ...

    def read(self, read: Callable[[EntryQueries], T]) -> T:
        """Return what *read* finds, all of it of one moment; it has `READ_SECONDS` for that."""
        ...

    def alive(self, owners: set[str]) -> set[str]:
        """Return which of *owners* may still act; those of whom that cannot be told now are among them."""
        ...

    def close(self) -> None:
        """Close the store."""
        ...


class Location(Protocol):
    """Where a journal is, and how it is opened."""

    @property
    def name(self) -> str:
        """Return what texts and errors call it: no secret is in it."""
        ...

    def open(self, vendor: str) -> Ledger:
        """
        Open the store, made if there is none, in the thread that will use it.

        Raise `ConfigurationError` for what cannot be a journal, and leave it as it was.
        """
        ...

    def open_reader(self) -> LedgerReader:
        """
        Open the store to read it, in the thread that will use it.

        Raise `ConfigurationError` for what is no journal, and where there is none.
        """
        ...
