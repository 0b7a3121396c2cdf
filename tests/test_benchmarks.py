"""That every benchmark can be called in the same way, and that one which cannot run says so."""

import asyncio
import gc
import importlib
import json
import pkgutil
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

import benchmarks
from agentruns.dialects.vendor import Vendor
from benchmarks import __main__ as everything
from benchmarks.__main__ import Found
from benchmarks.budget import without_lists
from benchmarks.page import page
from benchmarks.process import Spent, Stall
from benchmarks.report import CANNOT_RUN, arguments, as_json, at_least, at_most, finish, from_json, machine, needs
from benchmarks.virtual import SharedTime, VirtualLoop, run_virtually


@pytest.mark.parametrize("name", ["__main__", *everything.BENCHMARKS])
def test_a_benchmark_says_how_it_is_called(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as left:
        module.main()
    shown = capsys.readouterr().out
    assert left.value.code == 0
    assert "--quick" in shown
    assert "--json PATH" in shown
    assert f"python -m benchmarks{'' if name == '__main__' else '.' + name} [--quick] [--json PATH]" in str(
        module.__doc__
    )


def test_all_in_one_go_leaves_none_out() -> None:
    commands = [
        module.name
        for module in pkgutil.iter_modules(benchmarks.__path__)
        if "[--quick]" in (Path(benchmarks.__path__[0]) / f"{module.name}.py").read_text()
    ]
    assert sorted(commands) == sorted(["__main__", *everything.BENCHMARKS])


def test_the_guide_to_measuring_names_every_benchmark() -> None:
    shown = (Path(__file__).parent.parent / ".github" / "CONTRIBUTING.md").read_text()
    assert [name for name in everything.BENCHMARKS if f"| `{name}` |" not in shown] == []


def test_a_benchmark_without_what_it_measures_names_the_extra(capsys: pytest.CaptureFixture[str]) -> None:
    needs("journal", "json")
    with pytest.raises(SystemExit) as left:
        needs("bench", "json", "a_client_that_nobody_wrote")
    assert left.value.code == CANNOT_RUN
    assert capsys.readouterr().out == (
        "NOT MEASURED: a_client_that_nobody_wrote cannot be imported; pip install 'agentruns[bench]'\n"
    )


FOUND = {
    "polling": Found([at_most("polls", 1.0, 2.0)], figures={"rows": []}, notes=["NO INSTRUCTIONS ARE COUNTED: y"]),
    "fleet": Found([at_least("seen", 0.5, 1.0)]),
    "web": Found(why="NOT MEASURED: x"),
    "batch": Found(why="FAILED with code 1: ValueError: z"),
}


def test_one_table_shows_what_is_held_what_is_missed_what_was_not_measured_and_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "measured.json"
    monkeypatch.setattr(everything, "measure", lambda name, **_: FOUND[name])
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--json", str(path), *FOUND])
    assert everything.main() == 1
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["polling:", "polls", "1", "<=", "2", "yes"] in shown
    assert ["fleet:", "seen", "0.5", ">=", "1", "MISSED"] in shown
    assert ["web", "-", "-", "NOT", "MEASURED:", "x"] in shown
    assert ["batch", "-", "-", "FAILED", "with", "code", "1:", "ValueError:", "z"] in shown
    assert ["polling:", "NO", "INSTRUCTIONS", "ARE", "COUNTED:", "y"] in shown
    told = json.loads(path.read_text())
    assert from_json(told["goals"])[1] == at_least("fleet: seen", 0.5, 1.0)
    assert told["figures"] == {"polling": {"rows": []}}
    assert told["benchmarks"]["web"]["why"] == "NOT MEASURED: x"


def test_a_benchmark_that_fails_does_not_keep_the_others_from_being_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(name: str, *, quick: bool, seconds: float) -> Found:
        assert quick
        assert 0.0 < seconds <= 30.0
        if name == "polling":
            raise ValueError(name)
        return FOUND[name]

    monkeypatch.setattr(everything, "measure", measure)
    found = everything.measure_all(["polling", "fleet"], quick=True, seconds=90.0)
    assert found["polling"].has_failed
    assert found["fleet"].goals


def test_benchmarks_for_which_no_time_is_left_are_not_measured() -> None:
    assert everything.measure_all(["fleet"], quick=True, seconds=0.0)["fleet"].why.startswith("NOT MEASURED: no time")


def test_a_benchmark_that_takes_too_long_is_ended_with_all_that_it_has_begun() -> None:
    code, said = everything._run(["sh", "-c", "echo begun; sleep 60 & sleep 60"], 0.2)
    assert code < 0
    assert said == ["begun"]


def test_what_a_benchmark_says_last_tells_why_it_failed(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = everything._run([sys.executable, "-S", "-c", "raise ValueError('why')"], 60.0)
    assert (code, said[-1]) == (1, "ValueError: why")


def test_a_page_shows_goals_what_was_left_out_and_each_figure_of_many_runs() -> None:
    row: dict[str, Any] = {
        "title": "9 <runs>",
        "grows": "asyncio",
        "runs": 9,
        "cpu": 0.5,
        "bytes": 2**20,
        "lag": 1.0,
        "own": 0.01,
    }
    row |= {"gc": 0.1, "requests": 2.0}
    shown = page({
        "machine": "one & all",
        "goals": as_json([at_most("polls", 3.0, 2.0)]),
        "benchmarks": {"web": {"why": "NOT MEASURED: x", "notes": []}},
        "figures": {"crowd": {"rows": [row]}},
    })
    for text in ("one &amp; all", "MISSED", "web: NOT MEASURED: x", "9 &lt;runs&gt;", "<td>0.5</td>"):
        assert text in shown


def test_a_vendor_without_its_lists_is_still_one() -> None:
    assert Vendor.of(without_lists()).list_parent is None


def test_goals_that_are_written_are_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "goals.json"
    monkeypatch.setattr(sys, "argv", ["one", "--json", str(path)])
    goals = [at_most("a", 1.0, 2.0), at_least("b", 1.0, 2.0)]
    assert finish(goals, arguments("One.")) == 1
    assert from_json(json.loads(path.read_text())["goals"]) == goals


def test_a_checkout_that_is_not_installed_is_measured_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        if package == "agentruns":
            raise PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr("benchmarks.report.version", missing)
    assert "agentruns of a checkout, aiohttp 1.0" in machine()


def test_time_that_is_shared_stands_still_while_an_answer_is_under_way() -> None:
    class Connector:
        _acquired = False

    connector = Connector()

    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.await_answers(connector)
        await asyncio.sleep(5.0)
        connector._acquired = True
        timer = loop.call_later(10.0, loop.stop)
        answered: asyncio.Future[None] = loop.create_future()
        await asyncio.to_thread(loop.call_soon_threadsafe, answered.set_result, None)
        await answered
        timer.cancel()
        connector._acquired = False
        return loop.time()

    with SharedTime.made() as shared:
        assert run_virtually(main(), shared) == shared.read() == 5.0


def test_what_is_spent_counts_the_work_between_entering_and_leaving() -> None:
    with Spent() as spent:
        sum(range(200_000))
    assert spent.cpu > 0.0
    assert spent.wall > 0.0


def test_a_stall_is_told_with_and_without_what_the_collector_takes_of_it() -> None:
    async def main() -> Stall:
        with Stall() as stall:
            await asyncio.sleep(0.01)
            gc.collect()
            await asyncio.sleep(0.01)
        return stall

    stall = asyncio.run(main())
    assert stall.passes >= 1
    assert 0.0 < stall.longest_pass <= stall.longest_busy
    assert stall.longest_own <= stall.longest_busy
