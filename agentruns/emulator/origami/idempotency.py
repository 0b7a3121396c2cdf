"""Answers kept under an Idempotency-Key (docs.origami.chat/openapi-v2.yaml, "Idempotency")."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import attrs
from attrs import frozen

from agentruns.emulator.vendor import Reply, Request

from .errors import ApiError, invalid

HEADER: Final = "Idempotency-Key"
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_KEPT: Final = 24 * 3600.0


@frozen
class _Kept:
    """The first answer given to a key, and to what."""

    method: str
    path: str
    content: bytes
    reply: Reply
    at: float

    def answers(self, request: Request) -> bool:
        return (self.method, self.path, self.content) == (request.method, request.path, request.content)


class Keys:
    """The keys of one organization: those of its projects are apart (the pages are silent on their scope)."""

    def __init__(self, *, store_refusals: bool, in_flight: float) -> None:
        self._below = 500 if store_refusals else 300
        self._in_flight = in_flight
        self._kept: dict[tuple[str | None, str], _Kept] = {}

    def once(self, request: Request, project: str | None, now: float, handle: Callable[[], Reply]) -> Reply:
        """Handle a request, unless its key has an answer already."""
        key = request.headers.get(HEADER)
        if key is None:
            return handle()
        if not _KEY.fullmatch(key):
            raise invalid(HEADER, "Must be 1 to 255 printable ASCII characters without blanks")
        kept = self._kept.get((project, key))
        if kept is not None and now < kept.at + _KEPT:
            if not kept.answers(request):
                raise ApiError("IDEMPOTENCY_ERROR", "This Idempotency-Key was used for a different request")
            if now < kept.at + self._in_flight:
                raise ApiError("IDEMPOTENCY_ERROR")
            return attrs.evolve(kept.reply, headers={**kept.reply.headers, "Idempotency-Replay": "true"})
        reply = handle()
        if reply.status < self._below:
            self._kept[project, key] = _Kept(request.method, request.path, request.content, reply, now)
        return reply
