"""
A page of what `python -m benchmarks --json PATH` has measured: the goals, and how the cost of many runs grows.

    python -m benchmarks.page MEASURED.json PAGE.html

The growth is a plot where matplotlib is there (extra `report`), and a table in any case.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, Final

from .process import MIB

_PANELS: Final[Sequence[tuple[str, Callable[[Mapping[str, float]], float]]]] = (
    ("part of one core", lambda each: each["cpu"]),
    ("MiB", lambda each: each["bytes"] / MIB),
    ("lag, s", lambda each: each["lag"]),
    ("longest stall without the collector, ms of CPU", lambda each: 1e3 * each["own"]),
    ("longest pass of the collector, ms of CPU", lambda each: 1e3 * each["gc"]),
    ("requests in a second", lambda each: each["requests"]),
)
_STYLE: Final = (
    "body{font:15px sans-serif;margin:2em}td,th{padding:2px 9px;text-align:right}th:first-child{text-align:left}"
)


def page(measured: Mapping[str, Any]) -> str:
    """Return the page as HTML."""
    parts = ["<h1>What agentruns costs</h1>", f"<p>{escape(measured['machine'])}</p>"]
    goals = [
        (name, f"{goal['value']:.4g}", f"{goal['bound']} {goal['target']:.4g}", "yes" if goal["ok"] else "MISSED")
        for name, goal in measured["goals"].items()
    ]
    parts.append(_table(("goal", "value", "target", "held"), goals))
    left_out = [
        f"{name}: {note}"
        for name, each in measured.get("benchmarks", {}).items()
        for note in (each["notes"] or [each["why"]])
        if note
    ]
    parts += [f"<p>{escape(note)}</p>" for note in left_out]
    crowd = measured["figures"].get("crowd")
    if crowd:
        parts.append("<h2>Many runs at once</h2>")
        parts += [_plot(crowd["rows"])] if find_spec("matplotlib") is not None else []
        columns = [name for name in crowd["rows"][0] if name not in ("title", "grows")]
        rows = [(row["title"], *(f"{row[column]:.4g}" for column in columns)) for row in crowd["rows"]]
        parts.append(_table(("", *columns), rows))
    head = f'<!doctype html><meta charset="utf-8"><title>What agentruns costs</title><style>{_STYLE}</style>'
    return head + "".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"]
    for title, *cells in rows:
        lines.append(f"<tr><th>{escape(title)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _plot(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the growth, as an SVG; one line for each loop and interpreter that was measured at several sizes."""
    from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]

    figure: Any = Figure(figsize=(12, 7), layout="constrained")
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        lines.setdefault(row["grows"], []).append(row)
    for axes, (title, of) in zip(figure.subplots(2, 3).flat, _PANELS, strict=True):
        for label, line in lines.items():
            axes.plot([row["runs"] for row in line], [of(row) for row in line], marker="o", label=label)
        axes.set(title=title, xlabel="runs followed", ylim=(0, None))
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize="small")
    drawn = StringIO()
    figure.savefig(drawn, format="svg")
    svg = drawn.getvalue()
    return svg[svg.index("<svg") :]


def main() -> None:
    made = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    made.add_argument("measured", type=Path, metavar="MEASURED.json")
    made.add_argument("page", type=Path, metavar="PAGE.html")
    args = made.parse_args()
    args.page.write_text(page(json.loads(args.measured.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
