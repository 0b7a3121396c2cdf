"""Middesk's refusals: `{"errors": [{"message", "parameter"?}]}`, without machine-readable codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import field, frozen

from agentruns.emulator.schema import JSON
from agentruns.emulator.vendor import Reply


class RefusedError(Exception):
    """A request that is answered with an error; `parameter` names the field at fault."""

    def __init__(
        self, status: int, message: str, *, parameter: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.parameter = parameter
        self.headers = headers or {}

    def reply(self) -> Reply:
        """Write the answer (build/status-codes-errors)."""
        error: dict[str, JSON] = {"message": self.message}
        if self.parameter is not None:
            error["parameter"] = self.parameter
        reply = Reply.of(self.status, {"errors": [error]})
        return Reply(status=reply.status, content=reply.content, headers=self.headers)


def not_found(what: str) -> RefusedError:
    """Make the 404 of a row that is not there, or is another account's."""
    return RefusedError(404, f"{what} not found")


def invalid(message: str, parameter: str | None) -> RefusedError:
    """Make the 422 of a body that does not fit."""
    return RefusedError(422, message, parameter=parameter)


NO_CONTEXT: Final = "Provide thread_id, business_id, or context_type with context_id"
IN_AUDIT: Final = "The business is in audit"
FEATURE_OFF: Final = "The operator_feedback feature is not enabled for this account"
BAD_KEY: Final = "The API key is missing or not valid"
TOO_MANY: Final = "Too many requests"
NOT_PENDING: Final = "No pending interrupt with this id on the run"
NOT_INTERRUPTED: Final = "The run is not interrupted"

_RESUME = ("POST", "/v1/runs/*/resume")
_START = ("POST", "/v1/runs")
_ANY = ("*", "/v1/*")
_STREAM = ("GET", "/v1/runs/*/stream")


@frozen
class Plant:
    """A refusal that `Fault.vendor` plants at `place`."""

    place: tuple[str, str]
    status: int
    message: str
    parameter: str | None = None
    headers: Mapping[str, str] = field(factory=dict)


PLANTS: Final[Mapping[str, Plant]] = {
    "bad-key": Plant(_ANY, 401, BAD_KEY),
    "access-denied": Plant(_ANY, 403, "Agents are not enabled for this account"),
    "feature-off": Plant(("POST", "/v1/runs/*/feedback"), 403, FEATURE_OFF),
    "missing-context": Plant(_START, 400, NO_CONTEXT),
    "unknown-agent": Plant(_START, 404, "Agent not found", "type"),
    "thread-not-found": Plant(_START, 404, "Agent thread not found"),
    "business-in-audit": Plant(_START, 422, IN_AUDIT, "business_id"),
    "run-not-found": Plant(("GET", "/v1/runs/*"), 404, "Agent run not found"),
    "stale-interrupt": Plant(_RESUME, 422, NOT_PENDING, "interrupt_id"),
    "not-interrupted": Plant(_RESUME, 422, NOT_INTERRUPTED),
    "resume-conflict": Plant(_RESUME, 409, "The run has changed"),
    "rate-limit": Plant(_ANY, 429, TOO_MANY),
    "rate-limit-retry-after": Plant(_ANY, 429, TOO_MANY, headers={"Retry-After": "1"}),
    "server-error": Plant(_ANY, 500, "Something went wrong on our side"),
}

STREAM_PLANTS: Final[Mapping[str, tuple[str, str]]] = {
    "stream-error": _STREAM,  # the last event is RUN_ERROR, whatever became of the run
    "stream-noise": _STREAM,  # comments, ids, CRLF and an unknown event between the known ones
    "stream-stall": _STREAM,  # silent after the first event, and never closed
}


def planted(name: str) -> RefusedError:
    """Make the refusal that nothing but the test's plan calls for."""
    plant = PLANTS[name]
    return RefusedError(plant.status, plant.message, parameter=plant.parameter, headers=plant.headers)
