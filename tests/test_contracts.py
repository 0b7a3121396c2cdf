"""
What we send, against the OpenAPI descriptions that the vendors publish, where these lie beside the repository.

Every flow of Origami and of Middesk runs once against the emulator, and what arrived there is looked at: paths, query,
headers and bodies. What a description leaves open, such as an undeclared field of a body, counts as forbidden here.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from attrs import evolve, field, frozen

from agentruns import Client, ConfigurationError, OutcomeUnknownError, ToolOutput
from agentruns._api import flow
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request
from agentruns.dialects import load, middesk, origami
from agentruns.emulator import Call, Emulator, Exchange, Fault, Turn
from agentruns.emulator.script import Prompt
from agentruns.testing import Case
from tests.conformance.vendors import MiddeskCase, OrigamiCase
from tests.emulator.middesk_caller import ASK as PROPOSAL
from tests.emulator.middesk_caller import BUSINESS
from tests.emulator.origami_caller import ASK, builds

jsonschema = pytest.importorskip("jsonschema")
yaml = pytest.importorskip("yaml")

FOLDER: Final = Path(__file__).parents[1] / "../shared/contracts"

HTTP_HEADERS: Final = frozenset({
    "connection",
    "host",
    "accept",
    "accept-encoding",
    "user-agent",
    "content-length",
    "content-type",
})
"""Headers that belong to HTTP; OpenAPI declares none of them as a parameter."""

UNLOGGED: Final = "authorization"
"""The emulator's log leaves this header out; that it was there is told by its not having answered 401."""

GUESSED: Final = re.compile(r"POST https://api\.middesk\.com/v1/runs/[^/]+/resume")
ELSEWHERE: Final = re.compile(r"\w+ https://api\.middesk\.com/v1/(webhooks|actions)(/[^/]+)?")
"""What is described in files that are not beside the repository."""
"""What no description has: get-agent-run says in prose that an interrupt is answered, and declares no operation."""

DOCUMENT: Final = "6a1f0b3e-2c57-4d88-9e04-b5d7c3f21a90"
TABLE: Final = "c4a9e2b7-61d8-4f05-8b3e-90f7ad1526ce"
FILTERS: Final = ({"column": "website", "operator": "is_not_empty"}, {"column": "company", "operator": "contains"})
SORT: Final = {"column": "company", "direction": "desc"}


# Descriptions ---------------------------------------------------------------------------------------------------------


def strict(node: Any) -> Any:
    """Turn OpenAPI 3.0's `nullable` into JSON Schema, and close every object that lists its properties."""
    if isinstance(node, list):
        return [strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    made = {key: strict(value) for key, value in node.items()}
    if made.get("type") == "object" and "properties" in made:
        made.setdefault("additionalProperties", False)
    return {"anyOf": [made, {"type": "null"}]} if made.pop("nullable", False) is True else made


@frozen
class Sent:
    """One request; the emulator's is told as if it had gone to the vendor."""

    method: str
    url: str
    query: Mapping[str, str] = field(factory=dict)
    headers: Mapping[str, str] = field(factory=dict)
    body: Any = None

    @classmethod
    def arrived(cls, exchange: Exchange, base_path: str, base_url: str) -> Sent:
        assert exchange.body is not None or exchange.headers.get("Content-Length", "0") == "0", "the body is no JSON"
        path = exchange.path.removeprefix(base_path)
        return cls(exchange.method, base_url + path, exchange.query, exchange.headers, exchange.body)

    @classmethod
    def first(cls, started: Flow[Any], base_url: str) -> Sent:
        """Take the first request of a flow that is not driven any further."""
        asked = next(started)
        assert isinstance(asked, Request)
        return cls(asked.method, base_url + asked.path, asked.params, asked.headers, asked.json)

    @property
    def line(self) -> str:
        return f"{self.method} {self.url}"


@frozen
class Operation:
    """One method of one path, with the components that its schemas refer to."""

    name: str
    method: str
    url: re.Pattern[str]
    parameters: Sequence[Mapping[str, Any]]
    body: Mapping[str, Any] | None
    components: Mapping[str, Any]

    def complaints(self, sent: Sent) -> Iterator[str]:
        found = self.url.fullmatch(sent.url)
        assert found is not None
        headers = {name.lower(): value for name, value in sent.headers.items()}
        own = {name: value for name, value in headers.items() if name not in HTTP_HEADERS}
        yield from self._of_parameters("path", found.groupdict())
        yield from self._of_parameters("query", sent.query)
        yield from self._of_parameters("header", own)
        yield from self._of_body(sent.body, headers.get("content-type", "application/json"))

    def _of_parameters(self, place: str, given: Mapping[str, str]) -> Iterator[str]:
        declared = {
            each["name"].lower() if place == "header" else each["name"]: each
            for each in self.parameters
            if each["in"] == place
        }
        for name in sorted({*declared, *given} - {UNLOGGED}):
            if name not in declared:
                yield f"the {place} parameter {name} is not declared"
            elif name in given:
                schema = declared[name]["schema"]
                yield from (f"{place} {name}: {said}" for said in self._unfit(_read(given[name], schema), schema))
            elif declared[name].get("required"):
                yield f"the {place} parameter {name} is missing"

    def _of_body(self, body: Any, media_type: str) -> Iterator[str]:
        if body is None:
            if self.body is not None and self.body.get("required"):
                yield "the body is missing"
        elif self.body is None:
            yield "there is a body, and none is declared"
        elif media_type not in self.body["content"]:
            yield f"a body of {media_type} is not declared"
        else:
            yield from (f"body: {said}" for said in self._unfit(body, self.body["content"][media_type]["schema"]))

    def _unfit(self, value: Any, schema: Mapping[str, Any]) -> Iterator[str]:
        root = {**schema, "components": self.components}
        validator = jsonschema.Draft202012Validator(root, format_checker=jsonschema.FormatChecker(["uuid"]))
        for error in validator.iter_errors(value):
            leaf = jsonschema.exceptions.best_match([error])
            yield f"{leaf.json_path}: {leaf.message}"


def _read(text: str, schema: Mapping[str, Any]) -> Any:
    """Read the text of a parameter as its schema means it."""
    if schema.get("type") not in {"integer", "boolean"}:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


class Contract:
    """A vendor's descriptions, one file or several."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.operations = tuple(each for file in files for each in self._operations(yaml.safe_load(file.read_text())))

    def _operations(self, document: Mapping[str, Any]) -> Iterator[Operation]:
        components = strict(document["components"])
        (server,) = document["servers"]
        for template, item in document["paths"].items():
            url = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(server["url"] + template))
            for method in item.keys() & {"get", "post", "put", "patch", "delete"}:
                declared = strict(item[method])
                parameters = [
                    components["parameters"][each["$ref"].rpartition("/")[2]] if "$ref" in each else each
                    for each in strict([*item.get("parameters", ()), *declared.get("parameters", ())])
                ]
                body = declared.get("requestBody")
                yield Operation(declared["operationId"], method.upper(), re.compile(url), parameters, body, components)

    def of(self, sent: Sent) -> Operation | None:
        fitting = (each for each in self.operations if each.method == sent.method and each.url.fullmatch(sent.url))
        return min(fitting, key=lambda each: each.url.groups, default=None)  # a literal path goes before a template

    def complaints(self, sent: Sent) -> list[str]:
        """Say what is wrong with a request; nothing, if the vendor's description allows it."""
        operation = self.of(sent)
        return ["no operation has this method and path"] if operation is None else list(operation.complaints(sent))


# Driving every flow ---------------------------------------------------------------------------------------------------


def origami_script(prompt: Prompt) -> Turn:
    """Play what the first word of a prompt asks for."""
    return {
        "Build": builds(running=0.05),
        "Ask": Turn("Two things.", calls=[ASK, Call("ask-questions", {"type": "confirm", "question": "Sure?"})]),
        "Stop": Turn("Not all of it.", error="incomplete"),
        "Hang": Turn(running=math.inf),
        "Linger": Turn("Done.", running=0.2),
    }.get((prompt.text or "").partition(" ")[0], Turn("Done."))


async def tour_origami(client: Client, emulator: Emulator[Any]) -> None:
    do = client.perform
    built = await client.result(origami.Prompt("Build a table.", name="Clinics", model="origami-max"))
    agent = built.ref.parent
    await client.fetch(built, include="stats,transcript")
    tables = await do(origami.list_tables(agent))
    await do(origami.list_tables(agent, include="stats"))
    table = tables.items[0].id
    await do(origami.get_table(table))
    await do(origami.get_table(table, include="stats"))

    await do(origami.list_rows(table))
    first = await do(origami.list_rows(table, limit=1))
    assert first.cursor is not None
    await do(origami.list_rows(table, limit=200, cursor=first.cursor, defaults=True))
    await do(origami.list_rows(table, filters=FILTERS, sort=SORT, cells="flat", defaults=False))

    (typed, *_) = first.items
    assert typed.id is not None
    await do(origami.get_row(table, typed.id))
    assert (await do(origami.get_csv(table, limit=10))).count("\n") >= 1
    await do(origami.list_columns(table))
    await do(origami.list_tables_of_organization(limit=10))
    await client.result(await do(origami.draft_campaign(table, "Introduce us to the clinics.")))
    (campaign,) = emulator.state.campaigns
    await client.result(await do(origami.edit_campaign(campaign, "Be brief.")))

    attachments = [origami.attached_document(DOCUMENT), origami.attached_table(table)]
    further: dict[str, Any] = {"model": "origami-lite", "focus_table_ids": [table], "attachments": attachments}
    await client.result(origami.Prompt("Go on.", agent_id=agent, **further))
    await client.result(origami.Prompt("Start anew.", **further))
    await client.result(origami.Prompt("Just do it."))

    asked = await client.start(origami.Prompt("Ask me."))
    asked = await client.fetch(asked)
    while asked.status.in_flight:
        asked = await client.fetch(asked)
    assert await do(origami.answered_by(asked)) is None
    outputs = [ToolOutput(asked.actions[0], "Any"), ToolOutput(asked.actions[1], output=True)]
    after = await client.resume(asked, outputs)
    followed = await do(origami.answered_by(asked))
    assert followed is not None
    assert followed.ref == after.ref
    again = await do(origami.resume_again(asked, outputs))
    assert again.ref == after.ref
    await client.result(origami.Prompt("Stop early."), tools={"continue": lambda: None})

    hanging = await client.start(origami.Prompt("Hang on.", agent_id=agent))
    await client.cancel(hanging)
    await client.start(origami.Prompt("Linger.", agent_id=agent))
    await client.result(origami.Prompt("After that.", agent_id=agent, busy_wait=60))

    emulator.fail(Fault.drop(committed=True, method="POST", path="*/agents"))
    await client.start(origami.Prompt("Lost."))
    emulator.fail(Fault.vendor("ADMITTED_500"))
    with pytest.raises(OutcomeUnknownError):
        await client.start(origami.Prompt("Hang, forgotten."))
    emulator.fail(Fault.vendor("ADMITTED_500", path="*/runs"))
    await client.cancel(await client.start(origami.Prompt("Hang on, forgotten too.", agent_id=agent)))

    runs = [run async for run in client.runs(agent)]
    await do(origami.page(agent, "opaque"))
    assert len(runs) == 6
    listed = await do(origami.list_agents(search="clinics"))
    await do(origami.list_agents(limit=100, cursor="opaque"))
    await do(origami.get_agent(listed.items[0].id))
    await do(origami.get_account())
    await do(origami.get_credits())
    emulator.fail(Fault.drop(committed=True, method="DELETE"))
    await do(origami.archive_agent(agent))
    await do(origami.archive_agent(asked.ref.parent))


def middesk_script(prompt: Prompt) -> Turn:
    """Let one agent ask twice, and every other go through."""
    asks = prompt.agent == "watchlist_resolution" and not prompt.outputs
    return Turn(calls=[PROPOSAL, PROPOSAL]) if asks else Turn("Name and TIN match.", running=0.1)


async def tour_middesk(client: Client, emulator: Emulator[Any]) -> None:
    do = client.perform
    agents = await do(middesk.list_agents())
    await do(middesk.get_agent(agents.items[0].id))
    thread = await do(middesk.create_thread("cip_orchestrator", business_id=BUSINESS))
    await do(middesk.create_thread("cip_orchestrator", context_type="business", context_id=BUSINESS))
    await do(middesk.get_thread(thread.id))
    await do(middesk.list_threads())
    await do(middesk.list_threads(page=2, per_page=1, business_id=BUSINESS))

    done = await client.result(middesk.RunRequest("cip_orchestrator", business_id=BUSINESS), events=True)
    await client._operations.listen(done.ref)
    await client.fetch(done, include="steps")
    await client.start(middesk.RunRequest("cip_orchestrator", context_type="business", context_id=BUSINESS))
    await client.start(middesk.RunRequest("cip_orchestrator", thread_id=thread.id))
    await client.start(middesk.RunRequest("cip_orchestrator", thread_id=thread.id, business_id=BUSINESS))
    assert len([run async for run in client.runs(thread.id)]) == 2
    await do(middesk.page("", "2"))

    artifact = done.output["artifacts"][0]["id"]
    await do(middesk.give_feedback(done.id, rating="POSITIVE", artifact_id=artifact))
    await do(middesk.give_feedback(done.id, rating="NEGATIVE", artifact_id=artifact, comment="Another company."))

    hook = await do(middesk.create_webhook("https://app.example/hook", ["run.completed"], secret="shh"))
    await do(middesk.list_webhooks())
    await do(middesk.get_webhook(hook.id))
    await do(middesk.update_webhook(hook.id, enabled_events=["*"]))
    await do(middesk.delete_webhook(hook.id))
    about = ("businesses", BUSINESS)
    action = await do(middesk.take_action(*about, "decision", {"decision": "approve"}, run_id=done.id))
    await do(middesk.list_actions(*about))
    await do(middesk.get_action(action.id, *about))

    asks = middesk.RunRequest("watchlist_resolution", business_id=BUSINESS)
    emulator.fail(
        Fault.drop(committed=True, method="POST", path="/v1/runs"),
        Fault.drop(committed=True, method="POST", path="/v1/runs/*/resume"),
    )
    for resume in (client.resume, lambda paused, outputs: do(middesk.resume(paused, outputs))):
        paused = await client.start(asks)
        while paused.status.in_flight:
            paused = await client.fetch(paused)
        yes, no = paused.actions
        await resume(paused, [ToolOutput(yes, {"decision": "approve"}), ToolOutput(no, "gone", is_error=True)])


Tour: TypeAlias = Callable[[Client, Emulator[Any]], Awaitable[None]]


@frozen
class Vendor:
    """How to drive a vendor, and what of its API our dialect speaks; None is all of it."""

    case: Case
    tour: Tour
    options: Mapping[str, Any]
    operations: frozenset[str] | None

    @property
    def contract(self) -> Contract:
        files = sorted(FOLDER.glob(f"{self.case.label}-*.openapi.y*ml"))
        if not files:
            pytest.skip(f"no OpenAPI description of {self.case.label} beside the repository")
        return Contract(files)

    def drive(self) -> tuple[list[tuple[Sent, Exchange]], set[str]]:
        """Return what was sent, and the names of the flows that sent it."""
        driven: set[str] = set()

        def perform(driving: Any, *others: Any, **options: Any) -> Awaitable[Any]:
            driven.add(driving.__name__)
            return flow.perform(driving, *others, **options)

        async def toured() -> list[tuple[Sent, Exchange]]:
            async with Emulator(self.case.label, **self.options) as emulator:
                base_path = urlsplit(emulator.base_url).path
                async with self.case.connect(emulator) as client:
                    await self.tour(client, emulator)
                base_url = self.case.vendor.BASE_URL
                return [(Sent.arrived(each, base_path, base_url), each) for each in emulator.exchanges]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("agentruns._api.api.perform", perform)
            patch.setattr("agentruns._api.flow.sleep", lambda seconds: asyncio.sleep(seconds / 50))
            return asyncio.run(toured()), driven


VENDORS: Final = {
    "origami": Vendor(
        OrigamiCase(),
        tour_origami,
        {"script": origami_script, "plan": "enterprise", "retry_after": 0, "cancel_delay": 0, "documents": [DOCUMENT]},
        frozenset({
            "createAgentAndRun", "listAgents", "getAgent", "archiveAgent", "sendRun", "listRuns", "getRun",
            "cancelActiveRun", "listAgentTables", "getTable", "listRows", "getAccount", "getAccountCredits",
            "listTables", "listColumns", "getRow", "createTableCampaign", "editCampaign",
        }),
    ),
    "middesk": Vendor(MiddeskCase(), tour_middesk, {"script": middesk_script}, None),
}  # fmt: skip


@frozen
class Driven:
    """A vendor, its contract, and everything that was sent to it."""

    vendor: Vendor
    contract: Contract
    log: Sequence[tuple[Sent, Exchange]]
    flows: set[str]


@pytest.fixture(scope="module", params=VENDORS)
def driven(request: pytest.FixtureRequest) -> Driven:
    vendor = VENDORS[request.param]
    contract = vendor.contract
    return Driven(vendor, contract, *vendor.drive())


@pytest.fixture(scope="module")
def contracts() -> Mapping[str, Contract]:
    return {name: vendor.contract for name, vendor in VENDORS.items()}


# What was sent --------------------------------------------------------------------------------------------------------


def test_every_request_is_one_that_the_vendor_describes(driven: Driven) -> None:
    documented = [
        sent for sent, _ in driven.log if not GUESSED.fullmatch(sent.line) and not ELSEWHERE.fullmatch(sent.line)
    ]

    wrong = [(sent.line, found) for sent in documented for found in driven.contract.complaints(sent)]

    assert not wrong


def test_every_flow_of_the_dialect_is_driven(driven: Driven) -> None:
    dialect: Any = load(driven.vendor.case.dialect)

    flows = {name for name in dialect.__all__ if inspect.isgeneratorfunction(getattr(dialect, name))}

    assert driven.flows == flows - {"recover"}  # which asks nothing of its own: it looks as a start does


def test_every_operation_that_the_dialect_speaks_is_asked_for_with_success(driven: Driven) -> None:
    worked = [driven.contract.of(sent) for sent, exchange in driven.log if (exchange.status or 500) < 300]

    spoken = driven.vendor.operations or {each.name for each in driven.contract.operations}

    assert {each.name for each in worked if each is not None} == spoken


def test_every_request_carries_the_token(driven: Driven) -> None:
    assert 401 not in {exchange.status for _, exchange in driven.log}


@pytest.mark.parametrize("driven", ["origami"], indirect=True)
def test_every_start_and_cancel_of_origami_carries_a_key(driven: Driven) -> None:
    posts = [sent for sent, _ in driven.log if sent.method == "POST"]

    assert {UUID(sent.headers["Idempotency-Key"]).version for sent in posts} == {4, 5}


@pytest.mark.parametrize("driven", ["origami"], indirect=True)
def test_filters_and_sort_are_the_json_that_the_description_of_list_rows_tells_of(driven: Driven) -> None:
    (query,) = [sent.query for sent, _ in driven.log if "filters" in sent.query]

    assert json.loads(query["filters"]) == list(FILTERS)
    assert json.loads(query["sort"]) == SORT


def test_answering_an_interrupt_is_the_only_request_that_no_description_has(driven: Driven) -> None:
    unknown = {GUESSED.sub("resume", sent.line) for sent, _ in driven.log if driven.contract.of(sent) is None}
    unknown = {line for line in unknown if not ELSEWHERE.fullmatch(line)}

    assert unknown == ({"resume"} if driven.vendor.case.label == "middesk" else set())


# At the edges ---------------------------------------------------------------------------------------------------------


def largest(**changes: Any) -> origami.Prompt:
    values: dict[str, Any] = {
        "prompt": "x" * 10_000,
        "name": "n" * 80,
        "focus_table_ids": [TABLE] * 50,
        "attachments": [origami.attached_table(TABLE)] * 20,
        "idempotency_key": "~" * 255,
    }
    return origami.Prompt(**{**values, **changes})


def test_the_largest_prompt_that_can_be_made_is_one_that_origami_describes(contracts: Mapping[str, Contract]) -> None:
    created = Sent.first(origami.start(largest()), origami.BASE_URL)
    followed = Sent.first(origami.start(largest(name=None, agent_id=TABLE)), origami.BASE_URL)

    assert contracts["origami"].complaints(created) == []
    assert contracts["origami"].complaints(followed) == []


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("prompt", "x" * 10_001, {"prompt": "x" * 10_001}),
        ("prompt", "", {"prompt": ""}),
        ("name", "n" * 81, {"name": "n" * 81}),
        ("focus_table_ids", [TABLE] * 51, {"focusTableIds": [TABLE] * 51}),
        ("attachments", [origami.attached_table(TABLE)] * 21, {"attachments": [origami.attached_table(TABLE)] * 21}),
        ("idempotency_key", "~" * 256, None),
        ("idempotency_key", "two words", None),
    ],
)
def test_what_origami_would_not_take_is_refused_before_it_is_sent(
    contracts: Mapping[str, Contract], name: str, value: Any, sent: Mapping[str, Any] | None
) -> None:
    good = Sent.first(origami.start(largest()), origami.BASE_URL)
    bad = evolve(good, headers={"Idempotency-Key": value}) if sent is None else evolve(good, body=good.body | sent)

    with pytest.raises(ConfigurationError):
        largest(**{name: value})
    assert contracts["origami"].complaints(good) == []
    assert contracts["origami"].complaints(bad) != []


@pytest.mark.parametrize(
    ("listing", "most"),
    [
        (lambda limit: origami.list_agents(limit=limit), 100),
        (lambda limit: origami.list_rows(TABLE, limit=limit), 200),
    ],
)
def test_the_longest_page_is_the_one_that_origami_describes(
    contracts: Mapping[str, Contract], listing: Callable[[int], Flow[Any]], most: int
) -> None:
    good = Sent.first(listing(most), origami.BASE_URL)
    bad = evolve(good, query={"limit": str(most + 1)})

    with pytest.raises(ConfigurationError):
        next(listing(most + 1))
    assert contracts["origami"].complaints(good) == []
    assert contracts["origami"].complaints(bad) == [f"query limit: $: {most + 1} is greater than the maximum of {most}"]


# The check itself -----------------------------------------------------------------------------------------------------

AGENTS: Final = f"{origami.BASE_URL}/agents"
THREADS: Final = f"{middesk.BASE_URL}/threads"
GOOD: Final = {
    "origami": Sent(
        "POST",
        AGENTS,
        headers={"Idempotency-Key": "k", "Content-Type": "application/json"},
        body={"prompt": "Find clinics.", "attachments": [{"kind": "table", "tableId": TABLE}]},
    ),
    "middesk": Sent("POST", THREADS, body={"type": "cip_orchestrator", "business_id": BUSINESS}),
}
LIST: Final[Mapping[str, Any]] = {"method": "GET", "headers": {}, "body": None}
RATE: Final[Mapping[str, Any]] = {"url": f"{middesk.BASE_URL}/runs/r/feedback"}


@pytest.mark.parametrize(
    ("vendor", "change", "complaint"),
    [
        ("origami", {"body": {"name": "Clinics"}}, "'prompt' is a required property"),
        ("origami", {"body": {"prompt": 7}}, r"\$\.prompt: 7 is not of type 'string'"),
        ("origami", {"body": {"prompt": "x", "maxSteps": 3}}, "'maxSteps' was unexpected"),
        ("origami", {"body": {"prompt": "x", "model": None}}, r"\$\.model: None is not"),
        ("origami", {"body": {"prompt": "x", "model": "origami-ultra"}}, "'origami-ultra' is not one of"),
        ("origami", {"body": {"prompt": "x", "focusTableIds": ["t1"]}}, "'t1' is not a 'uuid'"),
        (
            "origami",
            {"body": {"prompt": "x", "attachments": [{"kind": "table", "tableId": TABLE, "name": "T"}]}},
            r"\$\.attachments\[0\]",
        ),
        ("origami", {"body": None}, "the body is missing"),
        ("origami", {"headers": {"Content-Type": "text/plain"}}, "a body of text/plain is not declared"),
        ("origami", {"headers": {"Idempotency-Key": "two words"}}, "header idempotency-key: .* does not match"),
        ("origami", {"headers": {"Idempotency": "k"}}, "the header parameter idempotency is not declared"),
        ("origami", {"query": {"dryRun": "true"}}, "the query parameter dryRun is not declared"),
        ("origami", {"method": "PUT"}, "no operation has this method and path"),
        ("origami", {"url": f"{origami.BASE_URL}/agent"}, "no operation has this method and path"),
        ("origami", {"url": "https://origami.chat/api/v1/agents"}, "no operation has this method and path"),
        ("origami", {"url": f"{AGENTS}/a1/runs"}, "path id: .*'a1' is not a 'uuid'"),
        ("origami", {"url": f"{AGENTS}/{TABLE}/cancel"}, "there is a body, and none is declared"),
        ("origami", {**LIST, "query": {"page": "1"}}, "the query parameter page is not declared"),
        ("origami", {**LIST, "query": {"limit": "all"}}, "query limit: .*'all' is not of type 'integer'"),
        ("origami", {**LIST, "headers": {"Idempotency-Key": "k"}}, "idempotency-key is not declared"),
        ("origami", {**LIST, "url": f"{AGENTS}/{TABLE}/runs/r%201"}, "path runId: .*'r%201' does not match"),
        ("middesk", {"body": {"business_id": BUSINESS}}, "'type' is a required property"),
        ("middesk", {"body": {"type": "x", "business_id": None}}, "None is not of type 'string'"),
        ("middesk", {"body": {"type": "x", "business_id": "acme"}}, "'acme' is not a 'uuid'"),
        ("middesk", {"body": {"type": "x", "input": {}}}, "'input' was unexpected"),
        ("middesk", {"url": "https://api.middesk.com/threads"}, "no operation has this method and path"),
        ("middesk", {**LIST, "query": {"cursor": "c"}}, "the query parameter cursor is not declared"),
        ("middesk", {**LIST, "query": {"page": "first"}}, "query page: .*'first' is not of type 'integer'"),
        ("middesk", {**RATE, "body": {"rating": "GOOD", "artifact_id": TABLE}}, "'GOOD' is not one of"),
        ("middesk", {**RATE, "body": {"rating": "POSITIVE", "artifact_id": TABLE, "comment": 1}}, "comment: 1 is not"),
    ],
)
def test_the_check_refuses_what_a_description_does_not_have(
    contracts: Mapping[str, Contract], vendor: str, change: Mapping[str, Any], complaint: str
) -> None:
    contract, good = contracts[vendor], GOOD[vendor]

    found = contract.complaints(evolve(good, **change))

    assert contract.complaints(good) == []
    assert re.search(complaint, "\n".join(found)), found


def test_the_check_takes_null_where_a_description_says_nullable(contracts: Mapping[str, Contract]) -> None:
    rating = {"rating": "POSITIVE", "artifact_id": TABLE, "comment": None}

    assert contracts["middesk"].complaints(Sent("POST", RATE["url"], body=rating)) == []


def test_the_check_misses_what_is_required(contracts: Mapping[str, Contract]) -> None:
    get_run = next(each for each in contracts["middesk"].operations if each.name == "get-agent-run")
    required = [{**each, "required": True} for each in get_run.parameters]

    found = evolve(get_run, parameters=required).complaints(Sent("GET", f"{middesk.BASE_URL}/runs/r"))

    assert list(found) == ["the query parameter include is missing"]
