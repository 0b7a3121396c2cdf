"""Actions on businesses and watchlist hits: what an agent proposes in an interrupt, done by oneself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agentruns._values import check, codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request
from agentruns._values.generic import Json
from agentruns.dialects import reading, wire
from agentruns.errors import ConfigurationError

from .objects import TakenAction, TakenActions

ACTION_TYPES: Final = ("add_sources", "add_attributes", "verify_tin", "decision", "dismissal")
OBJECT_TYPES: Final = ("businesses", "watchlist_result")


def take_action(
    object_type: str,
    object_id: str,
    type: str,  # noqa: A002
    payload: Mapping[str, Json],
    *,
    note: str | None = None,
    thread_id: str | None = None,
    run_id: str | None = None,
) -> Flow[TakenAction]:
    """
    Do something to a business or a watchlist result, and return what changed (create-action).

    *object_type* is one of `OBJECT_TYPES`, *type* one of `ACTION_TYPES`; what the *payload* has depends on it.
    *thread_id* and *run_id* say on whose behalf. It answers no interrupt: only `client.resume` is said to make a run go
    on. It is never sent twice. Raise `NotFoundError` for an object that is not there, `InvalidRequestError` for a
    payload that does not fit.
    """
    _choice("object_type", object_type, OBJECT_TYPES)
    _choice("type", type, ACTION_TYPES)
    if not isinstance(payload, Mapping):
        raise ConfigurationError(f"payload is {payload!r}; it must be a mapping, such as a dict")
    body = wire.drop_none({
        "object_type": object_type,
        "object_id": check.non_empty_str("object_id", object_id),
        "type": type,
        "note": note,
        "thread_id": thread_id,
        "run_id": run_id,
        "payload": codec.to_jsonable(payload, "payload"),
    })
    return wire.read((yield Request("POST", wire.path("actions"), json=body)), TakenAction)


def list_actions(object_type: str, object_id: str) -> Flow[TakenActions]:
    """Return all that was done to a business or a watchlist result (list-actions); this list has no pages."""
    response = yield Request("GET", wire.path("actions"), params=_about(object_type, object_id))
    data = wire.read_object(response).get("data")
    return TakenActions((yield from reading.rows_of(response, data, "$.data", TakenAction)))


def get_action(id: str, object_type: str, object_id: str) -> Flow[TakenAction]:  # noqa: A002
    """Return one action on a business or a watchlist result; raise `NotFoundError` where there is none (get-action)."""
    params = _about(object_type, object_id)
    return wire.read((yield Request("GET", wire.path("actions", id), params=params)), TakenAction)


def _about(object_type: str, object_id: str) -> Mapping[str, str]:
    _choice("object_type", object_type, OBJECT_TYPES)
    return {"object_type": object_type, "object_id": check.non_empty_str("object_id", object_id)}


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
