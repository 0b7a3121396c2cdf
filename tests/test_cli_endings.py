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


def test_sigterm_ends_a_command_which_clears_away_what_it_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(commands._COMMANDS, "watch", _waits)
    assert commands.main(["watch", "conduit", "run-1"]) == commands.TERMINATED
    assert "no run was seen" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


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
