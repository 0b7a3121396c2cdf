"""Answers that repeat what started the run: who knows it, and what is said where nobody does."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from agentruns import Client, ConfigurationError, Inbox, Run, RunStatus, ToolOutput
from agentruns.dialects import Flow, Request, wire
from agentruns.dialects.vendor import Vendor
from agentruns.emulator import Emulator, Fault
from agentruns.testing.acts import SECONDS, Handler, pausing
from tests.conformance import acme
from tests.conformance.acme import AcmeCase, AcmeJob, Job

CASE = AcmeCase()
JOB = Job("p1", "Sort the post.")


def resume_as_before(run: Run[AcmeJob], outputs: Sequence[ToolOutput], *, origin: Job) -> Flow[Run[AcmeJob]]:
    """Answer a job of Acme; in the path, which is not looked at, stands what started it."""
    if any(output.output == "hm" for output in outputs):
        raise ConfigurationError("hm is no answer", field="ToolOutput.output")
    answers = {output.action.id: output.output for output in outputs}
    path = wire.path("jobs", run.id, "answers") + wire.query({"text": origin.text})
    return acme._run((yield Request("POST", path, json=answers, idempotent=True)))


def repeating(emulator: Emulator[Any], journal: Path | None = None) -> Client:
    """Return a client of a vendor that wants each answer to repeat the text of the job."""
    return CASE.connect(emulator, journal=journal, changes={"resume": resume_as_before})


def asking(pauses: int = 1) -> AbstractAsyncContextManager[Emulator[Any]]:
    ask, done = pausing(CASE)
    return CASE.emulator(*([ask] * pauses), done)


def answered(emulator: Emulator[Any]) -> list[Mapping[str, str]]:
    """Return the query parameters of the answers that were sent."""
    return [each.query for each in emulator.requests("POST", "/jobs/*/answers")]


async def paused(client: Client, **options: Any) -> Run:
    return [run async for run in client.stream(JOB, timeout=SECONDS, **options)][-1]


def yes(run: Run) -> list[ToolOutput]:
    return [ToolOutput(action, "yes") for action in run.actions]


@pytest.mark.asyncio
async def test_a_stream_says_with_each_answer_what_it_was_started_with() -> None:
    async with asking(2) as emulator, repeating(emulator) as client:
        run = await client.result(JOB, tools=Handler(), timeout=SECONDS)

        assert run.status is RunStatus.COMPLETED
        assert answered(emulator) == [{"text": "Sort the post."}] * 2


@pytest.mark.asyncio
async def test_who_has_started_a_run_answers_it_by_hand_or_follows_it_without_saying_so_again() -> None:
    async with asking(2) as emulator, repeating(emulator) as client:
        run = await client.resume(first := await paused(client), yes(first))
        done = await client.result(run, tools=Handler(), timeout=SECONDS)

        assert done.status is RunStatus.COMPLETED
        assert answered(emulator) == [{"text": "Sort the post."}] * 2


@pytest.mark.asyncio
async def test_a_run_that_is_known_by_its_id_alone_is_answered_once_it_is_said_what_started_it() -> None:
    handler = Handler()
    async with asking() as emulator:
        async with repeating(emulator) as client:
            run = await paused(client)
        async with repeating(emulator) as other:
            sent = len(emulator.requests())
            with pytest.raises(ConfigurationError, match=f"what started run {run.id}.*origin=") as refused:
                await other.resume(run, yes(run))
            assert refused.value.field == "origin"
            assert len(emulator.requests()) == sent

            with pytest.raises(ConfigurationError, match="origin="):
                await other.result(run.ref, tools=handler, timeout=SECONDS)
            assert not handler.answered
            assert not answered(emulator)

            with pytest.raises(ConfigurationError, match="starts a run from Job, not from str"):
                await other.resume(run, yes(run), origin="Sort the post.")

            resumed = await other.resume(run, yes(run), origin=JOB)
            await other.result(resumed, timeout=SECONDS)
            assert answered(emulator) == [{"text": "Sort the post."}]


@pytest.mark.asyncio
async def test_a_journal_knows_what_started_its_work_for_streams_and_for_answers_by_hand(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with asking(2) as emulator:
        async with repeating(emulator, journal) as client:
            run = await paused(client, key="k")
        async with repeating(emulator, journal) as other:
            await other.resume(run, yes(run))
        async with repeating(emulator, journal) as third:
            done = await third.result(JOB, key="k", tools=Handler(), timeout=SECONDS)

        assert done.status is RunStatus.COMPLETED
        assert answered(emulator) == [{"text": "Sort the post."}] * 2


@pytest.mark.asyncio
async def test_work_that_began_with_a_run_knows_no_more_than_the_run(tmp_path: Path) -> None:
    handler = Handler()
    async with asking() as emulator:
        async with repeating(emulator) as client:
            run = await paused(client)
        async with repeating(emulator, tmp_path / "journal") as other:
            with pytest.raises(ConfigurationError, match="origin="):
                await other.result(run.ref, key="k", tools=handler, timeout=SECONDS)
            assert not handler.answered

            await other.result(await other.resume(run, yes(run), origin=JOB), key="k", timeout=SECONDS)
            assert answered(emulator) == [{"text": "Sort the post."}]


@pytest.mark.asyncio
async def test_what_the_dialect_refuses_is_refused_in_the_inbox_to_who_answers() -> None:
    inbox = Inbox()
    async with asking() as emulator, repeating(emulator) as client, inbox:
        following = asyncio.create_task(client.result(JOB, tools=inbox, timeout=SECONDS))
        async for waiting in inbox.changes():
            if waiting:
                break
        with pytest.raises(ConfigurationError, match="hm is no answer"):
            await inbox.answer(waiting[0].action.id, "hm")
        await inbox.answer(waiting[0].action.id, "yes")

        assert (await following).status is RunStatus.COMPLETED


@pytest.mark.asyncio
async def test_an_answer_that_got_lost_is_sent_again_with_what_started_the_run() -> None:
    async with asking() as emulator, repeating(emulator) as client:
        emulator.fail(Fault.drop(committed=True, method="POST", path="/jobs/*/answers"))
        await client.result(JOB, tools=Handler(), timeout=SECONDS)

        assert answered(emulator) == [{"text": "Sort the post."}] * 2


@pytest.mark.asyncio
async def test_other_vendors_are_asked_and_told_nothing_of_it() -> None:
    async with asking() as emulator, CASE.connect(emulator) as client:
        run = await paused(client)
    async with asking() as emulator, CASE.connect(emulator) as client:
        run = await paused(client)
        await client.result(await client.resume(run, yes(run), origin=JOB), timeout=SECONDS)

        assert answered(emulator) == [{}]


def test_a_dialect_says_by_a_parameter_that_it_wants_the_origin() -> None:
    plain = CASE.vendor
    wants = evolve(plain, resume=resume_as_before)

    assert not plain.asks_origin()
    assert wants.asks_origin()
    assert wants.asks_origin("resume")
    assert not wants.asks_origin("resume_first")
    assert not evolve(plain, cancel=partial(resume_as_before, outputs=())).asks_origin()


def test_a_parameter_of_another_name_is_refused_at_the_door() -> None:
    class Wrong:
        def __getattr__(self, name: str) -> Any:
            return getattr(acme, name)

        @staticmethod
        def resume(run: Any, outputs: Any, *, began: Any) -> Any: ...

    with pytest.raises(ConfigurationError, match=r"`resume` must be a function of \(run, outputs\), or of these and"):
        Vendor.of(Wrong())
