"""The law of printing: whatever a vendor or a model says, a terminal and a log obey none of it, and see all of it."""

import ast
import asyncio
import io
import json
import logging
import re
import shutil
import subprocess
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeGuard
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from agentruns import Action, Failure, Run, RunRef, RunStatus, ToolOutput, errors, middesk
from agentruns._values.exchange import Problem, Request, Response
from agentruns._values.printable import printable, printable_json
from agentruns.cli import arguments, commands, display, printing, shell_text
from agentruns.cli.batch import progress
from agentruns.cli.batch.output import Output, lines
from tests.scripted_wire import (
    CONVERSATION,
    HEAD,
    POLL,
    RUN,
    START,
    Answer,
    Scripted,
    VirtualLoop,
    Wire,
    client_of,
    conversation,
    problem,
    run_body,
)

SEEN_BY_NOBODY: Final = "\u200b\u2060\ufeff\U000e0041"
HARMFUL: Final = (
    *map(chr, (*range(0x20), *range(0x7F, 0xA0))),  # C0, DEL, C1
    *"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",  # bidi
    *"\u2028\u2029\ud83d",  # breaks of lines; half of a character
    *SEEN_BY_NOBODY,
)
FAMILY: Final = "Müller \u0915\u094d\u200d\u0937 👩\u200d👧 日本"
"""Texts as people write them: a joiner within a word and within a picture stays."""

ATTACKS: Final = (
    "\x1b]52;c;cm0gLXJmIH4=\x07",  # sets the clipboard
    "\x1b]0;root\x07\x1b[2J\x1b[H",  # sets the title, clears the screen
    "\x9b2J\x9d0;root\x9c",  # the same in C1
    "\rcompleted   9a4e1f52\nanswer: all is well",
    "invoice\u202efdp.exe",
    "ok\u2028CRITICAL:root:forged",
    "[bold]x[/] \\",
)

texts = st.one_of(st.sampled_from(ATTACKS), st.text(st.one_of(st.sampled_from(HARMFUL), st.characters()), max_size=12))
told = texts.filter(lambda text: "\ud83d" not in text and not any("\ud800" <= mark <= "\udfff" for mark in text))
"""What JSON may carry: no halves of characters."""


def assert_safe(printed: str, *, lines: int | None = None) -> None:
    harm = [mark for mark in printed.replace("\n", "") if mark in HARMFUL]
    assert not harm, f"{harm!r} in {printed!r}"
    if lines is not None:
        assert printed.count("\n") == lines, printed


HOSTILE_WORD: Final = "x\x1b[2J\u202e\nERROR forged"


@given(texts)
@example(FAMILY)
def test_printable_text_is_one_line_that_obeys_nothing_and_hides_nothing(text: str) -> None:
    made = printable(text)
    assert not set(made) & set(HARMFUL)
    assert printable(made) == made
    assert made.encode().decode() == made
    kept = re.sub(r"\\(x..|u....|U........|[nrt])", "", made)
    assert all(mark in text for mark in kept)


def test_texts_as_people_write_them_stay_as_they_are() -> None:
    assert printable(FAMILY) == FAMILY


def test_every_control_character_is_escaped() -> None:
    for code in range(0x110000):
        if unicodedata.category(chr(code)) in {"Cc", "Cs", "Zl", "Zp"} or unicodedata.bidirectional(chr(code)) in {
            "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
        }:  # fmt: skip
            assert printable(chr(code)).isascii(), hex(code)


@given(told)
def test_printable_json_means_the_same(text: str) -> None:
    line = json.dumps({text: [text]}, ensure_ascii=False)
    assert_safe(printable_json(line), lines=0)
    assert json.loads(printable_json(line)) == {text: [text]}


# What a command prints ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["list", "narrative", HOSTILE_WORD],
        [HOSTILE_WORD],
        ["vendors", HOSTILE_WORD],
        ["run", HOSTILE_WORD],
        [f"--{HOSTILE_WORD}"],
    ],
)
def test_what_is_wrong_with_a_command_line_is_said_in_one_safe_line(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        arguments.parse(words)

    said = capsys.readouterr().err.splitlines()[-1]
    assert "error: " in said
    assert r"\x1b[2J" in said
    assert r"\\x1b" not in said  # escaped once
    assert said == printable(said)


def test_commands_print_through_one_function() -> None:
    folder = Path(commands.__file__).parent
    for path in folder.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {each.func.id for each in calls if isinstance(each.func, ast.Name)}
        attributes = {each.func.attr for each in calls if isinstance(each.func, ast.Attribute)}
        if path.name != "printing.py":
            assert "print" not in names, path
            assert "write" not in {each.func.attr for each in calls if _is_on_a_terminal(each.func)}, path
        assert not attributes & {"print_exc", "print_exception", "print_stack"}, path


def _is_on_a_terminal(function: ast.expr) -> TypeGuard[ast.Attribute]:
    """Tell whether a function is a method of `sys.stdout` or `sys.stderr`."""
    owner = function.value if isinstance(function, ast.Attribute) else None
    return isinstance(owner, ast.Attribute) and owner.attr in {"stdout", "stderr"}


@settings(deadline=None, max_examples=50)
@given(text=told)
def test_every_line_of_the_output_of_a_batch_is_safe_and_means_the_same(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("batch") / "out.jsonl"
    line = {"key": text, "status": "completed", "attempts": 1, "durations": {}, "vendor": "v", "output": {text: text}}
    with Output(path, "v") as output:
        output.append(line)
    assert_safe(path.read_text())
    assert list(lines(path)) == [line]


def spoiled(value: Any, spoil: Callable[[], str | None]) -> Any:
    """Return a JSON value in which *spoil* has replaced some of the texts."""
    if isinstance(value, dict):
        return {key: spoiled(each, spoil) for key, each in value.items()}
    if isinstance(value, list):
        return [spoiled(each, spoil) for each in value]
    return (spoil() or value) if isinstance(value, str) else value


RUN_ID: Final = "run_7f3a9b2c41d8e605"
LIST: Final = "GET /v1/runs"
COMMANDS: Final[Mapping[str, list[str]]] = {
    "watch": ["narrative", RUN],
    "run": ["narrative", "--conversation-id", CONVERSATION, "--text", "hi"],
    "start": ["narrative", "--conversation-id", CONVERSATION, "--text", "hi"],
}


@pytest.mark.parametrize("json_lines", [False, True], ids=["lines", "json"])
@pytest.mark.parametrize("command", list(COMMANDS))
@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=30,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(data=st.data())
def test_no_field_of_a_vendor_reaches_the_terminal_as_it_is(
    command: str,
    json_lines: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: st.DataObject,
) -> None:
    def spoil() -> str | None:
        return data.draw(st.one_of(st.none(), told))

    def answer(status: str) -> Answer:
        body = run_body(status)
        shown = "\x1b[2J" if status == "running" and data.draw(st.booleans()) else status
        kept = {"status": shown, "started_at": body["started_at"]}
        return Answer(spoiled(body, spoil) | kept | {"completed_at": body["completed_at"]})

    end = data.draw(st.sampled_from(["completed", "failed", "requires_action", "refused"]))
    refusal = problem(404, "not-found", "no")
    last = Answer(spoiled(json.loads(refusal.body), spoil), 404) if end == "refused" else answer(end)
    states: list[Scripted] = [answer("running"), last]  # asked for by whatever id the vendor gave
    wire = Wire({})
    wire.script = defaultdict(lambda: states, {HEAD: [conversation()], START: [answer("running")]})
    monkeypatch.setattr(commands, "_client", lambda args: client_of(wire))
    monkeypatch.setattr(asyncio, "run", virtually)
    capsys.readouterr()
    commands.main([command, *COMMANDS[command], *(["--json"] if json_lines else [])])
    out, err = capsys.readouterr()
    assert_safe(out)
    assert_safe(err)
    assert "Traceback" not in err
    if json_lines:
        assert all(Run.from_json(line) for line in out.splitlines())
    else:
        marks = ("completed", "failed", "requires_action", "running", "pending", "asks ", "answer: ", "tokens: ")
        assert all(re.sub(r"^ *([0-9.]+ s  )?", "", line).startswith(marks) for line in out.splitlines()), out


def virtually(main: Any) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=told)
def test_no_field_of_a_list_reaches_the_terminal_as_it_is(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"object": "run", "id": text or "x", "thread_id": text, "status": "completed", "type": text}
    wire = Wire({LIST: Answer({"object": "list", "data": [row], "has_more": False})})
    monkeypatch.setattr(commands, "_client", lambda args: client_of(wire, middesk))
    capsys.readouterr()
    commands.main(["list", "middesk"])
    out, err = capsys.readouterr()
    assert_safe(out)
    assert_safe(err)


def hostile_run(text: str) -> Run:
    return Run(
        ref=RunRef(text or "x", text),
        status=RunStatus.FAILED,
        vendor="narrative",
        vendor_status=text,
        actions=(Action(text, text, {text: text}),),
        output={text: text},
        failure=Failure(text, text),
        raw={},
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts.filter(bool))
def test_every_way_to_show_a_run_is_safe(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "9999")
    ways: list[display.Display] = [display.Plain(), display.Coloured()]
    try:
        text.encode()
        ways.append(display.JsonLines())
    except UnicodeEncodeError:
        text = text.replace("\ud83d", "")
        text = text.encode("utf-8", "ignore").decode() or "x"
    for way in ways:
        capsys.readouterr()
        way.state(hostile_run(text))
        way.entry(hostile_run(text))
        way.remark(text)
        way.close()
        out, err = capsys.readouterr()
        json_lines = isinstance(way, display.JsonLines)
        assert_safe(out, lines=2 if json_lines else 6)
        assert_safe(err, lines=int(json_lines))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts.filter(bool))
def test_every_way_to_show_progress_is_safe(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "9999")
    picture = progress.Picture(1.0, {"completed": 1}, {}, {}, 1, None, None, client_of(Wire({})).stats())
    for view in (progress.Plain(out := io.StringIO()), progress.Quiet()):
        capsys.readouterr()
        shown(view, text, picture)
        assert_safe(out.getvalue())
        assert_safe(capsys.readouterr().err)
    plain, hostile = Terminal(), Terminal()
    shown(progress.Live(plain), "x", picture)
    shown(progress.Live(hostile), text, picture)
    for mark in HARMFUL:  # a live table moves the cursor; as often as it must, and not once more
        assert hostile.getvalue().count(mark) == plain.getvalue().count(mark)


def shown(view: progress.View, text: str, picture: progress.Picture) -> None:
    view.trouble(text)
    view.say(text)
    view.close(picture)


@given(text=told)
def test_an_error_of_a_handler_cannot_forge_a_line(text: str) -> None:
    def fails() -> None:
        raise ValueError(text) from KeyError(text)

    written = io.StringIO()
    try:
        fails()
    except ValueError as error:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stderr", written)
            printing.complain_traceback(error)
    lines = written.getvalue().splitlines()
    assert_safe(written.getvalue())
    assert lines[-1] == printable(f"ValueError: {text}").rstrip() or lines[-1].startswith("ValueError")
    begins = (" ", "Traceback", "The above exception", "ValueError", "KeyError")
    assert all(not line or line.startswith(begins) for line in lines), lines


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("word", ["plain", "two words", "it's", "a\x1b[2J\\'b", "é\u202e\u009b", "$(touch x)\n`x`"])
def test_a_command_to_paste_names_what_it_says(word: str) -> None:
    line = printing.shell(["printf", "%s", word])
    assert_safe(line, lines=0)
    told = subprocess.run(["bash", "-c", line], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    assert told.stdout.decode() == word


# Errors and logs ------------------------------------------------------------------------------------------------------


def every_error(text: str) -> Iterator[errors.AgentRunsError]:
    request = Request("GET", f"/runs/{quote(text, errors='replace')}")
    response = Response(400, {}, text.encode("utf-8", "replace"), request)
    said = Problem(text, text, text, text, text, {}, (text,))
    for kind in vars(errors).values():
        if not isinstance(kind, type) or not issubclass(kind, errors.AgentRunsError):
            continue
        if issubclass(kind, errors.AlreadyAnsweredError):
            yield kind(hostile_run(text), (ToolOutput(Action(text, text), text, is_error=True),), text)
        elif issubclass(kind, errors.APIError):
            yield kind(response, said)
            yield kind(response)
        elif issubclass(kind, errors.RunError):
            yield kind(hostile_run(text), text)
        elif issubclass(kind, errors.JournalError):
            yield kind(text, text, text)
        elif issubclass(kind, errors.TransportError | errors.OutcomeUnknownError):
            yield kind(request, text)
        else:
            yield kind(text)
    yield errors.ConfigurationError(text, field=text, remedy=text)


@given(text=texts)
def test_the_text_of_every_error_is_one_safe_line(text: str) -> None:
    args = arguments.parse(["watch", "narrative", RUN])
    for error in every_error(text):
        assert_safe(str(error), lines=0)
        assert_safe(printable(shell_text.translate(error, args)), lines=0)


@pytest.mark.parametrize("text", ATTACKS)
def test_every_record_of_the_log_is_one_safe_line(text: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "agentruns")
    begun = run_body() | {"status": text}
    failed = run_body("failed", error={"type": text, "message": text})
    wire = Wire({POLL: [Answer(begun), Answer({"detail": text}, 503), Answer(failed)]})

    async def follow() -> None:
        async with client_of(wire) as client:
            await client.result(RunRef(RUN, text))

    with pytest.raises(errors.RunFailedError) as caught:
        virtually(follow())
    assert_safe(str(caught.value), lines=0)
    assert len(caplog.records) > 1
    for record in caplog.records:
        assert_safe(record.getMessage(), lines=0)
        for name, value in vars(record).items():
            if name.startswith("agentruns_"):
                assert_safe(str(value), lines=0)
