"""Signatures: what a model is told of a function, and how its arguments become the function's."""

import enum
import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar, Union, cast
from uuid import UUID

import attrs
import msgspec
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from agentruns import Action, ConfigurationError
from agentruns._handlers.docstrings import description
from agentruns._handlers.shapes import MisfitError
from agentruns._handlers.signature import Signature
from agentruns._values.codec import to_jsonable

T = TypeVar("T")
UserId = NewType("UserId", int)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 3


@frozen
class Line:
    no: int
    price: float = 0.0
    tags: list[str] = attrs.field(factory=list)


@frozen
class Invoice:
    number: str
    lines: list[Line]
    due: date | None = None


@frozen
class Node:
    name: str
    children: "list[Node]" = attrs.field(factory=list)


@frozen
class Box(Generic[T]):
    content: T


@frozen
class Positive:
    amount: int = attrs.field(validator=attrs.validators.gt(0))


@frozen
class Arguments:
    x: int


@dataclass
class Point:
    x: int
    y: int = 0


class Typed(TypedDict):
    a: int


class Pair(NamedTuple):
    a: int
    b: str = "b"


def signature_of(function: Callable[..., Any]) -> Signature:
    signature = Signature.of(function, "tool")
    assert signature is not None
    return signature


def schema_of(function: Callable[..., Any]) -> dict[str, Any]:
    return dict(signature_of(function).schema)


def parameter(kind: Any, default: Any = inspect.Parameter.empty) -> Callable[..., Any]:
    """Return a function with the one parameter `it`."""

    def function(**given: Any) -> Any:
        return given.get("it", default)

    it = inspect.Parameter("it", inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
    function.__signature__ = inspect.Signature([it])  # type: ignore[attr-defined]
    return function


def property_of(kind: Any) -> Any:
    return schema_of(parameter(kind))["properties"]["it"]


def called(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    positional, named = signature_of(function).structure(arguments)
    return function(*positional, **named)


def fitted(kind: Any, value: Any) -> Any:
    return called(parameter(kind), {"it": value})


def misfit(function: Callable[..., Any], arguments: Any) -> str:
    with pytest.raises(MisfitError) as caught:
        signature_of(function).structure(arguments)
    return str(caught.value)


# Schemas --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (Any, {}),
        (list, {"type": "array"}),
        (dict, {"type": "object"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (Sequence[int], {"type": "array", "items": {"type": "integer"}}),
        (set[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (Literal["a", "b"], {"enum": ["a", "b"]}),
        (Literal[1, "a"] | None, {"anyOf": [{"enum": [1, "a"]}, {"type": "null"}]}),
        (datetime, {"type": "string", "format": "date-time"}),
        (list[datetime], {"type": "array", "items": {"type": "string", "format": "date-time"}}),
        (datetime | None, {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
        (Annotated[datetime, msgspec.Meta(tz=True)], {"type": "string", "format": "date-time"}),
        (date, {"type": "string", "format": "date"}),
        (timedelta, {"type": "string", "format": "duration"}),
        (UUID, {"type": "string", "format": "uuid"}),
        (Decimal, {"type": "string", "format": "decimal"}),
        (UserId, {"type": "integer"}),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}),  # noqa: UP007
        (Annotated[int, msgspec.Meta(ge=1, le=9)], {"type": "integer", "minimum": 1, "maximum": 9}),
        (Annotated[str, msgspec.Meta(description="A word.", max_length=5)], {
            "type": "string", "description": "A word.", "maxLength": 5,
        }),
        (Annotated[str, "A word."], {"type": "string", "description": "A word."}),
        (Annotated[str, object()], {"type": "string"}),
        (Path, {"type": "string"}),
    ],
)  # fmt: skip
def test_a_type_has_its_schema(kind: Any, schema: Any) -> None:
    assert property_of(kind) == schema


@pytest.mark.parametrize("kind", [Colour, Level, Line, Invoice, Node, Box[int], Point, Typed, Pair])
def test_named_types_are_defined_inside_the_schema(kind: Any) -> None:
    schema = schema_of(parameter(kind))
    reference = schema["properties"]["it"]["$ref"]

    assert reference.startswith("#/$defs/")
    assert reference.removeprefix("#/$defs/") in schema["$defs"]


def test_nested_classes_are_described_all_the_way_down() -> None:
    def book(invoice: Invoice) -> None: ...

    assert schema_of(book) == {
        "type": "object",
        "properties": {"invoice": {"$ref": "#/$defs/Invoice"}},
        "required": ["invoice"],
        "additionalProperties": False,
        "$defs": {
            "Invoice": {
                "title": "Invoice",
                "type": "object",
                "properties": {
                    "number": {"type": "string"},
                    "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
                    "due": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}], "default": None},
                },
                "required": ["number", "lines"],
                "additionalProperties": False,
            },
            "Line": {
                "title": "Line",
                "type": "object",
                "properties": {
                    "no": {"type": "integer"},
                    "price": {"type": "number", "default": 0.0},
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["no"],
                "additionalProperties": False,
            },
        },
    }


def test_a_class_that_contains_itself_refers_to_itself() -> None:
    schema = schema_of(parameter(Node))

    assert schema["$defs"]["Node"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    assert fitted(Node, {"name": "a", "children": [{"name": "b"}]}) == Node("a", [Node("b")])


def test_a_function_without_parameters_takes_an_empty_object() -> None:
    def ping() -> None: ...

    assert schema_of(ping) == {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert called(ping, {}) is None


def test_parameters_without_hints_take_anything() -> None:
    def loose(a, b=2):  # type: ignore[no-untyped-def]
        return [a, b]

    assert schema_of(loose)["properties"] == {"a": {}, "b": {"default": 2}}
    assert called(loose, {"a": {"x": [1]}}) == [{"x": [1]}, 2]


def test_defaults_are_shown_as_json_where_json_can_carry_them() -> None:
    def function(
        a: int = 1,
        b: Colour = Colour.RED,
        c: Line = Line(1),
        d: datetime = datetime(2026, 6, 2, tzinfo=UTC),
        e: list[int] = [],  # noqa: B006
        f: str | None = None,
        g: float = float("nan"),
        h: str = "\ud800",
        i: Any = object(),  # noqa: B008
    ) -> None: ...

    schema = schema_of(function)

    assert schema["required"] == []
    assert {name: shown.get("default", "left out") for name, shown in schema["properties"].items()} == {
        "a": 1,
        "b": "red",
        "c": {"no": 1, "price": 0.0, "tags": []},
        "d": "2026-06-02T00:00:00Z",
        "e": [],
        "f": None,
        "g": "left out",
        "h": "left out",
        "i": "left out",
    }
    assert to_jsonable(schema, "the schema") == schema


def test_a_parameter_may_have_any_name_python_allows() -> None:
    def function(self: int, name: str, __x: int = 3, __struct_fields__: int = 4, msgspec: int = 5) -> list[Any]:
        return [self, name, __x, __struct_fields__, msgspec]

    assert list(schema_of(function)["properties"]) == ["self", "name", "__x", "__struct_fields__", "msgspec"]
    assert called(function, {"self": 1, "name": "n", "__x": 2}) == [1, "n", 2, 4, 5]


@pytest.mark.parametrize("name", ["Line", "a/b", "with space", "field-0", "~", ""])
def test_the_tools_name_does_not_get_in_the_way_of_its_types(name: str) -> None:
    signature = Signature.of(parameter(Line), name)

    assert signature is not None
    assert signature.schema["properties"] == {"it": {"$ref": "#/$defs/Line"}}
    assert list(signature.schema["$defs"]) == ["Line"]


def test_a_users_class_may_have_the_name_of_one_of_ours() -> None:
    schema = schema_of(parameter(Arguments))

    (title,) = [each["title"] for each in schema["$defs"].values()]
    assert title == "Arguments"
    assert schema["properties"]["it"]["$ref"].removeprefix("#/$defs/") in schema["$defs"]
    assert fitted(Arguments, {"x": 1}) == Arguments(1)


# What has no schema ---------------------------------------------------------------------------------------------------


class Foreign:
    pass


@frozen
class Holder:
    foreign: Foreign


@frozen
class Dangling:
    other: "Nowhere"  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    "kind",
    [
        Foreign,
        Foreign | None,
        list[Foreign],
        dict[str, Foreign],
        Holder,
        Dangling,
        object,
        type,
        Callable[[], int],
        list[Action],
        1,
    ],
)
def test_a_type_without_a_schema_is_refused_by_tool_and_parameter(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"parameter 'it' of tool 'pay'.*(no JSON Schema\. Use str|cannot be)"):
        Signature.of(parameter(kind), "pay")


def unresolvable(first: int, second: "list[Nowhere]") -> None:  # type: ignore[name-defined]  # noqa: F821
    ...


def unreadable(second: "list[") -> None:  # type: ignore[valid-type]  # noqa: F722
    ...


def raising(second: "1 / 0") -> None:  # type: ignore[valid-type]
    ...


@pytest.mark.parametrize("function", [unresolvable, unreadable, raising])
def test_a_type_that_cannot_be_read_is_refused_by_tool_and_parameter(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"the type of parameter 'second' of tool 'pay', .*; define it where"):
        Signature.of(function, "pay")


def forward(node: "Node", returned: "int | None" = None) -> "Nowhere":  # type: ignore[name-defined]  # noqa: F821
    return [node, returned]


def test_forward_references_are_followed_and_what_is_returned_does_not_matter() -> None:
    assert called(forward, {"node": {"name": "a"}}) == [Node("a"), None]


def splat(a: int, *rest: int) -> None: ...
def options(a: int, **rest: "str") -> None: ...


@pytest.mark.parametrize(
    ("function", "text"), [(splat, r"\*rest: int"), (options, r"\*\*rest: str"), (print, r"\*args")]
)
def test_starred_parameters_are_refused_with_the_way_out(function: Callable[..., Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"tool 'pay' takes {text}.*`@tools.default`"):
        Signature.of(function, "pay")


@pytest.mark.parametrize("function", [max, int, dict])
def test_a_function_that_hides_its_signature_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="the signature of tool 'pay' cannot be read"):
        Signature.of(function, "pay")


# Arguments ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "seen"),
    [
        (float, 2, 2.0),
        (Colour, "blue", Colour.BLUE),
        (Level, 3, Level.HIGH),
        (Literal[True], True, True),
        (datetime, "2026-06-02T08:15:04Z", datetime(2026, 6, 2, 8, 15, 4, tzinfo=UTC)),
        (date, "2026-06-02", date(2026, 6, 2)),
        (timedelta, "PT90S", timedelta(seconds=90)),
        (UUID, str(UUID(int=1)), UUID(int=1)),
        (Decimal, "1.50", Decimal("1.50")),
        (bytes, "YWJj", b"abc"),
        (set[int], [1, 2, 1], {1, 2}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (dict[int, str], {"1": "a"}, {1: "a"}),
        (dict[UUID, Line], {str(UUID(int=1)): {"no": 1}}, {UUID(int=1): Line(1)}),
        (Line, {"no": 1, "price": 2}, Line(1, 2.0)),
        (Line | None, None, None),
        (list[Line], [{"no": 1, "tags": ["a"]}], [Line(1, 0.0, ["a"])]),
        (
            Invoice,
            {"number": "R", "lines": [{"no": 1}], "due": "2026-06-02"},
            Invoice("R", [Line(1)], date(2026, 6, 2)),
        ),
        (int | str | Line, {"no": 1}, Line(1)),
        (Box[int], {"content": 1}, Box(1)),
        (Point, {"x": 1}, Point(1)),
        (Pair, [1], Pair(1)),
        (Line | Node, {"name": "a"}, Node("a")),
        (Path, "a/b", Path("a/b")),
        (int, 2**70, 2**70),
    ],
)
def test_arguments_arrive_as_instances_of_their_types(kind: Any, value: Any, seen: Any) -> None:
    arrived = fitted(kind, value)

    assert arrived == seen
    assert type(arrived) is type(seen)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (str, None),
        (str, 7),
        (int, "7"),
        (int, 3.9),
        (int, True),
        (bool, "false"),
        (bool, 0),
        (float, "1.5"),
        (float, False),
        (list[str], "abc"),
        (Colour, "green"),
        (Level, 2),
        (datetime, "yesterday"),
        (datetime, 1780000000),
        (UUID, "7"),
        (Line, []),
        (Line, {"no": 1, "what the model": "made up"}),
        (Literal["a"], "b"),
        (Annotated[int, msgspec.Meta(ge=1)], 0),
        (Positive, {"amount": -1}),
        (dict[int, str], {"one": "a"}),
    ],
)
def test_nothing_is_made_to_fit(kind: Any, value: Any) -> None:
    assert "$.it" in misfit(parameter(kind), {"it": value})


def test_a_misfit_names_the_path_through_lists_and_classes() -> None:
    text = misfit(parameter(list[Invoice]), {"it": [{"number": "R", "lines": [{"no": 1}, {"no": "2"}]}]})

    assert text == "Expected `int`, got `str` - at `$.it[0].lines[1].no`"


def test_what_is_missing_or_unknown_is_named() -> None:
    def pay(amount: int) -> None: ...

    assert "missing required field `amount`" in misfit(pay, {})
    assert "unknown field `currency`" in misfit(pay, {"amount": 1, "currency": "EUR"})
    assert "unknown field `field_0`" in misfit(pay, {"field_0": 1})
    assert misfit(pay, [1]) == "Expected `object`, got `array`"


def test_any_mapping_serves_as_arguments() -> None:
    assert called(parameter(int), MappingProxyType({"it": 1})) == 1


def test_what_is_left_out_is_the_functions_own_default() -> None:
    shared: list[int] = []

    def function(a: list[int] = shared, b: int = 2) -> tuple[list[int], int]:
        return a, b

    a, b = called(function, {})

    assert a is shared
    assert b == 2
    assert signature_of(function).structure({}) == ([], {})


def test_none_that_is_given_is_not_taken_for_left_out() -> None:
    assert called(parameter(int | None, 5), {"it": None}) is None
    assert "$.it" in misfit(parameter(int, 5), {"it": None})


@given(st.dictionaries(st.sampled_from("abcd"), st.integers()).filter(lambda given: {"a", "c"} <= set(given)))
def test_each_value_reaches_its_own_parameter_whatever_else_is_left_out(given: dict[str, int]) -> None:
    def function(a: int, b: int = -1, /, *, c: int, d: int = -2) -> dict[str, int]:
        return {"a": a, "b": b, "c": c, "d": d}

    assert called(function, given) == {"b": -1, "d": -2} | given


@given(st.dictionaries(st.sampled_from("abc"), st.integers()))
def test_a_gap_among_positional_parameters_does_not_shift_the_others(given: dict[str, int]) -> None:
    def function(a: int = -1, b: int = -2, /, c: int = -3) -> dict[str, int]:
        return {"a": a, "b": b, "c": c}

    assert called(function, given) == {"a": -1, "b": -2, "c": -3} | given


# What can be a tool ---------------------------------------------------------------------------------------------------


class Desk:
    """Not the doc of a tool."""

    def add(self, a: int, line: Line | None = None) -> Any:
        """Add one."""
        return a + 1

    @classmethod
    def build(cls, a: int) -> int:
        """Build one."""
        return a + 2

    @staticmethod
    def plain(a: int) -> int:
        return a + 3

    def __call__(self, a: int, *, b: "Colour" = Colour.RED) -> list[Any]:
        """
        Call one.

        At length.
        """
        return [a, b]


class Silent:
    """Say nothing of its own call."""

    def __call__(self, a: int) -> int:
        return a


def base(a: int, b: str = "b", *, line: "Line | None" = None) -> list[Any]:
    """Do the base thing."""
    return [a, b, line]


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*given: Any, **named: Any) -> Any:
        return function(*given, **named)

    return wrapper


@pytest.mark.parametrize(
    ("function", "text", "parameters", "result"),
    [
        (base, "Do the base thing.", ["a", "b", "line"], [1, "b", None]),
        (Desk().add, "Add one.", ["a", "line"], 2),
        (Desk.build, "Build one.", ["a"], 3),
        (Desk().build, "Build one.", ["a"], 3),
        (Desk.plain, "", ["a"], 4),
        (Desk(), "Call one.\n\nAt length.", ["a", "b"], [1, Colour.RED]),
        (Silent(), "Say nothing of its own call.", ["a"], 1),
        (wrapped(base), "Do the base thing.", ["a", "b", "line"], [1, "b", None]),
        (wrapped(wrapped(Desk().add)), "Add one.", ["a", "line"], 2),
        (wrapped(Desk()), "Not the doc of a tool.", ["a", "b"], [1, Colour.RED]),
        (functools.partial(base), "Do the base thing.", ["a", "b", "line"], [1, "b", None]),
        (functools.partial(base, b="x"), "Do the base thing.", ["a", "line"], [1, "x", None]),
        (functools.partial(base, 1), "Do the base thing.", ["b", "line"], None),
        (
            functools.partial(functools.partial(Desk()), b=Colour.BLUE),
            "Call one.\n\nAt length.",
            ["a"],
            [1, Colour.BLUE],
        ),
        (functools.partial(wrapped(base), line=Line(9)), "Do the base thing.", ["a", "b"], [1, "b", Line(9)]),
        (wrapped(functools.partial(base, b="x")), None, ["a", "line"], [1, "x", None]),
        (functools.lru_cache(base), "Do the base thing.", ["a", "b", "line"], [1, "b", None]),
    ],
)
def test_whatever_can_be_called_is_described_by_what_is_called_in_the_end(
    function: Callable[..., Any], text: str | None, parameters: list[str], result: Any
) -> None:
    signature = signature_of(function)

    assert text is None or signature.description == text
    assert list(signature.schema["properties"]) == parameters
    if result is not None:
        assert called(function, {"a": 1}) == result
        assert "$.a" in misfit(function, {"a": "1"})


def test_what_a_partial_has_bound_is_neither_shown_to_the_model_nor_open_to_it() -> None:
    def send(text: str, api_key: str = "") -> str:
        return api_key + text

    bound = functools.partial(send, api_key="sesame")

    assert "sesame" not in str(schema_of(bound))
    assert called(bound, {"text": "!"}) == "sesame!"
    assert "unknown field `api_key`" in misfit(bound, {"text": "!", "api_key": "mine"})


def test_a_partial_with_a_docstring_of_its_own_keeps_it() -> None:
    bound = functools.partial(base, b="x")
    bound.__doc__ = "Do it with x."

    assert description(bound) == "Do it with x."


@pytest.mark.parametrize("kind", [Line, Point])
def test_a_class_can_be_a_tool(kind: type[Any]) -> None:
    fields = [*inspect.signature(kind).parameters]

    assert list(schema_of(kind)["properties"]) == fields
    assert called(kind, {fields[0]: 1}) == kind(1)
    assert f"$.{fields[0]}" in misfit(kind, {fields[0]: "1"})


def test_a_class_with_an_init_of_its_own_is_described_by_it() -> None:
    class Order:
        def __init__(self, line: "Line", urgent: bool = False) -> None:
            self.line = line

    assert called(Order, {"line": {"no": 1}}).line == Line(1)
    assert schema_of(Order)["required"] == ["line"]


def test_a_signature_that_a_decorator_sets_is_the_one_that_counts() -> None:
    function = wrapped(base)
    it = inspect.Parameter("a", inspect.Parameter.KEYWORD_ONLY, annotation="Literal[1, 2]")
    function.__signature__ = inspect.Signature([it])  # type: ignore[attr-defined]

    assert schema_of(function)["properties"] == {"a": {"enum": [1, 2]}}


# The action itself ----------------------------------------------------------------------------------------------------


def by_position(action: Action) -> Action:
    return action


def by_name(action: "Action") -> Action:
    return action


def with_more(database: str, action: Action) -> Action:
    return action


@pytest.mark.parametrize("function", [by_position, by_name, functools.partial(with_more, "db"), wrapped(by_name)])
def test_a_function_that_takes_just_an_action_has_no_signature(function: Callable[..., Any]) -> None:
    assert Signature.of(function, "tool") is None


def test_an_action_by_keyword_only_is_given_by_keyword() -> None:
    def function(*, action: Action) -> None: ...

    for each, name in ((function, "action"), (functools.partial(with_more, database="db"), "action")):
        signature = signature_of(each)
        assert signature.schema["properties"] == {}
        assert signature.structure({}, Action("1", "x")) == ([], {name: Action("1", "x")})


# Docstrings -----------------------------------------------------------------------------------------------------------


def google(slot: str, days: int = 1) -> None:
    """
    Propose a slot.

    The user is asked.

    Args:
        slot: When it begins,
            in local time.
        days (int): How long.
        nobody: Not a parameter.

    Returns:
        Nothing.
    """


def numpy(slot: str, days: int = 1) -> None:
    """
    Propose a slot.

    The user is asked.

    Parameters
    ----------
    slot : str
        When it begins,
        in local time.
    days : int
        How long.
    """


def sphinx(slot: str, days: int = 1) -> None:
    """
    Propose a slot.

    The user is asked.

    :param slot: When it begins,
        in local time.
    :param int days: How long.
    :returns: Nothing.
    """


@pytest.mark.parametrize("function", [google, numpy, sphinx, functools.partial(google), wrapped(sphinx)])
def test_a_docstring_describes_the_tool_and_each_parameter(function: Callable[..., Any]) -> None:
    pytest.importorskip("docstring_parser")
    signature = signature_of(function)

    assert signature.description.startswith("Propose a slot.\n\nThe user is asked.")
    assert "local time" not in signature.description
    assert signature.schema["properties"] == {
        "slot": {"type": "string", "description": "When it begins,\nin local time."},
        "days": {"type": "integer", "description": "How long.", "default": 1},
    }


@pytest.mark.parametrize("function", [google, numpy, sphinx])
def test_without_the_parser_the_whole_docstring_describes_the_tool(
    function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "docstring_parser", cast("Any", None))
    signature = signature_of(function)

    assert signature.description == inspect.getdoc(function)
    assert "slot" in signature.description
    assert "description" not in signature.schema["properties"]["slot"]


def test_a_docstring_that_describes_no_parameter_is_shown_whole() -> None:
    def pay(amount: int) -> None:
        """
        Pay.

        Returns:
            Nothing.
        """

    assert signature_of(pay).description == "Pay.\n\nReturns:\n    Nothing."


def test_a_docstring_of_parameters_alone_is_shown_whole() -> None:
    pytest.importorskip("docstring_parser")

    def pay(amount: int) -> None:
        """:param amount: How much."""

    signature = signature_of(pay)

    assert signature.description == ":param amount: How much."
    assert signature.schema["properties"]["amount"]["description"] == "How much."


def test_a_described_parameter_may_have_a_class_or_constraints() -> None:
    pytest.importorskip("docstring_parser")

    def pay(line: Line, amount: Annotated[int, msgspec.Meta(ge=1)] = 1) -> None:
        """
        Pay.

        Args:
            line: What for.
            amount: How much.
        """

    properties = schema_of(pay)["properties"]

    assert properties["line"]["description"] == "What for."
    assert properties["amount"] == {"type": "integer", "minimum": 1, "description": "How much.", "default": 1}
    assert "$.amount" in misfit(pay, {"line": {"no": 1}, "amount": 0})


@given(
    st.lists(
        st.sampled_from([
            "Args:",
            "    a: b",
            "\n",
            ":param",
            " a:",
            "Parameters",
            "----",
            "@param",
            "a : int",
            "(",
            ":returns a b:",
            "Raises:",
            "  ",
        ]),
        max_size=8,
    ).map("\n".join)
)
def test_no_docstring_makes_a_function_unfit(text: str) -> None:
    def pay(a: int) -> None: ...

    pay.__doc__ = text

    assert signature_of(pay).schema["required"] == ["a"]
