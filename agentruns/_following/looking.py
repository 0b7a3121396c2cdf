"""A look now and then at a run that waits for an answer, for one who does nothing to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakMethod

from agentruns._polling.poller import Poller
from agentruns._polling.watch import Watch
from agentruns._values.news import Novelty, compare
from agentruns._values.run import Run

from .options import Options


class Look:
    """
    Have a run looked at that waits for an answer; `moved` is the first state that differs.

    *stir* is called then. It keeps nothing alive: the poller holds this, and a `RunWatch` that is dropped has to go.
    """

    def __init__(self, run: Run[Any], poller: Poller, options: Options, stir: Callable[[], None], began: float) -> None:
        self.moved: Run[Any] | None = None
        self._run = run
        self._stir = WeakMethod(stir)
        self._began = began
        self._poller = poller
        self._watch: Watch | None = poller.acquire(run.ref, options.params)
        poller.look_on(self._watch, self)

    def on_state(self, run: Run[Any], sent: float) -> bool:
        """Take note of a state; a read that was sent before this looked may show the run as it was earlier."""
        if sent >= self._began and compare(self._run, run) is Novelty.NEWS:
            self.moved = run
            stir = self._stir()
            if stir is not None:
                stir()
        return self.moved is not None

    def on_followed(self, followed: Run[Any], sent: float) -> bool:
        """Take note of the run that came of an answer, looked for since *sent*."""
        return self.on_state(followed, sent)

    def look_again(self, now: float) -> None:
        """Have the run read now."""
        if self._watch is not None:
            self._poller.poll_by(self._watch, now)

    def stop(self) -> None:
        """Have it looked at no more."""
        watch, self._watch = self._watch, None
        if watch is not None:
            self._poller.look_away(watch, self)
            self._poller.release(watch)
