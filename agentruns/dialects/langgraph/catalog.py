"""
What stands around runs: assistants, threads, their states and history.

Each function is a flow for `client.perform(...)`. All raise `NotFoundError` for an unknown id, `InvalidRequestError`
for what the server refuses, `ProtocolError` for an answer that is not as documented.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentruns._values import check
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request
from agentruns._values.generic import Json
from agentruns.dialects import reading, wire
from agentruns.errors import NotFoundError

from .objects import Assistant, AssistantSchemas, Thread, ThreadState


def list_assistants(*, graph_id: str | None = None, limit: int = 100, offset: int = 0) -> Flow[tuple[Assistant, ...]]:
    """Return assistants, 1 to 1000 of them from *offset* on (assistants/search); those of a graph, if it is named."""
    body = {**_window(limit, offset), **wire.drop_none({"graph_id": graph_id})}
    response = yield Request("POST", "/assistants/search", json=body, idempotent=True)
    return (yield from reading.rows_of(response, wire.read_value(response), "$", Assistant))


def get_assistant(assistant_id: str) -> Flow[Assistant]:
    """Return an assistant by its id, which is no name of a graph (assistants/get)."""
    return wire.read((yield Request("GET", wire.path("assistants", assistant_id))), Assistant)


def get_schemas(assistant_id: str) -> Flow[AssistantSchemas]:
    """Return the JSON schemas of what the graph of an assistant takes and gives (assistants/schemas)."""
    return wire.read((yield Request("GET", wire.path("assistants", assistant_id, "schemas"))), AssistantSchemas)


def create_thread(*, thread_id: str | None = None, metadata: Mapping[str, Json] | None = None) -> Flow[Thread]:
    """
    Make a thread, and return it (threads/create).

    With a *thread_id* of your own, a UUID, it may be asked for again: a thread that is there is returned as it is.
    """
    named = {} if thread_id is None else {"thread_id": thread_id, "if_exists": "do_nothing"}
    body = {**named, **wire.drop_none({"metadata": metadata})}
    return wire.read((yield Request("POST", "/threads", json=body, idempotent=thread_id is not None)), Thread)


def get_thread(thread_id: str) -> Flow[Thread]:
    """Return a thread with the state of its graph (threads/get)."""
    return wire.read((yield Request("GET", wire.path("threads", thread_id))), Thread)


def list_threads(
    *,
    metadata: Mapping[str, Json] | None = None,
    values: Mapping[str, Json] | None = None,
    status: str | None = None,
    limit: int = 100,
    offset: int = 0,
) -> Flow[tuple[Thread, ...]]:
    """
    Return threads, 1 to 1000 of them from *offset* on, those that changed last first (threads/search).

    *metadata* and *values* are what they must have; *status* is `idle`, `busy`, `interrupted` or `error`.
    """
    wanted = wire.drop_none({"metadata": metadata, "values": values, "status": status})
    response = yield Request("POST", "/threads/search", json={**_window(limit, offset), **wanted}, idempotent=True)
    return (yield from reading.rows_of(response, wire.read_value(response), "$", Thread))


def delete_thread(thread_id: str) -> Flow[None]:
    """Delete a thread with all of its runs (threads/delete)."""
    try:
        yield Request("DELETE", wire.path("threads", thread_id), idempotent=True, is_json=False)
    except NotFoundError as error:
        if not error.after_doubt:  # else it is our own first try, whose answer was lost
            raise


def get_state(thread_id: str, *, checkpoint_id: str | None = None, subgraphs: bool = False) -> Flow[ThreadState]:
    """Return the state of a thread, now or at a checkpoint; *subgraphs*, with those of its tasks (threads/state)."""
    at = () if checkpoint_id is None else (checkpoint_id,)
    params = {"subgraphs": "true"} if subgraphs else {}
    request = Request("GET", wire.path("threads", thread_id, "state", *at), params=params)
    return wire.read((yield request), ThreadState)


def update_state(
    thread_id: str, values: Json, *, as_node: str | None = None, checkpoint_id: str | None = None
) -> Flow[str]:
    """
    Change the state of a thread as if *as_node* had returned *values*, and return the id of the new checkpoint.

    With *checkpoint_id* the thread forks there. It is sent once (threads/update-state).
    """
    at = None if checkpoint_id is None else {"checkpoint_id": checkpoint_id, "checkpoint_ns": ""}
    body = {"values": values, **wire.drop_none({"as_node": as_node, "checkpoint": at})}
    response = yield Request("POST", wire.path("threads", thread_id, "state"), json=body)
    made = wire.read_object(response)
    return wire.first_text(wire.mapping(made.get("checkpoint")), "checkpoint_id") or ""


def list_history(
    thread_id: str,
    *,
    metadata: Mapping[str, Json] | None = None,
    before: str | None = None,
    limit: int = 10,
) -> Flow[tuple[ThreadState, ...]]:
    """
    Return the states that a thread has had, newest first, 1 to 1000 of them (threads/history).

    *metadata* is what they must have, `{"run_id": run.id}` say; *before* is the id of a checkpoint.
    """
    check.integer("limit", limit, 1)
    at = None if before is None else {"configurable": {"checkpoint_id": before}}
    body = {"limit": limit, **wire.drop_none({"metadata": metadata, "before": at})}
    request = Request("POST", wire.path("threads", thread_id, "history"), json=body, idempotent=True)
    response = yield request
    return (yield from reading.rows_of(response, wire.read_value(response), "$", ThreadState))


def _window(limit: int, offset: int) -> dict[str, Any]:
    check.integer("limit", limit, 1)
    check.integer("offset", offset, 0)
    return {"limit": limit, "offset": offset}
