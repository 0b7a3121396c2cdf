"""What was read a moment ago, for requests that say that it will do."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, TypeAlias

from agentruns._values.exchange import Request, Response

_MOST: Final = 64
"""How many answers are kept: those of one agent or two, or of a few lists."""

_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


class RecentAnswers:
    """Keep the last good answer to each GET that has a `max_age`. Times are those of the loop."""

    __slots__ = ("_answers",)

    def __init__(self) -> None:
        self._answers: OrderedDict[_Key, tuple[float, Response]] = OrderedDict()

    def find(self, request: Request, now: float) -> Response | None:
        """Return the answer that was asked for no longer ago than the request allows, None if there is none."""
        asked_at, response = self._answers.get(_key(request), (0.0, None))
        return response if request.max_age and asked_at + request.max_age >= now else None

    def keep(self, request: Request, asked_at: float, response: Response) -> None:
        """Keep an answer, in the place of the one before."""
        if request.method == "GET" and response.status == 200:
            key = _key(request)
            self._answers[key] = asked_at, response
            self._answers.move_to_end(key)
            while len(self._answers) > _MOST:
                self._answers.popitem(last=False)


def _key(request: Request) -> _Key:
    return request.path, tuple(sorted(request.params.items()))
