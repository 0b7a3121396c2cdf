"""Middesk: subscriptions, the events of a run, and the signed requests that tell of them."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest

from agentruns.emulator import Turn
from tests.emulator.middesk_caller import START, asking, served, yes

pytestmark = pytest.mark.asyncio

HOOK: dict[str, Any] = {"url": "https://app.example/hook", "enabled_events": ["*"], "secret": "shh"}


async def test_a_subscription_is_made_and_keeps_its_secret() -> None:
    async with served() as http:
        answer = await http.ask("POST", "/webhooks", HOOK)
        assert answer.status == 201
        assert answer.body.items() >= {"object": "webhook", "url": HOOK["url"], "enabled_events": ["*"]}.items()
        assert b"shh" not in answer.content
        changes: list[tuple[dict[str, Any], str]] = [
            ({"url": None}, "url"),
            ({"url": "app.example"}, "url"),
            ({"enabled_events": []}, "enabled_events"),
            ({"enabled_events": "*"}, "enabled_events"),
            ({"enabled_events": ["*", 7]}, "enabled_events"),
            ({"secret": 7}, "secret"),
        ]
        for change, parameter in changes:
            status, _, named = (await http.ask("POST", "/webhooks", {**HOOK, **change})).refused
            assert (status, named) == (422, parameter)


async def test_a_subscription_is_listed_read_changed_and_ended() -> None:
    async with served() as http:
        made = (await http.ask("POST", "/webhooks", {**HOOK, "include": "identifiers"})).body
        assert (await http.ask("GET", f"/webhooks/{made['id']}")).body == made
        assert (await http.ask("GET", "/webhooks")).body["data"] == [made]
        http.clock.advance(5)
        change = {"url": "https://other.example", "disabled_at": "2026-09-14T09:00:00Z"}
        changed = (await http.ask("PUT", f"/webhooks/{made['id']}", change)).body
        assert changed == made | change | {"updated_at": changed["updated_at"]}
        assert changed["updated_at"] != made["updated_at"]
        await http.play()
        assert http.emulator.state.deliveries() == ()
        assert (await http.ask("PUT", f"/webhooks/{made['id']}", {"enabled_events": []})).refused[0] == 422
        assert (await http.ask("DELETE", f"/webhooks/{made['id']}")).status == 200
        for method in ("GET", "PUT", "DELETE"):
            assert (await http.ask(method, f"/webhooks/{made['id']}", {})).refused[:2] == (404, "Webhook not found")


async def test_a_webhook_is_signed_over_its_raw_body() -> None:
    async with served() as http:
        run = await http.play()
        headers, body = http.emulator.state.webhook(run["id"], "run.completed", "shh")
        assert headers == {
            "Content-Type": "application/json",
            "X-Correlation-Id": run["id"],
            "X-Middesk-Signature-256": hmac.new(b"shh", body, hashlib.sha256).hexdigest(),
        }
        event = json.loads(body)
        assert (event["object"], event["type"], event["created_at"]) == ("event", "run.completed", run["ended_at"])
        left_out = ("thread_id", "agent", "requester", "output")
        assert event["data"]["object"] == {k: v for k, v in run.items() if k not in left_out} | {"steps": []}
        assert http.emulator.state.webhook(run["id"], "run.completed", "shh") == (headers, body)
        assert http.emulator.state.webhook(run["id"])[1] == body
        assert "X-Middesk-Signature-256" not in http.emulator.state.webhook(run["id"])[0]


async def test_webhooks_show_the_run_as_it_was() -> None:
    async with served(script=[asking(running=2), Turn(error="x")]) as http:
        run = await http.play()
        await http.resume(run, yes(run))
        http.clock.advance(1)
        hooks = {}
        for kind in ("run.created", "run.interrupted", "run.completed"):
            hooks[kind] = json.loads(http.emulator.state.webhook(run["id"], kind)[1])["data"]["object"]
        created, paused, ended = hooks.values()
        assert (created["status"], created["started_at"], created["interrupts"]) == ("running", None, [])
        assert (paused["status"], paused["interrupts"]) == ("interrupted", run["interrupts"])
        assert paused["updated_at"] == run["updated_at"]
        assert (ended["status"], ended["interrupts"]) == ("error", [])


async def test_a_webhook_of_what_has_not_happened_cannot_be_made() -> None:
    async with served() as http:
        run = await http.play()
        with pytest.raises(
            LookupError, match=r"no run\.interrupted has happened to the run, only run\.created, run\.c"
        ):
            http.emulator.state.webhook(run["id"], "run.interrupted")
        with pytest.raises(ValueError, match=r"there is no event 'run\.resumed', only"):
            http.emulator.state.webhook(run["id"], "run.resumed")


async def test_subscribed_endpoints_are_owed_the_events_they_want_since_they_asked() -> None:
    async with served(script=[asking()], others={"mk_test_2": "Other Inc"}) as http:
        await http.start()
        http.clock.advance(5)
        await http.ask("POST", "/webhooks", HOOK)
        await http.ask("POST", "/webhooks", {"url": "http://b.example", "enabled_events": ["run.interrupted"]})
        await http.ask("POST", "/webhooks", HOOK | {"url": "https://other.example"}, token="mk_test_2")
        run = await http.start()
        http.clock.advance(5)
        theirs = await http.start(START, token="mk_test_2")
        owed = http.emulator.state.deliveries()
        assert [(one.url, one.type, one.run_id) for one in owed] == [
            (HOOK["url"], "run.created", run["id"]),
            (HOOK["url"], "run.interrupted", run["id"]),
            ("http://b.example", "run.interrupted", run["id"]),
            ("https://other.example", "run.created", theirs["id"]),
        ]
        assert owed[1].body == owed[2].body
        assert ["X-Middesk-Signature-256" in one.headers for one in owed] == [True, True, False, True]
        assert http.emulator.state.deliveries() == owed
        assert "shh" not in repr(owed)


async def test_a_run_that_a_policy_carries_through_is_never_told_to_be_interrupted() -> None:
    async with served(script=[asking(), asking()], interrupt_policy="auto_approve") as http:
        await http.ask("POST", "/webhooks", HOOK)
        await http.start()
        http.clock.advance(60)
        assert [one.type for one in http.emulator.state.deliveries()] == ["run.created", "run.completed"]
