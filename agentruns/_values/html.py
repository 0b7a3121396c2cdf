"""Tables of text as HTML, for notebooks and reports: no script, no style sheet, and all text is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

_MOST_SHOWN: Final = 2000
"""How many characters of one thing are shown."""

_CELL: Final = ' style="text-align:left;vertical-align:top;white-space:pre-wrap"'


def table(caption: str, rows: Iterable[tuple[str, str]]) -> str:
    """Return a table with a row for each name and text."""
    cells = [
        f'<tr><th scope="row"{_CELL}>{escape(name)}</th><td{_CELL}>{escape(cut(text))}</td></tr>' for name, text in rows
    ]
    return f'<table><caption style="text-align:left">{escape(caption)}</caption><tbody>{"".join(cells)}</tbody></table>'


def paragraph(text: str) -> str:
    """Return a paragraph of text."""
    return f"<p>{escape(text)}</p>"


def cut(text: str) -> str:
    """Return a text, shortened if it is longer than a page bears."""
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... ({len(text)} characters)"
