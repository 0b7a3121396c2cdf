"""Checks: what passes, what does not, and that each refusal names the field, its value and the remedy."""

import math
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st

from agentruns import Action, RunRef, ToolOutput, Tools, narrative
from agentruns._values import check
from agentruns.errors import ConfigurationError
from tests.scripted_wire import Wire, client_of, refuses

NOT_NUMBERS: list[Any] = [None, True, False, "1", b"1", [1], math.nan, math.inf, -math.inf, 1j, 10**400, -(10**400)]


@frozen
class _Sample:
    positive: Any = field(default=1, validator=check.positive)
    not_negative: Any = field(default=1, validator=check.not_negative)
    count: Any = field(default=1, validator=check.count)
    at_least_one: Any = field(default=1, validator=check.at_least_one)
    not_empty: Any = field(default="x", validator=check.not_empty)
    is_uuid: Any = field(factory=lambda: str(uuid4()), validator=check.is_uuid)


@given(st.one_of(st.integers(1, 10**300), st.floats(min_value=0, exclude_min=True, allow_infinity=False)))
def test_every_finite_number_above_zero_passes(value: float) -> None:
    check.number("seconds", value)
    check.number("seconds", value, zero=True)


@pytest.mark.parametrize("value", [*NOT_NUMBERS, 0, 0.0, -0.0, -1, -1e-300])
def test_a_number_that_must_be_above_zero_is_named_with_its_value_and_the_remedy(value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check.number("seconds", value)

    assert str(caught.value) == f"seconds is {value!r}; it must be a finite number above zero"


@pytest.mark.parametrize("value", [*NOT_NUMBERS, -1, -1e-300])
def test_a_number_that_may_be_zero_is_refused_below_it(value: Any) -> None:
    check.number("seconds", 0, zero=True)
    check.number("seconds", -0.0, zero=True)
    with pytest.raises(ConfigurationError) as caught:
        check.number("seconds", value, zero=True)

    assert str(caught.value) == f"seconds is {value!r}; it must be a finite number zero or above"


@given(st.integers(), st.integers())
def test_a_whole_number_passes_exactly_from_its_least_on(value: int, least: int) -> None:
    if value >= least:
        check.integer("attempts", value, least)
    else:
        with pytest.raises(ConfigurationError, match=f"^attempts is {value}; .* {least} or more$"):
            check.integer("attempts", value, least)


@pytest.mark.parametrize("value", [None, True, "3", 3.0, math.nan, [3]])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="whole number"):
        check.integer("attempts", value, 0)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("positive", 0, "a finite number above zero"),
        ("positive", True, "a finite number above zero"),
        ("not_negative", -1, "a finite number zero or above"),
        ("count", -1, "a whole number, 0 or more"),
        ("count", 0.5, "a whole number, 0 or more"),
        ("at_least_one", 0, "a whole number, 1 or more"),
        ("not_empty", "", "a text that is not empty"),
        ("not_empty", None, "a text that is not empty"),
        ("not_empty", b"x", "a text that is not empty"),
        ("is_uuid", "", "the text of a UUID"),
        ("is_uuid", "invoice-17", "the text of a UUID"),
        ("is_uuid", None, "the text of a UUID"),
        ("is_uuid", 17, "the text of a UUID"),
        ("is_uuid", uuid4(), "the text of a UUID"),
    ],
)
def test_a_field_that_is_refused_is_named_after_its_class(name: str, value: Any, remedy: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _Sample(**{name: value})

    assert str(caught.value).startswith(f"Sample.{name} is {value!r}; it must be {remedy}")


@pytest.mark.parametrize(
    "fields",
    [
        {"positive": 0.001},
        {"not_negative": 0},
        {"count": 0},
        {"at_least_one": 1},
        {"not_empty": " "},
        {"is_uuid": "6D9D2C1E-5F5C-5F0E-9A55-0C7F4C1A1D3B"},
    ],
)
def test_the_least_that_fits_is_taken(fields: dict[str, Any]) -> None:
    _Sample(**fields)


REF = RunRef("run", "parent")
ACTION = Action("a-1", "book", {"day": "Monday"})


def book(day: str) -> str:
    """Book a day."""
    return day


# Flags, wherever users pass them --------------------------------------------------------------------------------------


def flagged(name: str, value: Any) -> None:
    client = client_of(Wire({}))
    calls: dict[str, Callable[[], object]] = {
        "progress": lambda: client.stream(REF, progress=value),
        "events": lambda: client.stream(REF, events=value),
        "ordered": lambda: client.batch([], ordered=value),
        "repeatable": lambda: Tools().add(book, repeatable=value),
        "ToolOutput.is_error": lambda: ToolOutput(ACTION, "x", is_error=value),
        "Tool.strict": lambda: narrative.Tool("a", "", {}, strict=value),
    }
    calls[name]()


@pytest.mark.parametrize("value", ["no", "", 0, 1, [], object])
@pytest.mark.parametrize("name", ["progress", "ordered", "repeatable", "ToolOutput.is_error", "Tool.strict"])
def test_a_flag_is_true_or_false_and_nothing_else(name: str, value: Any) -> None:
    with refuses(f"{name} is {value!r}; ", "it must be True or False"):
        flagged(name, value)


@pytest.mark.parametrize("value", ["no", "", 0, 1, []])
def test_events_are_asked_for_by_a_flag_or_a_function(value: Any) -> None:
    with refuses(f"events is {value!r}; ", "it must be True, False, or a function of an event"):
        flagged("events", value)


@pytest.mark.parametrize("name", ["progress", "ordered", "repeatable", "ToolOutput.is_error", "Tool.strict"])
@pytest.mark.parametrize("value", [True, False])
def test_a_flag_that_is_true_or_false_is_taken(name: str, value: bool) -> None:
    flagged(name, value)
