"""What keeps errors of the telemetry away from the runs."""

from __future__ import annotations

import logging
from contextlib import suppress
from types import TracebackType

logger = logging.getLogger("agentruns")


class Guard:
    """
    A context that lets no error out of it.

    The first one is logged as a warning, later ones for debugging only: what breaks here breaks again with every run.
    """

    __slots__ = ("_has_failed",)

    def __init__(self) -> None:
        self._has_failed = False

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self._log_failure(error)
        return True

    def _log_failure(self, error: Exception) -> None:
        level = logging.DEBUG if self._has_failed else logging.WARNING
        self._has_failed = True
        with suppress(Exception):  # the log itself may be broken
            logger.log(level, "telemetry failed; the runs go on without: %r", error, exc_info=error)
