"""Planned faults: what goes wrong, on which requests, how often."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Literal, TypeAlias, TypedDict, Unpack, cast

from attrs import Attribute, define, field, frozen, validators

Kind: TypeAlias = Literal["drop", "cut", "answer", "delay", "malformed", "redirect", "huge", "vendor"]
Shape: TypeAlias = Literal["not_json", "html", "empty", "wrong_shape", "missing_field", "wrong_type"]
RetryAfter: TypeAlias = int | float | str | timedelta | datetime

_SHAPES: tuple[Shape, ...] = ("not_json", "html", "empty", "wrong_shape", "missing_field", "wrong_type")


class Where(TypedDict, total=False):
    """Which requests a fault strikes: `times` of them (None: all), after letting the first `after` pass."""

    method: str
    path: str
    times: int | None
    after: int


def _strikes(_: object, attribute: Attribute[int | None], value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError(f"{attribute.name} is a number from 1 on, or None for always, not {value!r}")


@frozen(kw_only=True)
class Fault:
    """One planned fault; make it with the constructors below.

    `method` and `path` are shell patterns. A `committed` fault strikes after the request was handled: the work is done
    but the caller does not learn it. Otherwise the request has no effect at all.
    """

    kind: Kind
    method: str = "*"
    path: str = "*"
    times: int | None = field(default=cast("int | None", 1), validator=_strikes)
    after: int = field(default=0, validator=validators.ge(0))
    committed: bool = False
    status: int | None = None
    headers: Mapping[str, str] = field(factory=dict)
    retry_after: RetryAfter | None = None
    content: bytes | None = None
    seconds: float = field(default=0.0, validator=validators.ge(0))
    shape: Shape = field(default="not_json", validator=validators.in_(_SHAPES))
    target: str = ""
    size: int = 0

    @classmethod
    def drop(cls, *, committed: bool = False, **where: Unpack[Where]) -> Fault:
        """Cut the connection without a byte of an answer."""
        return cls(kind="drop", committed=committed, **where)

    @classmethod
    def cut(cls, **where: Unpack[Where]) -> Fault:
        """Handle the request, send half of the answer's body, cut the connection."""
        return cls(kind="cut", committed=True, **where)

    @classmethod
    def answer(
        cls,
        status: int,
        *,
        committed: bool = False,
        retry_after: RetryAfter | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        **where: Unpack[Where],
    ) -> Fault:
        """Answer with a status instead of the real answer; without `content` the body is the vendor's error body.

        `retry_after`: a number of seconds, or a datetime or timedelta for the HTTP-date form.
        """
        return cls(
            kind="answer",
            status=status,
            committed=committed,
            retry_after=retry_after,
            headers=headers or {},
            content=content,
            **where,
        )

    @classmethod
    def delay(cls, seconds: float, *, committed: bool = False, **where: Unpack[Where]) -> Fault:
        """Wait (in real seconds) before the request is handled, or with `committed` after that."""
        return cls(kind="delay", seconds=seconds, committed=committed, **where)

    @classmethod
    def malformed(cls, shape: Shape = "not_json", *, target: str = "", **where: Unpack[Where]) -> Fault:
        """Handle the request, then spoil the answer's body.

        Shapes `missing_field` and `wrong_type` spoil the field `target`, a dotted path such as "defaults.model", or
        "runs.0.id" in a list.
        """
        if shape in {"missing_field", "wrong_type"} and not target:
            raise ValueError(f"shape {shape!r} needs target=, the dotted path of the field to spoil")
        return cls(kind="malformed", shape=shape, target=target, committed=True, **where)

    @classmethod
    def redirect(cls, location: str, *, status: int = 302, **where: Unpack[Where]) -> Fault:
        """Answer with a redirect to `location`."""
        return cls(kind="redirect", status=status, target=location, **where)

    @classmethod
    def huge(cls, size: int = 64 * 1024 * 1024, **where: Unpack[Where]) -> Fault:
        """Handle the request, then answer, chunked, with a valid JSON body of more than `size` bytes."""
        return cls(kind="huge", size=size, committed=True, **where)

    @classmethod
    def vendor(cls, name: str, **where: Unpack[Where]) -> Fault:
        """Let the vendor fail in a way of its own, by the vendor's name for it."""
        return cls(kind="vendor", target=name, **where)

    def retry_after_text(self) -> str | None:
        """Write the Retry-After header, whose date form counts from the real time of now."""
        match self.retry_after:
            case None:
                return None
            case datetime() as moment:
                return format_datetime(moment.astimezone(UTC), usegmt=True)
            case timedelta() as wait:
                return format_datetime(datetime.now(UTC) + wait, usegmt=True)
            case seconds:
                return str(seconds)


@define
class _Planned:
    fault: Fault
    seen: int = 0
    struck: int = 0

    @property
    def spent(self) -> bool:
        return self.fault.times is not None and self.struck >= self.fault.times


class Faults:
    """The plan: every request meets at most one fault, the first added that is due."""

    def __init__(self, place: Callable[[Fault], Fault]) -> None:
        self._place = place
        self._planned: list[_Planned] = []
        self._lock = threading.Lock()

    def add(self, *faults: Fault) -> None:
        """Plan more faults."""
        placed = [_Planned(self._place(fault)) for fault in faults]
        with self._lock:
            self._planned.extend(placed)

    def clear(self) -> None:
        """Forget all planned faults."""
        with self._lock:
            self._planned.clear()

    @property
    def waiting(self) -> tuple[Fault, ...]:
        """The faults which still have a request to strike."""
        with self._lock:
            return tuple(planned.fault for planned in self._planned if not planned.spent)

    def take(self, method: str, path: str) -> Fault | None:
        """Choose the fault for a request; every matching fault counts the request towards its `after`."""
        taken: _Planned | None = None
        with self._lock:
            for planned in self._planned:
                fault = planned.fault
                if not (fnmatch.fnmatchcase(method, fault.method) and fnmatch.fnmatchcase(path, fault.path)):
                    continue
                planned.seen += 1
                if taken is None and planned.seen > fault.after and not planned.spent:
                    taken = planned
            if taken is None:
                return None
            taken.struck += 1
            return taken.fault
