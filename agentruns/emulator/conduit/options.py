"""The options of the emulated Conduit: what its pages leave open, decided."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias, get_args

from attrs import Attribute, field, frozen, validators

Absent: TypeAlias = Literal["null", "omit", "random"]
CreatedWhen: TypeAlias = Literal["dispatched", "shown"]
Cursors: TypeAlias = Literal["offset", "keyed"]
EmptyTrace: TypeAlias = Literal["list", "null"]
ErrorForm: TypeAlias = Literal["string", "object"]
Inactive: TypeAlias = Literal["refuse", "ignore", "run"]
ResponseDelay: TypeAlias = Literal["before", "inside", "after"]

_bool = validators.instance_of(bool)


def _words(value: str | Iterable[str]) -> frozenset[str]:
    return frozenset({value} if isinstance(value, str) else value)


def _seconds(_: object, attribute: Attribute[float], value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{attribute.name} is a number of seconds from 0 on, not {value!r}")


@frozen(kw_only=True)
class ConduitOptions:
    """The options of `Emulator("conduit", ...)`.

    * `shown_after`: seconds until a dispatched run is in the list; `created_when`: whether its `created_at` is the
      dispatch, so that later runs may show before it, or the moment it shows.
    * `runs_per_dispatch`: how many runs one dispatch starts; `dispatched`: what it answers, where False starts none.
    * `dispatch_code`, `create_code`: 200, or 202 and 201, which the pages do not say.
    * `names_run`: the key under which the answer to a dispatch names its run; by default it names none.
    * `words`: other words for the four of `status`, such as {"completed": "done"}, on runs that are read or listed.
    * `list_lacks`: fields that runs in a list are without, such as "trigger_id".
    * `escalated_words`: the dispositions whose runs leave an escalation.
    * `send_path`: where a reply in a conversation is posted, with `{conversation}` for its id.
    * `inactive_agents`: dispatch to an inactive or disabled agent is refused with 400 ("refuse"), answered without a
      run ("ignore"), or carried out ("run").
    * `honour_idempotency_key`: a repeated Idempotency-Key gets the first answer and starts nothing.
    * `accept_execution_ids`: a run is found by its field `run_id` too, not only by its `id`.
    * `cursors`: "offset" shifts when new runs come, "keyed" does not.
    * `response_delay`: an agent's `custom_response_delay_ms` passes before the run is accepted, inside its duration, or
      after its end, before the reply is in the conversation.
    * `error_form`: `error` of a failed run is a string or an object; `absent`: fields without a value are "null", left
      out ("omit"), or either ("random"); `empty_trace`: `tool_trace` without a call is a list or null.
    * `grow`: tool_trace and token_usage grow during the run, instead of being filled in at its end.
    * `older_escalations`: the list of escalations lacks five fields, as on its older page.
    * `resolve_again`: an escalation may be resolved a second time, else 400.
    * `read_only`: tokens with read access, beside or including the emulator's own.
    * `requests_per_minute`: the budget of each workspace, 120 by Conduit's default; None counts nothing.
    """

    shown_after: float = field(default=0.2, validator=_seconds)
    created_when: CreatedWhen = field(default="dispatched", validator=validators.in_(get_args(CreatedWhen)))
    runs_per_dispatch: int = field(default=1, validator=[validators.instance_of(int), validators.ge(0)])
    dispatched: bool = field(default=True, validator=_bool)
    dispatch_code: int = field(default=200, validator=validators.in_((200, 202)))
    create_code: int = field(default=200, validator=validators.in_((200, 201)))
    names_run: str | None = None
    words: Mapping[str, str] = field(factory=dict)
    list_lacks: frozenset[str] = field(default=frozenset(), converter=_words)
    escalated_words: frozenset[str] = field(default=frozenset({"escalated"}), converter=_words)
    send_path: str = "/conversations/{conversation}/messages"
    inactive_agents: Inactive = field(default="refuse", validator=validators.in_(get_args(Inactive)))
    honour_idempotency_key: bool = field(default=False, validator=_bool)
    accept_execution_ids: bool = field(default=False, validator=_bool)
    cursors: Cursors = field(default="offset", validator=validators.in_(get_args(Cursors)))
    response_delay: ResponseDelay = field(default="before", validator=validators.in_(get_args(ResponseDelay)))
    error_form: ErrorForm = field(default="string", validator=validators.in_(get_args(ErrorForm)))
    absent: Absent = field(default="null", validator=validators.in_(get_args(Absent)))
    empty_trace: EmptyTrace = field(default="list", validator=validators.in_(get_args(EmptyTrace)))
    grow: bool = field(default=False, validator=_bool)
    older_escalations: bool = field(default=False, validator=_bool)
    resolve_again: bool = field(default=True, validator=_bool)
    read_only: frozenset[str] = field(default=frozenset(), converter=_words, repr=False)
    requests_per_minute: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
