"""The errors: their tree, what their texts say, and that they travel."""

import copy
import inspect
import pickle
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

import agentruns
from agentruns import (
    Action,
    ActionRequiredError,
    AgentRunsError,
    AlreadyAnsweredError,
    AnswerIgnoredError,
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    DeadlineExceededError,
    InvalidRequestError,
    JournalError,
    NotFoundError,
    OutcomeUnknownError,
    ProtocolError,
    QuotaError,
    RateLimitedError,
    Run,
    RunError,
    RunFailedError,
    RunRef,
    RunStatus,
    ServerError,
    StalledError,
    ToolError,
    ToolOutcomeUnknownError,
    ToolOutput,
    TooManyResumesError,
    TransportError,
    UnsupportedError,
    errors,
)
from agentruns._values.exchange import Problem, Request, Response

TREE: dict[type[Exception], tuple[type[BaseException], ...]] = {
    AgentRunsError: (Exception,),
    ConfigurationError: (AgentRunsError,),
    UnsupportedError: (AgentRunsError,),
    TransportError: (AgentRunsError,),
    OutcomeUnknownError: (AgentRunsError,),
    JournalError: (AgentRunsError,),
    ProtocolError: (AgentRunsError,),
    APIError: (AgentRunsError,),
    AuthenticationError: (APIError,),
    NotFoundError: (APIError,),
    ConflictError: (APIError,),
    AlreadyAnsweredError: (ConflictError,),
    InvalidRequestError: (APIError,),
    RateLimitedError: (APIError,),
    QuotaError: (APIError,),
    ServerError: (APIError,),
    RunError: (AgentRunsError,),
    RunFailedError: (RunError,),
    ActionRequiredError: (RunError,),
    AnswerIgnoredError: (RunError,),
    TooManyResumesError: (RunError,),
    StalledError: (RunError,),
    ToolOutcomeUnknownError: (RunError,),
    DeadlineExceededError: (RunError, TimeoutError),
    ToolError: (Exception,),
}

REQUEST = Request("POST", "/runs", json={"text": "hi"})
PROBLEM = Problem(
    "the version has moved",
    code="version-conflict",
    title="Version Conflict",
    docs_url="https://docs.example/version-conflict",
    request_id="log-17",
    detail={"current_version": 4},
)
STATE = Run(RunRef("run-1", "c"), RunStatus.REQUIRES_ACTION, "interrupted", (Action("a", "approve", {"x": [1]}),))


def response(status: int, body: bytes = b"") -> Response:
    return Response(status, {"date": "now"}, body, REQUEST)


def said(status: int, problem: Problem | None = None, retry_after: float | None = None) -> str:
    return str(errors.api_error(response(status), problem or Problem(""), retry_after))


def samples() -> list[Exception]:
    made: list[Exception] = [
        AgentRunsError("it broke"),
        ConfigurationError("fix the call"),
        UnsupportedError("no cancel"),
        TransportError(REQUEST, "connection reset"),
        TransportError(REQUEST, "certificate refused", False, True),
        OutcomeUnknownError(REQUEST, "connection reset"),
        JournalError("journal.db", "the disk is full", "Nothing was sent"),
        ProtocolError("not as documented @ $.id"),
        ToolError("no such invoice"),
        ToolError(),
        RunError(None, "never seen"),
    ]
    for kind in TREE:
        if kind is AlreadyAnsweredError:
            made.append(
                AlreadyAnsweredError(STATE, (ToolOutput(STATE.actions[0], {"approved": True}),), "as far as is known")
            )
        elif issubclass(kind, APIError):
            made += [kind(response(418, b"teapot")), kind(response(409, b"{}"), PROBLEM, 2.5)]
        elif issubclass(kind, RunError):
            made.append(kind(STATE, "it did not end as needed"))
    return made


SAMPLES = samples()
names = [type(error).__name__ for error in SAMPLES]
WITH_REMEDY = [
    ConfigurationError("there is no token", field="token", remedy="pass `token=`"),
    OutcomeUnknownError(REQUEST, "no answer", remedy="the same call looks again"),
]


# The tree -------------------------------------------------------------------------------------------------------------


def test_the_tree_is_the_documented_one() -> None:
    defined = {each for _, each in inspect.getmembers(errors, inspect.isclass) if each.__module__ == errors.__name__}

    assert defined == set(TREE)
    assert {kind: kind.__bases__ for kind in TREE} == TREE


def test_every_error_is_public_and_explains_itself() -> None:
    for kind in TREE:
        assert getattr(agentruns, kind.__name__) is kind
        assert kind.__name__ in agentruns.__all__
        assert kind.__doc__


def test_what_handlers_raise_is_not_caught_with_our_own_errors() -> None:
    assert not issubclass(ToolError, AgentRunsError)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (402, QuotaError),
        (403, AuthenticationError),
        (404, NotFoundError),
        (408, APIError),
        (409, ConflictError),
        (410, APIError),
        (418, APIError),
        (422, InvalidRequestError),
        (429, RateLimitedError),
        (499, APIError),
        (500, ServerError),
        (501, ServerError),
        (503, ServerError),
        (529, ServerError),
        (599, ServerError),
    ],
)
def test_a_status_has_its_class(status: int, kind: type[APIError]) -> None:
    error = errors.api_error(response(status), PROBLEM, 1.5)

    assert type(error) is kind
    assert (error.status, error.retry_after, error.response) == (status, 1.5, response(status))


@given(st.integers(400, 999))
def test_every_status_has_a_class_that_names_it(status: int) -> None:
    error = errors.api_error(response(status), Problem("no"), None)

    assert isinstance(error, ServerError) == (status >= 500)
    assert f"answered {status}: no" in str(error)


# Texts ----------------------------------------------------------------------------------------------------------------


def test_a_refusal_says_all_that_the_vendor_said_and_what_to_do() -> None:
    assert said(409, PROBLEM, 2.5) == (
        "POST /runs was answered 409: Version Conflict: the version has moved (version-conflict; retry after 2.5 s; "
        "log id log-17; see https://docs.example/version-conflict). "
        "Read the current state, then decide whether the request still makes sense"
    )


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "Check the token"),
        (403, "Check the token"),
        (404, "Check the id"),
        (409, "Read the current state"),
        (429, "Send less"),
        (400, "Change what the vendor objects to"),
        (422, "Change what the vendor objects to"),
        (402, "See to credits, budget or plan"),
        (418, "Check the base URL"),
        (503, "If it lasts, show this to the vendor"),
    ],
)
def test_every_refusal_says_what_helps(status: int, remedy: str) -> None:
    assert f"answered {status}: Gone wrong. {remedy}" in said(status, Problem("Gone wrong."))
    assert f"answered {status}: no reason given. {remedy}" in said(status)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem(""), "no reason given"),
        (Problem("", title="Gone"), "Gone"),
        (Problem("Gone", title="Gone"), "Gone"),
        (Problem("why", title="Gone"), "Gone: why"),
        (Problem("why", code="gone"), "why (gone)"),
        (Problem("why", request_id="log-17"), "why (log id log-17)"),
        (Problem("why", docs_url="https://docs.example"), "why (see https://docs.example)"),
    ],
)
def test_parts_that_the_vendor_left_out_leave_no_gaps(problem: Problem, text: str) -> None:
    assert said(500, problem) == f"POST /runs was answered 500: {text}. {ServerError.hint}"


def test_a_wait_of_no_seconds_is_told_too() -> None:
    assert said(500, Problem("busy"), 0.0).startswith("POST /runs was answered 500: busy (retry after 0 s). ")


def test_a_refusal_holds_what_the_vendor_said() -> None:
    error = ConflictError(response(409), PROBLEM, 2.5)

    assert (error.status, error.message, error.code, error.title) == (
        409,
        "the version has moved",
        "version-conflict",
        "Version Conflict",
    )
    assert (error.docs_url, error.request_id, error.retry_after, error.detail) == (
        "https://docs.example/version-conflict",
        "log-17",
        2.5,
        {"current_version": 4},
    )


def test_a_refusal_that_nobody_could_read_shows_the_beginning_of_its_body() -> None:
    error = ServerError(response(502, b"<html>\xff" + b"x" * 900))

    assert error.message == "<html>\ufffd" + "x" * 193
    assert (error.code, error.title, error.docs_url, error.request_id) == (None, None, None, None)
    assert (error.retry_after, error.detail) == (None, {})


def test_a_lost_answer_names_the_request_and_the_reason() -> None:
    error = TransportError(REQUEST, "connection reset")

    assert str(error) == "no answer to POST /runs: connection reset"
    assert (error.request, error.reason, error.sent, error.final) == (REQUEST, "connection reset", True, False)
    error = TransportError(REQUEST, "refused", hint="check the base URL")
    error.remedy = "answer later"
    assert str(error) == "no answer to POST /runs: refused; check the base URL; answer later"


def test_an_unknown_outcome_warns_of_doing_it_twice() -> None:
    text = str(OutcomeUnknownError(REQUEST, "connection reset"))

    assert text.startswith("the outcome of POST /runs is unknown: connection reset. It may have taken effect")
    assert "look at what the vendor has" in text


@pytest.mark.parametrize("kind", [kind for kind in TREE if issubclass(kind, RunError)])
def test_an_error_about_a_run_says_where_it_stands_in_both_words(kind: type[RunError]) -> None:
    error = kind(STATE, "it did not end as needed")

    assert error.run is STATE
    assert str(error).startswith("it did not end as needed; run run-1 is requires_action (vendor: interrupted)")
    assert str(kind(None, "why")).startswith("why; no state of the run was seen")
    if kind is not RunError:
        assert "client." in str(error) or "error.run" in str(error)


def test_a_run_that_was_never_seen_and_cannot_have_been_started_is_just_waited_for_again() -> None:
    error = DeadlineExceededError(None, "3 s have passed", begun=False)

    assert str(error) == (
        "3 s have passed; no state of the run was seen. "
        "Nothing was started: make the same call again, or allow more `timeout`"
    )
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_answer_that_was_not_the_first_says_how_to_follow_what_came_of_that() -> None:
    error = AlreadyAnsweredError(STATE, (ToolOutput(STATE.actions[0], True),))
    special = AlreadyAnsweredError(STATE, (), "it was", remedy="Do this instead")

    assert error.message == "action 'a' has an answer: true. The first answer stands, and this one was not taken"
    assert str(error) == f"{error.message}. `client.stream(error.run)` follows what came of the first answer"
    assert str(special) == "it was. The first answer stands, and this one was not taken. Do this instead"


def test_a_deadline_is_also_a_timeout_of_the_standard_library() -> None:
    with pytest.raises(TimeoutError) as caught:
        raise DeadlineExceededError(STATE, "600 s have passed")

    assert isinstance(caught.value, RunError)
    assert caught.value.run is STATE


# Travelling -----------------------------------------------------------------------------------------------------------


def test_there_is_a_sample_of_every_error() -> None:
    assert {type(error) for error in SAMPLES} == set(TREE)


def test_a_remedy_ends_the_text_and_the_field_says_what_is_wrong() -> None:
    wrong, unknown = WITH_REMEDY

    assert (str(wrong), wrong.field) == ("there is no token; pass `token=`", "token")
    assert wrong.args == ("there is no token",)
    assert str(unknown).startswith("the outcome of POST /runs is unknown: no answer; the same call looks again. It may")


@pytest.mark.parametrize("error", [*SAMPLES, *WITH_REMEDY])
def test_every_error_pickles_and_copies_with_its_text_attributes_and_notes(error: Exception) -> None:
    error = copy.copy(error)
    error.add_note("a note")
    duplicates: list[Any] = [
        *(pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
        copy.copy(error),
        copy.deepcopy(error),
    ]

    for back in duplicates:
        assert type(back) is type(error)
        assert str(back) == str(error)
        assert repr(back) == repr(error)
        assert back.args == error.args
        assert vars(back) == vars(error)
        assert back.__notes__ == ["a note"]


@pytest.mark.parametrize("error", SAMPLES, ids=names)
def test_what_an_error_was_made_of_is_in_its_args(error: Exception) -> None:
    again = type(error)(*error.args)

    assert str(again) == str(error)
    assert vars(again) == {name: value for name, value in vars(error).items() if name != "__notes__"}


@frozen
class Strange:
    """A detail of somebody's own dialect."""

    word: str


def test_an_error_carries_the_whole_run_along() -> None:
    run = Run(RunRef("run-1"), RunStatus.FAILED, "errored", detail=Strange("x"), raw={"a": 1})
    back = pickle.loads(pickle.dumps(RunFailedError(run, "it failed")))

    assert back.run.detail == Strange("x")
    assert back.run.raw == {"a": 1}
