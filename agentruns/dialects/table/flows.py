"""The functions of a dialect, as a table says them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import attrs
from attrs import evolve

from agentruns._values import codec
from agentruns._values.commands import Flow, Sleep
from agentruns._values.exchange import Problem, Request, Response
from agentruns._values.generic import Json
from agentruns._values.printable import printable
from agentruns._values.run import Action, Failure, JsonText, Page, Run, RunRef, RunStatus, ToolOutput, Usage
from agentruns.dialects import reading, wire
from agentruns.errors import (
    AgentRunsError,
    AlreadyAnsweredError,
    APIError,
    OutcomeUnknownError,
    ProtocolError,
    TransportError,
)
from agentruns.tools import Tools

from .operations import FindRules
from .rules import Rules
from .templates import fill, texts

logger = logging.getLogger("agentruns")

_MOST_PAGES: Final = 10
_MOST_UNKNOWN: Final = 20
"""Words of a vendor that are told of: what it says may have no end."""


class Flows:
    """What a table says, as functions that yield requests."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._unknown: set[str] = set()

    def start(self, origin: Any) -> Flow[Run[None]]:
        """Start a run; where the answer gets lost, find it by an id of ours if the table says how."""
        values, rules = _values(origin), self._rules.start
        request = rules.request.request(values)
        if request.idempotent:
            return self._started((yield request))
        yield from wire.checkpoint({})
        try:
            return self._started((yield request))
        except (OutcomeUnknownError, ProtocolError) as lost:
            if rules.find is None:
                raise
            told = lost.reason if isinstance(lost, OutcomeUnknownError) else str(lost)
            return (yield from self._find(rules.find, origin, request, told, lost))

    def recover(self, origin: Any, note: Mapping[str, Json]) -> Flow[Run[None]]:
        """Return the run of a start that died, found by an id of ours; a table that has none cannot tell."""
        rules = self._rules.start
        del note  # the origin has the id
        request, told = rules.request.request(_values(origin)), "its process died before there was an answer"
        if rules.find is None:
            raise OutcomeUnknownError(request, f"{told}, and {self._rules.name} has no id of ours to find it by")
        return (yield from self._find(rules.find, origin, request, told, None))

    def _find(
        self, rules: FindRules, origin: Any, request: Request, told: str, cause: AgentRunsError | None
    ) -> Flow[Run[None]]:
        own = getattr(origin, rules.field)
        trouble = ""
        for seconds in rules.looks:
            yield Sleep(seconds)
            try:
                found = yield from self._look(rules, origin, own)
            except (APIError, ProtocolError, TransportError) as error:
                cause, trouble = error, f" (the last look failed: {error})"
                continue
            except AgentRunsError as error:
                cause, trouble = error, f" (the last look failed: {error})"
                break
            if found is not None:
                return found
            trouble = ""
        raise OutcomeUnknownError(
            request,
            f"{told}; no run with the {rules.field} {own!r} was observed in the list for "
            f"{sum(rules.looks):.0f} s{trouble}",
        ) from cause

    def _look(self, rules: FindRules, origin: Any, own: Any) -> Flow[Run[None] | None]:
        params = texts(rules.params, _values(origin))
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page, rows = yield from self._listed("", cursor, params)
            for run, row in zip(page.runs, rows, strict=True):
                there = rules.at.find(row, None)
                if there == own or (isinstance(there, list) and own in there):
                    return run
            cursor = page.cursor
            if cursor is None:
                break
        return None

    def _started(self, response: Response) -> Run[None]:
        rules = self._rules.start
        if rules.id is None:
            return self.parse_run(response)
        value = wire.read_value(response)
        parent = "" if rules.parent is None else rules.parent.name(value, response)
        ref = wire.ref(rules.id.name(value, response), parent, response=response)
        return Run(ref, RunStatus.PENDING, "", vendor=self._rules.name, raw=wire.mapping(value))

    def fetch(self, ref: RunRef, params: Mapping[str, str]) -> Flow[Run[None]]:
        """Read a run, and what it waits for."""
        run = self.parse_run((yield self._rules.fetch.request(_named(ref), params)))
        return (yield from self._asking(run))

    def _asking(self, run: Run[None]) -> Flow[Run[None]]:
        """Return a paused run with what it waits for, if that takes another request."""
        rules = self._rules.actions
        if run.status is not RunStatus.REQUIRES_ACTION or rules is None or rules.request is None:
            return run
        response = yield rules.request.request(_named(run.ref))
        return evolve(run, actions=self._actions(wire.read_value(response), response))

    def parse_run(self, response: Response) -> Run[None]:
        """Return the run in an answer."""
        at = self._rules.run.at
        value = at.find(wire.read_value(response), response)
        raw = None if at.path is None else JsonText(response.body, at.path)
        return self._run(value, response, raw)

    def _run(self, value: Any, response: Response, raw: JsonText | None = None, *, listed: bool = False) -> Run[None]:
        rules = self._rules.run
        if not isinstance(value, Mapping):
            raise rules.at.misfit(response, "it gives no object, and must give a run")
        found = None if rules.parent is None else rules.parent.find(value, response)
        parent = "" if rules.parent is None or found is None else rules.parent.name(value, response)
        ref = wire.ref(rules.id.name(value, response), parent, response=response)
        word = rules.status.words(value, response)
        status = rules.statuses.get(word)
        if status is None:  # a new word counts as in flight, until the deadline
            status = RunStatus.RUNNING
            self._tell_unknown(word)
        asks = self._rules.actions
        actions: tuple[Action, ...] = ()
        if status is RunStatus.REQUIRES_ACTION and asks is not None and asks.request is None:
            actions = self._actions(value, response, listed=listed)
        done, limit = (None if each is None else each.find_or_none(value) for each in rules.progress)
        return Run(
            ref,
            status,
            word,
            actions=actions,
            output=rules.output.find(value, response) if rules.output is not None and status.is_over else None,
            failure=self._failure(value, word) if status is RunStatus.FAILED else None,
            usage=self._usage(value),
            progress=reading.progress(done, limit),
            vendor=self._rules.name,
            raw=value if raw is None else raw,
        )

    def _tell_unknown(self, word: str) -> None:
        """Log a word that the table lacks, once; else a run whose last word is missing would go on without a sign."""
        if word not in self._unknown and len(self._unknown) < _MOST_UNKNOWN:
            self._unknown.add(word)
            logger.warning(
                "%s says that a run is %r, which is not in `[statuses]` of its table: it counts as in flight",
                self._rules.name,
                printable(word),
            )

    def _failure(self, value: Any, word: str) -> Failure:
        kind, message = (None if each is None else each.find_or_none(value) for each in self._rules.run.failure)
        told = message if isinstance(message, str) else "" if message is None else codec.encode(message).decode()
        return Failure(kind if isinstance(kind, str) and kind else word, told)

    def _usage(self, value: Any) -> Usage | None:
        counts = [None if each is None else reading.count(each.find_or_none(value)) for each in self._rules.run.usage]
        return None if counts == [None, None] else Usage(*counts)

    def _actions(self, value: Any, response: Response, *, listed: bool = False) -> tuple[Action, ...]:
        """Return what a run waits for; rows of a list may leave that out."""
        rules = self._rules.actions
        assert rules is not None
        if listed and rules.at.find(value, response) is None:
            return ()
        found: list[Action] = []
        for each in rules.at.items(value, response):
            arguments = None if rules.arguments is None else rules.arguments.find(each, response)
            if arguments is not None and not isinstance(arguments, Mapping):
                assert rules.arguments is not None
                raise rules.arguments.misfit(response, f"it gives {str(arguments)[:80]!r}, and must give an object")
            found.append(Action(rules.id.name(each, response), rules.name.words(each, response), arguments or {}))
        return wire.unique(tuple(found), response)

    def resume(self, run: Run[Any], outputs: Sequence[ToolOutput]) -> Flow[Run[None]]:
        """
        Answer a paused run: by one request for all answers, or one for each.

        Unless the request may be sent twice, the run is read first: an answer to what it does not ask any more is not
        sent. Where it gets lost what the vendor says to one, a run that waits for it no more has taken it, or an answer
        from elsewhere: the table says which counts.
        """
        rules = self._rules.resume
        assert rules is not None
        answers = [_answer(output) for output in outputs]
        named = _named(run.ref)
        if rules.answer is None:
            sent = [{**named, **answer} for answer in answers]
        else:
            sent = [{**named, "answers": [fill(rules.answer, answer) for answer in answers]}]
        going = evolve(run, status=RunStatus.RUNNING, vendor_status="", actions=())
        if not rules.request.idempotent:
            now = yield from self.fetch(run.ref, {})
            if not _asks(now, outputs):
                raise AlreadyAnsweredError(now, (), f"run {run.id} does not ask for this any more")
        for values in sent:
            try:
                response = yield rules.request.request(values)
            except OutcomeUnknownError:
                if rules.lost == "unknown":
                    raise
                now = yield from self.fetch(run.ref, {})
                if _asks(now, outputs):
                    raise  # it still waits, as far as can be seen
                return now
            if rules.returns == "run":
                going = self.parse_run(response)
        return (yield from self._asking(going))

    def cancel(self, ref: RunRef) -> Flow[Run[None] | None]:
        """Cancel a run."""
        rules = self._rules.cancel
        assert rules is not None
        response = yield rules.request.request(_named(ref))
        return self.parse_run(response) if rules.returns == "run" else None

    def make_parent(self, given: Mapping[str, Json], tools: Tools | None) -> Flow[Mapping[str, Json]]:
        """Send the file as it is, unless the table has a `body` with `{file}` in it."""
        del tools  # a table declares none
        rules = self._rules.parent
        assert rules is not None
        assert rules.request is not None
        assert rules.id is not None
        request = rules.request.request({"file": given})
        response = yield request if rules.request.body is not None else evolve(request, json=given)
        return {rules.field: rules.id.name(wire.read_value(response), response)}

    def page(self, parent: str, cursor: str | None) -> Flow[Page[None]]:
        """Return one page of runs."""
        page, _ = yield from self._listed(parent, cursor, {})
        return page

    def _listed(
        self, parent: str, cursor: str | None, params: Mapping[str, str]
    ) -> Flow[tuple[Page[None], tuple[Any, ...]]]:
        """Return a page of runs, and the row of each."""
        rules = self._rules.listing
        assert rules is not None
        if rules.link is not None and cursor is not None:
            request = Request("GET", cursor)
        else:
            request = rules.request.request({"parent": parent or None, "cursor": cursor}, params)
        response = yield request
        value = wire.read_value(response)
        rows = rules.runs.items(value, response)
        read = yield from reading.rows(
            response, rows, f"`{rules.runs.text}`", lambda row, _: (self._run(row, response, listed=True), row)
        )
        following = self._next(value, response, cursor, len(rows))
        page = Page(tuple(run for run, _ in read), following, len(rows) - len(read))
        return page, tuple(row for _, row in read)

    def _next(self, value: Any, response: Response, cursor: str | None, count: int) -> str | None:
        rules = self._rules.listing
        assert rules is not None
        if rules.page_size is not None:
            return str(int(cursor or 0) + count) if count >= rules.page_size else None
        name = rules.cursor or rules.link
        found = None if name is None else name.find(value, response)
        if name is None or found is None or found is False or found == "":
            return None
        return wire.link(found, response) if name is rules.link else name.name(value, response)

    def list_parent(self, ref: RunRef) -> str:
        """Return the parent of the pages that a run stands on."""
        rules = self._rules.listing
        return ref.parent if rules is not None and "parent" in rules.request.holes else ""

    def events(self, ref: RunRef) -> Request:
        """Return the request that opens the stream of events of a run."""
        assert self._rules.events is not None
        return self._rules.events.request(_named(ref))

    def times(self, run: Run[Any]) -> tuple[datetime | None, datetime | None]:
        """Return when a run began and ended."""
        began, ended = (_moment(None if each is None else each.find_or_none(run.raw)) for each in self._rules.run.times)
        return began, ended

    def problem(self, response: Response) -> Problem:
        """Say what an error body says."""
        body = wire.error_body(response)
        code, message = (None if each is None else each.find_or_none(body) for each in self._rules.error)
        told = message if isinstance(message, str) and message else wire.body_excerpt(response)
        return Problem(told, code=code if isinstance(code, str) and code else None)

    def handler_names(self, action: Action) -> Sequence[str]:
        """Return the names under which a handler is looked for."""
        return (action.name,)

    def example(self) -> Any:
        """Return what starts a run, as the table has it."""
        return self._rules.origin(**(self._rules.example or {}))


def _values(origin: Any) -> dict[str, Any]:
    return {each.name: getattr(origin, each.name) for each in attrs.fields(type(origin))}


def _named(ref: RunRef) -> dict[str, Any]:
    return {"id": ref.id, "parent": ref.parent or None}


def _asks(run: Run[Any], outputs: Sequence[ToolOutput]) -> bool:
    """Tell whether a run still asks for any of what is answered."""
    return not {each.action.id for each in outputs}.isdisjoint(action.id for action in run.actions)


def _answer(output: ToolOutput) -> dict[str, Any]:
    value = output.output
    return {
        "output": value,
        "output_text": value if isinstance(value, str) else codec.encode(codec.to_jsonable(value, "it")).decode(),
        "action_id": output.action.id,
        "action_name": output.action.name,
        "is_error": output.is_error,
    }


def _moment(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return codec.utc(moment)
