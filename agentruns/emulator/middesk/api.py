"""Middesk's HTTP face: read the request, ask the state, write the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from http import HTTPStatus
from typing import ClassVar, Literal, Self, TypeAlias, TypeVar

from attrs import evolve, field, frozen, validators

from agentruns.emulator.schema import JSON
from agentruns.emulator.vendor import Reply, Request, Route, Stage, Vendor, make_options

from .access import Limiter, Requester, caller, key_of
from .actions import Action, Actions
from .bodies import feedback_body, page_of, resume_body, start_body, webhook_body, webhook_changes
from .errors import BAD_KEY, FEATURE_OFF, PLANTS, STREAM_PLANTS, TOO_MANY, RefusedError, not_found, planted
from .rows import Caller, Feedback, Object, Run, Style, Thread
from .state import Rules, State
from .stream import Feed, Flavour
from .webhooks import EVENTS, Delivery, Subscription, events_of, signed

Absent: TypeAlias = Literal["null", "omit", "random"]
"""How optional fields are written that are null, or an empty list."""

_R = TypeVar("_R", Run, Thread, Subscription)
_bool = validators.instance_of(bool)
_OLD_WORDS = {"running": "pending", "error": "failed"}
_OPTIONAL = frozenset({
    "requester",
    "started_at",
    "ended_at",
    "output",
    "interrupts",
    "metadata",
    "steps",
    "data",
})


def _two(_: object, __: object, value: tuple[str, ...]) -> None:
    if len(value) != 2 or value[0] == value[1] or not all(value):
        raise ValueError(f"resume_keys are the two names of the interrupt's id and the input, not {value!r}")


@frozen(kw_only=True)
class MiddeskOptions(Rules):
    """The options of `Emulator("middesk", ...)`.

    * `agents`: the agent types the account may use. `in_audit`: businesses for which no run starts
      (`emulator.state.in_audit` is the same set, open to changes).
    * `interrupt_policy`, `policy_overrides`: "manual", "auto_approve" or "skip", for all agents and by agent type.
    * `combine_proposals`: wrap the interrupts of a `cip_orchestrator` turn into one `combined_proposal`.
    * `strict`: a resume needs both its fields, business ids are UUIDs, and `business` is the only kind of context.
    * `resume_keys`: how the id and the input are called in a resume; `resume_status`: 200, 201, 202, or 204 with no
      body; `check_answer`: given the interrupt and the input, says why it is refused, or None.
    * `one_run_per_thread`: refuse a run while the thread has one that has not ended.
    * `operator_feedback`: the feature without which feedback is refused. `artifact_ids`: artifacts have an `id`.
    * `account`, `requester`: who the emulator's token is of, and who is said to start runs: "account", "user" or
      "system"; `others` maps more keys to the names of their accounts.
    * `rate_limit`: requests per second and key (Middesk says 20), None for any number; `retry_after`: the seconds in
      that refusal's header, None for no header.
    * `stream`: events as Middesk's pages have them, or as "ag-ui".
    * `ignores_answers`: answers are accepted without any effect, as those of a shape may be that only a person notices;
      `emulator.state.ignores_answers` is the same switch, open to changes.
    * `shown_after`: seconds until a new run is in the list of runs.
    * `old_status_words`: `pending` and `failed` for `running` and `error`; `words`: other words for those of `status`,
      such as {"completed": "done"}. `fractional_seconds`: milliseconds in timestamps. `absent`: optional fields without
      a value are "null", left out ("omit"), or either ("random").
    * `max_per_page`: the most of per_page, and its default; more is cut to it, or refused (`refuses_more_per_page`).
    """

    strict: bool = field(default=True, validator=_bool)
    resume_keys: tuple[str, str] = field(default=("interrupt_id", "input"), validator=_two)
    resume_status: int = field(default=200, validator=validators.in_((200, 201, 202, 204)))
    operator_feedback: bool = field(default=True, validator=_bool)
    account: str = "Harbor Lending Inc"
    requester: Requester = field(default="account", validator=validators.in_(("account", "user", "system")))
    others: Mapping[str, str] = field(factory=dict, repr=False)
    rate_limit: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    retry_after: int | None = None
    stream: Flavour = field(default="middesk", validator=validators.in_(("middesk", "ag-ui")))
    ignores_answers: bool = field(default=False, validator=_bool)
    shown_after: float = field(default=0.0, validator=validators.ge(0))
    old_status_words: bool = field(default=False, validator=_bool)
    words: Mapping[str, str] = field(factory=dict)
    fractional_seconds: bool = field(default=False, validator=_bool)
    absent: Absent = field(default="null", validator=validators.in_(("null", "omit", "random")))
    max_per_page: int = field(default=100, validator=validators.ge(1))
    refuses_more_per_page: bool = field(default=False, validator=_bool)


class Middesk(Vendor):
    """The vendor Middesk: agents, threads, runs, their streams, feedback and webhooks."""

    name: ClassVar[str] = "middesk"
    prefix: ClassVar[str] = "/v1"
    plants: ClassVar[Mapping[str, tuple[str, str]]] = {
        **{name: plant.place for name, plant in PLANTS.items()},
        **STREAM_PLANTS,
    }
    limits: ClassVar[Mapping[str, tuple[str, int]]] = {"limit": ("rate_limit", 1)}

    def __init__(self, stage: Stage, options: MiddeskOptions) -> None:
        super().__init__(stage)
        self.options = options
        self._state = State(stage, options)
        self._limiter = Limiter(options.rate_limit)
        self.ignores_answers = options.ignores_answers
        """Whether answers are accepted without any effect."""
        self._subscriptions: list[Subscription] = []
        self._style = Style(self._stamp, self._word)
        self._actions = Actions(stage, self._style)
        accounts = {stage.token: options.account, **options.others}
        self._callers = {key: caller(account, options.requester) for key, account in accounts.items()}
        self._routes = tuple(
            Route(method, self.prefix + template, self._guarded(handle))
            for method, template, handle in (
                ("GET", "/agents", self._list_agents),
                ("GET", "/agents/{id}", self._get_agent),
                ("GET", "/threads", self._list_threads),
                ("POST", "/threads", self._create_thread),
                ("GET", "/threads/{id}", self._get_thread),
                ("GET", "/runs", self._list_runs),
                ("POST", "/runs", self._create_run),
                ("GET", "/runs/{id}", self._get_run),
                ("POST", "/runs/{id}/resume", self._resume),
                ("GET", "/runs/{id}/stream", self._stream),
                ("POST", "/runs/{id}/feedback", self._rate),
                ("GET", "/webhooks", self._list_webhooks),
                ("POST", "/webhooks", self._subscribe),
                ("GET", "/webhooks/{id}", self._get_webhook),
                ("PUT", "/webhooks/{id}", self._update_webhook),
                ("DELETE", "/webhooks/{id}", self._delete_webhook),
                ("GET", "/actions", lambda request: self._actions.list(request, self._caller(request))),
                ("POST", "/actions", lambda request: self._actions.take(request, self._caller(request))),
                ("GET", "/actions/{id}", lambda request: self._actions.get(request, self._caller(request))),
            )
        )

    @classmethod
    def build(cls, stage: Stage, options: Mapping[str, object]) -> Self:
        """Make the vendor from the options given to the emulator."""
        return cls(stage, make_options(MiddeskOptions, options))

    @property
    def threads(self) -> Mapping[str, Thread]:
        """All threads by id, oldest first."""
        with self.lock:
            return self._state.threads

    @property
    def runs(self) -> Mapping[str, Run]:
        """All runs by id, oldest first, as they stand now."""
        with self.lock:
            return self._state.runs

    @property
    def feedback(self) -> tuple[Feedback, ...]:
        """All ratings, oldest first."""
        with self.lock:
            return tuple(self._state.feedback)

    @property
    def runs_started(self) -> int:
        """Count the runs; each one starts as it is created, and a resumed run is still the same."""
        return len(self.runs)

    def example_fields(self) -> Mapping[str, JSON]:
        """Give an agent that there is, and any business."""
        return {"type": self._state.agents[0].type, "business_id": self.stage.ids.uuid()}

    @property
    def actions(self) -> Sequence[Action]:
        """All actions that were taken, oldest first."""
        with self.lock:
            return self._actions.rows

    @property
    def in_audit(self) -> set[str]:
        """The businesses in audit, to be added to and taken from."""
        return self._state.in_audit

    def webhook(
        self,
        run_id: str,
        type: str | None = None,  # noqa: A002 - the vendor's word
        secret: str | None = None,
    ) -> tuple[dict[str, str], bytes]:
        """Make the request that tells of a run's latest event of a type, or latest of all: its headers and raw body.

        Asked again, it is the same event again, as a second delivery would be.
        """
        if type is not None and type not in EVENTS:
            raise ValueError(f"there is no event {type!r}, only {', '.join(EVENTS)}")
        events = list(events_of(self.runs[run_id]))
        fitting = [event for event in events if type in {None, event.type}]
        if not fitting:
            raise LookupError(f"no {type} has happened to the run, only {', '.join(event.type for event in events)}")
        body = fitting[-1].body(self._style)
        return signed(run_id, body, secret), body

    def deliveries(self) -> tuple[Delivery, ...]:
        """Make the requests that the subscribed endpoints are owed so far, oldest first, again at each call.

        The emulator sends none itself: a test sends them, in any order and as often as it likes.
        """
        with self.lock:
            subscriptions = tuple(self._subscriptions)
            events = sorted(
                (event for run in self._state.runs.values() for event in events_of(run)), key=lambda event: event.at
            )
        return tuple(
            Delivery(url=to.url, type=event.type, run_id=event.run.id, headers=headers, body=body)
            for event in events
            for to in subscriptions
            if to.wants(event)
            for body in (event.body(self._style),)
            for headers in (signed(event.run.id, body, to.secret),)
        )

    @property
    def routes(self) -> tuple[Route, ...]:
        """The endpoints."""
        return self._routes

    def admit(self, request: Request) -> Reply | None:
        """Check the key, then how often it came."""
        key = key_of(request)
        if key not in self._callers or key is None:
            return RefusedError(401, BAD_KEY).reply()
        if self._limiter.admits(key, self.stage.now()):
            return None
        wait = self.options.retry_after
        return RefusedError(429, TOO_MANY, headers={} if wait is None else {"Retry-After": str(wait)}).reply()

    def refusal(self, status: int, detail: str, path: str) -> Reply:  # noqa: ARG002 - the bodies do not tell the path
        """Answer with an error in the vendor's shape."""
        return RefusedError(status, detail).reply()

    def _guarded(self, handle: Callable[[Request], Reply]) -> Callable[[Request], Reply]:
        def guarded(request: Request) -> Reply:
            try:
                if request.planted is not None and request.planted in PLANTS:
                    raise planted(request.planted)
                return handle(request)
            except RefusedError as error:
                return error.reply()

        return guarded

    def _list_agents(self, _: Request) -> Reply:
        return Reply.of(200, {"data": [agent.json(self._style) for agent in self._state.agents]})

    def _get_agent(self, request: Request) -> Reply:
        for agent in self._state.agents:
            if agent.id == request.params["id"]:
                return Reply.of(200, agent.json(self._style))
        raise not_found("Agent")

    def _list_threads(self, request: Request) -> Reply:
        threads = self._state.threads_of(self._caller(request), request.query.get("business_id"))
        return self._page(request, threads, self._thread_json)

    def _create_thread(self, request: Request) -> Reply:
        body = start_body(request.content, strict=self.options.strict)
        return Reply.of(HTTPStatus.CREATED, self._thread_json(self._state.create_thread(body, self._caller(request))))

    def _get_thread(self, request: Request) -> Reply:
        return Reply.of(200, self._thread_json(self._state.thread(request.params["id"], self._caller(request))))

    def _list_runs(self, request: Request) -> Reply:
        shown = self.stage.now() - self.options.shown_after
        runs = [run for run in self._state.runs_of(self._caller(request)) if run.created <= shown]
        return self._page(request, runs, self._run_json)

    def _create_run(self, request: Request) -> Reply:
        body = start_body(request.content, strict=self.options.strict)
        return Reply.of(HTTPStatus.CREATED, self._run_json(self._state.start(body, self._caller(request))))

    def _get_run(self, request: Request) -> Reply:
        return Reply.of(200, self._run_json(self._found(request), steps=_with_steps(request)))

    def _resume(self, request: Request) -> Reply:
        self._found(request)
        body = resume_body(request.content, self.options.resume_keys, strict=self.options.strict)
        if self.ignores_answers:
            return Reply.of(self.options.resume_status, self._run_json(self._found(request)))
        run = self._state.resume(request.params["id"], self._caller(request), body)
        if self.options.resume_status == HTTPStatus.NO_CONTENT:
            return Reply(status=HTTPStatus.NO_CONTENT)
        return Reply.of(self.options.resume_status, self._run_json(run, steps=_with_steps(request)))

    def _stream(self, request: Request) -> Reply:
        run_id = self._found(request).id

        def look() -> Run:
            with self.lock:
                return self._state.look(run_id)

        feed = Feed(look, self._style, self.options.stream, request.planted)
        # the OpenAPI description declares a JSON string, the page on streams what is sent here
        return Reply(content_type="text/event-stream", headers={"Cache-Control": "no-cache"}, follow=feed)

    def _rate(self, request: Request) -> Reply:
        if not self.options.operator_feedback:
            raise RefusedError(403, FEATURE_OFF)
        self._found(request)
        rating = self._state.rate(request.params["id"], self._caller(request), feedback_body(request.content))
        return Reply.of(HTTPStatus.CREATED, rating.json(self._style))

    def _subscribe(self, request: Request) -> Reply:
        body = webhook_body(request.content)
        row = Subscription(
            id=self.stage.ids.uuid(),
            url=body.url,
            enabled_events=body.enabled_events,
            secret=body.secret,
            include=body.include,
            caller=self._caller(request),
            created=self.stage.now(),
            updated=self.stage.now(),
        )
        self._subscriptions.append(row)
        return Reply.of(HTTPStatus.CREATED, row.json(self._style))

    def _list_webhooks(self, request: Request) -> Reply:
        own = [row for row in self._subscriptions if row.caller.account == self._caller(request).account]
        return self._page(request, own, lambda row: row.json(self._style))

    def _get_webhook(self, request: Request) -> Reply:
        return Reply.of(200, self._subscription(request).json(self._style))

    def _update_webhook(self, request: Request) -> Reply:
        old = self._subscription(request)
        row = evolve(old, updated=self.stage.now(), **webhook_changes(request.content))
        self._subscriptions[self._subscriptions.index(old)] = row
        return Reply.of(200, row.json(self._style))

    def _delete_webhook(self, request: Request) -> Reply:
        self._subscriptions.remove(self._subscription(request))
        return Reply.of(200, {})  # what the body holds is on no page

    def _subscription(self, request: Request) -> Subscription:
        for row in self._subscriptions:
            if row.id == request.params["id"] and row.caller.account == self._caller(request).account:
                return row
        raise not_found("Webhook")

    def _caller(self, request: Request) -> Caller:
        return self._callers[key_of(request) or ""]

    def _found(self, request: Request) -> Run:
        return self._state.run(request.params["id"], self._caller(request))

    def _page(self, request: Request, rows: Sequence[_R], write: Callable[[_R], Object]) -> Reply:
        page, size = page_of(request.query, most=self.options.max_per_page, refuses=self.options.refuses_more_per_page)
        shown: list[JSON] = [write(row) for row in rows[(page - 1) * size : page * size]]
        body: Object = {
            "object": "list",
            "has_more": page * size < len(rows),
            "data": shown,
            "total_count": len(rows),
        }
        return Reply.of(200, self._written(body))

    def _run_json(self, run: Run, *, steps: bool = False) -> Object:
        return self._written(run.json(self._style, steps=steps))

    def _thread_json(self, thread: Thread) -> Object:
        return self._written(thread.json(self._style, self._state.runs_in(thread)))

    def _written(self, row: Object) -> Object:
        """Leave out or keep the optional fields without a value, as the options say."""
        if self.options.absent == "null":
            return row
        drop: Callable[[], bool] = self.stage.ids.coin if self.options.absent == "random" else lambda: True
        return {name: v for name, v in row.items() if name not in _OPTIONAL or v not in (None, [], ()) or not drop()}

    def _word(self, status: str) -> str:
        word = _OLD_WORDS.get(status, status) if self.options.old_status_words else status
        return self.options.words.get(word, word)

    def _stamp(self, seconds: float) -> str:
        moment = self.stage.wall(seconds).astimezone(UTC)
        timespec = "milliseconds" if self.options.fractional_seconds else "seconds"
        return moment.isoformat(timespec=timespec).replace("+00:00", "Z")


def _with_steps(request: Request) -> bool:
    return "steps" in (name.strip() for name in request.query.get("include", "").split(","))
