"""What an error body says."""

from __future__ import annotations

from agentruns._values.exchange import Problem, Response
from agentruns.dialects import wire


def problem(response: Response) -> Problem:
    """
    Read an error body: problem JSON (RFC 7807), whose `type` is the URL of the error's page.

    Other platform endpoints answer `{error, error_description}`; `log_id` is spelled `logId` on one page.
    """
    body = wire.error_body(response)
    page = wire.first_text(body, "type") or ""
    slug = page.rstrip("/").rpartition("/")[2] if page.startswith("https://") else None
    return Problem(
        message=wire.first_text(body, "detail", "error_description", "title", "error") or wire.body_excerpt(response),
        code=slug or wire.first_text(body, "error"),
        title=wire.first_text(body, "title"),
        docs_url=page if slug else None,
        request_id=wire.first_text(body, "log_id", "logId"),
        detail=body,
    )
