"""The error codes of Origami's v2, each with its status, its words, and the requests a planned one strikes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeAlias

from attrs import field, frozen

from agentruns.emulator.schema import JSON
from agentruns.emulator.vendor import Reply, phrase

Object: TypeAlias = dict[str, JSON]
Place: TypeAlias = tuple[str, str]

BILLING: Final = "https://origami.chat/settings/billing?source=api"

ADMISSION: Final[Place] = ("POST", "/api/v2/agent*s")  # creates and follow-ups, not cancels
_CREATE: Final[Place] = ("POST", "/api/v2/agents")
_FOLLOW_UP: Final[Place] = ("POST", "/api/v2/agents/*/runs")
_POST: Final[Place] = ("POST", "*")
_ROWS: Final[Place] = ("GET", "/api/v2/tables/*/rows")
_ANY: Final[Place] = ("*", "*")


@frozen
class CodeKind:
    """One `code`: status, the words of `error`, where a planned one strikes, and stable fields of the body."""

    status: int
    words: str
    place: Place = _ANY
    extra: Mapping[str, JSON] = field(factory=dict)


def _upgrade(label: str) -> Object:
    return {"handoff": {"kind": "upgrade-plan", "url": BILLING, "label": label}}


CODES: Final[Mapping[str, CodeKind]] = {
    "VALIDATION_ERROR": CodeKind(400, "The request failed validation", ADMISSION),
    "MODEL_NOT_AVAILABLE": CodeKind(400, "This model is not part of the plan", ADMISSION, _upgrade("Upgrade plan")),
    "UNKNOWN_WORKSPACE": CodeKind(400, "No such workspace or session", _CREATE),
    "UNKNOWN_TABLE": CodeKind(400, "No such table in this organization", ADMISSION),
    "WORKSPACE_TABLE_MISMATCH": CodeKind(400, "A table belongs to another workspace", _CREATE),
    "INVALID_ATTACHMENT": CodeKind(400, "An attachment is out of scope", ADMISSION),
    "INVALID_FILTERS": CodeKind(400, "filters is not a JSON array of {column, operator, value}", _ROWS),
    "INVALID_SORT": CodeKind(400, "sort is not a JSON object {column, direction}", _ROWS),
    "UNKNOWN_COLUMN": CodeKind(400, "The table has no such column", _ROWS),
    "UNAUTHORIZED": CodeKind(401, "Missing or invalid API key"),
    "INSUFFICIENT_CREDITS": CodeKind(
        402,
        "Not enough credits to start a run",
        ADMISSION,
        {
            "creditsRequired": 5,
            "creditsAvailable": 1,
            "topUpUrl": BILLING,
            "message": "The wallet holds less than a run needs to start.",
            "handoff": {"kind": "top-up", "url": BILLING, "label": "Buy credits"},
        },
    ),
    "BUDGET_EXCEEDED": CodeKind(
        402,
        "A credit budget is spent",
        ADMISSION,
        {"blockedByBudgets": ["Marketing"], "message": "Raise the budget or wait for its reset."},
    ),
    "SUBSCRIPTION_REQUIRED": CodeKind(
        402,
        "This plan has no API access",
        _ANY,
        {"hint": "Move to a plan that includes the API.", **_upgrade("Upgrade plan")},
    ),
    "ACCOUNT_BLOCKED": CodeKind(
        402,
        "The account is blocked",
        ADMISSION,
        {"reason": "payment_failed", "message": "Resolve the billing problem to go on."},
    ),
    "WORKSPACE_LIMIT_REACHED": CodeKind(403, "The plan's workspaces are used up", _CREATE, _upgrade("Upgrade plan")),
    "AGENT_NOT_FOUND": CodeKind(404, "Agent not found", ("*", "/api/v2/agents/*")),
    "RUN_NOT_FOUND": CodeKind(404, "Run not found", ("GET", "/api/v2/agents/*/runs/*")),
    "TABLE_NOT_FOUND": CodeKind(404, "Table not found", ("GET", "/api/v2/tables/*")),
    "ROW_NOT_FOUND": CodeKind(404, "Row not found", ("GET", "/api/v2/tables/*/rows/*")),
    "CAMPAIGN_NOT_FOUND": CodeKind(404, "Campaign not found", ("POST", "/api/v2/campaigns/*/edits")),
    "PROJECT_NOT_FOUND": CodeKind(404, "Project not found"),
    "AGENT_BUSY": CodeKind(409, "A run is already in progress on this agent", _FOLLOW_UP),
    "IDEMPOTENCY_ERROR": CodeKind(409, "A request with this Idempotency-Key is still in progress", _POST),
    "CONCURRENT_LIMIT_EXCEEDED": CodeKind(429, "All agent slots of this organization are in use", ADMISSION),
    "RATE_LIMITED": CodeKind(429, "Too many requests"),
    "INTERNAL_ERROR": CodeKind(500, "Something went wrong on our side"),
}

# A handler's answers are kept under an Idempotency-Key; these are said before a handler is reached.
BEFORE_HANDLERS: Final = frozenset({"UNAUTHORIZED", "RATE_LIMITED", "SUBSCRIPTION_REQUIRED", "PROJECT_NOT_FOUND"})


class ApiError(Exception):
    """An HTTP answer that is an error; `extra` are the fields beside `error` and `code`."""

    def __init__(
        self,
        code: str,
        words: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **extra: JSON,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.words = CODES[code].words if words is None else words
        self.headers = headers or {}
        self.extra: Object = {**CODES[code].extra, **extra}

    def reply(self) -> Reply:
        """Write the answer: stable extra fields stand beside `error` and `code` (docs.origami.chat/openapi-v2.yaml)."""
        body: Object = {"error": self.words, "code": self.code, **self.extra}
        status = CODES[self.code].status
        return Reply(status=status, content=Reply.of(status, body).content, headers=self.headers)


def invalid(path: str, message: str) -> ApiError:
    """Make a VALIDATION_ERROR of one issue."""
    return ApiError("VALIDATION_ERROR", details={"issues": [{"path": path, "message": message}]})


def code_of(status: int) -> str:
    """Choose the code for an answer that no rule of the vendor calls for, such as a path that does not exist."""
    known = {400: "VALIDATION_ERROR", 401: "UNAUTHORIZED", 429: "RATE_LIMITED"}
    if status in known:
        return known[status]
    return "INTERNAL_ERROR" if status >= 500 else re.sub(r"[^A-Z]+", "_", phrase(status).upper())
