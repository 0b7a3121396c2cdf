"""What Middesk answers, field for field as its pages show it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import field, frozen

from agentruns._values.generic import Json


@frozen
class Source:
    """Where a finding comes from; `source_tier` and `source_type` are open sets of words."""

    url: str
    source_name: str | None = None
    source_tier: str | None = None
    source_type: str | None = None


@frozen
class Artifact:
    """
    A finding; `confidence` is a label (get-agent-run) or a score (take-action).

    `id` is in no schema, yet feedback needs one: it is None where the answer has none.
    """

    title: str
    type: str
    id: str | None = None
    confidence: Any = None
    summary: str | None = None
    sources: tuple[Source, ...] = ()


@frozen
class Output:
    """The artifacts of a run."""

    artifacts: tuple[Artifact, ...] = ()


@frozen
class Interrupt:
    """What a paused run waits for; the shape of `value` is the agent's own."""

    id: str
    value: Mapping[str, Json] = field(factory=dict)
    agent: str | None = None


@frozen
class Requester:
    """Who started a run: a user, or an account, which has no email."""

    id: str
    name: str
    email: str | None = None


@frozen
class StepResult:
    """How a step ended."""

    resolution: str | None = None


@frozen
class Step:
    """A part of a run's trace; `type` is activity, output, interrupt, error, or a word of the future."""

    id: str
    run_id: str
    type: str
    name: str
    label: str
    status: str
    started_at: datetime
    completed_at: datetime | None = None
    agent: str | None = None
    parent_step_id: str | None = None
    steps: tuple[Step, ...] = ()
    result: StepResult | None = None
    resolution: str | None = None
    artifacts: tuple[Artifact, ...] = ()

    @property
    def resolved_by(self) -> str | None:
        """
        Return the policy that closed an interrupt step, `auto_approve` or `skip`; None if a person did, or nobody yet.

        get-agent-run has it in `result`, interrupt-policy on the step itself.
        """
        return (self.result.resolution if self.result else None) or self.resolution


@frozen
class MiddeskRun:
    """A run, field for field as get-agent-run shows it; `steps` is None unless they were asked for."""

    object: str
    id: str
    created_at: datetime
    updated_at: datetime
    status: str
    thread_id: str | None = None
    agent: str | None = None
    requester: Requester | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    output: Output | None = None
    interrupts: tuple[Interrupt, ...] = ()
    steps: tuple[Step, ...] | None = None


@frozen
class Thread:
    """A container of runs and their context; before its first run, `status` says nothing."""

    object: str
    id: str
    created_at: datetime
    updated_at: datetime
    status: str
    metadata: Mapping[str, Json] | None = None
    requester: Mapping[str, Json] | None = None
    steps: tuple[Step, ...] = ()


@frozen
class Agent:
    """An agent that this account may use; `type` is what a run is started with."""

    object: str
    id: str
    type: str
    created_at: datetime
    updated_at: datetime
    name: str | None = None
    description: str | None = None


@frozen
class Reviewer:
    """Who gave feedback: `type` is User or Account."""

    type: str
    id: str


@frozen
class Feedback:
    """A rating of an artifact; `superseded_prior` says that it replaced one of the same reviewer."""

    object: str
    id: str
    run_id: str
    rating: str
    artifact_id: str
    comment: str | None
    reviewer: Reviewer
    superseded_prior: bool
    created_at: datetime


@frozen
class ActionTarget:
    """What an action changed: `object` is its type."""

    object: str
    id: str


@frozen
class ActionEffect:
    """One change: `operation` is created, updated or linked; `diff` has each field before and after."""

    operation: str
    diff: Mapping[str, Json] | None = None
    target: ActionTarget | None = None


@frozen
class ActionActor:
    """Who did it: `actor_type` is account, user or run."""

    actor_type: str
    data: Mapping[str, Json] | None = None


@frozen
class TakenAction:
    """What was done to a business or a watchlist result, and what that changed."""

    id: str
    type: str
    object_type: str
    object_id: str
    created_at: datetime
    note: str | None = None
    metadata: Mapping[str, Json] | None = None
    effects: tuple[ActionEffect, ...] = ()
    actors: tuple[ActionActor, ...] = ()


@frozen
class TakenActions:
    """All that was done to one object; this list has no pages."""

    items: tuple[TakenAction, ...]


@frozen
class Webhook:
    """
    A subscription to events; the description of the API leaves its fields open, so all but `id` may be missing.

    What else it has stands in `raw`; a secret is never in it.
    """

    id: str
    url: str | None = None
    enabled_events: tuple[str, ...] = ()
    include: str | None = None
    disabled_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    raw: Mapping[str, Json] = field(factory=dict, repr=False)


@frozen
class WebhookPage:
    """One page of subscriptions; with `has_more`, the next `page` has others."""

    items: tuple[Webhook, ...]
    has_more: bool


@frozen
class AgentPage:
    """All agents; this list has no pages."""

    items: tuple[Agent, ...]


@frozen
class ThreadPage:
    """One page of threads; with `has_more`, the next `page` has others."""

    items: tuple[Thread, ...]
    has_more: bool
    total_count: int | None = None
