"""Server-sent events are cut out of bytes, however those are cut into pieces."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentruns._api import sse
from agentruns._api.sse import EventParser, RawEvent, TooLongError


def parsed(*pieces: bytes) -> list[RawEvent]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (b"event: A\ndata: 1\n\n", [RawEvent("A", "1")]),
        (b"data:1\r\n\r\ndata: 2\r\rdata: 3\n\n", [RawEvent("", "1"), RawEvent("", "2"), RawEvent("", "3")]),
        (b"data: one\ndata: two\ndata:  three\n\n", [RawEvent("", "one\ntwo\n three")]),
        (b": keep-alive\n\nevent: B\n\ndata\n\n", [RawEvent("", "")]),
        (b"id: 7\ndata: a\n\ndata: b\n\n", [RawEvent("", "a", "7"), RawEvent("", "b", "7")]),
        (b"id: 7\x00\nretry: 9\nunknown: x\ndata: a\n\n", [RawEvent("", "a")]),
        (b"data: half", []),
        (b"data: half\n", []),
        (b"event: A\ndata: \xff\n\n", [RawEvent("A", "\N{REPLACEMENT CHARACTER}")]),
    ],
)
def test_events_are_read_as_the_standard_has_them(text: bytes, events: list[RawEvent]) -> None:
    assert parsed(text) == events
    assert parsed(*(bytes([each]) for each in text)) == events


LINES = st.lists(
    st.sampled_from([b"event: A", b"event:B", b"data: x", b"data", b"data: \xc3\xa4", b": c", b"", b"", b"id: 1", b"z"])
)


@given(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(1, 9)))
@example([b"data: x", b"", b"data: y", b""], b"\r\n", [8])
def test_how_the_bytes_are_cut_changes_nothing(lines: list[bytes], end: bytes, sizes: list[int]) -> None:
    text = b"".join(line + end for line in lines) + b": the end" + end
    pieces, left = [], text
    for size in sizes:
        pieces.append(left[:size])
        left = left[size:]

    assert parsed(*pieces, left) == parsed(text)


def test_an_event_that_never_ends_is_refused_and_many_short_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MOST_BYTES", 100)

    assert len(parsed(*[b"data: " + b"x" * 40 + b"\n\n"] * 9)) == 9
    with pytest.raises(TooLongError):
        parsed(b"data: ", b"x" * 95)
