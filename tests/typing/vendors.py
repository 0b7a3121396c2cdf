"""What each vendor's client gives: the class of what starts a run, and that of its detail."""

from typing import Any, assert_type

from agentruns import (
    Action,
    Batch,
    Client,
    Failure,
    Json,
    Run,
    RunRef,
    RunStatus,
    RunStream,
    Usage,
    a2a,
    conduit,
    connect,
    langgraph,
    middesk,
    narrative,
    openai_responses,
    origami,
)


async def of_narrative() -> None:
    async with connect(narrative, token="t") as client:
        assert_type(client, Client[narrative.UserMessage, narrative.NarrativeRun])
        conversation = await client.perform(narrative.get_conversation("c"))
        assert_type(conversation, narrative.Conversation)
        message = narrative.UserMessage(conversation.id, "Hello.")

        stream = client.stream(message)
        assert_type(stream, RunStream[narrative.NarrativeRun])
        async for run in stream:
            assert_type(run, Run[narrative.NarrativeRun])
            assert_type(run.detail, narrative.NarrativeRun)
            assert_type(run.detail.pending_tool_calls, tuple[narrative.PendingToolCall, ...])
        assert_type(stream.run, Run[narrative.NarrativeRun] | None)

        assert_type(await client.start(message), Run[narrative.NarrativeRun])
        assert_type(await client.result(message, timeout=30.0), Run[narrative.NarrativeRun])
        page = await client.perform(narrative.list_messages("c", since=3))
        assert_type(page.items, tuple[narrative.Message, ...])


def of_a_variant() -> None:
    variant = narrative.variant(tool_output=lambda output: {"id": output.action.id, "result": output.output})
    assert_type(connect(variant), Client[narrative.UserMessage, narrative.NarrativeRun])
    resumed = middesk.variant(resume_body=lambda output: {"id": output.action.id, "value": output.output})
    assert_type(connect(resumed), Client[middesk.RunRequest, middesk.MiddeskRun])


async def of_middesk() -> None:
    async with connect(middesk, token="t") as client:
        assert_type(client, Client[middesk.RunRequest, middesk.MiddeskRun])
        run = await client.result(middesk.RunRequest("kyb", business_id="b"))
        assert_type(run.detail, middesk.MiddeskRun)
        assert_type(run.detail.thread_id, str | None)
        async for listed in client.runs():
            assert_type(listed, Run[middesk.MiddeskRun])
        assert_type(await client.perform(middesk.get_thread("t")), middesk.Thread)


async def of_origami() -> None:
    async with connect(origami, token="t") as client:
        async for run in client.stream(origami.Prompt("Find leads.")):
            summary: origami.RunSummary = run.detail
            assert_type(summary.status, str)
            if isinstance(run.detail, origami.OrigamiRun):  # read by itself, not in a list
                assert_type(run.detail.todo.pending_questions, tuple[origami.PendingQuestion, ...])
        cancelled = await client.cancel(RunRef("r", "a"))
        assert cancelled is not None
        assert_type(cancelled.status, RunStatus)
        assert_type(await client.perform(origami.get_credits()), origami.Balance)


async def of_conduit() -> None:
    async with connect(conduit, token="t") as client:
        assert_type(client, Client[conduit.Dispatch, conduit.ConduitRun])
        run = await client.fetch(RunRef("r", "a"))
        assert_type(run, Run[conduit.ConduitRun])
        assert_type(run.detail.trigger_id, str | None)
        agents = await client.perform(conduit.list_agents("w"))
        assert_type(agents.items, tuple[conduit.Agent, ...])


def by_name(name: str) -> None:
    """A name that is written out says as much as the module; one that is known at run time only says nothing."""
    assert_type(connect("narrative"), Client[narrative.UserMessage, narrative.NarrativeRun])
    assert_type(connect("middesk", token="t"), Client[middesk.RunRequest, middesk.MiddeskRun])
    assert_type(connect("origami", timeout=5.0), Client[origami.Prompt, origami.RunDetail])
    assert_type(connect("conduit", budget=1.0), Client[conduit.Dispatch, conduit.ConduitRun])
    assert_type(connect("langgraph"), Client[langgraph.Invocation, langgraph.GraphRun])
    assert_type(connect("openai_responses"), Client[openai_responses.ResponseRequest, openai_responses.ResponseDetail])
    assert_type(connect("a2a"), Client[a2a.Send, a2a.Task])
    assert_type(connect(name), Client[Any, Any])
    assert_type(connect("acme.dialect:module"), Client[Any, Any])


def of_any(client: Client, run: Run) -> None:
    """Classes may be left out: a helper for every vendor needs no parameters."""
    assert_type(client, Client[Any, Any])
    assert_type(client.stream(run), RunStream[Any])
    assert_type(client.batch([1, 2]), Batch[Any, Any])
    assert_type(run.detail, Any)


def takes_any(client: Client[narrative.UserMessage, narrative.NarrativeRun], run: Run[middesk.MiddeskRun]) -> None:
    of_any(client, run)
    of_objects(run)


def of_objects(run: Run[object]) -> None:
    """A run of one class is one of a broader class."""
    assert_type(run.detail, object)


def of_run(run: Run[narrative.NarrativeRun]) -> None:
    """What is alike for every vendor."""
    assert_type(run.id, str)
    assert_type(run.ref.parent, str)
    assert_type(run.status, RunStatus)
    assert_type(run.status.is_over, bool)
    assert_type(run.actions, tuple[Action, ...])
    assert_type(run.output, Json)
    assert_type(run.failure, Failure | None)
    assert_type(run.usage, Usage | None)
    assert_type(run.poll_after, float | None)
    assert_type(run.to_json(), str)
    assert_type(Run.from_json(run.to_json()), Run[Any])
