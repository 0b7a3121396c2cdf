"""Another reading of what no page says reaches everywhere: connect, batch, kept work, other processes."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from agentruns import Client, InvalidRequestError, Retry, RunRef, ToolOutput, connect, narrative, origami
from agentruns.emulator import Call, Emulator, Narrative, Turn
from tests.scripted_wire import STEADY

pytestmark = pytest.mark.asyncio


def as_result(output: ToolOutput) -> dict[str, Any]:
    return {"tool_use_id": output.action.id, "is_error": output.is_error, "result": output.output}


OTHER = narrative.variant(tool_output=as_result)


def asks() -> list[Turn]:
    return [Turn(calls=[Call("user-ask", {"question": "Shall I?"})]), Turn("Done.")]


def client_of(emulator: Emulator[Narrative], dialect: Any = OTHER, **options: Any) -> Any:
    return connect(
        dialect, token=emulator.token, base_url=emulator.base_url, retry=Retry(backoff=STEADY, attempts=1), **options
    )


async def ask(question: str) -> str:
    return "yes"


async def asked_again(question: str) -> str:
    raise AssertionError("the answer is kept, and only posted")


async def message(client: Client[Any, Any], text: str = "Do it.") -> narrative.UserMessage:
    config = narrative.Config(
        model="m",
        data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
        max_iterations=8,
        max_tokens=2048,
        output_format_schema=narrative.TEXT_SCHEMA,
        client_tools=[narrative.client_tools({"ask": ask}, alias="user")],
    )
    conversation = await client.perform(narrative.create_conversation(config))
    return narrative.UserMessage(conversation.id, text)


async def test_the_other_reading_is_one_line_away_where_the_vendor_has_it() -> None:  # B1, B2
    async with Emulator("narrative", script=asks() + asks(), output_field="result") as emulator:
        async with client_of(emulator, narrative) as client:
            with pytest.raises(InvalidRequestError, match="its shape is a guess") as caught:
                await client.result(await message(client), tools={"ask": ask})
        assert "`narrative.variant(tool_output=...)`" in str(caught.value)

        async with client_of(emulator) as client:
            run = await client.result(RunRef(next(iter(emulator.state.runs))), tools={"ask": ask})  # nothing is burned
            outcomes = [each async for each in client.batch([await message(client)], tools={"ask": ask})]

    assert run.output == "Done."
    assert [outcome.error for outcome in outcomes] == [None]


async def test_kept_work_goes_on_with_another_reading(tmp_path: Path) -> None:
    journal = tmp_path / "work.db"
    async with Emulator("narrative", script=asks(), output_field="result") as emulator:
        async with client_of(emulator, narrative, journal=journal) as client:
            with pytest.raises(InvalidRequestError):
                await client.result(await message(client), tools={"ask": ask}, key="k")

        async with client_of(emulator, journal=journal) as client:
            (work,) = [each async for each in client.unfinished()]
            run = await client.result(work.origin, tools={"ask": asked_again}, key=work.key)

    assert run.output == "Done."
    assert len(emulator.state.runs) == 2


@pytest.mark.parametrize("variant", [OTHER, origami.variant(keep_model=False, project="p")])
async def test_a_variant_goes_to_other_processes(variant: Any) -> None:
    again = pickle.loads(pickle.dumps(variant))

    assert repr(again) == repr(variant)
    assert again.resume.keywords == variant.resume.keywords
    assert getattr(again, "DEFAULT_HEADERS", None) == getattr(variant, "DEFAULT_HEADERS", None)


@pytest.mark.parametrize("populated", ["schema", "table"])
@pytest.mark.parametrize("absent", ["null", "omit", "random"])
async def test_a_run_is_followed_whichever_fields_it_has(populated: str, absent: str) -> None:  # A4
    options: dict[str, Any] = {"populated": populated, "absent": absent}
    async with Emulator("narrative", script=asks(), **options) as emulator, client_of(emulator, narrative) as client:
        run = await client.result(await message(client), tools={"ask": ask})

    assert run.output == "Done."


async def test_tools_that_the_account_drops_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        Emulator("narrative", revision="B", drops_tools=True) as emulator,
        client_of(emulator, narrative) as client,
    ):
        await message(client)

    assert "was created without client_tools" in caplog.text


async def test_the_owner_of_a_token_is_read() -> None:
    async with Emulator("narrative", company_id=3, user_id=7) as emulator, client_of(emulator, narrative) as client:
        assert await client.perform(narrative.whoami()) == narrative.Identity(7, 3)


@pytest.mark.parametrize("error", ["JobFailed", "AgentLoopMaxIterationsExceeded"])
async def test_an_answer_whose_run_failed_is_tried_again(error: str) -> None:  # A1
    script = [asks()[0], Turn(error=error), Turn("Booked.")]
    async with (
        Emulator("narrative", script=script, keep_failed=False) as emulator,  # else the conversation has moved on
        client_of(emulator, narrative) as client,
    ):
        stream = client.stream(await message(client))
        paused = [state async for state in stream][-1]
        outputs = [ToolOutput(action, "yes") for action in paused.actions]
        first = await client.resume(paused, outputs)
        failed = [state async for state in client.stream(first)][-1]
        assert failed.failure is not None
        assert failed.failure.type == error
        again = await client.resume(paused, outputs, again=error != "JobFailed")
        done = await client.result(again)
        once_more = await client.resume(paused, outputs, again=True)

    assert done.output == "Booked."
    assert once_more.id == done.id  # what has not failed stands
    assert len(emulator.state.runs) == 3


async def test_an_answer_to_kept_work_is_tried_again_by_hand(tmp_path: Path) -> None:  # A1
    script = [asks()[0], Turn(error="AgentLoopMaxIterationsExceeded"), Turn("Booked.")]
    async with (
        Emulator("narrative", script=script, keep_failed=False) as emulator,
        client_of(emulator, narrative, journal=tmp_path / "work.db") as client,
    ):
        origin = await message(client)
        stream = client.stream(origin, tools={"ask": ask}, key="k")
        states = [state async for state in stream]
        assert states[-1].failure is not None
        paused = next(state for state in states if state.actions)
        again = await client.resume(paused, [ToolOutput(action, "yes") for action in paused.actions], again=True)
        done = await client.result(again)

    assert done.output == "Booked."
