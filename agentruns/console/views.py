"""Pages and pieces of pages, by Jinja templates that escape whatever they are given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from agentruns import _extras as extras
from agentruns._keeping.journal.entries import Counts, Entry
from agentruns._keeping.journal.queries import UNREADABLE, Which
from agentruns.dialects import known
from agentruns.dialects.show import Fact, Step, text_of

from .asks import Ask
from .history import WorkHistory, changed_groups
from .source import Job
from .timeline import Group, artifacts_of, steps_of, title_of_action

if TYPE_CHECKING:
    from jinja2 import Environment

_HTMX: Final = {
    "allowEval": False,
    "allowScriptTags": False,
    "historyEnabled": False,
    "includeIndicatorStyles": False,
    "selfRequestsOnly": True,
    "responseHandling": [
        {"code": "204", "swap": False},
        {"code": "[23]..", "swap": True},
        # What must be corrected, and what came too late, is shown in the place of the form.
        {"code": "409|422|502", "swap": True},
        {"code": "[45]..", "swap": False, "error": True},
    ],
}

_STATUSES: Final = {
    "": "Starts",
    "pending": "Waits for its turn",
    "running": "Runs",
    "requires_action": "Waits for an answer",
    "completed": "Completed",
    "failed": "Failed",
    UNREADABLE: "Cannot be read",
}

_LONGEST: Final = 20_000
"""Characters of one text that a page shows."""


@frozen
class Card:
    """A group of actions as it is shown, with what was posted if that must be corrected."""

    group: Group
    asks: tuple[Ask, ...]
    said: str = ""
    """What became of the form that was just sent."""
    error: str = ""


@frozen(kw_only=True)
class Listing:
    """What the page of all entries shows."""

    entries: Sequence[Entry]
    counts: Counts
    which: Which
    before: int | None
    older: int | None
    key: str = ""


class Views:
    """Render pages; *csrf* goes into every form, *place* says at the top what is looked at."""

    def __init__(self, csrf: str, place: str) -> None:
        self._env = _environment()
        self._env.globals.update(
            csrf=csrf, place=place, htmx=json.dumps(_HTMX), label_of=_label_of, parent_of=_parent_of
        )

    def runs(self, listing: Listing, jobs: Sequence[Job], events: str) -> str:
        """Return the page of all entries; *events* is the address that tells how they change."""
        return self._page("list.html", listing=listing, jobs=jobs, events=events, oob=False)

    def entries(self, listing: Listing) -> str:
        """Return what of that page changes, to be put in its place."""
        return self._page("_entries.html", listing=listing, oob=True)

    def work(self, history: WorkHistory, cards: Sequence[Card], origin: Sequence[Fact], said: str = "") -> str:
        """Return the page of one entry."""
        return self._page("work.html", history=history, cards=cards, origin=origin, said=said)

    def card(self, history: WorkHistory, card: Card) -> str:
        """Return one form, or what became of it."""
        return self._page("_card.html", history=history, card=card)

    def update(self, history: WorkHistory, seen: int, cards: Sequence[Card]) -> str:
        """Return what is new since the first *seen* changes, each piece with the place where it belongs."""
        whole = seen == 0
        changed = {group.id for group in changed_groups(history, seen)}
        return self._page(
            "_update.html",
            history=history,
            cards=cards,
            whole=whole,
            panel=whole or history.panel_count > seen,
            changed=[card for card in cards if card.group.id in changed],
            new_entries=[each for each in history.entries if each.number > seen],
        )

    def trace(self, history: WorkHistory, steps: Sequence[Step], *, whole: bool) -> str:
        """Return how a run came about: a page of its own, or a piece of that of the entry."""
        return self._page("trace.html" if whole else "_trace.html", history=history, steps=steps)

    def problem(self, title: str, text: str) -> str:
        """Return a page that says what is wrong."""
        return self._page("problem.html", title=title, text=text)

    def notice(self, text: str) -> str:
        """Return a piece that says what is wrong."""
        return self._page("_notice.html", text=text)

    def _page(self, template: str, **values: Any) -> str:
        return self._env.get_template(template).render(**values)


def _environment() -> Environment:
    with extras.require("console", "the console needs"):
        from jinja2 import Environment, PackageLoader, StrictUndefined
    env = Environment(
        loader=PackageLoader("agentruns.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(iso=_iso, shown=_shown, cut=partial(_cut, longest=_LONGEST), number=_number)
    env.globals.update(
        known=known, steps_of=steps_of, artifacts_of=artifacts_of, title_of_action=title_of_action, text_of=text_of
    )
    return env


def _parent_of(name: str) -> str:
    """Return what the parent of a vendor's runs is called."""
    vendor = known(name)
    return "parent" if vendor is None else vendor.PARENT


def _label_of(entry: Entry, status: str | None = None) -> str:
    """Return the word for how an entry stands."""
    return _STATUSES.get(entry.status if status is None else status, entry.status)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def _shown(seconds: float) -> str:
    """Return a time for browsers without scripts; with them, it is shown in the reader's own."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%d %b %Y, %H:%M:%S UTC")


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"
