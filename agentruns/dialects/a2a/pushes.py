"""Push notifications: where an agent sends what happens to a task, and whether what came is from the agent."""

from __future__ import annotations

import hmac

from agentruns._values import check, codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request, Response
from agentruns._values.secret import Secret
from agentruns.dialects import wire
from agentruns.errors import ConfigurationError, NotFoundError, ProtocolError

from .events import TaskEvent
from .objects import PushConfig, PushConfigs
from .reading import post, unwrapped


def create_push_config(task_id: str, url: str, *, token: str, id: str | None = None) -> Flow[PushConfig]:  # noqa: A002
    """
    Have what happens to a task sent to *url*, and return the configuration (Create Push Notification Config).

    *token* is a secret of yours that comes with each notification: `verify_push` wants it. *id* names the
    configuration; the same id again replaces it.
    """
    check.non_empty_str("url", url)
    body = wire.drop_none({"url": url, "token": check.non_empty_str("token", token), "id": id})
    request = post(wire.path("tasks", task_id, "pushNotificationConfigs"), body, idempotent=id is not None)
    return _config((yield request))


def list_push_configs(task_id: str) -> Flow[tuple[PushConfig, ...]]:
    """Return where what happens to a task is sent (List Push Notification Configs)."""
    response = yield Request("GET", wire.path("tasks", task_id, "pushNotificationConfigs"))
    raw, _ = unwrapped(response)
    return wire.structure(raw, PushConfigs, response).configs


def get_push_config(task_id: str, id: str) -> Flow[PushConfig]:  # noqa: A002
    """Return one configuration; raise `NotFoundError` where there is none (Get Push Notification Config)."""
    return _config((yield Request("GET", wire.path("tasks", task_id, "pushNotificationConfigs", id))))


def delete_push_config(task_id: str, id: str) -> Flow[None]:  # noqa: A002
    """End a configuration (Delete Push Notification Config)."""
    try:
        yield Request("DELETE", wire.path("tasks", task_id, "pushNotificationConfigs", id), idempotent=True)
    except NotFoundError as error:
        if not error.after_doubt:  # else it is our own first try, whose answer was lost
            raise


def _config(response: Response) -> PushConfig:
    raw, _ = unwrapped(response)
    return wire.structure(raw, PushConfig, response)


def verify_push(body: bytes, token: str | None, expected: str) -> TaskEvent:
    """
    Return what the raw *body* of a push notification tells, if *token*, its `X-A2A-Notification-Token`, is *expected*.

    Of the task that it is about, `await client.heard(await client.fetch(event.ref))` takes in the state: a
    notification leaves out what the task has brought before. Raise `ProtocolError` where the token is another one, or
    the body is no notification, and `ConfigurationError` for an *expected* token that is empty.
    """
    token, expected = Secret(token or ""), Secret(expected)  # what reports local variables shall not show them
    if not expected:
        raise ConfigurationError("expected is empty; pass the token that `create_push_config` was given")
    if not hmac.compare_digest(expected.encode(), token.encode("utf-8", "replace")):
        raise ProtocolError("the token of the push notification is another one: it is not the agent that sent it")
    try:
        told = TaskEvent.of(wire.mapping(codec.decode(body, received=True)))
    except codec.CodecError as error:
        raise ProtocolError(f"the push notification is not JSON: {error}") from error
    if not told.kind or told.ref is None:
        raise ProtocolError("the push notification tells of no task")
    return told
