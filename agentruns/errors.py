"""
Every exception, and whose fault it was.

AgentRunsError
├─ ConfigurationError                 wrong before any request: fix the call
├─ UnsupportedError                   this vendor has no such operation
├─ TransportError(request)            no answer came
├─ OutcomeUnknownError(request)       a request that must not be repeated never got a clear answer
├─ JournalError                       the journal could not be written or read
├─ ProtocolError(response)            the answer is not what the vendor documents (JSON path in the text)
├─ APIError(response)                 the vendor said no
│  └─ AuthenticationError  NotFoundError  InvalidRequestError  RateLimitedError  QuotaError  ServerError
│     ConflictError
│     └─ AlreadyAnsweredError(run)    another answer was first, and stands
└─ RunError(run)                      the run did not end as needed; `.run` is its last state
   └─ RunFailedError  ActionRequiredError  AnswerIgnoredError  TooManyResumesError  StalledError
      ToolOutcomeUnknownError  DeadlineExceededError (also a TimeoutError)
ToolError                             raised BY handlers: its text goes to the model

Every one of them pickles: what `__init__` takes stays in `args`.
"""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import quote

from ._values import codec
from ._values.base import AgentRunsError as AgentRunsError
from ._values.base import ConfigurationError as ConfigurationError
from ._values.exchange import Problem, Request, Response
from ._values.run import Run, ToolOutput


class UnsupportedError(AgentRunsError, public=True):
    """Report an operation that this vendor's API does not have."""


class TransportError(AgentRunsError, public=True):
    """
    Report that no answer came: refused, reset, timed out, or cut off.

    `sent` is False only where it is certain that the server never saw the request. `final` says that trying again
    cannot help: a certificate was refused, or the answer is too long. `hint` says what helps, where the reason tells.
    """

    def __init__(
        self, request: Request, reason: str, sent: bool = True, final: bool = False, *, hint: str = ""
    ) -> None:
        super().__init__(request, reason, sent, final)
        self.hint = hint
        self.request = request
        self.reason = reason
        self.sent = sent
        self.final = final

    def _text(self) -> str:
        return "; ".join(filter(None, (f"no answer to {self.request.line}: {self.reason}", self.hint, self.remedy)))


class OutcomeUnknownError(AgentRunsError, public=True):
    """
    Report a request that must not be repeated and never got a clear answer.

    The vendor may or may not have acted on `request`. The cause (`__cause__`) says what happened.
    """

    def __init__(self, request: Request, reason: str, *, remedy: str = "") -> None:
        super().__init__(request, reason, remedy=remedy)
        self.request = request
        self.reason = reason

    def _text(self) -> str:
        reason = f"{self.reason}; {self.remedy}" if self.remedy else self.reason
        return (
            f"the outcome of {self.request.line} is unknown: {reason}. It may have taken effect, and repeating it "
            "may do it twice: look at what the vendor has before you decide to send it again"
        )


class JournalError(AgentRunsError):
    """
    Report a journal that could not be written or read.

    `path` is its file, `reason` says what is wrong and what helps, `standing` what has happened and what has not.
    """

    def __init__(self, path: str, reason: str, standing: str = "") -> None:
        super().__init__(path, reason, standing)
        self.path = path
        self.reason = reason
        self.standing = standing

    def _text(self) -> str:
        text = f"could not use the journal {self.path}: {self.reason}"
        return f"{text}. {self.standing}" if self.standing else text


class ProtocolError(AgentRunsError, public=True):
    """
    Report an answer that is not what the vendor documents; the text names the JSON path.

    `response` is the answer, None where there was none (a webhook, or `Run.detail`, whose `Run.raw` is at hand).
    """

    def __init__(self, reason: str, response: Response | None = None) -> None:
        super().__init__(reason, response)
        self.reason = reason
        self.response = response

    def _text(self) -> str:
        return self.reason


class APIError(AgentRunsError, public=True):
    """
    Report that the vendor said no.

    `status`, `message`, `code` (the vendor's own word), `title`, `docs_url`, `request_id` (or log id),
    `retry_after` (seconds), `detail` (further documented fields) and `particulars` (what these say, as the text shows
    it) are None or empty where the vendor gave none.
    """

    hint: ClassVar[str] = "Check the base URL, and what the vendor's pages say of this status"

    after_doubt = False
    """An earlier try of the same request got no clear answer, so the refusal of this one does not say all."""

    guess = ""
    """What is said of a request whose shape no page shows: what was sent, and how to send another."""

    def __init__(self, response: Response, problem: Problem | None = None, retry_after: float | None = None) -> None:
        super().__init__(response, problem, retry_after)
        self.response = response
        self.retry_after = retry_after
        self.status = response.status
        self.message = problem.message if problem else response.body[:200].decode("utf-8", "replace")
        self.code = problem.code if problem else None
        self.title = problem.title if problem else None
        self.docs_url = problem.docs_url if problem else None
        self.request_id = problem.request_id if problem else None
        self.detail = problem.detail if problem else {}
        self.particulars = problem.particulars if problem else ()

    def _text(self) -> str:
        said = _cut(self.message or self.title or "no reason given")
        about = [
            *([str(self.code)] if self.code else []),
            *self.particulars,
            *([f"retry after {self.retry_after:g} s"] if self.retry_after is not None else []),
            *([f"log id {self.request_id}"] if self.request_id else []),
            *([f"see {self.docs_url}"] if self.docs_url else []),
        ]
        named = f"{self.title}: " if self.title and self.title != said else ""
        text = f"{self.response.request.line} was answered {self.status}: {named}{said}"
        text += f" ({_cut('; '.join(about))})" if about else ""
        more = [each for each in (self.hint, self.guess, self.remedy) if each]
        return ". ".join([text.removesuffix("."), *more]) if more else text


class AuthenticationError(APIError, public=True):
    """Report 401 or 403: the token is wrong, or may not do this."""

    hint = "Check the token, its permissions, and that it belongs to this base URL"


class NotFoundError(APIError, public=True):
    """Report 404: no such thing, or not yours."""

    hint = "Check the id, and that the token's owner may see it"


class ConflictError(APIError, public=True):
    """Report 409: the vendor's state is not the one that the request was made for."""

    hint = "Read the current state, then decide whether the request still makes sense"


class AlreadyAnsweredError(ConflictError, public=True):
    """
    Report an answer that came too late: the first one stands.

    `run` is the pause that was answered, or what followed it where that is known; its `raw` is empty where this client
    has answered first. `standing` are the answers that stand, as far as they are known and differ from those that were
    given; empty where another answer was taken that cannot be read yet. `arrived` is whether the vendor has got this
    one all the same, and may have gone by it: some refuse no answer that comes second.
    """

    hint = "`client.stream(error.run)` follows what came of the first answer"

    def __init__(
        self,
        run: Run,
        standing: tuple[ToolOutput, ...],
        reason: str = "",
        *,
        response: Response | None = None,
        arrived: bool = False,
        remedy: str = "",
    ) -> None:
        request = Request("POST", f"/ (the answers to run {quote(run.id, errors='replace')})")
        APIError.__init__(self, response or Response(409, {}, b"", request))
        self.args = (run, standing, reason)
        self.run = run
        self.standing = standing
        self.reason = reason
        self.arrived = arrived
        self.message = self.message or self._said()
        self.remedy = remedy

    def _text(self) -> str:
        return f"{self._said()}. {self.remedy or self.hint}"

    def _said(self) -> str:
        told = [
            f"action {each.action.id!r} has {'a refusal' if each.is_error else 'an answer'}: {_cut(_json(each.output))}"
            for each in self.standing
        ]
        reason = [self.reason] if self.reason else []
        end = "The first answer stands, and this one was not taken"
        if self.arrived:
            end = "Another answer was first; this one has arrived as well, since the vendor refuses none"
        return ". ".join([*told, *reason, end])


class InvalidRequestError(APIError, public=True):
    """Report 400 or 422: the vendor cannot accept this request."""

    hint = "Change what the vendor objects to before you send it again"


class RateLimitedError(APIError, public=True):
    """Report 429: too many requests, or no free slot."""

    hint = "Send less (`connect(..., budget=...)`), or wait as long as the answer asks"


class QuotaError(APIError, public=True):
    """Report 402: credits, budget or plan do not allow it."""

    hint = "See to credits, budget or plan at the vendor before you send it again"


class ServerError(APIError, public=True):
    """Report a 5xx: the vendor failed."""

    hint = "If it lasts, show this to the vendor"


class RunError(AgentRunsError, public=True):
    """
    Report a run that did not end as needed; `run` is its last state, None if none was ever seen.

    `begun` is False where it is certain that nothing was started: a run was only watched, or its origin only prepared.
    """

    hint: ClassVar[str] = ""
    unseen_hint: ClassVar[str] = (
        "If a start was under way it may have taken effect: start the same origin again where the vendor has a key for "
        "it, else look at the vendor first"
    )
    unbegun_hint: ClassVar[str] = "Nothing was started: make the same call again, or allow more `timeout`"

    def __init__(self, run: Run | None, reason: str, *, begun: bool = True) -> None:
        super().__init__(run, reason)
        self.run = run
        self.reason = reason
        self.begun = begun

    def _text(self) -> str:
        if self.run is None:
            hint = self.unseen_hint if self.begun else self.unbegun_hint
            return f"{self.reason}; no state of the run was seen. {hint}"
        where = f"run {self.run.id} is {self.run.status.value} (vendor: {self.run.vendor_status})"
        return f"{self.reason}; {where}" + (f". {self.hint}" if self.hint else "")


class RunFailedError(RunError, public=True):
    """Report a run that ended as failed; `run.failure` says why."""

    hint = "`error.run` has all that the vendor says of it; to start again is a new run, which may cost as much"


class ActionRequiredError(RunError, public=True):
    """Report a run that waits for an answer that no handler gives."""

    hint = "Pass `tools=` with a handler for each action, or answer with `client.resume(run, outputs)`"


class AnswerIgnoredError(RunError, public=True):
    """Report a run that still asks for what was answered, long after the vendor accepted the answer."""

    hint = "If the vendor is only slow, `client.stream(run.ref)` watches it on; else answer again in another shape"


class TooManyResumesError(RunError, public=True):
    """Report a run that asked for more answers than `max_resumes` allows."""

    hint = "Raise `max_resumes`, or go on with `client.stream(run, tools=...)`"


class StalledError(RunError, public=True):
    """Report a run in which nothing observable changed for `stall` seconds."""

    hint = "It may still be going on at the vendor: watch it again with `client.stream(run.ref)`"


class ToolOutcomeUnknownError(RunError, public=True):
    """Report an action whose handler was running when the process died."""

    hint = "Find out what the handler did, then answer with `client.resume(run, outputs)`"


class DeadlineExceededError(RunError, TimeoutError, public=True):
    """Report that `timeout` seconds passed before the run was over; the run itself goes on at the vendor."""

    hint = "The run goes on at the vendor: watch it again with `client.stream(run.ref)`, or allow more `timeout`"


class ToolError(Exception):
    """
    Tell the model what went wrong; raised by handlers.

    Its text, and nothing else, is sent to the model as an error output.
    """


_MOST_SAID = 2000


def _cut(text: str) -> str:
    """Return what a vendor says at a length that a log bears; the whole stands in `message`."""
    return text if len(text) <= _MOST_SAID else f"{text[:_MOST_SAID]}... ({len(text)} characters)"


_BY_STATUS: dict[int, type[APIError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: QuotaError,
    403: AuthenticationError,
    404: NotFoundError,
    409: ConflictError,
    422: InvalidRequestError,
    429: RateLimitedError,
}


def api_error(response: Response, problem: Problem, retry_after: float | None) -> APIError:
    """Return the exception for a response of status 400 or above."""
    kind = _BY_STATUS.get(response.status) or (ServerError if response.status >= 500 else APIError)
    return kind(response, problem, retry_after)


def _json(value: object) -> str:
    try:
        return codec.encode(codec.to_jsonable(value, "the answer")).decode()
    except ConfigurationError:
        return repr(value)
