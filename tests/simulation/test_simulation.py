"""
Seeds of the simulation, some of them here; `AGENTRUNS_SIMULATION` scales how many: by default 1, some 20 s in all.

A seed that fails says by which line it is played again: `python -m tests.simulation --seed 4711 --vendor middesk`.
"""

import gc
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

from tests.postgres_server import Server

from .__main__ import caught, outcomes
from .mutations import BY_NAME
from .play_seed import Outcome, play
from .simulated_vendors import STANDS
from .simulated_world import Options

SCALE = float(os.environ.get("AGENTRUNS_SIMULATION", "1"))
BLOCK = 15

QUICK = (
    "the id of a start is minted anew for each attempt",
    "the id of an answer is minted anew for each attempt",
    "what must not be repeated is repeated",
    "the journal begins afresh each time",
    "every handler is fresh",
    "the journal keeps no notes",
    "the journal keeps no states",
    "the journal keeps starts that were refused",
    "the journal keeps work open that is done",
    "owners are taken for dead",
    "a key is not left when nobody follows it",
    "a key takes any origin",
    "a start that died is begun anew instead of looked for",
    "a run may go back",
    "each stream has a watch of its own",
    "the budget counts from when a request was sent",
    "the budget gives no rest",
    "a step that is cut off cuts off its work",
    "lost contact is not borne with",
    "cut answers are taken for whole",
    "deadlines do not come",
)
"""The mutations that a few seeds notice; others have a story (`test_mutations`), and `--mutations` looks at all."""


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> Iterator[None]:
    """Keep the collector from going through all that other tests have made, with each seed."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def told(played: Sequence[Outcome]) -> str:
    return "\n".join(f"{each.again}  # {'; '.join(each.breaches)[:1000]}" for each in played if each.breaches)


@pytest.mark.parametrize("block", range(max(round(3 * SCALE), 1)))
@pytest.mark.parametrize("vendor", STANDS)
def test_nothing_is_lost_and_nothing_is_done_twice(vendor: str, block: int) -> None:
    played = [play(vendor, seed) for seed in range(block * BLOCK, block * BLOCK + BLOCK)]

    assert not told(played), told(played)
    assert sum(each.exchanges for each in played) > 5 * BLOCK


@pytest.mark.parametrize("vendor", STANDS)
def test_nothing_is_lost_and_nothing_is_done_twice_with_a_journal_in_a_file(vendor: str) -> None:
    options = Options(store="sqlite")
    played = [play(vendor, seed, options) for seed in range(10_000, 10_000 + round(4 * max(SCALE, 1)))]

    assert not told(played), told(played)


@pytest.mark.parametrize("vendor", STANDS)
def test_nothing_is_lost_and_nothing_is_done_twice_with_a_journal_in_a_database(vendor: str, postgres: Server) -> None:
    options = Options(store=postgres.url())
    played = [play(vendor, seed, options) for seed in range(20_000, 20_000 + round(2 * max(SCALE, 1)))]

    assert not told(played), told(played)


def test_the_seeds_have_faults_kills_handlers_and_errors_of_all_kinds() -> None:
    played = list(outcomes([(vendor, seed) for vendor in STANDS for seed in range(500, 515)], Options(), 1))
    faults = {fault for each in played for fault in each.faults}
    errors = {error for each in played for error in each.errors}

    assert len(faults) >= 12
    assert {"TransportError", "OutcomeUnknownError", "DeadlineExceededError", "Flaw"} <= errors
    assert sum(each.kills for each in played) > 10
    assert sum(each.handled for each in played) > 25
    assert sum(each.ended for each in played) > 120


def test_a_seed_has_the_same_history_in_every_process() -> None:
    wanted = [(vendor, seed) for vendor in STANDS for seed in range(2)]
    script = f"from tests.simulation.play_seed import play\nfor each in {wanted}:\n    print(play(*each).digest)\n"
    said = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout

    assert said.split() == [play(*each).digest for each in wanted]


@pytest.mark.parametrize("name", QUICK)
def test_a_mechanism_that_is_broken_breaks_a_law(name: str) -> None:
    tried, by = caught(name, options=Options(), seeds=300)

    assert by is not None, f"{tried} seeds did not notice that {name}"


@pytest.mark.parametrize("name", BY_NAME)
def test_what_a_mutation_takes_the_place_of_is_there(name: str) -> None:
    for owner, patched, _ in BY_NAME[name].patches():
        assert hasattr(owner, patched)


def test_a_mutation_that_no_law_can_notice_says_why() -> None:
    assert [name for name, each in BY_NAME.items() if each.why] == ["writes are not waited for to the end"]
