"""
Answers made from the OpenAPI descriptions that the vendors publish, where these lie beside the repository.

Whatever a description allows is taken; spoiled, it is a value that holds together or an error of ours. `AGENTRUNS_FUZZ`
scales how many bodies are made.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from agentruns import AgentRunsError, RunRef
from agentruns._values.commands import Flow
from agentruns.dialects import middesk, origami
from tests.hostile.corrupted_answers import JUNK, Below, spoilt, written
from tests.hostile.recorded_answers import Answer, Operation, Spoil
from tests.hostile.test_fuzz import SCALE, Drive

yaml = pytest.importorskip("yaml")

FOLDER: Final = Path(__file__).parents[2] / "../shared/contracts"

ID: Final = "3c90c3cc-0d44-4b50-8888-8dd25736052a"
REF: Final = RunRef(ID, ID)

FLOWS: Final[Mapping[str, Mapping[str, tuple[str, Callable[[], Flow[Any]]]]]] = {
    "middesk": {
        "list-agents": ("GET /agents", middesk.list_agents),
        "get-agent": ("GET /agents/{id}", lambda: middesk.get_agent(ID)),
        "create-agent-thread": ("POST /threads", lambda: middesk.create_thread("cip_orchestrator", business_id=ID)),
        "get-agent-thread": ("GET /threads/{id}", lambda: middesk.get_thread(ID)),
        "list-agent-threads": ("GET /threads", middesk.list_threads),
        "get-agent-run": ("GET /runs/{id}", lambda: middesk.fetch(REF, {"include": "steps"})),
        "list-agent-runs": ("GET /runs", lambda: middesk.page("", None)),
        "submit-agent-run-feedback": (
            "POST /runs/{id}/feedback",
            lambda: middesk.give_feedback(ID, rating="POSITIVE", artifact_id=ID),
        ),
    },
    "origami": {
        "createAgentAndRun": ("POST /agents", lambda: origami.start(origami.Prompt("Go."))),
        "sendRun": ("POST /agents/{id}/runs", lambda: origami.start(origami.Prompt("Go.", agent_id=ID))),
        "getRun": ("GET /agents/{id}/runs/{id}", lambda: origami.fetch(REF, {"include": "stats,transcript"})),
        "listRuns": ("GET /agents/{id}/runs", lambda: origami.page(ID, None)),
        "listAgents": ("GET /agents", origami.list_agents),
        "getAgent": ("GET /agents/{id}", lambda: origami.get_agent(ID)),
        "archiveAgent": ("DELETE /agents/{id}", lambda: origami.archive_agent(ID)),
        "listAgentTables": ("GET /agents/{id}/tables", lambda: origami.list_tables(ID, include="stats")),
        "getTable": ("GET /tables/{id}", lambda: origami.get_table(ID, include="stats")),
        "listRows": ("GET /tables/{id}/rows", lambda: origami.list_rows(ID)),
        "getAccount": ("GET /account", origami.get_account),
        "getAccountCredits": ("GET /account/credits", origami.get_credits),
    },
}
"""By vendor, and by the name that its description has for an operation, a flow that asks for nothing else."""


@frozen
class Described:
    """One successful answer of an operation, as the vendor describes it."""

    operation: Operation
    status: int
    schema: Mapping[str, Any]
    components: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.operation} {self.status}"

    def body(self, below: Below, *, whole: bool = False) -> bytes:
        """Make a body that fits; with *whole*, one that has every property."""
        return written(made(self.schema, self.components, below, whole=whole))

    def answer(self, body: bytes) -> Answer:
        return Answer(self.operation.answers[0].line, self.status, {}, body)


def described(vendor: str) -> Iterator[Described]:
    for file in sorted(FOLDER.glob(f"{vendor}-*.openapi.y*ml")):
        document = yaml.safe_load(file.read_text())
        for item in document["paths"].values():
            for declared in item.values():
                name: str = declared.get("operationId", "") if isinstance(declared, dict) else ""
                for code, response in declared["responses"].items() if name in FLOWS[vendor] else ():
                    content = referred(response, document).get("content", {})
                    if 200 <= int(code) < 300 and "application/json" in content:
                        line, make = FLOWS[vendor][name]
                        operation = Operation(vendor, name, make, (Answer(line.replace("{id}", ID), 200),))
                        yield Described(operation, int(code), content["application/json"]["schema"], document)


def referred(node: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in node:
        found: Any = document
        for step in node["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        node = found
    return node


TEXTS: Final[Mapping[str, Sequence[str]]] = {
    "uuid": (ID, "00000000-0000-0000-0000-000000000000"),
    "date-time": ("2026-01-15T12:00:00Z", "2026-01-15T12:00:00.123456+02:00", "2026-01-15T12:00:00.1Z"),
    "uri": ("https://example.test/a?b=c#d",),
    "email": ("a@example.test",),
    "": ("", "x", "É\u2028\x00", "x" * 300),
}


def made(
    schema: Mapping[str, Any], document: Mapping[str, Any], below: Below, *, whole: bool = False, depth: int = 0
) -> Any:
    """Make a value that a schema allows: the parts of JSON Schema that the vendors use, and no others."""
    schema = referred(schema, document)

    def inner(part: Mapping[str, Any]) -> Any:
        return made(part, document, below, whole=whole, depth=depth + 1)

    if schema.get("nullable") is True and below(4) == 0:
        return None
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][below(len(schema["enum"]))]
    if "allOf" in schema:
        value: dict[str, Any] = {}
        for part in schema["allOf"]:
            one = inner(part)
            if not isinstance(one, dict):
                return one
            value |= one
        return value
    for choice in ("oneOf", "anyOf"):
        if choice in schema and "properties" not in schema:
            return inner(schema[choice][below(len(schema[choice]))])
    kind = schema.get("type", "object" if "properties" in schema else None)
    if isinstance(kind, list):
        kind = kind[below(len(kind))]
    if kind == "object":
        required = set(schema.get("required", ()))
        wanted = {
            name: part
            for name, part in schema.get("properties", {}).items()
            if name in required or (depth < 7 and (whole or below(3)))
        }
        value = {name: inner(part) for name, part in wanted.items()}
        if value.get("id") == "":
            value["id"] = "x"  # no description says so, but an id of nothing is none
        if schema.get("additionalProperties") is not False and below(3) == 0:
            value["novelty"] = JUNK[below(len(JUNK))]
        return value
    if kind == "array":
        least = schema.get("minItems", 0)
        count = least if depth >= 7 else least + below(3)
        return [inner(schema.get("items", {})) for _ in range(count)]
    if kind == "string":
        texts = TEXTS.get(schema.get("format", ""), TEXTS[""])
        return texts[below(len(texts))]
    if kind == "integer":
        return (schema.get("minimum", -1), 0, 1, schema.get("maximum", 2**40))[below(4)]
    if kind == "number":
        return (schema.get("minimum", -1.5), 0, 0.25, 10**6)[below(4)]
    if kind == "boolean":
        return below(2) == 1
    if kind == "null":
        return None
    return JUNK[below(len(JUNK))]


def constant(answer: Answer) -> Spoil:
    return lambda _: answer


@pytest.fixture(scope="module", params=FLOWS)
def vendor(request: pytest.FixtureRequest) -> Sequence[Described]:
    found = tuple(described(request.param))
    if not found:
        pytest.skip(f"no OpenAPI description of {request.param} beside the repository")
    return found


@pytest.fixture(scope="module")
def drive() -> Iterator[Drive]:
    made_ = Drive()
    with made_.runner:
        yield made_


def test_every_operation_that_is_looked_for_is_described(vendor: Sequence[Described]) -> None:
    (name,) = {each.operation.vendor for each in vendor}

    assert {each.operation.name for each in vendor} == set(FLOWS[name])


def test_whatever_a_description_allows_is_taken(vendor: Sequence[Described], drive: Drive) -> None:
    for each in vendor:
        for seed in range(int(6 * SCALE)):
            chance = random.Random(f"{each} {seed}")
            body = each.body(chance.randrange, whole=seed % 2 == 0)
            end, _ = drive.play(each.operation, constant(each.answer(body)))
            assert not isinstance(end, AgentRunsError), f"{each}: {end}: {body!r}"


def test_what_a_description_allows_and_chance_has_spoiled(vendor: Sequence[Described], drive: Drive) -> None:
    for each in vendor:
        for seed in range(int(10 * SCALE)):
            chance = random.Random(f"{each} {seed}")
            body = each.body(chance.randrange)
            spoiled = spoilt(each.answer(body), chance.randrange)
            drive.play(each.operation, constant(spoiled))


@settings(max_examples=int(40 * SCALE))
@given(data=st.data())
def test_what_a_description_allows_and_hypothesis_has_spoiled(
    vendor: Sequence[Described], data: st.DataObject, drive: Drive
) -> None:
    below: Below = lambda most: data.draw(st.integers(0, most - 1))  # noqa: E731
    each = vendor[below(len(vendor))]
    spoiled = spoilt(each.answer(each.body(below)), below)
    drive.play(each.operation, constant(spoiled))
