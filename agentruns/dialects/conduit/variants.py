"""What no page of Conduit says, and the same dialect with another reading of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from agentruns._values import check
from agentruns._values.run import RunStatus
from agentruns.dialects import guesses, wire
from agentruns.dialects.guesses import Guess, Variant
from agentruns.errors import ConfigurationError

from . import dispatch, reading
from .catalog import MESSAGE_PATH, send_message
from .dispatch import START_LOOKS, Dispatch, Finding, Fires, Fits, Names, recover, start
from .objects import ConduitRun
from .reading import STATUS, NeedsHuman, Reading, fetch, list_runs, page, parse_run

if TYPE_CHECKING:
    from agentruns.dialects.protocol import Dialect

GUESSES: Final = (
    Guess(
        "fits",
        "the run of a dispatch is the one new run in the list of its agent that has its trigger_id",
        "the answer to a dispatch names no run, and no field of a run names its dispatch (agents/run, agents/get-run)",
    ),
    Guess(
        "looks",
        f"the run of a dispatch shows in the list within {sum(START_LOOKS):.0f} s",
        "no page says how soon a run is listed (agents/list-runs)",
    ),
    Guess(
        "names",
        "an answer to a dispatch that names a run has its id under run_id, id or run.id",
        "no answer that a page shows names one (agents/run)",
    ),
    Guess(
        "fires",
        "a dispatch without trigger_id fires the one trigger that is enabled and not of type message",
        "the page says only that the id is needed where there are several triggers (agents/run)",
    ),
    Guess(
        "needs_human",
        "a run whose disposition is escalated waits for a person, and no other does",
        "the pages show resolved and escalated; the guide to the inbox tells of more (a-lens-in-the-ais-brain)",
    ),
    Guess(
        "status",
        "a word that is none of accepted, running, completed, failed is that of a run in flight until it has an end, "
        "and of a failed one then",
        "agents/list-runs names these four",
    ),
    Guess(
        "message_path",
        f"a reply in a conversation is posted to {MESSAGE_PATH}",
        "conversations/send-message shows no path; conversations/messages and tickets/send-message agree on it",
    ),
)


def variant(
    *,
    fits: Fits | None = None,
    looks: Sequence[float] | None = None,
    names: Names | None = None,
    fires: Fires | None = None,
    needs_human: NeedsHuman | None = None,
    status: Mapping[str, RunStatus | str] | None = None,
    message_path: str | None = None,
    workspace_id: str | None = None,
) -> Dialect[Dispatch, ConduitRun]:
    """
    Return this dialect with another reading of what no page says, for `connect(conduit.variant(...))`.

    *fits(row, trigger_id)* tells whether a row of an agent's list, a JSON object, can be the run of a dispatch. *looks*
    are the seconds before each look for it. *names(answer)* gives the ids of the run in the `data` of the answer to a
    dispatch. *fires(trigger)* tells whether a dispatch without `trigger_id` can mean a trigger of the agent, a JSON
    object. *needs_human(disposition)* is what `needs_human(run)` of the variant goes by. *status* maps words of the
    vendor to ours, besides those that are known. *message_path* is where `send_message` posts, with `{id}` for the
    conversation's. *workspace_id* is sent with every request, as `connect(params={"workspace_id": ...})` sends it; by
    default Conduit finds the workspace of an id by itself. Raise `ConfigurationError` for what cannot be used.
    """
    check.text_or_none("message_path", message_path)
    if message_path is not None and ("{id}" not in message_path or not message_path.startswith("/")):
        raise ConfigurationError(f"message_path is {message_path!r}; it must begin with / and have {{id}} in it")
    reads = Reading({**STATUS, **guesses.statuses("status", status)})
    finding = Finding(
        fits=guesses.function("fits", fits, dispatch.fits),
        fires=guesses.function("fires", fires, dispatch.fires),
        names=guesses.function("names", names, dispatch.names),
        looks=START_LOOKS if looks is None else guesses.seconds("looks", looks),
        reads=reads,
    )
    replaced: dict[str, Any] = {
        "start": partial(start, finding=finding),
        "recover": partial(recover, finding=finding),
        "fetch": partial(fetch, reads=reads),
        "page": partial(page, reads=reads),
        "list_runs": partial(list_runs, reads=reads),
        "parse_run": partial(parse_run, reads=reads),
        "needs_human": partial(
            reading.needs_human, by=guesses.function("needs_human", needs_human, reading.is_escalated)
        ),
        "send_message": partial(send_message, path=message_path or MESSAGE_PATH),
        "STATUS": reads.status,
    }
    if workspace_id is not None:
        params = {"workspace_id": check.non_empty_str("workspace_id", workspace_id)}
        replaced |= {"DEFAULT_HEADERS": {}, "DEFAULT_PARAMS": params}
    given = {
        "fits": fits,
        "looks": looks,
        "names": names,
        "fires": fires,
        "needs_human": needs_human,
        "status": status,
        "message_path": message_path,
        "workspace_id": workspace_id,
    }
    return cast("Dialect[Dispatch, ConduitRun]", Variant(__package__, replaced, wire.drop_none(given)))
