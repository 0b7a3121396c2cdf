"""A vendor that the console has never heard of is shown decently, and as its dialect says where that says something."""

import logging
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from agentruns import Action, Run, RunRef, RunStatus
from agentruns.dialects import known, show
from agentruns.dialects.vendor import Vendor
from tests.tiny_vendor import tiny

pytest.importorskip("jinja2")
pytest.importorskip("jsonschema")

from agentruns.cli.console import emulated
from agentruns.console.asks import ask
from agentruns.console.timeline import artifacts_of, groups, steps_of, title_of_action, trace_of
from tests.console.plain_browser import browsing

ACTION = Action("1", "release", {"amount": 12, "to": "Ana"})


def vendor(**names: Any) -> Vendor:
    """Return the tiny vendor with some names more."""
    return Vendor.of(SimpleNamespace(**vars(tiny()), **names))


def run(raw: Mapping[str, Any] | None = None, *actions: Action) -> Run:
    status = RunStatus.REQUIRES_ACTION if actions else RunStatus.COMPLETED
    return Run(RunRef("r1", "p1"), status, "asking", actions=actions, vendor="tiny", raw=raw or {})


@pytest.mark.asyncio
async def test_a_run_of_any_vendor_is_shown_answered_and_traced() -> None:
    async with emulated("tests.conformance.acme:", pace=0.05) as source, browsing(source) as browser:
        (job,) = source.jobs.offered
        work = (await browser.start(job.name)).path
        page = await browser.waits(work)
        assert "Shall I go on?" in page.text
        assert "<dt>parent</dt>" in page.text
        (form,) = page.answers
        assert {value for _, value in form.offered} == {"approve", "other", "refuse"}

        await browser.send(form.action, form.filled(how="approve", note="Do."))
        told = await browser.until(f"{work}/events", 'data-status="completed"')
        assert "ask was answered" in told

        trace = await browser.open(f"{work}/trace")
        assert trace.status == 200
        assert "<dt>state</dt>" in trace.text
        assert "<dt>answer</dt>" in trace.text


def test_what_any_vendor_asks_is_a_tool_call_with_its_arguments_as_a_form() -> None:
    tool = show.Tool("Pay.", {"type": "object", "properties": {"amount": {"type": "integer", "title": "Euros"}}})
    for asked in (ask(None, ACTION, "0/", tool), ask(vendor(), ACTION, "0/", tool)):
        assert [(fact.name, fact.value) for fact in asked.facts] == [("Euros", "12"), ("to", "Ana")]
        assert [option.value for option in asked.options] == ["approve", "change", "other", "refuse"]
        assert asked.read({"0/how": ["approve"], "0/note": [""]}) == show.Answer({"approved": True})


def test_a_dialect_says_what_is_asked_and_what_is_sent_for_it() -> None:
    def show_question(action: Action) -> show.Question:
        yes = show.Choice(value="yes", label="Pay", give=show.always("pay"))
        less = show.Input(name="less", label="Euros", schema={"type": "integer", "maximum": 12})
        other = show.Choice(value="less", label="Pay less", input=less, give=lambda euros: show.Answer({"pay": euros}))
        return show.Question(title=f"Pay {action.arguments['to']}?", choices=(yes, other), chosen="yes")

    made = vendor(show_question=show_question)
    asked = ask(made, ACTION, "0/")

    assert (asked.title, asked.chosen) == ("Pay Ana?", "yes")
    assert title_of_action(made, ACTION) == "Pay Ana?"
    assert asked.read({"0/how": ["yes"]}) == show.Answer("pay")
    assert asked.read({"0/how": ["less"], "0/less": ["7"]}) == show.Answer({"pay": 7})
    assert not isinstance(asked.read({"0/how": ["less"], "0/less": ["13"]}), show.Answer)


def bad_schema(action: Action) -> show.Question:
    broken = show.Input(name="x", label="X", schema={"type": "nonsense"})
    return show.Question(title="?", choices=(show.Choice(value="x", label="X", input=broken, give=show.Answer),))


@pytest.mark.parametrize(
    ("show_question", "said"),
    [
        (lambda action: action.arguments["nothing"], "tiny.show_question failed with KeyError"),
        (lambda action: "Pay?", "tiny.show_question returned a str, which is no Question"),
        (bad_schema, "what is asked for release is not shown as its dialect says"),
    ],
)
def test_a_mistake_in_what_a_dialect_asks_leaves_the_plain_form(
    show_question: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "agentruns"):
        asked = ask(vendor(show_question=show_question), ACTION, "0/")
    assert asked.title == "release"
    assert said in caplog.text


@pytest.mark.parametrize(("together", "from_here", "from_an_inbox"), [(None, 1, 2), (True, 1, 1), (False, 2, 2)])
def test_a_dialect_says_whether_one_form_answers_a_pause(
    together: bool | None, from_here: int, from_an_inbox: int
) -> None:
    made = vendor(ANSWERS_TOGETHER=together)
    paused = run(None, ACTION, Action("2", "release", {}))

    assert len(groups(made, paused, {"1": "vendor", "2": "vendor"})) == from_here
    assert len(groups(made, paused, {"1": "inbox", "2": "inbox"})) == from_an_inbox


STEPS = [
    {"label": "Look", "type": "search", "query": "clinics", "steps": [{"name": "Read", "text": "A page"}]},
    "no step",
    {"role": "agent", "content": [{"type": "text", "text": "Done."}]},
]


@pytest.mark.parametrize("raw", [{"steps": STEPS}, {"id": "r1", "response": {"steps": STEPS}}])
def test_the_trace_of_any_vendor_is_the_list_of_steps_in_its_json(raw: Mapping[str, Any]) -> None:
    look, read, said = trace_of(None, run(raw))

    assert (look.name, look.kind, look.level) == ("Look", "search", 0)
    assert look.facts == (show.Fact("query", "clinics"),)
    assert (read.name, read.text, read.level) == ("Read", "A page", 1)
    assert said.kind == "agent"
    assert "Done." in said.facts[0].value


def test_without_a_list_of_steps_the_trace_is_the_fields_of_the_run() -> None:
    assert trace_of(vendor(), run({"id": "r1", "state": "ok", "error": None})) == (
        show.Step("asking", (show.Fact("id", "r1"), show.Fact("state", "ok"))),
    )
    assert trace_of(vendor(), run()) == ()


def test_what_a_dialect_shows_stands_in_the_history_and_the_trace() -> None:
    step = show.Step("dial", text="+44")
    found = show.Artifact("A clinic", sources=(show.link("Register", "javascript:alert(1)"),))
    made = vendor(show_steps=lambda run: [step], show_artifacts=lambda run: [found])

    assert steps_of(made, run({"steps": STEPS})) == trace_of(made, run({"steps": STEPS})) == (step,)
    assert artifacts_of(made, run()) == (found,)
    assert found.sources[0].url == ""
    assert steps_of(vendor(), run({"steps": STEPS})) == ()
    assert artifacts_of(vendor(), run()) == ()


def late_mistake(run: Run) -> Iterator[show.Step]:
    yield show.Step("first")
    raise KeyError("second")


@pytest.mark.parametrize(
    "show_steps", [late_mistake, lambda run: run.raw["nothing"], lambda run: None, lambda run: ["no step"]]
)
def test_a_mistake_in_what_a_dialect_shows_hides_that_alone(show_steps: Any) -> None:
    assert steps_of(vendor(show_steps=show_steps), run()) == ()


@pytest.mark.parametrize("raw", [None, [], "text", 5, {"steps": 5}, {"steps": [None, {}]}, {"steps": {"a": 1}}])
def test_no_json_of_a_run_is_too_odd_to_be_shown(raw: Any) -> None:
    for name in ("narrative", "middesk", "origami", "conduit", "nobody"):
        for value in ({"response": raw, "output": raw, "tool_trace": raw}, raw if isinstance(raw, dict) else {}):
            steps_of(known(name), run(value))
            trace_of(known(name), run(value))
            artifacts_of(known(name), run(value))
