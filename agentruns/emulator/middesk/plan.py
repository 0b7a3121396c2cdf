"""From a scripted turn to everything a run will do in one segment: its steps, interrupts and artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal, TypeAlias

import msgspec
from attrs import field, frozen, validators

from agentruns.emulator.schema import JSON
from agentruns.emulator.script import Call, Output, Prompt, Turn
from agentruns.emulator.vendor import Ids

from .rows import FOREVER, Interrupt, Object, Resolution, Segment, Step

Mode: TypeAlias = Literal["manual", "auto_approve", "skip"]
"""What an account does with interrupts (work-with-agents/interrupt-policy)."""

ORCHESTRATOR: Final = "cip_orchestrator"
UNNAMED: Final = "interrupt"
"""The name of a `Call` whose interrupt does not say which agent asked."""

_modes = validators.in_(("manual", "auto_approve", "skip"))
_bool = validators.instance_of(bool)


@frozen(kw_only=True)
class PlanRules:
    """What decides how a turn becomes interrupts and artifacts."""

    interrupt_policy: Mode = field(default="manual", validator=_modes)
    policy_overrides: Mapping[str, Mode] = field(
        factory=dict, validator=validators.deep_mapping(validators.instance_of(str), _modes)
    )
    combine_proposals: bool = field(default=False, validator=_bool)
    artifact_ids: bool = field(default=True, validator=_bool)


@frozen(kw_only=True)
class Planner:
    """Works out segments; `first` tells the segment a run begins with from those after a pause."""

    rules: PlanRules
    ids: Ids
    agent: str

    def segment(self, turn: Turn, began: float, *, first: bool) -> Segment:
        """Work out all a segment does."""
        ends = began + turn.lasts
        activities = tuple(self._activities(turn, began + turn.pending, first=first))
        if turn.error is not None:
            return Segment(turn=turn, began=began, steps=(*activities, self._error(turn.error, ends)))
        if interrupts := tuple(self._interrupts(turn, ends)):
            return Segment(turn=turn, began=began, steps=activities, interrupts=interrupts)
        artifacts = tuple(self._identified(_artifacts(turn, self.agent)))
        closing = self._step("output", "write_output", "Writing the findings", ends, ends, artifacts=_dicts(artifacts))
        return Segment(turn=turn, began=began, steps=(*activities, closing), artifacts=artifacts)

    def _activities(self, turn: Turn, starts: float, *, first: bool) -> Iterator[Step]:
        each = turn.running / max(turn.iterations, 1)
        name, label = ("plan_review", "Planning the review") if first else ("continue_review", "Continuing the review")
        for number in range(turn.iterations):
            begin = starts + number * each if number else starts
            last = number == turn.iterations - 1
            inner = tuple(self._delegated(call, begin, begin + each) for call in turn.calls) if last else ()
            yield self._step("activity", name, label, begin, begin + each, steps=inner)

    def _delegated(self, call: Call, begin: float, end: float) -> Step:
        """Show what a sub-agent did, or prepared for the decision it asks for."""
        result = call.result if call.server_side else None
        return self._step(
            "activity",
            "delegated_review" if call.server_side else "prepare_proposal",
            _text(call.result) if call.server_side else "Preparing a proposal",
            begin,
            end,
            agent=_asker(call),
            failed=call.server_side and call.is_error,
            artifacts=_dicts(result.get("artifacts")) if isinstance(result, Mapping) else (),
        )

    def _error(self, error: str | tuple[str, str], at: float) -> Step:
        name, text = (error, error) if isinstance(error, str) else error
        return self._step("error", name, text, at, at, failed=True)

    def _interrupts(self, turn: Turn, at: float) -> Iterator[Interrupt]:
        """Raise one interrupt a call; the policy closes some, and the orchestrator may wrap the others into one."""
        waiting: list[tuple[str | None, Mapping[str, JSON]]] = []
        for call in turn.calls:
            if call.server_side:
                continue
            asker, value = _asker(call), _value(call)
            mode = self.rules.policy_overrides.get(asker or self.agent, self.rules.interrupt_policy)
            if mode == "manual":
                waiting.append((asker, value))
            else:
                yield self._interrupt(asker, value, at, resolution=mode)
        if waiting and self.rules.combine_proposals and self.agent == ORCHESTRATOR:
            proposals: list[JSON] = [{**({"agent": a} if a else {}), **value} for a, value in waiting]
            waiting = [(None, {"type": "combined_proposal", "proposals": proposals})]
        for asker, value in waiting:
            yield self._interrupt(asker, value, at)

    def _interrupt(
        self, asker: str | None, value: Mapping[str, JSON], at: float, *, resolution: Resolution | None = None
    ) -> Interrupt:
        label = value.get("label")
        step = self._step(
            "interrupt",
            "await_decision",
            label if isinstance(label, str) else "Waiting for a decision",
            at,
            FOREVER if resolution is None else at,
            agent=asker,
            resolution=resolution,
            artifacts=_proposed(value),
        )
        # the id has a prefix, unlike those of runs and steps: no page gives it a format
        return Interrupt(id="int_" + self.ids.uuid().replace("-", "")[:16], agent=asker, value=value, step=step)

    def _identified(self, artifacts: Iterable[JSON]) -> Iterator[JSON]:
        """Give artifacts the `id` that submit-agent-run-feedback asks for, though no schema of artifacts has it."""
        for one in artifacts:
            if self.rules.artifact_ids and isinstance(one, Mapping):
                yield {"id": self.ids.uuid(), **one}
            else:
                yield one

    def _step(
        self,
        kind: Literal["activity", "output", "interrupt", "error"],
        name: str,
        label: str,
        starts: float,
        ends: float,
        *,
        agent: str | None = None,
        failed: bool = False,
        resolution: Resolution | None = None,
        artifacts: tuple[JSON, ...] = (),
        steps: tuple[Step, ...] = (),
    ) -> Step:
        return Step(
            id=self.ids.uuid(),
            agent=agent or self.agent,
            type=kind,
            name=name,
            label=label,
            starts=starts,
            ends=ends,
            failed=failed,
            resolution=resolution,
            artifacts=artifacts,
            steps=steps,
        )


def reviewer(prompt: Prompt) -> Turn:
    """Play the default agent: complete with one `cip_summary` artifact that tells of the answers, if there were any."""
    said = "; ".join(f"{output.name} was answered {output.text}" for output in prompt.outputs)
    return Turn(f"Reviewed after these decisions: {said}." if said else "Name, TIN and filing match.")


def outputs(interrupts: Iterable[Interrupt]) -> tuple[Output, ...]:
    """Tell a script what was answered; the policy's answers are its own words."""
    return tuple(
        Output(tool_use_id=one.id, name=one.agent or UNNAMED, text=one.resolution or _text(one.answer))
        for one in interrupts
    )


def _artifacts(turn: Turn, agent: str) -> Iterable[JSON]:
    given = turn.structured
    if isinstance(given, Mapping) and isinstance(listed := given.get("artifacts"), list):
        return listed
    one: Object = {
        "title": f"Summary by {agent}",
        "type": "cip_summary",
        "confidence": "high",
        "summary": turn.text if turn.text is not None or given is not None else "Done.",
        "sources": [
            {
                "url": "https://registry.example.com/filings/2019-44871",
                "source_name": "Example Registry",
                "source_tier": "primary",
                "source_type": "sos",
            }
        ],
    }
    if given is None:
        return [one]
    return [{**one, **given}] if isinstance(given, Mapping) else [{**one, "content": given}]


def _asker(call: Call) -> str | None:
    return None if call.name == UNNAMED else call.name


def _value(call: Call) -> Mapping[str, JSON]:
    if call.arguments is not None:
        return call.arguments
    asker = _asker(call)
    return {**({"agent": asker} if asker else {}), "label": "May the agent go on?", "artifacts": []}


def _proposed(value: Mapping[str, JSON]) -> tuple[JSON, ...]:
    """Collect the artifacts a payload proposes, its own and those of the proposals wrapped in it."""
    inner = [one for one in _dicts(value.get("proposals")) if isinstance(one, Mapping)]
    return (*_dicts(value.get("artifacts")), *(found for one in inner for found in _proposed(one)))


def _dicts(value: JSON | tuple[JSON, ...]) -> tuple[JSON, ...]:
    return tuple(one for one in value if isinstance(one, dict)) if isinstance(value, (list, tuple)) else ()


def _text(value: JSON) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
