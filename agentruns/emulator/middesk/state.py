"""Middesk's state: threads and runs, moved on by the clock, with no sockets in sight."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping

import attrs
from attrs import field, frozen, validators

from agentruns.emulator.schema import JSON
from agentruns.emulator.script import Prompt, Turn
from agentruns.emulator.vendor import Stage

from .bodies import Context, FeedbackBody, ResumeBody, StartBody
from .errors import IN_AUDIT, NO_CONTEXT, NOT_INTERRUPTED, NOT_PENDING, RefusedError, invalid, not_found
from .plan import ORCHESTRATOR, Planner, PlanRules, outputs, reviewer
from .rows import Agent, Caller, Feedback, Interrupt, Run, Thread, ids_of

_MOST_SEGMENTS = 1000  # of one run: a script that only asks, under a policy that only answers, has no other end


@frozen(kw_only=True)
class Rules(PlanRules):
    """What the pages leave open, and what Middesk's staff sets for an account, decided."""

    agents: tuple[str, ...] = field(default=(ORCHESTRATOR, "watchlist_resolution"), converter=tuple)
    in_audit: frozenset[str] = field(default=frozenset(), converter=frozenset)
    one_run_per_thread: bool = field(default=False, validator=validators.instance_of(bool))
    check_answer: Callable[[Interrupt, JSON], str | None] | None = None


class State:
    """The rows; every method first settles what the clock has moved on."""

    def __init__(self, stage: Stage, rules: Rules) -> None:
        self.stage = stage
        self.rules = rules
        self.in_audit = set(rules.in_audit)
        self.agents = tuple(Agent(id=stage.ids.uuid(), type=name) for name in rules.agents)
        self.feedback: list[Feedback] = []
        self._threads: dict[str, Thread] = {}
        self._runs: dict[str, Run] = {}
        self._by_thread: dict[str, list[str]] = {}
        self._closed_by_policy: list[tuple[float, int, str]] = []

    @property
    def threads(self) -> Mapping[str, Thread]:
        """All threads by id, oldest first."""
        return dict(self._threads)

    @property
    def runs(self) -> Mapping[str, Run]:
        """All runs by id, oldest first, as they stand now."""
        self._settle()
        return {key: self._seen(run) for key, run in self._runs.items()}

    def threads_of(self, caller: Caller, business_id: str | None = None) -> list[Thread]:
        """List a caller's threads, newest first, all or those about one business."""
        return [
            thread
            for thread in reversed(self._threads.values())
            if thread.caller.account == caller.account
            and (business_id is None or thread.context == Context("business", business_id))
        ]

    def runs_of(self, caller: Caller) -> list[Run]:
        """List a caller's runs, newest first."""
        self._settle()
        return [self._seen(run) for run in reversed(self._runs.values()) if run.caller.account == caller.account]

    def runs_in(self, thread: Thread) -> list[Run]:
        """List the runs of a thread, oldest first."""
        self._settle()
        return [self._seen(self._runs[key]) for key in self._by_thread[thread.id]]

    def thread(self, key: str, caller: Caller) -> Thread:
        """Find a thread; another account's is not told from a missing one."""
        found = self._threads.get(key)
        if found is None or found.caller.account != caller.account:
            raise not_found("Agent thread")
        return found

    def run(self, key: str, caller: Caller) -> Run:
        """Find a run as it stands now."""
        found = self._runs.get(key)
        if found is None or found.caller.account != caller.account:
            raise not_found("Agent run")
        return self.look(key)

    def look(self, key: str) -> Run:
        """Look at a run that is there, whoever asks."""
        self._settle()
        return self._seen(self._runs[key])

    def create_thread(self, body: StartBody, caller: Caller) -> Thread:
        """Create a thread, which starts nothing (create-agent-thread)."""
        self._check_agent(body.agent)
        if body.context is None:
            raise RefusedError(400, NO_CONTEXT)
        return self._new_thread(body.agent, body.context, caller)

    def start(self, body: StartBody, caller: Caller) -> Run:
        """Start a run, in a new thread unless one is named (create-agent-run)."""
        self._check_agent(body.agent)
        thread = None if body.thread_id is None else self.thread(body.thread_id, caller)
        context = body.context or (thread.context if thread else None)
        if context is None:
            raise RefusedError(400, NO_CONTEXT)
        if context.kind == "business" and context.id in self.in_audit:
            raise invalid(IN_AUDIT, "business_id")
        if thread is None:
            thread = self._new_thread(body.agent, context, caller)
        elif self.rules.one_run_per_thread and any(run.ended is None for run in self.runs_in(thread)):
            raise invalid("The thread works on another run", "thread_id")
        now = self.stage.now()
        turn = self._play(Prompt(index=0, conversation_id=thread.id, agent=body.agent))
        run = Run(
            id=self.stage.ids.uuid(),
            number=len(self._runs),
            thread_id=thread.id,
            agent=body.agent,
            caller=caller,
            created=now,
            segments=(self._planner(body.agent).segment(turn, now, first=True),),
            now=now,
        )
        self._by_thread[thread.id].append(run.id)
        self._store(run)
        return attrs.evolve(run, accepted=True)

    def resume(self, key: str, caller: Caller, body: ResumeBody) -> Run:
        """Take the answer to one interrupt; after the last the same run goes on."""
        run = self.run(key, caller)
        if run.status != "interrupted":
            raise invalid(NOT_INTERRUPTED, None)
        asked = next((one for one in run.interrupts if one.id == body.interrupt_id), None)
        if asked is None:
            raise invalid(NOT_PENDING, "interrupt_id")
        refusal = self.rules.check_answer(asked, body.answer) if self.rules.check_answer else None
        if refusal is not None:
            raise invalid(refusal, "input")
        answered = attrs.evolve(asked, answered=run.now, answer=body.answer)
        last = run.segments[-1]
        last = attrs.evolve(last, interrupts=tuple(answered if one is asked else one for one in last.interrupts))
        run = attrs.evolve(run, segments=(*run.segments[:-1], last))
        if last.end == "interrupted":
            self._store(run)
            return run
        run = self._continued(run, run.now)
        self._store(run)
        return attrs.evolve(run, accepted=True)

    def rate(self, key: str, caller: Caller, body: FeedbackBody) -> Feedback:
        """Record a rating, which supersedes an earlier one of the same artifact by the same reviewer."""
        run = self.run(key, caller)
        if body.artifact_id not in ids_of(run.artifacts):
            raise invalid("The run has no artifact with this id", "artifact_id")
        rated = (run.id, body.artifact_id, caller.reviewer)
        row = Feedback(
            id=self.stage.ids.uuid(),
            run_id=run.id,
            artifact_id=body.artifact_id,
            rating=body.rating,
            comment=body.comment,
            reviewer=caller.reviewer,
            superseded_prior=any((one.run_id, one.artifact_id, one.reviewer) == rated for one in self.feedback),
            created=self.stage.now(),
        )
        self.feedback.append(row)
        return row

    def _check_agent(self, name: str) -> None:
        if name not in self.rules.agents:
            raise RefusedError(404, "Agent not found", parameter="type")

    def _new_thread(self, agent: str, context: Context, caller: Caller) -> Thread:
        ids = self.stage.ids
        row = Thread(id=ids.uuid(), agent=agent, caller=caller, context=context, created=self.stage.now())
        self._threads[row.id] = row
        self._by_thread[row.id] = []
        return row

    def _settle(self) -> None:
        """Let the runs go on whose interrupts the policy has closed, in the order of their pauses."""
        now = self.stage.now()
        while self._closed_by_policy and self._closed_by_policy[0][0] <= now:
            paused, _, key = heapq.heappop(self._closed_by_policy)
            run = self._runs[key]
            try:
                run = self._continued(run, paused)
            except Exception as error:  # of a script function: no request is there to tell it to
                turn = Turn(error=("script_failed", f"The script failed: {error!r}"), running=0)
                run = self._appended(run, turn, paused)
            self._store(run)

    def _continued(self, run: Run, at: float) -> Run:
        """Play the next turn of a run whose interrupts are all closed."""
        index = len(run.segments)
        if index >= _MOST_SEGMENTS:
            return self._appended(run, Turn(error=("endless", "The script never comes to an end."), running=0), at)
        answers = outputs(run.segments[-1].interrupts)
        prompt = Prompt(index=index, conversation_id=run.thread_id, agent=run.agent, outputs=answers)
        return self._appended(run, self._play(prompt), at)

    def _appended(self, run: Run, turn: Turn, at: float) -> Run:
        segment = self._planner(run.agent).segment(turn, at, first=False)
        return attrs.evolve(run, segments=(*run.segments, segment))

    def _store(self, run: Run) -> None:
        self._runs[run.id] = run
        last = run.segments[-1]
        if last.end == "running":
            heapq.heappush(self._closed_by_policy, (last.ends, run.number, run.id))

    def _seen(self, run: Run) -> Run:
        return attrs.evolve(run, now=self.stage.now())

    def _play(self, prompt: Prompt) -> Turn:
        return self.stage.play(prompt, reviewer)

    def _planner(self, agent: str) -> Planner:
        return Planner(rules=self.rules, ids=self.stage.ids, agent=agent)
