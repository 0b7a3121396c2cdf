"""When to try again and when to poll: numbers in, seconds out. No clock, no randomness in here."""

from __future__ import annotations

from typing import Any, Protocol

from attrs import Attribute, field, frozen

from agentruns._values.check import at_least_one, count, not_negative, positive
from agentruns.errors import ConfigurationError


class Schedule(Protocol):
    """Decide how long to wait before the next poll."""

    def delay(self, count: int, *, at_least: float = 0.0, noise: float = 0.5) -> float:
        """Return the seconds to wait after *count* fruitless polls."""
        ...


def is_schedule(name: str, value: Any) -> None:
    """Refuse anything but an object that says how long to wait."""
    if isinstance(value, type) or not callable(getattr(value, "delay", None)):
        raise ConfigurationError(
            f"{name} is {value!r}; it must be a Backoff, such as Backoff(initial=0.5, maximum=10.0), or an object with "
            "a method delay(count, *, at_least, noise)"
        )


def _is_schedule(owner: object, attribute: Attribute[Any], value: Any) -> None:
    is_schedule(f"{type(owner).__name__}.{attribute.name}", value)


@frozen
class Backoff:
    """Wait *initial* seconds, then *factor* times longer each time, never more than *maximum*, spread by *jitter*."""

    initial: float = field(default=0.5, validator=positive)
    factor: float = field(default=1.6, validator=positive)
    maximum: float = field(default=10.0, validator=positive)
    jitter: float = field(default=0.1, validator=not_negative)

    def delay(self, count: int, *, at_least: float = 0.0, noise: float = 0.5) -> float:
        """
        Return the seconds to wait after *count* fruitless tries.

        The vendor's own wish, *at_least*, is never shortened. *noise* in [0, 1) spreads clients out.
        """
        try:
            grown = self.initial * self.factor**count if count > 0 else self.initial
        except OverflowError:
            grown = self.maximum
        if grown > self.maximum:  # `min` and `max` of two numbers would take most of the time, for each poll
            grown = self.maximum
        wait, asked = grown * (1 + self.jitter * (2 * noise - 1)), at_least * (1 + self.jitter * noise)
        if wait < asked:
            return asked
        return wait


@frozen
class Retry:
    """
    How often to send one request, and how long to wait between.

    `attempts` counts the first try. `conflicts` is how many more looks a start or resume takes when the vendor's state
    moved between our read and our post (409); by default none, since a conflict is news. A vendor that asks for more
    than `longest` seconds of patience gets none: its error is raised at once, and says how long it asked for.
    """

    attempts: int = field(default=4, validator=at_least_one)
    backoff: Backoff = field(factory=Backoff, validator=_is_schedule)
    conflicts: int = field(default=0, validator=count)
    longest: float = field(default=60.0, validator=not_negative)
