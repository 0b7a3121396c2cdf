"""The plans of Origami and the options of its emulator."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias, cast

from attrs import Attribute, field, frozen, validators

Generation: TypeAlias = Literal["G1", "G3"]
Blocked: TypeAlias = Literal["payment_failed", "spend_limit_reached", "settlement_pending"]

LITE: Final = "origami-lite"
MAX: Final = "origami-max"


@frozen
class Plan:
    """What a plan allows; `slots` None is without limit, no models is no API."""

    models: tuple[str, ...]
    steps_max: int
    slots: int | None

    @property
    def default_model(self) -> str:
        """The best model of the plan."""
        return self.models[-1] if self.models else LITE


PLANS: Final[Mapping[str, Plan]] = {
    "free": Plan((), 1, 0),  # stands for every plan without API access, which the pages do not name
    "starter": Plan((LITE,), 30, 1),
    "pro": Plan((LITE, MAX), 50, 3),
    "scale": Plan((LITE, MAX), 75, 10),
    "ultra": Plan((LITE, MAX), 100, 20),
    "enterprise": Plan((LITE, MAX), 200, None),
}


def _from_zero(_: object, attribute: Attribute[Any], value: float) -> None:
    if math.isnan(value) or value < 0:
        raise ValueError(f"{attribute.name} is a number from 0 on, not {value!r}")


def _set_or_none(ids: Iterable[str] | None) -> frozenset[str] | None:
    return None if ids is None else frozenset(ids)


_bool = validators.instance_of(bool)
_count = (validators.instance_of(int), validators.ge(0))
_maybe_count = validators.optional(_count)
_maybe_whole = validators.optional((validators.instance_of(int), validators.ge(1)))


@frozen(kw_only=True)
class OrigamiOptions:
    """The options of `Emulator("origami", ...)`; all times are seconds.

    * `generation`: "G3" (from 20 July 2026 on) or "G1" (before 7 July 2026): no `object` fields, lists by page number,
      auto-created workspaces; `Idempotency-Key` and `x-origami-project` are not known there and not looked at.
    * `plan`: "starter", "pro", "scale", "ultra", "enterprise", or "free", which has no API; `slots` and `steps_max`
      replace the plan's numbers. `in_app`: slots taken by people in the vendor's own app.
    * `retry_after`: the hint of polls while a run is running, None for none; `slot_retry_after`: the hint of a 429 for
      want of a slot, None for the median length of the last 200 runs.
    * `time_limit`: the wall clock ceiling of a run. `cancel_delay`: how long a cancel takes to have effect: with 0 its
      answer is the cancelled run; `math.inf` loses every race.
    * `partial_response`: runs that are running have a response with the actions so far, instead of null.
    * `cells_settle`: how long cells go on being filled after a run; `math.inf` never ends. `cells_errored`: how many
      leads of a run get no value.
    * `credits`, `credits_floor`, `credits_per_cell`: the wallet, what it must hold to start a run, and the price.
      `spent_budgets`, `blocked`: reasons to refuse a run in spite of credits.
    * `requests_per_minute`, `requests_per_minute_ip`: limits (the vendor's: 100 and 300), None for none;
      `rate_limit_retry_after`: whether such a 429 has Retry-After.
    * `store_refusals`: keep all answers below 500 under an Idempotency-Key, not only those below 300;
      `in_flight`: how long a repeated key is told that the first request is still in progress.
    * `projects`: the ids `x-origami-project` may name, None for any. `workspaces`, `documents`: ids that requests may
      name as legacy workspaces and as attached documents.
    * `transcript_cap`: the most messages of a transcript. `request_ids`: answers carry `X-Request-Id`.
    * `words`: other words for those of `status`, such as {"completed": "done"}, on runs that are read or listed.
    * `check_answer`: given the prompt that follows a run which asked, says why it is refused, or None.
    * `follow_up_model`: whether a follow-up may name a model.
    """

    generation: Generation = field(default="G3", validator=validators.in_(("G1", "G3")))
    plan: str = field(default="starter", validator=validators.in_(tuple(PLANS)))
    slots: int | None = field(default=None, validator=_maybe_count)
    steps_max: int | None = field(default=None, validator=_maybe_whole)
    in_app: int = field(default=0, validator=_count)
    retry_after: int | None = field(default=cast("int | None", 15), validator=_maybe_count)
    slot_retry_after: int | None = field(default=None, validator=_maybe_count)
    time_limit: float = field(default=1200.0, validator=_from_zero)
    cancel_delay: float = field(default=0.05, validator=_from_zero)
    partial_response: bool = field(default=False, validator=_bool)
    cells_settle: float = field(default=1.0, validator=_from_zero)
    cells_errored: int = field(default=0, validator=_count)
    credits: float = field(default=1000.0, validator=_from_zero)
    credits_floor: float = field(default=5, validator=_from_zero)
    credits_per_cell: float = field(default=1, validator=_from_zero)
    spent_budgets: tuple[str, ...] = field(default=(), converter=tuple)
    blocked: Blocked | None = field(
        default=None,
        validator=validators.optional(validators.in_(("payment_failed", "spend_limit_reached", "settlement_pending"))),
    )
    requests_per_minute: int | None = field(default=None, validator=_maybe_whole)
    requests_per_minute_ip: int | None = field(default=None, validator=_maybe_whole)
    rate_limit_retry_after: bool = field(default=True, validator=_bool)
    store_refusals: bool = field(default=True, validator=_bool)
    in_flight: float = field(default=0.0, validator=_from_zero)
    projects: frozenset[str] | None = field(default=None, converter=_set_or_none)
    workspaces: frozenset[str] = field(default=frozenset(), converter=frozenset)
    documents: frozenset[str] = field(default=frozenset(), converter=frozenset)
    transcript_cap: int | None = field(default=None, validator=_maybe_whole)
    request_ids: bool = field(default=False, validator=_bool)
    words: Mapping[str, str] = field(factory=dict)
    check_answer: Callable[[str], str | None] | None = None
    follow_up_model: bool = field(default=True, validator=_bool)

    @property
    def allowed(self) -> Plan:
        """The plan with the options' own numbers in it."""
        plan = PLANS[self.plan]
        return Plan(
            plan.models,
            plan.steps_max if self.steps_max is None else self.steps_max,
            plan.slots if self.slots is None else self.slots,
        )
