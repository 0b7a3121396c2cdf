"""Forms of JSON Schemas: which fields, which value, and which complaint stands where."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentruns import ConfigurationError

pytest.importorskip("jsonschema")

from agentruns.console.forms import Field, Form, every

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["name", "count", "sure", "colour"],
    "properties": {
        "name": {"type": "string", "title": "Name", "maxLength": 20},
        "count": {"type": "integer", "minimum": 1, "description": "How many."},
        "price": {"type": "number"},
        "sure": {"type": "boolean"},
        "colour": {"enum": ["red", "green", 3]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "sizes": {"type": "array", "items": {"enum": ["S", "M", "L"]}, "maxItems": 2},
        "rest": {"type": "array", "items": {"type": "object"}},
        "where": {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}},
    },
}
GOOD = {"/name": ["Ana"], "/count": ["3"], "/sure": ["true"], "/colour": ["0"]}


def read(schema: dict[str, Any], posted: dict[str, list[str]]) -> tuple[Any, dict[tuple[str | int, ...], str]]:
    return Form(schema, "v").read({f"v{name}": values for name, values in posted.items()})


def field(whole: Field, name: str) -> Field:
    (found,) = [each for each in every(whole) if each.path and each.path[-1] == name]
    return found


def test_each_type_has_a_field_of_its_own() -> None:
    whole = Form(SCHEMA, "v").blank()

    assert {each.path[-1]: each.kind for each in every(whole) if each.path} == {
        "name": "text",
        "count": "number",
        "price": "number",
        "sure": "flag",
        "colour": "choice",
        "tags": "lines",
        "sizes": "many",
        "rest": "json",
        "where": "group",
        "city": "text",
    }
    assert field(whole, "name").label == "Name"
    assert field(whole, "count").help == "How many."
    assert field(whole, "count").attributes == {"min": "1", "step": "1", "inputmode": "numeric"}
    assert field(whole, "price").required is False


def test_what_is_posted_becomes_a_value_of_the_schema() -> None:
    posted = GOOD | {"/price": ["2.5"], "/tags": ["a\r\n\r\n b "], "/sizes": ["0", "2"], "/rest": ['[{"x": 1}]']}

    value, errors = read(SCHEMA, posted | {"/where/city": ["Leeds"]})

    assert errors == {}
    assert value == {
        "name": "Ana",
        "count": 3,
        "price": 2.5,
        "sure": True,
        "colour": "red",
        "tags": ["a", "b"],
        "sizes": ["S", "L"],
        "rest": [{"x": 1}],
        "where": {"city": "Leeds"},
    }


def test_what_is_left_empty_is_left_out() -> None:
    value, errors = read(SCHEMA, GOOD | {"/price": [" "], "/tags": [""], "/where/city": [""]})

    assert value == {"name": "Ana", "count": 3, "sure": True, "colour": "red"}
    assert errors == {}  # what is optional, and has nothing in it, is left out whole


@pytest.mark.parametrize(
    ("posted", "path", "said"),
    [
        ({"/name": [""]}, ("name",), "This is needed."),
        ({"/name": ["x" * 21]}, ("name",), "It must have 20 characters or fewer."),
        ({"/count": ["0"]}, ("count",), "It must be 1 or more."),
        ({"/count": ["1.5"]}, ("count",), "“1.5” is not a whole number."),
        ({"/count": ["1_000"]}, ("count",), "“1_000” is not a whole number."),
        ({"/price": ["inf"]}, ("price",), "“inf” is not a number."),
        ({"/price": ["9" * 5000]}, ("price",), f"“{'9' * 40}” is not a number."),
        ({"/colour": ["7"]}, ("colour",), "This is none of the choices."),
        ({"/colour": ["²"]}, ("colour",), "This is none of the choices."),
        ({"/sizes": ["0", "1", "2"]}, ("sizes",), "There must be 2 or fewer."),
        ({"/rest": ["[NaN]"]}, ("rest",), "NaN is not JSON."),
        ({"/rest": ["["]}, ("rest",), "This is not JSON: Expecting value (line 1, column 2)."),
        ({"/rest": ["[" * 100_000]}, ("rest",), "This is nested too deeply."),
    ],
)
def test_a_complaint_stands_at_its_field(posted: dict[str, list[str]], path: tuple[str], said: str) -> None:
    good = GOOD | {"/where/city": ["Leeds"]}

    _, errors = read(SCHEMA, good | posted)

    assert errors == {path: said}
    filled = Form(SCHEMA, "v").filled({f"v{name}": values for name, values in (good | posted).items()}, errors)
    assert field(filled, path[0]).error == said
    assert field(filled, "city").value == "Leeds"


def test_a_complaint_about_no_field_stands_at_the_whole() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "minProperties": 1}

    _, errors = read(schema, {})

    assert list(errors) == [()]
    assert Form(schema, "v").filled({}, errors).error


def test_what_is_filled_in_comes_from_the_value_or_the_defaults() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "default": 5}, "b": {"enum": ["x", "y"]}}}

    assert field(Form(schema, "v").blank(), "a").value == "5"
    whole = Form(schema, "v", value={"a": 7, "b": "y"}).blank()
    assert (field(whole, "a").value, field(whole, "b").value) == ("7", "1")


@pytest.mark.parametrize(
    "inner",
    [
        {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        {"oneOf": [{"type": "null"}, {"type": "integer"}], "title": "N"},
        {"type": ["integer", "null"]},
        {"$ref": "#/$defs/number"},
    ],
)
def test_a_value_that_may_be_null_or_is_defined_elsewhere_is_a_field_all_the_same(inner: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {"n": inner}, "$defs": {"number": {"type": "integer"}}}

    assert field(Form(schema, "v").blank(), "n").kind == "number"
    assert read(schema, {"/n": ["4"]}) == ({"n": 4}, {})


def test_a_schema_that_refers_to_itself_ends_in_a_field_of_json() -> None:
    schema = {
        "$ref": "#/$defs/tree",
        "$defs": {"tree": {"type": "object", "properties": {"inner": {"$ref": "#/$defs/tree"}}}},
    }

    whole = Form(schema, "v").blank()

    assert [each.kind for each in every(whole)] == ["group"] * 4 + ["json"]


def test_a_choice_between_shapes_is_a_field_of_json() -> None:
    schema = {"anyOf": [{"type": "string"}, {"type": "integer"}]}

    assert Form(schema, "v").blank().kind == "json"
    assert read(schema, {"": ["5"]}) == (5, {})
    _, errors = read(schema, {"": ["[]"]})
    assert list(errors) == [()]


def test_what_is_no_schema_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no JSON Schema"):
        Form({"type": "wrong"}, "v")


def test_no_schema_makes_the_form_fetch_anything() -> None:
    form = Form({"$ref": "http://127.0.0.1:9/schema.json"}, "v")

    assert form.blank().kind == "json"
    assert form.read({"v": ['{"a": 1}']}) == ({"a": 1}, {})


def test_names_that_html_knows_are_only_names() -> None:
    schema = {
        "type": "object",
        "required": ["a/b"],
        "properties": {"a/b": {}, '"><x': {}},
    }

    whole = Form(schema, "v").blank()

    assert [each.name for each in whole.fields] == ["v/a~1b", 'v/"><x']
    assert all(each.id.replace("-", "").replace("_", "").isalnum() for each in whole.fields)
    assert read(schema, {"/a~1b": ["1"]}) == ({"a/b": 1}, {})


SCALARS = st.one_of(
    st.tuples(st.just({"type": "string"}), st.text(min_size=1).filter(lambda text: text.strip() and "\r" not in text)),
    st.tuples(st.just({"type": "integer"}), st.integers()),
    st.tuples(st.just({"type": "number"}), st.floats(allow_nan=False, allow_infinity=False)),
    st.tuples(st.just({"type": "boolean"}), st.booleans()),
    st.tuples(st.just({"enum": ["a", "b", 3, None, {"x": [1]}]}), st.sampled_from(["a", "b", 3, None, {"x": [1]}])),
    st.tuples(st.just({}), st.recursive(st.none() | st.booleans() | st.text(), st.lists)),
)


@given(st.dictionaries(st.text(min_size=1), SCALARS))
def test_a_form_that_is_sent_as_it_was_filled_in_gives_the_value_back(parts: dict[str, tuple[Any, Any]]) -> None:
    """The law that matters to whoever approves with changes: what is not touched does not change."""
    schema = {"type": "object", "properties": {name: inner for name, (inner, _) in parts.items()}}
    value = {name: each for name, (_, each) in parts.items()}
    form = Form(schema, "v", value=value)

    posted = {each.name: list(each.values) or [each.value] for each in every(form.blank()) if each.kind != "group"}
    read_again, errors = form.read(posted)

    assert errors == {}
    assert json.dumps(read_again, sort_keys=True) == json.dumps(value, sort_keys=True)
