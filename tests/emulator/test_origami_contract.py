"""Origami: every kind of answer against an OpenAPI description of the API, where one lies beside the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agentruns.emulator import Call, Fault, Turn
from agentruns.emulator.origami import Origami
from tests.emulator.origami_caller import ASK, NOWHERE, Answer, Http, builds, does, served

jsonschema = pytest.importorskip("jsonschema")
yaml = pytest.importorskip("yaml")

FILE = Path(__file__).parents[2] / "../shared/contracts/origami-v2.openapi.yaml"

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(not FILE.exists(), reason="no OpenAPI description beside the repository"),
]

RUN = "/agents/{id}/runs/{runId}"
PATTERNS = {
    "uuid": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "date-time": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"),
    "uri": re.compile(r"https://\S+"),
}

checker = jsonschema.FormatChecker(formats=())
for _name, _pattern in PATTERNS.items():
    checker.checks(_name)(lambda value, p=_pattern: not isinstance(value, str) or bool(p.fullmatch(value)))


def nullable(schema: Any) -> Any:
    """Turn OpenAPI 3.0's `nullable`, which the description uses, into JSON Schema."""
    if isinstance(schema, list):
        return [nullable(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: nullable(value) for key, value in schema.items()}
    return {"anyOf": [made, {"type": "null"}]} if made.pop("nullable", False) is True else made


class Contract:
    """The description, looked up by method, path template and status."""

    def __init__(self) -> None:
        document = yaml.safe_load(FILE.read_text())
        self.paths = document["paths"]
        self.components = nullable(document["components"])

    def check(self, method: str, template: str, answer: Answer) -> Any:
        """Raise unless the status is declared and the body fits; return the body."""
        declared = self.paths[template][method.lower()]["responses"]
        assert str(answer.status) in declared, f"{method} {template} does not declare {answer.status}"
        response = declared[str(answer.status)]
        if "$ref" in response:
            response = self.components["responses"][response["$ref"].rpartition("/")[2]]
        assert answer.headers["Content-Type"].startswith("application/json")
        if "content" in response:
            self.fits(answer.body, response["content"]["application/json"]["schema"])
        if answer.status >= 400:
            self.fits(answer.body, {"$ref": "#/components/schemas/ErrorEnvelope"})
        return answer.body

    def fits(self, body: object, schema: Any) -> None:
        root = {**nullable(schema), "components": self.components}
        jsonschema.Draft202012Validator(root, format_checker=checker).validate(body)


@pytest.fixture(scope="module")
def contract() -> Contract:
    return Contract()


async def started(http: Http, contract: Contract) -> Any:
    answer = await http.ask("POST", "/agents", {"prompt": "Find clinics.", "name": "Clinics"})
    return contract.check("POST", "/agents", answer)["run"]


ENDS = {
    "completed": Turn("Done.", running=10),
    "needs_input": Turn("Two things.", calls=[ASK, Call("confirm_booking", {"slot": "noon"})], running=10),
    "incomplete": builds(error="incomplete"),
    "step_cap_hit": builds(iterations=99),
    "cancelled": builds(error="cancelled"),
    "errored": builds(error=("errored", "The work failed.")),
    "timed_out": builds(error="timed_out"),
}


@pytest.mark.parametrize("status", ENDS)
async def test_runs_fit_while_they_are_running_and_in_every_end(contract: Contract, status: str) -> None:
    async with served(script=[ENDS[status]]) as http:
        run = await started(http, contract)
        http.clock.advance(5)
        for moment in ("running", status):
            answer = await http.poll(run, include="stats,transcript")
            assert contract.check("GET", RUN, answer)["status"] == moment
            contract.check("GET", "/agents/{id}/runs", await http.get(f"/agents/{run['agentId']}/runs"))
            contract.check("GET", "/agents", await http.get("/agents"))
            http.clock.advance(5)


async def test_the_default_agent_and_partial_responses_fit(contract: Contract) -> None:
    async with served(partial_response=True) as http:
        run = await started(http, contract)
        contract.check("GET", RUN, await http.poll(run))
        http.clock.advance(0.5)
        assert contract.check("GET", RUN, await http.poll(run, include="stats"))["status"] == "completed"


async def test_every_action_fits(contract: Contract) -> None:
    changes = [
        does("column_added", columnName="Score", kind="score"),
        does("columns_updated"),
        does("leads_deleted"),
        does("leads_restored"),
        does("columns_deleted"),
        does("columns_restored"),
        does("table_restored"),
        does("next_action", label="Export", type="export_csv", tableSlug="clinics"),
    ]
    async with served(script=[builds(*changes)], cells_settle=20, cells_errored=1) as http:
        run = await started(http, contract)
        http.clock.advance(10)
        counts = []
        for _ in range(3):
            body = contract.check("GET", RUN, await http.poll(run, include="stats,transcript"))
            counts.append((len(body["response"]["actions"]), body["response"]["tables"][0]["cells"]["running"]))
            http.clock.advance(10)
        assert counts == [(9, 4), (9, 2), (9, 0)]


async def test_agents_tables_and_the_account_fit(contract: Contract) -> None:
    async with served(script=[builds()]) as http:
        run = await started(http, contract)
        at = f"/agents/{run['agentId']}"
        contract.check("POST", "/agents/{id}/cancel", await http.ask("POST", f"{at}/cancel"))
        http.clock.advance(9)
        contract.check("POST", "/agents/{id}/cancel", await http.ask("POST", f"{at}/cancel"))
        contract.check("POST", "/agents/{id}/runs", await http.send(run["agentId"]))
        http.clock.advance(9)
        contract.check("GET", "/agents/{id}", await http.get(at))
        listed = contract.check("GET", "/agents/{id}/tables", await http.get(f"{at}/tables?include=stats"))
        table = f"/tables/{listed['items'][0]['id']}"
        contract.check("GET", "/tables/{tableId}", await http.get(table))
        contract.check("GET", "/tables/{tableId}/rows", await http.get(f"{table}/rows"))
        contract.check("GET", "/tables/{tableId}/columns", await http.get(f"{table}/columns"))
        contract.check("GET", "/account", await http.get("/account"))
        contract.check("GET", "/account/credits", await http.get("/account/credits"))
        never = http.state.add_agent("Never ran")
        contract.check("POST", "/agents/{id}/cancel", await http.ask("POST", f"/agents/{never.id}/cancel"))
        contract.check("GET", "/agents", await http.get("/agents"))
        contract.check("DELETE", "/agents/{id}", await http.ask("DELETE", at))
        contract.check("DELETE", "/agents/{id}", await http.ask("DELETE", f"/agents/{never.id}"))


async def test_an_agent_in_the_session_of_another_fits(contract: Contract) -> None:
    async with served() as http:
        run = await started(http, contract)
        http.clock.advance(1)
        answer = await http.ask("POST", "/agents", {"prompt": "Again.", "workspaceId": run["agentId"]})
        body = contract.check("POST", "/agents", answer)
        http.clock.advance(1)
        contract.check("DELETE", "/agents/{id}", await http.ask("DELETE", f"/agents/{body['agent']['id']}"))


@pytest.mark.parametrize("code", sorted(set(Origami.plants) - {"CANCEL_LOST", "ADMITTED_500"}))
async def test_every_planned_error_fits(contract: Contract, code: str) -> None:
    async with served(slots=0) as http:
        http.emulator.fail(Fault.vendor(code, method="[A-Z]*", path="/api/v2/*"))
        answer = await http.ask("POST", "/agents", {"prompt": "Find clinics."})
        assert answer.body["code"] == code
        contract.fits(answer.body, {"$ref": "#/components/schemas/ErrorEnvelope"})
        if code != "RATE_LIMITED" and str(answer.status) in contract.paths["/agents"]["post"]["responses"]:
            contract.check("POST", "/agents", answer)


async def test_the_check_notices_what_does_not_fit(contract: Contract) -> None:
    async with served(script=[Turn("x", status="thinking"), Turn("x", error="exploded")]) as http:
        answer = await http.ask("POST", "/agents", {"prompt": "Find clinics."})
        with pytest.raises(jsonschema.ValidationError, match="'thinking' is not one of"):
            contract.check("POST", "/agents", answer)
        http.clock.advance(1)
        http.emulator.fail(Fault.malformed("missing_field", target="steps.max"))
        with pytest.raises(jsonschema.ValidationError, match="'max' is a required property"):
            contract.check("GET", RUN, await http.poll(answer.body["run"]))


async def test_refusals_fit(contract: Contract) -> None:
    async with served(slots=2, credits=12, credits_per_cell=4, script=[Turn("", running=30)]) as http:
        body = {"prompt": ""}
        assert contract.check("POST", "/agents", await http.ask("POST", "/agents", body))["code"] == "VALIDATION_ERROR"
        run = await started(http, contract)
        at = f"/agents/{run['agentId']}/runs"
        answer = await http.ask("POST", at, {"prompt": "More."})
        assert contract.check("POST", "/agents/{id}/runs", answer)["code"] == "AGENT_BUSY"
        await started(http, contract)
        full = await http.ask("POST", "/agents", {"prompt": "One more."})
        assert contract.check("POST", "/agents", full)["code"] == "CONCURRENT_LIMIT_EXCEEDED"
        for method, template, path in (
            ("GET", "/agents/{id}", f"/agents/{NOWHERE}"),
            ("GET", RUN, f"{at}/v2_run-none"),
            ("GET", "/tables/{tableId}", f"/tables/{NOWHERE}"),
        ):
            assert contract.check(method, template, await http.ask(method, path))["code"].endswith("_NOT_FOUND")
        http.clock.advance(60)
        http.emulator.script = None
        await started(http, contract)
        http.clock.advance(60)
        poor = await http.ask("POST", "/agents", {"prompt": "One more."})
        assert contract.check("POST", "/agents", poor)["code"] == "INSUFFICIENT_CREDITS"
