"""Origami's state: agents, runs and tables, moved on by the clock, with no sockets in sight."""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from agentruns.emulator.schema import JSON
from agentruns.emulator.script import Prompt
from agentruns.emulator.vendor import Stage

from .bodies import RunBody, TableAttachment
from .building import changed, new_table, settling
from .errors import ApiError, Object
from .options import OrigamiOptions
from .records import OrigamiAgent, OrigamiRun, OrigamiTable
from .work import ACTIONS, Deed, Ending, default_agent, work

_NAME: Final = 80
_RECENT: Final = 200
_UNKNOWN_WAIT: Final = 60


class State:
    """The rows; every method first settles what the clock has brought."""

    def __init__(self, stage: Stage, options: OrigamiOptions, stamp: Callable[[float], str]) -> None:
        self.stage = stage
        self.options = options
        self.stamp = stamp
        self.in_app = tuple(stage.ids.uuid() for _ in range(options.in_app))
        self._agents: dict[str, OrigamiAgent] = {}
        self._runs: dict[str, OrigamiRun] = {}
        self._tables: dict[str, OrigamiTable] = {}
        self._ended: list[str] = []
        self._coming: list[tuple[float, int, str, Callable[[OrigamiRun, float], None]]] = []
        self._planned = 0

    @property
    def agents(self) -> Mapping[str, OrigamiAgent]:
        """All agents by id, oldest first, archived ones among them."""
        return dict(self._agents)

    @property
    def runs(self) -> Mapping[str, OrigamiRun]:
        """All runs by id, oldest first, as they stand now."""
        self.settle()
        return dict(self._runs)

    @property
    def tables(self) -> Mapping[str, OrigamiTable]:
        """All tables by id, oldest first, as they stand now."""
        self.settle()
        return dict(self._tables)

    @property
    def balance(self) -> float:
        """What is left in the wallet: settled cells are paid, also those of columns deleted since."""
        self.settle()
        now = self.stage.now()
        cells = sum(
            table.charged(now) * sum(column.filled for column in (*table.columns, *table.deleted_columns))
            for table in self._tables.values()
        )
        return max(self.options.credits - cells * self.options.credits_per_cell, 0)

    def settle(self) -> None:
        """Let everything happen whose time has come, in order."""
        now = self.stage.now()
        while self._coming and self._coming[0][0] <= now:
            at, _, key, happen = heapq.heappop(self._coming)
            if self._runs[key].ending is None:
                happen(self._runs[key], at)

    def agent(self, key: str, project: str | None) -> OrigamiAgent:
        """Find an agent; archived ones and those of other projects are not told from missing ones."""
        self.settle()
        found = self._agents.get(key.lower())
        if found is None or found.project != project or found.deleted is not None:
            raise ApiError("AGENT_NOT_FOUND")
        return found

    def run(self, agent: OrigamiAgent, key: str) -> OrigamiRun:
        """Find a run of an agent."""
        if key not in agent.run_ids:
            raise ApiError("RUN_NOT_FOUND")
        return self._runs[key]

    def runs_of(self, agent: OrigamiAgent) -> list[OrigamiRun]:
        """List the runs of an agent, oldest first."""
        return [self._runs[key] for key in agent.run_ids]

    def table(self, key: str, project: str | None) -> OrigamiTable:
        """Find a table."""
        self.settle()
        found = self._tables.get(key.lower())
        if found is None or found.project != project:
            raise ApiError("TABLE_NOT_FOUND")
        return found

    def tables_at(self, keys: Sequence[str]) -> list[OrigamiTable]:
        """List the tables of these ids that there are."""
        self.settle()
        return self._tables_of(keys)

    def active(self) -> list[OrigamiRun]:
        """List the runs that hold a slot: all that have not ended."""
        self.settle()
        return [run for run in self._runs.values() if run.ending is None]

    def latest(self, agent: OrigamiAgent) -> OrigamiRun | None:
        """Find the latest run of an agent."""
        self.settle()
        return self._runs[agent.run_ids[-1]] if agent.run_ids else None

    def slot_wait(self) -> int:
        """Tell how long a slot usually takes to be free: the median of the last 200 runs, 60 if unknown."""
        if self.options.slot_retry_after is not None:
            return self.options.slot_retry_after
        ended = (self._runs[key] for key in self._ended[-_RECENT:])
        lengths = [run.ending.at - run.started for run in ended if run.ending]
        return max(math.ceil(statistics.median(lengths)), 1) if lengths else _UNKNOWN_WAIT

    def insert_table(self, table: OrigamiTable) -> None:
        """Keep a table made by hand."""
        self._tables[table.id] = table

    def insert_agent(self, name: str | None, body: RunBody, project: str | None, container: str | None) -> OrigamiAgent:
        """Make an agent without runs; inside another agent's session it inherits that one's tables."""
        key = self.stage.ids.uuid()
        parent = self._agents.get(container.lower()) if container else None
        # In the oldest generation a workspace is made for the agent, later the agent is its own container.
        own = self.stage.ids.uuid() if self.options.generation == "G1" else key
        row = OrigamiAgent(
            id=key,
            project=project,
            name=name or " ".join(body.prompt.split())[:_NAME] or "Agent",
            workspace_id=container or own,
            legacy=container is not None and parent is None,
            own_container=container is None,
            created=self.stage.now(),
            table_ids=parent.table_ids if parent else (),
        )
        self._agents[key] = row
        return row

    def start(self, agent: OrigamiAgent, body: RunBody) -> OrigamiRun:
        """Start a run that was admitted."""
        now = self.stage.now()
        plan = self.options.allowed
        prompt = Prompt(index=len(agent.run_ids), conversation_id=agent.id, text=body.prompt)
        turn = self.stage.play(prompt, otherwise=default_agent)
        attached = tuple(one.table_id for one in body.attachments if isinstance(one, TableAttachment))
        row = OrigamiRun(
            id=self.stage.ids.word("v2_run-", 26).lower(),
            agent_id=agent.id,
            workspace_id=agent.workspace_id,
            prompt=body.prompt,
            model=body.public_model or plan.default_model,
            default_model=plan.default_model,
            focus=tuple(body.focus_table_ids),
            attached=attached,
            steps_max=plan.steps_max,
            started=now,
            work=work(turn, plan.steps_max),
        )
        self._runs[row.id] = row
        linked = dict.fromkeys((*agent.table_ids, *(key.lower() for key in (*row.focus, *attached))))
        self._agents[agent.id] = attrs.evolve(agent, run_ids=(*agent.run_ids, row.id), table_ids=tuple(linked))
        for deed in row.work.deeds:
            self._plan(now + deed.after, row.id, self._doing(deed))
        self._plan(now + turn.lasts, row.id, lambda run, at: self._end(run, run.work.ended(at)))
        self._plan(now + self.options.time_limit, row.id, lambda run, at: self._stop(run, "timed_out", at))
        return row

    def cancel(self, run: OrigamiRun) -> OrigamiRun:
        """Ask a run to stop; it goes on for a while, and may end by itself before."""
        if run.ending is None and not run.cancelling:
            self._runs[run.id] = attrs.evolve(run, cancelling=True)
            at = self.stage.now() + self.options.cancel_delay
            self._plan(at, run.id, lambda it, moment: self._stop(it, "cancelled", moment))
            self.settle()
        return self._runs[run.id]

    def archive(self, agent: OrigamiAgent) -> OrigamiAgent:
        """Delete an agent softly; a run in flight ends as cancelled (the pages are silent on that)."""
        now = self.stage.now()
        last = self.latest(agent)
        if last is not None and last.ending is None:
            self._stop(last, "cancelled", now)
        row = attrs.evolve(self._agents[agent.id], deleted=now)
        self._agents[agent.id] = row
        return row

    def _tables_of(self, keys: Sequence[str]) -> list[OrigamiTable]:
        return [self._tables[key.lower()] for key in keys if key.lower() in self._tables]

    def _plan(self, at: float, key: str, happen: Callable[[OrigamiRun, float], None]) -> None:
        if math.isfinite(at):
            self._planned += 1
            heapq.heappush(self._coming, (at, self._planned, key, happen))

    def _doing(self, deed: Deed) -> Callable[[OrigamiRun, float], None]:
        return lambda run, at: self._do(run, deed, at)

    def _stop(self, run: OrigamiRun, status: str, at: float) -> None:
        self._end(run, run.work.stopped(status, at, at - run.started))

    def _end(self, run: OrigamiRun, ending: Ending) -> None:
        """End a run, which frees its slot; its cells go on being filled."""
        self._runs[run.id] = attrs.evolve(run, ending=ending)
        self._ended.append(run.id)
        for table in self._tables_of(run.touched):
            self._tables[table.id] = settling(table, ending.at, self.options.cells_settle)

    def _do(self, run: OrigamiRun, deed: Deed, at: float) -> None:
        """Change a table and report it; the first change of an agent without tables makes one."""
        agent = self._agents[run.agent_id]
        named = deed.arguments.get("tableId")
        key = named if isinstance(named, str) else next(reversed(agent.table_ids), None)
        if deed.type == "table_created" or key is None:
            run, key = self._create_table(run, deed, at)
            if deed.type == "table_created":
                return
        table = self._tables.get(key.lower())
        facts: Mapping[str, JSON] = deed.arguments
        if table is not None and not deed.verbatim and deed.type in ACTIONS:
            self._tables[table.id], facts = changed(
                self.stage.ids, table, deed, at, self.stamp(at), failing=self.options.cells_errored
            )
        self._report(run, {"type": deed.type, "tableId": key, **facts})

    def _create_table(self, run: OrigamiRun, deed: Deed, at: float) -> tuple[OrigamiRun, str]:
        agent = self._agents[run.agent_id]
        name = deed.arguments.get("tableName")
        columns = deed.arguments.get("columns")
        more = {"columns": columns} if isinstance(columns, Sequence) and not isinstance(columns, str) else {}
        table = new_table(
            self.stage.ids,
            name if isinstance(name, str) else agent.name,
            at,
            project=agent.project,
            workspace_id=agent.workspace_id if agent.legacy or self.options.generation == "G1" else None,
            **more,
        )
        self._tables[table.id] = table
        self._agents[agent.id] = attrs.evolve(agent, table_ids=(*agent.table_ids, table.id))
        return self._report(run, {"type": "table_created", "tableId": table.id, "tableName": table.name}), table.id

    def _report(self, run: OrigamiRun, action: Object) -> OrigamiRun:
        row = attrs.evolve(run, actions=(*run.actions, action))
        self._runs[run.id] = row
        return row
