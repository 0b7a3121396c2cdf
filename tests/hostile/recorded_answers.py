"""What the emulated vendors answer to every flow of every dialect, recorded once, to be spoiled and played back."""

import asyncio
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

import msgspec
from attrs import evolve, field, frozen

from agentruns import AgentRunsError, Retry, ToolOutput, TransportError
from agentruns._api.flow import perform
from agentruns._values.commands import Checkpoint, Flow
from agentruns._values.exchange import Request, Response
from agentruns.dialects import conduit, middesk, narrative, origami
from agentruns.emulator import Call, Turn
from tests.emulator.conduit_caller import ESCALATED
from tests.emulator.middesk_caller import ASK as PROPOSAL
from tests.emulator.middesk_caller import BUSINESS
from tests.emulator.origami_caller import ASK, builds
from tests.hostile.hostile_servers import HOUSES, TOKEN, House, answered
from tests.scripted_wire import VirtualLoop

ONCE: Final = Retry(attempts=1)
LOST: Final = "the connection was reset"

Make: TypeAlias = Callable[[], Flow[Any]]


@frozen
class Answer:
    """One answer, and what it answers; a status of 0 says that it was lost on its way."""

    line: str
    status: int
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = b""


@frozen
class Operation:
    """A flow, as often as one likes, and what the vendor answers to its requests."""

    vendor: str
    name: str
    make: Make = field(repr=False)
    answers: Sequence[Answer] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.vendor} {self.name}"

    @property
    def dialect(self) -> Any:
        return HOUSES[self.vendor].dialect


class Recorder:
    """Performs flows against a vendor in memory, and remembers what was answered; some answers are lost on the way."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.operations: list[Operation] = []
        self._log: list[Answer] = []
        self._losing = ""

    async def do(self, name: str, make: Make, *, losing: str = "") -> Any:
        """Perform a flow; the first answer to a request whose line ends with *losing* is lost."""
        self._log, self._losing = [], losing
        try:
            return await perform(make(), self._send, self.house.dialect.problem, ONCE)
        finally:
            self.operations.append(Operation(self.house.name, name, make, tuple(self._log)))

    async def recover(self, origin: Any) -> None:
        """Perform a start, and then what finds it again after a crash, where the vendor needs such a thing."""
        dialect: Any = self.house.dialect
        if hasattr(dialect, "recover"):
            note = await self._noted(dialect.start(origin))
            await asyncio.sleep(60.0)
            if note:
                await self.do("recover", partial(dialect.recover, origin, note))

    async def _noted(self, flow: Flow[Any]) -> Mapping[str, Any]:
        """Perform a start, and return what it wants to be kept for the case of a crash."""
        notes: list[Mapping[str, Any]] = [{}]

        def listening() -> Flow[Any]:
            wanted = next(flow)
            while True:
                if isinstance(wanted, Checkpoint):
                    notes.append(wanted.data)
                answer = yield wanted
                try:
                    wanted = flow.send(answer)
                except StopIteration as end:
                    return end.value

        await perform(listening(), self._send, self.house.dialect.problem, ONCE)
        return notes[-1]

    async def _send(self, request: Request) -> Response:
        prefix = self.house.vendor.prefix
        body = b"" if request.json is None else msgspec.json.encode(request.json)
        line = f"{request.method} {prefix}{request.path}?{urlencode(request.params)}"
        reply = answered(self.house.vendor, TOKEN, line, request.headers.items(), body)
        if self._losing and request.line.endswith(self._losing):
            self._losing = ""
            self._log.append(Answer(request.line, 0))
            raise TransportError(request, LOST)
        headers = {name.lower(): value for name, value in reply.headers.items()}
        self._log.append(Answer(request.line, int(reply.status), headers, reply.content))
        return Response(reply.status, headers, reply.content, request)


def template(line: str) -> str:
    """Return the line of a request without its ids."""
    return re.sub(r"/[^/]*\d[^/]*", "/*", line)


@cache
def known(vendor: str) -> Mapping[str, Sequence[Answer]]:
    """Return what a vendor answered to lines of each form."""
    found: dict[str, list[Answer]] = {}
    for operation in operations():
        if operation.vendor == vendor:
            for answer in operation.answers:
                found.setdefault(template(answer.line), []).append(answer)
    return found


Spoil: TypeAlias = Callable[[Answer], Answer]


class Playback:
    """Answers as recorded, by the line of the request, or as some request of the same form was; each spoiled first."""

    MOST = 2000
    """Requests after which a flow is taken to go round for ever: the longest start makes some hundreds."""

    def __init__(self, operation: Operation, spoil: Spoil) -> None:
        self._operation = operation
        self._left: dict[str, list[Answer]] = {}
        for answer in operation.answers:
            self._left.setdefault(answer.line, []).append(answer)
        self._spoil = spoil
        self.said: list[Answer] = []

    async def __call__(self, request: Request) -> Response:
        assert len(self.said) < self.MOST, "this goes round and round"
        spoilt = self._spoil(self._honest(request))
        self.said.append(spoilt)
        if spoilt.status == 0:
            raise TransportError(request, LOST)
        return Response(spoilt.status, spoilt.headers, spoilt.body, request)

    def _honest(self, request: Request) -> Answer:
        answers = self._left.get(request.line)
        if answers is None:
            others = known(self._operation.vendor).get(template(request.line), ())
            answers = self._left[request.line] = list(others) or [Answer(request.line, 404, {}, b"{}")]
        return answers.pop(0) if len(answers) > 1 else answers[0]


async def played(playback: Playback, operation: Operation, attempts: int = 1) -> Any:
    """Return what a flow returns, or the error of ours that it raises."""
    try:
        return await perform(operation.make(), playback, operation.dialect.problem, Retry(attempts=attempts))
    except AgentRunsError as error:
        return error


# Tours ----------------------------------------------------------------------------------------------------------------


async def narrative_tour() -> Recorder:
    script = [
        Turn(calls=[Call("user-ask", {"question": "Shall I?"})], running=5.0),
        Turn("Done.", structured={"text": "Done."}, running=5.0),
        Turn(error="AgentLoopMaxIterationsExceeded", running=5.0),
    ]
    recorder = Recorder(HOUSES["narrative"](*script))
    do = recorder.do

    def ask(question: str) -> str:
        """Ask the user."""
        return question

    config = narrative.Config(
        model="anthropic.claude-opus-4.6",
        data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
        max_iterations=8,
        max_tokens=2048,
        output_format_schema=narrative.TEXT_SCHEMA,
        client_tools=[narrative.client_tools({"ask": ask}, alias="user")],
        mcp_servers=[narrative.McpServer(alias="crm", url="https://crm.test/mcp", tools=[])],
    )
    made = await do("create", lambda: narrative.create_conversation(config, name="triage", system_prompt="Be brief."))
    origin = narrative.UserMessage(made.id, "Do it.", config_override={"max_tokens": 99})
    run = await do("start", lambda: narrative.start(origin))
    await do("fetch pending", lambda: narrative.fetch(run.ref, {}))
    await asyncio.sleep(2.0)
    await do("fetch running", lambda: narrative.fetch(run.ref, {}))
    await asyncio.sleep(60.0)
    paused = await do("fetch paused", lambda: narrative.fetch(run.ref, {}))
    outputs = [ToolOutput(paused.actions[0], {"answer": ["yes", 1]})]
    following = await do("resume", lambda: narrative.resume(paused, outputs))
    await asyncio.sleep(60.0)
    await do("fetch completed", lambda: narrative.fetch(following.ref, {}))
    await do("answer", lambda: narrative.answered_by(paused))
    await do("resume first", lambda: narrative.resume_first(paused, outputs))
    await do("resume again", lambda: narrative.resume_again(paused, outputs))
    failing = await do("start again", lambda: narrative.start(narrative.UserMessage(made.id, "Once more.")))
    await asyncio.sleep(60.0)
    await do("fetch failed", lambda: narrative.fetch(failing.ref, {}))
    await recorder.recover(narrative.UserMessage(made.id, "And again."))
    await do("conversation", lambda: narrative.get_conversation(made.id))
    await do("conversations", lambda: narrative.list_conversations())
    await do("messages", lambda: narrative.list_messages(made.id))
    await do("trace", lambda: narrative.read_trace(paused))
    await do("tools", lambda: narrative.read_tools(evolve(run, raw={})))
    await do("whoami", lambda: narrative.whoami())
    return recorder


async def middesk_tour() -> Recorder:
    def script(prompt: Any) -> Turn:
        if prompt.agent == "watchlist_resolution" and not prompt.outputs:
            return Turn(calls=[PROPOSAL, PROPOSAL], running=5.0)
        if prompt.agent == "document_analysis":
            return Turn(error="Boom", running=5.0)
        return Turn("Name and TIN match.", running=5.0)

    recorder = Recorder(HOUSES["middesk"](script=script))
    do = recorder.do
    agents = await do("agents", middesk.list_agents)
    await do("agent", lambda: middesk.get_agent(agents.items[0].id))
    thread = await do("create thread", lambda: middesk.create_thread("cip_orchestrator", business_id=BUSINESS))
    await do("thread", lambda: middesk.get_thread(thread.id))
    await do("threads", lambda: middesk.list_threads(per_page=2))
    origin = middesk.RunRequest("cip_orchestrator", business_id=BUSINESS)
    run = await do("start", lambda: middesk.start(origin))
    await do("start on a thread", lambda: middesk.start(middesk.RunRequest("cip_orchestrator", thread_id=thread.id)))
    await do("start, lost", lambda: middesk.start(origin), losing="/runs")
    await recorder.recover(origin)
    await do("fetch running", lambda: middesk.fetch(run.ref, {"include": "steps"}))
    await asyncio.sleep(60.0)
    done = await do("fetch completed", lambda: middesk.fetch(run.ref, {"include": "steps"}))
    artifact = done.output["artifacts"][0]["id"]
    await do("feedback", lambda: middesk.give_feedback(run.id, rating="POSITIVE", artifact_id=artifact, comment="Yes."))
    hook = await do("subscribe", lambda: middesk.create_webhook("https://app.example/hook", ["*"]))
    await do("webhook", lambda: middesk.get_webhook(hook.id))
    await do("webhooks", lambda: middesk.list_webhooks())
    await do("update webhook", lambda: middesk.update_webhook(hook.id, enabled_events=["run.completed"]))
    await do("delete webhook", lambda: middesk.delete_webhook(hook.id))
    about = ("businesses", BUSINESS)
    action = await do("action", lambda: middesk.take_action(*about, "decision", {"decision": "approve"}))
    await do("get action", lambda: middesk.get_action(action.id, *about))
    await do("actions", lambda: middesk.list_actions(*about))
    asking = await do(
        "start asking", lambda: middesk.start(middesk.RunRequest("watchlist_resolution", business_id=BUSINESS))
    )
    await asyncio.sleep(60.0)
    paused = await do("fetch paused", lambda: middesk.fetch(asking.ref, {"include": "steps"}))
    yes, no = paused.actions
    outputs = [ToolOutput(yes, {"decision": "approve"}), ToolOutput(no, "gone", is_error=True)]
    await do("resume", lambda: middesk.resume(paused, outputs))
    again = await do(
        "start asking again", lambda: middesk.start(middesk.RunRequest("watchlist_resolution", business_id=BUSINESS))
    )
    await asyncio.sleep(60.0)
    waits = await do("fetch paused again", lambda: middesk.fetch(again.ref, {}))
    await do("resume first", lambda: middesk.resume_first(waits, [ToolOutput(each, "yes") for each in waits.actions]))
    await do("page", lambda: middesk.page("", None))
    return recorder


async def origami_tour() -> Recorder:
    def script(prompt: Any) -> Turn:
        return {
            "Build": builds(),
            "Ask": Turn("Two things.", calls=[ASK, Call("ask-questions", {"type": "confirm", "question": "Sure?"})]),
            "Stop": Turn("Not all of it.", error="incomplete"),
            "Fail": Turn(error="errored"),
            "Hang": Turn(running=math.inf),
        }.get((prompt.text or "").partition(" ")[0], Turn("Done.", running=5.0))

    recorder = Recorder(HOUSES["origami"](script=script))
    do = recorder.do
    everything = {"include": "stats,transcript"}
    start = await do("start", lambda: origami.start(origami.Prompt("Build a table.", name="Clinics")))
    agent = start.ref.parent
    await do("fetch running", lambda: origami.fetch(start.ref, {}))
    await asyncio.sleep(60.0)
    await do("fetch completed", lambda: origami.fetch(start.ref, everything))
    tables = await do("tables", lambda: origami.list_tables(agent, include="stats"))
    table = tables.items[0].id
    await do("table", lambda: origami.get_table(table, include="stats"))
    rows = await do("rows", lambda: origami.list_rows(table, limit=1))
    await do("flat rows", lambda: origami.list_rows(table, cells="flat"))
    await do("row", lambda: origami.get_row(table, rows.items[0].id))
    await do("csv", lambda: origami.get_csv(table))
    await do("columns", lambda: origami.list_columns(table))
    await do("tables of all", origami.list_tables_of_organization)
    await do("campaign", lambda: origami.draft_campaign(table, "Introduce us."))
    await asyncio.sleep(60.0)
    await do("edit", lambda: origami.edit_campaign(next(iter(recorder.house.vendor.campaigns)), "Be brief."))
    await asyncio.sleep(60.0)
    for word in ("Ask", "Stop", "Fail"):
        prompt = origami.Prompt(f"{word} me.", agent_id=agent)
        run = await do(f"start to {word.lower()}", partial(origami.start, prompt))
        await asyncio.sleep(60.0)
        last = await do(f"fetch after {word.lower()}", partial(origami.fetch, run.ref, everything))
        if word == "Ask":
            outputs = [ToolOutput(action, "Any") for action in last.actions]
            await do("resume", partial(origami.resume, last, outputs))
            await asyncio.sleep(60.0)
            await do("answer", partial(origami.answered_by, last))
            await do("resume first", partial(origami.resume_first, last, outputs))
            await do("resume again", partial(origami.resume_again, last, outputs))
    hanging = await do("start to hang", lambda: origami.start(origami.Prompt("Hang on.", agent_id=agent)))
    busy = origami.Prompt("Wait.", agent_id=agent, busy_wait=30.0)
    with suppress(AgentRunsError):
        await do("start on a busy agent", lambda: origami.start(busy))
    note = {"attempt": 0, "forgotten": True, "since": None}
    await do("recover", lambda: origami.recover(origami.Prompt("Hang on.", agent_id=agent), note))
    await do("cancel", lambda: origami.cancel(hanging.ref))
    await asyncio.sleep(60.0)
    await do("page", lambda: origami.page(agent, None))
    await do("start, lost", lambda: origami.start(origami.Prompt("Once.")), losing="/agents")
    await asyncio.sleep(60.0)
    await recorder.recover(origami.Prompt("Once more."))
    await do("agents", lambda: origami.list_agents(search="clinics"))
    await do("agent", lambda: origami.get_agent(agent))
    await do("account", origami.get_account)
    await do("credits", origami.get_credits)
    await do("archive", lambda: origami.archive_agent(agent), losing=agent)
    return recorder


async def conduit_tour() -> Recorder:
    call = Call("book", {"unit": "12B"}, server_side=True)
    asks = {**ESCALATED, "contact_id": "co1", "conversation_id": "cv1", "guest_message": "Help!"}
    turns = iter([
        Turn("Booked.", running=5.0, calls=[call], extra=asks),
        Turn("Booked.", running=5.0, usage=(10, 20)),
        Turn("Booked.", running=5.0),
        Turn("Booked.", running=5.0),
        Turn(error="Boom", running=5.0),
    ])
    recorder = Recorder(HOUSES["conduit"](script=lambda _: next(turns)))
    do, state = recorder.do, recorder.house.vendor
    agent = state.agent_id
    workspaces = await do("workspaces", conduit.list_workspaces)
    workspace = workspaces.items[0].id
    await do("agents", lambda: conduit.list_agents(workspace))
    await do("agent", lambda: conduit.get_agent(agent))
    first = await do(
        "start", lambda: conduit.start(conduit.Dispatch(agent, trigger_id=state.trigger_id, payload={"n": 1}))
    )
    await do("fetch accepted", lambda: conduit.fetch(first.ref, {}))
    await asyncio.sleep(60.0)
    done = await do("fetch completed", lambda: conduit.fetch(first.ref, {}))
    await do("start, one trigger", lambda: conduit.start(conduit.Dispatch(agent)))
    await asyncio.sleep(60.0)
    lost = conduit.Dispatch(agent, trigger_id=state.trigger_id)
    await do("start, lost", lambda: conduit.start(lost), losing="/run")
    await asyncio.sleep(60.0)
    await recorder.recover(lost)
    await do("runs", lambda: conduit.list_runs(agent))
    await do("page", lambda: conduit.page(agent, None))
    failing = await do("start to fail", lambda: conduit.start(conduit.Dispatch(agent, trigger_id=state.trigger_id)))
    await asyncio.sleep(60.0)
    await do("fetch failed", lambda: conduit.fetch(failing.ref, {}))
    users = await do("users", lambda: conduit.list_users(workspace))
    listed = await do("escalations", lambda: conduit.list_escalations(workspace))
    escalation, user = listed.items[0].id, users.items[0].id
    await do("assign", lambda: conduit.assign_escalation(escalation, assignee_id=user))
    await do("resolve", lambda: conduit.resolve_escalation(escalation, status="resolved"))
    conversation = done.detail.conversation_id
    await do("messages", lambda: conduit.list_messages(conversation))
    await do("send", lambda: conduit.send_message(conversation, body="Hello."))
    ticket = state.add_ticket(conversation)
    await do("send on a ticket", lambda: conduit.send_ticket_message(ticket, body="Hello."))
    await do("send to a contact", lambda: conduit.send_contact_message(done.detail.contact_id, body="Hello."))
    await do("conversation", lambda: conduit.get_conversation(conversation))
    made = await do("create agent", lambda: conduit.create_agent(workspace, "Janitor"))
    await do("update agent", lambda: conduit.update_agent(made.id, operation_mode="copilot"))
    await do("delete agent", lambda: conduit.delete_agent(made.id))
    return recorder


TOURS: Final = (narrative_tour, middesk_tour, origami_tour, conduit_tour)


@cache
def operations() -> Sequence[Operation]:
    """Return every operation of every vendor, with what was answered."""

    async def toured() -> list[Operation]:
        return [operation for tour in TOURS for operation in (await tour()).operations]

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(toured())
