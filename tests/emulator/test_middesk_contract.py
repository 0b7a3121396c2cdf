"""Middesk: every kind of answer against an OpenAPI description of the API, where one lies beside the repository."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agentruns.emulator import Call, Turn
from tests.emulator.middesk_caller import BUSINESS, PROPOSAL, START, Answer, Http, asking, served, yes

jsonschema = pytest.importorskip("jsonschema")
yaml = pytest.importorskip("yaml")

CONTRACTS = Path(__file__).parents[2] / "../shared/contracts"
FILES = sorted(CONTRACTS.glob("middesk-*.openapi.yml"))

pytestmark = [pytest.mark.asyncio, pytest.mark.skipif(not FILES, reason="no OpenAPI description beside the repository")]

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
ADDRESS = re.compile(r"https?://\S+")
MAIL = re.compile(r"\S+@\S+")

checker = jsonschema.FormatChecker(formats=())
for _name, _pattern in (("uuid", UUID), ("date-time", MOMENT), ("uri", ADDRESS), ("email", MAIL)):
    checker.checks(_name)(lambda value, p=_pattern: not isinstance(value, str) or bool(p.fullmatch(value)))


def nullable(schema: Any) -> Any:
    """Turn OpenAPI 3.0's `nullable` into a type of JSON Schema."""
    if isinstance(schema, list):
        return [nullable(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: nullable(value) for key, value in schema.items()}
    if made.pop("nullable", False) is True:
        made["type"] = [made["type"], "null"]
    return made


class Contract:
    """The descriptions, looked up by method, path template and status."""

    def __init__(self) -> None:
        documents = [yaml.safe_load(path.read_text()) for path in FILES]
        self.paths: dict[str, Any] = {}
        self.schemas: dict[str, Any] = {}
        for document in documents:
            self.paths.update(document["paths"])
            self.schemas.update(nullable(document["components"]["schemas"]))

    def check(self, method: str, template: str, answer: Answer) -> None:
        """Raise unless the answer's status is declared and its body fits."""
        declared = self.paths[template][method.lower()]["responses"]
        assert str(answer.status) in declared, f"{method} {template} does not declare {answer.status}"
        assert answer.headers["Content-Type"].startswith("application/json")
        schema = declared[str(answer.status)]["content"]["application/json"]["schema"]
        self.check_schema(schema, answer.body)

    def check_schema(self, schema: Mapping[str, Any], body: object) -> None:
        root = {**schema, "components": {"schemas": self.schemas}}
        jsonschema.Draft202012Validator(root, format_checker=checker).validate(body)

    def check_run(self, answer: Answer) -> None:
        self.check_schema({"$ref": "#/components/schemas/type_:AgentsRun"}, answer.body)

    def request(self, method: str, template: str, body: object) -> None:
        """Raise unless a request's body fits, so that what these tests send is what the description allows."""
        declared = self.paths[template][method.lower()]["requestBody"]["content"]["application/json"]["schema"]
        self.check_schema(nullable(declared), body)


@pytest.fixture(scope="module")
def contract() -> Contract:
    return Contract()


STYLES: list[dict[str, Any]] = [
    {},
    {"fractional_seconds": True, "requester": "user"},
    {"absent": "omit", "requester": "system"},
    {"absent": "random", "seed": 3, "artifact_ids": False},
    {"combine_proposals": True},
    {"policy_overrides": {"tin_resolution": "auto_approve"}},
]

SCRIPT = [
    asking(
        Call("sos_lookup", server_side=True, result={"artifacts": [{"title": "Filing", "type": "filing"}]}),
        Call("tin_resolution"),
        Call("interrupt", {"label": "Sure?"}),
        Call("watchlist_resolution", PROPOSAL),
        running=4,
        iterations=2,
    ),
    Turn("Done.", running=4, iterations=2),
]


async def read_everywhere(http: Http, contract: Contract, run: Mapping[str, Any]) -> None:
    for query in ("", "?include=steps"):
        contract.check("GET", "/v1/runs/{id}", await http.get(f"/runs/{run['id']}{query}"))
    contract.check("GET", "/v1/runs", await http.get("/runs?page=1&per_page=2"))
    (state,) = (one for key, one in http.emulator.state.runs.items() if key == run["id"])
    contract.check("GET", "/v1/threads/{id}", await http.get(f"/threads/{state.thread_id}"))
    contract.check("GET", "/v1/threads", await http.get(f"/threads?business_id={BUSINESS}"))


@pytest.mark.parametrize("options", STYLES, ids=str)
async def test_a_run_fits_at_every_point_of_its_life(contract: Contract, options: dict[str, Any]) -> None:
    async with served(script=SCRIPT, **options) as http:
        contract.request("POST", "/v1/runs", START)
        created = await http.ask("POST", "/runs", START)
        contract.check("POST", "/v1/runs", created)
        run = created.body
        for _ in range(3):
            await read_everywhere(http, contract, run)
            http.clock.advance(2)
        paused = await http.run(run)
        assert paused["status"] == "interrupted"
        for number in range(len(paused["interrupts"])):
            answer = await http.resume(run, yes(paused, number), "?include=steps")
            assert answer.status == 200
            contract.check_run(answer)
            await read_everywhere(http, contract, run)
        for _ in range(3):
            http.clock.advance(2)
            await read_everywhere(http, contract, run)
        assert (await http.run(run))["status"] == "completed"


@pytest.mark.parametrize("turn", [Turn(error=("x", "No filing.")), Turn(structured={"artifacts": []}), Turn()])
async def test_other_ends_fit_as_well(contract: Contract, turn: Turn) -> None:
    async with served(script=[turn]) as http:
        await read_everywhere(http, contract, await http.play())


async def test_agents_and_threads_fit(contract: Contract) -> None:
    async with served() as http:
        agents = await http.get("/agents")
        contract.check("GET", "/v1/agents", agents)
        for agent in agents.body["data"]:
            contract.check("GET", "/v1/agents/{id}", await http.get(f"/agents/{agent['id']}"))
        contract.request("POST", "/v1/threads", START)
        contract.check("POST", "/v1/threads", await http.ask("POST", "/threads", START))
        contract.check("GET", "/v1/threads", await http.get("/threads"))


@pytest.mark.parametrize("requester", ["account", "user", "system"])
async def test_feedback_fits(contract: Contract, requester: str) -> None:
    template = "/v1/runs/{id}/feedback"
    async with served(requester=requester) as http:
        run = await http.play()
        rating = {"rating": "POSITIVE", "artifact_id": run["output"]["artifacts"][0]["id"], "comment": None}
        contract.request("POST", template, rating)
        for body in (rating, rating | {"comment": "Good."}, {}):
            contract.check("POST", template, await http.ask("POST", f"/runs/{run['id']}/feedback", body))


async def test_refusals_are_declared_and_fit(contract: Contract) -> None:
    async with served(in_audit=[BUSINESS], operator_feedback=False) as http:
        for method, template, path, body, status in [
            ("POST", "/v1/runs", "/runs", {"type": "cip_orchestrator"}, 400),
            ("POST", "/v1/runs", "/runs", {**START, "thread_id": BUSINESS}, 404),
            ("POST", "/v1/runs", "/runs", {**START, "type": "psychic"}, 404),
            ("POST", "/v1/runs", "/runs", START, 422),
            ("POST", "/v1/threads", "/threads", {**START, "type": "psychic"}, 404),
            ("GET", "/v1/agents/{id}", "/agents/none", None, 404),
            ("GET", "/v1/threads/{id}", "/threads/none", None, 404),
            ("GET", "/v1/runs/{id}", "/runs/none", None, 404),
            ("GET", "/v1/runs/{id}/stream", "/runs/none/stream", None, 404),
            ("POST", "/v1/runs/{id}/feedback", "/runs/none/feedback", {}, 403),
        ]:
            answer = await http.ask(method, path, body)
            assert answer.status == status
            contract.check(method, template, answer)


async def test_the_check_itself_finds_what_does_not_fit(contract: Contract) -> None:
    async with served() as http:
        run = await http.play()
        reference = {"$ref": "#/components/schemas/type_:AgentsRun"}
        for spoiled in ({"status": "failed"}, {"id": "run_1"}, {"created_at": "today"}, {"interrupts": [{"id": "x"}]}):
            with pytest.raises(jsonschema.ValidationError):
                contract.check_schema(reference, {**run, **spoiled})
