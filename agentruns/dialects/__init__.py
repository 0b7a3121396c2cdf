"""
The vendors of this package, and the kit of who writes another one.

A dialect is a module with the names that `Dialect` lists; what else its vendor can do, it says by the functions of the
capabilities (`Resumes`, `Cancels`, `Lists` ...). Its functions are flows: generators that yield requests, are sent the
answers, and never wait. All that they need is importable from here:

- one exchange: `Request`, `Response`, `Problem` (what an error body says), `RateLimit` (`Limit` for short),
  `ServerEvent`;
- a flow: `Flow`, and what it may yield besides requests, `Sleep` and `Lock`; `checkpoint(...)` keeps, within a start,
  what is needed after a crash, and `claim_run(...)` asks whose a run is that was found by looking. Both are flows, for
  `yield from`; they yield `Checkpoint` and `ClaimRun`, and the second returns an `Ownership`; `SkippedRows` tells
  of the rows of a list that were left out; `AwaitSlot` (`wire.await_slot`) waits for a slot that the vendor had not;
- a run: `Run`, `RunRef`, `RunStatus`, `Action`, `ToolOutput`, `Failure`, `Usage`, `Progress`, `Page`, and `JsonText`,
  the text of an answer as `Run(raw=...)` takes it with the least memory; `Json` is any JSON value;
- `MINTED`, the metadata of the field of an origin that is a new id with each value, and `MINTED_LABEL`, that of one by
  which the vendor does not know a repeated start;
- `Place`, what `locate` found out: where and how a deployment is asked;
- `ReadOn`, what `fetch_many` says of a run that has moved;
- `AUTH`, how the token travels: `Bearer()` (if there is no `AUTH`), `Header("x-api-key")`, `Query("key")`, `Basic()`,
  `NoAuth()`; each may be `optional=True`;
- `wire`: paths, answers as objects or classes, `Retry-After`, error bodies; `check`: validators of the fields of what
  starts a run; `search`: finding the run of a start that named none, for vendors without idempotency keys; `reading`:
  counts and lists that are read without an error for what does not fit; `guesses`: what no page says, and its switches;
- the protocols: `Dialect`, `Resumes`, `ResumesAgain`, `ResumesFirst`, `ResumesWithOrigin`, `Recovers`,
  `FindsAnsweringRun`, `Cancels`, `Lists`, `ListsCurrentStates`, `FetchesMany`, `LocatesItself`, `ParsesRun`,
  `ReportsErrorsInBody`, `GroupsRuns`, `LimitsRuns`, `AdvisesPolls`, `SendsDefaults`, `Authenticates`, `AsksByItself`,
  `NamesTraceRoles`, `ShowsRuns`, `ReportsTimes`, `StreamsEvents`, `ReadsEvents`, `ChecksToken`, `IsEmulated`,
  `GivesExample`, `MakesParents`, and `ShowsQuestions`, `ShowsSteps`, `ShowsArtifacts`, `ReadsTrace`, `ReadsTools`,
  `GroupsAnswers`, by which the console shows a run; what they return is made of the values of `show`.

`load(name)` imports the dialect of that name when it is first asked for: one of `NAMES`, or another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from attrs import evolve

from agentruns._values import check
from agentruns._values.auth import Auth, Basic, Bearer, Header, NoAuth, Query
from agentruns._values.codec import CodecError
from agentruns._values.commands import (
    AwaitSlot,
    Checkpoint,
    ClaimRun,
    Flow,
    Lock,
    Ownership,
    SkippedRows,
    Sleep,
    first_request,
)
from agentruns._values.exchange import Problem, RateLimit, Request, Response, ServerEvent
from agentruns._values.generic import Json
from agentruns._values.minted import MINTED, MINTED_LABEL
from agentruns._values.place import Place
from agentruns._values.run import (
    Action,
    Failure,
    JsonText,
    Page,
    Progress,
    Run,
    RunRef,
    RunStatus,
    ToolOutput,
    Usage,
    detail_finders,
)
from agentruns.errors import ConfigurationError, ProtocolError

from . import guesses, reading, search, show, wire
from .names import absolute, find, installed, shipped
from .protocol import (
    AdvisesPolls,
    AsksByItself,
    Authenticates,
    Cancels,
    ChecksToken,
    Dialect,
    FetchesMany,
    FindsAnsweringRun,
    GivesExample,
    GroupsAnswers,
    GroupsRuns,
    IsEmulated,
    LimitsRuns,
    Lists,
    ListsCurrentStates,
    LocatesItself,
    MakesParents,
    NamesTraceRoles,
    ParsesRun,
    ReadOn,
    ReadsEvents,
    ReadsTools,
    ReadsTrace,
    Recovers,
    ReportsErrorsInBody,
    ReportsTimes,
    Resumes,
    ResumesAgain,
    ResumesFirst,
    ResumesWithOrigin,
    SendsDefaults,
    ShowsArtifacts,
    ShowsQuestions,
    ShowsRuns,
    ShowsSteps,
    StreamsEvents,
)
from .vendor import MISTAKES, Vendor, mistake
from .wire import checkpoint, claim_run

__all__ = [
    "MINTED",
    "MINTED_LABEL",
    "NAMES",
    "Action",
    "AdvisesPolls",
    "AsksByItself",
    "Auth",
    "Authenticates",
    "AwaitSlot",
    "Basic",
    "Bearer",
    "Cancels",
    "Checkpoint",
    "ChecksToken",
    "ClaimRun",
    "Dialect",
    "Failure",
    "FetchesMany",
    "FindsAnsweringRun",
    "Flow",
    "GivesExample",
    "GroupsAnswers",
    "GroupsRuns",
    "Header",
    "IsEmulated",
    "Json",
    "JsonText",
    "Limit",
    "LimitsRuns",
    "Lists",
    "ListsCurrentStates",
    "LocatesItself",
    "Lock",
    "MakesParents",
    "NamesTraceRoles",
    "NoAuth",
    "Ownership",
    "Page",
    "ParsesRun",
    "Place",
    "Problem",
    "Progress",
    "Query",
    "RateLimit",
    "ReadOn",
    "ReadsEvents",
    "ReadsTools",
    "ReadsTrace",
    "Recovers",
    "ReportsErrorsInBody",
    "ReportsTimes",
    "Request",
    "Response",
    "Resumes",
    "ResumesAgain",
    "ResumesFirst",
    "ResumesWithOrigin",
    "Run",
    "RunRef",
    "RunStatus",
    "SendsDefaults",
    "ServerEvent",
    "ShowsArtifacts",
    "ShowsQuestions",
    "ShowsRuns",
    "ShowsSteps",
    "SkippedRows",
    "Sleep",
    "StreamsEvents",
    "ToolOutput",
    "Usage",
    "check",
    "checkpoint",
    "claim_run",
    "guesses",
    "load",
    "reading",
    "search",
    "show",
    "wire",
]

logger = logging.getLogger("agentruns")

Limit: TypeAlias = RateLimit
NAMES: Final = ("narrative", "middesk", "origami", "conduit", "openai_responses", "a2a", "langgraph")

_MOST_NAMES: Final = 1000
"""How many names are remembered that a journal, say, may hold."""


def load(name: str) -> Dialect:
    """
    Return the dialect called *name*: one of `NAMES`, of an entry point, or of a table of this package.

    The group of the entry points is `agentruns.dialects`. `module:attribute`, `file.py:attribute`, `file.py` (the file
    is the dialect) and `file.toml` (a table) name one, too. Raise `ConfigurationError` for an unknown name, for what
    cannot be imported, and for a table that is wrong.
    """
    if name in NAMES:
        return cast("Dialect", import_module(f"{__name__}.{name}"))
    if name.endswith(".toml"):
        return _table(name)
    found = find(name)
    if found is None and name in shipped():
        return _table(shipped()[name])
    if found is None:
        others = [each for each in {**installed(), **shipped()} if each not in NAMES]
        raise ConfigurationError(
            f"there is no dialect {name!r}; choose one of {', '.join((*NAMES, *others))}",
            field="dialect",
            remedy="`module:attribute`, `file.py:attribute` and `file.toml` name one, too",
        )
    return cast("Dialect", found)


def for_workers(name: str) -> str | Dialect:
    """Return what names a dialect in another process, wherever that runs: a table itself, a file by its full path."""
    return load(name) if name.endswith(".toml") else absolute(name)


def _table(path: str | Path) -> Dialect:
    from .table import load as load_table  # when there is one: it needs an extra

    return cast("Dialect", load_table(path))


_vendors: Final[dict[str, Vendor | None]] = {}
"""By name; None for a name that nothing installed has: to look through all packages takes milliseconds."""


def register(vendor: Vendor) -> None:
    """Let the vendor of a client be known by its name, wherever it was loaded from; the last one of a name is."""
    if vendor.NAME not in NAMES:
        _vendors[vendor.NAME] = vendor


def known(name: str) -> Vendor | None:
    """
    Return the vendor called *name*: of this package, of a client of this process, of an installed package or a table.

    None for any other, and, with a warning, for that of a package which is broken: its runs are read without `detail`.
    """
    if name in NAMES:
        return Vendor.of(load(name))
    if name not in _vendors and name not in installed() and name not in shipped():
        if len(_vendors) < _MOST_NAMES:
            _vendors[name] = None
    elif name not in _vendors:
        try:
            vendor = Vendor.of(load(name))
        except ConfigurationError as error:
            logger.warning("%s", error)
            return None
        _vendors[vendor.NAME] = vendor
    return _vendors.get(name)


def check_answers(run: Run, outputs: Sequence[ToolOutput], vendor: Vendor | None = None, origin: object = None) -> None:
    """
    Raise `ConfigurationError` for answers to some actions of *run* that the dialect of its vendor would not send.

    Each may be fine, and all of them together too long. Without *vendor* it is the one that the run names; of one that
    is not known nothing is refused; nor where the dialect asks for the *origin*, and that is not known.
    """
    vendor = vendor or known(run.vendor)
    if vendor is None or vendor.resume is None:
        return
    given = {"origin": origin} if vendor.asks_origin("resume") else {}
    if given and origin is None:
        return
    asked = evolve(run, actions=tuple(output.action for output in outputs))
    with suppress(ValueError):  # it makes no request
        first_request(vendor.flow("resume", asked, outputs, **given))


def _detail_reader(name: str) -> Callable[[Mapping[str, Any]], object] | None:
    vendor = known(name)
    return None if vendor is None or vendor.detail is None else partial(_read_detail, vendor)


def _read_detail(vendor: Vendor, raw: Mapping[str, Any]) -> object:
    try:
        return vendor.detail(raw) if vendor.detail is not None else None
    except CodecError as error:
        raise ProtocolError(f"run {raw.get('id')} is not what {vendor.NAME} documents: {error}") from error
    except MISTAKES as error:
        raise mistake(f"{vendor.NAME}.detail", error, None) from error


detail_finders.append(_detail_reader)
