"""Origami's HTTP face: read the request, ask the state, write the answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import ClassVar, Final, Self

import attrs

from agentruns.emulator.schema import JSON
from agentruns.emulator.vendor import Reply, Request, Route, Stage, Vendor, make_options

from .admission import Door
from .bodies import CreateBody, RunBody, decode, is_uuid
from .building import COLUMNS, added, new_table
from .campaigns_api import Campaign, CampaignStarts
from .errors import ADMISSION, BEFORE_HANDLERS, CODES, ApiError, Object, code_of, invalid
from .idempotency import Keys
from .limits import Budget
from .options import OrigamiOptions
from .records import OrigamiAgent, OrigamiRun, OrigamiTable
from .state import State
from .tables_api import TableReads, included
from .wire import Pen, number

CANCEL_LOST: Final = "CANCEL_LOST"
ADMITTED_500: Final = "ADMITTED_500"

_PROJECT: Final = "x-origami-project"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Origami(Vendor):
    """The vendor Origami, Agents API v2: agents, their runs, and the tables these build.

    A script's words mean here:

    * a client-side call ends the run as `needs_input`: `Call("ask-questions", {"question": ..., "type": ...,
      "suggestedAnswers": [...]})` is a question, several calls are several; any other tool asks for confirmation;
    * a server-side call named as a type of `response.actions[]`, such as `Call("leads_added", {"rows": [...]},
      server_side=True)`, changes a table: the one of `tableId`, else the agent's latest, else a new one;
      "table_created" takes `tableName` and `columns` (names, or `name`, `kind` and `slug`), "column_added"
      `columnName` and `kind`, "leads_added" `rows` or `leadCount`, deletions and restorations `count`;
    * a server-side "action" is reported verbatim and changes nothing, "next_action" is a suggestion of `todo`, the
      tools of the vendor's own chat (`PUBLIC_TOOLS`) are in transcripts, and all others leave no trace;
    * `error` is the terminal status, also a word nobody knows; `status` is a word instead of "running";
      `iterations` are steps, and as many as the plan allows end as `step_cap_hit`; `usage` has no place.
    """

    name: ClassVar[str] = "origami"
    prefix: ClassVar[str] = "/api/v2"
    plants: ClassVar[Mapping[str, tuple[str, str]]] = {
        **{code: kind.place for code, kind in CODES.items()},
        CANCEL_LOST: ("POST", "/api/v2/agents/*/cancel"),
        ADMITTED_500: ADMISSION,
    }
    limits: ClassVar[Mapping[str, tuple[str, int]]] = {"limit": ("requests_per_minute", 60), "slots": ("slots", 1)}

    def __init__(self, stage: Stage, options: OrigamiOptions) -> None:
        super().__init__(stage)
        self.options = options
        self._pen = Pen(stage, options)
        self._state = State(stage, options, self._pen.stamp)
        self._door = Door(self._state)
        self._keys = Keys(store_refusals=options.store_refusals, in_flight=options.in_flight)
        self._budget = Budget(
            options.requests_per_minute,
            options.requests_per_minute_ip,
            stage.wall,
            hint=options.rate_limit_retry_after,
        )
        self._organization = stage.ids.uuid()
        tables = TableReads(self._state, self._pen, self._project)
        self._campaigns = CampaignStarts(self._state, self._door, self._pen, self._project, self._run_json)
        self._routes = tuple(
            Route(method, self.prefix + template, self._guarded(handle))
            for method, template, handle in (
                ("POST", "/agents", self._create),
                ("GET", "/agents", self._agents),
                ("GET", "/agents/{id}", self._agent),
                ("DELETE", "/agents/{id}", self._archive),
                ("POST", "/agents/{id}/runs", self._follow_up),
                ("GET", "/agents/{id}/runs", self._runs),
                ("GET", "/agents/{id}/runs/{run}", self._run),
                ("POST", "/agents/{id}/cancel", self._cancel),
                ("GET", "/agents/{id}/tables", tables.of_agent),
                ("GET", "/tables", tables.all),
                ("GET", "/tables/{id}", tables.one),
                ("GET", "/tables/{id}/rows", tables.rows),
                ("GET", "/tables/{id}/rows/{row}", tables.row),
                ("GET", "/tables/{id}/columns", tables.columns),
                ("POST", "/tables/{id}/campaigns", self._campaigns.draft),
                ("POST", "/campaigns/{id}/edits", self._campaigns.edit),
                ("GET", "/account", self._account),
                ("GET", "/account/credits", self._credits),
            )
        )

    @classmethod
    def build(cls, stage: Stage, options: Mapping[str, object]) -> Self:
        """Make the vendor from the options given to the emulator."""
        return cls(stage, make_options(OrigamiOptions, options))

    @property
    def agents(self) -> Mapping[str, OrigamiAgent]:
        """All agents by id, oldest first, archived ones among them."""
        with self.lock:
            self._state.settle()
            return self._state.agents

    @property
    def runs(self) -> Mapping[str, OrigamiRun]:
        """All runs by id, oldest first, as they stand now."""
        with self.lock:
            return self._state.runs

    @property
    def tables(self) -> Mapping[str, OrigamiTable]:
        """All tables by id, oldest first, as they stand now."""
        with self.lock:
            return self._state.tables

    @property
    def campaigns(self) -> Mapping[str, Campaign]:
        """All campaigns by id, oldest first; the API tells of them in lists that are not emulated."""
        with self.lock:
            return dict(self._campaigns.campaigns)

    @property
    def runs_started(self) -> int:
        """Count the runs that were admitted; a replay or a refused request starts none."""
        return len(self.runs)

    def example_fields(self) -> Mapping[str, JSON]:
        """Give a prompt, which makes an agent."""
        return {"prompt": "Hello."}

    def runs_of(self, agent_id: str) -> tuple[OrigamiRun, ...]:
        """List the runs of one agent, oldest first."""
        return tuple(run for run in self.runs.values() if run.agent_id == agent_id)

    def add_agent(self, name: str, *, project: str | None = None) -> OrigamiAgent:
        """Make an agent that never ran."""
        with self.lock:
            return self._state.insert_agent(name, RunBody(prompt=name), project, None)

    def add_table(
        self,
        name: str,
        rows: Sequence[Mapping[str, JSON]] = (),
        *,
        columns: Sequence[JSON] = COLUMNS,
        project: str | None = None,
        workspace_id: str | None = None,
        filters: Sequence[Object] = (),
        sort: Object | None = None,
    ) -> OrigamiTable:
        """Make a table no agent has made, all of its cells filled; `filters` and `sort` are its saved view."""
        with self.lock:
            now = self.stage.now()
            ids = self.stage.ids
            table = new_table(ids, name, now, columns=columns, project=project, workspace_id=workspace_id)
            table = attrs.evolve(added(ids, table, rows, due=now), filters=tuple(filters), sort=sort)
            self._state.insert_table(table)
            return table

    @property
    def routes(self) -> tuple[Route, ...]:
        """The endpoints."""
        return self._routes

    def respond(self, request: Request) -> Reply:
        """Answer one request, with the headers that all answers have."""
        with self.lock:
            reply = super().respond(request)
            headers = {**reply.headers, **self._budget.headers(self.stage.now())}
            if self.options.request_ids:
                given = request.headers.get("X-Request-Id", "")
                headers["X-Request-Id"] = given if _REQUEST_ID.fullmatch(given) else self.stage.ids.uuid()
            return attrs.evolve(reply, headers=headers)

    def admit(self, request: Request) -> Reply | None:
        """Check the key, the request budget, the plan and the project, in this order."""
        try:
            if request.bearer != self.stage.token or request.planted == "UNAUTHORIZED":
                raise ApiError("UNAUTHORIZED")
            if request.planted == "RATE_LIMITED":
                raise self._budget.planted(self.stage.now())
            self._budget.spend(self.stage.now())
            if not self.options.allowed.models:
                raise ApiError("SUBSCRIPTION_REQUIRED")
            self._check_project(request)
            if request.planted is not None and request.planted in BEFORE_HANDLERS:
                raise ApiError(request.planted)
        except ApiError as error:
            return error.reply()
        return None

    def refusal(self, status: int, detail: str, path: str) -> Reply:  # noqa: ARG002
        """Answer with an error that no rule of the vendor calls for."""
        return Reply.of(status, {"error": detail, "code": code_of(status)})

    def _check_project(self, request: Request) -> None:
        project = self._project(request)
        if project is None:
            return
        if not is_uuid(project):
            raise invalid(_PROJECT, "Must be a UUID")
        if self.options.projects is not None and project not in self.options.projects:
            raise ApiError("PROJECT_NOT_FOUND")

    def _project(self, request: Request) -> str | None:
        """Read the project; the account always is the parent organization's, and G1 knows no projects."""
        ignored = self._pen.old or request.path.startswith(f"{self.prefix}/account")
        return None if ignored else request.headers.get(_PROJECT)

    def _guarded(self, handle: Callable[[Request], Reply]) -> Callable[[Request], Reply]:
        def planted(request: Request) -> Reply:
            try:
                if request.planted in CODES:
                    raise self._planted(request)
                return handle(request)
            except ApiError as error:
                return error.reply()

        def guarded(request: Request) -> Reply:
            if request.method != "POST" or self._pen.old:
                return planted(request)
            try:
                if request.planted == "IDEMPOTENCY_ERROR":
                    raise ApiError(request.planted)
                return self._keys.once(
                    request, self._project(request), self.stage.now(), lambda: self._admitted(planted(request), request)
                )
            except ApiError as error:
                return error.reply()

        return guarded

    def _admitted(self, reply: Reply, request: Request) -> Reply:
        """Lose an answer after the work was done: what is not stored, a retry does again."""
        lost = request.planted == ADMITTED_500 and reply.status < HTTPStatus.BAD_REQUEST
        return ApiError("INTERNAL_ERROR").reply() if lost else reply

    def _planted(self, request: Request) -> ApiError:
        """Make a planned refusal, as much as possible from what there is."""
        code = request.planted or ""
        if code == "CONCURRENT_LIMIT_EXCEEDED":
            return self._door.full()
        agent = self.agents.get(request.params.get("id", ""))
        last = self._state.latest(agent) if agent is not None else None
        if code == "AGENT_BUSY" and last is not None:
            return self._door.busy(last)
        if code == "VALIDATION_ERROR":
            return invalid("prompt", "Planned by the emulator's user")
        return ApiError(code)

    def _create(self, request: Request) -> Reply:
        body = decode(CreateBody, request.content)
        project = self._project(request)
        self._door.check_create(body, project)
        agent = self._state.insert_agent(body.name, body, project, body.workspace_id)
        run = self._state.start(agent, body)
        return Reply.of(
            202,
            {"agent": self._pen.agent(agent), "run": self._run_json(run), "workspace": self._pen.container(agent)},
        )

    def _follow_up(self, request: Request) -> Reply:
        body = decode(RunBody, request.content)
        agent = self._named_agent(request)
        self._door.check_follow_up(body, agent)
        return Reply.of(202, {"run": self._run_json(self._state.start(agent, body))})

    def _cancel(self, request: Request) -> Reply:
        agent = self._named_agent(request)
        run = self._state.latest(agent)
        if run is not None and request.planted != CANCEL_LOST:
            run = self._state.cancel(run)
        return Reply.of(200, {"run": None if run is None else self._run_json(run)})

    def _agents(self, request: Request) -> Reply:
        project = self._project(request)
        self._state.settle()
        # Newest first, as the vendor's other lists are.
        live = [
            agent
            for agent in reversed(list(self._state.agents.values()))
            if agent.project == project and agent.deleted is None
        ]
        wanted = request.query.get("search", "").casefold()
        found = [agent for agent in live if wanted in agent.name.casefold()]
        page = self._pen.page(found, lambda agent: agent.id, self._agent_json, request.query, total=len(live))
        return Reply.of(200, self._pen.list(page, request.path, "agents"))

    def _agent(self, request: Request) -> Reply:
        return Reply.of(200, self._agent_json(self._named_agent(request)))

    def _archive(self, request: Request) -> Reply:
        agent = self._state.archive(self._named_agent(request))
        when = self._pen.stamp_or_null(agent.deleted)
        container: Object = {"id": agent.workspace_id, "deletedAt": when if agent.own_container else None}
        return Reply.of(
            200,
            {
                "agent": self._pen.named("agent", {"id": agent.id, "deletedAt": when}),
                "workspace": self._pen.named("workspace", container),
            },
        )

    def _runs(self, request: Request) -> Reply:
        newest_first = self._state.runs_of(self._named_agent(request))[::-1]
        page = self._pen.page(newest_first, lambda run: run.id, self._pen.summary, request.query)
        return Reply.of(200, self._pen.list(page, request.path, "runs"))

    def _run(self, request: Request) -> Reply:
        agent = self._named_agent(request)
        run = self._state.run(agent, request.params["run"])
        reply = Reply.of(200, self._run_json(run, included(request)))
        hint = self.options.retry_after
        if run.ending is not None or hint is None:
            return reply
        return attrs.evolve(reply, headers={"Retry-After": str(hint)})

    def _account(self, _: Request) -> Reply:
        plan = self.options.allowed
        body: Object = {
            "organization": {"id": self._organization, "name": "Emulated organization"},
            "plan": {"id": self.options.plan, "name": self.options.plan.capitalize()},
            "capabilities": {"canUseApi": True, "canRunScheduledTasks": True, "concurrentAgents": plan.slots},
            "workspaces": {"used": 0, "limit": None},
        }
        return Reply.of(200, self._pen.named("account", body))

    def _credits(self, _: Request) -> Reply:
        body: Object = {"balance": number(self._state.balance), "currency": "credits"}
        return Reply.of(200, self._pen.named("credits", body))

    def _named_agent(self, request: Request) -> OrigamiAgent:
        return self._state.agent(request.params["id"], self._project(request))

    def _agent_json(self, agent: OrigamiAgent) -> Object:
        return self._pen.whole_agent(agent, self._state.latest(agent))

    def _run_json(self, run: OrigamiRun, include: frozenset[str] = frozenset()) -> Object:
        """Write a run, whose response is null while it is running unless the options say otherwise."""
        if run.ending is None:
            partial = self.options.partial_response
            return self._pen.run(run, self._pen.response(run, (), frozenset(), ()) if partial else None)
        runs = self._state.runs_of(self._state.agents[run.agent_id])
        history = runs[: runs.index(run) + 1]
        return self._pen.run(run, self._pen.response(run, self._state.tables_at(run.touched), include, history))
