"""Server-sent events, read as they come: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from __future__ import annotations

from typing import Final

from attrs import frozen

MOST_BYTES: Final = 16 * 2**20
"""How long one event may be: a server that never ends one shall not fill the memory."""


class TooLongError(ValueError):
    """Say that one event is longer than any is expected to be."""


@frozen
class RawEvent:
    """One event as the server wrote it: its name, empty where it has none, and the lines of its data."""

    name: str
    data: str
    id: str | None = None


class EventParser:
    """
    Cut bytes into events, however they are cut into pieces.

    A comment is nothing, and so is an event without data. The last event counts only if an empty line has ended it.
    """

    def __init__(self) -> None:
        self._left = b""
        self._size = 0
        self._name = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, piece: bytes) -> list[RawEvent]:
        """Return the events that *piece* ends; raise `TooLongError` for one that is longer than `MOST_BYTES`."""
        text = self._left + piece
        self._size += len(piece)
        if self._size > MOST_BYTES:
            raise TooLongError(f"an event is longer than {MOST_BYTES} bytes")
        # A CR at the end may be the first half of a CRLF.
        whole = text[:-1] if text.endswith(b"\r") else text
        *lines, left = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._left = left + text[len(whole) :]
        events = []
        for line in lines:
            event = self._take(line.decode("utf-8", "replace"))
            if event is not None:
                events.append(event)
                self._size = len(self._left)
        return events

    def _take(self, line: str) -> RawEvent | None:
        if not line:
            event = RawEvent(self._name, "\n".join(self._data), self._id) if self._data else None
            self._name, self._data = "", []
            return event
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        return None
