"""From the shell alone: what `agentruns emulate` prints starts a run, and a rehearsal is as one asks for."""

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentruns.cli import commands, emulate, emulators
from agentruns.emulator import Emulator, Narrative, Turn
from tests.command_lines import at_hand


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator[Narrative]]:
    with at_hand(monkeypatch, tmp_path) as running:
        yield running


@pytest.mark.parametrize("command", ["run", "start"])
def test_a_run_is_started_in_a_new_conversation_that_a_file_describes(
    command: str, emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main([command, "narrative", "--conversation", "conversation.json", "--text", "Hi", "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["ref"]["parent"] != "a new conversation"
    assert emulator.state.runs_started == 1


@pytest.mark.parametrize("words", [[], ["--conversation", "conversation.json", "--conversation-id", "c"]])
def test_a_conversation_is_named_or_described_and_not_both(
    words: list[str], emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(["run", "narrative", "--text", "Hi", *words]) == 2
    assert "--conversation-id of one that exists, or --conversation FILE" in capsys.readouterr().err
    assert not emulator.requests()


@pytest.mark.usefixtures("prompt_origami")
@pytest.mark.parametrize("vendor", ["narrative", "middesk", "origami", "conduit"])
def test_the_command_that_emulate_prints_starts_a_run(
    vendor: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"retry_after": 0} if vendor == "origami" else {}
    with Emulator(vendor, **options) as running:
        example = emulators.example_of(vendor, running)
        text, variables, command = emulate._lines(vendor, running, example, json=False)
        told = json.loads(emulate._lines(vendor, running, example, json=True)[0])
        assert text.startswith(f"{vendor} is emulated at")
        assert told["example"]
        for each in variables.split()[1:]:
            monkeypatch.setenv(*each.split("=", 1))
        assert commands.main([*shlex.split(command)[1:], "--json"]) in {0, 3}
        assert running.state.runs_started == 1


def args(**given: Any) -> Any:
    return SimpleNamespace(**({"run_seconds": None, "fail": None, "slots": None, "limit": None} | given))


def test_a_rehearsal_has_runs_as_long_as_one_asks_for_and_a_share_that_fails() -> None:
    alter = emulate._alteration(args(run_seconds=7.0, fail=0.25))
    turns = [alter(Turn("done")) for _ in range(1000)]
    assert {turn.running for turn in turns} == {7.0}
    assert 200 < sum(turn.error is not None for turn in turns) < 300
    assert emulate._alteration(args()) is None


def test_slots_and_limits_are_those_of_the_vendors_that_have_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert emulate._options(args(slots=3, limit=5), "origami") == {"slots": 3, "requests_per_minute": 300}
    assert emulate._options(args(limit=5), "middesk") == {"rate_limit": 5}
    for words in (["narrative", "--slots", "3"], ["conduit", "--limit", "5"], ["origami", "--fail", "2"]):
        assert commands.main(["emulate", *words]) == 2
    told = capsys.readouterr().err
    assert "--slots is for origami" in told
    assert "--limit is for middesk and origami" in told
    assert "--fail is 2" in told


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        commands.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("agentruns 0.")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_shell_completes_commands_vendors_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("emulate", "middesk", "retry-failed", "conversation", "max-total-tokens"):
        assert word in script


def test_completion_without_its_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert commands.main(["completion", "bash"]) == 2
    assert "agentruns[cli]" in capsys.readouterr().err
