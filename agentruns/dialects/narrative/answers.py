"""Answering a paused run by the next run of its conversation: again if that failed, in another shape if need be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast
from uuid import UUID, uuid5

from agentruns._values import codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Response
from agentruns._values.generic import Json
from agentruns._values.run import Run, RunRef, RunStatus, ToolOutput
from agentruns.dialects import guesses, wire
from agentruns.dialects.guesses import Guess, Variant
from agentruns.errors import (
    AlreadyAnsweredError,
    APIError,
    ConfigurationError,
    InvalidRequestError,
    ProtocolError,
    TransportError,
)

from .config import ToolChoice
from .conversations import messages_request
from .objects import NarrativeRun
from .runs import OVERRIDABLE, UserMessage, as_sent, check_choice, check_override, fetch, post_run, read_head, start
from .states import STATUS, parse_run

if TYPE_CHECKING:
    from agentruns.dialects.protocol import Dialect

SAME: Final = "same"
"""What stands for "as the paused run had it" in the options of an answer."""

RETRYABLE: Final = frozenset({
    "AgentLoopConcurrentConversationAppend",
    "AgentLoopFinalizeInvariantViolated",
    "AgentLoopInvalidEffectiveConfig",
    "JobFailed",
    "McpServerError",
})
"""
How an answering run may fail so that the same outputs, under a new id, may do (errors/concurrent-conversation-append,
invariant-violated, invalid-effective-config, inference-job-failed, mcp-server-error).
"""

_MOST_ATTEMPTS: Final = 50
"""How many failed answers to one pause are stepped over."""

_OTHERWISE_REFUSED: Final = frozenset({
    "incomplete-tool-outputs",
    "no-assistant-turn",
    "not-a-client-tool-call",
    "unknown-tool-choice-mcp-alias",
    "unknown-tool-choice-name",
    "unknown-tool-use-id",
})
"""Refusals that have nothing to do with the shape of an answer."""

_MOVED_ON: Final = frozenset({"no-assistant-turn", "not-a-client-tool-call", "unknown-tool-use-id"})
"""Refusals that say that the calls are not those of the latest turn (errors/unknown-tool-use-id)."""

GUESSES: Final = (
    Guess(
        "tool_output",
        'an item of `outputs` is {"tool_use_id", "content_blocks": [{"type": "text", "text"}], "is_error"}',
        "no readable page names the field of the result; the stored block nests it as `content_blocks` "
        "(list-conversation-messages)",
    ),
    Guess(
        "retryable",
        f"an answer whose run failed as {', '.join(sorted(RETRYABLE))} may be given again under a new id, and is",
        "the pages of these failures speak of a fresh run or of trying later; the list of failures may be incomplete",
    ),
    Guess(
        "status",
        "a word that is none of pending, running, requires_action, completed, failed is that of a run in flight",
        "get-a-runs-current-state lists these five; new ones may come",
    ),
    Guess(
        "revision",
        "tools are declared under an alias, as `client_tools`",
        "the pages exist in two states, A and B, and none says which account has which; `Conversation.dropped` tells "
        "what an account did not take",
        "`narrative.Config(tools=narrative.flat_tools(tools))` declares them as B has them",
    ),
)

ToolOutputItem: TypeAlias = Callable[[ToolOutput], Mapping[str, Json]]
Choice: TypeAlias = ToolChoice | Mapping[str, Json] | Literal["same"] | None
Override: TypeAlias = Mapping[str, Json] | Literal["same"] | None


def tool_output_item(output: ToolOutput) -> Mapping[str, Json]:
    """Return one answer as the wire has it: a guess, which `variant(tool_output=...)` replaces."""
    text = output.output if isinstance(output.output, str) else codec.encode(output.output).decode()
    return {
        "tool_use_id": output.action.id,
        "content_blocks": [{"type": "text", "text": text}],
        "is_error": output.is_error,
    }


def resume(
    run: Run[NarrativeRun],
    outputs: Sequence[ToolOutput],
    *,
    tool_choice: Choice = None,
    config_override: Override = SAME,
    tool_output: ToolOutputItem = tool_output_item,
    retryable: Collection[str] = RETRYABLE,
    words: Mapping[str, RunStatus] = STATUS,
) -> Flow[Run[NarrativeRun]]:
    """
    Answer a paused run by starting the next one on its conversation.

    Every pending call is answered exactly once (errors/incomplete-tool-outputs). The id of the new run's intent derives
    from the paused run and the number of the attempt, so two processes that answer the same pause start one run between
    them. An attempt that failed for a reason that the pages call retryable is stepped over: the next one has a new id
    and the same outputs.

    A run starts from the conversation's defaults again: with `SAME`, what the paused run had overridden stays so, else
    *config_override* is what is sent, None for nothing. *tool_choice* is for the first iteration of the answering run,
    `SAME` for the paused run's own.
    """
    return (yield from _answer(run, outputs, tool_choice, config_override, tool_output, retryable, words))


def resume_first(
    run: Run[NarrativeRun],
    outputs: Sequence[ToolOutput],
    *,
    tool_choice: Choice = None,
    config_override: Override = SAME,
    tool_output: ToolOutputItem = tool_output_item,
    retryable: Collection[str] = RETRYABLE,
    words: Mapping[str, RunStatus] = STATUS,
) -> Flow[Run[NarrativeRun]]:
    """
    Answer a paused run as `resume` does, and raise `AlreadyAnsweredError` where another answer was first.

    A second POST for the same pause is no error to the vendor: it is answered 200 instead of 202, with the run that the
    first one began. What that one said stands in the messages of the conversation, once the run has ended.
    """
    return (yield from _answer(run, outputs, tool_choice, config_override, tool_output, retryable, words, first=True))


def resume_again(
    run: Run[NarrativeRun],
    outputs: Sequence[ToolOutput],
    *,
    tool_choice: Choice = None,
    config_override: Override = SAME,
    tool_output: ToolOutputItem = tool_output_item,
    words: Mapping[str, RunStatus] = STATUS,
) -> Flow[Run[NarrativeRun]]:
    """Answer a paused run as `resume` does, and step over every attempt that failed, for whatever reason."""
    return (yield from _answer(run, outputs, tool_choice, config_override, tool_output, None, words, first=True))


def answered_by(run: Run[NarrativeRun], *, words: Mapping[str, RunStatus] = STATUS) -> Flow[Run[NarrativeRun] | None]:
    """
    Return the run that answered a paused one, None if there is none yet, or if it has failed: others may answer then.

    It shows in the messages of the conversation once it has ended, by the results that it brought
    (list-conversation-messages-delta-read-by-version-cursor). No page names a way to see it before.
    """
    conversation = run.ref.parent
    version, _ = yield from read_head(conversation)
    last = wire.objects(wire.read_object((yield messages_request(conversation, max(version - 1, 0)))).get("messages"))
    if not last or last[-1].get("run_id") == run.id:
        return None  # nothing has come since
    waited = {action.id for action in run.actions}
    for message in wire.objects(wire.read_object((yield messages_request(conversation))).get("messages")):
        given = {block.get("tool_use_id") for block in wire.objects(message.get("content_blocks")) if _is_result(block)}
        if waited & given and isinstance(message.get("run_id"), str):
            found = yield from fetch(RunRef(message["run_id"], conversation), {}, words=words)
            return None if found.status is RunStatus.FAILED else found
    return None


def variant(
    *,
    tool_output: ToolOutputItem | None = None,
    tool_choice: Choice = None,
    config_override: Override = SAME,
    retryable: Collection[str] | None = None,
    status: Mapping[str, RunStatus | str] | None = None,
) -> Dialect[UserMessage, NarrativeRun]:
    """
    Return this dialect with another reading of what no page says, for `connect(narrative.variant(...))`.

    *tool_output* gives the item of `outputs` for an answer. *tool_choice* and *config_override* are those of every
    answer that handlers give, as in `resume`. *retryable* are the failures of an answering run that are stepped over.
    *status* maps words of the vendor to ours, besides those that are known. Raise `ConfigurationError` for what cannot
    be sent or read.
    """
    words = {**STATUS, **guesses.statuses("status", status)}
    switches: Mapping[str, Any] = {
        "tool_output": guesses.function("tool_output", tool_output, tool_output_item),
        "tool_choice": _checked_choice(tool_choice),
        "config_override": _checked_override(config_override),
        "words": words,
    }
    if isinstance(retryable, str):
        raise ConfigurationError(f"retryable is {retryable!r}; it must be a collection of types, such as a set")
    kinds = RETRYABLE if retryable is None else frozenset(retryable)
    replaced: Mapping[str, Any] = {
        "start": partial(start, words=words),
        "resume": partial(resume, **switches, retryable=kinds),
        "resume_first": partial(resume_first, **switches, retryable=kinds),
        "resume_again": partial(resume_again, **switches),
        "answered_by": partial(answered_by, words=words),
        "fetch": partial(fetch, words=words),
        "parse_run": partial(parse_run, words=words),
        "STATUS": words,
    }
    given = {
        "tool_output": tool_output,
        "tool_choice": tool_choice,
        "config_override": config_override,
        "retryable": retryable,
        "status": status,
    }
    return cast("Dialect[UserMessage, NarrativeRun]", Variant(__name__.rpartition(".")[0], replaced, given))


def _checked_choice(choice: Choice) -> Choice:
    if choice != SAME:
        check_choice("tool_choice", choice)
    return choice


def _checked_override(override: Override) -> Override:
    if override != SAME:
        check_override("config_override", override)
    return override


_RESUMES: Final = UUID("6d9d2c1e-5f5c-5f0e-9a55-0c7f4c1a1d3b")


def _op_id(run_id: str, attempt: int) -> str:
    return str(uuid5(_RESUMES, run_id if attempt == 0 else f"{run_id} {attempt}"))


def _answer(
    run: Run[NarrativeRun],
    outputs: Sequence[ToolOutput],
    choice: Choice,
    override: Override,
    item: ToolOutputItem,
    retryable: Collection[str] | None,
    words: Mapping[str, RunStatus],
    *,
    first: bool = False,
) -> Flow[Run[NarrativeRun]]:
    """Go from attempt to attempt until one has not failed; *retryable* are the failures to step over, None for all."""
    _answers_all(run, outputs)
    items = [guesses.mapping_of("tool_output", item(output)) for output in outputs]
    payload = {"kind": "tool_outputs", "outputs": items}
    attempt = 0
    while True:
        version, defaults = yield from read_head(run.ref.parent)
        chosen = wire.mapping(run.raw.get("tool_choice")) if choice == SAME else choice
        overridden = _overridden(run, defaults) if override == SAME else override
        options = {
            "tool_choice": as_sent("tool_choice", chosen),
            "config_override": as_sent("config_override", overridden),
        }
        try:
            response = yield from post_run(run.ref.parent, _op_id(run.id, attempt), version, payload, options)
        except InvalidRequestError as error:
            if error.code not in _OTHERWISE_REFUSED:
                guesses.refused(error, "an item of `tool_outputs`", items, "`narrative.variant(tool_output=...)`")
            elif error.code in _MOVED_ON:
                error.remedy = (
                    f"The conversation has moved on, and nothing answers run {run.id} any more: "
                    "`narrative.UserMessage(conversation_id, text)` goes on from where it is"
                )
            raise
        answering = parse_run(response, words=words)
        if not _is_over(answering, retryable) or attempt == _MOST_ATTEMPTS:
            if first and response.status != HTTPStatus.ACCEPTED:
                yield from _check_replay(run, answering, outputs, items, response)
            return answering
        if attempt and response.status == HTTPStatus.ACCEPTED:
            return answering  # nobody's replay: this attempt has begun just now, and failed at once
        attempt += 1


def _check_replay(
    run: Run,
    answering: Run,
    outputs: Sequence[ToolOutput],
    items: Sequence[Mapping[str, Json]],
    response: Response,
) -> Flow[None]:
    """Raise `AlreadyAnsweredError` unless what was taken before says the same as *items*."""
    try:
        kept = _results((yield messages_request(run.ref.parent)))
    except (APIError, ProtocolError, TransportError) as error:
        kept, why = {}, f"cannot be read ({error})"
    else:
        why = "can be read when that has ended well"
    taken = [kept.get(output.action.id) for output in outputs]
    standing = tuple(
        ToolOutput(output.action, result[0], result[1])
        for output, item, result in zip(outputs, items, taken, strict=True)
        if result is not None and not (result[1] == output.is_error and _says(item, result[0]))
    )
    if not standing and None not in taken:
        return
    told = f"run {run.id} was answered before, and run {answering.id} came of it: what was said {why}"
    remedy = ""
    if answering.status is RunStatus.FAILED:
        remedy = f"Run {answering.id}, which came of it, has failed: `client.resume(..., again=True)` answers once more"
    raise AlreadyAnsweredError(answering, standing, "" if standing else told, response=response, remedy=remedy)


def _results(response: Response) -> Mapping[str, tuple[str, bool]]:
    """Return what the messages of a conversation have as results of tools, by the ids of the calls: no more is read."""
    messages = wire.read_object(response).get("messages")
    blocks = [block for message in wire.objects(messages) for block in wire.objects(message.get("content_blocks"))]
    return {
        block["tool_use_id"]: (
            "".join(wire.first_text(part, "text") or "" for part in wire.objects(block.get("content_blocks"))),
            block.get("is_error") is True,
        )
        for block in blocks
        if _is_result(block)
    }


def _is_result(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "tool_result" and isinstance(block.get("tool_use_id"), str)


def _says(item: Mapping[str, Json], text: str) -> bool:
    """Tell whether an item of `outputs`, however it is shaped, has that answer in it: as a text, or as JSON."""
    sent = codec.encode(item)
    if codec.encode(text) in sent:
        return True
    try:
        return text != "" and codec.encode(codec.decode(text)) in sent
    except codec.CodecError:
        return False


def _is_over(answering: Run, retryable: Collection[str] | None) -> bool:
    """Tell whether an attempt has failed, so that another may do: a run that has just begun is pending."""
    if answering.status is not RunStatus.FAILED:
        return False
    return retryable is None or (answering.failure is not None and answering.failure.type in retryable)


def _overridden(run: Run[NarrativeRun], defaults: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return what a run had otherwise than its conversation has it."""
    used = wire.mapping(run.raw.get("effective_config"))
    return {key: used[key] for key in OVERRIDABLE if defaults and used.get(key) not in (None, defaults.get(key))}


def _answers_all(run: Run[NarrativeRun], outputs: Sequence[ToolOutput]) -> None:
    given = [output.action.id for output in outputs]
    missing = [action.id for action in run.actions if action.id not in given]
    twice = sorted({each for each in given if given.count(each) > 1})
    if missing or twice:
        raise ConfigurationError(
            f"run {run.id} needs exactly one answer to each of its actions; missing: {', '.join(missing) or 'none'}; "
            f"given twice: {', '.join(twice) or 'none'}. What cannot be answered is sent as "
            "ToolOutput(action, 'why not', is_error=True)"
        )
