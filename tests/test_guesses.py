"""Each guess of each vendor, the other way round: the emulator has the other reading, and one switch follows it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest
from attrs import field, frozen

from agentruns import (
    APIError,
    Backoff,
    ConfigurationError,
    DeadlineExceededError,
    InvalidRequestError,
    OutcomeUnknownError,
    Retry,
    RunFailedError,
    RunStatus,
    ToolOutput,
    conduit,
    connect,
    middesk,
    narrative,
    origami,
)
from agentruns.dialects import NAMES, load
from agentruns.emulator import Call, Emulator, Fault, ManualClock, Turn

QUICK = Backoff(initial=0.01, maximum=0.05)
PROMPT: Mapping[str, Mapping[str, Any]] = {"origami": {"retry_after": 0}}
"""What has a vendor ask for no wait: a read of Origami that finds the run under way would have to wait for 15 s."""
BUSINESS = "b86f3c52-11d9-4f07-8e6a-90c2d5a7714f"


def guesses_of(vendor: Any) -> Sequence[Any]:
    """Return the guesses of a vendor; one whose pages leave nothing open has none."""
    return getattr(vendor, "GUESSES", ())


Play = Callable[[Any, Any, bool], Awaitable[object]]


def yes() -> str:
    """Say yes."""
    return "yes"


@frozen(kw_only=True)
class Story:
    """A vendor that reads a guess otherwise, what is done with it, and how that goes with and without the switch."""

    guess: str
    switched: Any
    play: Play
    fails: type[Exception] | None = None
    said: str = ""
    otherwise: object = None
    comes_to: object = "Done."
    options: Mapping[str, Any] = field(factory=dict)
    script: Sequence[Turn] = (Turn("Done."),)
    stands_still: bool = False
    """Whether the vendor's clock moves only while a flow sleeps."""

    @property
    def vendor(self) -> str:
        return self.guess.partition(".")[0]

    async def played(self, monkeypatch: pytest.MonkeyPatch, *, switched: bool) -> object:
        clock = ManualClock() if self.stands_still else None

        async def sleep(seconds: float) -> None:
            assert clock is not None
            clock.advance(seconds)

        if clock is not None:
            monkeypatch.setattr("agentruns._api.flow.sleep", sleep)
        async with (
            Emulator(
                self.vendor, script=self.script, clock=clock, **PROMPT.get(self.vendor, {}), **self.options
            ) as emulator,
            connect(
                self.switched if switched else load(self.vendor),
                token=emulator.token,
                base_url=emulator.base_url,
                schedule=QUICK,
                retry=Retry(attempts=1, backoff=QUICK),
                budget=10_000,
            ) as client,
        ):
            return await self.play(client, emulator, switched)


# Narrative ------------------------------------------------------------------------------------------------------------

ASKS = [Turn(calls=[Call("user-yes", {})]), Turn("Done.")]


async def message(client: Any, **tools: Any) -> narrative.UserMessage:
    config = narrative.Config(
        model="m",
        data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
        max_iterations=8,
        max_tokens=2048,
        output_format_schema=narrative.TEXT_SCHEMA,
        **(tools or {"client_tools": [narrative.client_tools({"yes": yes}, alias="user")]}),
    )
    return narrative.UserMessage((await client.perform(narrative.create_conversation(config))).id, "Do it.")


async def answers_a_call(client: Any, _: Any, __: bool) -> object:
    return (await client.result(await message(client), tools={"yes": yes}, timeout=20)).output


async def answers_twice(client: Any, _: Any, __: bool) -> object:
    paused = [state async for state in client.stream(await message(client))][-1]
    outputs = [ToolOutput(action, "yes") for action in paused.actions]
    failed = [state async for state in client.stream(await client.resume(paused, outputs))][-1]
    assert failed.status is RunStatus.FAILED
    return (await client.result(await client.resume(paused, outputs))).output


async def waits_for_a_message(client: Any, _: Any, switched: bool) -> object:
    return (await client.result(await message(client), timeout=20 if switched else 0.3)).output


async def declares_tools(client: Any, _: Any, switched: bool) -> object:
    flat = {"tools": narrative.flat_tools({"yes": yes})} if switched else {}
    return (await client.result(await message(client, **flat), timeout=20)).output


def as_result(output: ToolOutput) -> dict[str, Any]:
    return {"tool_use_id": output.action.id, "is_error": output.is_error, "result": output.output}


# Middesk --------------------------------------------------------------------------------------------------------------

INTERRUPTED = [Turn(calls=[Call("tin_resolution", {"label": "Upload?"})]), Turn("Done.")]
REQUEST = middesk.RunRequest("cip_orchestrator", business_id=BUSINESS)


async def answers_an_interrupt(client: Any, _: Any, __: bool) -> object:
    return (await client.result(REQUEST, tools=lambda _: {"decision": "approve"}, timeout=20)).vendor_status


async def waits_for_a_check(client: Any, _: Any, switched: bool) -> object:
    return (await client.result(REQUEST, timeout=20 if switched else 0.3)).vendor_status


async def lists_runs(client: Any, _: Any, __: bool) -> object:
    await client.start(REQUEST)
    return len([run async for run in client.runs()])


async def starts_and_hears_nothing(client: Any, emulator: Any, _: bool) -> object:
    emulator.fail(Fault.drop(committed=True, method="POST", path="/v1/runs"))
    return (await client.start(REQUEST)).id in emulator.state.runs


def as_response(output: ToolOutput) -> dict[str, Any]:
    return {"id": output.action.id, "response": output.output}


# Origami --------------------------------------------------------------------------------------------------------------

QUESTION = {"type": "single-choice", "question": "Which?", "suggestedAnswers": ["This", "That"]}
QUESTIONS = [Turn(calls=[Call("ask-questions", QUESTION)]), Turn("Done.")]


async def answers_a_question(client: Any, _: Any, __: bool) -> object:
    return (await client.result(origami.Prompt("Find clinics."), tools=lambda _: "This", timeout=20)).output


def as_sentence(outputs: Sequence[ToolOutput]) -> str:
    return " ".join(f"{each.action.arguments['question']} {each.output}!" for each in outputs)


# Conduit --------------------------------------------------------------------------------------------------------------


async def fires_one(client: Any, emulator: Any, _: bool) -> object:
    state = emulator.state
    run = await client.start(conduit.Dispatch(state.agent_id, trigger_id=state.trigger_id))
    return run.id in state.runs


async def fires_any(client: Any, emulator: Any, _: bool) -> object:
    agent = emulator.state.add_agent(triggers=("event", "cron"))
    return (await client.result(conduit.Dispatch(agent.id), timeout=20)).output


async def waits_for_an_agent(client: Any, emulator: Any, _: bool) -> object:
    return (await client.result(conduit.Dispatch(emulator.state.agent_id), timeout=20)).output


async def replies(client: Any, emulator: Any, switched: bool) -> object:
    state = emulator.state
    run = await client.result(conduit.Dispatch(state.agent_id), timeout=20)
    dialect: Any = REPLIES if switched else conduit
    await client.perform(dialect.send_message(run.detail.conversation_id, body="Hello."))
    return state.messages_of(run.detail.conversation_id)[-1].body


def of_any_trigger(_: Mapping[str, Any], __: str) -> bool:
    return True


REPLIES = conduit.variant(message_path="/threads/{id}/reply")
TALKS = [Turn("Done.", extra={"conversation_id": "cv1", "disposition": "escalated"})]

STORIES = [
    Story(
        guess="narrative.tool_output",
        options={"output_field": "result"},
        script=ASKS,
        play=answers_a_call,
        fails=InvalidRequestError,
        said=r"its shape is a guess\. Sent was .*content_blocks.*`narrative\.variant\(tool_output=\.\.\.\)`",
        switched=narrative.variant(tool_output=as_result),
    ),
    Story(
        guess="narrative.retryable",
        options={"keep_failed": False},
        script=[ASKS[0], Turn(error="ModelOverloaded"), Turn("Done.")],
        play=answers_twice,
        fails=RunFailedError,
        said="ModelOverloaded",
        switched=narrative.variant(retryable={"ModelOverloaded"}),
    ),
    Story(
        guess="narrative.status",
        options={"words": {"completed": "done"}},
        play=waits_for_a_message,
        fails=DeadlineExceededError,
        said="done",
        switched=narrative.variant(status={"done": "completed"}),
    ),
    Story(
        guess="narrative.revision",
        options={"revision": "B", "refuses_tools": True},
        play=declares_tools,
        fails=InvalidRequestError,
        said=r"`client_tools`, so its shape is a guess.*`narrative\.Config\(tools=narrative\.flat_tools\(\.\.\.\)\)`",
        switched=narrative,
    ),
    Story(
        guess="middesk.resume_body",
        options={"resume_keys": ("id", "response")},
        script=INTERRUPTED,
        play=answers_an_interrupt,
        fails=InvalidRequestError,
        said=r"its shape is a guess\. Sent was .*interrupt_id.*`middesk\.variant\(resume_body=\.\.\.\)`",
        switched=middesk.variant(resume_body=as_response),
        comes_to="completed",
    ),
    Story(
        guess="middesk.status",
        options={"words": {"completed": "done"}},
        play=waits_for_a_check,
        fails=DeadlineExceededError,
        said="done",
        switched=middesk.variant(status={"done": "completed"}),
        comes_to="done",
    ),
    Story(
        guess="middesk.per_page",
        options={"max_per_page": 25, "refuses_more_per_page": True},
        play=lists_runs,
        fails=InvalidRequestError,
        said=r'their number is a guess\. Sent was .*"per_page":"100".*`middesk\.variant\(per_page=\.\.\.\)`',
        switched=middesk.variant(per_page=25),
        comes_to=1,
    ),
    Story(
        guess="middesk.looks",
        options={"shown_after": 60},
        stands_still=True,
        play=starts_and_hears_nothing,
        fails=OutcomeUnknownError,
        said=r"`middesk\.variant\(looks=\.\.\.\)`",
        switched=middesk.variant(looks=[20, 50]),
        comes_to=True,
    ),
    Story(
        guess="origami.answer_prompt",
        options={"check_answer": lambda prompt: None if prompt == "Which? This!" else "Say it in a sentence"},
        script=QUESTIONS,
        play=answers_a_question,
        fails=InvalidRequestError,
        said=r"the words of an answer.*its shape is a guess\. Sent was .*This.*`origami\.variant\(answer_prompt=",
        switched=origami.variant(answer_prompt=as_sentence),
    ),
    Story(
        guess="origami.keep_model",
        options={"follow_up_model": False},
        script=QUESTIONS,
        play=answers_a_question,
        fails=InvalidRequestError,
        said=r"whether it names a model, so its shape is a guess\. Sent was .*\"model\".*keep_model=\.\.\.\)`",
        switched=origami.variant(keep_model=False),
    ),
    Story(
        guess="origami.status",
        options={"words": {"needs_input": "asks", "completed": "done"}},
        script=QUESTIONS,
        play=answers_a_question,
        fails=RunFailedError,
        said="asks",
        switched=origami.variant(status={"asks": "requires_action", "done": "completed"}),
    ),
    Story(
        guess="conduit.fits",
        options={"list_lacks": "trigger_id"},
        stands_still=True,
        play=fires_one,
        fails=OutcomeUnknownError,
        said=r"`conduit\.variant\(fits=\.\.\.",
        switched=conduit.variant(fits=of_any_trigger),
        comes_to=True,
    ),
    Story(
        guess="conduit.looks",
        options={"shown_after": 300},
        stands_still=True,
        play=fires_one,
        fails=OutcomeUnknownError,
        said=r"looks=\.\.\.\)`",
        switched=conduit.variant(looks=[100, 250]),
        comes_to=True,
    ),
    Story(
        guess="conduit.names",
        options={"names_run": "agent_run_id", "runs_per_dispatch": 2},
        stands_still=True,
        play=fires_one,
        fails=OutcomeUnknownError,
        said=r"names=\.\.\.",
        switched=conduit.variant(names=lambda answer: [answer["agent_run_id"]]),
        comes_to=True,
    ),
    Story(
        guess="conduit.fires",
        options={"shown_after": 0.0},
        play=fires_any,
        fails=ConfigurationError,
        said=r"which is a guess; .*`conduit\.variant\(fires=\.\.\.\)`",
        switched=conduit.variant(fires=lambda trigger: trigger["type"] == "event"),
    ),
    Story(
        guess="conduit.status",
        options={"shown_after": 0.0, "words": {"completed": "done"}},
        play=waits_for_an_agent,
        fails=RunFailedError,
        said="done",
        switched=conduit.variant(status={"done": "completed"}),
    ),
    Story(
        guess="conduit.message_path",
        options={"shown_after": 0.0, "send_path": "/threads/{conversation}/reply"},
        script=TALKS,
        play=replies,
        fails=APIError,
        said=r"the path of a reply.*/conversations/.*`conduit\.variant\(message_path=\.\.\.\)`",
        switched=REPLIES,
        comes_to="Hello.",
    ),
]


@pytest.mark.asyncio
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.guess)
async def test_a_guess_that_is_wrong_is_told_as_one(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    assert story.fails is not None
    with pytest.raises(story.fails, match=story.said):
        await story.played(monkeypatch, switched=False)


@pytest.mark.asyncio
@pytest.mark.usefixtures("prompt_origami")
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.guess)
async def test_one_switch_puts_it_right(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await story.played(monkeypatch, switched=True) == story.comes_to


@pytest.mark.asyncio
async def test_who_waits_for_a_person_is_told_by_a_function_of_ones_own() -> None:
    script = [Turn("Done.", extra={"disposition": "handed_over"})]
    other: Any = conduit.variant(needs_human=lambda disposition: disposition == "handed_over")
    async with (
        Emulator("conduit", script=script, escalated_words="handed_over", shown_after=0.0) as emulator,
        connect(other, token=emulator.token, base_url=emulator.base_url, schedule=QUICK) as client,
    ):
        run = await client.result(conduit.Dispatch(emulator.state.agent_id), timeout=20)
        escalations = await client.perform(conduit.list_escalations(emulator.state.workspace_id))

    assert [each.agent_run_id for each in escalations.items] == [run.id]
    assert other.needs_human(run)
    assert not conduit.needs_human(run)


def test_every_guess_has_a_story() -> None:
    vendors: Mapping[str, Any] = {name: load(name) for name in NAMES}
    guesses = {f"{name}.{guess.name}" for name, vendor in vendors.items() for guess in guesses_of(vendor)}
    assert guesses - {story.guess for story in STORIES} == {"conduit.needs_human"}


@pytest.mark.asyncio
async def test_a_refused_dispatch_whose_trigger_was_guessed_says_which_and_how_to_choose() -> None:
    async with (
        Emulator("conduit") as emulator,
        connect(conduit, token=emulator.token, base_url=emulator.base_url, schedule=QUICK) as client,
    ):
        agent = emulator.state.add_agent(operation_mode="inactive")
        (trigger,) = agent.triggers
        with pytest.raises(InvalidRequestError, match=rf"fires, so the one is a guess.*{trigger.id}.*variant\(fires="):
            await client.start(conduit.Dispatch(agent.id))
        with pytest.raises(InvalidRequestError) as named:
            await client.start(conduit.Dispatch(agent.id, trigger_id=trigger.id))

    assert "guess" not in str(named.value)


@pytest.mark.asyncio
async def test_what_was_sent_is_shown_without_secrets_and_without_long_texts() -> None:
    async with (
        Emulator("middesk", script=INTERRUPTED, resume_keys=("id", "response")) as emulator,
        connect(middesk, token=emulator.token, base_url=emulator.base_url, schedule=QUICK) as client,
    ):
        answer = {"decision": "approve", "api_key": "kx-12345", "login": {"password": "hunter2"}, "note": "o" * 500}
        with pytest.raises(InvalidRequestError) as refused:
            await client.result(REQUEST, tools=lambda _: answer, timeout=20)

    said = str(refused.value)
    assert '"decision":"approve"' in said
    assert "kx-12345" not in said
    assert "hunter2" not in said
    assert "o" * 50 not in said
