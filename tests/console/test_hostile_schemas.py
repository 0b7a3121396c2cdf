"""A form changes nothing that nobody touched, and no schema keeps the page from anybody."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentruns import Action
from agentruns.console.asks import Ask, ask
from agentruns.console.forms import Field, Form, every
from agentruns.dialects.show import Answer, Tool

TEXT: dict[str, Any] = {"type": "string"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "items": {"type": "array", "items": TEXT},
        "sizes": {"type": "array", "items": {"enum": ["s", "m", 1, True]}},
        "gift": {"type": ["boolean", "null"]},
        "sure": {"type": "boolean", "default": True},
        "text": TEXT,
        "mail": {"type": "string", "format": "email"},
        "day": {"type": "string", "format": "date"},
        "count": {"type": "integer", "default": 3},
        "price": {"type": ["number", "null"]},
        "where": {"type": "object", "required": ["city"], "properties": {"city": TEXT, "zip": {"type": "integer"}}},
        "other": {},
    },
    "required": ["text"],
}

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
)
likely = st.fixed_dictionaries(
    {"text": st.text(max_size=5)},
    optional={
        "items": st.lists(st.text(max_size=4)),
        "sizes": st.lists(st.sampled_from(["s", "m", 1, True])),
        "gift": st.one_of(st.none(), st.booleans()),
        "sure": st.booleans(),
        "mail": st.text(max_size=4),
        "day": st.sampled_from(["2026-01-02", "soon", ""]),
        "count": st.integers(),
        "price": st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
        "where": st.one_of(st.none(), st.dictionaries(st.sampled_from(["city", "zip", "lane"]), scalars)),
        "other": values,
        "more": values,
    },
)


def browser(field: Field) -> dict[str, list[str]]:
    """Return what a browser posts of a form that nobody touched."""
    posted: dict[str, list[str]] = {}
    for each in every(field):
        if each.kind == "group":
            continue
        if each.kind == "many":
            posted[each.name] = list(each.values)
        elif each.kind in {"area", "lines", "json"}:
            posted[each.name] = [each.value.removeprefix("\n").replace("\r\n", "\n").replace("\n", "\r\n")]
        else:
            posted[each.name] = [each.value]
    return posted


@settings(deadline=None)
@given(st.one_of(likely, values))
def test_a_form_that_nobody_touched_gives_back_exactly_what_it_was_filled_in_with(value: Any) -> None:
    form = Form(SCHEMA, "p", value=value)
    read, errors = form.read(browser(form.blank()))
    if not errors:  # what the agent's own arguments do not fit is said
        assert repr(in_order(read)) == repr(in_order(value))
    assert "This is needed." not in errors.values() or "text" not in value


def in_order(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, in_order(value[key])) for key in sorted(value)]
    return [in_order(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "value",
    [
        {
            "items": ["two\nlines", "", "b"],
            "sizes": ["m", "s", "m"],
            "gift": None,
            "where": {"city": "Oslo"},
            "text": "a",
        },
        {"items": [], "sizes": [], "gift": True, "text": "a"},
        {"text": "", "other": None},
        {"text": "\r\n \x00", "more": [1]},
    ],
)
def test_what_a_form_used_to_change_stays(value: dict[str, Any]) -> None:
    form = Form(SCHEMA, "p", value=value)
    assert form.read(browser(form.blank())) == (value, {})


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"anyOf": [schema, {"type": "integer"}]}
    return {"type": "object", "properties": {"a": schema}}


def doubling() -> dict[str, Any]:
    definitions = {f"d{at}": {"allOf": [{"$ref": f"#/$defs/d{at + 1}"}] * 2} for at in range(40)}
    return {"$defs": {**definitions, "d40": {}}, "type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}}


def of(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, **more}


EVIL = "^(a+)+$"
LONG = "a" * 40 + "!"
SCHEMAS: dict[str, tuple[dict[str, Any], Any]] = {
    "wide": ({"type": "object", "properties": {f"p{at}": {"$ref": "#"} for at in range(30)}}, {}),
    "many": ({"type": "object", "properties": {f"p{at}": TEXT for at in range(20_000)}}, {"p1": "x"}),
    "deep": (deep(100), {"a": "x"}),
    "deeper": (deep(900), {"a": "x"}),
    "doubling": (doubling(), {"a": "x"}),
    "pattern": (of({"type": "string", "pattern": EVIL}), {"a": LONG}),
    "pattern of names": (of(TEXT, patternProperties={EVIL: {}}, additionalProperties=False), {LONG: 1}),
    "unique": (of({"uniqueItems": True}), {"a": [{"x": at} for at in range(4000)]}),
    "itself": (of({"$ref": "#/properties/a"}), {"a": "x"}),
    "itself by all": (of({"allOf": [{"$ref": "#/properties/a"}]}), {"a": "x"}),
    "no multiple": (of({"type": "number", "multipleOf": 1e-300}), {"a": 10**400}),
    "properties are none": ({"type": "object", "properties": [1]}, {"a": 1}),
    "required is none": (of(TEXT, required=3), {"a": "1"}),
}


@pytest.mark.parametrize(("schema", "arguments"), SCHEMAS.values(), ids=SCHEMAS)
def test_approve_and_refuse_are_there_soon_whatever_the_schema_is(schema: dict[str, Any], arguments: Any) -> None:
    began = time.process_time()
    made = ask(None, Action("t1", "pay", arguments), "0/", Tool("", schema))
    assert {"approve", "refuse"} <= {option.value for option in made.options}
    changed = next((option for option in made.options if option.value == "change"), None)
    if changed is not None:
        assert changed.field is not None
        assert sum(1 for _ in every(changed.field)) <= 501
        told = made.read(browser(changed.field) | {made.how: ["change"]})
        assert isinstance(told, Ask) or told == Answer({"approved": True, "arguments": arguments})
    assert time.process_time() - began < 3.0
