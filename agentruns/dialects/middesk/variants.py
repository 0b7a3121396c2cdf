"""What no page of Middesk says, and the same dialect with another reading of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from agentruns._values import check
from agentruns._values.generic import Json
from agentruns._values.run import RunStatus
from agentruns.dialects import guesses, wire
from agentruns.dialects.guesses import Guess, Variant

from . import answers
from .answers import ResumeBody, resume, resume_first
from .objects import MiddeskRun
from .reading import MOST_PER_PAGE, STATUS, Reading, fetch, page, parse_run
from .starts import START_LOOKS, RunRequest, recover, start

if TYPE_CHECKING:
    from agentruns.dialects.protocol import Dialect

GUESSES: Final = (
    Guess(
        "resume_body",
        'the body of a resume is {"interrupt_id", "input"}; an answer that says why there is none has {"error": why} '
        "as its input",
        'get-agent-run names the call, the interrupt\'s id and "the caller-supplied input"; no page names the keys',
    ),
    Guess(
        "status",
        "a word that is none of running, interrupted, completed, error (formerly pending, failed) is that of a run in "
        "flight",
        "reference/run lists four words; an earlier wording had others, and new ones may come (api-changes)",
    ),
    Guess(
        "per_page",
        f"a page of runs has {MOST_PER_PAGE}",
        "no page states the most for runs; the timeline of a business has 100",
    ),
    Guess(
        "looks",
        f"a run whose start lost its answer shows in the list within {sum(START_LOOKS):.0f} s",
        "no page says how soon a run is listed (list-agent-runs)",
    ),
)


def variant(
    *,
    resume_body: ResumeBody | None = None,
    include: str | None = None,
    status: Mapping[str, RunStatus | str] | None = None,
    per_page: int | None = None,
    looks: Sequence[float] | None = None,
) -> Dialect[RunRequest, MiddeskRun]:
    """
    Return this dialect with another reading of what no page says, for `connect(middesk.variant(...))`.

    *resume_body* gives the body of an answer, and *include* is what a resume asks for besides, as in `?include=steps`.
    *status* maps words of the vendor to ours, besides those that are known. *per_page* is the size of a page of runs.
    *looks* are the seconds before each look for a run whose start lost its answer. Raise `ConfigurationError` for what
    cannot be sent or read.
    """
    check.text_or_none("include", include)
    if per_page is not None:
        check.integer("per_page", per_page, 1)
    reads = Reading({**STATUS, **guesses.statuses("status", status)}, per_page or MOST_PER_PAGE)
    seconds = START_LOOKS if looks is None else guesses.seconds("looks", looks)
    body = guesses.function("resume_body", resume_body, answers.resume_body)
    replaced: Mapping[str, Json] = {
        "start": partial(start, reads=reads, looks=seconds),
        "recover": partial(recover, reads=reads, looks=seconds),
        "fetch": partial(fetch, reads=reads),
        "page": partial(page, reads=reads),
        "parse_run": partial(parse_run, reads=reads),
        "resume": partial(resume, resume_body=body, include=include, reads=reads),
        "resume_first": partial(resume_first, resume_body=body, include=include, reads=reads),
        "STATUS": reads.status,
    }
    given = {"resume_body": resume_body, "include": include, "status": status, "per_page": per_page, "looks": looks}
    return cast(
        "Dialect[RunRequest, MiddeskRun]", Variant(__name__.rpartition(".")[0], replaced, wire.drop_none(given))
    )
