"""What handlers return, as it is posted: whatever json.dumps or pydantic would write, and nothing dropped."""

import asyncio
import collections
import dataclasses
import enum
import ipaddress
import json
import math
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentruns import Action, ConfigurationError, ToolError, ToolOutput, Tools
from agentruns._handlers import outputs
from agentruns._values.jsonable import Writer, mended, to_jsonable


class Text(str):
    __slots__ = ()


class Number(float):
    pass


class Count(int):
    pass


class Stamp(datetime):
    pass


class Day(date):
    pass


class Span(timedelta):
    pass


class Errors(collections.UserList[Any], list[Any]):  # type: ignore[misc]
    """Keep the items elsewhere than in the list, as Django's ErrorList does."""


class Bag(collections.UserDict[str, Any], dict[str, Any]):  # type: ignore[misc]
    pass


class Colour(enum.Enum):
    RED = Text("red")


class Weight(float, enum.Enum):
    LIGHT = 0.5


@attrs.define
class Row:
    id: int
    _score: int = 0
    late: int = attrs.field(init=False)


@dataclasses.dataclass
class Point:
    x: Number
    _y: int = 0


class Pair(NamedTuple):
    a: Text
    b: int


class Packed(msgspec.Struct, tag="packed", rename="camel"):
    some_text: Text
    when: Stamp


def answered(function: Callable[..., Any], **arguments: Any) -> ToolOutput:
    tools = Tools()
    tools.add(function, name="it")
    tool = tools.find(["it"])
    assert tool is not None
    return asyncio.run(tool(Action("1", "it", arguments)))


def returned(value: Any) -> Any:
    async def handler() -> Any:
        return value

    return answered(handler).output


def generated() -> Iterator[Any]:
    yield Text("a")
    yield 2


# Fault 13: everyday outputs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Text("hi"), "hi"),
        (Number(1.5), 1.5),
        (Count(3), 3),
        ({"title": Text("hi"), Text("k"): 1}, {"title": "hi", "k": 1}),
        ([Number(0.5)], [0.5]),
        (Stamp(2024, 1, 1, 12, 30, 0, 5, UTC), "2024-01-01T12:30:00.000005Z"),
        (Stamp(2024, 1, 1), "2024-01-01T00:00:00"),
        (Day(2024, 1, 2), "2024-01-02"),
        (Span(seconds=90), "PT90S"),
        (time(8, 15), "08:15:00"),
        ({True: 1, None: 2, 3: 4, 0.5: 5}, {"true": 1, "null": 2, "3": 4, "0.5": 5}),
        ({date(2024, 1, 2): 1, UUID(int=1): 2, Colour.RED: 3, Path("a"): 4}, {
            "2024-01-02": 1, "00000000-0000-0000-0000-000000000001": 2, "red": 3, "a": 4,
        }),
        (range(3), [0, 1, 2]),
        (collections.deque([1, 2]), [1, 2]),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.values(), [1]),
        ({"a": 1}.items(), [["a", 1]]),
        (generated(), ["a", 2]),
        ({"inside": generated()}, {"inside": ["a", 2]}),
        (Path("/tmp/x"), "/tmp/x"),
        (PurePosixPath("x"), "x"),
        (Decimal("1.50"), "1.50"),
        (Fraction(1, 3), "1/3"),
        (ipaddress.ip_address("10.0.0.1"), "10.0.0.1"),
        (re.compile("a+"), "a+"),
        (Colour.RED, "red"),
        (Weight.LIGHT, 0.5),
        (bytearray(b"abc"), "YWJj"),
        (memoryview(b"abc"), "YWJj"),
        (collections.UserString("ab"), "ab"),
        (Pair(Text("x"), 1), ["x", 1]),
        (Point(Number(0.5)), {"x": 0.5, "_y": 0}),
        (Packed(Text("a"), Stamp(2024, 1, 1)), {"type": "packed", "someText": "a", "when": "2024-01-01T00:00:00"}),
        (MappingProxyType({"a": {1}}), {"a": [1]}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.ChainMap({"a": 1}, {"b": 2}), {"b": 2, "a": 1}),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_json_dumps_or_pydantic_would_write_is_written(value: Any, written: Any) -> None:
    seen = returned(value)

    assert seen == written
    assert json.dumps(seen) == json.dumps(written)
    assert json.loads(json.dumps(seen)) == seen


def test_numbers_and_arrays_of_numpy_are_written() -> None:
    np = pytest.importorskip("numpy")

    values = {
        "whole": np.int64(3),
        "half": np.float32(0.5),
        "yes": np.bool_(True),
        "text": np.str_("a"),
        "array": np.array([[1, 2], [3, 4]]),
        "day": np.datetime64("2024-01-02"),
        "moment": np.datetime64("2024-01-02T03:04:05.000006789"),
        np.int64(7): np.timedelta64(90_000_000_000, "ns"),
    }

    assert returned(values) == {
        "whole": 3,
        "half": 0.5,
        "yes": True,
        "text": "a",
        "array": [[1, 2], [3, 4]],
        "day": "2024-01-02T00:00:00",
        "moment": "2024-01-02T03:04:05.000006789",
        "7": "PT90S",
    }
    for odd in (np.float64("nan"), np.array([np.inf]), np.complex128(1j), np.longdouble(1), np.timedelta64(1, "ns")):
        with pytest.raises(ConfigurationError, match="is not something that JSON can carry"):
            returned(odd)


def test_values_of_pandas_are_written() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1, 2], "at": pd.to_datetime(["2024-01-02", "2024-01-03"])})

    assert returned(frame["a"].mean()) == 1.5
    assert returned(frame["a"]) == [1, 2]
    assert returned(frame.to_dict("records"))[0] == {"a": 1, "at": "2024-01-02T00:00:00"}
    for odd in (frame, pd.NaT):
        with pytest.raises(ConfigurationError, match="is not something that JSON can carry"):
            returned(odd)


def test_models_of_pydantic_are_written_as_pydantic_does() -> None:
    pydantic: Any = pytest.importorskip("pydantic")

    class Person(pydantic.BaseModel):  # type: ignore[misc]
        name: str
        born: date
        secret: Any = pydantic.SecretStr("sesame")

    class Names(pydantic.RootModel[list[str]]):  # type: ignore[misc]
        pass

    person = Person(name="Ann", born=date(2000, 1, 2))

    assert returned([person]) == [{"name": "Ann", "born": "2000-01-02", "secret": "**********"}]
    assert returned(Names(["a"])) == ["a"]


# Fault 14: nothing is dropped -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Errors(["too long", "missing"]), ["too long", "missing"]),
        (Bag(a=1), {"a": 1}),
        (Row(1, 9), {"id": 1, "_score": 9}),
    ],
)
def test_items_that_a_subclass_keeps_elsewhere_and_private_fields_are_written(value: Any, written: Any) -> None:
    assert returned(value) == written


@pytest.mark.parametrize("value", [{1: "int", "1": "text"}, {True: 1, "true": 2}, {None: 1, "null": 2}])
def test_keys_that_would_be_spelled_alike_are_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"two keys of an object are both spelled '(1|true|null)'"):
        returned(value)


def repr_of(value: Any) -> str:
    return type(value).__name__


@pytest.mark.parametrize(
    "value", [object(), print, 1j, ValueError("x"), iter([1]), open, dict, math.nan, 10**5000], ids=repr_of
)
def test_what_has_no_form_in_json_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^the output of tool 'it' is not something that JSON can carry"):
        returned([value])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_plain_json_is_written_as_it_is(value: Any) -> None:
    assert Writer(mend=True).write(value, "it") == value
    assert json.dumps(to_jsonable(value, "it")) == json.dumps(value)


# Fault 08: a ToolOutput that is returned ------------------------------------------------------------------------------


def test_a_tool_output_that_is_returned_is_the_answer() -> None:
    other = Action("other", "x")

    async def guard(action: Action) -> ToolOutput:
        return ToolOutput(other, Text("not allowed"), is_error=True)

    assert answered(guard) == ToolOutput(Action("1", "it"), "not allowed", is_error=True)


# Fault 04: text that UTF-8 cannot carry -------------------------------------------------------------------------------


def test_text_that_utf_8_cannot_carry_is_mended() -> None:
    async def fail() -> None:
        raise ToolError("no such file: caf\udce9.txt")

    assert answered(fail).output == "no such file: caf?.txt"
    assert returned({"caf\udce9": ["\ud800", Path("caf\udce9.txt")]}) == {"caf?": ["?", "caf?.txt"]}
    with pytest.raises(ConfigurationError, match="two keys of an object are both spelled 'caf\\?'"):
        returned(dict([("caf\udce9", 1), ("caf\udce8", 2)]))  # noqa: C406


@given(st.text(st.characters(codec=None, categories=["L", "Cs", "N"])))
def test_mended_text_can_be_carried_and_what_can_be_is_not_touched(text: str) -> None:
    mended(text).encode()
    assert (mended(text) == text) is not any("\ud800" <= letter <= "\udfff" for letter in text)


# Large outputs --------------------------------------------------------------------------------------------------------


def test_a_large_output_is_written_in_a_thread_and_a_small_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    class Watched(Writer):
        def write(self, *given: Any) -> Any:
            seen.append(threading.current_thread() is threading.main_thread())
            return super().write(*given)

    monkeypatch.setattr(outputs, "Writer", Watched)
    large = [{"number": number} for number in range(10_000)]

    assert returned(large) == large
    assert seen == [True, False]
    seen.clear()
    assert returned(large[:100]) == large[:100]
    assert seen == [True]


def test_a_generator_within_a_large_output_is_not_lost() -> None:
    assert returned({"first": generated(), "rest": list(range(10_000))})["first"] == ["a", 2]


def test_a_large_output_that_cannot_be_written_is_refused_as_a_small_one() -> None:
    with pytest.raises(ConfigurationError, match=r"^the output of tool 'it' is not something that JSON can carry"):
        returned([*range(10_000), object()])
