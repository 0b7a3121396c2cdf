"""The search for the run of a start that named none: one request, at most one run, and no other error."""

from collections.abc import Generator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import pytest
from attrs import evolve, field, frozen
from hypothesis import given
from hypothesis import strategies as st

from agentruns import AgentRunsError, InvalidRequestError, OutcomeUnknownError, ProtocolError, Run, RunRef, RunStatus
from agentruns._values.commands import Checkpoint, ClaimRun, Command, Flow, Lock, Ownership, Sleep
from agentruns._values.exchange import Request, Response
from agentruns._values.run import Page
from agentruns.dialects import wire
from agentruns.dialects.search import Before, Search, find_lost, find_started, look_before, start_once
from agentruns.testing import Answer, exchange

T = TypeVar("T")

NOON: Final = datetime(2026, 5, 11, 12, 0, tzinfo=UTC)
START: Final = Request("POST", "/start")


def run(id: str, after: float = 0.0, *, ours: bool = True) -> Run:  # noqa: A002
    """Return a run that was made *after* seconds past noon."""
    made = (NOON + timedelta(seconds=after)).isoformat()
    return Run(RunRef(id, "agent"), RunStatus.RUNNING, "running", raw={"made": made, "ours": ours})


def made(run: Run) -> datetime:
    return datetime.fromisoformat(run.raw["made"])


def page(cursor: str | None) -> Flow[Page]:
    answer = yield Request("GET", "/list", params={"cursor": cursor or ""})
    assert isinstance(answer, Listed)
    return answer.page


@frozen
class Listed(Response):
    """A response that is a page already: reading rows is no matter of a search."""

    page: Page = field(kw_only=True)


SEARCH: Final = Search(
    page=page,
    created_at=made,
    fits=lambda run: bool(run.raw["ours"]),
    looks=(1.0, 2.0),
    what="trigger t",
    where="the list",
    group="starts of t",
    marks={"trigger": "t"},
)


class Vendor:
    """What answers a flow: the pages of each look, and whose each claimed run is."""

    def __init__(
        self,
        looks: Sequence[Sequence[Sequence[Run]] | Exception],
        *,
        owners: Mapping[str, Ownership] | None = None,
        checkpoints: Sequence[Ownership] = (),
    ) -> None:
        self.looks = list(looks)
        self.owners = owners or {}
        self.checkpoints = list(checkpoints)
        self.asked: list[Command] = []
        self._pages: list[Sequence[Run]] = []

    def drive(self, flow: Flow[T]) -> T:
        assert isinstance(flow, Generator)
        try:
            wanted = next(flow)
            while True:
                self.asked.append(wanted)
                answer = self._answer(wanted)
                wanted = flow.throw(answer) if isinstance(answer, Exception) else flow.send(answer)
        except StopIteration as end:
            found: T = end.value
            return found

    def _answer(self, wanted: Command) -> Response | Exception:
        verdict = Ownership.MINE
        match wanted:
            case Request(params={"cursor": ""}):
                look = self.looks.pop(0)
                if isinstance(look, Exception):
                    return look
                self._pages = list(look)
                return self._next()
            case Request():
                return self._next()
            case Checkpoint() if self.checkpoints:
                verdict = self.checkpoints.pop(0)
            case ClaimRun(run_id):
                verdict = self.owners.get(run_id, Ownership.MINE)
        return Response(verdict, {}, b"", START)

    def _next(self) -> Listed:
        runs = self._pages.pop(0)
        return Listed(200, {}, b"", START, page=Page(tuple(runs), "more" if self._pages else None))

    def of(self, kind: type[T]) -> list[T]:
        return [each for each in self.asked if isinstance(each, kind)]


def found(vendor: Vendor, before: Before, search: Search[Any] = SEARCH, cause: AgentRunsError | None = None) -> Run:
    return vendor.drive(find_started(search, before, START, "it was lost", cause))


# Before the request ---------------------------------------------------------------------------------------------------


def test_before_a_start_the_lock_is_taken_the_list_read_and_a_checkpoint_kept() -> None:
    vendor = Vendor([[[run("b", 5), run("a")]]])
    before = vendor.drive(look_before(SEARCH))

    assert before == Before(frozenset({"a", "b"}), NOON + timedelta(seconds=5))
    assert [type(each) for each in vendor.asked] == [Lock, Request, Checkpoint]
    assert vendor.of(Lock) == [Lock("starts of t")]
    (kept,) = vendor.of(Checkpoint)
    assert (kept.group, kept.visible_after) == ("starts of t", 3.0)
    assert kept.data == {"trigger": "t", "known": ["a", "b"], "since": "2026-05-11T12:00:05+00:00"}
    assert Before.of_note(kept.data) == before


def test_a_list_without_runs_knows_of_none_and_its_note_comes_back() -> None:
    before = Vendor([[[]]]).drive(look_before(SEARCH))

    assert before == Before()
    assert Before.of_note(before.note(SEARCH)) == before


def test_what_was_there_is_read_again_after_another_start_was_waited_for() -> None:
    vendor = Vendor([[[run("a")]], [[run("b", 9), run("a")]]], checkpoints=[Ownership.OTHERS, Ownership.MINE])

    assert vendor.drive(look_before(SEARCH)).known == {"a", "b"}
    assert len(vendor.of(Lock)) == 1


def test_a_page_of_which_no_row_can_be_read_is_followed_by_the_next() -> None:
    """Else nothing would be known, and an old run on a later page would be taken for the new one."""
    vendor = Vendor([[[], [run("old")]]])

    assert vendor.drive(look_before(SEARCH)).known == {"old"}


@pytest.mark.parametrize(
    ("seconds", "pages", "tells"),
    [([2, 1], 2, True), ([1, 2], 2, False), ([1, 3, 2], 2, False), ([1, 2], 1, True), ([1, 1], 2, False)],
)
def test_an_order_that_is_a_guess_is_looked_at(seconds: list[int], pages: int, tells: bool) -> None:
    guessed = evolve(SEARCH, order_is_a_guess=True)
    first = [run(f"r{second}-{n}", second) for n, second in enumerate(seconds)]
    before = Vendor([[first, [run("x")]][:pages]]).drive(look_before(guessed))

    assert before.lacks("new", NOON + timedelta(days=365)) is tells
    assert Vendor([[first, [run("x")]][:pages]]).drive(look_before(SEARCH)).lacks("new", NOON + timedelta(days=365))


# Looking --------------------------------------------------------------------------------------------------------------

BEFORE: Final = Before(frozenset({"old"}), NOON)


def test_the_one_new_run_is_claimed_and_returned() -> None:
    vendor = Vendor([[[run("old")]], [[run("new", 1), run("other", 1, ours=False), run("old")]]])

    assert found(vendor, BEFORE).id == "new"
    assert [each.seconds for each in vendor.of(Sleep)] == [1.0, 2.0]
    assert vendor.of(ClaimRun) == [ClaimRun("new")]


def test_a_run_of_the_very_moment_of_the_newest_may_be_ours_and_an_earlier_one_not() -> None:
    assert found(Vendor([[[run("twin"), run("old")]]]), BEFORE).id == "twin"
    with pytest.raises(OutcomeUnknownError):
        found(Vendor([[[run("late", -1), run("old", -1)]]] * 2), BEFORE)


def test_a_run_that_another_start_claims_is_passed_over() -> None:
    looks = [[[run("theirs", 1), run("old")]], [[run("ours", 2), run("theirs", 1), run("old")]]]

    assert found(Vendor(looks, owners={"theirs": Ownership.OTHERS}), BEFORE).id == "ours"


def test_a_run_of_another_start_on_an_earlier_page_does_not_end_the_look() -> None:
    looks = [[[run("theirs", 9)]], [[run("theirs", 9)], [run("ours", 1), run("old")]]]

    assert found(Vendor(looks, owners={"theirs": Ownership.OTHERS}), BEFORE).id == "ours"


def test_a_run_that_may_be_that_of_a_dead_start_is_nobodys() -> None:
    vendor = Vendor([[[run("new", 1)]]], owners={"new": Ownership.UNCLEAR})
    with pytest.raises(
        OutcomeUnknownError, match=r"it was lost; run new of trigger t is new, and may be that of another"
    ):
        found(vendor, BEFORE)


def test_several_new_runs_are_ambiguous_and_named_with_the_way_to_follow_one() -> None:
    with pytest.raises(OutcomeUnknownError, match=r"2 new runs of trigger t .* ambiguous: a, b\.") as caught:
        found(Vendor([[[run("a", 1), run("b", 2)]]]), BEFORE)

    assert "Each can be followed, by its id and its parent 'agent'" in str(caught.value)
    assert caught.value.request is START


def test_a_run_that_the_answer_names_is_ours_whatever_else_is_new() -> None:
    naming = evolve(SEARCH, is_named=lambda run: run.id == "named")

    assert found(Vendor([[[run("a", 1), run("named", 2, ours=False)]]]), BEFORE, naming).id == "named"
    assert found(Vendor([[[run("a", 1)]]]), BEFORE, naming).id == "a"


def test_a_look_reads_back_to_what_was_there_and_no_further() -> None:
    vendor = Vendor([[[run("x", 2, ours=False)], [run("new", 1), run("old")], [run("older", -5)]]])
    assert found(vendor, BEFORE).id == "new"
    assert len(vendor.of(Request)) == 2

    vendor = Vendor([[[run("new", 1), run("gone", -1)], [run("older", -5)]]])
    assert found(vendor, BEFORE).id == "new"
    assert len(vendor.of(Request)) == 1


def test_a_list_without_an_end_is_not_read_for_ever() -> None:
    vendor = Vendor([[[run("new", 1)]] * 50])

    assert found(vendor, Before()).id == "new"
    assert len(vendor.of(Request)) == 10


def test_none_found_is_unknown_says_how_long_it_was_looked_and_names_its_cause() -> None:
    lost = OutcomeUnknownError(START, "reset")
    said = r"it was lost; no new run of trigger t was observed in the list for 3 s"
    with pytest.raises(OutcomeUnknownError, match=said) as caught:
        found(Vendor([[[run("old")]]] * 2), BEFORE, cause=lost)

    assert caught.value.__cause__ is lost


def test_where_none_is_found_the_switch_of_the_guess_is_named() -> None:
    switched = evolve(SEARCH, switch="`vendor.variant(fits=...)`")
    with pytest.raises(
        OutcomeUnknownError, match=r"3 s\. No page says .*: `vendor\.variant\(fits=\.\.\.\)` changes that"
    ):
        found(Vendor([[[run("old")]]] * 2), BEFORE, switched)


def test_a_list_that_cannot_tell_says_so() -> None:
    unordered = Before(frozenset(), datetime.max.replace(tzinfo=UTC))
    with pytest.raises(OutcomeUnknownError, match="whose order does not tell what is certainly new"):
        found(Vendor([[[run("new", 1)]]] * 2), unordered)


def test_a_look_that_fails_is_one_that_saw_nothing() -> None:
    assert found(Vendor([ProtocolError("no list"), [[run("new", 1)]]]), BEFORE).id == "new"

    trouble = ProtocolError("no list")
    with pytest.raises(OutcomeUnknownError, match=r"3 s \(the last look failed: no list\)") as caught:
        found(Vendor([trouble, trouble]), BEFORE)
    assert caught.value.__cause__ is trouble


def test_a_client_that_can_no_longer_send_ends_the_looking() -> None:
    with pytest.raises(OutcomeUnknownError, match=r"for 1 s \(the last look failed: this client is closed\)"):
        found(Vendor([AgentRunsError("this client is closed")]), BEFORE)


@given(
    old=st.sets(st.integers(-50, 0), max_size=8),
    others=st.sets(st.integers(-50, 50), max_size=8),
    ours=st.sets(st.integers(1, 50), max_size=3),
    size=st.integers(2, 5),
)
def test_exactly_one_new_run_is_found_whatever_stands_around_it(
    old: set[int], others: set[int], ours: set[int], size: int
) -> None:
    """Of others' runs there may be any number, old and new, on any page; ours count from one second after noon."""
    there = [run(f"old{n}", n) for n in old]
    before = Before(frozenset(each.id for each in there), max(map(made, there), default=None))
    runs = there + [run(f"other{n}", n, ours=False) for n in others] + [run(f"ours{n}", n) for n in ours]
    runs.sort(key=made, reverse=True)
    pages = [runs[at : at + size] for at in range(0, len(runs), size)] or [[]]
    vendor = Vendor([pages, pages])
    if len(ours) == 1:
        assert found(vendor, before).id == f"ours{ours.pop()}"
    else:
        with pytest.raises(OutcomeUnknownError):
            found(vendor, before)


# The whole recipe -----------------------------------------------------------------------------------------------------

POST = Request("POST", "/things")


def read(response: Response) -> Run:
    return run(wire.structure(response.value, dict[str, str], response)["id"])


def listing(*runs: Run) -> Search[Any]:
    """Return a search whose list has these runs, from the second look on."""
    looks = iter([Page(()), *[Page(runs)] * 9])

    def page(cursor: str | None) -> Flow[Page]:
        yield from ()
        return next(looks)

    return evolve(SEARCH, page=page)


def test_a_start_whose_answer_can_be_read_is_looked_for_no_further() -> None:
    done = exchange(start_once(listing(), POST, read), Answer({"id": "r1"}))

    assert done.result.id == "r1"
    assert done.requests == (POST,)
    assert [type(each) for each in done.commands] == [Lock, Checkpoint, Request]


@pytest.mark.parametrize("answer", [Answer({}, 502), Answer([]), Answer(b"<html>")])
def test_a_start_whose_answer_is_lost_or_unreadable_is_looked_for_and_not_sent_again(answer: Answer) -> None:
    done = exchange(start_once(listing(run("r1", 1.0)), POST, read), answer)

    assert done.result.id == "r1"
    assert done.requests == (POST,)


def test_a_start_that_is_refused_is_not_looked_for() -> None:
    with pytest.raises(InvalidRequestError):
        exchange(start_once(listing(run("r1", 1.0)), POST, read), Answer({}, 422))


def test_what_a_dead_start_began_is_found_by_its_note_and_nothing_is_sent() -> None:
    note = Before(frozenset({"r0"})).note(SEARCH)
    search = evolve(listing(run("r1", 1.0)), page=lambda cursor: _only(run("r0"), run("r1", 1.0)))

    done = exchange(find_lost(search, note, POST))

    assert done.result.id == "r1"
    assert done.requests == ()
    with pytest.raises(OutcomeUnknownError, match="ended before it noted an answer"):
        exchange(find_lost(evolve(search, page=lambda cursor: _only(run("r0"))), note, POST))


def _only(*runs: Run) -> Flow[Page]:
    yield from ()
    return Page(runs)
