"""What the tests of `agentruns.web` share: a wire that tells a story, a vendor that can cancel, a reader of events."""

import json
import re
from types import SimpleNamespace
from typing import Any, cast

from agentruns import RunRef, narrative
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request
from agentruns.dialects.protocol import Dialect
from agentruns.web import Event
from tests.scripted_wire import CONVERSATION, HEAD, POLL, RUN, START, Scripted, Wire, conversation, run

REF = RunRef(RUN, CONVERSATION)
MESSAGE = narrative.UserMessage(CONVERSATION, "Approve invoice RE-2026-118.")
CANCEL = f"POST /agents/runs/{RUN}/cancel"


def story(*polls: Scripted, **lines: Any) -> Wire:
    return Wire({HEAD: conversation(), START: run("pending"), POLL: polls, **lines})


def said(event: Event) -> tuple[str, Any]:
    """Return the name of an event and what it says: of a state its status, of anything else all."""
    data = json.loads(event.data)
    return event.name, data["status"] if event.name == "run" else data


def decoded(body: bytes) -> list[Event]:
    """Return the events of a body, read as the HTML standard has a browser read them; comments are none."""
    found: list[Event] = []
    last_id, name, data = "", "", list[str]()
    for line in re.split(r"\r\n|\n|\r", body.decode()):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                found.append(Event(last_id, cast(Any, name or "message"), "\n".join(data)))
            name, data = "", []
        elif field == "id" and "\0" not in value:
            last_id = value
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
    return found


class Cancelling(SimpleNamespace):
    """Narrative, if it could cancel."""

    def __init__(self) -> None:
        super().__init__(**vars(narrative))

    def cancel(self, ref: RunRef) -> Flow[None]:
        yield Request("POST", f"/agents/runs/{ref.id}/cancel", idempotent=True)


def cancelling() -> Dialect:
    return cast(Dialect, Cancelling())
