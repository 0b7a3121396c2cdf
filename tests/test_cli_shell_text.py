"""What went wrong, as the command line says it: options, variables and commands, and no Python."""

import argparse
import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentruns
from agentruns import Run, RunRef, RunStatus, errors
from agentruns._api.channel import TOO_SLOW
from agentruns._values.exchange import Request, Response
from agentruns.cli import commands, shell_text
from agentruns.cli.display import warnings
from agentruns.emulator import Emulator, Turn

PACKAGE = Path(agentruns.__file__).parent
PYTHON = re.compile(r"`[^`]*\w[=(][^`]*`|\b(RunRef|Run|Prompt|Dispatch|UserMessage|RunRequest|str|Options)\b[(.]|\w=\W")
NOWHERE = "http://127.0.0.1:9"
TOKENS = {
    "NARRATIVE_TOKEN": "t",
    "MIDDESK_API_KEY": "t",
    "ORIGAMI_API_KEY": "og_t",
    "CONDUIT_API_TOKEN": "t",
}
SAID = ["--conversation-id", "5e0c7d4a-93a5-4a37-8a0e-2f4b8c6d1e90", "--text", "Hello"]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["list", "origami"], "finds a run only by its agent; name it by --parent AGENT_ID"),
        (["watch", "origami", "r"], "name it by --parent AGENT_ID"),
        (["list", "conduit"], "runs are listed by their agent; name it by --parent AGENT_ID"),
        (["watch", "conduit", "ar-1"], "run ar-1 can only be read with its agent; name it by --parent AGENT_ID"),
        (["watch", "narrative", "r", "--timeout", "nan"], "--timeout is nan; it must be"),
        (["run", "narrative", *SAID, "--timeout", "0"], "--timeout is 0.0; it must be"),
        (["run", "narrative", *SAID, "--expected-version", "-1"], "--expected-version is -1"),
        (["run", "narrative", *SAID, "--client-op-id", "q"], "--client-op-id is 'q'; it must be the text of a UUID"),
        (["run", "narrative", *SAID, "--config-override", '{"a": 1}'], "--config-override has a, which"),
        (["run", "narrative", *SAID[:3], ""], "--text is ''; it must be"),
        (["run", "origami", "--prompt", "x", "--idempotency-key", "a b"], "--idempotency-key is 'a b'; it must be"),
        (["run", "origami", "--prompt", "x", "--focus-table-ids", '"t"'], "'t' stands where a list is needed"),
        (["run", "origami", "--prompt", "x", "--agent-id", "a", "--name", "n"], "leave it out where --agent-id says"),
        (["start", "middesk", "--type", "a"], "give either --business-id, or both --context-type and --context-id"),
        (["list", "middesk", "--base-url", "http://10.0.0.7"], "use https, or pass --insecure if you accept that"),
        (["list", "middesk", "--base-url", "ftp://10.0.0.7"], "the base URL is not one"),
        (["list", "middesk", "--base-url", ""], "the base URL is empty; it must look like https://"),
    ],
)
def test_wrong_usage_is_told_in_options(
    argv: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, token in TOKENS.items():
        monkeypatch.setenv(name, token)
    more = [] if "--base-url" in argv else ["--base-url", NOWHERE]
    assert commands.main([*argv, *more]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert not PYTHON.search(said), said


@pytest.mark.parametrize("vendor", ["narrative", "middesk", "origami", "conduit"])
def test_a_token_that_is_missing_is_asked_for_by_its_variable(
    vendor: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in TOKENS:
        monkeypatch.delenv(name, raising=False)
    assert commands.main(["watch", vendor, "r", "--parent", "p"]) == 2
    (variable,) = (name for name in TOKENS if name.lower().startswith(vendor))
    assert capsys.readouterr().err == (
        f"agentruns: there is no token for {vendor}; set the environment variable {variable}\n"
    )


def test_a_deadline_names_the_command_that_watches_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Emulator("middesk", script=[Turn("Done.", running=100)]) as running:
        monkeypatch.setenv("MIDDESK_API_KEY", running.token)
        origin = ["--type", "cip_orchestrator", "--business-id", "b86f3c52-11d9-4f07-8e6a-90c2d5a7714f"]
        assert commands.main(["run", "middesk", *origin, "--base-url", running.base_url, "--timeout", "1.5"]) == 4
    said = capsys.readouterr().err
    assert "or allow more --timeout" in said
    assert "agentruns watch middesk" in said
    assert not PYTHON.search(said), said


def args_of(command: str, vendor: str | None = "narrative") -> argparse.Namespace:
    return argparse.Namespace(command=command, vendor=vendor)


def paused() -> Run:
    return Run(RunRef("r", "c"), RunStatus.REQUIRES_ACTION, "requires_action", vendor="narrative", raw={})


@pytest.mark.parametrize("command", ["run", "batch"])
@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RunError)],
)
@pytest.mark.parametrize("run", [paused(), None])
def test_no_hint_is_python(kind: type[errors.RunError], command: str, run: Run | None) -> None:
    said = shell_text.translate(kind(run, "it did not end"), args_of(command))
    assert said.startswith("it did not end; ")
    assert not PYTHON.search(said), said
    assert "origin" not in said


def test_a_hint_within_another_error_is_said_anew_too() -> None:
    inner = f"GET /x was answered 429: slow down. {errors.RateLimitedError.hint}"
    error = errors.DeadlineExceededError(paused(), f"5 s have passed, and the last request failed ({inner})")
    assert "connect(" in str(error)
    assert "(GET /x was answered 429: slow down. Send less (--budget, --limit), or" in shell_text.translate(
        error, args_of("batch")
    )
    assert not PYTHON.search(shell_text.translate(error, args_of("run")))


@pytest.mark.parametrize("command", ["run", "batch"])
def test_what_no_option_helps_is_not_told_in_python(command: str) -> None:
    request = Request("GET", "/runs/r")
    slow = errors.TransportError(request, "no whole answer within 30 s", hint=TOO_SLOW)
    assert shell_text.translate(slow, args_of(command)) == "no answer to GET /runs/r: no whole answer within 30 s"
    late = shell_text.translate(errors.AlreadyAnsweredError(paused(), ()), args_of(command))
    assert late.endswith("what came of the first answer")
    assert "client." not in late


def test_what_others_say_stays_as_it_is() -> None:
    text = "there is no token; pass `token=`"
    assert shell_text.translate(ValueError(text), args_of("run")) == text
    assert shell_text.translate(errors.ProtocolError("agent_id is 3"), args_of("run", "origami")) == "agent_id is 3"
    assert shell_text.translate(errors.ConfigurationError("agent_id is 'agent_id'"), args_of("run", "origami")) == (
        "--agent-id is 'agent_id'"
    )
    assert shell_text.translate(errors.ConfigurationError("agent_id"), args_of("demo", None)) == "agent_id"


def texts(node: ast.AST) -> Iterator[str]:
    """
    Iterate over the texts in a module's source, without docstrings and remedies.

    What is filled in stands as x, or as 'x'.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.JoinedStr):
            yield "".join(filled(part) for part in child.values)
        elif isinstance(child, ast.Constant):
            if isinstance(child.value, str) and not isinstance(node, ast.Expr):
                yield child.value
        elif not is_remedy(child):
            yield from texts(child)


def is_remedy(node: ast.AST) -> bool:
    """Tell whether a node gives an error its remedy, when it is made or later."""
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Attribute) and target.attr == "remedy" for target in node.targets)
    return isinstance(node, ast.keyword) and node.arg == "remedy"


def filled(part: Any) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    return "'x'" if part.conversion == ord("r") else "x"


def fields_with_remedy(tree: ast.AST) -> Iterator[str]:
    """Iterate over the fields of the errors in a module's source that have a remedy; "" for a field that varies."""
    for node in ast.walk(tree):
        given = {each.arg: each.value for each in node.keywords} if isinstance(node, ast.Call) else {}
        if "remedy" in given:
            field = given.get("field")
            yield str(field.value) if isinstance(field, ast.Constant) else ""


def parsed(*names: str) -> Iterator[ast.AST]:
    for name in names:
        yield ast.parse((PACKAGE / name).read_text())


CORE = [
    "client.py",
    "_api/address.py",
    "_api/flow.py",
    "_api/limiter.py",
    "_api/transport.py",
    "_api/answering.py",
    "_api/operations.py",
    "_api/origins.py",
    "_keeping/journal/problems.py",
    "_keeping/posting.py",
    "_keeping/starting.py",
    "_values/check.py",
    "errors.py",
]
DIALECTS = [
    "dialects/middesk/__init__.py",
    "dialects/origami/prompts.py",
    "dialects/origami/runs.py",
    "dialects/search.py",
    "dialects/conduit/dispatch.py",
    "dialects/search.py",
    "dialects/conduit/reading.py",
]
NOT_OF_A_COMMAND = (
    "`async with connect(...) as client:`",
    "`key` names work in a journal",
    "this client has no journal",
    "can be answered",
    "cannot be answered",
    "outputs must be a sequence",
    "Read it again with `client.fetch(run)`",
    "read it by `client.fetch(run)`",
    "is no dialect",
    "`Retry(attempts=4)`",
    ".variant(",
)
"""
What no command can run into: it answers by handlers alone, and its client is open and has a journal for its keys. A
variant is Python in any case: commands take the file that makes it.
"""


def test_every_remedy_of_a_shell_is_in_place_of_one_that_the_library_gives() -> None:
    given = {field for tree in parsed(*CORE, *DIALECTS) for field in fields_with_remedy(tree)}
    assert shell_text.REMEDIES.keys() <= given


@pytest.mark.parametrize("field", ["", "base_url", "elsewhere", *shell_text.REMEDIES])
@pytest.mark.parametrize("vendor", ["conduit", None])
def test_a_remedy_in_python_is_never_shown(field: str, vendor: str | None) -> None:
    python = "pass `token=`, or str(uuid.uuid4())"
    said = shell_text.translate(
        errors.ConfigurationError("it is wrong", field=field, remedy=python), args_of("batch", vendor)
    )
    assert said.startswith("it is wrong; " if field in shell_text.REMEDIES else "it is wrong")
    assert not PYTHON.search(said), said


def test_a_start_that_is_kept_is_looked_for_by_the_same_call() -> None:
    error = errors.OutcomeUnknownError(
        Request("POST", "/runs"), "no answer came", remedy="`client.stream(RunRef(id, parent), key='k')` goes on"
    )
    said = shell_text.translate(error, args_of("batch"))
    assert "is unknown: no answer came; the same call looks again; " in said
    assert not PYTHON.search(said), said


@pytest.mark.parametrize(
    ("command", "who"), [("run", "atching it again"), ("watch", "atching it again"), ("batch", "he same call")]
)
@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidRequestError(Response(400, {}, b"no", Request("POST", "/runs/r")), None),
        errors.TransportError(Request("POST", "/runs/r"), "it was reset"),
    ],
)
def test_an_answer_that_was_refused_or_lost_is_answered_by_a_command(
    error: errors.AgentRunsError, command: str, who: str
) -> None:
    error.remedy = "`client.resume(run, outputs)` answers run r once that is put right"
    said = shell_text.translate(error, args_of(command))
    assert said.endswith(f"{who} answers it once that is put right, if it still waits")
    assert not PYTHON.search(said), said


def test_a_refusal_keeps_no_other_remedy_in_python() -> None:
    error = errors.InvalidRequestError(Response(400, {}, b"no", Request("POST", "/runs/r")), None)
    plain = str(error)
    error.remedy = "It has moved on: `narrative.UserMessage(conversation_id, text)` goes on from where it is"
    assert str(error) != plain
    assert shell_text.translate(error, args_of("run")).removesuffix(".") == plain.removesuffix(".")


def test_no_text_of_the_library_that_a_command_may_show_stays_python() -> None:
    found = {text for tree in parsed(*CORE, *DIALECTS) for text in texts(tree)}
    python = {text for text in found if "`" in text and PYTHON.search(text)}
    shown = {text for text in python if not any(each in text for each in NOT_OF_A_COMMAND)}
    assert len(shown) > 4
    said = {shell_text.translate(errors.AgentRunsError(text), args_of("batch", "conduit")) for text in shown}
    assert {each for each in said if PYTHON.search(each)} == set()


# What is logged -------------------------------------------------------------------------------------------------------


def test_warnings_are_lines_and_what_nobody_waited_for_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("agentruns")
    with warnings():
        logger.warning("a handler does not end: %s", "it")
        logger.warning("a stream was let go of before it could tell", exc_info=ValueError("no"))
        logger.debug("by the way")
    logger.warning("too late")
    assert capsys.readouterr().err == "agentruns: a handler does not end: it\n"
