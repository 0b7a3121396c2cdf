"""
Runs in a notebook: a small table of one state, and a cell that shows a run as it goes.

    run = await agentruns.notebook.show(client.stream(message, tools=tools))

The tables have neither script nor style sheet, and whatever a vendor says stands in them as text.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from .errors import ConfigurationError

if TYPE_CHECKING:  # these show themselves by what is here
    from .model import Run
    from .stream import RunStream

_MOST_SHOWN: Final = 2000
"""How many characters of one thing are shown."""

_MOST_STATES: Final = 12
"""How many of the states that were seen are listed."""

_CELL: Final = ' style="text-align:left;vertical-align:top;white-space:pre-wrap"'


async def show(stream: RunStream) -> Run:
    """
    Follow a stream to its end in a notebook's cell, which shows each state in place of the one before.

    Return the last state; what the stream raises is shown and raised. Where IPython has no cell, nothing is shown.
    Raise `ConfigurationError` if the extra `notebook` is not installed.
    """
    try:
        display: Any = import_module("IPython.display").display  # which has no types
    except ImportError as error:
        raise ConfigurationError(
            f"a live view needs more than the core ({error}): run `pip install 'agentruns[notebook]'`"
        ) from error

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
    named = f"Run {run.id}{f' of {run.vendor}' if run.vendor else ''}"
    rows = [
        f'<tr><th scope="row"{_CELL}>{escape(name)}</th><td{_CELL}>{escape(_cut(text))}</td></tr>'
        for name, text in _rows(run, seen, why)
    ]
    return f'<table><caption style="text-align:left">{escape(named)}</caption><tbody>{"".join(rows)}</tbody></table>'


def stream_html(stream: RunStream, seen: Sequence[str] = (), why: str = "") -> str:
    """Return the last state that a stream has seen as a table; what it is of, if it has seen none."""
    if stream.run is not None:
        return run_html(stream.run, seen, why)
    return f"<p>{escape(_cut(repr(stream)))}{escape(f': {_cut(why)}' if why else '')}</p>"


def _rows(run: Run, seen: Sequence[str], why: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each thing that there is to say."""
    word = run.vendor_status
    yield "Status", run.status.value if word in {"", run.status.value} else f"{run.status.value} (vendor: {word})"
    if why:
        yield "Error", why
    if run.failure is not None:
        yield "Failure", f"{run.failure.type}: {run.failure.message}".removesuffix(": ")
    for action in run.actions:
        yield "Action", f"{action.name} ({action.id})\n{_text(action.arguments)}"
    if run.output is not None:
        yield "Output", run.output if isinstance(run.output, str) else _text(run.output)
    if run.progress is not None:
        yield "Progress", f"{run.progress.done}{f' of {run.progress.limit}' if run.progress.limit is not None else ''}"
    if run.usage is not None:
        yield "Tokens", f"{run.usage.input_tokens} in, {run.usage.output_tokens} out"
    if seen:
        left_out = [f"({len(seen) - _MOST_STATES} more)"] if len(seen) > _MOST_STATES else []
        yield "Seen", "\n".join([*left_out, *seen[-_MOST_STATES:]])


def _text(value: Any) -> str:
    try:
        return json.dumps(value, indent=1, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... ({len(text)} characters)"


def _bundle(stream: RunStream, seen: Sequence[str], why: str = "") -> dict[str, str]:
    """Return what a cell shows, for a browser and for a terminal."""
    return {"text/html": stream_html(stream, seen, why), "text/plain": f"{stream!r}{f': {why}' if why else ''}"}


def _is_shown() -> bool:
    """Tell whether there is a notebook or an IPython shell that shows things."""
    from IPython.core.interactiveshell import InteractiveShell

    return InteractiveShell.initialized()
