"""Runs in a notebook: what a table says, that it says it as text, and a cell that follows a run."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from agentruns import (
    Action,
    AuthenticationError,
    ConfigurationError,
    Failure,
    Progress,
    Run,
    RunRef,
    RunStatus,
    Usage,
    narrative,
)
from agentruns.notebook import run_html, show
from tests.scripted_wire import CONVERSATION, HEAD, POLL, RUN, START, Answer, Wire, client_of, conversation, run

MESSAGE = narrative.UserMessage(CONVERSATION, "Handle <b>invoice</b> RE-2026-118.")
TAGS = {"table", "caption", "tbody", "tr", "th", "td", "p"}


class Reader(HTMLParser):
    """Read a table as a browser does: its tags, their attributes, its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def shown(**changes: Any) -> Reader:
    return Reader(run_html(Run(RunRef(RUN), **({"status": RunStatus.RUNNING, "vendor_status": "running"} | changes))))


def test_a_run_shows_itself_as_a_table_with_headings() -> None:
    full = Run(
        RunRef(RUN),
        RunStatus.FAILED,
        "errored",
        (Action("1", "approve", {"amount": 940}),),
        {"answer": [1, None]},
        Failure("JobFailed", "no reason"),
        Usage(812, 64),
        Progress(2, 8),
        vendor="origami",
    )
    table = Reader(full._repr_html_())

    assert table.tags == {"table", "caption", "tbody", "tr", "th", "td"}
    assert ("scope", "row") in table.attributes
    for text in (
        f"Run {RUN} of origami",
        "failed (vendor: errored)",
        "JobFailed: no reason",
        "approve (1)",
        '"amount": 940',
        '"answer"',
        "2 of 8",
        "812 in, 64 out",
    ):
        assert text in table.text


def test_what_there_is_not_has_no_row() -> None:
    assert shown().text.split("\n")[:-1] == [f"Run {RUN}", "Status", "running"]


def test_a_long_output_is_cut() -> None:
    table = shown(output="x" * 100_000)

    assert len(table.text) < 2200
    assert "(100000 characters)" in table.text


def test_an_output_that_json_cannot_carry_is_shown_all_the_same() -> None:
    assert "object object" in shown(output={"a": object()}).text


@given(st.text())
def test_whatever_a_vendor_says_stands_there_as_text(text: str) -> None:
    table = shown(
        vendor_status=text,
        output=text,
        actions=(Action(text, text, {text: text}),),
        failure=Failure(text, text),
        vendor=text,
    )

    assert table.tags <= TAGS
    assert {name for name, _ in table.attributes} <= {"style", "scope"}


def test_a_script_is_no_script() -> None:
    attack = "</td><script>alert(1)</script><img src=x onerror='alert(1)'>"

    assert "<script" not in run_html(Run(RunRef(attack), RunStatus.COMPLETED, attack, output=attack))
    assert attack in shown(output=attack).text.replace("\n", "")


def test_importing_agentruns_brings_no_notebook() -> None:
    program = "import sys, agentruns; sys.exit('agentruns.notebook' in sys.modules or 'agentruns.web' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# A stream, and a cell that follows it ---------------------------------------------------------------------------------


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Be in an IPython shell, and return what its cell was told to show."""
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    publisher = CapturingDisplayPublisher()  # type: ignore[no-untyped-call]
    monkeypatch.setattr(shell, "display_pub", publisher)
    yield publisher.outputs
    InteractiveShell.clear_instance()


def story(*polls: Any) -> Wire:
    return Wire({HEAD: conversation(), START: run("pending"), POLL: polls})


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_stream_shows_what_it_is_of_and_then_its_last_state() -> None:
    async with client_of(story(run("completed"))) as client:
        stream = client.stream(MESSAGE)
        before = Reader(stream._repr_html_())
        async for _ in stream:
            pass
        after = Reader(stream._repr_html_())

    assert before.tags == {"p"}
    assert "not begun" in before.text
    assert "Handle <b>invoice</b>" in before.text.replace("\n", "")
    assert "Done." in after.text


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_cell_shows_each_state_in_place_of_the_one_before(cell: list[Any]) -> None:
    async with client_of(story(run("running"), run("completed"))) as client:
        last = await show(client.stream(MESSAGE))

    assert last.status is RunStatus.COMPLETED
    first, *updates = cell
    assert [each["update"] for each in updates] == [True] * 3
    assert {each["transient"]["display_id"] for each in cell} == {first["transient"]["display_id"]}
    assert "not begun" in first["data"]["text/plain"]
    final = Reader(updates[-1]["data"]["text/html"])
    for text in ("pending at 0.0 s", "running at 1.0 s", "completed at 2.0 s", "Done."):
        assert text in final.text
    assert "completed" in updates[-1]["data"]["text/plain"]


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_cell_lists_only_the_last_of_many_states(cell: list[Any]) -> None:
    words = [run(f"step {number}") for number in range(30)]
    async with client_of(story(*words, run("completed"))) as client:
        await show(client.stream(MESSAGE))

    text = Reader(cell[-1]["data"]["text/html"]).text
    assert "(20 more)" in text
    assert "step 5 " not in text
    assert "step 29 " in text


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_an_error_is_shown_and_raised(cell: list[Any]) -> None:
    async with client_of(story(Answer({}, 401))) as client:
        with pytest.raises(AuthenticationError):
            await show(client.stream(MESSAGE))

    assert "was answered 401" in Reader(cell[-1]["data"]["text/html"]).text


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_cell_that_is_stopped_says_so(cell: list[Any]) -> None:
    async with client_of(story(run("running"))) as client:
        watching = asyncio.create_task(show(client.stream(MESSAGE)))
        await asyncio.sleep(2.5)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching

    assert "no longer watched" in Reader(cell[-1]["data"]["text/html"]).text


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_without_a_cell_the_run_is_followed_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    async with client_of(story(run("completed"))) as client:
        assert (await show(client.stream(MESSAGE))).status is RunStatus.COMPLETED

    assert capsys.readouterr().out == ""


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_stream_that_was_closed_has_nothing_to_return() -> None:
    async with client_of(story(run("completed"))) as client:
        stream = client.stream(MESSAGE)
        await stream.aclose()
        with pytest.raises(ConfigurationError, match="before it had a state"):
            await show(stream)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    async with client_of(story(run("completed"))) as client:
        with pytest.raises(ConfigurationError, match=r"pip install 'agentruns\[notebook\]'"):
            await show(client.stream(MESSAGE))
