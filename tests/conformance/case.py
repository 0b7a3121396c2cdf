"""What a scenario needs to know of a vendor, and nothing more."""

from collections.abc import Mapping
from typing import Any, ClassVar

from agentruns import Backoff, Client, Retry, connect
from agentruns.dialects.protocol import Dialect
from agentruns.emulator import Call, Emulator, Turn, Vendor
from agentruns.emulator.clock import Clock

QUICK = Backoff(initial=0.01, maximum=0.05)


class Case:
    """One vendor under test; a dialect of your own needs a subclass of this, and passes the kit or says why not."""

    name: ClassVar[str]
    start_path: ClassVar[str]
    """The path, as a shell pattern, of the POST that starts a run."""

    resume_path: ClassVar[str]
    """The path of the POST that answers one."""

    poll_path: ClassVar[str]
    """The path of the GET that reads one."""

    id_field: ClassVar[str] = "id"
    """Where the run's id stands in the answer to that GET."""

    not_applicable: ClassVar[Mapping[str, str]] = {}
    """By scenario, the reason why this vendor cannot show it."""

    error: ClassVar[str] = "Boom"
    """An error that makes a run fail."""

    repeats_starts: ClassVar[bool] = True
    """Whether a start may be sent again after a lost answer (else: found again, or its outcome is unknown)."""

    @property
    def dialect(self) -> Dialect:
        raise NotImplementedError

    def emulator(self, *script: Turn, clock: Clock | None = None) -> Emulator[Any]:
        return Emulator(self.name, script=script, clock=clock)

    def connect(self, emulator: Emulator[Vendor], attempts: int = 4) -> Client:
        return connect(
            self.dialect,
            token=emulator.token,
            base_url=emulator.base_url,
            schedule=QUICK,
            retry=Retry(attempts=attempts, backoff=QUICK),
            budget=10_000,
        )

    def call(self, number: int) -> Call:
        """Return what makes a run pause."""
        raise NotImplementedError

    async def origin(self, client: Client, emulator: Emulator[Any]) -> Any:
        """Return what starts a run, after making what it needs."""
        raise NotImplementedError
