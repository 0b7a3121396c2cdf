"""Arguments that strangers' tools take: what a model is told of them, and what they become."""

import asyncio
import contextlib
import dataclasses
import enum
import inspect
import logging
import sys
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path, PurePosixPath
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    LiteralString,
    NamedTuple,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
)
from uuid import UUID

import attrs
import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentruns import Action, ConfigurationError, ToolOutput, Tools
from agentruns._handlers.docstrings import documentation
from agentruns.tools import Tool

T = TypeVar("T")
B = TypeVar("B", bound=int)
C = TypeVar("C", int, str)


def _lowered(text: Any) -> str:
    return str(text).strip().lower()


def _looked_up(name: Any) -> str:
    return {"a": "b"}[name]


def _sorted(tags: Any) -> tuple[str, ...]:
    return tuple(sorted(set(tags)))


@attrs.define
class User:
    email: str = attrs.field(converter=_lowered)
    tags: tuple[str, ...] = attrs.field(factory=tuple, converter=_sorted)


def read_moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@attrs.define
class Visit:
    at: datetime = attrs.field(converter=read_moment)
    _note: str = ""
    key: str = attrs.field(default="k", alias="id_")
    made: int = attrs.field(init=False, default=0)


@dataclasses.dataclass
class Money:
    cents: int

    def __init__(self, cents: int) -> None:
        self.cents, self.checked = abs(cents), True


@dataclasses.dataclass
class Doubled:
    """Hold twice as much."""

    times: dataclasses.InitVar[int]
    total: int = dataclasses.field(init=False)
    name: str = None  # type: ignore[assignment]

    def __post_init__(self, times: int) -> None:
        if times < 0:
            raise ValueError("times must not be negative")
        self.total = 2 * times


class Cat(TypedDict):
    kind: Literal["cat"]
    lives: NotRequired[int]


class Dog(TypedDict, total=False):
    kind: Required[Literal["dog"]]
    tricks: Annotated[int, msgspec.Meta(ge=0)]


class Point(NamedTuple):
    x: int
    y: int = 7


class Packed(msgspec.Struct, rename="camel"):
    some_text: str
    size: int = 1


class Colour(enum.Enum):
    """What it looks like."""

    RED = "red"
    BLUE = "blue"


class Mixed(enum.Enum):
    ONE = 1
    HALF = 0.5
    NONE = None


@attrs.frozen
class Box(Generic[T]):
    content: T


@attrs.frozen
class DateBox(Box[date]):
    label: str = ""


@attrs.frozen
class Tree:
    value: int
    children: "dict[str, Tree]" = attrs.field(factory=dict)


@dataclasses.dataclass
class Filter:
    status: str | None = None


def tool_of(function: Callable[..., Any], *, lenient: bool = False, **options: Any) -> Tool:
    tools = Tools(lenient=lenient)
    tools.add(function, name="it", **options)
    tool = tools.find(["it"])
    assert tool is not None
    return tool


def schema_of(function: Callable[..., Any], **options: Any) -> dict[str, Any]:
    tools = Tools()
    tools.add(function, name="it", **options)
    return dict(tools.schemas()[0].input_schema)


def function_of(kind: Any, default: Any = inspect.Parameter.empty) -> Callable[..., Any]:
    def function(**given: Any) -> Any:
        seen.append(given.get("it", default))

    it = inspect.Parameter("it", inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
    function.__signature__ = inspect.Signature([it])  # type: ignore[attr-defined]
    seen: list[Any] = []
    function.seen = seen  # type: ignore[attr-defined]
    return function


def property_of(kind: Any, default: Any = inspect.Parameter.empty) -> Any:
    return schema_of(function_of(kind, default))["properties"]["it"]


def answered(function: Callable[..., Any], arguments: Mapping[str, Any], **options: Any) -> ToolOutput:
    async def called(**given: Any) -> Any:
        return function(**given)

    called.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    called.__wrapped__ = function  # type: ignore[attr-defined]
    return asyncio.run(tool_of(called, **options)(Action("real-id", "it", arguments)))


def taken(kind: Any, value: Any, **options: Any) -> Any:
    function = function_of(kind)
    output = answered(function, {"it": value}, **options)
    assert not output.is_error, output.output
    return function.seen[0]  # type: ignore[attr-defined]


def misfit(kind: Any, value: Any, **options: Any) -> str:
    output = answered(function_of(kind), {"it": value}, **options)
    assert output.is_error
    assert output.output.startswith("the arguments do not fit: ")
    return str(output.output).removeprefix("the arguments do not fit: ")


def refusal(function: Any, **options: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Tools().add(function, name="it", **options)
    return str(caught.value)


# Fault 05: objects are built by their classes -------------------------------------------------------------------------


def test_converters_and_inits_of_their_own_make_the_objects() -> None:
    assert taken(User, {"email": " Ann@X.org ", "tags": ["b", "a", "b"]}) == User(" Ann@X.org ", ("b", "a", "b"))
    assert taken(User, {"email": " Ann@X.org "}).email == "ann@x.org"
    assert taken(Money, {"cents": -5}).checked
    assert taken(Money, {"cents": -5}).cents == 5
    assert taken(Doubled, {"times": 2}).total == 4
    assert taken(Packed, {"someText": "a"}) == Packed("a")


def test_a_converter_that_says_what_it_takes_gets_that() -> None:
    visit = taken(Visit, {"at": "2026-06-02T08:00:00", "_note": "n", "key": "x"})

    assert visit == Visit("2026-06-02T08:00:00", "n", "x")
    properties = schema_of(function_of(Visit))["$defs"]["Visit"]["properties"]
    assert list(properties) == ["at", "_note", "key"]
    assert properties["at"] == {"type": "string"}


def test_what_a_class_refuses_is_told_to_the_model_by_its_place() -> None:
    assert misfit(list[Doubled], [{"times": 1}, {"times": -1}]) == "times must not be negative - at `$.it[1]`"


def test_a_bug_in_a_class_reaches_the_caller() -> None:
    @attrs.define
    class Odd:
        key: str = attrs.field(converter=_looked_up)

    with pytest.raises(KeyError):
        answered(function_of(Odd), {"it": {"key": "x"}})


# All kinds of types ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "seen"),
    [
        (Path, "a/b", Path("a/b")),
        (PurePosixPath, "a/b", PurePosixPath("a/b")),
        (LiteralString, "a", "a"),
        (Literal[Colour.RED], "red", Colour.RED),
        (Mixed, 0.5, Mixed.HALF),
        (Mixed, None, Mixed.NONE),
        (deque[int], [1, 2], deque([1, 2])),
        (Iterable[int], [1, 2], [1, 2]),
        (OrderedDict[str, int], {"a": 1}, OrderedDict(a=1)),
        (dict[Colour, Money], {"red": {"cents": 1}}, {Colour.RED: Money(1)}),
        (dict[int, Path], {"7": "a"}, {7: Path("a")}),
        (frozenset[Path], ["a"], frozenset({Path("a")})),
        (tuple[Path, ...], ["a", "b"], (Path("a"), Path("b"))),
        (tuple[Path, Colour], ["a", "red"], (Path("a"), Colour.RED)),
        (tuple[()], [], ()),
        (Point, [1], Point(1)),
        (Cat, {"kind": "cat"}, {"kind": "cat"}),
        (Dog, {"kind": "dog", "tricks": 3}, {"kind": "dog", "tricks": 3}),
        (Cat | Dog, {"kind": "dog", "tricks": 3}, {"kind": "dog", "tricks": 3}),
        (datetime | str, "2026-06-02T08:00:00Z", datetime(2026, 6, 2, 8, tzinfo=UTC)),
        (str | datetime, "2026-06-02T08:00:00Z", datetime(2026, 6, 2, 8, tzinfo=UTC)),
        (datetime | str, "tomorrow", "tomorrow"),
        (UUID | str, str(UUID(int=1)), UUID(int=1)),
        (Colour | str, "red", Colour.RED),
        (Colour | str, "pink", "pink"),
        (float | int, 3, 3),
        (float | int, 3.5, 3.5),
        (str | int | None, 3, 3),
        (list[int] | int, [3], [3]),
        (User | Money, {"cents": 1}, Money(1)),
        (Box[Path], {"content": "a"}, Box(Path("a"))),
        (Box[list[Colour]], {"content": ["red"]}, Box([Colour.RED])),
        (DateBox, {"content": "2026-06-02"}, DateBox(date(2026, 6, 2))),
        (Tree, {"value": 1, "children": {"a": {"value": 2}}}, Tree(1, {"a": Tree(2)})),
        (Final[int], 3, 3),
        (B, 3, 3),
        (C, "a", "a"),
        (T, [1], [1]),
    ],
    ids=str,
)
def test_a_value_becomes_what_its_type_says(kind: Any, value: Any, seen: Any) -> None:
    arrived = taken(kind, value)

    assert arrived == seen
    assert type(arrived) is type(seen)
    jsonschema.validate({"it": value}, schema_of(function_of(kind)))


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (Path, 7, "Expected `str`, got `int` - at `$.it`"),
        (Cat | Dog, {"kind": "cow"}, "it fits none: "),
        (Cat | None, {"kind": "cow"}, "Invalid enum value 'cow' - at `$.it.kind`"),
        (Cat | None, [], "Expected `object | null`, got `array` - at `$.it`"),
        (Literal[1], True, "Invalid enum value True - at `$.it`"),
        (Mixed, "0.5", "Invalid enum value '0.5' - at `$.it`"),
        (Dog, {"kind": "dog", "tricks": -1}, "Expected `int` >= 0 - at `$.it.tricks`"),
        (tuple[int, int], [1], "Expected `array` of length 2, got 1 - at `$.it`"),
        (tuple[Path, Path], ["a", 1], "Expected `str`, got `int` - at `$.it[1]`"),
        (dict[int, Path], {"x": "a"}, "- at `$.it[...]`"),
        (dict[str, Money], {"x": {"cents": "1"}}, "Expected `int`, got `str` - at `$.it[...].cents`"),
        (Tree, {"value": 1, "children": {"a": {"value": "2"}}}, "- at `$.it.children[...].value`"),
        (int | str, 1.5, "Expected `int | str`, got `float` - at `$.it`"),
    ],
    ids=str,
)
def test_a_misfit_says_what_and_where(kind: Any, value: Any, text: str) -> None:
    assert text in misfit(kind, value)


MEMBERS = st.sampled_from(["kind", "lives", "value", "content", "cents", "children", "a"])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner, max_size=4),
    max_leaves=8,
)


@given(ANY_JSON)
def test_what_is_taken_is_what_the_schema_says(value: Any) -> None:
    """Each kind agrees with an independent judge of its schema, in both directions."""
    for kind in (Cat | Dog, Tree, Money | None, list[Money] | str, dict[str, Tree], tuple[int, str], Box[int | None]):
        schema = schema_of(function_of(kind))
        fits = jsonschema.Draft202012Validator(schema).is_valid({"it": value})
        assert fits is not answered(function_of(kind), {"it": value}).is_error


def test_two_classes_of_one_name_are_two_definitions() -> None:
    def make(kind: Any) -> type:
        return attrs.make_class("Same", {"x": attrs.field(type=kind)})

    first, second = make(int), make(Path)

    def function(**given: Any) -> None: ...

    function.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind)
        for name, kind in (("a", first), ("b", second))
    ])
    definitions = schema_of(function)["$defs"]

    assert [each["properties"]["x"]["type"] for each in definitions.values()] == ["integer", "string"]


def test_keywords_that_a_typed_dict_lists_are_parameters() -> None:
    def feed(name: str, **more: Unpack[Cat]) -> Any:
        return [name, more]

    assert list(schema_of(feed)["properties"]) == ["name", "kind", "lives"]
    assert schema_of(feed)["required"] == ["name", "kind"]
    assert answered(feed, {"name": "Tom", "kind": "cat"}).output == ["Tom", {"kind": "cat"}]


# Fault 07: the Action -------------------------------------------------------------------------------------------------


def with_arguments(amount: int, action: Action) -> Any:
    return [action.id, amount]


def first_by_position(action: Action, /, amount: int = 1) -> Any:
    return [action.id, amount]


def optional(action: Action | None = None) -> Any:
    return [action and action.id, 1]


def noted(action: Annotated[Action, "as it came"]) -> Any:
    return [action.id, 1]


def by_keyword(*, action: "Action | None" = None, amount: int = 1) -> Any:
    return [action and action.id, amount]


@pytest.mark.parametrize("function", [with_arguments, first_by_position, optional, noted, by_keyword])
def test_the_action_is_given_and_no_model_can_forge_it(function: Callable[..., Any]) -> None:
    tools = Tools()
    tools.add(function)
    tool = tools.find([function.__name__])
    assert tool is not None

    assert asyncio.run(tool(Action("real-id", "x", {"amount": 1} if tool.signature else {}))).output == ["real-id", 1]
    assert "action" not in tools.schemas()[0].input_schema.get("properties", {})
    if tool.signature and tool.signature.fields.members:
        forged = asyncio.run(tool(Action("real-id", "x", {"amount": 1, "action": {"id": "FORGED", "name": "x"}})))
        assert forged.output == "the arguments do not fit: Object contains unknown field `action`"


def test_an_action_within_an_argument_is_refused() -> None:
    assert "an Action is no argument" in refusal(function_of(list[Action]))


# Fault 02: handlers of all actions ------------------------------------------------------------------------------------


def typed(slot: str) -> bool:
    return True


def two(action: Action, other: int) -> None: ...
def none() -> None: ...
def keyword(*, action: Action) -> None: ...
def lately(action: "Action") -> None: ...
def unknown(action: "not_here.Action") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def anything(it: Any) -> None: ...
def broad(it: object) -> None: ...
def starred(*given: Any) -> None: ...
def defaulted(action: Action | None = None, limit: int = 3) -> None: ...
def generic(it: T) -> T:
    return it


@pytest.mark.parametrize("function", [typed, two, none, keyword, partial(two, other=1, action=Action("1", "x"))])
def test_a_default_handler_that_does_not_take_one_action_is_refused_at_once(function: Any) -> None:
    for register in (Tools().default, Tools.of):
        with pytest.raises(ConfigurationError, match="it must take one argument, the Action, by position"):
            register(function)


def test_the_way_out_is_a_mapping() -> None:
    with pytest.raises(ConfigurationError, match=r"pass a mapping: `tools=\{'typed': typed\}`"):
        Tools.of(cast("Any", typed))


@pytest.mark.parametrize(
    "function",
    [noted, optional, lately, unknown, anything, broad, starred, defaulted, generic, print, partial(two, other=1)],
)
def test_a_default_handler_that_can_take_an_action_is_taken(function: Any) -> None:
    Tools().default(function)


# Fault 15: defaults ---------------------------------------------------------------------------------------------------


def test_a_default_of_none_makes_null_welcome() -> None:
    def find(
        name: str = None,  # type: ignore[assignment]  # noqa: RUF013
        limit: Annotated[int, "how many"] = None,  # type: ignore[assignment]  # noqa: RUF013
        node: Money = None,  # type: ignore[assignment]
    ) -> Any:
        return [name, limit, node]

    assert schema_of(find)["properties"] == {
        "name": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "how many", "default": None},
        "node": {"anyOf": [{"$ref": "#/$defs/Money"}, {"type": "null"}], "default": None},
    }
    assert answered(find, {"name": None, "limit": None, "node": None}).output == [None, None, None]
    assert taken(Doubled, {"times": 1, "name": None}).name is None


def test_a_secret_default_can_be_hidden() -> None:
    def send(text: str, api_key: str = "sesame") -> str:
        return text + api_key

    assert "sesame" not in str(schema_of(send, hidden=["api_key"]))
    assert answered(send, {"text": "a"}, hidden=["api_key"]).output == "asesame"
    assert "unknown field `api_key`" in answered(send, {"text": "a", "api_key": "x"}, hidden=["api_key"]).output
    assert "parameter 'text' of tool 'it' cannot be hidden" in refusal(send, hidden=["text"])
    assert "parameter 'key' of tool 'it' cannot be hidden" in refusal(send, hidden=["key"])
    assert "must be a list of names" in refusal(send, hidden="api_key")


# Fault 16: metadata ---------------------------------------------------------------------------------------------------


def test_texts_and_bounds_reach_the_schema_and_hold() -> None:
    annotated_types = pytest.importorskip("annotated_types")
    extensions = pytest.importorskip("typing_extensions")

    cases: list[tuple[Any, Any, Any, Any]] = [
        (Annotated[int, annotated_types.Ge(1), annotated_types.Lt(8)], {"minimum": 1, "exclusiveMaximum": 8}, 7, 8),
        (Annotated[int, annotated_types.Interval(gt=1, le=8)], {"exclusiveMinimum": 1, "maximum": 8}, 8, 1),
        (Annotated[int, annotated_types.MultipleOf(5)], {"multipleOf": 5}, 10, 7),
        (Annotated[str, annotated_types.Len(1, 3)], {"minLength": 1, "maxLength": 3}, "a", ""),
        (Annotated[list[int], annotated_types.Len(1, 3)], {"minItems": 1, "maxItems": 3}, [1], []),
        (Annotated[list[Path], annotated_types.MinLen(1)], {"minItems": 1}, ["a"], []),
        (Annotated[int | None, annotated_types.Ge(1)], {}, None, 0),
        (Annotated[int, annotated_types.Predicate(lambda number: number % 2)], {}, 3, 4),
        (Annotated[date, annotated_types.Ge(date(2026, 1, 1))], {}, "2026-01-01", "2025-12-31"),
        (Annotated[Decimal, annotated_types.Gt(Decimal(1))], {}, "1.5", "1.0"),
        (Annotated[timedelta, annotated_types.Le(timedelta(hours=1))], {}, "PT60M", "PT61M"),
        (Annotated[Colour, annotated_types.Predicate(lambda it: it is Colour.RED)], {}, "red", "blue"),
        (Annotated[str, extensions.Doc("where to")], {"description": "where to"}, "Oslo", 7),
        (Annotated[str, "to", msgspec.Meta(pattern="^O")], {"description": "to", "pattern": "^O"}, "O", "B"),
    ]
    for kind, members, fit, unfit in cases:
        assert members.items() <= property_of(kind).items()
        taken(kind, fit)
        misfit(kind, unfit)


@pytest.mark.parametrize(
    "kind",
    [
        Annotated[str, msgspec.Meta(ge=1)],
        Annotated[Money, msgspec.Meta(ge=1)],
        Annotated[Literal[1], msgspec.Meta(gt=1)],
        Annotated[tuple[int, int], msgspec.Meta(min_length=1)],
    ],
)
def test_a_bound_that_cannot_hold_is_refused(kind: Any) -> None:
    assert "parameter 'it' of tool 'it'" in refusal(function_of(kind))


def test_metadata_that_nobody_understands_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Marker:
        pass

    assert property_of(Annotated[int, Marker()]) == {"type": "integer"}
    assert "tool 'it': " in caplog.text
    assert "Marker in `Annotated` is not understood, and has no effect" in caplog.text


# pydantic -------------------------------------------------------------------------------------------------------------


def test_fields_of_pydantic_describe_and_bound_parameters() -> None:
    pydantic: Any = pytest.importorskip("pydantic")
    kind = Annotated[int, pydantic.Field(ge=1, le=7, description="how many days")]

    assert property_of(kind) == {"type": "integer", "minimum": 1, "maximum": 7, "description": "how many days"}
    assert misfit(kind, 99) == "Expected `int` <= 7 - at `$.it`"
    assert misfit(pydantic.PositiveInt, -5)
    assert misfit(pydantic.conint(ge=3), 2)
    assert misfit(Annotated[str, pydantic.Field(pattern="^a", max_length=3)], "b")
    assert property_of(int, pydantic.Field(3, ge=1)) == {"type": "integer", "minimum": 1, "default": 3}
    assert schema_of(function_of(int, pydantic.Field(ge=1)))["required"] == ["it"]


def test_a_field_as_default_hands_its_value_on() -> None:
    pydantic: Any = pytest.importorskip("pydantic")

    def function(a: int = pydantic.Field(3), b: list[int] = pydantic.Field(default_factory=lambda: [1])) -> Any:  # noqa: B008
        return [a, b]

    assert answered(function, {}).output == [3, [1]]
    assert answered(function, {"a": 4}).output == [4, [1]]


def test_types_that_pydantic_alone_knows_are_taken_by_it() -> None:
    pydantic: Any = pytest.importorskip("pydantic")
    even = Annotated[int, pydantic.AfterValidator(lambda number: number * 2)]

    assert taken(even, 4) == 8
    assert "Input should be a valid integer - at `$.it`" in misfit(even, "4")
    assert taken(even, "4", lenient=True) == 8
    assert taken(pydantic.SecretStr, "sesame").get_secret_value() == "sesame"
    assert property_of(pydantic.HttpUrl)["format"] == "uri"


def test_models_of_pydantic_are_parameters() -> None:
    pydantic: Any = pytest.importorskip("pydantic")

    class Inner(pydantic.BaseModel):  # type: ignore[misc]
        day: date
        hours: list[int] = []  # noqa: RUF012

    class Outer(pydantic.BaseModel):  # type: ignore[misc]
        inner: Inner
        name: str = pydantic.Field(min_length=2, description="whose")

    schema = schema_of(function_of(Outer))
    jsonschema.Draft202012Validator.check_schema(schema)

    assert schema["properties"]["it"]["properties"]["name"]["description"] == "whose"
    assert schema["properties"]["it"]["additionalProperties"] is False
    assert schema["$defs"]["Inner"]["additionalProperties"] is False
    assert taken(Outer, {"inner": {"day": "2026-06-02"}, "name": "Ann"}) == Outer(
        inner=Inner(day=date(2026, 6, 2)), name="Ann"
    )
    assert taken(list[Outer | None], [None]) == [None]
    assert misfit(Outer, {"inner": {"day": "2026-06-02", "dya": 1}, "name": "Ann"}) == (
        "Extra inputs are not permitted - at `$.it.inner.dya`"
    )
    assert misfit(Outer, {"inner": {}, "name": "A"}).count(" - at `") == 3
    assert taken(Outer, {"inner": {"day": "2026-06-02", "dya": 1}, "name": "Ann"}, lenient=True).name == "Ann"


def test_models_that_take_more_members_still_do() -> None:
    pydantic: Any = pytest.importorskip("pydantic")

    class Open(pydantic.BaseModel):  # type: ignore[misc]
        model_config = pydantic.ConfigDict(extra="allow")
        name: str

    assert taken(Open, {"name": "a", "more": 1}).more == 1
    assert property_of(Open)["additionalProperties"] is True


def test_a_model_beside_a_class_of_the_same_name_has_a_definition_of_its_own() -> None:
    pydantic: Any = pytest.importorskip("pydantic")
    inner = pydantic.create_model("Money", euros=(int, ...))
    outer = pydantic.create_model("Outer", money=(inner, ...))

    def function(a: Money, b: Any) -> None: ...

    function.__annotations__["b"] = outer
    schema = schema_of(function)

    assert list(schema["$defs"]["Money"]["properties"]) == ["cents"]
    assert schema["properties"]["b"]["properties"]["money"]["$ref"] == "#/$defs/Outer.Money"
    assert list(schema["$defs"]["Outer.Money"]["properties"]) == ["euros"]


# Fault 17: docstrings -------------------------------------------------------------------------------------------------


def described(text: str, *names: str) -> tuple[str, Mapping[str, str]]:
    pytest.importorskip("docstring_parser")
    return documentation(inspect.cleandoc(text), names, ["action"])


def test_a_docstring_loses_nothing() -> None:
    assert described("Args:\n        to: Recipient address.\n    ", "to")[1] == {"to": "Recipient address."}
    assert described("Move.\n\n    Parameters\n    ----------\n    x, y : int\n        Metres.\n    ", "x", "y") == (
        "Move.",
        {"x": "Metres.", "y": "Metres."},
    )
    assert described(
        "Send.\n\n    Args:\n        to: Who.\n    Keyword Args:\n        why: A reason.\n", "to", "why"
    ) == (
        "Send.",
        {"to": "Who.", "why": "A reason."},
    )
    text, about = described(
        "Query.\n\n    Args:\n        sql: The statement.\n        other: Else.\n        action: The action.\n\n"
        "    Returns:\n        The id to pass to `cancel`.\n\n    Note:\n        Ask before DELETE.\n",
        "sql",
    )
    assert text == (
        "Query.\n\nArgs:\n    other: Else.\n\nReturns:\n    The id to pass to `cancel`.\n\n"
        "Note:\n    Ask before DELETE."
    )
    assert about == {"sql": "The statement."}
    text, about = described(
        "Query.\n\n    :param sql: The statement.\n    :type sql: str\n    :raises X: Never.\n", "sql"
    )
    assert (text, about) == ("Query.\n\n:raises X: Never.", {"sql": "The statement."})
    text, about = described("Q.\n\nParameters\n----------\na : int\n    A.\n\nNotes\n-----\nSlow.\n", "a")
    assert (text, about) == ("Q.\n\nNotes\n-----\nSlow.", {"a": "A."})


WORDS = st.sampled_from(["alpha", "beta", "gamma", "delta", "omega"])


@given(st.lists(WORDS, min_size=1, max_size=4), st.lists(WORDS, min_size=1, max_size=4), st.booleans())
def test_each_word_of_a_docstring_reaches_the_model(first: list[str], second: list[str], google: bool) -> None:
    one, two = " ".join(first), " ".join(second)
    params = f"Args:\n    x: {one}\n" if google else f"Parameters\n----------\nx : int\n    {one}\n"
    rest = f"Warning:\n    {two}" if google else f"Warnings\n--------\n{two}"
    text, about = described(f"Summary.\n\n{params}\n{rest}", "x")

    assert about == {"x": one}
    assert two in text
    assert "Summary." in text


# Fault 18: what cannot be read ----------------------------------------------------------------------------------------


def test_final_is_the_type_within() -> None:
    def fixed(size: Final[int] = 3) -> None: ...  # type: ignore[valid-type]

    assert schema_of(fixed)["properties"] == {"size": {"type": "integer", "default": 3}}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type statements came with 3.12")
def test_aliases_and_type_parameters_are_read() -> None:
    space: dict[str, Any] = {"__name__": "there"}
    exec(
        "type Json = dict[str, Json] | list[Json] | str | int | None\n"
        "type Pair[T] = tuple[T, T]\n"
        "def store(value: Json): return value\n"
        "def both(value: Pair[int]): return value\n"
        "def bound[T: int](value: T) -> T: return value\n",
        space,
    )
    later: dict[str, Any] = {"__name__": "there"}
    exec("from __future__ import annotations\ndef same[T](value: T) -> T: return value\n", later)

    assert schema_of(space["store"])["properties"] == {"value": {"$ref": "#/$defs/Json"}}
    assert answered(space["store"], {"value": {"a": [1, None]}}).output == {"a": [1, None]}
    assert answered(space["store"], {"value": {"a": [1.5]}}).is_error
    assert answered(space["both"], {"value": [1, 2]}).output == [1, 2]
    assert schema_of(space["bound"])["properties"] == {"value": {"type": "integer"}}
    assert schema_of(later["same"])["properties"] == {"value": {}}


def test_a_class_that_grows_without_end_is_refused_by_its_parameter() -> None:
    assert "parameter 'it' of tool 'it'" in refusal(function_of(Endless[int]))


@attrs.frozen
class Endless(Generic[T]):
    inner: "Endless[list[T]] | None" = None


# Fault 22: what can never answer --------------------------------------------------------------------------------------


async def stream(q: str) -> AsyncIterator[str]:
    yield q


def lines(q: str) -> Iterator[str]:
    yield q


@contextlib.contextmanager
def opened(q: str) -> Iterator[str]:
    yield q


@contextlib.asynccontextmanager
async def opened_later(q: str) -> AsyncIterator[str]:
    yield q


class Generating:
    def __call__(self, q: str) -> Iterator[str]:
        yield q


@pytest.mark.parametrize("function", [stream, lines, partial(lines), Generating()])
def test_generators_are_refused(function: Any) -> None:
    assert "tool 'it' is a generator" in refusal(function)
    with pytest.raises(ConfigurationError, match="tool 'book' is a generator"):
        Tools.of({"book": function})


@pytest.mark.parametrize("function", [opened, opened_later])
def test_context_managers_are_refused(function: Any) -> None:
    assert "tool 'it' is a context manager" in refusal(function)


def test_none_in_a_mapping_is_refused() -> None:
    nothing: Any = {"book": None}
    with pytest.raises(ConfigurationError, match="None cannot be a handler"):
        Tools.of(nothing)


# Fault 23: a misfit is logged -----------------------------------------------------------------------------------------


def test_a_misfit_is_logged_by_tool_and_path_without_values(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "agentruns"):
        misfit(list[Money], [{"cents": "a secret"}])

    assert [each.getMessage() for each in caplog.records if each.name == "agentruns"] == [
        "the arguments of tool 'it' do not fit, at `$.it[0].cents`"
    ]


def test_a_lone_action_without_a_type_is_refused() -> None:
    async def approve(action):  # type: ignore[no-untyped-def]
        return True

    assert "parameter 'action' of tool 'it' has no type; write `action: Action`" in refusal(approve)


# Fault 24: unknown names at every level -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Filter, User, Cat, Packed])
def test_a_typo_is_refused_at_every_level(kind: Any) -> None:
    typo = {"staus": "old"}
    for outer, value in ((kind, typo), (list[kind], [typo]), (dict[str, Box[kind]], {"a": {"content": typo}})):
        assert "unknown field `staus`" in misfit(outer, value)
    definitions = schema_of(function_of(Box[kind]))["$defs"]
    assert [each["additionalProperties"] for each in definitions.values()] == [False, False]


# A lenient mode -------------------------------------------------------------------------------------------------------


def test_lenient_handlers_take_numbers_and_objects_as_text_and_drop_what_they_do_not_know() -> None:
    def book(days: int, price: float = 1.5, sure: bool = False, who: Filter = Filter(), ids: list[int] = []) -> Any:  # noqa: B006, B008
        return [days, price, sure, who.status, ids]

    sent = {"days": "3", "price": "2.5", "sure": "true", "who": '{"status": "x", "y": 1}', "ids": '["1", 2]', "z": 0}
    for options in ({"lenient": True}, {}):
        tools = Tools(lenient=not options)
        tools.add(book, lenient=options.get("lenient"))
        tool = tools.find(["book"])
        assert tool is not None
        assert asyncio.run(tool(Action("1", "book", sent))).output == [3, 2.5, True, "x", [1, 2]]
        assert asyncio.run(tool(Action("1", "book", {"days": 1, "price": None}))).output[1] == 1.5
        assert asyncio.run(tool(Action("1", "book", {"days": "many"}))).is_error
        half = asyncio.run(tool(Action("1", "book", {"days": 1, "who": r'{"status": "cut \ud83d"}'})))
        assert half.output[3] == "cut \ufffd"
    assert answered(book, sent).is_error
    tools = Tools(lenient=True)
    tools.add(book, lenient=False)
    strict = tools.find(["book"])
    assert strict is not None
    assert asyncio.run(strict(Action("1", "book", sent))).is_error
    assert taken(str, "7", lenient=True) == "7"
    assert taken(int | str, "7", lenient=True) == "7"
    with pytest.raises(ConfigurationError, match="lenient is 'yes'"):
        Tools(lenient="yes")  # type: ignore[arg-type]


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a b", "a\nb", "läuft", "a.b", "a" * 65, "工具"])
def test_names_that_hosts_do_not_take_are_refused_where_models_are_told_of_them(name: str) -> None:
    def typed_one(a: int) -> None: ...

    with pytest.raises(ConfigurationError, match="1 to 64 of the letters"):
        Tools().add(typed_one, name=name)
    tools = Tools.of({name: noted})  # a vendor's own action may have any name
    with pytest.raises(ConfigurationError, match="1 to 64 of the letters"):
        tools.schemas()
    Tools().add(typed_one, name="a" * 64)
