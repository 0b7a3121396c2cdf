"""
Many runs in one request: when a vendor's list of runs is cheaper than asking run by run, and how far to read it.

Lists are read from the newest run on, page by page. Each run that is waited for is expected on the page on which it was
found last, a new one on the first. Reading *k* pages costs *k* requests, and saves one for each due run expected on
them; the number of pages that saves most is read, if any saves. Where runs are not where they were expected, the same
pass goes on for them, as long as it finds some, or costs little beside reading them one by one. A run that is then not
found is expected one page further on if it was found before, since newer ones have pushed it down; else it is read by
itself, until a page that is read for others happens to have it. Absence never means the end of a run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

from agentruns._values.commands import Flow
from agentruns._values.run import Page
from agentruns.dialects.vendor import Vendor

from .watch import DUE, PLANNED, READING, Watch

_WAITING: Final = (PLANNED, DUE)
_AGAIN: Final = 2e-5
"""Seconds for each run before it is weighed again whether a list is worth its requests: weighing costs, too."""


_PAGE_PER_RUNS: Final = 8
"""A pass goes on by one page for so many runs that it has not found."""


class Listing:
    """The list of the runs under one parent."""

    def __init__(self, vendor: Vendor, parent: str) -> None:
        self._vendor = vendor
        self._parent = parent
        self.watches: set[Watch] = set()
        self.covered: set[Watch] = set()
        """The runs that the pages which are being read may tell of: no other request is made for them."""
        self.failures = 0
        self._found: set[Watch] = set()  # those that were found where they were expected last
        self._hits = 0  # runs found on the page that was read last
        self._cursor: str | None = None
        self._page = self._until = 0  # pages read, and to be read
        self._weigh_at = -math.inf

    @property
    def under_way(self) -> bool:
        """Tell whether there are further pages to be read."""
        return self._until > 0

    def worth(self, soon: float, now: float) -> tuple[int, int]:
        """
        Return how many requests a list saves, and how many pages of it to read for that.

        Runs count that are due by *soon*. Nothing is saved where asking run by run is as cheap.
        """
        if now < self._weigh_at or self.under_way:
            return 0, 0
        self._weigh_at = now + _AGAIN * len(self.watches)
        places: Counter[int] = Counter()
        for watch in self.watches:
            if watch.place is not None and watch.due <= soon and watch.stage in _WAITING:
                places[watch.place] += 1
        best = pages = saved = 0
        for place in sorted(places):
            saved += places[place]
            if saved - (place + 1) > best:
                best, pages = saved - (place + 1), place + 1
        return best, pages

    def begin(self, pages: int) -> None:
        """Set out to read so many pages."""
        self._cursor, self._page, self._until = None, 0, pages
        self.covered = {
            watch
            for watch in self.watches
            if watch.place is not None and watch.place < pages and watch.stage in _WAITING
        }

    def flow(self) -> Flow[Page]:
        """Return the request for the next page."""
        return self._vendor.flow("page", self._parent, self._cursor)

    def begin_page(self) -> Iterable[Watch]:
        """Return the runs for which the page that is to be read is the first request."""
        return self.covered if self._page == 0 else ()

    def finds(self, watch: Watch, sent: float) -> bool:
        """Note that a run is on the page that was asked for at the time *sent*; tell whether that may be news of it."""
        if watch.segment.read_at > sent or (watch.stage is READING and watch not in self.covered):
            return False
        watch.place = self._page
        self._found.add(watch)
        self._hits += 1
        self.covered.discard(watch)
        return True

    def turn(self, cursor: str | None) -> None:
        """Go on to the next page, if there is one and it is wanted."""
        self.failures = 0
        self._page += 1
        self._cursor = cursor
        hits, self._hits = self._hits, 0
        if self.covered and (hits > 1 or self._page * _PAGE_PER_RUNS < len(self.covered)):
            self._until = max(self._until, self._page + 1)
        if cursor is None or self._page >= self._until or not self.covered:
            for watch in self.covered:
                watch.place = self._page if watch in self._found and cursor is not None else None
                self._found.discard(watch)
            self._until = 0

    def forget(self, watch: Watch) -> None:
        """Look for a run no more."""
        self.watches.discard(watch)
        self.covered.discard(watch)
        self._found.discard(watch)

    def fail(self, again_at: float) -> None:
        """Give the list up until *again_at*."""
        self.failures += 1
        self._weigh_at = again_at
        self._until = 0

    def released(self) -> set[Watch]:
        """Return the runs that further pages cannot tell of, once there are no further pages."""
        if self.under_way:
            return set()
        left, self.covered = self.covered, set()
        return left


class Lists:
    """The lists of one vendor, by parent."""

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor
        self._listings: dict[str, Listing] = {}
        self._crowds: set[Listing] = set()  # those with runs enough to be worth a thought
        self._turning: list[Listing] = []  # those with a page to be read next

    @property
    def under_way(self) -> bool:
        """Tell whether a page is to be read next."""
        return bool(self._turning)

    def add(self, watch: Watch) -> None:
        """Count a run among those of its list."""
        parent = self._vendor.call("list_parent", watch.ref)
        listing = self._listings.get(parent)
        if listing is None:
            listing = self._listings[parent] = Listing(self._vendor, parent)
        listing.watches.add(watch)
        if len(listing.watches) > 1:
            self._crowds.add(listing)

    def remove(self, watch: Watch) -> None:
        """Forget a run."""
        parent = self._vendor.call("list_parent", watch.ref)
        listing = self._listings.get(parent)
        if listing is None:
            return
        listing.forget(watch)
        if len(listing.watches) < 2:
            self._crowds.discard(listing)
        if not listing.watches and not listing.under_way:
            del self._listings[parent]

    def next(self, soon: float, now: float, _first: Watch | None = None) -> Listing | None:
        """Return the list of which a page is to be read now: the one that saves most; None if there is none."""
        if self._turning:
            return self._turning.pop()
        best, pages, found = 0, 0, None
        for listing in self._crowds:
            saved, needed = listing.worth(soon, now)
            if saved > best:
                best, pages, found = saved, needed, listing
        if found is not None:
            found.begin(pages)
        return found

    def turned(self, listing: Listing) -> None:
        """Put a list in line whose next page is wanted."""
        if listing.under_way:
            self._turning.append(listing)
