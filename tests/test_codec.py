"""JSON text and typed values: nothing is coerced, every misfit is named with its path."""

from __future__ import annotations

import contextlib
import enum
import json
import math
import tracemalloc
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, Final
from uuid import UUID

import attrs
import pytest
from attrs import evolve, field, fields, frozen
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentruns import RunStatus
from agentruns._values import codec
from agentruns._values.codec import CodecError
from agentruns.dialects.narrative import ContentBlock, NarrativeRun
from agentruns.errors import ConfigurationError
from tests.scripted_wire import run_body

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4))
)


@frozen
class Part:
    size: int
    note: str | None = None
    parts: tuple[Part, ...] = ()
    inner: Part | None = None


@frozen
class Thing:
    text: str = ""
    flag: bool = False
    whole: int = 0
    number: float = 0.0
    texts: tuple[str, ...] = ()
    moment: datetime | None = None
    free: Mapping[str, Any] = field(factory=dict)
    anything: Any = None
    part: Part | None = None
    parts: tuple[Part, ...] = ()
    rows: tuple[tuple[int, ...], ...] = ()
    holes: tuple[str | None, ...] = ()
    maybe_texts: tuple[str, ...] | None = None
    maybe_free: Mapping[str, Any] | None = None


def misfit(value: Any, cls: type[Any] = Thing) -> str:
    with pytest.raises(CodecError) as caught:
        codec.structure(value, cls)
    return str(caught.value)


# Text -----------------------------------------------------------------------------------------------------------------


@given(values)
@example(2**64)
@example(-(2**63) - 1)
@example(-0.0)
def test_what_is_encoded_decodes_to_itself(value: Any) -> None:
    text = codec.encode(value)
    back = codec.decode(text)

    assert back == value
    assert json.dumps(back) == json.dumps(value)  # which tells 1 from 1.0 and True
    assert codec.decode(text.decode()) == value


@given(values)
def test_decoding_agrees_with_the_standard_library(value: Any) -> None:
    text = json.dumps(value)

    assert codec.decode(text) == json.loads(text)


def test_an_empty_body_is_none() -> None:
    assert codec.decode(b"") is None
    assert codec.decode("") is None


def test_of_a_key_that_comes_twice_the_last_one_holds() -> None:
    assert codec.decode(b'{"a": 1, "a": 2}') == {"a": 2}


def test_a_byte_order_mark_before_utf_8_is_no_part_of_the_json() -> None:
    assert codec.decode(b"\xef\xbb\xbf{}") == {}


def test_half_of_a_pair_of_surrogates_is_named() -> None:
    with pytest.raises(codec.CodecError, match=r"^\\ud800 alone is no character$"):
        codec.decode(rb'{"a": "\ud800"}')
    assert codec.decode(rb'{"a": "\ud83d\ude00"}') == {"a": "\U0001f600"}


@given(st.text(st.sampled_from('\ud83d\ude00\ud800\udfff\\"ud8\nä\U0001f600')))
@example("\\ud83d")
@example("\ud83d\ud83d\ude00")
def test_half_of_a_pair_of_surrogates_that_a_server_sent_is_a_replacement_character(text: str) -> None:
    """A vendor that cuts a text within an emoji cannot make the run unreadable in which it stands."""
    sent = json.dumps({"cut": text, "rest": [1]}).encode()
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    for body in (sent, sent.decode()):
        assert codec.decode(body, received=True) == {"cut": whole, "rest": [1]}
    with pytest.raises(CodecError):
        codec.decode(sent[:-1], received=True)


@pytest.mark.parametrize(
    "body",
    [
        b" ",
        b"{",
        b"{} {}",
        b"[1,]",
        b"{'a': 1}",
        b"NaN",
        b"[Infinity]",
        b"1e999",
        b"01",
        b"\x00",
        b'"\x01"',
        b"\xff",
        b'"\xff"',
        b'"\\ud800"',
        '"\ud800"',
        "\ufeff{}",
        b"9" * 5_000,
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b"<html></html>",
    ],
)
def test_what_is_not_json_is_a_codec_error(body: bytes | str) -> None:
    with pytest.raises(CodecError, match=r"\w"):
        codec.decode(body)


@given(st.one_of(st.binary(), st.text(st.characters())))
def test_decoding_raises_nothing_else(body: bytes | str) -> None:
    with contextlib.suppress(CodecError):
        codec.decode(body)


# Structuring ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("text", 7, "expected string, got integer"),
        ("text", ["a"], "expected string, got array"),
        ("flag", "false", "expected boolean, got string"),
        ("flag", 0, "expected boolean, got integer"),
        ("whole", "7", "expected integer, got string"),
        ("whole", 3.9, "expected integer, got number"),
        ("whole", 3.0000001, "expected integer, got number"),
        ("whole", True, "expected integer, got boolean"),
        ("number", "1.5", "expected number, got string"),
        ("number", True, "expected number, got boolean"),
        ("number", {}, "expected number, got object"),
        ("texts", "abc", "expected array, got string"),
        ("texts", {"a": "b"}, "expected array, got object"),
        ("free", [], "expected object, got array"),
        ("moment", 1780000000, "expected date-time, got integer"),
        ("moment", "yesterday", "expected date-time, got 'yesterday'"),
        ("moment", "x" * 900, f"expected date-time, got '{'x' * 40}'"),
        ("moment", "2026-06-02T08:15:60Z", "expected date-time, got '2026-06-02T08:15:60Z'"),
        ("part", [], "expected object, got array"),
        ("part", "x", "expected object, got string"),
        ("maybe_texts", "abc", "expected array, got string"),
        ("maybe_free", 3, "expected object, got integer"),
    ],
)
def test_no_value_is_made_to_fit(name: str, value: Any, reason: str) -> None:
    assert misfit({name: value}) == f"{reason} @ $.{name}"


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        *((kind, "urgent", "expected array, got string") for kind in (list[str], set[str], Sequence[str], list, tuple)),
        *((kind, {"a": 1}, "expected array, got object") for kind in (list[str], deque[str], tuple[str, ...])),
        (tuple[str, str], "ab", "expected array, got string"),
        (tuple[str, str], ["a"], "expected array of 2, got one of 1"),
        *((kind, [], "expected object, got array") for kind in (dict, dict[str, int], Mapping[str, int])),
        (dict, [["a", 1]], "expected object, got array"),
        (int | str, [], "expected one of int, str, got array"),
        (UUID, 7, "expected UUID as string, got integer"),
    ],
)
def test_no_list_or_object_is_taken_apart(kind: Any, value: Any, reason: str) -> None:
    with pytest.raises(codec.CodecError) as caught:
        codec.structure({"field": value}, attrs.make_class("Own", {"field": attrs.field(type=kind)}))

    assert str(caught.value) == f"{reason} @ $.field"


@pytest.mark.parametrize(
    ("kind", "value", "taken"),
    [
        (list[str], ["a"], ["a"]),
        (set[int], [1, 1], {1}),
        (deque[int], [1], deque([1])),
        (Sequence[str], ["a"], ("a",)),
        (tuple[str, int], ["a", 1], ("a", 1)),
        (tuple[()], [], ()),
        (dict[str, list[int]], {"a": [1]}, {"a": [1]}),
        (Mapping[str, Part], {"a": {"size": 1}}, {"a": Part(1)}),
    ],
)
def test_lists_and_objects_become_what_their_types_say(kind: Any, value: Any, taken: Any) -> None:
    own: Any = codec.structure({"field": value}, attrs.make_class("Own", {"field": attrs.field(type=kind)}))

    assert own.field == taken
    assert type(own.field) is type(taken)


def test_the_path_of_a_misfit_leads_through_the_names_of_an_object() -> None:
    with pytest.raises(codec.CodecError, match=r"expected integer, got string @ \$.field\['b'\]\[1\]"):
        codec.structure(
            {"field": {"a": [], "b": [1, "x"]}},
            attrs.make_class("Own", {"field": attrs.field(type=dict[str, list[int]])}),
        )


def test_a_type_that_no_json_becomes_is_a_fault_of_its_class() -> None:
    with pytest.raises(ConfigurationError, match="Own cannot be read from JSON: nothing is known of the type complex"):
        codec.structure({"field": 1}, attrs.make_class("Own", {"field": attrs.field(type=complex)}))


def test_a_whole_number_is_an_integer_however_it_is_written() -> None:
    whole = codec.structure({"whole": 4213.0}, Thing).whole

    assert (whole, type(whole)) == (4213, int)


DEFAULTED: Final = tuple(each.name for each in fields(Thing))


@given(st.sets(st.sampled_from(DEFAULTED)))
def test_null_is_as_absent_wherever_there_is_a_default(null: set[str]) -> None:
    assert codec.structure(dict.fromkeys(null), Thing) == Thing()


def test_null_is_not_as_absent_where_a_value_is_required() -> None:
    assert misfit({"size": None}, Part) == "expected integer, got null @ $.size"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"parts": [{"size": 1}, {"size": "2"}]}, "expected integer, got string @ $.parts[1].size"),
        ({"parts": [{"size": 1}, {}]}, "required field missing @ $.parts[1].size"),
        ({"parts": [{"size": 1}, 5]}, "expected object, got integer @ $.parts[1]"),
        ({"part": {"size": 1, "note": 5}}, "expected string, got integer @ $.part.note"),
        ({"rows": [[1], [2, "3"]]}, "expected integer, got string @ $.rows[1][1]"),
        ({"holes": [None, "a", 1]}, "expected string, got integer @ $.holes[2]"),
        ({"maybe_texts": ["a", None]}, "expected string, got null @ $.maybe_texts[1]"),
        (
            {"part": {"size": 1, "inner": {"size": 2, "parts": [{"size": None}]}}},
            "expected integer, got null @ $.part.inner.parts[0].size",
        ),
        ([], "expected object, got array @ $"),
        (None, "expected object, got null @ $"),
        ("text", "expected object, got string @ $"),
    ],
)
def test_the_path_leads_through_lists_and_optional_fields(value: Any, text: str) -> None:
    assert misfit(value) == text


def test_every_misfit_is_listed() -> None:
    reasons = misfit({"text": 1, "parts": [{}, {"size": 1.5}]}).split("; ")

    assert sorted(reasons) == [
        "expected integer, got number @ $.parts[1].size",
        "expected string, got integer @ $.text",
        "required field missing @ $.parts[0].size",
    ]


def test_what_python_has_and_json_has_not_is_named_by_its_class() -> None:
    assert misfit({"text": b"x"}) == "expected string, got bytes @ $.text"


def test_fields_that_nobody_knows_are_ignored() -> None:
    assert codec.structure({"text": "a", "new": {"b": 1}, "part": {"size": 1, "new": 2}}, Thing) == Thing(
        "a", part=Part(1)
    )


def test_lists_become_tuples_and_free_objects_stay_as_they_are() -> None:
    free = {"deep": [{"a": None}], "7": 7}
    thing = codec.structure(
        {"texts": ["a"], "free": free, "anything": [free], "maybe_free": free, "number": 1, "rows": [[], [1]]}, Thing
    )

    assert thing == Thing(
        texts=("a",), free=free, anything=[free], maybe_free=free, number=1, rows=((), (1,)), maybe_texts=None
    )
    assert thing.free is free


def test_a_class_may_contain_itself() -> None:
    value = {"size": 1, "parts": [{"size": 2, "inner": {"size": 3, "note": "deep"}}]}

    assert codec.structure(value, Part) == Part(1, parts=(Part(2, inner=Part(3, "deep")),))


@frozen
class Camel(codec.CamelCase):
    lead_count: int
    from_: str | None = None
    sub_lead: Camel | None = None


def test_a_class_may_spell_its_json_in_camel_case_in_errors_too() -> None:
    value = {"leadCount": 1, "from": "a", "subLead": {"leadCount": 2, "lead_count": "ignored"}}

    assert codec.structure(value, Camel) == Camel(1, "a", Camel(2))
    assert misfit({"leadCount": 1, "subLead": {"leadCount": "2"}}, Camel) == (
        "expected integer, got string @ $.subLead.leadCount"
    )
    assert misfit({"lead_count": 1}, Camel) == "required field missing @ $.leadCount"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-06-02T08:15:04Z", datetime(2026, 6, 2, 8, 15, 4, tzinfo=UTC)),
        ("2026-06-02T08:15:04.1Z", datetime(2026, 6, 2, 8, 15, 4, 100_000, tzinfo=UTC)),
        ("2026-06-02T08:15:04.120331Z", datetime(2026, 6, 2, 8, 15, 4, 120_331, tzinfo=UTC)),
        ("2026-06-02T08:15:04.123456789Z", datetime(2026, 6, 2, 8, 15, 4, 123_456, tzinfo=UTC)),
        ("2026-06-02T08:15:04+02:00", datetime(2026, 6, 2, 6, 15, 4, tzinfo=UTC)),
        ("2026-06-02T08:15:04.5-05:30", datetime(2026, 6, 2, 13, 45, 4, 500_000, tzinfo=UTC)),
        ("2026-06-02T08:15:04", datetime(2026, 6, 2, 8, 15, 4, tzinfo=UTC)),
        ("2026-06-02", datetime(2026, 6, 2, tzinfo=UTC)),
    ],
)
def test_times_are_read_with_any_fraction_and_are_utc_unless_they_say_otherwise(text: str, moment: datetime) -> None:
    read = codec.structure({"moment": text}, Thing).moment

    assert read == moment
    assert read is not None
    assert read.tzinfo is not None


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5, minutes=-30))])))
def test_a_moment_that_is_written_reads_back_as_the_same(moment: datetime) -> None:
    text = codec.unstructure(Thing(moment=moment))["moment"]

    assert codec.structure({"moment": text}, Thing).moment == moment
    assert text.endswith("Z") == (moment.tzinfo is UTC)


def test_an_attrs_value_unstructures_into_plain_json() -> None:
    thing = Thing("a", part=Part(1, parts=(Part(2),)), moment=datetime(2026, 6, 2, tzinfo=UTC))
    plain = codec.unstructure(thing)

    assert plain["moment"] == "2026-06-02T00:00:00Z"
    assert codec.structure(codec.decode(codec.encode(plain)), Thing) == thing


@pytest.mark.parametrize("depth", [100, 400, 1_000, 5_000])
def test_depth_alone_raises_nothing_but_a_codec_error(depth: int) -> None:
    value: dict[str, Any] = {"type": "text"}
    for _ in range(depth):
        value = {"type": "text", "content_blocks": [value]}

    try:
        block = codec.structure(value, ContentBlock)
    except CodecError as error:
        refused = str(error)
    else:
        refused = ""
        for _ in range(depth):
            (block,) = block.content_blocks
        assert block == ContentBlock("text")
    assert not refused or (depth > 100 and "recursion" in refused)


@given(values)
@settings(deadline=None)
def test_whatever_arrives_instead_of_a_run_is_a_codec_error(value: Any) -> None:
    with pytest.raises(CodecError, match=r"@ \$"):
        codec.structure(value, NarrativeRun)


FIELDS = sorted(run_body("failed"))


@given(
    status=st.sampled_from(["pending", "requires_action", "failed"]),
    changes=st.dictionaries(st.sampled_from(FIELDS), values, max_size=3),
    gone=st.sets(st.sampled_from(FIELDS), max_size=2),
)
@settings(deadline=None)
def test_a_run_with_fields_of_any_shape_is_read_or_is_a_codec_error_that_names_them(
    status: str, changes: dict[str, Any], gone: set[str]
) -> None:
    body = {name: value for name, value in (run_body(status) | changes).items() if name not in gone}

    try:
        refused, seen = "", codec.structure(body, NarrativeRun)
    except CodecError as error:
        refused, seen = str(error), None

    assert seen is None or seen.id == body["id"]
    assert not refused or any(f"$.{name}" in refused for name in {*changes, *gone})


# Plain values ---------------------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@frozen
class Line:
    no: int
    lines: tuple[Line, ...] = ()


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Line(1, (Line(2),)), {"no": 1, "lines": [{"no": 2, "lines": []}]}),
        ([datetime(2026, 6, 2, tzinfo=UTC)], ["2026-06-02T00:00:00Z"]),
        (date(2026, 6, 2), "2026-06-02"),
        (Colour.RED, "red"),
        (RunStatus.FAILED, "failed"),
        ({Colour.RED: Level.HIGH}, {"red": 3}),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.50"), "1.50"),
        ((1, (2,)), [1, [2]]),
        ({1}, [1]),
        (frozenset({"a"}), ["a"]),
        ({1: "a", 1.5: "b"}, {"1": "a", "1.5": "b"}),
        (b"abc", "YWJj"),
        (2**70, 2**70),
        ({None: 1, True: 2}, {"null": 1, "true": 2}),
        (PurePosixPath("a"), "a"),
        (range(3), [0, 1, 2]),
    ],
)
def test_values_become_what_their_reader_will_see(value: Any, plain: Any) -> None:
    seen = codec.to_jsonable(value, "it")

    assert seen == plain
    assert codec.decode(codec.encode(seen)) == seen


@given(values)
def test_plain_json_stays_as_it_is(value: Any) -> None:
    assert json.dumps(codec.to_jsonable(value, "it")) == json.dumps(value)


def _cycle() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def _cyclic_object() -> dict[str, Any]:
    it: dict[str, Any] = {}
    it["it"] = [it]
    return it


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        [math.inf],
        {"a": -math.inf},
        Part(1, note="\ud800"),
        "\ud800",
        {"\ud800": 1},
        object(),
        [object()],
        {object()},
        {(1, 2): 3},
        {1: "int", "1": "text"},
        iter([1]),
        ValueError("x"),
        print,
        10**5_000,
        _cycle(),
        _cyclic_object(),
        _deep(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_carry_is_refused_by_name_with_the_remedy(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^the output of x is not something that JSON can carry .* Use dicts"):
        codec.to_jsonable(value, "the output of x")


def test_structuring_does_not_touch_what_it_was_given() -> None:
    body = run_body("requires_action")
    before = json.dumps(body)
    seen = codec.structure(body, NarrativeRun)

    assert json.dumps(body) == before
    assert evolve(seen) == seen


@pytest.mark.parametrize("bomb", [b'{"a":[' + b"[]," * 700_000 + b"0]}", b"[" + b"{}," * 700_000 + b"0]"])
def test_an_answer_of_brackets_is_refused_before_it_takes_many_times_its_size(bomb: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match="more than 500000 lists and objects"):
            codec.decode(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(bomb)


# A glance -------------------------------------------------------------------------------------------------------------


@frozen
class Seen:
    text: str
    count: int | None = None
    moment: datetime | None = None
    texts: tuple[str, ...] = ()
    part: Part = Part(0)
    anything: Any = None


seen_fields = {
    "text": st.text(),
    "count": st.integers(-(2**63), 2**63),
    "moment": st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    "texts": st.lists(st.text(), max_size=2),
    "part": st.just({"size": 1, "more": [1.5]}),
    "anything": values,
}


@given(
    st.fixed_dictionaries({}, optional=seen_fields).map(lambda told: {"text": "", **told}),
    st.dictionaries(st.text(), values, max_size=2),
)
def test_a_glance_finds_what_stands_in_the_whole(told: dict[str, Any], more: dict[str, Any]) -> None:
    body = json.dumps({**more, **told}).encode()
    with contextlib.suppress(CodecError):  # surrogates, and integers beyond all bounds
        assert codec.glance(body, Seen) == codec.structure(codec.decode(body), Seen)


@given(st.sampled_from(sorted(seen_fields)), values)
def test_a_glance_takes_nothing_that_is_refused_in_the_whole(name: str, value: Any) -> None:
    body = json.dumps({"text": "", name: value}).encode()
    seen = codec.glance(body, Seen)
    if seen is not None:
        assert seen == codec.structure(codec.decode(body), Seen)


def test_a_glance_reads_camel_case() -> None:
    seen = codec.glance(b'{"leadCount": 1, "from": "a", "lead_count": 2}', Camel)
    assert seen is not None
    assert (seen.lead_count, seen.from_, seen.sub_lead) == (1, "a", None)
    assert codec.glance(b'{"lead_count": 1}', Camel) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"text":1}', b'{"text":"a"', b'{"text":"a","x":"\xff"}'])
def test_a_glance_at_what_does_not_fit_finds_nothing(body: bytes) -> None:
    assert codec.glance(body, Seen) is None
