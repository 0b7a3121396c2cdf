"""Narrative's state: conversations and runs, moved on by the clock, with no sockets in sight."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

import attrs
from attrs import field, frozen, validators

from agentruns.emulator.schema import JSON
from agentruns.emulator.script import Output, Prompt
from agentruns.emulator.vendor import Stage

from .bodies import Config, CreateBody, StartBody, ToolOutputs, UserMessage, result_blocks
from .config import Revision, check, check_choice, check_discovery, complete, for_prompt, merged, without_other_tools
from .errors import bad_request, problem, run_error
from .loop import Blocks, Draft, Loop, Outcome
from .rows import Caller, Conversation, Message, Run


@frozen(kw_only=True)
class Rules:
    """What the pages leave open, decided."""

    revision: Revision = field(default="A", validator=validators.in_(("A", "B")))
    strict: bool = field(default=False, validator=validators.instance_of(bool))
    keep_failed: bool = field(default=True, validator=validators.instance_of(bool))
    drops_tools: bool = field(default=False, validator=validators.instance_of(bool))
    refuses_tools: bool = field(default=False, validator=validators.instance_of(bool))
    message_while_pending: bool = field(default=True, validator=validators.instance_of(bool))
    unreachable_mcp: frozenset[str] = field(default=frozenset(), converter=frozenset)


class State:
    """The rows; every method first settles what the clock has brought to an end."""

    def __init__(self, stage: Stage, rules: Rules) -> None:
        self.stage = stage
        self.rules = rules
        self.corrupt: set[str] = set()
        self._conversations: dict[str, Conversation] = {}
        self._runs: dict[str, Run] = {}
        self._by_conversation: dict[str, list[str]] = {}
        self._by_operation: dict[tuple[str, str], str] = {}
        self._ending: list[tuple[float, int, str]] = []

    @property
    def conversations(self) -> Mapping[str, Conversation]:
        """All conversations by id, oldest first."""
        self.settle()
        return dict(self._conversations)

    @property
    def runs(self) -> Mapping[str, Run]:
        """All runs by id, oldest first, as they stand now."""
        self.settle()
        now = self.stage.now()
        return {key: run.at(now) for key, run in self._runs.items()}

    def settle(self) -> None:
        """Finalize every run whose end has come, in the order of their ends."""
        now = self.stage.now()
        while self._ending and self._ending[0][0] <= now:
            self._finalize(self._runs[heapq.heappop(self._ending)[2]])

    def conversation(self, key: str, caller: Caller) -> Conversation:
        """Find a conversation; a stranger's row is not told from a missing one (errors/conversation-not-found)."""
        self.settle()
        found = self._conversations.get(key)
        if found is None or found.caller != caller:
            raise problem("conversation-not-found")
        return found

    def run(self, key: str, caller: Caller) -> Run:
        """Find a run as it stands now (errors/agent-run-not-found)."""
        self.settle()
        found = self._runs.get(key)
        if found is None or found.caller != caller:
            raise problem("agent-run-not-found")
        return found.at(self.stage.now())

    def readable(self, *keys: str) -> None:
        """Raise errors/invalid-stored-field for rows a test has spoiled."""
        if self.corrupt.intersection(keys):
            raise problem("invalid-stored-field")

    def create(self, body: CreateBody, caller: Caller) -> Conversation:
        """Create an empty conversation, which starts nothing (create-an-agent-conversation)."""
        given = body.defaults
        if self.rules.drops_tools or self.rules.refuses_tools:
            given = without_other_tools(given, self.rules.revision)
        if self.rules.refuses_tools and given != body.defaults:
            raise bad_request("defaults has a list of tools that is not known")
        defaults = complete(given, self.rules.revision)
        check(defaults, self.rules.revision)
        now = self.stage.now()
        row = Conversation(
            id=self.stage.ids.uuid(),
            caller=caller,
            defaults=defaults,
            name=body.name,
            system_prompt=body.system_prompt,
            created=now,
            updated=now,
        )
        self._conversations[row.id] = row
        return row

    def start(self, key: str, caller: Caller, body: StartBody, *, stillborn: bool = False) -> tuple[Run, bool]:
        """Start a run, or find the one an earlier request with this client_op_id made; tell whether it is new.

        A `stillborn` run's row is made but its workflow does not start; asking again starts it
        (errors/workflow-start-failed).
        """
        conversation = self.conversation(key, caller)
        operation = (conversation.id, str(body.client_op_id))
        if known := self._by_operation.get(operation):
            # start-a-new-run-on-the-conversation: the original row, whatever the body says now
            if self._runs[known].began is None:
                self._begin(known, stillborn=stillborn)
            return self.run(known, caller), False
        if body.expected_version != conversation.version:  # errors/version-conflict
            raise problem("version-conflict", expected=body.expected_version, current=conversation.version)
        config = merged(conversation.defaults, body.config_override)
        check(config, self.rules.revision)
        forced = check_choice(body.tool_choice, config)
        check_discovery(config, self.rules.unreachable_mcp)
        opening = self._opening(conversation, body.payload)
        row = self._insert(conversation, body, config, forced, opening)
        self._by_operation[operation] = row.id
        self._begin(row.id, stillborn=stillborn)
        return row, True

    def _insert(
        self, conversation: Conversation, body: StartBody, config: Config, forced: str | None, opening: Draft
    ) -> Run:
        earlier = self._by_conversation.setdefault(conversation.id, [])
        turn = self.stage.play(
            Prompt(
                index=len(earlier),
                conversation_id=conversation.id,
                text=body.payload.text if isinstance(body.payload, UserMessage) else None,
                outputs=_outputs(conversation, opening) if isinstance(body.payload, ToolOutputs) else (),
                tools=for_prompt(config),
                forced=forced,
                system_prompt=conversation.system_prompt,
                version=conversation.version,
                output_schema=config.output_format_schema or {},
            )
        )
        plan = Loop(
            turn=turn,
            opening=opening,
            config=config,
            revision=self.rules.revision,
            keep_failed=self.rules.keep_failed,
            ids=self.stage.ids,
        ).outcome()
        row = Run(
            id=self.stage.ids.uuid(),
            number=len(self._runs),
            conversation_id=conversation.id,
            caller=conversation.caller,
            client_op_id=str(body.client_op_id),
            base_version=body.expected_version,
            effective_config=config,
            tool_choice=body.tool_choice,
            turn=turn,
            plan=plan,
            job_ids=tuple(self.stage.ids.uuid() for _ in range(plan.iterations)),
            created=self.stage.now(),
        )
        self._runs[row.id] = row
        earlier.append(row.id)
        return row

    def _begin(self, key: str, *, stillborn: bool) -> None:
        if stillborn:
            raise problem("workflow-start-failed")
        row = attrs.evolve(self._runs[key], began=self.stage.now())
        self._runs[key] = row
        heapq.heappush(self._ending, (row.ends, row.number, row.id))

    def _finalize(self, run: Run) -> None:
        """Append the run's messages and bump the version in one compare-and-swap."""
        conversation = self._conversations[run.conversation_id]
        outcome = run.plan
        if outcome.drafts and conversation.version != run.base_version:
            outcome = Outcome(  # errors/concurrent-conversation-append: the first to finalize has won
                status="failed",
                iterations=outcome.iterations,
                usage=outcome.usage,
                error=run_error("AgentLoopConcurrentConversationAppend"),
            )
        self._runs[run.id] = run.finalized(outcome, run.ends)
        self._conversations[conversation.id] = conversation.appended(
            run.id, outcome.drafts, run.ends, self.stage.ids.uuid
        )

    def _opening(self, conversation: Conversation, payload: UserMessage | ToolOutputs) -> Draft:
        """Check the payload against the conversation; make the user turn that finalize will store."""
        latest = conversation.latest_assistant
        if isinstance(payload, UserMessage):
            if latest is not None and latest.client_calls and not self.rules.message_while_pending:
                raise bad_request("the conversation waits for tool_outputs")
            return Draft("user", ({"type": "text", "text": payload.text},))
        if latest is None:  # errors/no-assistant-turn
            raise problem("no-assistant-turn", conversation.id)
        _check_outputs(latest, [output.tool_use_id for output in payload.outputs])
        results: list[dict[str, JSON]] = [
            {
                "type": "tool_result",
                "tool_use_id": output.tool_use_id,
                "is_error": output.is_error,
                "content_blocks": result_blocks(output, strict=self.rules.strict),
            }
            for output in payload.outputs
        ]
        return Draft("user", tuple(results))


def _check_outputs(latest: Message, given: list[str]) -> None:
    """Require one output for every pending call of the latest assistant turn, and nothing else."""
    called = {str(use["tool_use_id"]) for use in _uses(latest.content_blocks)}
    # errors/unknown-tool-use-id
    if unknown := [key for key in given if key not in called]:
        raise problem("unknown-tool-use-id", ", ".join(unknown))
    # errors/not-a-client-tool-call
    if resolved := [key for key in given if key not in latest.client_calls]:
        raise problem("not-a-client-tool-call", ", ".join(resolved))
    # errors/incomplete-tool-outputs: an empty side is left out
    missing = sorted(latest.client_calls.difference(given))
    twice = sorted({key for key in given if given.count(key) > 1})
    sides = [f"{side}: {', '.join(keys)}" for side, keys in (("missing", missing), ("unexpected", twice)) if keys]
    if sides:
        raise problem("incomplete-tool-outputs", "; ".join(sides))
    if not given:
        raise bad_request("outputs is empty and no tool call is pending")


def _uses(blocks: Blocks) -> list[dict[str, JSON]]:
    return [block for block in blocks if block["type"] == "tool_use"]


def _outputs(conversation: Conversation, opening: Draft) -> tuple[Output, ...]:
    latest = conversation.latest_assistant
    names = {use["tool_use_id"]: str(use["name"]) for use in _uses(latest.content_blocks if latest else ())}
    return tuple(
        Output(
            tool_use_id=str(block["tool_use_id"]),
            name=names[block["tool_use_id"]],
            text=_joined(block["content_blocks"]),
            is_error=bool(block["is_error"]),
        )
        for block in opening.blocks
    )


def _joined(blocks: JSON) -> str:
    parts = blocks if isinstance(blocks, list) else []
    return "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
