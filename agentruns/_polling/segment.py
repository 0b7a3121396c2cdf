"""One segment of a run: the time from a start, or an answer, to the next stop. A poll clock learns its length."""

from __future__ import annotations

from typing import Final

from .clock import PollClock

PRICE: Final = 0.1
"""Seconds of waiting that one poll is worth."""


class Segment:
    """
    What is known of one segment; times are those of the loop, in seconds.

    It is open until the run stops, or is watched no more; then it is closed, once.
    """

    __slots__ = ("began", "clock", "is_open", "is_whole", "later", "learns", "phase", "running_at", "sent")

    def __init__(
        self, now: float, phase: float, *, later: bool, learns: bool, is_whole: bool, is_open: bool = True
    ) -> None:
        self.began = now
        self.phase = phase
        self.later = later
        """It follows an answer: such segments have a clock of their own."""
        self.learns = learns
        """*began* is when the run began to move, so that its length is known."""
        self.is_whole = is_whole
        """It is all there is of the run so far."""
        self.is_open = is_open
        self.clock: PollClock | None = None
        self.sent: float | None = None
        """When the last poll left that was answered, None before the first."""
        self.running_at = 0.0
        """Seconds after its begin at which the run was last seen in flight."""

    @property
    def read_at(self) -> float:
        """Return the time of what is known of the run: when the last poll left, else when the segment began."""
        return self.began if self.sent is None else self.sent

    def use(self, clock: PollClock) -> PollClock:
        """Go by *clock*, until `leave_clock`."""
        self.clock = clock
        clock.active += 1
        return clock

    def leave_clock(self) -> None:
        """Go by no clock, or by another one from now on."""
        clock, self.clock = self.clock, None
        if clock is not None:
            clock.active -= 1

    def next(self, clock: PollClock, now: float, floor: float) -> float:
        """Return when to poll next: the last answer came *now*, and asked for *floor* seconds without a poll."""
        floor *= 1 + 0.1 * (self.phase % 1)  # upwards only, so that a crowd does not come back as one
        phase = self.phase if self.sent is None else None
        return self.began + clock.next(self._sent, now - self.began, phase=phase, price=PRICE, floor=floor)

    def pressure(self, clock: PollClock, now: float) -> float:
        """Return how much a poll is wanted *now*, beside others."""
        began, sent = self.began, self.sent
        if sent is None:
            return clock.pressure(now - began, 0.0, polled=False)
        return clock.pressure(now - began, sent - began, polled=True)

    @property
    def _sent(self) -> float:
        return 0.0 if self.sent is None else self.sent - self.began

    def saw_running(self, sent: float) -> None:
        """Note that a poll that was sent then has found the run in flight."""
        self.running_at = sent - self.began if sent > self.began else 0.0

    def set_age(self, now: float, seconds: float) -> None:
        """Note that the run is so old."""
        self.began = min(self.began, now - seconds)

    def close(self, until: float | None) -> None:
        """End it: it took *until* seconds at the most, None if nobody watched its end; its clock learns from that."""
        if not self.is_open:
            raise RuntimeError("a segment is closed once")
        self.is_open = False
        if self.learns:
            assert self.clock is not None, "what learns has a clock when it is closed"
            self.clock.learn(self.running_at, until, active=self.clock.active)
        self.leave_clock()
