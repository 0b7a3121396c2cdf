"""
Runs in a notebook: a small table of one state, and a cell that shows a run as it goes.

    run = await agentruns.notebook.show(client.stream(message, tools=tools))

The tables have neither script nor style sheet, and whatever a vendor says stands in them as text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

from agentruns import _extras as extras

from ._following.stream import RunStream
from ._values import html
from ._values.run import Run
from .errors import ConfigurationError

_MOST_STATES: Final = 12
"""How many of the states that were seen are listed."""


async def show(stream: RunStream) -> Run:
    """
    Follow a stream to its end in a notebook's cell, which shows each state in place of the one before.

    Return the last state; what the stream raises is shown and raised. Where IPython has no cell, nothing is shown.
    Raise `ConfigurationError` if the extra `notebook` is not installed.
    """
    with extras.require("notebook", "a live view needs"):
        display: Any = import_module("IPython.display").display  # which has no types

    loop = asyncio.get_running_loop()
    began = loop.time()
    seen: list[str] = []
    handle: Any = _is_shown() and display(_bundle(stream, seen), raw=True, display_id=True)
    try:
        async for run in stream:
            seen.append(f"{run.vendor_status or run.status.value} at {loop.time() - began:.1f} s")
            if handle:
                handle.update(_bundle(stream, seen), raw=True)
    except BaseException as error:  # to stop the cell is one, too
        why = "no longer watched" if isinstance(error, asyncio.CancelledError | KeyboardInterrupt) else str(error)
        if handle:
            handle.update(_bundle(stream, seen, why or type(error).__name__), raw=True)
        raise
    if stream.run is None:
        raise ConfigurationError("this stream was closed before it had a state; open another")
    return stream.run


def run_html(run: Run, seen: Sequence[str] = (), why: str = "") -> str:
    """Return a state of a run as a table: *seen* are the states before, and *why* says what ended the watching."""
    return html.table(run._title(), [*run._rows(why), *_seen(seen)])


def stream_html(stream: RunStream, seen: Sequence[str] = (), why: str = "") -> str:
    """Return the last state that a stream has seen as a table; what it is of, if it has seen none."""
    if stream.run is not None:
        return run_html(stream.run, seen, why)
    return html.paragraph(html.cut(repr(stream)) + (f": {html.cut(why)}" if why else ""))


def _seen(seen: Sequence[str]) -> list[tuple[str, str]]:
    if not seen:
        return []
    left_out = [f"({len(seen) - _MOST_STATES} more)"] if len(seen) > _MOST_STATES else []
    return [("Seen", "\n".join([*left_out, *seen[-_MOST_STATES:]]))]


def _bundle(stream: RunStream, seen: Sequence[str], why: str = "") -> dict[str, str]:
    """Return what a cell shows, for a browser and for a terminal."""
    return {"text/html": stream_html(stream, seen, why), "text/plain": f"{stream!r}{f': {why}' if why else ''}"}


def _is_shown() -> bool:
    """Tell whether there is a notebook or an IPython shell that shows things."""
    from IPython.core.interactiveshell import InteractiveShell

    return InteractiveShell.initialized()
