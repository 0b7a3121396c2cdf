"""The command line: what it prints, and which exit code it ends with."""

import asyncio
import inspect
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

from agentruns import Run, RunStatus, connect, narrative
from agentruns.cli import arguments, commands, display, emulators, stories
from agentruns.cli.fields import kind_of
from agentruns.dialects import NAMES, NoAuth, load
from agentruns.dialects.names import shipped
from agentruns.dialects.vendor import Vendor
from agentruns.emulator import Call, Emulator, Fault, Narrative, Turn
from agentruns.emulator.server import vendor_of
from tests.command_lines import use
from tests.scripted_wire import run_body

WORDS = ["--conversation-id", "--text"]


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator[Narrative]]:
    with Emulator("narrative") as running:
        use(running, monkeypatch)
        yield running


@pytest.fixture
def conversation_id(emulator: Emulator[Narrative]) -> str:
    async def create() -> str:
        tools = {"confirm_booking": confirm_booking}
        async with connect(narrative) as client:
            created = await client.perform(
                narrative.create_conversation(
                    narrative.Config(
                        model="m",
                        data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
                        max_iterations=8,
                        max_tokens=2048,
                        output_format_schema=narrative.TEXT_SCHEMA,
                        client_tools=[narrative.client_tools(tools, alias="user")],
                    )
                )
            )
        return created.id

    return asyncio.run(create())


def confirm_booking(proposed_slot: str) -> bool:
    """Ask the user to confirm a slot."""
    return True


def ask(conversation: str, *more: str, command: str = "run") -> list[str]:
    return [command, "narrative", "--conversation-id", conversation, "--text", "Hello", *more]


def test_run_follows_a_run_and_exits_with_action_required(
    conversation_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(ask(conversation_id)) == 3
    shown, said = capsys.readouterr()
    assert "requires_action" in shown
    assert "asks user-confirm_booking" in shown
    assert said.startswith("agentruns: no handler for user-confirm_booking; run ")
    assert ". Give --tools with a handler for each action\nrun " in said
    assert "waits at narrative for an answer; watch it again with:\n  agentruns watch narrative " in said


def test_tools_from_a_file_answer(
    conversation_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_handlers.py").write_text(
        textwrap.dedent(
            """
            from agentruns import Tools
            tools = Tools()
            @tools.add
            def confirm_booking(proposed_slot: str) -> dict:
                return {"confirmed": True}
            """
        )
    )
    assert commands.main(ask(conversation_id, "--tools", f"{tmp_path / 'my_handlers.py'}:tools")) == 0
    assert commands.main(ask(conversation_id, "--tools", "my_handlers:tools", "--json")) == 0
    last = Run.from_json(capsys.readouterr().out.splitlines()[-1])
    assert last.status is RunStatus.COMPLETED
    assert "confirm_booking" in last.output


def test_json_prints_one_run_per_state(
    conversation_id: str, emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.script = [Turn("Done.", running=0.3)]
    assert commands.main(ask(conversation_id, "--json")) == 0
    states = [Run.from_json(line) for line in capsys.readouterr().out.splitlines()]
    assert states[-1].output == "Done."
    assert all(json.loads(state.to_json())["vendor"] == "narrative" for state in states)


def test_start_prints_the_first_state_and_watch_goes_on(
    conversation_id: str, emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.script = [Turn("Done.", running=0.3)]
    assert commands.main(ask(conversation_id, "--json", command="start")) == 0
    first = Run.from_json(capsys.readouterr().out)
    assert first.status.in_flight
    assert commands.main(["watch", "narrative", first.id, "--progress"]) == 0
    assert "answer: Done." in capsys.readouterr().out


def test_a_failed_run_exits_with_1_and_says_why(
    conversation_id: str, emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.script = [Turn(error="AgentLoopMaxIterationsExceeded")]
    assert commands.main(ask(conversation_id)) == 1
    assert "failed: AgentLoopMaxIterationsExceeded" in capsys.readouterr().out


def test_a_deadline_exits_with_4_and_says_how_to_go_on(
    conversation_id: str, emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.script = [Turn("Done.", running=100)]
    assert commands.main(ask(conversation_id, "--timeout", "0.3")) == 4
    assert "agentruns watch narrative" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["watch", "narrative", "82eb9cb7-619e-46bb-ac1c-8a32b0112c1c"], "404"),
        (["run", "narrative", *WORDS[:1], "5e0c7d4a-93a5-4a37-8a0e-2f4b8c6d1e90", "--text", "Hello"], "404"),
    ],
)
def test_an_api_error_exits_with_5(
    argv: list[str], text: str, emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(argv) == 5
    assert text in capsys.readouterr().err


def test_trouble_after_the_start_says_how_to_go_on(
    conversation_id: str, emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.script = [Turn("Done.", running=100)]
    emulator.fail(Fault.answer(403, method="GET", path="/agents/runs/*"))
    assert commands.main(ask(conversation_id)) == 5
    assert "watch it again with" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more",
    [
        ["--config-override", "not json"],
        ["--config-override", '{"system_prompt": "x"}'],
        ["--expected-version", "-1"],
        ["--tools", "nowhere"],
        ["--tools", "no_such_module:tools"],
        ["--tools", "nofile.py:tools"],
        ["--tools", "json:nothing"],
        ["--timeout", "0"],
        ["--base-url", "http://10.0.0.7"],
    ],
)
def test_wrong_usage_exits_with_2_and_names_what_is_wrong(
    conversation_id: str, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(ask(conversation_id, *more)) == 2
    assert capsys.readouterr().err.startswith("agentruns: ")


@pytest.mark.parametrize("argv", [[], ["run"], ["run", "narrative"], ["dance"], ["watch", "acme", "1"]])
def test_an_incomplete_command_exits_with_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        commands.main(argv)
    assert ended.value.code == 2


def test_no_token_exits_with_2_and_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NARRATIVE_TOKEN", raising=False)
    assert commands.main(["watch", "narrative", "x"]) == 2
    assert "NARRATIVE_TOKEN" in capsys.readouterr().err


TOLD = {
    "narrative": ("asks user-confirm_booking", "answer: Booked", "Starts sent: 3. Answers lost: 1. Runs started: 2,"),
    "middesk": ("(interrupted)", "two list hits dismissed", "Starts sent: 1. Answers lost: 1. Runs started: 1,"),
    "origami": ("(needs_input)", "answer: Built a list", "Starts sent: 2. Answers lost: 1. Runs started: 2,"),
    "conduit": ("completed", "answer: A plumber", "Starts sent: 1. Answers lost: 1. Runs started: 1,"),
    "openai_responses": ("requires_action", "answers ask: yes", "answer: Done."),
    "a2a": ("input_required", "answer: Done."),
    "langgraph": ("requires_action", "answers ask: yes", "Done."),
}


@pytest.mark.parametrize("vendor", TOLD)
def test_the_demo_of_a_vendor_tells_the_whole_story(vendor: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["demo", "--vendor", vendor]) == 0
    told = capsys.readouterr().out
    assert f"{vendor}, emulated at" in told.lower()
    assert all(part in told for part in TOLD[vendor])


@pytest.mark.parametrize("vendor", stories.names())
def test_a_variant_of_a_vendor_is_emulated_as_the_vendor_and_has_its_story(vendor: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"from agentruns import {vendor}\nmine = {vendor}.variant()\n")
    for name in (f"{file}:mine", f"agentruns:{vendor}"):
        assert emulators.emulator_of(name) is emulators.emulator_of(vendor) is vendor_of(vendor)
        assert cast(Any, stories.story_of(name)).func is cast(Any, stories.story_of(vendor)).func
        assert stories.trial_of(name) is stories.trial_of(vendor)


def test_the_demo_of_a_variant_plays_the_variant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from agentruns import narrative\n"
        "def item(output):\n"
        "    print('the variant is asked')\n"
        "    return {'tool_use_id': output.action.id, 'content': str(output.output)}\n"
        "mine = narrative.variant(tool_output=item)\n"
    )
    assert commands.main(["demo", "--vendor", f"{file}:mine"]) == 0
    told = capsys.readouterr().out
    assert all(part in told for part in ("the variant is asked", *TOLD["narrative"]))


def test_the_demo_shows_every_vendor() -> None:
    examples = {name for name in NAMES if hasattr(load(name), "example")}
    assert set(stories.names()) | examples == set(NAMES) == set(TOLD)
    assert arguments.parse(["demo"]).vendor is None


def test_list_prints_the_runs_of_a_vendor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with Emulator("middesk") as running:
        monkeypatch.setenv("MIDDESK_BASE_URL", running.base_url)
        monkeypatch.setenv("MIDDESK_API_KEY", running.token)
        business = ["--business-id", "b86f3c52-11d9-4f07-8e6a-90c2d5a7714f"]
        for _ in range(3):
            assert commands.main(["run", "middesk", "--type", "cip_orchestrator", *business]) == 0
        capsys.readouterr()
        assert commands.main(["list", "middesk", "--limit", "2"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert commands.main(["list", "middesk", "--json"]) == 0
        runs = [Run.from_json(line) for line in capsys.readouterr().out.splitlines()]
        assert commands.main(["list", "middesk", "--limit", "0"]) == 2

    assert len(runs) == 3
    assert [line.split()[:2] for line in lines] == [["completed", run.id] for run in runs[:2]]
    assert f"of {runs[0].ref.parent}" in lines[0]


def test_a_list_that_the_vendor_does_not_have_is_wrong_usage(
    emulator: Emulator[Narrative], capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(["list", "narrative"]) == 2
    said = capsys.readouterr().err
    assert "narrative has no way to list runs; `agentruns vendors narrative` lists what it has" in said


# As a process of its own ----------------------------------------------------------------------------------------------


def test_vendors_lists_what_is_guessed_why_and_how_to_change_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["vendors", "narrative"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "no readable page names the field of the result" in told
    assert "`narrative.variant(tool_output=...)`" in told

    assert commands.main(["vendors", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["vendor"] for row in rows} == {*NAMES, *shipped()}
    about = {"vendor", "source", "capabilities", "token_variable"}
    assert all(row.keys() == {*about, "guess", "taken", "why", "change", "switched"} for row in rows)
    guessing = [row for row in rows if row["guess"] is not None]
    assert {row["vendor"] for row in guessing} == {"narrative", "middesk", "origami", "conduit", *shipped()}
    assert all(row["switched"] is None and row["taken"] and row["why"] and row["change"] for row in guessing)
    for row in rows:
        known = Vendor.of(load(row["vendor"]))
        assert row["source"] == ("agentruns" if row["vendor"] in NAMES else "a table of agentruns")
        assert tuple(row["capabilities"]) == known.capabilities
        assert row["token_variable"] == (None if isinstance(known.AUTH, NoAuth) else known.TOKEN_VARIABLE)

    assert commands.main(["vendors"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    guesses = [line for line in lines if line.startswith("    ")]
    assert not any(line.endswith("-") or line.count("`") % 2 for line in guesses)  # neither names nor code are cut

    with pytest.raises(SystemExit) as caught:
        commands.main(["vendors", "acme"])
    assert caught.value.code == 2


def test_vendors_tells_what_the_variant_of_a_file_has_switched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from agentruns import middesk\n\n"
        "def body(output):\n    return {}\n\n"
        "vendor = middesk.variant(resume_body=body, per_page=25)\n"
    )
    assert commands.main(["vendors", f"{file}:vendor"]) == 0
    told = capsys.readouterr().out
    assert "change   `middesk.variant(resume_body=...)`\n    switched `body` here" in told
    assert "change   `middesk.variant(per_page=...)`\n    switched `25` here" in told
    assert told.count("switched") == 2

    assert commands.main(["vendors", "--json", f"{file}:vendor"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["guess"]: row["switched"] for row in rows} == {
        "resume_body": "body",
        "status": None,
        "per_page": "25",
        "looks": None,
    }


@pytest.mark.parametrize("vendor", NAMES)
@pytest.mark.parametrize("command", ["run", "batch"])
def test_the_help_says_of_each_field_what_it_is_how_it_is_written_and_what_it_is_by_default(
    command: str, vendor: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        commands.main([command, vendor, "--help"])
    told = " ".join(capsys.readouterr().out.split())

    for field in attrs.fields(load(vendor).Origin):
        words = f"{field.metadata['help']}; {kind_of(field)}"
        if field.default is attrs.NOTHING:
            words += "; required" if command == "run" else f"; by default the column {field.name}"
        elif isinstance(field.default, str | float):
            words += f"; by default {field.default!r}"
        assert words in told
    assert "by default ()" not in told


@pytest.mark.parametrize("vendor", ["narrative", "middesk", "origami", "conduit"])
def test_every_guess_has_a_switch(vendor: str) -> None:
    dialect: Any = load(vendor)
    switches = set(inspect.signature(dialect.variant).parameters)

    assert {guess.name for guess in dialect.GUESSES if not guess.change} <= switches
    assert len({guess.name for guess in dialect.GUESSES}) == len(dialect.GUESSES)


def spawn(*argv: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "agentruns", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
    )


def test_ctrl_c_prints_the_runs_id_and_how_to_go_on(conversation_id: str, emulator: Emulator[Narrative]) -> None:
    emulator.script = [Turn("Done.", running=100)]
    process = spawn(*ask(conversation_id))
    with process:
        assert process.stdout is not None
        shown = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)

    run_id = shown.split()[-1]
    assert process.returncode == 130
    assert f"agentruns watch narrative {run_id} --parent {conversation_id}" in said
    assert "Traceback" not in said


def test_a_closed_pipe_ends_quietly_as_a_shell_says_it(conversation_id: str, emulator: Emulator[Narrative]) -> None:
    emulator.script = [Turn("Done.", running=1.0)]
    process = spawn(*ask(conversation_id, "--json"))
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()

    assert process.returncode == 141
    assert "Traceback" not in said


@pytest.mark.parametrize("vendors", [[], ["narrative"], ["origami", "conduit"]])
def test_emulate_serves_any_or_all_until_it_is_stopped(vendors: list[str]) -> None:
    expected = vendors or list(NAMES)
    for more, lines in (["--json"], 1), ([], 3):
        process = spawn("emulate", *vendors, *more)
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            shown = [process.stdout.readline() for _ in range(lines * len(expected))]
            process.send_signal(signal.SIGINT)
            said = process.stderr.read()
        if more:
            served = [json.loads(line) for line in shown]
            assert [each["vendor"] for each in served] == expected
            assert all(each["base_url"].startswith("http://127.0.0.1:") and each["token"] for each in served)
        else:
            assert [line.split()[0] for line in shown[::3]] == expected
            assert "_BASE_URL=http://127.0.0.1:" in shown[1]
        assert "Traceback" not in said


@pytest.mark.parametrize("argv", [["emulate", "acme"], ["emulate", "--port", "8080"]])
def test_what_cannot_be_emulated_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(argv) == 2
    assert capsys.readouterr().err.startswith("agentruns: ")


# On a terminal --------------------------------------------------------------------------------------------------------


def states() -> list[Run]:
    body: Any = run_body()
    asked = {"id": "1", "name": "ask", "arguments": {"a": "[b]"}}
    common = {"vendor": "narrative", "raw": body}
    parked = json.loads(Run(**_first(), **common).to_json())
    return [
        Run.from_json(json.dumps(parked | {"status": status, "vendor_status": word, **more}))
        for status, word, more in (
            ("running", "meditating", {}),
            (
                "requires_action",
                "requires_action",
                {"actions": [asked]},
            ),
            ("failed", "failed", {"failure": {"type": "Boom", "message": "[red]no[/]"}}),
            ("completed", "completed", {"output": "x" * 500}),
        )
    ]


def _first() -> dict[str, Any]:
    from agentruns import RunRef

    return {"ref": RunRef("r1", "c1"), "status": RunStatus.RUNNING, "vendor_status": "running"}


def test_a_terminal_gets_colours_and_a_spinner_and_markup_in_answers_is_only_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    shown = display.choose(json=False)
    assert isinstance(shown, display.Coloured)
    for state in states():
        shown.state(state)
    shown.entry(states()[0])
    shown.remark("[that] is all")
    shown.close()

    told = capsys.readouterr().out
    assert "meditating" in told
    assert "[red]no[/]" in told
    assert "[that] is all" in told
    assert "…" in told


def test_a_terminal_without_rich_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert isinstance(display.choose(json=False), display.Plain)


def test_remarks_do_not_disturb_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = display.choose(json=True)
    lines.remark("by the way")
    lines.close()
    assert capsys.readouterr() == ("", "by the way\n")


def test_the_module_runs_as_a_program() -> None:
    shown = subprocess.run([sys.executable, "-m", "agentruns", "--help"], capture_output=True, text=True, check=True)
    assert "exit codes:" in shown.stdout


# Handlers that block or fail, and a port in use -----------------------------------------------------------------------


HANDLERS = """
import asyncio, time
from agentruns import Tools

blocking = Tools()

@blocking.add(name="book")
def book(slot: str) -> bool:
    print("HANDLER", flush=True)
    time.sleep(3600)  # so a process that ends has not waited for it, however slow the machine
    return True

failing = Tools()

@failing.add(name="book")
async def fails(slot: str) -> bool:
    raise KeyError("bug")
"""


def shell(emulator: Any, conversation_id: str, place: Path, tools: str) -> subprocess.Popen[str]:
    (place / "handlers.py").write_text(HANDLERS)
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "agentruns", "run", "narrative", "--conversation-id", conversation_id),
            *("--text", "hi", "--tools", f"{place / 'handlers.py'}:{tools}"),
        ],
        env={"NARRATIVE_BASE_URL": emulator.base_url, "NARRATIVE_TOKEN": emulator.token, "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def served() -> Any:
    return Emulator("narrative", script=[Turn(calls=[Call("book", {"slot": "9"})]), Turn("done")])


async def new_conversation(emulator: Any) -> str:
    def book(slot: str) -> bool:
        return True

    async with connect(narrative, token=emulator.token, base_url=emulator.base_url) as client:
        return (await client.perform(narrative.create_conversation(config({"book": book})))).id


def config(tools: Any) -> narrative.Config:
    return narrative.Config(
        model="anthropic.claude-opus-4.6",
        data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
        max_iterations=8,
        max_tokens=2048,
        output_format_schema=narrative.TEXT_SCHEMA,
        client_tools=[narrative.client_tools(tools, alias="user")],
    )


@pytest.mark.asyncio
async def test_ctrl_c_does_not_wait_for_a_blocking_handler_and_says_how_to_go_on(tmp_path: Path) -> None:
    with served() as emulator:
        process = shell(emulator, await new_conversation(emulator), tmp_path, "blocking")
        assert process.stdout is not None
        for line in iter(process.stdout.readline, ""):
            if "HANDLER" in line:
                break
        process.send_signal(signal.SIGINT)
        try:
            _, complaint = await asyncio.to_thread(process.communicate, timeout=50)
        finally:
            process.kill()

    assert "agentruns watch" in complaint


@pytest.mark.asyncio
async def test_a_handler_with_a_bug_does_not_exit_as_a_failed_run(tmp_path: Path) -> None:
    with served() as emulator:
        process = shell(emulator, await new_conversation(emulator), tmp_path, "failing")
        await asyncio.to_thread(process.communicate)

    assert process.returncode != 1


@pytest.mark.asyncio
async def test_a_port_in_use_is_told_without_a_traceback() -> None:
    with served() as emulator:
        port = emulator.base_url.rpartition(":")[2]
        line = [sys.executable, "-m", "agentruns", "emulate", "narrative", "--port", port]
        done = await asyncio.to_thread(subprocess.run, line, capture_output=True, text=True, timeout=30, check=False)

    assert ("Traceback" in done.stderr, done.returncode == 1) == (False, False)
