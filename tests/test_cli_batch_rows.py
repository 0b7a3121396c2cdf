"""Rows that cannot be used, files that fail, and what a batch refuses before it sends anything."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from agentruns import JournalError
from agentruns.cli import arguments, commands
from agentruns.cli.batch import output, progress, rows
from agentruns.cli.batch.file_errors import FileError
from agentruns.cli.batch.output import Output, last_lines
from agentruns.cli.batch.rows import Row
from agentruns.cli.batch.templates import Text, UnusableError, cell
from agentruns.cli.report import read
from agentruns.emulator import Emulator, Narrative, Turn
from tests.command_lines import STATS, at_hand

IDLE = evolve(STATS, budget=0.0)


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator[Narrative]]:
    with at_hand(monkeypatch, tmp_path, script=lambda prompt: Turn(f"Re: {prompt.text}", running=0.05)) as running:
        yield running


def call(*more: str, source: str = "in.csv", target: str = "out.jsonl") -> list[str]:
    words = ["batch", "narrative", source, "-o", target, "--text", "{question}", "--key", "{id}"]
    return [*words, "--conversation", "conversation.json", *more]


def line(key: str | None, status: str, number: int = 1, **more: Any) -> dict[str, Any]:
    return {"key": key, "line": number, "status": status, "attempts": 1, "durations": {}, **more}


def entries(path: str | Path = "out.jsonl") -> list[tuple[Any, Any, Any]]:
    found = [json.loads(text) for text in Path(path).read_text().splitlines()]
    return sorted(((each["key"], each["line"], each["status"]) for each in found), key=repr)


# Keys of rows that cannot be used -------------------------------------------------------------------------------------


@pytest.mark.parametrize("journal", [[], ["--no-journal"]])
def test_a_row_that_cannot_be_used_takes_no_key_from_another_over_any_number_of_calls(
    emulator: Emulator[Narrative], journal: list[str]
) -> None:
    Path("in.csv").write_text("id,question\nline-3,hello\nx,\n")
    for _ in range(3):
        assert commands.main(call("-q", *journal)) == 2
        assert entries() == [("line-3", 2, "completed"), (None, 3, "invalid")]
    assert emulator.state.runs_started == 1


def test_a_row_that_cannot_be_used_says_which_key_and_columns_it_has(emulator: Emulator[Narrative]) -> None:
    Path("in.csv").write_text("id,question\n7,\n")
    assert commands.main(call("-q", "--columns", "id")) == 2
    (found,) = [json.loads(text) for text in Path("out.jsonl").read_text().splitlines()]
    assert (found["key"], found["failure"]["key"], found["columns"]) == (None, "7", {"id": "7"})


def test_lines_of_rows_that_were_taken_out_are_told_with_the_way_to_an_output_without_them(
    emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in.csv").write_text("id,question\n1,hello\n2,there\n")
    assert commands.main(call()) == 0
    assert "no row of INPUT" not in capsys.readouterr().err
    Path("in.csv").write_text("id,question\n2,there\n")
    assert commands.main(call()) == 0
    told = capsys.readouterr().err
    assert "of no row of INPUT as it is now: 1." in told
    assert told.rstrip().endswith("-o NEW --journal out.jsonl.journal")
    assert commands.main(call("--journal", "out.jsonl.journal", target="new.jsonl")) == 0
    assert entries("new.jsonl") == [("2", 2, "completed")]
    assert emulator.state.runs_started == 2


@pytest.mark.parametrize(
    ("template", "text"),
    [("{who.name}", "Ada"), ("{tags[1]}", "b"), ("{who.pets[0].name}", "Rex"), ("{tags.0}", "a"), ("{a[0]}", "plain")],
)
def test_a_template_reaches_into_objects_and_lists(template: str, text: str) -> None:
    row = Row(1, {"who": {"name": "Ada", "pets": [{"name": "Rex"}]}, "tags": ["a", "b"], "a[0]": "plain"})
    assert Text.parse(template, "--text").fill(row) == text


@pytest.mark.parametrize("column", ["tags[2]", "tags[-1]", "who[0]", "who.name[0]", "other[0]"])
def test_a_template_that_leads_nowhere_is_a_problem_of_its_row(column: str) -> None:
    with pytest.raises(UnusableError, match="has no column"):
        cell(Row(1, {"who": {"name": "Ada"}, "tags": ["a", "b"]}), column)


def test_an_output_of_an_earlier_version_keeps_what_is_done_under_such_a_key(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    done, invalid = line("line-3", "completed", 2), line("line-3", "invalid", 3)
    for older in ([done, invalid], [invalid, done]):
        path.write_text("".join(json.dumps(each) + "\n" for each in older))
        with Output(path, "narrative") as opened:
            assert {key: known.status for key, known in opened.known.items()} == {"line-3": "completed"}
        assert entries(path) == [("line-3", 2, "completed")]


def test_the_last_line_of_each_unusable_row_is_one_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    written = [line(None, "invalid", 3), line(None, "invalid", 4), line("3", "failed", 3), line("3", "completed", 3)]
    path.write_text("".join(json.dumps(each) + "\n" for each in written))
    assert list(last_lines(path)) == [written[0], written[1], written[3]]


@given(st.lists(st.tuples(st.text(min_size=1), st.sampled_from(["completed", "failed", "invalid"])), max_size=8))
def test_no_key_of_a_user_is_lost_or_won_by_tidying(tmp_path_factory: pytest.TempPathFactory, found: Any) -> None:
    path = tmp_path_factory.mktemp("tidy") / "out.jsonl"
    with Output(path, "narrative") as opened:
        for number, (key, status) in enumerate(found):
            opened.append(line(None if status == "invalid" else key, status, number))
    with Output(path, "narrative") as opened:
        known = {key: each.status for key, each in opened.known.items()}
    assert known == {key: status for key, status in found if status != "invalid"}
    assert {each["key"]: each["status"] for each in last_lines(path)} == known


def test_a_report_shows_a_row_that_has_no_key(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    moment = "2026-01-01T00:00:00.000Z"
    more = {"usage": None, "failure": {"type": "InvalidRow", "message": "no"}, "run": None, "cost": None}
    times = {"started": moment, "ended": moment, "durations": {"total": 0.0, "run": None}}
    path.write_text(json.dumps(line(None, "invalid", 7, **more) | times) + "\n")
    assert [(item.key, item.line, item.was_run) for item in read(path)] == [("", 7, False)]


# Files that fail ------------------------------------------------------------------------------------------------------


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_output_without_room_for_its_next_version_is_trouble_and_no_wrong_usage(
    emulator: Emulator[Narrative], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in.csv").write_text("id,question\n1,hello\n")
    Path("out.jsonl").write_text(json.dumps(line(None, "invalid")) + "\n" + json.dumps(line("0", "completed")) + "\n")
    monkeypatch.setattr(output, "_write", full)
    assert commands.main(call()) == 5
    assert capsys.readouterr().err == (
        "agentruns: OUTPUT 'out.jsonl' could not be written: No space left on device. Free some space on its disk\n"
    )
    assert len(entries()) == 2
    assert not emulator.requests()


def test_an_output_that_cannot_be_brought_to_the_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Output(tmp_path / "out.jsonl", "narrative")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(FileError, match=r"OUTPUT '.*out\.jsonl' could not be written: No space"), opened:
            pass


def test_an_input_that_cannot_be_read_to_its_end_is_named(
    emulator: Emulator[Narrative], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object) -> Iterator[Any]:
        yield rows.Row(2, {"id": "1", "question": "hello"})
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    Path("in.csv").write_text("id,question\n1,hello\n")
    monkeypatch.setattr(rows, "_records", failing)
    assert commands.main(call("-q")) == 5
    said = capsys.readouterr().err
    assert said.startswith("agentruns: INPUT 'in.csv' could not be read to its end: Input/output error. Look at")
    assert "Traceback" not in said


def test_a_journal_that_fails_is_told_in_its_own_words_once_and_without_a_traceback(
    emulator: Emulator[Narrative], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from agentruns._keeping.journal import Journal

    async def begin(self: Journal, *_: object, **__: object) -> None:
        raise JournalError(self.path, "the disk is full; free some space, then make the same call again")

    Path("in.csv").write_text("id,question\n" + "".join(f"{n},hello\n" for n in range(9)))
    monkeypatch.setattr(Journal, "begin", begin)
    assert commands.main(call("-q", "--limit", "3")) == 5
    first, *more = capsys.readouterr().err.splitlines()
    assert first.startswith("agentruns: could not use the journal ")
    assert "out.jsonl.journal: the disk is full; free some space, then make the same call again" in first
    assert len(more) == 2


def test_a_stdout_without_room_does_not_stop_the_work(
    emulator: Emulator[Narrative], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("in.csv").write_text("id,question\n1,hello\n")
    monkeypatch.setattr(progress.Plain, "show", full)
    assert commands.main(call()) == 0
    assert capfd.readouterr().err == (
        "agentruns: progress cannot be shown (No space left on device); the work goes on\n"
    )
    assert entries() == [("1", 2, "completed")]


def test_a_count_of_rows_that_fails_leaves_no_traceback(
    emulator: Emulator[Narrative], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in.csv").write_text("id,question\n1,hello\n")
    monkeypatch.setattr(rows, "_count_records", full)
    assert commands.main(call()) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "1 rows, 1 completed" in told.out


# What is refused before anything is sent ------------------------------------------------------------------------------


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (call("--budget", "nan"), "--budget is nan"),
        (call("--budget", "0", "--engine", "ray"), "--budget is 0.0"),
        (call("--workers", "2"), "--workers is for --engine ray"),
        (call("--workers", "0", "--engine", "ray"), "--workers is 0"),
        (call("--base-url", "http://10.0.0.7"), "pass --insecure if you accept that"),
        (call("--base-url", "nowhere"), "the base URL is not one"),
        (call(target="in.csv"), "OUTPUT is INPUT"),
        (call(target="-"), "OUTPUT is '-'"),
        (call(target="nowhere/out.jsonl"), "OUTPUT 'nowhere/out.jsonl' cannot be used"),
        (call(target="."), "is no regular file"),
        (call(target="conversation.json"), "is not the output of"),
        (call(target="other.jsonl"), "holds runs of origami"),
        (call(source="-"), "INPUT is '-'; it must be a file"),
        (call(source="."), "no file that can be read twice"),
    ],
)
def test_a_dry_run_refuses_what_the_real_call_refuses(
    emulator: Emulator[Narrative],
    dry: list[str],
    words: list[str],
    text: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("in.csv").write_text("id,question\n1,hello\n")
    Path("other.jsonl").write_text(json.dumps(line("1", "completed", vendor="origami")) + "\n")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert commands.main([*words, *dry]) == 2
    said = capsys.readouterr().err
    assert said.startswith("agentruns: ")
    assert text in said
    assert not emulator.requests()
    assert {path: path.read_bytes() for path in before} == before


def test_a_dry_run_needs_no_token_and_makes_no_file(
    emulator: Emulator[Narrative], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("in.csv").write_text("id,question\n1,hello\n")
    Path("done.jsonl").write_text(json.dumps(line("1", "completed")) + "\n")
    monkeypatch.delenv("NARRATIVE_TOKEN")
    assert commands.main(call("--dry-run")) == 0
    assert commands.main(call("--dry-run", target="done.jsonl")) == 0
    assert not Path("out.jsonl").exists()


def test_the_usage_shows_the_output_as_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments.parse(["batch", "narrative"])
    said = capsys.readouterr().err
    assert "[-o" not in said
    assert "-o OUTPUT" in said


# Throughput -----------------------------------------------------------------------------------------------------------


def test_rows_that_were_not_run_say_nothing_of_throughput() -> None:
    now = 0.0
    tally = progress.Tally(lambda: now)
    tally.before["completed"] = 54
    tally.add("invalid", run=False)
    now = 0.001
    assert tally.picture({}, IDLE).rate is None
    assert tally.picture({}, IDLE).words() == "55 rows, 1 invalid, 54 before"
    for _ in range(20):
        tally.add("completed")
    now = 10.0
    shown = tally.picture({}, IDLE)
    assert (shown.rate, shown.ended) == (2.0, 75)


def test_a_call_that_only_refuses_rows_has_no_throughput(
    emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in.csv").write_text("id,question\n1,\n2,\n")
    assert commands.main(call("--json")) == 2
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["done"], last["rate"]) == ({"invalid": 2}, None)


def test_what_the_journal_knows_as_done_is_no_throughput_of_this_call(
    emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in.csv").write_text("id,question\n" + "".join(f"{n},hello\n" for n in range(9)))
    assert commands.main(call("--json")) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rate"] > 0
    Path("out.jsonl").unlink()
    assert commands.main(call("--json")) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["done"], last["rate"]) == ({"completed": 9}, None)
    assert emulator.state.runs_started == 9


@given(st.floats(1e-9, 1e12), st.integers(1, 6))
def test_numbers_are_plain_and_right_to_their_digits(value: float, digits: int) -> None:
    said = progress.plain(value, digits)
    assert set(said) <= set("0123456789.")
    assert float(said) == pytest.approx(value, rel=0.51 * 10 ** (1 - digits))


@pytest.mark.parametrize(("value", "said"), [(1123.4, "1120"), (2.0, "2"), (0.0167, "0.0167"), (0.5, "0.5")])
def test_a_rate_is_said_without_an_exponent(value: float, said: str) -> None:
    assert progress.plain(value) == said


# As a process of its own, where Python itself would show what is logged -----------------------------------------------

FULL = """
import asyncio, errno, sys
from agentruns import JournalError
from agentruns.cli import commands
from agentruns.cli.batch.output import Output
from agentruns._keeping.journal import Journal

begun = []

async def begin(self, *_):
    begun.append(self)
    late = len(begun)
    while len(begun) < 40:
        await asyncio.sleep(0)
    for _ in range(late):  # some fail just when the first is being told
        await asyncio.sleep(0)
    raise JournalError(self.path, "the disk is full")

def append(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

Journal.begin, Output.append = begin, append
sys.exit(commands.main())
"""


def test_a_full_disk_under_several_rows_at_once_is_told_without_tracebacks(emulator: Emulator[Narrative]) -> None:
    Path("in.csv").write_text("id,question\n" + "".join(f"{n},hello\n" for n in range(40)))
    ended = subprocess.run(
        [sys.executable, "-c", FULL, *call("-q", "--limit", "40")], capture_output=True, text=True, check=False
    )
    first, *more = ended.stderr.splitlines()
    assert ended.returncode == 5
    assert first.startswith("agentruns: OUTPUT 'out.jsonl' could not be written: No space left on device. Free some")
    assert len(more) == 2
    assert more[0].endswith("go on with:")
