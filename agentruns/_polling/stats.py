"""What one client does at present, in numbers."""

from __future__ import annotations

from attrs import frozen


@frozen
class Stats:
    """
    A picture of the runs that one client watches and of the requests that this takes; from `client.stats()`.

    `watched`: runs that somebody follows. `polls`: requests that read one run; `lists`: requests that read many.
    `shared`: polls that were saved because several streams followed one run; `listed`: those that lists saved.
    `ends`: runs, or parts of runs up to a pause, that were seen to end; `lag`: the mean seconds between such an end and
    the poll that saw it, estimated as half the time since the poll before, None while nothing has ended.
    `budget`: which part of the requests that may be sent is used, from 0 to 1. `lost`: runs whose vendor does not
    answer at present. `rest`: the seconds after which the last of them is as likely over as not, by what was learned of
    how long such runs take; None while nothing was. `rows_skipped`: rows of lists that do not fit what the vendor
    documents, and were left out; a list that is read again counts again.
    """

    watched: int
    polls: int
    shared: int
    lists: int
    listed: int
    ends: int
    lag: float | None
    budget: float
    lost: int
    rest: float | None = None
    rows_skipped: int = 0
