"""Conduit's errors: a status and one plain text (introduction: Errors)."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from agentruns.emulator.vendor import Reply


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers or {}

    def reply(self) -> Reply:
        """Write the answer: no code, no details, no request id."""
        return attrs.evolve(Reply.of(self.status, {"error": self.text}), headers=self.headers)


def bad_request(text: str) -> RefusedError:
    """Refuse parameters that are not valid."""
    return RefusedError(400, text)


def forbidden(text: str = "This token has no access to the workspace") -> RefusedError:
    """Refuse what the token may not do."""
    return RefusedError(403, text)


def not_found(what: str) -> RefusedError:
    """Refuse what is not there."""
    return RefusedError(404, f"{what} not found")


def too_many(seconds: int) -> RefusedError:
    """Refuse what is over the budget; Retry-After is in seconds (rate-limits)."""
    text = "Too many requests for this workspace, slow down"
    return RefusedError(429, text, {"Retry-After": str(seconds)})
