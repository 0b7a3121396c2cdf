"""What a client sends with every request beside its own."""

from typing import Any

import pytest

from agentruns import APIError, ConfigurationError, Retry, conduit, connect, middesk, origami
from agentruns._api.defaults import defaults_of
from agentruns.dialects.vendor import Vendor
from agentruns.emulator import Emulator
from agentruns.emulator.origami import Origami

CHILD = "b8b1f1f0-5a0d-4f5e-9d0a-6f2c1b7e4a11"

pytestmark = pytest.mark.asyncio


def client_of(dialect: Any, emulator: Emulator[Any], **options: Any) -> Any:
    return connect(dialect, token=emulator.token, base_url=emulator.base_url, retry=Retry(attempts=1), **options)


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ({}, {"headers": {"X-Origami-Project": CHILD}}),
        ({"project": CHILD}, {}),
        ({"project": "of another"}, {"headers": {"X-ORIGAMI-project": CHILD}}),
    ],
)
@pytest.mark.usefixtures("prompt_origami")
async def test_a_child_organization_is_named_on_every_request(variant: Any, options: Any) -> None:  # C2
    dialect = origami.variant(**variant)
    emulator: Emulator[Origami]
    async with Emulator("origami", retry_after=0) as emulator, client_of(dialect, emulator, **options) as client:
        run = await client.result(origami.Prompt("Find clinics."))
        agents = await client.perform(origami.list_agents())

        assert [agent.id for agent in agents.items] == [run.ref.parent]
        assert emulator.state.agents[run.ref.parent].project == CHILD
        assert {exchange.headers["x-origami-project"] for exchange in emulator.exchanges} == {CHILD}


async def test_a_parameter_of_every_request_gives_way_to_that_of_one() -> None:  # C1
    async with Emulator("conduit") as emulator:
        state: Any = emulator.state
        async with client_of(conduit, emulator, params={"workspace_id": state.workspace_id}) as client:
            await client.perform(conduit.get_agent(state.agent_id))
            with pytest.raises(APIError):
                await client.perform(conduit.get_agent(state.agent_id, workspace_id="another"))

        assert [exchange.query["workspace_id"] for exchange in emulator.exchanges] == [state.workspace_id, "another"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"headers": "x: y"}, "headers is 'x: y'"),
        ({"headers": {"x y": "z"}}, "headers has 'x y'"),
        ({"headers": {"x": "a\r\nb: c"}}, "headers has 'x'"),
        ({"headers": {"x": "ü"}}, "headers has 'x'"),
        ({"headers": {"Authorization": "Bearer other"}}, "which the client sets itself"),
        ({"headers": {"Idempotency-Key": "k"}}, "which the client sets itself"),
        ({"headers": {"x": 3}}, "both must be texts"),
        ({"params": {3: "x"}}, "both must be texts"),
        ({"params": {"": "x"}}, "both must be texts"),
        ({"params": [("a", "b")]}, "it must be a mapping"),
    ],
)
async def test_what_no_request_can_carry_is_refused_before_any(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        connect(middesk, token="mk_live_x", **options)


async def test_a_dialect_that_has_nothing_to_add_adds_nothing() -> None:
    found = defaults_of(Vendor.of(middesk), None, None)

    assert (dict(found.headers), dict(found.params)) == ({}, {})
