"""Many runs, tools, people, a journal and options that are handed on."""

from collections.abc import AsyncIterator
from typing import Unpack, assert_type

from agentruns import (
    Action,
    Batch,
    Client,
    Inbox,
    OnCancel,
    Outcome,
    Parked,
    RateLimit,
    RateLimiter,
    Retry,
    Run,
    RunRef,
    Stats,
    StreamOptions,
    ToolOutput,
    Tools,
    ToolSchema,
    ToolsLike,
    Unfinished,
    connect,
    narrative,
)

NarrativeClient = Client[narrative.UserMessage, narrative.NarrativeRun]
NarrativeState = Run[narrative.NarrativeRun]


async def outcomes(client: NarrativeClient, messages: list[narrative.UserMessage]) -> None:
    batch = client.batch(messages, limit=8, key=lambda message: message.text)
    assert_type(batch, Batch[narrative.UserMessage, narrative.NarrativeRun, narrative.UserMessage])
    async for outcome in batch:
        assert_type(outcome, Outcome[narrative.UserMessage, narrative.NarrativeRun, narrative.UserMessage])
        assert_type(outcome.origin, narrative.UserMessage)
        assert_type(outcome.run, NarrativeState | None)
        assert_type(outcome.error, Exception | None)


async def of_runs(client: NarrativeClient, refs: list[RunRef]) -> None:
    async for outcome in client.batch(refs):
        assert_type(outcome.origin, NarrativeState | RunRef)


async def prepared(client: NarrativeClient, rows: AsyncIterator[int]) -> None:
    """What could not be prepared is the origin of its outcome."""

    async def prepare(row: int) -> narrative.UserMessage:
        return narrative.UserMessage("c", f"Row {row}.")

    async for outcome in client.batch(rows, prepare=prepare, key=str):
        assert_type(outcome.origin, narrative.UserMessage | int)
        assert_type(outcome.item, int)


tools = Tools()


@tools.add
async def confirm_booking(proposed_slot: str) -> dict[str, bool]:
    return {"confirmed": True}


@tools.add(timeout=5.0, repeatable=True)
def look_up(name: str) -> int:
    return len(name)


@tools.default
async def ask(action: Action) -> str:
    return action.name


async def handlers(client: NarrativeClient, message: narrative.UserMessage) -> None:
    assert_type(await confirm_booking("now"), dict[str, bool])  # a function stays what it is
    assert_type(look_up("x"), int)
    assert_type(tools.schemas(), tuple[ToolSchema, ...])
    ways: list[ToolsLike] = [tools, {"look_up": look_up}, ask, Inbox()]
    for way in ways:
        await client.result(message, tools=way)


async def answered(client: NarrativeClient, run: NarrativeState) -> None:
    outputs = [ToolOutput(action, {"ok": True}) for action in run.actions]
    assert_type(await client.resume(run, outputs), NarrativeState)


async def people(inbox: Inbox) -> None:
    assert_type(await inbox.pending(), tuple[Parked, ...])
    async for waiting in inbox.changes():
        assert_type(waiting[0].action, Action)


async def after_a_crash(client: NarrativeClient) -> None:
    async for work in client.unfinished():
        assert_type(work, Unfinished[narrative.UserMessage, narrative.NarrativeRun])
        await client.result(work.origin, key=work.key)
    found = await client.work("invoice-17")
    assert_type(found, Unfinished[narrative.UserMessage, narrative.NarrativeRun] | None)


async def handed_on(client: NarrativeClient, message: narrative.UserMessage, **options: Unpack[StreamOptions]) -> str:
    on_cancel: OnCancel = "confirm"
    options["on_cancel"] = on_cancel
    run = await client.result(message, **options)
    output: str = run.output
    return output


def shared() -> None:
    limiter = RateLimiter(RateLimit(90, 60.0))
    one, other = connect(narrative, budget=limiter), connect("origami", budget=limiter, retry=Retry(attempts=1))
    assert_type(one.stats(), Stats)
    assert_type(other.stats().watched, int)
