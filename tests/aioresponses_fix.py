"""aioresponses for an aiohttp that it does not know yet: for «the server says this once»; the rest needs sockets."""

import inspect
import sys
from typing import Any

from aiohttp import ClientResponse
from aioresponses import aioresponses

_NEEDS_WRITER = "stream_writer" in inspect.signature(ClientResponse.__init__).parameters


class _Writer:
    """All that a response reads of what wrote its request."""

    output_size = 0


class MockResponse(ClientResponse):
    """A response as aiohttp makes them: with a writer where one is asked for, and a body that needs no parser."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if _NEEDS_WRITER:
            kwargs.setdefault("stream_writer", _Writer())
        super().__init__(*args, **kwargs)

    @property
    def content(self) -> Any:
        return self._content

    @content.setter
    def content(self, reader: Any) -> None:
        if hasattr(reader, "_high_water"):
            reader._high_water = sys.maxsize
        self._content = reader


class Mocked(aioresponses):
    """What tests use in place of `aioresponses`."""

    def add(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("response_class", MockResponse)
        super().add(*args, **kwargs)
