"""Contact with the vendor about one run: whether it is lost, since when, and who bears with that for how long."""

from __future__ import annotations

import enum
import math
from copy import copy

from agentruns.errors import APIError, NotFoundError, RateLimitedError, ServerError, TransportError

from .listener import Listener


class Failure(enum.Enum):
    """What a read that failed says of the reads to come."""

    LOST = "lost"
    """The vendor could not be reached, or could not answer: listeners bear with it until their patience ends."""

    LIMITED = "limited"
    """The vendor asks to be left alone: that is waited out."""

    FINAL = "final"
    """The next read would fail in the same way: listeners are told at once."""


class Contact:
    """How the last read of a run fared. Times are those of the loop, in seconds."""

    __slots__ = ("error", "floor", "fresh_until", "lost_since")

    def __init__(self) -> None:
        self.error: Exception | None = None
        """Why the last read failed, None if it was answered."""
        self.floor = math.inf
        """The seconds for which the last answer asked not to be asked again; infinite before the first."""
        self.lost_since: float | None = None
        self.fresh_until = -math.inf
        """Until then a 404 is a read that came before the start was visible."""

    @property
    def may_poll_early(self) -> bool:
        """Tell whether the vendor was there when it was last asked, and asked for no pause."""
        return self.error is None and self.floor == 0.0

    def answered(self, floor: float) -> None:
        """Note that a read was answered."""
        self.error = self.lost_since = None
        self.floor = floor

    def failed(self, error: Exception, now: float) -> Failure:
        """Note that a read failed, and tell what that means for the next."""
        self.error = copy(error)  # one that is raised holds, by its traceback, whoever it is raised to
        if (
            isinstance(error, TransportError | ServerError)
            or (isinstance(error, NotFoundError) and self.is_fresh(now))
            or (isinstance(error, APIError) and error.status == 408)
        ):
            if self.lost_since is None:
                self.lost_since = now
            return Failure.LOST
        return Failure.LIMITED if isinstance(error, RateLimitedError) else Failure.FINAL

    def lose(self, error: Exception, now: float) -> None:
        """Note that no read can be sent, and why."""
        if self.lost_since is None:
            self.error, self.lost_since = copy(error), now

    def is_fresh(self, now: float) -> bool:
        """Tell whether a read may still come before the start is visible to it."""
        return now <= self.fresh_until

    def excuse(self, seconds: float) -> None:
        """Note that nobody waited for so long: such time is no lost contact."""
        if self.lost_since is not None:
            self.lost_since += seconds

    def patience_over(self, listener: Listener, now: float) -> bool:
        """Tell whether contact has been lost for longer than *listener* bears."""
        if self.lost_since is None:
            return False
        return now >= self.patience_ends(listener) or bool(getattr(self.error, "final", False))

    def patience_ends(self, listener: Listener) -> float:
        """Return when *listener* will have borne with lost contact for long enough; infinite if it is not lost."""
        since = math.inf if self.lost_since is None else self.lost_since
        return max(since, listener.patient_since) + listener.patience
