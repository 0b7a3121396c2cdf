"""`python -m tests.simulation`: play seeds, one again or many at once; or break the package on purpose."""

# ruff: noqa: T201 - it is a command
from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import islice

from attrs import evolve

from tests import postgres_server

from . import goodput
from .known_defects import KNOWN
from .mutations import BY_NAME
from .play_seed import Outcome, play
from .simulated_vendors import STANDS
from .simulated_world import Options

_BATCH = 50


def main() -> int:
    """Do what the command line says; return 1 if a law was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one seed, and show its history")
    parser.add_argument("--vendor", choices=STANDS, help="the vendor (default: all, in turn)")
    parser.add_argument("--seeds", type=int, default=1000, help="play so many seeds (default: 1000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one for each core)")
    parser.add_argument("--strict", action="store_true", help="complain of known defects, too")
    parser.add_argument("--unknown", metavar="DEFECT", action="append", default=[], help="complain of this one, too")
    parser.add_argument("--bar", metavar="NAME", action="append", default=[], help="leave a fault or a habit out")
    parser.add_argument(
        "--store",
        choices=["memory", "sqlite", "postgresql"],
        default="memory",
        help="where the journal is kept (default: memory); a file and PostgreSQL, which is started, are slow",
    )
    parser.add_argument("--mutations", action="store_true", help="break the package, and see which law notices")
    parser.add_argument("--mutation", choices=BY_NAME, help="break it in this way", metavar="NAME")
    parser.add_argument("--goodput", type=int, metavar="SEEDS", help="show what limits bring, for so many seeds")
    given = parser.parse_args()
    known = frozenset() if given.strict else frozenset(KNOWN) - set(given.unknown)
    if given.goodput is not None:
        print(*goodput.table(given.goodput), sep="\n")
        return 0
    with ExitStack() as stack:
        store = stack.enter_context(postgres_server.server()).url() if given.store == "postgresql" else given.store
        return _played(given, Options(frozenset(given.bar), known, store, given.mutation))


def _played(given: argparse.Namespace, options: Options) -> int:
    if given.mutations:
        return _mutations(options, given.seeds, given.jobs)
    if given.seed is not None:
        return _again(given.vendor or next(iter(STANDS)), given.seed, options)
    vendors = [given.vendor] if given.vendor else list(STANDS)
    seeds = range(given.first, given.first + given.seeds)
    wanted = [(vendors[seed % len(vendors)], seed) for seed in seeds]
    return _many(wanted, options, given.jobs)


def _again(vendor: str, seed: int, options: Options) -> int:
    outcome = play(vendor, seed, options)
    print("\n".join(outcome.history))
    print(f"{len(outcome.breaches)} breaches; the digest of this history is {outcome.digest}")
    print("\n".join(outcome.breaches))
    return bool(outcome.breaches)


def _many(wanted: list[tuple[str, int]], options: Options, jobs: int) -> int:
    begun = time.perf_counter()
    total: Counter[str] = Counter()
    played: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    broken = 0
    for outcome in outcomes(wanted, options, jobs):
        played[outcome.vendor] += 1
        total.update({
            "exchanges": outcome.exchanges,
            "processes, each on the journal of the one before": outcome.processes,
            "of them killed": outcome.kills,
            "streams": outcome.streams,
            "of them seen to their end": outcome.ended,
            "runs of handlers": outcome.handled,
            "virtual minutes": round(outcome.seconds / 60),
        })
        faults.update(outcome.faults)
        errors.update(outcome.errors)
        if outcome.breaches:
            broken += 1
            print(f"{outcome.again}  # {outcome.breaches[0][:300]}", flush=True)
    took = time.perf_counter() - begun
    print(f"{len(wanted)} seeds in {took:.1f} s ({60 * len(wanted) / took:.0f} a minute), {broken} of them broke a law")
    print(_listed(played))
    print(", ".join(f"{count} {name}" for name, count in total.items()))
    print(f"{sum(faults.values())} faults: {_listed(faults)}")
    print(f"{sum(errors.values())} errors: {_listed(errors)}")
    return bool(broken)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def _mutations(options: Options, seeds: int, jobs: int) -> int:
    """Show for each mutation which law it broke, and in which seed."""
    escaped = 0
    with ProcessPoolExecutor(jobs, initializer=freeze) as pool:
        found = pool.map(partial(caught, options=options, seeds=seeds), BY_NAME)
        for name, (tried, by) in zip(BY_NAME, found, strict=True):
            why = BY_NAME[name].why
            escaped += by is None and not why
            if by is not None:
                said = f"{by.breaches[0].partition('] ')[2][:60]} | {by.vendor} {by.seed}"
            else:
                said = f"not caught: {why}" if why else "NOT CAUGHT"
            print(f"{name:55} | {tried:5} | {said}", flush=True)
    print(f"{escaped} of {len(BY_NAME)} mutations escaped {seeds} seeds, beside those that no law can notice")
    return bool(escaped)


def caught(name: str, *, options: Options, seeds: int) -> tuple[int, Outcome | None]:
    """Play seeds with a mutation until a law is broken; return how many, and what came of the last."""
    vendors = BY_NAME[name].vendors
    for seed in range(seeds):
        vendor = vendors[seed % len(vendors)]
        outcome = play(vendor, seed, evolve(options, mutation=name))
        if outcome.breaches and not play(vendor, seed, options).breaches:
            return seed + 1, outcome
    return seeds, None


def outcomes(wanted: Iterable[tuple[str, int]], options: Options, jobs: int) -> Iterator[Outcome]:
    """Play seeds in so many processes, and return what came of each, in order."""
    source = iter(wanted)
    batches = iter(lambda: list(islice(source, _BATCH)), [])
    if jobs == 1:
        freeze()
        for batch in batches:
            yield from _batch(options, batch)
        return
    with ProcessPoolExecutor(jobs, initializer=freeze) as pool:
        for played in pool.map(partial(_batch, options), batches):
            yield from played


def freeze() -> None:
    """Keep the collector from going through all modules with each seed."""
    play("narrative", 0)
    gc.collect()
    gc.freeze()


def _batch(options: Options, wanted: list[tuple[str, int]]) -> list[Outcome]:
    played = [play(vendor, seed, options) for vendor, seed in wanted]
    for outcome in played:
        outcome.history.clear()
    return played


if __name__ == "__main__":
    sys.exit(main())
