"""How stored values look on the wire."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from typing import Final, TypeVar

from attrs import frozen

from agentruns.emulator.schema import JSON
from agentruns.emulator.vendor import Stage

from .errors import Object
from .lists import Page, after_cursor, by_number
from .options import OrigamiOptions
from .records import OrigamiAgent, OrigamiColumn, OrigamiLead, OrigamiRun, OrigamiTable
from .stats import column_stats, table_stats
from .work import Ending

_T = TypeVar("_T")

_SUMMARY: Final = 200


@frozen
class Pen:
    """Write objects of one generation of the pages."""

    stage: Stage
    options: OrigamiOptions

    @property
    def old(self) -> bool:
        """Tell whether objects are still without the name of their kind."""
        return self.options.generation == "G1"

    def stamp(self, seconds: float) -> str:
        """Write a moment, with milliseconds."""
        moment = self.stage.wall(seconds).astimezone(UTC).isoformat(timespec="milliseconds")
        return moment.removesuffix("+00:00") + "Z"

    def stamp_or_null(self, seconds: float | None) -> str | None:
        """Write a moment that may not have come."""
        return None if seconds is None else self.stamp(seconds)

    def named(self, kind: str, body: Object) -> Object:
        """Put the name of an object's kind in front."""
        return body if self.old else {"object": kind, **body}

    def agent(self, agent: OrigamiAgent) -> Object:
        """Write an AgentSummary."""
        return self.named(
            "agent",
            {
                "id": agent.id,
                "name": agent.name,
                "workspaceId": agent.workspace_id,
                "createdAt": self.stamp(agent.created),
            },
        )

    def whole_agent(self, agent: OrigamiAgent, last: OrigamiRun | None) -> Object:
        """Write an Agent."""
        return {**self.agent(agent), "apiKeyOwned": True, "lastRun": None if last is None else self.summary(last)}

    def container(self, agent: OrigamiAgent) -> Object:
        """Write the `workspace` of a created agent."""
        return self.named(
            "workspace",
            {
                "id": agent.workspace_id,
                "name": agent.name,
                "createdAt": self.stamp(agent.created),
                "createdByApi": not agent.legacy,
            },
        )

    def summary(self, run: OrigamiRun) -> Object:
        """Write a RunSummary."""
        now = self.stage.now()
        longer = len(run.prompt) > _SUMMARY
        return self.named(
            "run",
            {
                "id": run.id,
                "agentId": run.agent_id,
                "status": self.options.words.get(run.status, run.status),
                "prompt": run.prompt[:_SUMMARY] + "…" if longer else run.prompt,
                "model": run.model_at(now),
                "steps": {"completed": run.steps_at(now), "max": run.steps_max},
                "startedAt": self.stamp(run.started),
                "completedAt": self.stamp_or_null(run.ending.at if run.ending else None),
            },
        )

    def run(self, run: OrigamiRun, response: Object | None) -> Object:
        """Write a Run; unknown fields of the script come last."""
        end = run.ending
        request: Object = {"prompt": run.prompt, "model": run.model, "focusTableIds": run.focus}
        todo: Object = {
            "pendingQuestions": end.questions if end else [],
            "nextActions": end.next_actions if end else [],
        }
        return {
            **self.summary(run),
            "workspaceId": run.workspace_id,
            "request": request,
            "response": response,
            "todo": todo,
            **run.work.turn.extra,
        }

    def response(
        self, run: OrigamiRun, tables: Sequence[OrigamiTable], include: frozenset[str], history: Sequence[OrigamiRun]
    ) -> Object:
        """Write a RunResponse; `history` are the runs of the conversation up to this one."""
        transcript: list[JSON] | None = None
        truncated = False
        if "transcript" in include:
            whole: list[JSON] = [said for one in history if one.ending for said in _messages(one, one.ending)]
            cap = self.options.transcript_cap
            truncated = cap is not None and len(whole) > cap
            transcript = whole[-cap:] if truncated and cap else whole
        return {
            "text": run.ending.text if run.ending else None,
            "actions": run.actions,
            "tables": [self.table(table, stats="stats" in include) for table in tables],
            "transcriptTruncated": truncated,
            "transcript": transcript,
        }

    def table(self, table: OrigamiTable, *, stats: bool) -> Object:
        """Write a Table."""
        now = self.stage.now()
        columns = [self._table_column(table, column, now, stats=stats) for column in table.columns]
        price = self.options.credits_per_cell
        filled = len(table.filled)
        used = number(table.charged(now) * filled * price)
        body: Object = {
            "id": table.id,
            "workspaceId": table.workspace_id,
            "name": table.name,
            "leadCount": len(table.leads),
            "columns": columns,
            "credits": {"lifetimeUsed": used},
            "cells": {
                "running": table.count("running", now) * filled,
                "errored": table.count("errored", now) * filled,
            },
            "url": f"https://origami.chat/workspace/{table.workspace_id or table.id}?table={table.id}",
            "createdAt": self.stamp(table.created),
            "updatedAt": self.stamp(table.updated),
        }
        if stats:
            body["stats"] = table_stats(table, now, used, price, self.stamp)
        return self.named("table", body)

    def column(self, column: OrigamiColumn) -> Object:
        """Write a column as the list of columns has it."""
        return self.named(
            "column",
            {
                "id": column.id,
                "name": column.name,
                "slug": column.slug,
                "kind": column.kind,
                "autoTrigger": column.filled,
            },
        )

    def _table_column(self, table: OrigamiTable, column: OrigamiColumn, now: float, *, stats: bool) -> Object:
        price = self.options.credits_per_cell if column.filled else 0
        return {
            **self.column(column),
            "type": "code" if column.filled else "static",
            "credits": {"lifetimeUsed": number(table.charged(now) * price)},
            "cells": {
                "running": table.count("running", now) if column.filled else 0,
                "errored": table.count("errored", now) if column.filled else 0,
            },
            **(column_stats(table, column, now, price) if stats else {}),
        }

    def row(self, table: OrigamiTable, lead: OrigamiLead) -> Object:
        """Write a row with typed cells."""
        now = self.stage.now()
        cells: Object = {
            column.slug: {"type": "value" if column.filled else "scalar", "value": lead.value(column, now)}
            for column in table.columns
        }
        return self.named("row", {"id": lead.id, "cells": cells})

    def page(
        self,
        items: Sequence[_T],
        key: Callable[[_T], str],
        write: Callable[[_T], JSON],
        query: Mapping[str, str],
        *,
        most: int = 100,
        total: int | None = None,
    ) -> Page:
        """Cut the page that a query asks for; `total` is what G1 counts, if not the items."""
        if self.old:
            return by_number(items, query, write, len(items) if total is None else total)
        return after_cursor(items, key, query, write, most)

    def list(self, page: Page, path: str, word: str, **more: JSON) -> Object:
        """Write a list: the one envelope, or G1's under a word of its own with numbered pages."""
        if self.old:
            return {word: page.items, "pagination": page.numbers, **more}
        return {"object": "list", "items": page.items, "nextCursor": page.next_cursor, "url": path, **more}


def number(value: float) -> JSON:
    """Write a whole number without a fraction, any other without the noise of its sum."""
    rounded = round(value, 6)
    return int(rounded) if float(rounded).is_integer() else rounded


def _messages(run: OrigamiRun, end: Ending) -> list[Object]:
    """Write what a user sees of a run: the prompt, the prose, and the tools with a face (get-run, `transcript`)."""
    messages: list[Object] = [{"role": "user", "content": run.prompt}]
    calls: list[Object] = [
        {"id": f"call_{run.id[-8:]}_{place}", "name": widget.name, "input": widget.input}
        for place, widget in enumerate(end.widgets, start=1)
    ]
    if end.text is not None or calls:
        said: Object = {"role": "assistant", "content": end.text or ""}
        messages.append({**said, "toolCalls": calls} if calls else said)
    for call, widget in zip(calls, end.widgets, strict=True):
        result = widget.result if isinstance(widget.result, str) else json.dumps(widget.result)
        messages.append({
            "role": "tool",
            "toolCallId": call["id"],
            "name": widget.name,
            "result": result,
            "truncated": False,
        })
    return messages
