"""Paths, bodies and Retry-After: what dialects build requests with and read answers by."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from attrs import frozen
from hypothesis import example, given
from hypothesis import strategies as st

from agentruns._values.exchange import Request, Response
from agentruns._values.run import JsonText, Run, RunRef, RunStatus
from agentruns.dialects import wire
from agentruns.errors import ConfigurationError, ProtocolError

# RFC 9110, sections 5.6.7 and 10.2.3: the example of an HTTP-date, and one minute before it.
DATE = "Fri, 31 Dec 1999 23:59:59 GMT"
MINUTE_BEFORE = "Fri, 31 Dec 1999 23:58:59 GMT"


@frozen
class Item:
    id: str
    count: int = 0


def answer(body: Any) -> Response:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Response(200, {}, content, Request("GET", "/things/1"))


# Looks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        {"id": "a", "count": 2},
        JsonText(b'{"id": "a", "count": 2}'),
        JsonText(b'{"id": "a", "count": 2.0}'),  # which no glance takes
        JsonText(b'{"id": "outer", "data": {"id": "a", "count": 2}}', ("data",)),
    ],
)
def test_a_look_at_a_run_finds_what_its_object_has(raw: Any) -> None:
    run: Run[None] = Run(RunRef("a"), RunStatus.RUNNING, "running", raw=raw)
    assert wire.look(run, Item) == Item("a", 2)


# Paths ----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.text(min_size=1).filter(lambda part: part not in {".", ".."}), min_size=1))
def test_every_part_stays_one_segment_and_reads_back_as_it_was(parts: list[str]) -> None:
    path = wire.path(*parts)

    assert [unquote(segment) for segment in path.split("/")] == ["", *parts]
    assert path.isascii()
    assert not set(path) & set("?#\\ \r\n\0")


def test_an_id_cannot_climb_out_of_its_place() -> None:
    assert wire.path("runs", "../admin?x=1#y") == "/runs/..%2Fadmin%3Fx%3D1%23y"
    assert wire.path("runs", "%2e%2e") == "/runs/%252e%252e"


@pytest.mark.parametrize("part", ["", ".", "..", None, 17, b"run", "\ud800"])
def test_a_part_that_cannot_stand_in_a_path_is_refused_with_the_remedy(part: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot stand in the path of a request; pass the id"):
        wire.path("runs", part)


# Bodies ---------------------------------------------------------------------------------------------------------------


def test_an_object_is_taken_out_of_its_envelope() -> None:
    assert wire.read_object(answer({"id": "a"})) == {"id": "a"}
    assert wire.read_object(answer({"data": {"run": {"id": "a"}}}), "data", "run") == {"id": "a"}
    assert wire.read(answer({"data": {"id": "a", "new": 1}}), Item, "data") == Item("a")


@pytest.mark.parametrize(
    ("body", "envelope", "path"),
    [
        (b"", (), r"\$"),
        ([], (), r"\$"),
        ("text", (), r"\$"),
        (None, ("data",), r"\$\.data"),
        ({"data": None}, ("data",), r"\$\.data"),
        ({"data": [{"run": {}}]}, ("data", "run"), r"\$\.data\.run"),
        ({"data": {}}, ("data", "run"), r"\$\.data\.run"),
    ],
)
def test_an_answer_without_the_object_is_a_protocol_error_that_names_its_path(
    body: Any, envelope: tuple[str, ...], path: str
) -> None:
    with pytest.raises(ProtocolError, match=rf"^the answer to GET /things/1 has no object @ {path}$"):
        wire.read_object(answer(body), *envelope)


@pytest.mark.parametrize("body", [b"<html>", b'{"id": "a"', b'{"id": NaN}', b"\xff", b"[" * 100_000])
def test_an_answer_that_is_not_json_is_a_protocol_error_that_names_the_request(body: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"^the answer to GET /things/1 is not JSON: "):
        wire.read_object(answer(body))


def test_an_answer_that_is_not_as_documented_names_class_field_and_request() -> None:
    with pytest.raises(ProtocolError) as caught:
        wire.read(answer({"id": None, "count": "7"}), Item)

    assert str(caught.value) == (
        "the answer to GET /things/1 is not what the vendor documents for Item: "
        "expected string, got null @ $.id; expected integer, got string @ $.count"
    )


def test_what_is_none_is_left_out_of_a_request() -> None:
    assert wire.drop_none({"a": None, "b": 0, "c": "", "d": False}) == {"b": 0, "c": "", "d": False}


def test_an_error_body_that_is_no_object_is_taken_for_an_empty_one() -> None:
    assert wire.error_body(answer({"message": "no"})) == {"message": "no"}
    for body in (b"<html>", b"", b"[1]", b'"no"', b"\xff"):
        assert wire.error_body(answer(body)) == {}


def test_the_first_text_with_something_in_it_is_taken() -> None:
    body = {"detail": "", "title": 7, "error": "why", "other": "not asked for"}

    assert wire.first_text(body, "detail", "title", "missing", "error", "other") == "why"
    assert wire.first_text(body, "detail", "title") is None


def test_of_what_nobody_can_read_the_beginning_is_shown() -> None:
    assert wire.body_excerpt(answer(b" \n<html>\xff" + b"x" * 900)) == "<html>\ufffd" + "x" * 191


# Retry-After ----------------------------------------------------------------------------------------------------------


def after(value: str | None, date: str | None = None) -> float | None:
    headers: dict[str, str] = {}
    if value is not None:
        headers["retry-after"] = value
    if date is not None:
        headers["date"] = date
    return wire.retry_after(headers)


@pytest.mark.parametrize(
    ("value", "seconds"), [("120", 120.0), ("0", 0.0), ("1.5", 1.5), (" 7 ", 7.0), ("1e2", 100.0), ("+3", 3.0)]
)
def test_seconds_are_taken_as_they_are(value: str, seconds: float) -> None:
    assert after(value) == seconds


@pytest.mark.parametrize(
    "value",
    [None, "", "  ", "-1", "-0.5", "nan", "inf", "-inf", "1e400", "soon", "12 seconds", "0x10", "\ud800", "1;2"],
)
def test_a_value_that_says_nothing_usable_is_none(value: str | None) -> None:
    assert after(value) is None
    assert after(value, DATE) is None


def test_a_date_counts_from_the_answers_own_date() -> None:
    assert after(DATE, MINUTE_BEFORE) == 60.0
    assert after("Fri, 31 Dec 1999 23:59:59", MINUTE_BEFORE) == 60.0
    assert after("Sat, 01 Jan 2000 00:59:59 +0100", MINUTE_BEFORE) == 60.0


def test_a_date_that_has_passed_is_zero() -> None:
    assert after(MINUTE_BEFORE, DATE) == 0.0
    assert after(DATE) == 0.0


@pytest.mark.parametrize("date", [None, "", "yesterday", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"])
def test_without_a_usable_date_of_the_answer_our_own_clock_counts(date: str | None) -> None:
    before = datetime.now(UTC)
    until = (before + timedelta(hours=1)).replace(microsecond=0)
    seconds = after(format_datetime(until, usegmt=True), date)

    assert seconds is not None
    assert (until - datetime.now(UTC)).total_seconds() <= seconds <= (until - before).total_seconds()


@pytest.mark.parametrize(
    "value",
    [
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2020 00:00:00 +9999",
        "1 Jan 2020 99:99:99",
        "31 Feb 2020 00:00:00 GMT",
    ],
)
def test_a_date_that_no_calendar_has_is_none(value: str) -> None:
    assert after(value, DATE) is None


@given(st.text(), st.text())
@example("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "")
@example(DATE, "Mon, 01 Jan 99999999999999999999 00:00:00 GMT")
@example(DATE, "1 Jan 1 0:0:0 +2359")
def test_no_text_raises_and_no_wait_is_negative(value: str, date: str) -> None:
    seconds = after(value, date)

    assert seconds is None or (seconds >= 0 and math.isfinite(seconds))


@given(
    st.from_regex(
        r"\A(Mon, )?[0-9]{1,25} (Jan|Feb) [0-9]{1,25} [0-9]{1,25}:[0-9]{2}(:[0-9]{2})? ([+-][0-9]{1,9}|GMT)\Z"
    ),
    st.sampled_from([DATE, ""]),
)
def test_nothing_that_looks_like_a_date_raises(value: str, date: str) -> None:
    seconds = after(value, date)

    assert seconds is None or (seconds >= 0 and math.isfinite(seconds))


moments = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)


@given(moments, moments)
def test_a_date_means_the_seconds_between_the_two_never_less_than_none(date: datetime, until: datetime) -> None:
    headers: Mapping[str, str] = {
        "retry-after": format_datetime(until, usegmt=True),
        "date": format_datetime(date, usegmt=True),
    }

    assert wire.retry_after(headers) == max((until - date).total_seconds(), 0.0)
    assert parsedate_to_datetime(headers["date"]) == date


@given(st.floats(min_value=0, allow_infinity=False))
def test_any_number_of_seconds_is_obeyed(seconds: float) -> None:
    assert after(repr(seconds)) == seconds


NOON = "Tue, 28 Jul 2026 12:00:00 GMT"
AT = int(datetime(2026, 7, 28, 12, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-reset": str(AT + 40)}, 40.0),
        ({"x-ratelimit-reset-global": str(AT + 40), "x-ratelimit-reset-ip": str(AT + 50)}, 50.0),
        (
            {
                "x-ratelimit-remaining-global": "0",
                "x-ratelimit-reset-global": str(AT + 40),
                "x-ratelimit-remaining-ip": "12",
                "x-ratelimit-reset-ip": str(AT + 50),
            },
            40.0,
        ),
        ({"x-ratelimit-reset": str(AT + 40), "retry-after": "3"}, 3.0),
        ({"x-ratelimit-reset": str(AT - 5)}, 0.0),
        ({"x-ratelimit-reset": "40"}, None),
        ({"x-ratelimit-reset": "soon"}, None),
        ({"x-ratelimit-remaining": "1", "x-ratelimit-reset": str(AT + 40)}, None),
        ({}, None),
    ],
)
def test_a_refusal_without_retry_after_is_waited_for_until_its_limit_is_reset(
    headers: dict[str, str], seconds: float | None
) -> None:
    headers = {"date": NOON, **headers}
    assert wire.retry_after_refusal(Response(429, headers, b"", Request("GET", "/"))) == seconds
    assert wire.retry_after_refusal(Response(503, headers, b"", Request("GET", "/"))) == wire.retry_after(headers)
