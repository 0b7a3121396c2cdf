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
from agentruns.errors import AlreadyAnsweredError, ConfigurationError, ConflictError, InvalidRequestError

from .admission import Intent, admit, is_prompt, prompt_of
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


def resume_first(
    run: Run[RunDetail],
    outputs: Sequence[ToolOutput],
    *,
    answer_prompt: AnswerPrompt = prompt_of_answers,
    keep_model: bool = True,
    words: Mapping[str, RunStatus] = STATUS,
) -> Flow[Run[RunDetail]]:
    """
    Answer a run as `resume` does, and raise `AlreadyAnsweredError` where its agent was asked something else since.

    Whatever an agent is asked next answers a run (reference/send-run), and nothing refuses a second prompt: so the runs
    of the agent are looked at before.
    """
    return (yield from _answer_first(run, outputs, answer_prompt, keep_model, words, again=False))


def resume_again(
    run: Run[RunDetail],
    outputs: Sequence[ToolOutput],
    *,
    answer_prompt: AnswerPrompt = prompt_of_answers,
    keep_model: bool = True,
    words: Mapping[str, RunStatus] = STATUS,
) -> Flow[Run[RunDetail]]:
    """
    Answer a run once more, if the runs that came of its answers have failed; else do as `resume_first` does.

    The key derives from the last run that failed, so two processes that try again start one run between them.
    """
    return (yield from _answer_first(run, outputs, answer_prompt, keep_model, words, again=True))


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
        "resume_first": partial(resume_first, **switches, words=words),
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
    return Intent(body, str(uuid5(_RESUMES, run.id)), run.ref.parent, answers=run.id, words=words)


def _answer_first(
    run: Run[RunDetail],
    outputs: Sequence[ToolOutput],
    make: AnswerPrompt,
    keep_model: bool,
    words: Mapping[str, RunStatus],
    *,
    again: bool,
) -> Flow[Run[RunDetail]]:
    intent = _intent(run, outputs, make, keep_model, words)
    stands, asked = yield from _standing(run, words)
    if stands is not None:
        if not again or stands.status is not RunStatus.FAILED:
            return _if_same(run, stands, asked, intent)
        key = uuid5(_RESUMES, f"{run.id} {stands.id}")
        intent = evolve(intent, key=str(key), answers=stands.id)
    try:
        return (yield from _answer(intent))
    except ConflictError:  # the agent is busy, or another body came under the key: somebody may have been first
        stands, asked = yield from _standing(run, words)
        if stands is None or stands.id == intent.answers:
            raise
        return _if_same(run, stands, asked, intent)


def _standing(run: Run[RunDetail], words: Mapping[str, RunStatus]) -> Flow[tuple[Run[RunDetail] | None, str | None]]:
    """
    Return the run that came of an answer and its prompt: the first run that has not failed, else the last.

    None if there is none. A prompt that only the list shows may be cut.
    """
    later = yield from turns_after(run, words)
    if not later:
        return None, None
    stands = next((each for each in later if each.status is not RunStatus.FAILED), later[-1])
    found = yield from fetch(stands.ref, {}, words=words)
    return found, prompt_of(found) or wire.first_text(stands.raw, "prompt")


def _if_same(run: Run[RunDetail], stands: Run[RunDetail], asked: str | None, intent: Intent) -> Run[RunDetail]:
    """Return the run that came of an answer if that was this one, else raise `AlreadyAnsweredError`."""
    if asked is not None and is_prompt(asked, intent.body["prompt"], whole=prompt_of(stands) is not None):
        return stands
    told = "" if asked is not None else f"run {stands.id} came of an answer to run {run.id}, and does not say of which"
    if stands.status is RunStatus.FAILED:
        remedy = f"Run {stands.id}, which came of it, has failed: `client.resume(..., again=True)` answers once more"
    else:
        remedy = (
            f"`client.stream(error.run)` follows run {stands.id}, which came of it; `origami.Prompt(text, "
            "agent_id=...)` says more to its agent"
        )
    standing = () if asked is None else tuple(ToolOutput(action, asked) for action in run.actions)
    raise AlreadyAnsweredError(stands, standing, told, remedy=remedy)


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
