"""How commands end when they are told to, or when nobody can read what they say."""

import asyncio
import os
import signal
import stat
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from agentruns import DeadlineExceededError
from agentruns.cli import commands, report


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(commands, "_ended_by_signal", lambda code: code)  # the process is that of other tests, too
    return tmp_path


async def _waits(*_: Any) -> int:
    with tempfile.TemporaryDirectory():
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(3600)
    raise AssertionError


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["run", "conduit", "--agent-id", "a"],
            "no run was seen; a start may have taken effect, so look at the vendor",
        ),
        (["start", "conduit", "--agent-id", "a"], "no run was seen; a start may have taken effect, so look at the"),
        (["watch", "conduit", "r"], "run r was not seen; watch it again with:\n  agentruns watch conduit r\n"),
        (["demo"], "the emulated vendor has ended, and its runs with it; start over with:\n  agentruns demo\n"),
        (["list", "conduit"], ""),
    ],
)
def test_a_command_that_is_ended_before_it_saw_a_run_clears_away_what_it_made_and_tells_what_may_be_left(
    words: list[str], told: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(commands._COMMANDS, words[0], _waits)
    assert commands.main(words) == commands.TERMINATED
    shown = capsys.readouterr().err
    assert shown.startswith(told)
    assert bool(shown) is bool(told)
    assert list(folder.iterdir()) == []


def test_a_watch_that_saw_nothing_in_time_speaks_of_no_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def late(*_: Any) -> int:
        raise DeadlineExceededError(None, "3 s have passed", begun=words[0] == "run")

    for words, told in (
        (
            ["watch", "conduit", "r"],
            "Nothing was started: make the same call again, or allow more --timeout\nrun r was",
        ),
        (["run", "conduit", "--agent-id", "a"], "If a start was under way it may have taken effect: the same command"),
    ):
        monkeypatch.setitem(commands._COMMANDS, words[0], late)
        assert commands.main(words) == commands.DEADLINE
        assert f"3 s have passed; no state of the run was seen. {told}" in capsys.readouterr().err


def test_sigterm_ends_the_console_which_leaves_no_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jinja2")
    from agentruns.cli import console

    def say(*_: str) -> None:
        assert list(folder.iterdir())
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(console, "say", say)
    assert commands.main(["console", "--emulator", "conduit"]) == commands.COMPLETED
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("words", [["vendors"], ["vendors", "--json"], ["vendors", "origami"]])
def test_a_full_stdout_is_said_without_a_traceback(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    full = Path("/dev/full").open("w")  # noqa: SIM115 - closing it would fail
    monkeypatch.setattr("sys.stdout", full)
    assert commands.main(words) == commands.TROUBLE
    full.close()
    said = capsys.readouterr().err
    assert "agentruns: stdout cannot be written: No space left on device" in said
    assert "Traceback" not in said


def test_a_full_stderr_changes_no_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    full = Path("/dev/full").open("w")  # noqa: SIM115 - closing it would fail
    monkeypatch.setattr("sys.stderr", full)
    assert commands.main(["console", "nowhere.db"]) == commands.USAGE
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, full.fileno())
    os.close(null)
    full.close()


def test_a_closed_stdout_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert commands.main(["vendors"]) == commands.COMPLETED


def test_a_report_is_made_for_its_owner_only_and_keeps_the_mode_that_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds what the journal guards."""
    monkeypatch.setattr(report, "read", lambda path: [])
    monkeypatch.setattr(report, "draw", lambda items: None)
    monkeypatch.setattr(report, "svg", lambda figure: "")
    monkeypatch.setattr(report, "page", lambda *_: "<title>agentruns batch: x</title>")
    (tmp_path / "out.jsonl").touch()
    given = Namespace(output=str(tmp_path / "out.jsonl"), html=None, png=None)
    report.report(given)
    made = tmp_path / "out.html"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    made.chmod(0o644)
    report.report(given)
    assert stat.S_IMODE(made.stat().st_mode) == 0o644
