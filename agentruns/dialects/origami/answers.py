"""Answering a run: the answer is a prompt, and starts the next run of the same agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from uuid import UUID, uuid5

from attrs import evolve

from agentruns._values import check, codec
from agentruns._values.commands import Flow
from agentruns._values.run import Action, Run, RunStatus, ToolOutput
from agentruns.dialects import guesses, wire
from agentruns.dialects.guesses import Guess, Variant
from agentruns.errors import ConfigurationError, InvalidRequestError

from .admission import Intent, admit
from .objects import RunDetail
from .prompts import LONGEST_PROMPT, Prompt, draft_campaign, edit_campaign, recover, start
from .reading import CONTINUE, STATUS, parse_run
from .runs import agent_path, answered_by, cancel, fetch, page, turns_after

if TYPE_CHECKING:
    from agentruns.dialects.protocol import Dialect

AnswerPrompt: TypeAlias = Callable[[Sequence[ToolOutput]], str]

GUESSES: Final = (
    Guess(
        "answer_prompt",
        "an answer is the plain text; several are numbered lines `1) question -> answer.`; a `confirm` is answered by "
        "`Confirm` or `No`; a run that stopped early goes on by `Continue.`",
        "questions have no ids, one prompt answers all of them, and any text is taken (reference/send-run): in which "
        "words an agent understands it best, no page says",
    ),
    Guess(
        "keep_model",
        "an answer asks for the model that ran before",
        "a follow-up without a model runs on the default of the plan (reference/send-run), and no page says "
        "whether answers are meant to",
    ),
    Guess(
        "status",
        "a word that is none of the eight known ones is the end of a run that failed",
        "whatever is not `running` is over (reference/get-run); whether it ended well, only a known word says",
    ),
)

PROJECT: Final = "x-origami-project"

_RESUMES: Final = UUID("b7b7a7d2-1f0e-5a63-9e0c-3a4d5f6e7081")


def prompt_of_answers(outputs: Sequence[ToolOutput]) -> str:
    """
    Return the prompt that answers a run: a guess, which `variant(answer_prompt=...)` replaces.

    *outputs* are in the order of the actions, one for each, and have these at hand with their questions.
    """
    answers = [_text_of(output.action, output) for output in outputs]
    if len(answers) == 1:
        return answers[0]
    return "\n".join(
        f"{number}) {output.action.arguments.get('question', '')} -> {_stopped(answer)}"
        for number, (output, answer) in enumerate(zip(outputs, answers, strict=True), start=1)
    )


def resume(
    run: Run[RunDetail],
    outputs: Sequence[ToolOutput],
    *,
    answer_prompt: AnswerPrompt = prompt_of_answers,
    keep_model: bool = True,
    words: Mapping[str, RunStatus] = STATUS,
) -> Flow[Run[RunDetail]]:
    """
    Answer a run by the next run of its agent, whose prompt is the answer.

    The key derives from the run that is answered, so two processes that give the same answer start one run between
    them. The model that ran is asked for again, unless *keep_model* is False: a follow-up without one runs on the
    default of the plan.
    """
    return (yield from _answer(_intent(run, outputs, answer_prompt, keep_model, words)))


def resume_again(
    run: Run[RunDetail],
    outputs: Sequence[ToolOutput],
    *,
    answer_prompt: AnswerPrompt = prompt_of_answers,
    keep_model: bool = True,
    words: Mapping[str, RunStatus] = STATUS,
) -> Flow[Run[RunDetail]]:
    """
    Answer a run once more, if the run that came of its answer has failed; else return what came of it.

    The key derives from the last run that failed, so two processes that try again start one run between them.
    """
    later = yield from turns_after(run)
    if not later:
        return (yield from resume(run, outputs, answer_prompt=answer_prompt, keep_model=keep_model, words=words))
    last = yield from fetch(later[-1].ref, {}, words=words)
    if last.status is not RunStatus.FAILED:
        return last
    return (yield from _answer(_intent(run, outputs, answer_prompt, keep_model, words, after=last.id)))


def variant(
    *,
    answer_prompt: AnswerPrompt | None = None,
    keep_model: bool = True,
    project: str | None = None,
    status: Mapping[str, RunStatus | str] | None = None,
) -> Dialect[Prompt, RunDetail]:
    """
    Return this dialect with another reading of what no page says, for `connect(origami.variant(...))`.

    *answer_prompt* gives the text that answers a run. Without *keep_model*, answers run on the default of the plan.
    *project* is the child organization that every request is for (`x-origami-project`, authentication page). *status*
    maps words of the vendor to ours, besides those that are known.
    """
    check.boolean("keep_model", keep_model)
    switches: dict[str, Any] = {
        "answer_prompt": guesses.function("answer_prompt", answer_prompt, prompt_of_answers),
        "keep_model": keep_model,
    }
    words = {**STATUS, **guesses.statuses("status", status)}
    reading: Sequence[Callable[..., Any]] = (
        start,
        recover,
        fetch,
        page,
        parse_run,
        answered_by,
        cancel,
        draft_campaign,
        edit_campaign,
    )
    replaced: dict[str, Any] = {
        **{each.__name__: partial(each, words=words) for each in reading},
        "STATUS": words,
        "resume": partial(resume, **switches, words=words),
        "resume_again": partial(resume_again, **switches, words=words),
    }
    if project is not None:
        replaced |= {"DEFAULT_HEADERS": {PROJECT: check.non_empty_str("project", project)}, "DEFAULT_PARAMS": {}}
    given = {"answer_prompt": answer_prompt, "keep_model": keep_model, "project": project, "status": status}
    return cast("Dialect[Prompt, RunDetail]", Variant(__name__.rpartition(".")[0], replaced, given))


def _answer(intent: Intent) -> Flow[Run[RunDetail]]:
    try:
        return (yield from admit(intent))
    except InvalidRequestError as error:
        switch = "`origami.variant(answer_prompt=..., keep_model=...)`"
        guesses.refused(error, "the words of an answer, or whether it names a model", intent.body, switch)
        raise


def _intent(
    run: Run[RunDetail],
    outputs: Sequence[ToolOutput],
    make: AnswerPrompt,
    keep_model: bool,
    words: Mapping[str, RunStatus],
    after: str = "",
) -> Intent:
    prompt: Any = make(_in_order(run, outputs))
    if not isinstance(prompt, str) or not prompt.strip():
        raise ConfigurationError(f"answer_prompt gave {prompt!r}; it must give a text")
    if len(prompt) > LONGEST_PROMPT:
        raise ConfigurationError(
            f"the answers to run {run.id} make a prompt of {len(prompt)} characters; it may have {LONGEST_PROMPT}"
        )
    agent_path(run.ref.parent)
    body = wire.drop_none({"prompt": prompt, "model": wire.first_text(run.raw, "model") if keep_model else None})
    key = uuid5(_RESUMES, f"{run.id} {after}" if after else run.id)
    return Intent(body, str(key), run.ref.parent, answers=after or run.id, words=words)


def _in_order(run: Run[RunDetail], outputs: Sequence[ToolOutput]) -> Sequence[ToolOutput]:
    """Return one output for each action, in the order of the actions: the prompt is the same whatever theirs was."""
    given = {output.action.id: output for output in outputs}
    missing = [action.id for action in run.actions if action.id not in given]
    if not run.actions or missing or len(given) < len(outputs):
        raise ConfigurationError(
            f"run {run.id} needs exactly one answer to each of its actions ({', '.join(missing) or 'all are there'}); "
            "a run that came from a list shows none: read it by `client.fetch(run)` first"
        )
    return [evolve(given[action.id], action=action) for action in run.actions]


def _text_of(action: Action, output: ToolOutput) -> str:
    value = output.output
    if action.name == CONTINUE and (value is None or value is True or value == ""):
        return "Continue."
    if isinstance(value, bool) and action.arguments.get("type") == "confirm":
        return "Confirm" if value else "No"
    text = (value if isinstance(value, str) else codec.encode(value).decode()).strip()
    if value is None or not text:
        raise ConfigurationError(
            f"the answer to {action.arguments.get('question', action.name)!r} is empty; return a text, or raise "
            "ToolError to say why there is none"
        )
    return f"No answer: {text}" if output.is_error and action.name != CONTINUE else text


def _stopped(answer: str) -> str:
    return answer if answer.endswith((".", "!", "?")) else f"{answer}."
