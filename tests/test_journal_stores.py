"""What every store of a journal holds to: SQLite and PostgreSQL, the same tests and the same laws over both."""

import asyncio
import json
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from functools import partial
from itertools import pairwise
from typing import cast

import pytest
import pytest_asyncio
from attrs import define, evolve, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agentruns._keeping.journal import Handling, Journal, Work, schema
from agentruns._keeping.journal.handlings import Handlings
from agentruns._keeping.journal.moves import AnswerState
from agentruns._keeping.journal.problems import UnfitError
from agentruns._keeping.journal.records import Records
from agentruns._keeping.journal.starts import Starts
from agentruns._keeping.journal.tables import SQLITE, Spelling, Tables
from agentruns._keeping.journal.tending import Tended
from agentruns._keeping.journal.values import GivenAnswer
from agentruns.errors import JournalError

from .postgres_server import Server

ORIGIN = '{"text":"find a slot"}'
RUN = '{"status":"running"}'
OVER = '{"status":"completed"}'


@pytest_asyncio.fixture
async def journal(address: str) -> AsyncIterator[Journal]:
    async with Journal(address, "narrative") as opened:
        yield opened


@pytest_asyncio.fixture
async def other(address: str) -> AsyncIterator[Journal]:
    """Return another owner of the same journal."""
    async with Journal(address, "narrative") as opened:
        yield opened


# Work -----------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_begun_work_is_ours_and_starting(journal: Journal) -> None:
    before = time.time()
    work = await journal.begin("invoice-17", ORIGIN)

    assert (work.key, work.vendor, work.origin, work.state) == ("invoice-17", "narrative", ORIGIN, "starting")
    assert (work.start_note, work.run, work.alive, work.mine) == (None, None, True, True)
    assert (work.fresh, work.taken) == (True, False)
    assert before <= work.created == work.updated <= time.time()
    assert await journal.get("invoice-17") == evolve(work, fresh=False)


@pytest.mark.asyncio
async def test_work_is_begun_once(journal: Journal, other: Journal) -> None:
    first = await journal.begin("k", ORIGIN)
    again, elsewhere = await journal.begin("k", "{}"), await other.begin("k", "{}")

    assert again == evolve(first, fresh=False)
    assert elsewhere == evolve(first, fresh=False, mine=False)
    assert elsewhere.alive


@pytest.mark.asyncio
async def test_work_on_a_run_that_exists_is_open_at_once(journal: Journal, other: Journal) -> None:
    work = await journal.attach("k", ORIGIN, RUN)

    assert (work.state, work.run, work.fresh) == ("open", RUN, True)
    assert await other.attach("k", "{}", "{}") == evolve(work, fresh=False, mine=False)


@pytest.mark.asyncio
async def test_a_note_is_kept_and_the_start_goes_on(journal: Journal) -> None:
    await journal.begin("k", ORIGIN)
    await journal.checkpoint("k", '{"agent":1}')
    await journal.checkpoint("k", '{"agent":2}')

    work = await journal.get("k")
    assert work is not None
    assert (work.state, work.start_note) == ("starting", '{"agent":2}')


@pytest.mark.asyncio
@pytest.mark.parametrize("done", [False, True], ids=["running", "over"])
async def test_the_note_of_a_start_goes_once_its_run_is_kept(journal: Journal, done: bool) -> None:
    await journal.begin("k", ORIGIN)
    await journal.checkpoint("k", '{"known":["run-0"]}', "trigger 1", visible_after=60.0)
    await journal.saw("k", a_run("run-1"), done=done)

    work = await journal.get("k")
    assert work is not None
    assert (work.start_note, work.group_name, work.run) == (None, "trigger 1", a_run("run-1"))


def a_run(run_id: str) -> str:
    return json.dumps({"status": "running", "ref": {"id": run_id, "parent": ""}})


@pytest.mark.asyncio
async def test_work_is_found_by_any_id_that_a_vendor_may_give_its_run(journal: Journal, other: Journal) -> None:
    # Two are known not to be found: NUL, which ends a text in SQLite, and DLE, by which PostgreSQL's stands for it.
    names = [f"run{each}1" for each in map(chr, range(256)) if each not in "\x00\x10"]
    names += ["e\u0301 \u2028\u202e\ufffd\U0001f9fe", "%s?{}\\n", "x" * 900]
    for number, name in enumerate(names):
        await journal.attach(str(number), ORIGIN, a_run(name))

    found = [await other.of_run(name) for name in names]
    assert [work and work.key for work in found] == [str(number) for number in range(len(names))]
    assert sorted(await other.runs_since(0.0)) == sorted(names)


@pytest.mark.asyncio
async def test_of_two_starts_that_could_not_be_told_apart_one_waits_for_the_other(
    journal: Journal, other: Journal
) -> None:
    for each in (journal, other):
        await each.begin("a" if each is journal else "b", ORIGIN)
    assert await journal.reserve("a", "trigger 1")

    assert not await other.reserve("b", "trigger 1")
    assert await other.reserve("b", "trigger 2")
    await other.checkpoint("b", '{"agent":2}', "trigger 2")
    assert not await other.reserve("b", "trigger 1")
    kept = await journal.get("b")
    assert kept is not None
    assert (kept.start_note, kept.group_name) == ('{"agent":2}', "trigger 2")
    await journal.saw("a", a_run("run-1"))
    assert await other.reserve("b", "trigger 1")


@pytest.mark.asyncio
async def test_a_start_that_died_or_has_found_its_run_keeps_no_other_waiting(journal: Journal, address: str) -> None:
    async with Journal(address, "narrative") as dies:
        await dies.begin("a", ORIGIN)
        assert await dies.reserve("a", "trigger")
        await dies.checkpoint("a", "{}", "trigger")
    for key in "bc":
        await journal.begin(key, ORIGIN)
        assert await journal.reserve(key, "trigger")
        await journal.checkpoint(key, "{}", "trigger")
        assert await journal.claim(key, f"run-{key}") == "mine"


@pytest.mark.asyncio
async def test_a_start_that_died_keeps_others_waiting_while_its_run_may_yet_be_shown(
    journal: Journal, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Journal(address, "narrative") as dies:
        await dies.begin("a", ORIGIN)
        assert await dies.reserve("a", "trigger")
        await dies.checkpoint("a", "{}", "trigger", 60.0)
    await journal.begin("b", ORIGIN)

    assert not await journal.reserve("b", "trigger")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert await journal.reserve("b", "trigger")


@pytest.mark.asyncio
async def test_a_run_that_was_found_is_that_of_one_start(journal: Journal, other: Journal) -> None:
    for each, key in ((journal, "a"), (other, "b"), (other, "c")):
        await each.begin(key, ORIGIN)
        await each.checkpoint(key, "{}")
    await other.saw("c", a_run("run-2"), done=True)

    assert await journal.claim("a", "run-1") == "mine"
    assert await journal.claim("a", "run-1") == "mine"
    assert await other.claim("b", "run-1") == "others"
    assert await other.claim("b", "run-2") == "others"
    assert await other.claim("b", "run-3") == "mine"


@pytest.mark.asyncio
async def test_a_run_that_was_found_for_a_start_that_died_may_be_that_of_another(
    journal: Journal, address: str
) -> None:
    async with Journal(address, "narrative") as other:
        await other.begin("lives", ORIGIN)
        await journal.begin("died", ORIGIN)
        assert await journal.reserve("died", "trigger")
        await journal.checkpoint("died", "{}", "trigger")
        await journal.recovering("died")
        assert await other.reserve("lives", "trigger")
        await other.checkpoint("lives", "{}", "trigger")
        assert await journal.claim("died", "run-1") == "open"  # the other one will say whose it is
    assert await journal.claim("died", "run-1") == "unclear"  # the other one will never say
    await journal.forget_start("lives")
    assert await journal.claim("died", "run-1") == "mine"


@pytest.mark.asyncio
async def test_a_run_that_was_found_is_not_that_of_a_start_that_was_never_sent(journal: Journal, address: str) -> None:
    async with Journal(address, "narrative") as other:
        await other.begin("waits", ORIGIN)
        await journal.begin("died", ORIGIN)
        await journal.checkpoint("died", "{}", "trigger")
        await journal.recovering("died")
        assert await other.reserve("waits", "trigger")
        assert await journal.claim("died", "run-1") == "mine"
    await journal.begin("next", ORIGIN)

    assert await journal.reserve("next", "trigger")  # and where it died, nobody waits for it


@pytest.mark.asyncio
async def test_a_start_that_is_begun_again_keeps_no_other_waiting_until_it_asks_for_its_place_again(
    journal: Journal, other: Journal, address: str
) -> None:
    async with Journal(address, "narrative") as dies:
        await dies.begin("died", ORIGIN)
        assert await dies.reserve("died", "trigger")
    await journal.begin("given up", ORIGIN)
    assert await journal.reserve("given up", "trigger")
    await other.begin("next", ORIGIN)
    assert not await other.reserve("next", "trigger")

    assert (await journal.begin("died", ORIGIN)).taken
    assert (await journal.begin("given up", ORIGIN)).mine
    assert await other.reserve("next", "trigger")
    assert not await journal.reserve("died", "trigger")


@pytest.mark.asyncio
async def test_what_was_noted_of_a_request_that_was_not_sent_is_as_it_was_before(journal: Journal) -> None:
    await journal.begin("k", ORIGIN)
    await journal.reserve("k", "trigger")
    before = await journal.checkpoint("k", '{"attempt":1}', "trigger", 60.0)
    again = await journal.checkpoint("k", '{"attempt":2}', "trigger", 60.0)

    notes = []
    for note, known in [('{"attempt":1}', before), ('{"attempt":2}', again), ('{"attempt":1}', before)]:
        await journal.not_sent("k", note, known)
        work = await journal.get("k")
        assert work is not None
        notes.append((work.start_note, work.group_name))
    assert notes == [('{"attempt":2}', "trigger"), ('{"attempt":1}', "trigger"), (None, "trigger")]


@pytest.mark.asyncio
async def test_states_open_the_work_and_the_last_one_ends_it_for_good(journal: Journal) -> None:
    await journal.begin("k", ORIGIN)
    seen = []
    for run, done in [(RUN, False), ("{}", False), (OVER, True), (RUN, False), ('"corrected"', True)]:
        await journal.saw("k", run, done=done)
        work = await journal.get("k")
        assert work is not None
        seen.append((work.state, work.run))

    assert seen == [("open", RUN), ("open", "{}"), ("done", OVER), ("done", OVER), ("done", '"corrected"')]


@pytest.mark.asyncio
async def test_updated_grows_with_every_change_even_when_the_clock_goes_back(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = await journal.begin("k", ORIGIN)
    monkeypatch.setattr(time, "time", lambda: 5.0)
    for change in (
        lambda: journal.checkpoint("k", "{}"),
        lambda: journal.saw("k", RUN),
        lambda: journal.saw("k", RUN),
        lambda: journal.release("k"),
        lambda: journal.begin("k", "{}"),
    ):
        await change()
        changed = await journal.get("k")
        assert changed is not None
        assert changed.created == work.created
        assert work.updated < changed.updated < work.updated + 1
        work = changed


@pytest.mark.asyncio
async def test_a_start_that_was_refused_is_forgotten_and_may_begin_anew(journal: Journal) -> None:
    await journal.begin("k", ORIGIN)
    await journal.checkpoint("k", "{}")
    await journal.forget_start("k")
    await journal.forget_start("k")

    assert await journal.get("k") is None
    assert (await journal.begin("k", "{}")).fresh


@pytest.mark.asyncio
async def test_work_that_was_started_is_never_forgotten(journal: Journal) -> None:
    await journal.attach("k", ORIGIN, RUN)
    await journal.forget_start("k")
    await journal.saw("k", OVER, done=True)
    await journal.forget_start("k")

    assert await journal.get("k") is not None


@pytest.mark.asyncio
async def test_released_work_is_taken_over_at_once(journal: Journal, other: Journal) -> None:
    first = await journal.begin("k", ORIGIN)
    await journal.checkpoint("k", "{}")
    await journal.release("k")
    left = await other.get("k")
    taken = await other.begin("k", "{}")

    assert left is not None
    assert (left.alive, left.mine, left.owner) == (False, False, "")
    assert (taken.taken, taken.fresh, taken.mine, taken.alive) == (True, False, True, True)
    assert (taken.origin, taken.start_note, taken.created) == (ORIGIN, "{}", first.created)
    assert not (await journal.begin("k", "{}")).mine


@pytest.mark.asyncio
async def test_only_its_owner_releases_work(journal: Journal, other: Journal) -> None:
    await journal.begin("k", ORIGIN)
    await other.release("k")
    await other.release("unknown")

    assert not (await other.begin("k", ORIGIN)).taken


@pytest.mark.asyncio
async def test_the_work_of_a_journal_that_was_closed_is_taken_over(journal: Journal, address: str) -> None:
    async with Journal(address, "narrative") as closed:
        await closed.begin("k", ORIGIN)
        assert not (await journal.begin("k", ORIGIN)).taken
    left = await journal.get("k")

    assert left is not None
    assert not left.alive
    assert (await journal.begin("k", ORIGIN)).taken
    assert not (await journal.begin("k", ORIGIN)).taken


@pytest.mark.asyncio
async def test_work_that_is_done_is_taken_over_by_nobody(journal: Journal, address: str) -> None:
    async with Journal(address, "narrative") as closed:
        await closed.attach("k", ORIGIN, RUN)
        await closed.saw("k", OVER, done=True)
    work = await journal.begin("k", ORIGIN)

    assert (work.state, work.run, work.taken, work.fresh, work.mine, work.alive) == (
        "done", OVER, False, False, False, False,
    )  # fmt: skip


@pytest.mark.asyncio
async def test_one_key_is_other_work_with_another_vendor(journal: Journal, address: str) -> None:
    async with Journal(address, "middesk") as middesk:
        await journal.begin("k", ORIGIN)
        await journal.handle("k", "run", "1", "a")
        assert (await middesk.begin("k", "{}")).fresh
        assert (await middesk.handle("k", "run", "1", "b")).fresh
        await middesk.saw("k", OVER, done=True)

        assert [work.vendor async for work in journal.unfinished()] == ["narrative"]
        assert [work async for work in middesk.unfinished()] == []
        assert [each.name for each in await journal.answers("k", "run")] == ["a"]


@pytest.mark.asyncio
async def test_work_nobody_began_cannot_go_on(journal: Journal) -> None:
    for call in (
        lambda: journal.checkpoint("k", "{}"),
        lambda: journal.saw("k", "{}"),
        lambda: journal.saw("k", "{}", done=True),
        lambda: journal.handle("k", "run", "action", "name"),
        lambda: journal.answered("k", "run", "action", "{}", False),
        lambda: journal.abandon_handler("k", "run", "action"),
        lambda: journal.posted("k", "run"),
        lambda: journal.answers("k", "run"),
    ):
        with pytest.raises(JournalError, match="holds no work of narrative named 'k'; begin it first"):
            await call()
    assert await journal.get("k") is None


# Waiting for others ---------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_wait_looks_ever_less_often_and_ends_when_the_work_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    looks: list[float] = []
    work = Work("k", "narrative", ORIGIN, "open", None, None, None, None, RUN, "0" * 32, True, False, 1.0, 2.0)

    async def get(_: Journal, key: str) -> Work:
        looks.append(loop.time())
        return work if loop.time() < 60 else evolve(work, updated=2.000001)

    async def version(_: Journal) -> int:
        return 0

    monkeypatch.setattr(Journal, "get", get)
    monkeypatch.setattr(Journal, "version", version)
    changed = await Journal("journal.db", "narrative").wait("k", work.updated)

    gaps = [later - earlier for earlier, later in pairwise(looks)]
    assert changed is not None
    assert changed.updated > work.updated
    assert looks[0] == 0.0
    assert gaps == pytest.approx(sorted(gaps))
    assert (gaps[0], gaps[-1]) == pytest.approx((0.05, 1.0))
    assert len(looks) < 70


@pytest.mark.asyncio
async def test_a_wait_ends_when_another_owner_changes_the_work(journal: Journal, other: Journal) -> None:
    work = await journal.begin("k", ORIGIN)
    waiting = asyncio.create_task(other.wait("k", work.updated))
    await asyncio.wait([waiting], timeout=0.1)
    assert not waiting.done()
    await journal.saw("k", RUN)
    changed = await waiting

    assert changed is not None
    assert (changed.run, changed.mine, changed.alive) == (RUN, False, True)


@pytest.mark.asyncio
async def test_a_wait_ends_when_the_work_is_free_forgotten_or_done(journal: Journal, address: str) -> None:
    async with Journal(address, "narrative") as closed:
        work = await closed.begin("k", ORIGIN)
        waiting = asyncio.create_task(journal.wait("k", work.updated))
        await asyncio.wait([waiting], timeout=0.1)
        assert not waiting.done()
    left = await waiting
    await journal.begin("k", ORIGIN)
    await journal.saw("k", OVER, done=True)
    done = await journal.wait("k", time.time() + 1e6)

    assert left is not None
    assert (left.alive, left.updated) == (False, work.updated)
    assert done is not None
    assert done.state == "done"
    assert await journal.wait("unknown", 0.0) is None


# Handlings ------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_handler_is_run_once_and_its_answer_kept_until_it_is_posted(journal: Journal, other: Journal) -> None:
    await journal.begin("k", ORIGIN)
    first = await journal.handle("k", "run-1", "a", "approve")
    again, elsewhere = await journal.handle("k", "run-1", "a", "x"), await other.handle("k", "run-1", "a", "x")
    await journal.answered("k", "run-1", "a", '{"ok":true}', False)
    answered = await other.handle("k", "run-1", "a", "approve")
    await journal.posted("k", "run-1")
    posted = await journal.handle("k", "run-1", "a", "approve", repeatable=True)

    assert first == Handling(
        "run-1", "a", "approve", AnswerState.RUNNING, None, False, first.owner, True, True, fresh=True
    )
    assert again == evolve(first, fresh=False)
    assert elsewhere == evolve(first, fresh=False, mine=False)
    assert answered == evolve(elsewhere, state=AnswerState.ANSWERED, output='{"ok":true}')
    assert posted == evolve(again, state=AnswerState.POSTED, output='{"ok":true}')


@pytest.mark.asyncio
async def test_answers_are_those_of_one_run_in_the_order_of_its_actions(journal: Journal) -> None:
    await journal.begin("k", ORIGIN)
    for run, action in [("run-1", "b"), ("run-1", "a"), ("run-2", "a"), ("run-1", "c")]:
        await journal.handle("k", run, action, "name")
    await journal.answered("k", "run-1", "a", '"no such invoice"', True)
    await journal.answered("k", "run-1", "b", "1", False)
    await journal.posted("k", "run-2")

    found = [(each.action_id, each.state, each.output, each.is_error) for each in await journal.answers("k", "run-1")]
    assert found == [
        ("b", "answered", "1", False),
        ("a", "answered", '"no such invoice"', True),
        ("c", "running", None, False),
    ]
    await journal.posted("k", "run-1")
    assert [each.state for each in await journal.answers("k", "run-1")] == ["posted", "posted", "running"]
    assert [each.state for each in await journal.answers("k", "run-2")] == ["running"]
    assert await journal.answers("k", "run-3") == ()


@pytest.mark.asyncio
async def test_a_handler_that_gave_no_answer_may_run_again(journal: Journal, other: Journal) -> None:
    await journal.begin("k", ORIGIN)
    await journal.handle("k", "run", "a", "name")
    await other.abandon_handler("k", "run", "a")
    assert not (await journal.handle("k", "run", "a", "name")).fresh

    await journal.abandon_handler("k", "run", "a")
    await journal.abandon_handler("k", "run", "a")
    assert await journal.answers("k", "run") == ()
    assert (await other.handle("k", "run", "a", "name")).fresh


@pytest.mark.asyncio
async def test_an_answer_is_never_abandoned(journal: Journal) -> None:
    await journal.begin("k", ORIGIN)
    await journal.handle("k", "run", "a", "name")
    await journal.answered("k", "run", "a", "1", False)
    await journal.abandon_handler("k", "run", "a")

    assert [each.state for each in await journal.answers("k", "run")] == ["answered"]


@pytest.mark.asyncio
async def test_an_answer_to_an_action_nobody_handled_is_refused(journal: Journal) -> None:
    await journal.begin("k", ORIGIN)

    with pytest.raises(JournalError, match="holds no action 'a' of run 'run'; call handle first"):
        await journal.answered("k", "run", "a", "1", False)


@pytest.mark.asyncio
async def test_a_handler_that_was_cut_off_is_run_again_only_if_it_is_repeatable(journal: Journal, address: str) -> None:
    async with Journal(address, "narrative") as closed:
        await closed.begin("k", ORIGIN)
        await closed.handle("k", "run", "a", "name")
    await journal.begin("k", ORIGIN)
    unknown = await journal.handle("k", "run", "a", "name")
    again = await journal.handle("k", "run", "a", "name", repeatable=True)
    third = await journal.handle("k", "run", "a", "name", repeatable=True)

    assert (unknown.state, unknown.alive, unknown.mine, unknown.fresh) == ("running", False, False, False)
    assert (again.state, again.alive, again.mine, again.fresh, again.taken) == ("running", True, True, True, True)
    assert third == evolve(again, fresh=False, taken=False)


@pytest.mark.asyncio
async def test_an_outcome_nobody_knows_can_be_decided(journal: Journal, address: str) -> None:
    async with Journal(address, "narrative") as closed:
        await closed.begin("k", ORIGIN)
        await closed.handle("k", "run", "a", "name")
        await closed.handle("k", "run", "b", "name")
    await journal.answered("k", "run", "a", '"it was booked"', False)
    await journal.abandon_handler("k", "run", "b")

    assert [(each.action_id, each.output, each.mine) for each in await journal.answers("k", "run")] == [
        ("a", '"it was booked"', True)
    ]
    assert (await journal.handle("k", "run", "b", "name")).fresh


@pytest.mark.asyncio
async def test_an_answer_by_hand_stands_against_that_of_a_slow_handler(journal: Journal) -> None:
    await journal.attach("k", ORIGIN, a_run("run-1"))
    await journal.handle("k", "run-1", "a", "confirm")
    await journal.decided("run-1", [GivenAnswer("a", "confirm", '"by hand"')])

    assert (await journal.answered("k", "run-1", "a", '"too late"', True)).output == '"by hand"'
    await journal.posted("k", "run-1")
    assert (await journal.answered("k", "run-1", "a", '"too late"', True)).state == "posted"


@pytest.mark.asyncio
async def test_releasing_work_leaves_its_running_handlers_with_an_unknown_outcome(
    journal: Journal, other: Journal
) -> None:
    await journal.begin("k", ORIGIN)
    await journal.handle("k", "run", "a", "name")
    await journal.handle("k", "run", "b", "name")
    await journal.answered("k", "run", "b", "1", False)
    await journal.release("k")

    assert [(each.state, each.alive) for each in await other.answers("k", "run")] == [
        ("running", False),
        ("answered", True),
    ]


# Laws, with a model beside --------------------------------------------------------------------------------------------


class Someone:
    """Stands in for Owners: alive until told otherwise."""

    part_seconds = 10.0

    def __init__(self, me: str, living: set[str]) -> None:
        self.me = me
        self._living = living
        living.add(me)

    def alive(self, owner: str) -> bool:
        return owner in self._living

    def now(self) -> float:
        return 0.0


@define
class Expected:
    born: int
    owner: str
    state: str
    updated: float
    runs: set[str] = field(factory=set)
    running: dict[str, str] = field(factory=dict)
    answered: set[str] = field(factory=set)


keys = st.sampled_from(["k", "l"])
actions = st.sampled_from(["a", "b"])
people = st.sampled_from([0, 1, 2])
runs = st.sampled_from(["{}", a_run("run-1"), a_run("run-2")])


def ids_in(run: str | None) -> set[str]:
    """Return the id of a state that has one."""
    return set() if run is None or run == "{}" else {json.loads(run)["ref"]["id"]}


def has_done(laws: "Laws") -> bool:
    return any(each.state == "done" for each in laws.model.values())


class Laws(RuleBasedStateMachine):
    """However calls of several owners interleave, work is started once and handlers are run once."""

    def __init__(self, store: "Store") -> None:
        super().__init__()
        self.store = store
        store.clear()
        self.living: set[str] = set()
        self.born = 0
        self.people = [self.somebody() for _ in range(3)]
        self.model: dict[str, Expected] = {}
        self.tended: set[str] = set()

    def somebody(self) -> tuple[str, Records]:
        self.born += 1
        someone = Someone(f"owner-{self.born}", self.living)
        return someone.me, Records(self.store.tables, someone, "narrative", self.store.spelling)

    @initialize(run=st.none() | runs, both=st.booleans(), tended=st.booleans())
    def begin_at_once(self, run: str | None, both: bool, tended: bool) -> None:
        for key in ("k", "l")[: 1 + both]:
            self.begin(0, key, run)
            if tended:
                self.tend(0, key)

    @rule(who=people)
    def die(self, who: int) -> None:
        self.living.discard(self.people[who][0])
        self.people[who] = self.somebody()

    @rule(who=people, key=keys, run=st.none() | runs)
    def begin(self, who: int, key: str, run: str | None) -> None:
        me, records = self.people[who]
        work = records.begin(key, "{}", run)
        known = self.model.get(key)
        free = known is not None and known.state != "done" and known.owner not in self.living
        assert (work.fresh, work.taken) == (known is None, free)
        if known is None:
            self.born += 1
            self.model[key] = Expected(self.born, me, "open" if run else "starting", work.updated, ids_in(run))
        elif free:
            known.owner = me

    @rule(who=people, key=keys, run=runs, done=st.booleans())
    def saw(self, who: int, key: str, run: str, done: bool) -> None:
        known = self.model.get(key)
        if known is not None:
            self.people[who][1].saw(key, run, done)
            if done or known.state != "done":
                known.runs |= ids_in(run)
            known.state = "done" if done or known.state == "done" else "open"

    @rule(who=people, key=keys)
    def tend(self, who: int, key: str) -> None:
        Tended(self.people[who][1]).enter(key)
        self.tended.add(key)

    @rule(who=people, key=keys)
    def tell(self, who: int, key: str) -> None:
        Tended(self.people[who][1]).told(key)
        self.tended.discard(key)

    @rule(who=people, key=keys)
    def take(self, who: int, key: str) -> None:
        me, records = self.people[who]
        known = self.model.get(key)
        free = known is not None and (known.owner == me or known.owner not in self.living)
        assert Tended(records).take(key) == (key in self.tended and free)
        if known is not None and free and key in self.tended:
            known.owner = me

    @rule(who=people, key=keys)
    def forget(self, who: int, key: str) -> None:
        known = self.model.get(key)
        is_at_work = known is not None and known.state != "done" and known.owner in self.living
        assert self.people[who][1].forget(key) is not is_at_work
        if not is_at_work:
            self.model.pop(key, None)

    @precondition(has_done)
    @rule(who=people)
    def prune(self, who: int) -> None:
        old = [key for key, known in self.model.items() if known.state == "done" and key not in self.tended]
        assert self.people[who][1].prune(math.inf, 10) == len(old)
        for key in old:
            del self.model[key]

    @rule(who=people, key=keys)
    def forget_the_start(self, who: int, key: str) -> None:
        me, records = self.people[who]
        records.forget_start(key)
        known = self.model.get(key)
        if known is not None and known.state == "starting" and (known.owner == me or known.owner not in self.living):
            del self.model[key]

    @rule(who=people, key=keys)
    def go_on_with_the_start(self, who: int, key: str) -> None:
        me, records = self.people[who]
        known = self.model.get(key)
        if known is not None and known.owner == me:
            Starts(records).checkpoint(key, "{}")
        elif known is not None:
            with pytest.raises(UnfitError, match="not this process's any more"):
                Starts(records).checkpoint(key, "{}")

    @rule(who=people, key=keys)
    def release(self, who: int, key: str) -> None:
        me, records = self.people[who]
        records.release(key)
        known = self.model.get(key)
        if known is not None and known.owner == me:
            known.owner = ""
            known.running = {each: "" if owner == me else owner for each, owner in known.running.items()}

    @rule(who=people, key=keys, action=actions, repeatable=st.booleans())
    def handle(self, who: int, key: str, action: str, repeatable: bool) -> None:
        me, records = self.people[who]
        known = self.model.get(key)
        if known is None:
            return
        handling = Handlings(records).handle(key, "run", action, "name", repeatable)
        cut_off = action in known.running and known.running[action] not in self.living
        expected = (action not in known.running | dict.fromkeys(known.answered, "")) or (cut_off and repeatable)
        assert handling.fresh == expected
        if handling.fresh:
            known.running[action] = me

    @rule(who=people, key=keys, action=actions)
    def answer(self, who: int, key: str, action: str) -> None:
        known = self.model.get(key)
        if known is not None and action in known.running:
            Handlings(self.people[who][1]).answered(key, "run", action, "1", False)
            del known.running[action]
            known.answered.add(action)

    @rule(who=people, key=keys, action=actions)
    def abandon_handler(self, who: int, key: str, action: str) -> None:
        me, records = self.people[who]
        known = self.model.get(key)
        if known is None:
            return
        Handlings(records).abandon_handler(key, "run", action)
        if action in known.running and (known.running[action] == me or known.running[action] not in self.living):
            del known.running[action]

    @invariant()
    def the_file_says_what_happened(self) -> None:
        records = self.people[0][1]
        for key in ("k", "l"):
            work, known = records.get(key), self.model.get(key)
            assert (work is None) == (known is None)
            if work is not None and known is not None:
                assert (work.owner, work.state, work.alive) == (known.owner, known.state, known.owner in self.living)
                assert work.updated >= known.updated
                known.updated = work.updated
                found = Handlings(records).answers(key, "run")
                assert {each.action_id for each in found if each.state == "answered"} == known.answered
                assert {each.action_id: each.owner for each in found if each.state == "running"} == known.running

    @invariant()
    def work_is_found_by_each_run_that_it_was_at(self) -> None:
        for run_id in ("run-1", "run-2"):
            at_it = [
                (known.state != "done", known.born, key) for key, known in self.model.items() if run_id in known.runs
            ]
            found = self.people[0][1].of_run(run_id)
            assert (None if found is None else found.key) == (max(at_it)[2] if at_it else None)

    @invariant()
    def what_is_tended_and_nobody_is_at_is_abandoned(self) -> None:
        left = [
            (known.born, key)
            for key, known in self.model.items()
            if key in self.tended and known.owner not in self.living
        ]
        assert Tended(self.people[0][1]).abandoned(None) == [key for _, key in sorted(left)]


@define
class Store:
    """Tables without a journal, for one machine after the other."""

    tables: Tables
    spelling: Spelling

    def clear(self) -> None:
        """Leave nothing of the machine before."""
        for table in ("work", "handling", "parked", "tended"):
            self.tables.execute(f"DELETE FROM {table}")


@pytest.fixture
def in_sqlite() -> Iterator[Store]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        schema.establish(connection)
        yield Store(connection, SQLITE)


@pytest.fixture
def in_postgres(postgres: Server) -> Iterator[Store]:
    from agentruns._keeping.journal.postgres import schema as postgres_schema
    from agentruns._keeping.journal.postgres.address import database
    from agentruns._keeping.journal.postgres.connection import connection_to
    from agentruns._keeping.journal.postgres.tables import POSTGRES, PostgresTables

    place = database(postgres.url(schema="laws", prefix="of_"))
    with connection_to(place) as connection:
        with connection.transaction():
            postgres_schema.establish(connection, place)
        yield Store(PostgresTables(connection, place.prefix), POSTGRES)


def play(store: Store, examples: int) -> None:
    machine = cast("type[Laws]", partial(Laws, store))
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=40, deadline=None))


def test_the_laws_hold_in_sqlite(in_sqlite: Store) -> None:
    play(in_sqlite, 60)


def test_the_laws_hold_in_postgres(in_postgres: Store) -> None:
    play(in_postgres, 15)
