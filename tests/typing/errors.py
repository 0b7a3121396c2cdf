"""Lines that must be errors: each says of which kind, for mypy and for pyright; both report one that is none."""

import os
from typing import Any

import agentruns
from agentruns import Client, Run, RunRef, Tools, connect, middesk, narrative, origami

NarrativeClient = Client[narrative.UserMessage, narrative.NarrativeRun]


def what_is_misspelled() -> None:
    print(agentruns.Cliennt)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    print(narrative.UserMesage)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def what_is_no_dialect() -> None:
    connect(os)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    connect(42)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    connect(narrative, tokn="t")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    connect(narrative, timeout="5")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def what_starts_no_run(client: NarrativeClient) -> None:
    client.stream(42)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.stream("Hello.")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.stream(origami.Prompt("Find leads."))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.start(RunRef("r"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.result(middesk.RunRequest("kyb"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.batch([42])  # type: ignore[list-item]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def what_is_of_another_vendor(client: NarrativeClient, run: Run[middesk.MiddeskRun]) -> None:
    client.stream(run)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.resume(run, [])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.fetch(run)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def what_an_option_is_not(client: NarrativeClient, message: narrative.UserMessage) -> None:
    client.stream(message, on_cancel="stop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.stream(message, tools=42)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.result(message, timout=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.perform(narrative)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def what_a_state_does_not_have(run: Run[narrative.NarrativeRun], tools: Tools) -> None:
    print(run.detail.thread_id)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    print(run.result)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    run.output = "x"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    other: Run[middesk.MiddeskRun] = run  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    tools.add(name=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    anything: Any = other
    del anything
