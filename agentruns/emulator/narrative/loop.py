"""The agent loop of one run: from a scripted turn to everything the run will say and leave behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec
from attrs import frozen

from agentruns.emulator.schema import JSON, misfit
from agentruns.emulator.script import Turn
from agentruns.emulator.vendor import Ids

from .bodies import Config
from .config import ModelError, Resolved, Revision, resolve
from .errors import RUN_ERRORS, run_error

Role: TypeAlias = Literal["user", "assistant", "tool"]
End: TypeAlias = Literal["completed", "requires_action", "failed"]
Blocks: TypeAlias = tuple[dict[str, JSON], ...]

TEXT_ONLY: Final = frozenset({"text"})


@frozen
class Draft:
    """A message before finalize; `client_calls` are the tool_use ids a caller has to answer."""

    role: Role
    blocks: Blocks
    client_calls: frozenset[str] = frozenset()


@frozen(kw_only=True)
class Outcome:
    """How a run ends."""

    status: End
    drafts: tuple[Draft, ...] = ()
    iterations: int
    usage: tuple[int, int]
    pending: tuple[dict[str, JSON], ...] = ()
    final_text: str | None = None
    final_structured_output: JSON = None
    error: dict[str, JSON] | None = None


@frozen(kw_only=True)
class Loop:
    """One run about to be worked out; `opening` is the incoming user turn."""

    turn: Turn
    opening: Draft
    config: Config
    revision: Revision
    keep_failed: bool
    ids: Ids

    def outcome(self) -> Outcome:
        """Work out how the run ends."""
        if self.turn.error is not None:
            return self._scripted_failure()
        try:
            calls = [resolve(call, self.config) for call in self.turn.calls]
        except ModelError as error:
            return self._failed(error.kind, error.message, self._spoken())
        for_client = any(not call.server_side for call in calls)
        needed = self.turn.iterations if for_client or not calls else max(self.turn.iterations, 2)
        if needed > self._cap:
            return self._failed("AgentLoopMaxIterationsExceeded", None, self._spoken(), self._cap)
        if for_client:
            return self._paused(calls)
        return self._answered(calls, needed)

    @property
    def _cap(self) -> int:
        return self.config.max_iterations or 1

    def _paused(self, calls: Sequence[Resolved]) -> Outcome:
        uses = [_use(self.ids, call.wire, call.arguments) for call in calls]
        pending = [use for use, call in zip(uses, calls, strict=True) if not call.server_side]
        waiting = frozenset(str(use["tool_use_id"]) for use in pending)
        drafts = [self.opening, Draft("assistant", (*self._words(), *uses), waiting)]
        # errors/not-a-client-tool-call: the platform answers MCP calls itself, also in a turn that pauses
        if results := _results(uses, calls):
            drafts.append(Draft("tool", results))
        return Outcome(
            status="requires_action",
            drafts=tuple(drafts),
            iterations=self.turn.iterations,
            usage=self._usage(self.turn.iterations),
            pending=tuple({name: value for name, value in use.items() if name != "type"} for use in pending),
        )

    def _answered(self, calls: Sequence[Resolved], iterations: int) -> Outcome:
        drafts = [self.opening]
        if calls:
            uses = [_use(self.ids, call.wire, call.arguments) for call in calls]
            drafts += [Draft("assistant", tuple(uses)), Draft("tool", _results(uses, calls))]
        schema: JSON = self.config.output_format_schema
        text = self.turn.text if self.turn.text is not None else "Done."
        answer: JSON = {"text": text} if self.turn.structured is None else self.turn.structured
        # list-conversation-messages: the first text block is what is parsed, so it holds the JSON text
        drafts.append(Draft("assistant", (_text(_json(answer)),)))
        said = answer.get("text") if isinstance(answer, dict) else None
        reason = misfit(schema, answer)
        if reason is None and self.revision == "A" and not isinstance(said, str):
            reason = "$.text is missing"  # the older page knows no other answer than final_text
        if reason is not None:  # errors/schema-decode-failed
            message = f"final answer did not parse against output_format_schema: {reason}"
            return self._failed("AgentLoopSchemaDecodeFailed", message, drafts[1:], iterations)
        as_text = isinstance(said, str) and (self.revision == "A" or _only_text(schema))
        return Outcome(
            status="completed",
            drafts=tuple(drafts),
            iterations=iterations,
            usage=self._usage(iterations),
            final_text=said if as_text and isinstance(said, str) else None,
            final_structured_output=None if as_text else answer,
        )

    def _scripted_failure(self) -> Outcome:
        error = self.turn.error
        kind, message = (error, None) if isinstance(error, str) or error is None else error
        known = RUN_ERRORS.get(kind or "")
        iterations = 0 if known is not None and known.at_load else min(self.turn.iterations, self._cap)
        return self._failed(kind or "", message, self._spoken(), iterations)

    def _failed(self, kind: str, message: str | None, said: Sequence[Draft], iterations: int | None = None) -> Outcome:
        used = min(self.turn.iterations, self._cap) if iterations is None else iterations
        kept = self.keep_failed and self._leaves_turn(kind, used)
        return Outcome(
            status="failed",
            drafts=(self.opening, *said) if kept else (),
            iterations=used,
            usage=self._usage(used),
            error=run_error(kind, message, iterations=used),
        )

    def _leaves_turn(self, kind: str, iterations: int) -> bool:
        """Tell whether a failed run appends; the pages are not of one mind, hence the option to switch it off.

        errors/max-iterations-exceeded and others tell to look at the turns of the failed run, while
        errors/concurrent-conversation-append leaves none. A type without page leaves a turn if the script gave it one.
        """
        known = RUN_ERRORS.get(kind)
        if known is None:
            return self.turn.text is not None or bool(self.turn.calls)
        return known.leaves == "turn" or (known.leaves == "later turn" and iterations > 1)

    def _spoken(self) -> list[Draft]:
        uses = [_use(self.ids, call.name, call.arguments or {}) for call in self.turn.calls]
        blocks = (*self._words(), *uses) or (_text("Let me look into this."),)
        return [Draft("assistant", blocks)]

    def _words(self) -> Blocks:
        return () if self.turn.text is None else (_text(self.turn.text),)

    def _usage(self, iterations: int) -> tuple[int, int]:
        """Count tokens: the prompt grows with each iteration, since the history is sent again."""
        return self.turn.usage or (400 * iterations * (iterations + 1) // 2, 40 * iterations)


def _use(ids: Ids, name: str, arguments: JSON) -> dict[str, JSON]:
    return {"type": "tool_use", "tool_use_id": ids.word("tooluse_", 22), "name": name, "arguments": arguments}


def _results(uses: Sequence[dict[str, JSON]], calls: Sequence[Resolved]) -> Blocks:
    return tuple(
        {
            "type": "tool_result",
            "tool_use_id": use["tool_use_id"],
            "is_error": call.is_error,
            "content_blocks": [_text(call.result if isinstance(call.result, str) else _json(call.result))],
        }
        for use, call in zip(uses, calls, strict=True)
        if call.server_side
    )


def _text(text: str) -> dict[str, JSON]:
    return {"type": "text", "text": text}


def _json(value: JSON) -> str:
    return msgspec.json.encode(value).decode()


def _only_text(schema: JSON) -> bool:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return isinstance(properties, dict) and set(properties) == TEXT_ONLY
