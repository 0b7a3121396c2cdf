"""What the pages show and do: of a journal, of what waits in its inbox, and of an emulated vendor of each kind."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentruns import Action, RunRef, connect, dialects, narrative
from agentruns._keeping.journal import Journal
from agentruns._keeping.journal.schema import FAILED
from agentruns.console import AccessGuard, JournalReader, Source
from agentruns.emulator import Call, Emulator, Turn
from agentruns.inbox import Inbox
from tests.console.plain_browser import ORIGIN, SECONDS, Browser, browsing, fill, state
from tests.scripted_wire import CONVERSATION, RUN

from agentruns.cli import stories  # isort: skip
from agentruns.cli.console import emulated, over_journal  # isort: skip

PACE = 0.05
"""Of what the emulated agents do, in seconds."""


@asynccontextmanager
async def looking_at(journal: str | Path) -> AsyncIterator[Browser]:
    """Open a console over a journal, without any token."""
    async with over_journal(journal, lambda vendors: {}) as source, browsing(source) as browser:
        yield browser


@asynccontextmanager
async def trying(vendor: str) -> AsyncIterator[Browser]:
    async with emulated(vendor, pace=PACE) as source, browsing(source) as browser:
        yield browser


# A journal ------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_the_list_shows_the_work_of_a_journal(address: str) -> None:
    await fill(address)

    async with looking_at(address) as browser:
        page = await browser.open("/")
        assert [
            page.text.index(f">{key}</a>") for key in ("invoice-4", "invoice-3", "invoice-2", "invoice-1")
        ] == sorted(page.text.index(f">invoice-{number}</a>") for number in (1, 2, 3, 4))
        for said in ("Completed", "Failed", "Waits for an answer", "Starts", "no program is at it", "812 tokens in"):
            assert said in page.text
        assert "Start a run" not in page.text

        done = await browser.open("/?which=done")
        assert "invoice-1" in done.text
        assert "invoice-3" not in done.text
        waiting = await browser.open("/?which=waiting")
        assert "invoice-3" in waiting.text
        assert "invoice-4" not in waiting.text
        for name, count in (("all", 4), ("waiting", 1), ("open", 2), ("done", 2), ("failed", 1)):
            assert f'data-count="{name}">{count}<' in page.text


@pytest.mark.asyncio
async def test_an_empty_journal_says_so(address: str) -> None:
    async with Journal(address, "narrative"):
        pass
    async with looking_at(address) as browser:
        assert "There is no work here yet" in (await browser.open("/")).text
        assert "Nothing waits for an answer" in (await browser.open("/?which=waiting")).text


@pytest.mark.asyncio
async def test_a_long_list_goes_on_on_older_pages(address: str) -> None:
    async with Journal(address, "narrative") as journal:
        await asyncio.gather(*(journal.begin(f"job-{number:03}", ORIGIN) for number in range(150)))

    async with looking_at(address) as browser:
        first = await browser.open("/")
        assert first.text.count('class="row"') == 100
        (older,) = [part.partition('"')[0] for part in first.text.split('id="older" href="')[1:]]
        second = await browser.open(older.replace("&amp;", "&"))
        assert second.text.count('class="row"') == 50
        assert 'id="older"' not in second.text


@pytest.mark.asyncio
async def test_failed_work_and_parts_of_keys_are_found_among_many(address: str) -> None:
    async with Journal(address, "narrative") as journal:
        failed, done = (state(word, id=f"run-{word}").to_json() for word in ("failed", "completed"))
        for number in range(150):
            key = f"row {number:03} & more"
            await journal.begin(key, ORIGIN)
            await journal.saw(key, failed if number % 50 == 7 else done, done=True)

    async with looking_at(address) as browser:
        page = await browser.open("/?which=failed")
        assert page.text.count('class="row"') == 3
        assert 'data-count="failed">3<' in page.text
        page = await browser.open("/?key=7+%26+m")
        assert page.text.count('class="row"') == 15
        assert "which=failed&amp;key=7%20%26%20m" in page.text
        assert (await browser.open("/?which=failed&key=057")).text.count('class="row"') == 1
        assert "No such key is here" in (await browser.open("/?key=nothing")).text


@pytest.mark.asyncio
async def test_a_page_of_a_large_journal_reads_no_row_that_has_not_failed(tmp_path: Path) -> None:
    await fill(tmp_path / "j")
    with contextlib.closing(sqlite3.connect(tmp_path / "j")) as file:
        plan = file.execute(f"EXPLAIN QUERY PLAN SELECT count(*) FROM work WHERE {FAILED}").fetchall()
    assert "failed" in plan[0][-1]


@pytest.mark.asyncio
async def test_who_is_at_the_work_is_shown(address: str) -> None:
    async with Journal(address, "narrative") as journal:
        await journal.begin("mine", ORIGIN)
        async with looking_at(address) as browser:
            assert "a program is at it" in (await browser.open("/")).text
            await journal.release("mine")
            assert "no program is at it" in (await browser.open("/")).text


@pytest.mark.asyncio
async def test_a_run_is_shown_as_the_journal_has_it(address: str) -> None:
    await fill(address)
    async with looking_at(address) as browser:
        waits = await browser.open("/work/w3")
        assert "ops-approve_invoice" in waits.text
        assert "RE-2026-118" in waits.text
        assert "It cannot be answered from here" in waits.text
        assert waits.answers == []
        assert "Sort my invoices." in waits.text

        failed = await browser.open("/work/w2")
        assert "max iterations exceeded" in failed.text
        done = await browser.open("/work/w1")
        assert "Done." in done.text
        assert "812 tokens in, 64 out" in done.text
        assert "Starts" in (await browser.open("/work/w4")).text


@pytest.mark.asyncio
async def test_what_was_answered_before_stands_in_the_timeline(address: str) -> None:
    async with Journal(address, "narrative") as journal:
        await journal.begin("job", ORIGIN)
        await journal.handle("job", "run-0", "t1", "ops-approve_invoice")
        await journal.answered("job", "run-0", "t1", '{"approved": true}', False)
        await journal.posted("job", "run-0")
        await journal.saw("job", state("completed").to_json(), done=True)

    async with looking_at(address) as browser:
        text = (await browser.open("/work/w1")).text
    order = [text.index(part) for part in ("Begun", "ops-approve_invoice was answered", "approved&#34;: true", "Done.")]
    assert order == sorted(order)


@pytest.mark.asyncio
async def test_work_that_is_not_there_is_said_so(address: str) -> None:
    await fill(address)
    async with looking_at(address) as browser:
        for entry in ("w99", "p1", "w", "x1", "w1x", "w²", "w" + "9" * 40, "%00"):
            page = await browser.open(f"/work/{entry}")
            assert page.status == 404
            assert "no such work" in page.text


@pytest.mark.asyncio
async def test_what_stands_in_a_journal_is_text_and_never_html(address: str) -> None:
    bad = "<script>alert(1)</script>'\"><b>&"
    call = {"tool_use_id": bad, "name": bad, "arguments": {bad: bad}}
    async with Journal(address, "narrative") as journal:
        spoilt: list[dict[str, Any]] = [{"pending_tool_calls": [call]}, {"final_text": bad}, {"id": bad}]
        for number, changes in enumerate(spoilt):
            await journal.begin(f"{number}{bad}", json.dumps({"text": bad}))
            await journal.saw(
                f"{number}{bad}", state(("requires_action", "completed", "failed")[number], **changes).to_json()
            )

    async with looking_at(address) as browser:
        for path in ("/", "/work/w1", "/work/w2", "/work/w3"):
            page = await browser.open(path)
            assert page.status == 200
            assert "<script>alert" not in page.text
            assert "<b>" not in page.text
            assert "&lt;script&gt;alert" in page.text


@pytest.mark.asyncio
async def test_a_list_tells_what_changes_and_nothing_else(address: str) -> None:
    async with Journal(address, "narrative") as journal:
        await journal.begin("job", ORIGIN)
        async with looking_at(address) as browser:
            page = await browser.open("/")
            (events_at,) = [part.partition('"')[0] for part in page.text.split('sse-connect="')[1:]]
            async with browser.events(events_at.replace("&amp;", "&")) as events:
                await journal.saw("job", state("running").to_json())
                async with asyncio.timeout(SECONDS):
                    event_id, told = await anext(events)
                assert 'hx-swap-oob="true"' in told
                assert "Runs" in told
            async with browser.events("/events", **{"Last-Event-ID": event_id}) as events:
                await journal.saw("job", state("completed").to_json(), done=True)
                async with asyncio.timeout(SECONDS):
                    _, told = await anext(events)
                assert "Completed" in told


@pytest.mark.asyncio
async def test_a_timeline_goes_on_as_the_journal_does(address: str) -> None:
    async with Journal(address, "narrative") as journal:
        await journal.begin("job", ORIGIN)
        async with looking_at(address) as browser:
            async with browser.events("/work/w1/events") as events:
                async with asyncio.timeout(SECONDS):
                    await anext(events)
                await journal.saw("job", state("running").to_json())
                async with asyncio.timeout(SECONDS):
                    event_id, told = await anext(events)
                assert 'data-kind="running"' in told
                assert 'data-kind="begun"' not in told
            await journal.saw("job", state("completed").to_json(), done=True)
            told = await browser.until("/work/w1/events", "Done.", **{"Last-Event-ID": event_id})
            assert 'data-kind="running"' not in told  # it was told before
            told = await browser.until("/work/w1/events", "Done.", **{"Last-Event-ID": "00000000-7"})
            assert 'data-kind="running"' in told  # a browser that saw another history is sent all of this one


# The inbox ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def parked(journal: str, *, key: str | None = "job") -> AsyncIterator[asyncio.Task[Any]]:
    """Run what a program does that follows a run of an emulated vendor and asks people by an inbox in the journal."""
    script = [Turn(calls=[Call("confirm", {"slot": "14:30"}), Call("pay", {"sum": 5})]), Turn("Thanks.")]
    async with (
        Emulator("narrative", script=script) as emulator,
        Inbox(journal=journal) as inbox,
        connect(
            "narrative", token=emulator.token, base_url=emulator.base_url, journal=journal, schedule=stories.QUICK
        ) as client,
    ):
        schema = {"type": "object", "properties": {"slot": {"type": "string"}}}
        config = narrative.Config(
            model="m",
            data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
            max_iterations=8,
            max_tokens=100,
            output_format_schema=narrative.TEXT_SCHEMA,
            client_tools=[
                narrative.ClientTools("u", [narrative.Tool(name, "Ask.", schema) for name in ("confirm", "pay")])
            ],
        )
        conversation = await client.perform(narrative.create_conversation(config))
        origin = narrative.UserMessage(conversation.id, "Hello")
        task = asyncio.create_task(client.result(origin, tools=inbox, timeout=None, key=key))
        async with asyncio.timeout(SECONDS):
            async for waiting in inbox.changes():
                if len(waiting) == 2:
                    break
        try:
            yield task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.mark.asyncio
@pytest.mark.parametrize("key", ["job", None])
async def test_actions_that_another_program_parked_are_answered_and_it_goes_on(address: str, key: str | None) -> None:
    async with parked(address, key=key) as task, looking_at(address) as browser:
        listed = await browser.open("/?which=waiting")
        (work,) = [part.partition('"')[0] for part in listed.text.split('href="/work/')[1:]]
        page = await browser.open(f"/work/{work}")
        first, second = page.answers

        sent = await browser.send(first.action, first.filled(how="approve", note="Fine"))
        assert sent.status == 200
        assert "Your answer was sent." in sent.text
        assert len(sent.answers) == 1
        await browser.send(second.action, second.filled(how="refuse", reason="Too much"))

        async with asyncio.timeout(SECONDS):
            run = await task
    assert run.output == "Thanks."


@pytest.mark.asyncio
async def test_what_must_be_corrected_is_not_sent(address: str) -> None:
    async with parked(address), looking_at(address) as browser:
        form = (await browser.open("/work/w1")).answers[0]

        page = await browser.send(form.action, form.filled(how="refuse", reason=" ", note="kept"))

        assert page.status == 422
        assert "Nothing was sent" in page.text
        assert 'aria-invalid="true"' in page.text
        assert "This is needed." in page.text
        again = page.answers[0]
        assert dict(again.fields)[next(name for name, _ in again.fields if name.endswith("note"))] == "kept"
        assert (await browser.send(again.action, again.filled(how="approve"))).status == 200


@pytest.mark.asyncio
@pytest.mark.parametrize("scripts", [False, True])
async def test_a_form_that_was_answered_elsewhere_is_said_to_be_stale(address: str, scripts: bool) -> None:
    async with parked(address), looking_at(address) as browser:
        form = (await browser.open("/work/w1")).answers[0]
        headers = {"HX-Request": "true"} if scripts else {}
        fields = form.filled(how="approve")
        assert (await browser.send(form.action, fields, **headers)).status == 200

        late = await browser.send(form.action, fields, **headers)

        assert late.status == 409
        assert "Nothing was sent" in late.text
        assert ("<html" in late.text) is not scripts


@pytest.mark.asyncio
async def test_of_two_who_send_at_once_one_is_told_that_it_is_too_late(address: str) -> None:
    async with parked(address), looking_at(address) as browser:
        form = (await browser.open("/work/w1")).answers[0]

        pages = await asyncio.gather(*(browser.send(form.action, form.filled(how="approve")) for _ in range(5)))

        assert sorted(page.status for page in pages) == [200, 409, 409, 409, 409]


@pytest.mark.asyncio
async def test_an_answer_given_elsewhere_is_told_to_who_watches(address: str) -> None:
    async with (
        parked(address) as task,
        looking_at(address) as browser,
        Inbox(journal=address) as elsewhere,
        browser.events("/work/w1/events") as events,
    ):
        async with asyncio.timeout(SECONDS):
            await anext(events)
            for each in await elsewhere.pending():
                await elsewhere.answer(each.action.id, "yes", run_id=each.run.id)
            told = ""
            while "Thanks." not in told:
                told += (await anext(events))[1]
            await task
    assert "was answered" in told
    assert "Nothing to answer" in told


@pytest.mark.asyncio
async def test_no_secret_is_in_any_page(address: str) -> None:
    guard = AccessGuard()
    async with (
        parked(address),
        over_journal(address, lambda vendors: {}) as source,
        browsing(source, guard) as browser,
    ):
        form = (await browser.open("/work/w1")).answers[0]
        await browser.send(form.action, form.filled(how="refuse", reason=""))
        await browser.send(form.action, form.filled(how="approve"))
        told = await browser.until("/work/w1/events", "summary")
        shown = told + "".join(page.text + repr(page.headers) for page in browser.pages)
    assert "summary" in shown
    for secret in (guard.token, "emulator-token", "Authorization", "Bearer"):
        assert secret not in shown


# Runs that nobody follows ---------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_paused_run_that_nobody_follows_is_answered_at_the_vendor(tmp_path: Path) -> None:
    path = tmp_path / "j"
    script = [Turn(calls=[Call("confirm", {"slot": "14:30"}), Call("pay", {"sum": 5})]), Turn("Thanks.")]
    with Emulator("narrative", script=script) as emulator:

        def client() -> Any:
            return connect("narrative", token=emulator.token, base_url=emulator.base_url, journal=path)

        async with client() as first:
            tools = [narrative.Tool(name, "Ask.", {"type": "object"}) for name in ("confirm", "pay")]
            config = narrative.Config(
                model="m",
                data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
                max_iterations=8,
                max_tokens=100,
                output_format_schema=narrative.TEXT_SCHEMA,
                tools=tools,
            )
            conversation = await first.perform(narrative.create_conversation(config))
            async for _ in first.stream(narrative.UserMessage(conversation.id, "Hello"), key="job"):
                pass

        async with (
            over_journal(path, lambda vendors: {name: client() for name in vendors if name == "narrative"}) as source,
            browsing(source) as browser,
        ):
            page = await browser.open("/work/w1")
            (form,) = page.answers
            assert "It goes to the vendor at once" in page.text
            hows = [name for name, value in form.offered if value == "approve"]
            fields = [*form.fields, *((how, "approve") for how in hows)]
            assert len(hows) == 2

            sent, late = await asyncio.gather(browser.send(form.action, fields), browser.send(form.action, fields))

            assert sorted([sent.status, late.status]) == [200, 409]
            await browser.until("/work/w1/events", "Thanks.")
        assert emulator.state.runs_started == 2


@pytest.mark.asyncio
async def test_what_the_vendor_refuses_is_told_and_can_be_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "j"
    async with Journal(path, "narrative") as journal:
        await journal.begin("job", ORIGIN)
        await journal.saw("job", state("requires_action").to_json())
        await journal.release("job")
    with Emulator("narrative") as emulator:

        def clients(vendors: Any) -> Any:
            return {"narrative": connect("narrative", token=emulator.token, base_url=emulator.base_url)}

        async with over_journal(path, clients) as source, browsing(source) as browser:
            (form,) = (await browser.open("/work/w1")).answers
            page = await browser.send(form.action, form.filled(how="approve", note="kept"))
            assert page.status == 502
            assert "Not sent" in page.text
            assert "kept" in page.text
            assert emulator.token not in page.text


# Emulated vendors -----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("vendor", "job"),
    [(vendor, job) for vendor in dialects.NAMES for job in stories.trial_of(vendor).jobs]
    + [("tests.conformance.acme:", "example")],
)
async def test_every_job_that_is_offered_can_be_started_answered_and_ends(vendor: str, job: str) -> None:
    async with trying(vendor) as browser:
        page = await browser.start(job)
        assert page.path.startswith("/work/w")
        assert page.status == 200
        while True:
            told = await browser.until(f"{page.path}/events", "summary")
            if 'data-status="completed"' in told or 'data-status="failed"' in told:
                break
            shown = await browser.open(page.path)
            for form in shown.answers:
                how, value = next((name, value) for name, value in form.offered if name.endswith("/how"))
                hows = dict.fromkeys(name for name, _ in form.offered if name.endswith("/how"))
                fields = {**dict(form.fields), **{name: _first(form.offered, name) for name in hows}}
                fields |= {name: "true" for name, _ in form.offered if name.endswith("/approved")}
                fields |= {name: "0" for name, _ in form.offered if name.endswith("/cost_centre")}
                fields |= {
                    name: "Yes." for name in fields if value in {"answer", "text"} and name.endswith(f"/{value}")
                }
                assert (how, value) in form.offered
                sent = await browser.send(form.action, fields)
                assert sent.status in {200, 409}, sent.text
            await asyncio.sleep(0.05)
    assert ('data-status="failed"' in told) is (job == "failure")


def _first(offered: list[tuple[str, str]], name: str) -> str:
    return next(value for each, value in offered if each == name)


@pytest.mark.asyncio
async def test_a_job_that_is_not_offered_is_not_started() -> None:
    async with trying("conduit") as browser:
        form = (await browser.open("/")).forms[0]
        assert (await browser.send("/start", [*form.fields, ("job", "nonsense")])).status == 404
        assert "There is no work" in (await browser.open("/")).text


@pytest.mark.asyncio
async def test_the_questions_of_origami_are_answered_by_one_form() -> None:
    async with trying("origami") as browser:
        work = (await browser.start("clinics")).path
        page = await browser.waits(work)
        (form,) = page.answers
        assert page.text.count("<legend>Your answer</legend>") == 2
        for label in ("Single-site only", "Up to three sites", "Confirm", "Something else"):
            assert label in page.text
        first, second = dict.fromkeys(name for name, _ in form.offered)

        wrong = await browser.send(form.action, {**dict(form.fields), first: "answer-1"})
        assert wrong.status == 422
        assert wrong.text.count("Choose an answer.") == 1

        sent = await browser.send(form.action, {**dict(form.fields), first: "answer-1", second: "answer-0"})
        assert sent.status == 200
        told = await browser.until(f"{work}/events", "Built a list")
        assert "Which clinics count as independent? -&gt; Up to three sites." in told


@pytest.mark.asyncio
async def test_middesk_shows_artifacts_and_takes_a_rejection_with_its_reason() -> None:
    async with trying("middesk") as browser:
        work = (await browser.start("watchlist")).path
        page = await browser.waits(work)
        assert "Dismiss hit: Marlow Trading FZE" in page.text
        assert 'href="https://sanctions.example.gov/entries/77120" rel="noopener noreferrer"' in page.text
        (form,) = page.answers
        await browser.send(form.action, form.filled(how="reject", reason="Same address"))
        told = await browser.until(f"{work}/events", 'data-status="completed"')
        assert "Same address" in told


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("vendor", "job", "parts"),
    [
        ("narrative", "quick", ["What is on today?", "Two meetings, and lunch with Ana."]),
        ("narrative", "booking", ["calls", "user-confirm_booking", "tomorrow, 14:30"]),
        ("middesk", "watchlist", ["activity", "Planning the review", "Preparing a proposal", 'data-level="1"']),
        ("origami", "clinics", ["ask-questions", "Which clinics count as independent?"]),
        ("conduit", "plumber", ["find_contractor", "Hartley &amp; Daughters"]),
    ],
)
async def test_how_a_run_came_about_is_asked_of_the_vendor(vendor: str, job: str, parts: list[str]) -> None:
    async with trying(vendor) as browser:
        work = (await browser.start(job)).path
        over = "completed" if job in {"quick", "plumber"} else "requires_action"
        await browser.until(f"{work}/events", f'data-status="{over}"')
        for scripts in (False, True):
            page = await browser.open(f"{work}/trace", **({"HX-Request": "true"} if scripts else {}))
            assert page.status == 200
            assert ("<html" in page.text) is not scripts
        page = await browser.open(f"{work}/trace")
        assert all(part in page.text for part in parts), page.text


@pytest.mark.asyncio
async def test_without_a_token_the_trace_is_what_the_journal_has(tmp_path: Path) -> None:
    await fill(tmp_path / "j")
    async with looking_at(tmp_path / "j") as browser:
        assert "no token to ask with" in (await browser.open("/work/w1/trace")).text
        assert "no token to ask with" in (await browser.open("/work/w4/trace")).text


@pytest.mark.asyncio
async def test_conduit_shows_the_tools_that_the_agent_used() -> None:
    async with trying("conduit") as browser:
        work = (await browser.start("plumber")).path
        told = await browser.until(f"{work}/events", "A plumber is booked", 'data-status="completed"')
        assert "find_contractor" in told
        assert "1,840 tokens in, 212 out" in told


# The source -----------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_tools_are_known_by_the_configuration_that_the_run_shows(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"invoice_no": {"type": "string"}}}
    tools = [{"alias": "ops", "tools": [{"name": "approve_invoice", "description": "Ask.", "input_schema": schema}]}]
    run = state("requires_action", effective_config={"model": "m", "max_iterations": 3, "client_tools": tools})
    async with Journal(tmp_path / "j", "narrative"):
        pass
    answers = {"approve_invoice": {"type": "boolean"}}
    async with (
        Inbox(journal=tmp_path / "j") as inbox,
        JournalReader(tmp_path / "j") as book,
        Source(book, inbox, answers=answers) as source,
    ):
        tool = (await source.tools(run))["ops-approve_invoice"]
    assert (tool.description, tool.arguments, tool.answer) == ("Ask.", schema, {"type": "boolean"})
    assert run.ref == RunRef(RUN, CONVERSATION)
    assert isinstance(run.actions[0], Action)
