"""The kit itself: a dialect with a fault of each kind fails the scenario about it, and nothing passes in silence."""

import asyncio
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pytest
from attrs import evolve, field, frozen

from agentruns import AgentRunsError, Run, RunRef, RunStatus, ToolOutput
from agentruns.dialects import Action, Flow, Page, Problem, Request, Response, wire
from agentruns.dialects.vendor import Vendor
from agentruns.emulator import Turn
from agentruns.testing import SCENARIOS, Case, Conformance
from agentruns.testing.case import Live
from tests.conformance import acme
from tests.conformance.acme import AcmeCase, AcmeJob, Job

ACME = Vendor.of(sys.modules[acme.__name__])


def start_is_never_safe(origin: Job) -> Flow[Run[AcmeJob]]:
    """Send a start again whatever became of it, under a new key each time."""
    return (yield from acme.start(evolve(origin, key=str(uuid.uuid4()))))


def start_without_vendor(origin: Job) -> Flow[Run[AcmeJob]]:
    return evolve((yield from acme.start(origin)), vendor="")


def start_of_another_id(origin: Job) -> Flow[Run[AcmeJob]]:
    run = yield from acme.start(origin)
    return evolve(run, ref=RunRef(run.id, "another parent"))


def fetch_that_forgets_why(ref: RunRef, params: Mapping[str, str]) -> Flow[Run[AcmeJob]]:
    return evolve((yield from acme.fetch(ref, params)), failure=None)


def start_that_gives_up(origin: Job) -> Flow[Run[AcmeJob]]:
    body = {"text": origin.text, "key": origin.key}
    path = wire.path("projects", origin.project, "jobs")
    return acme._run((yield Request("POST", path, json=body, idempotent=True, again_after_429=False)))


def fetch_without_output(ref: RunRef, params: Mapping[str, str]) -> Flow[Run[AcmeJob]]:
    return evolve((yield from acme.fetch(ref, params)), output=None)


def fetch_in_other_words_each_time(ref: RunRef, params: Mapping[str, str]) -> Flow[Run[AcmeJob]]:
    return evolve((yield from acme.fetch(ref, params)), output=str(uuid.uuid4()))


def fetch_that_still_asks(ref: RunRef, params: Mapping[str, str]) -> Flow[Run[AcmeJob]]:
    run = yield from acme.fetch(ref, params)
    return evolve(run, actions=run.actions or (Action("1-0", "ask_0", {"question": "Still?"}),))


def fetch_that_knows_all_words(ref: RunRef, params: Mapping[str, str]) -> Flow[Run[AcmeJob]]:
    run = yield from acme.fetch(ref, params)
    return evolve(run, status=acme.STATUS[run.vendor_status])


def fetch_that_makes_up_the_raw(ref: RunRef, params: Mapping[str, str]) -> Flow[Run[AcmeJob]]:
    run = yield from acme.fetch(ref, params)
    return evolve(run, raw={name: run.raw[name] for name in ("id", "project", "state")})


def fetch_that_needs_no_id(ref: RunRef, params: Mapping[str, str]) -> Flow[Run[AcmeJob]]:
    response = yield Request("GET", wire.path("jobs", ref.id), params=params)
    raw = {"id": ref.id, **wire.read_object(response)}
    return Run(ref, acme.STATUS.get(raw["state"], RunStatus.RUNNING), raw["state"], vendor="acme", raw=raw)


def resume_of_the_first(run: Run[AcmeJob], outputs: Sequence[ToolOutput]) -> Flow[Run[AcmeJob]]:
    return (yield from acme.resume(run, outputs[:1]))


def resume_that_is_not_safe(run: Run[AcmeJob], outputs: Sequence[ToolOutput]) -> Flow[Run[AcmeJob]]:
    answers = {output.action.id: output.output for output in outputs}
    response = yield Request("POST", wire.path("jobs", run.id, "answers"), json=answers)
    return acme._run(response)


def cancel_of_nothing(ref: RunRef) -> Flow[Run[AcmeJob] | None]:
    return (yield from acme.fetch(ref, {}))


def page_that_stops(parent: str, cursor: str | None) -> Flow[Page[AcmeJob]]:
    return evolve((yield from acme.page(parent, cursor)), cursor=None)


def page_of_all_or_none(parent: str, cursor: str | None) -> Flow[Page[AcmeJob]]:
    response = yield Request("GET", wire.path("projects", parent, "jobs"), params={"after": cursor} if cursor else {})
    listed = wire.read_object(response)
    return Page(
        tuple(acme._of(job, response) for job in cast("list[Any]", listed["jobs"])), cast("Any", listed["after"])
    )


def page_in_other_words(parent: str, cursor: str | None) -> Flow[Page[AcmeJob]]:
    page = yield from acme.page(parent, cursor)
    return evolve(page, runs=tuple(evolve(run, vendor_status=run.vendor_status.upper()) for run in page.runs))


def fetch_many_in_other_words(refs: Sequence[RunRef]) -> Flow[Sequence[Run[AcmeJob] | RunRef]]:
    runs = cast("Sequence[Run[AcmeJob]]", (yield from acme.fetch_many(refs)))
    return [evolve(run, vendor_status=run.vendor_status.upper()) for run in runs]


def fetch_many_that_takes_all_for_running(refs: Sequence[RunRef]) -> Flow[Sequence[Run[AcmeJob] | RunRef]]:
    yield from acme.fetch_many(refs)
    return refs


def problem_of_nothing(response: Response) -> Problem:
    return Problem("")


def problem_of_one_shape(response: Response) -> Problem:
    return Problem(cast("Any", response.value)["why"])


def detail_of_another_class(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    return dict(raw)


def parse_without_usage(response: Response) -> Run[AcmeJob]:
    return evolve(acme._run(response), poll_after=9.0)


@frozen
class TracedJob(Job):
    trace: str = field(factory=lambda: str(uuid.uuid4()), kw_only=True)


def example_with_an_id() -> TracedJob:
    return TracedJob("p1", "Sort the post.")


def example_of_the_moment() -> Job:
    return Job("p1", str(uuid.uuid4()))


BROKEN: Mapping[str, tuple[dict[str, Callable[..., Any]], str]] = {
    "a start under a new key each time": (
        {"start": start_is_never_safe},
        "the same intent started twice is one run",
    ),
    "a new key after a crash": ({"start": start_is_never_safe}, "a start cut off under a key is gone on with"),
    "no patience for a 429": ({"start": start_that_gives_up}, "a 429 is waited out, in seconds"),
    "no output": ({"fetch": fetch_without_output}, "a run is followed to its end"),
    "an output that changes": ({"fetch": fetch_in_other_words_each_time}, "an answer is read the same each time"),
    "a run that is over and asks": (
        {"fetch": fetch_that_still_asks},
        "a run that was answered elsewhere is seen to go on",
    ),
    "a wait whose cancel does nothing": ({"cancel": cancel_of_nothing}, "cancelling the wait cancels the run"),
    "runs without the vendor's name": ({"start": start_without_vendor}, "a run is started"),
    "a start that names another run": ({"start": start_of_another_id}, "a run is started"),
    "no reason of a failure": ({"fetch": fetch_that_forgets_why}, "a failed run is a failed run"),
    "an unknown word is a mistake": (
        {"fetch": fetch_that_knows_all_words},
        "an unknown status word does not crash or hang",
    ),
    "unknown fields are lost": ({"fetch": fetch_that_makes_up_the_raw}, "an unknown field survives"),
    "an answer without an id": ({"fetch": fetch_that_needs_no_id}, "a missing field names its path"),
    "one answer of two": ({"resume": resume_of_the_first}, "several pending actions are answered together"),
    "an answer that is lost": ({"resume": resume_that_is_not_safe}, "a lost answer to a resume answers once"),
    "a cancel that cancels nothing": ({"cancel": cancel_of_nothing}, "a run is cancelled"),
    "the first page alone": ({"page": page_that_stops}, "all pages of a list are read"),
    "all rows or none": ({"page": page_of_all_or_none}, "an odd row of a list hides no other"),
    "a list in other words": ({"page": page_in_other_words}, "a list says what a read says"),
    "many runs in other words": (
        {"fetch_many": fetch_many_in_other_words},
        "many runs read at once are as read one by one",
    ),
    "an end that is taken for news of a run": (
        {"fetch_many": fetch_many_that_takes_all_for_running},
        "many runs read at once are as read one by one",
    ),
    "errors without a message": ({"problem": problem_of_nothing}, "each class of HTTP error has its exception"),
    "errors of one shape": ({"problem": problem_of_one_shape}, "an error body that nobody knows is told as it came"),
    "a detail of another class": ({"detail": detail_of_another_class}, "a run that was written down has its detail"),
    "an id that does not say that it is new": ({"example": example_with_an_id}, "what is asked for twice is the same"),
    "an example that is never the same": ({"example": example_of_the_moment}, "what is asked for twice is the same"),
    "a poll that says more": ({"parse_run": parse_without_usage}, "a poll reads what a fetch reads"),
}


class BrokenCase(AcmeCase):
    def __init__(self, faults: dict[str, Any]) -> None:
        self.faults = faults

    @property
    def vendor(self) -> Vendor:
        return evolve(ACME, **self.faults)


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_dialect_fails_the_scenario_that_is_about_it(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    faults, name = BROKEN[fault]
    monkeypatch.setattr("agentruns.testing.acts.SECONDS", 1.0)
    case = BrokenCase(faults)

    assert SCENARIOS[name].reason(case) == ""
    with pytest.raises((AssertionError, AgentRunsError)):
        asyncio.run(SCENARIOS[name].play(case))


def start_without_key(origin: Job) -> Flow[Run[AcmeJob]]:
    path = wire.path("projects", origin.project, "jobs")
    yield from wire.checkpoint({"path": path})
    return acme._run((yield Request("POST", path, json={"text": origin.text, "key": str(uuid.uuid4())})))


@pytest.mark.parametrize("name", [name for name, each in SCENARIOS.items() if "start_path" in each.needs])
def test_a_vendor_whose_starts_can_be_neither_repeated_nor_found_is_held_to_say_so(name: str) -> None:
    case = BrokenCase({"start": start_without_key, "recover": wire.never_found})

    asyncio.run(SCENARIOS[name].play(case))
    assert "no idempotency key" in SCENARIOS["the same intent started twice is one run"].reason(case)


class Nameless(Case):
    dialect = sys.modules[acme.__name__]


def test_what_a_vendor_or_its_case_lacks_is_not_played_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = {scenario.reason(Nameless()) for scenario in SCENARIOS.values()}

    assert {"", "the dialect has no `events`", "the dialect has no `parse_run`"} <= reasons
    assert {"the case names no `start_path`", "the case names no `list_path`"} <= reasons


def test_the_emulator_is_the_one_that_the_dialect_names_however_the_case_names_the_dialect() -> None:
    class NamedCase(Case):
        dialect = str(acme.__file__)

    assert type(NamedCase().emulator().state).__name__ == "Acme"


def test_on_a_real_server_only_what_plans_nothing_is_played() -> None:
    class RealCase(Nameless):
        base_url = "https://api.acme.test"

    class DirectedCase(RealCase):
        directs = True

    def played(case: Case, *live: str) -> list[str]:
        return [name for name, scenario in SCENARIOS.items() if scenario.live in live and not scenario.reason(case)]

    every = ("yes", "directed", "no")
    assert played(RealCase(), *every) == played(Nameless(), "yes")
    assert played(DirectedCase(), *every) == played(Nameless(), "yes", "directed")
    assert 4 <= len(played(RealCase(), *every)) < len(played(DirectedCase(), *every))


@pytest.mark.asyncio
async def test_a_real_server_is_told_what_its_next_run_is_to_do() -> None:
    class RealCase(Nameless):
        base_url = "https://api.acme.test"
        token = "a-token"

    async with RealCase().serve(Turn("Done.")) as server:
        assert isinstance(server, Live)
        assert server.script == (Turn("Done."),)
        assert "a-token" not in repr(server)


def test_a_reason_is_given_only_for_a_scenario_that_exists() -> None:
    with pytest.raises(TypeError, match="'a run flies', which is no scenario"):
        type("TestWrong", (Nameless, Conformance), {"not_applicable": {"a run flies": "it walks"}})

    class TestRight(Nameless, Conformance):
        not_applicable = {"a run is started": "never"}  # noqa: RUF012

    assert SCENARIOS["a run is started"].reason(TestRight()) == "never"


def test_the_scenarios_against_a_real_server_need_no_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    async def played() -> None:
        async with AcmeCase().emulator(*[Turn("Done.", running=0.1)] * 3) as emulator:

            class RealCase(AcmeCase):
                base_url = emulator.base_url

            monkeypatch.setenv("ACME_TOKEN", emulator.token)
            for scenario in SCENARIOS.values():
                if not scenario.reason(RealCase()):
                    await scenario.play(RealCase())
            assert emulator.state.runs_started == 4

    asyncio.run(played())
