"""The client without await: the classes follow from the dialect as they do for the async one."""

from collections.abc import Iterator
from typing import Any, assert_type

from agentruns import Outcome, Run, RunRef, StreamOptions, ToolOutput, Unfinished, blocking, middesk, narrative, origami

NarrativeClient = blocking.Client[narrative.UserMessage, narrative.NarrativeRun]


def of_narrative() -> None:
    with blocking.connect(narrative, token="t") as client:
        assert_type(client, NarrativeClient)
        message = narrative.UserMessage(client.perform(narrative.get_conversation("c")).id, "Hello.")
        with client.stream(message, timeout=30.0) as stream:
            assert_type(stream, blocking.RunStream[narrative.NarrativeRun])
            for run in stream:
                assert_type(run, Run[narrative.NarrativeRun])
            assert_type(stream.run, Run[narrative.NarrativeRun] | None)
        run = client.result(message, tools={"look_up": len})
        assert_type(run.detail, narrative.NarrativeRun)
        assert_type(client.resume(run, [ToolOutput(each, 1) for each in run.actions]), Run[narrative.NarrativeRun])
        assert_type(client.work("k"), Unfinished[narrative.UserMessage, narrative.NarrativeRun] | None)


def by_name(name: str) -> None:
    assert_type(blocking.connect("middesk"), blocking.Client[middesk.RunRequest, middesk.MiddeskRun])
    assert_type(blocking.connect("origami", timeout=5.0), blocking.Client[origami.Prompt, origami.RunDetail])
    assert_type(blocking.connect(name), blocking.Client[Any, Any])


def of_many(client: NarrativeClient, messages: list[narrative.UserMessage], rows: Iterator[int]) -> None:
    for outcome in client.batch(messages, limit=8):
        assert_type(outcome, Outcome[narrative.UserMessage, narrative.NarrativeRun, narrative.UserMessage])
    for prepared in client.batch(rows, prepare=lambda row: narrative.UserMessage("c", str(row))):
        assert_type(prepared.item, int)
    for work in client.unfinished():
        assert_type(work, Unfinished[narrative.UserMessage, narrative.NarrativeRun])
    options: StreamOptions = {"patience": 5.0}
    for state in client.stream(RunRef("r"), **options):
        assert_type(state, Run[narrative.NarrativeRun])


def what_must_be_errors(client: NarrativeClient, message: narrative.UserMessage) -> None:
    client.result(42)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.stream(message, timout=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    blocking.connect(narrative, tokn="t")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
