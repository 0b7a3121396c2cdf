"""
What `agentruns report` makes of a batch's output: one HTML page that needs nothing beside itself, and a PNG.

The figures are drawn by matplotlib, from the last line of each item. The page has no script and loads nothing.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from attrs import frozen

from agentruns import _extras as extras
from agentruns._values import html
from agentruns.errors import ConfigurationError

from .batch.limits import spent_by
from .batch.output import last_lines
from .batch.progress import duration, plain
from .printing import say

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # type: ignore[import-not-found,unused-ignore]
    from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]

_COLOURS: Final = {
    "completed": "#2e7d4f",
    "failed": "#c0392b",
    "error": "#7b241c",
    "invalid": "#8e8e8e",
    "requires_action": "#8e44ad",
    "unfinished": "#d68910",
    "unstarted": "#b7950b",
}
_BARS: Final = 300
"""Runs that a timeline shows, at most: beyond that a bar is no longer a line on a screen."""

_ROWS: Final = 25
_VARIES: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|\b\w*\d\w*\b")
_LONGEST: Final = 600


@frozen
class Item:
    """One item of the output; times are seconds since the epoch, tokens and cost those of all its attempts."""

    key: str
    line: int
    status: str
    began: float
    ended: float
    total: float
    run: float | None
    attempts: int
    failure: str
    tokens: tuple[int, int] | None
    cost: float | None
    run_id: str

    @property
    def was_run(self) -> bool:
        """Tell whether there was anything to wait for."""
        return self.status != "invalid"


_MADE: Final = b"<title>agentruns batch: "


def report(args: argparse.Namespace) -> int:
    """Write the page, and the picture if it is asked for; raise `ConfigurationError` for what is no output."""
    path = Path(args.output)
    items = read(path)
    destination = Path(args.html or path.with_suffix(".html"))
    for place in (destination, *([Path(args.png)] if args.png else [])):
        if place.exists() and place.samefile(path):
            raise ConfigurationError(f"{str(place)!r} is the output itself; write elsewhere")
    if not args.html and destination.exists() and _MADE not in destination.read_bytes()[:2000]:
        raise ConfigurationError(f"{str(destination)!r} is there, and is no report; say where to write by --html")
    figure = draw(items)
    try:
        with _opened(destination) as file:
            file.write(page(path.name, items, svg(figure)).encode())
        say(f"{len(items)} items: {destination}")
        if args.png:
            with _opened(Path(args.png)) as file:
                figure.savefig(file, format="png", dpi=120)
            say(f"the figures: {args.png}")
    except OSError as error:
        raise ConfigurationError(f"the report cannot be written: {error}") from error
    return 0


def _opened(path: Path) -> IO[bytes]:
    """Open a file to write, made for its owner only, as the output is: it tells the same."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


# Reading --------------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[Item]:
    """Return the items of an output, in the order in which they began; raise `ConfigurationError` if there are none."""
    try:
        items = [_item(line, path) for line in last_lines(path)]
    except OSError as error:
        raise ConfigurationError(f"OUTPUT {str(path)!r} cannot be read: {error}") from error
    if not items:
        raise ConfigurationError(f"OUTPUT {str(path)!r} is empty; `agentruns batch` writes it")
    return sorted(items, key=lambda item: (item.began, item.line))


def _item(line: dict[str, Any], path: Path) -> Item:
    try:
        spent, failure, run = spent_by(line) or {}, line["failure"], line["run"]
        missing = {"usage", "cost"} - set(line)
        if missing:
            raise KeyError(*missing)
        return Item(
            key="" if line["key"] is None else str(line["key"]),  # a row that could not be used has none
            line=int(line["line"]),
            status=str(line["status"]),
            began=datetime.fromisoformat(line["started"]).timestamp(),
            ended=datetime.fromisoformat(line["ended"]).timestamp(),
            total=float(line["durations"]["total"]),
            run=line["durations"]["run"],
            attempts=int(line["attempts"]),
            failure="" if failure is None else f"{failure['type']}: {failure['message']}",
            tokens=_tokens_of(spent),
            cost=spent.get("cost"),
            run_id="" if run is None else str(run["id"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{str(path)!r} has a line for {line['key']!r} that `agentruns batch` did not write ({error!r})"
        ) from error


def _tokens_of(spent: Mapping[str, Any]) -> tuple[int, int] | None:
    into, out = spent.get("input_tokens"), spent.get("output_tokens")
    return None if into is None and out is None else (int(into or 0), int(out or 0))


# Figures --------------------------------------------------------------------------------------------------------------


def draw(items: Sequence[Item]) -> Figure:
    """Return the figures; raise `ConfigurationError` where the extra `report` is not installed."""
    with extras.require("report", "a report needs"):
        import matplotlib as mpl  # type: ignore[import-not-found,unused-ignore]
        from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]
        from matplotlib.layout_engine import (  # type: ignore[import-not-found,unused-ignore]
            ConstrainedLayoutEngine,
        )
    run = [item for item in items if item.was_run]
    with_tokens = [item for item in run if item.tokens is not None]
    with_cost = [item for item in run if item.cost is not None]
    plots = [_timeline, _durations, _outcomes, *([_tokens] if with_tokens else []), *([_costs] if with_cost else [])]
    with mpl.rc_context({"text.parse_math": False}):  # a dollar is a dollar
        figure = Figure(figsize=(11, 3.4 * len(plots)), layout=ConstrainedLayoutEngine(hspace=0.06))
        for plot, axes in zip(plots, figure.subplots(len(plots), squeeze=False)[:, 0], strict=True):
            plot(axes, run)
            axes.spines[["top", "right"]].set_visible(False)
            if plot is not _costs:
                axes.yaxis.get_major_locator().set_params(integer=True)
                axes.yaxis.set_major_formatter("{x:,.0f}")
    return figure


def _origin(items: Sequence[Item]) -> float:
    return min((item.began for item in items), default=0.0)


def _last(items: Sequence[Item]) -> float:
    return max((item.ended for item in items), default=0.0) - _origin(items)


def _statuses(items: Sequence[Item]) -> list[str]:
    found = {item.status for item in items}
    return [status for status in _COLOURS if status in found] + sorted(found - set(_COLOURS))


def _timeline(axes: Axes, items: Sequence[Item]) -> None:
    """Draw each run from its begin to its end; of very many, evenly chosen ones."""
    start, step = _origin(items), max(math.ceil(len(items) / _BARS), 1)
    shown = items[::step]
    for status in _statuses(shown):
        bars = [(number, item) for number, item in enumerate(shown) if item.status == status]
        axes.barh(
            [number * step for number, _ in bars],
            [max(item.total, 0.0) for _, item in bars],
            left=[item.ended - max(item.total, 0.0) - start for _, item in bars],
            height=0.8 * step,
            color=_colour(status),
            label=status,
        )
    axes.invert_yaxis()
    axes.set(title="Runs over time" + (f" (every {step}th)" if step > 1 else ""), xlabel="seconds", ylabel="item")
    _legend(axes)


def _durations(axes: Axes, items: Sequence[Item]) -> None:
    """Draw how many took how long, on a scale of factors where they differ by much."""
    waits = [item.total for item in items if item.total > 0]
    axes.set(title="How long they took", xlabel="seconds", ylabel="items")
    if not waits:
        return
    low, high = min(waits), max(waits)
    wide = high > 30 * low
    count = min(max(int(math.sqrt(len(waits))), 5), 60)
    low, high = (low * 0.999, high * 1.001) if high > low else (low * 0.9, high * 1.1)
    edges = [
        low * (high / low) ** (each / count) if wide else low + (high - low) * each / count for each in range(count + 1)
    ]
    by_status = {status: [i.total for i in items if i.status == status and i.total > 0] for status in _statuses(items)}
    shown = {status: each for status, each in by_status.items() if each}
    axes.hist(
        list(shown.values()), bins=edges, stacked=True, color=[_colour(status) for status in shown], label=list(shown)
    )
    if wide:
        axes.set_xscale("log")
    for share, style in ((0.5, "--"), (0.95, ":")):
        value = _quantile(waits, share)
        axes.axvline(value, color="black", linestyle=style, linewidth=1, label=f"{share:.0%} within {plain(value)} s")
    _legend(axes)


def _outcomes(axes: Axes, items: Sequence[Item]) -> None:
    """Draw how many had ended in which way, over time."""
    start, last = _origin(items), _last(items)
    for status in _statuses(items):
        ends = sorted(item.ended - start for item in items if item.status == status)
        counts = [*range(len(ends) + 1), len(ends)]
        label = f"{status} ({len(ends):,})"
        axes.step([0.0, *ends, last], counts, where="post", color=_colour(status), label=label)
    axes.set(title="How they ended", xlabel="seconds", ylabel="items")
    _legend(axes)


def _tokens(axes: Axes, items: Sequence[Item]) -> None:
    """Draw the tokens used, added up over time."""
    start = _origin(items)
    known = sorted((item.ended - start, item.tokens) for item in items if item.tokens is not None)
    for place, (name, colour) in enumerate((("input", "#2471a3"), ("output", "#ca6f1e"))):
        sums, total = [0], 0
        for _, tokens in known:
            total += tokens[place]
            sums.append(total)
        axes.step(
            [0.0, *(when for when, _ in known)], sums, where="post", color=colour, label=f"{name}: {total:,} tokens"
        )
    axes.set(title="Tokens", xlabel="seconds", ylabel="tokens so far")
    _legend(axes)


def _costs(axes: Axes, items: Sequence[Item]) -> None:
    """Draw the cost, as the vendor counts it, added up over time."""
    start, sums = _origin(items), [0.0]
    known = sorted((item.ended - start, item.cost) for item in items if item.cost is not None)
    for _, cost in known:
        sums.append(sums[-1] + cost)
    label = f"{plain(sums[-1], 4)} in the vendor's unit"
    axes.step([0.0, *(when for when, _ in known)], sums, where="post", color="#117a65", label=label)
    axes.set(title="Cost", xlabel="seconds", ylabel="cost so far")
    _legend(axes)


def _colour(status: str) -> str:
    return _COLOURS.get(status, "#333333")


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(math.ceil(share * len(values)), len(values)) - 1]


def svg(figure: Figure) -> str:
    """Return the figures as an SVG element."""
    import matplotlib as mpl

    file = io.StringIO()
    # Texts stay texts, to be found and read aloud; nothing in the file tells when or with what it was made.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "agentruns"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


# The page -------------------------------------------------------------------------------------------------------------

# No templates: they would be longer than these functions, and one more dependency of the extra.

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .25rem .75rem .25rem 0; }
th { border-bottom: 2px solid #ccc; } td { border-bottom: 1px solid #eee; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.text { white-space: pre-wrap; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; }
"""


def page(name: str, items: Sequence[Item], figures: str) -> str:
    """Return the page; whatever comes from the output is escaped."""
    slowest = sorted((item for item in items if item.was_run), key=lambda item: -item.total)[:_ROWS]
    failed = [item for item in items if item.status != "completed"]
    title = f"agentruns batch: {escape(name)}"
    parts = [
        f"<h1>{title}</h1>",
        _summary(items),
        "<h2>Figures</h2>",
        f'<div role="img" aria-label="Figures of the batch">{figures}</div>',
        f"<h2>Not completed ({len(failed)})</h2>",
        _groups(failed),
        _table(failed[:_ROWS]) if failed else "<p>None.</p>",
        f"<p>{len(failed) - _ROWS} more are in the output.</p>" if len(failed) > _ROWS else "",
        "<h2>Slowest</h2>",
        _table(slowest),
    ]
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    body = "\n".join(part for part in parts if part)
    return f'<!doctype html>\n<html lang="en">\n<head>{policy}{head}</head>\n<body>\n{body}\n</body>\n</html>\n'


def _summary(items: Sequence[Item]) -> str:
    run = [item for item in items if item.was_run]
    counts = Counter(item.status for item in items)
    rows = [("items", f"{len(items):,}"), *((status, f"{counts[status]:,}") for status in _statuses(items))]
    if run:
        seconds = _last(run)
        waits = [item.total for item in run]
        rows += [
            ("from the first start to the last end", duration(seconds)),
            ("throughput", f"{plain(len(run) / seconds)} a second" if seconds > 0 else "-"),
            ("half of them took at most", f"{plain(_quantile(waits, 0.5))} s"),
            ("95 % of them took at most", f"{plain(_quantile(waits, 0.95))} s"),
        ]
    tokens = [item.tokens for item in run if item.tokens is not None]
    if tokens:
        into, out = (sum(each[place] for each in tokens) for place in (0, 1))
        rows.append(("tokens", f"{into:,} in, {out:,} out (known for {len(tokens):,} items)"))
    costs = [item.cost for item in run if item.cost is not None]
    if costs:
        rows.append(("cost, in the vendor's unit", f"{plain(sum(costs), 6)} (known for {len(costs):,} items)"))
    again = sum(item.attempts > 1 for item in items)
    if again:
        attempts = sum(item.attempts for item in items)
        rows.append((
            "started more than once",
            f"{again:,}; tokens and cost are those of all {attempts:,} attempts",
        ))
    return html.table("Summary", rows)


def _groups(failed: Sequence[Item]) -> str:
    """Return how many failed in which way, those that differ in numbers and ids alone together."""
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in failed:
        groups.setdefault((item.status, _VARIES.sub("…", item.failure)), []).append(item)
    most = sorted(groups.values(), key=lambda group: -len(group))
    if len(most) == len(failed):
        return ""
    rows = [
        f'<tr><td class="number">{len(group):,}</td><td style="color:{_colour(group[0].status)}">'
        f'{_text(group[0].status)}</td><td class="text">{_text(group[0].failure)}</td></tr>'
        for group in most[:_ROWS]
    ]
    rest = f"<p>{len(most) - _ROWS} more kinds are in the output.</p>" if len(most) > _ROWS else ""
    head = '<tr><th class="number">items</th><th>status</th><th>error, such as</th></tr>'
    return f"<table>{head}{''.join(rows)}</table>{rest}"


def _table(items: Sequence[Item]) -> str:
    head = '<tr><th>key</th><th class="number">line</th><th>status</th><th class="number">seconds</th>'
    head += '<th class="number">attempts</th><th>run</th><th>error</th></tr>'
    rows = [
        f'<tr><td class="text">{_text(item.key)}</td><td class="number">{item.line}</td>'
        f'<td style="color:{_colour(item.status)}">{_text(item.status)}</td>'
        f'<td class="number">{item.total:.3f}</td><td class="number">{item.attempts}</td>'
        f'<td class="text">{_text(item.run_id)}</td><td class="text">{_text(item.failure)}</td></tr>'
        for item in items
    ]
    return f"<table>{head}{''.join(rows)}</table>"


def _text(text: str) -> str:
    """Return a text as HTML, cut where it is very long."""
    return escape(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
