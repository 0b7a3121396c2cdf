"""`agentruns console`: what it needs, what it refuses, and that it stops."""

import asyncio
import builtins
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from agentruns.cli import arguments, commands
from agentruns.cli import console as console_command
from agentruns.emulator import Emulator
from agentruns.errors import ConfigurationError
from tests.console.plain_browser import SECONDS, browsing, fill
from tests.postgres_server import Server


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    asyncio.run(fill(tmp_path / "journal.db"))
    return tmp_path / "journal.db"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "a JOURNAL to show, or --emulator"),
        (["x.db", "--emulator", "origami"], "one of them"),
        (["nowhere.db"], "there is no journal"),
        (
            ["postgresql://me@127.0.0.1:1/work"],
            "cannot open the journal postgresql://127.0.0.1:1/work: it cannot",
        ),
        ([__file__], "not an SQLite file"),
        (["--emulator", "conduit", "--base-url", "http://127.0.0.1:1"], "say which by --vendor"),
        (["--emulator", "conduit", "--host", "192.0.2.1"], "add --expose"),
        (["--emulator", "conduit", "--host", "desk.example"], "add --expose"),
        (["--emulator", "conduit", "--port", "70000"], "cannot be listened on"),
        (["--emulator", "conduit", "--port", "-1"], "--port"),
    ],
)
def test_what_cannot_work_is_said_at_once(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["console", *words]) == commands.USAGE
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("url", ["me:pass-word@db/work", "me:a/b@c:pass-word@db", "db/work?user=me&password=pass-word"])
@pytest.mark.parametrize("words", [["console"], ["batch", "narrative", "in.jsonl", "-o", "out.jsonl", "--journal"]])
def test_a_password_is_taken_from_no_command_line(
    words: list[str], url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        commands.main([*words, f"postgresql://{url}"])
    said = capsys.readouterr().err
    assert "PGPASSWORD" in said
    assert "pass-word" not in said


def test_a_vendor_without_a_token_is_refused_when_it_is_asked_for(
    journal: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NARRATIVE_TOKEN", raising=False)
    monkeypatch.setenv("OTHER", " ")

    assert commands.main(["console", str(journal), "--vendor", "narrative"]) == commands.USAGE
    assert "NARRATIVE_TOKEN" in capsys.readouterr().err
    words = ["console", str(journal), "--vendor", "narrative", "--token-env", "OTHER"]
    assert commands.main(words) == commands.USAGE
    assert "OTHER" in capsys.readouterr().err


@pytest.mark.asyncio
async def test_a_variant_in_a_file_follows_the_runs_of_its_vendor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, file = tmp_path / "journal.db", tmp_path / "mine.py"
    await fill(path)
    file.write_text("from agentruns import narrative\nvariant = narrative.variant(tool_output=str)\n")
    monkeypatch.setenv("NARRATIVE_TOKEN", "t")
    args = arguments.parse(["console", str(path), "--vendor", f"{file}:variant"])

    made = console_command.over_journal(path, lambda vendors: console_command._clients(args, path, vendors))
    async with made as source:
        assert source.follows("narrative")


@pytest.mark.parametrize("content", [b"", b"[", b"[]", b'{"a": 5}'])
def test_answers_are_schemas_by_the_names_of_tools(
    journal: Path, tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "answers.json").write_bytes(content)

    words = ["console", str(journal), "--answers", str(tmp_path / "answers.json")]
    assert commands.main(words) == commands.USAGE
    assert "--answers" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["jinja2", "aiohttp_sse", "jsonschema"])
def test_a_missing_extra_is_named(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == module:
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)

    assert commands.main(["console", "--emulator", "conduit"]) == commands.USAGE
    assert "pip install 'agentruns[console]'" in capsys.readouterr().err


@pytest.mark.asyncio
async def test_the_browser_is_opened_with_a_ticket_and_not_with_the_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    task = asyncio.create_task(console_command.console(arguments.parse(["console", "--emulator", "conduit", "--open"])))
    async with asyncio.timeout(SECONDS):
        while not opened:
            await asyncio.wait([task], timeout=0.05)
    task.cancel()
    assert await task == 0
    printed = capsys.readouterr().out.split()[4]
    assert opened[0].partition("token=")[0] == printed.partition("token=")[0]
    assert opened[0] != printed


def console(*words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "agentruns", "console", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def address_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().split()[-1]


def opened(address: str) -> str:
    cookies = urllib.request.HTTPCookieProcessor()
    with urllib.request.build_opener(cookies, urllib.request.ProxyHandler({})).open(address, timeout=20) as answer:
        body: bytes = answer.read()
        return body.decode()


def stopped(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    return process.returncode, said


def test_the_console_serves_a_journal_until_it_is_stopped(journal: Path) -> None:
    process = console(str(journal), NARRATIVE_TOKEN="")
    try:
        page = opened(address_of(process))
    finally:
        code, said = stopped(process)
    assert "invoice-1" in page
    assert (code, said) == (0, "runs of narrative are shown as the journal has them: NARRATIVE_TOKEN is not set\n")


def test_the_console_follows_with_the_token_of_the_environment_and_shows_it_nowhere(journal: Path) -> None:
    with Emulator("narrative", token="a-secret-of-the-vendor") as emulator:
        process = console(
            str(journal), "--host", "localhost", NARRATIVE_TOKEN=emulator.token, NARRATIVE_BASE_URL=emulator.base_url
        )
        try:
            page = opened(address_of(process).replace("/?", "/work/w3?"))
        finally:
            code, said = stopped(process)
    assert "ops-approve_invoice" in page
    assert code == 0
    assert "is not set" not in said
    assert emulator.token not in page + said
    assert emulator.requests("GET", "*")  # it was looked for


@pytest.mark.asyncio
async def test_a_database_without_a_journal_is_refused_and_left_as_it_was(postgres: Server) -> None:
    url = postgres.url(schema="nobody_made_it")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="its schema 'nobody_made_it' has none"):
            await console_command.over_journal(url, lambda vendors: {}).__aenter__()


@pytest.mark.asyncio
async def test_the_page_of_a_journal_in_a_database_names_it_without_the_password(postgres: Server) -> None:
    url = postgres.url(schema="named_on_the_page", prefix="my_")
    await fill(url)
    async with console_command.over_journal(url, lambda vendors: {}) as source, browsing(source) as browser:
        page = await browser.open("/")
    assert "invoice-1" in page.text
    assert source.place == f"postgresql://127.0.0.1:{postgres.port}/postgres?schema=named_on_the_page&prefix=my_"
    assert "not-to-be-shown" not in page.text


def test_a_console_that_others_can_reach_says_so() -> None:
    process = console("--emulator", "conduit", "--host", "0.0.0.0", "--expose")
    try:
        address = address_of(process)
        assert "Start a run" in opened(address)
        with pytest.raises(urllib.error.HTTPError, match="421"):
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                urllib.request.Request(address, headers={"Host": "evil.example"}), timeout=20
            )
    finally:
        code, said = stopped(process)
    assert code == 0
    assert "unencrypted" in said
