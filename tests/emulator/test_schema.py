"""The small part of JSON Schema: invented values and reasons why a value does not fit; the default agent."""

from __future__ import annotations

import pytest

from agentruns.emulator import Output, Prompt, Tool, default_agent
from agentruns.emulator.schema import JSON, example, misfit

TREE: JSON = {"$ref": "#/$defs/node", "$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}}}}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": 4, "type": "string"}, 4),
        ({"default": None}, None),
        ({"enum": ["b", "a"]}, "b"),
        ({"examples": ["kept"]}, "kept"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1),
        ({"type": ["null", "boolean"]}, True),
        ({"type": ["null"]}, None),
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "number"}, 1),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"type": "string", "format": "date"}, "2026-01-15"),
        ({"type": "string", "format": "shoe-size"}, "example value"),
        ({"type": "string", "minLength": 15}, "example value.."),
        ({"type": "string", "maxLength": 3}, "exa"),
        ({"properties": {"city": {}}}, {"city": "example city"}),
        ({"type": "object"}, {}),
        (True, "example value"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"const": 1}}}, 1),
        ({"$ref": "#/nowhere/x"}, "example value"),
    ],
)
def test_an_example_honours_the_schema(schema: JSON, value: JSON) -> None:
    assert example(schema) == value


def test_an_example_of_a_recursive_schema_ends() -> None:
    assert str(example(TREE)).count("next") < 10


def test_deep_down_only_required_properties_are_invented() -> None:
    schema: JSON = {"properties": {"must": {}, "may": {}}, "required": ["must"]}
    for _ in range(7):
        schema = {"properties": {"in": schema}, "required": ["in"]}
    assert "may" not in str(example(schema))
    assert "must" in str(example(schema))


@pytest.mark.parametrize(
    ("schema", "value", "reason"),
    [
        (True, 1, None),
        ({"type": "string"}, 1, "$ is not of type string"),
        ({"type": ["string", "null"]}, 1, "$ is not of type string or null"),
        ({"type": "integer"}, True, "$ is not of type integer"),
        ({"type": "boolean"}, True, None),
        ({"type": "number"}, 1.5, None),
        ({"type": "rainbow"}, 1, None),
        ({"enum": [1, 2]}, 3, "$ is not one of the allowed values"),
        ({"required": ["a"]}, {}, "$.a is missing"),
        ({"additionalProperties": False}, {"a": 1}, "$.a is not expected"),
        ({"additionalProperties": False, "properties": {"a": {"type": "integer"}}}, {"a": 1}, None),
        ({"properties": {"a": {"type": "null"}}}, {"a": 1}, "$.a is not of type null"),
        ({"items": {"type": "string"}}, ["a", 2], "$[1] is not of type string"),
        ({"items": {"type": "string"}}, ["a"], None),
    ],
)
def test_a_misfit_is_named_by_its_path(schema: JSON, value: JSON, reason: str | None) -> None:
    assert misfit(schema, value) == reason


def test_the_default_agent_fills_the_answer_schema() -> None:
    schema: dict[str, JSON] = {"properties": {"text": {"type": "string"}, "sure": {"type": "boolean"}}}
    turn = default_agent(Prompt(index=0, conversation_id="c", text="Hi.", output_schema=schema))
    assert turn.structured == {"text": "You said: Hi.", "sure": True}
    bare = default_agent(Prompt(index=0, conversation_id="c", text="Hi."))
    assert bare.text == "You said: Hi."


def test_the_default_agent_calls_the_first_client_side_tool_or_the_forced_one() -> None:
    tools = (Tool(name="s", server_side=True), Tool(name="a"), Tool(name="b"))
    for forced, name in ((None, "a"), ("b", "b"), ("s", "s")):
        turn = default_agent(Prompt(index=0, conversation_id="c", text="Hi.", tools=tools, forced=forced))
        assert [call.name for call in turn.calls] == [name]
    done = default_agent(
        Prompt(index=1, conversation_id="c", tools=tools, outputs=(Output(tool_use_id="t", name="a", text="4"),))
    )
    assert (done.calls, done.text) == ((), "The tools say: a answered 4")
