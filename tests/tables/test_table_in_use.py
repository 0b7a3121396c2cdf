"""A table in the hands of a client: how the token travels, events, answers that get lost, what the console shows."""

import asyncio
import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from agentruns import (
    Action,
    AlreadyAnsweredError,
    Backoff,
    Inbox,
    OutcomeUnknownError,
    RunRef,
    RunStatus,
    ToolOutput,
    connect,
)
from agentruns.dialects import Run, show, table
from agentruns.dialects.vendor import Vendor
from agentruns.emulator import Call, Emulator, Fault, Turn
from agentruns.emulator import vendor as emulated
from agentruns.testing import Answer, Conformance, exchange
from tests.tables.played_runs import LOST, Product

QUICK = Backoff(initial=0.02, maximum=0.05)

TABLE = """\
name = "post"
base_url = "https://api.post.test"
auth = AUTH

[origin]
name = "Letter"
[origin.fields]
text = { required = true }

[start]
request = "POST /letters"
body = { text = "{text}" }

[fetch]
request = "GET /letters/{id}"

[run]
id = "id"
status = "state"
output = "answer"

[statuses]
pending = "pending"
running = "running"
asking = "requires_action"
done = "completed"
failed = "failed"

[actions]
at = "asks"
id = "id"
name = "name"
arguments = "input"

[resume]
request = "PATCH /letters/{id}/answers"
body = { answer = "{output_text}" }
LOST

[events]
request = "GET /letters/{id}/events"
"""


def letters(folder: Path, auth: str = '"bearer"', lost: str = "", more: str = "", **functions: Any) -> Any:
    path = folder / "post.toml"
    path.write_text(TABLE.replace("AUTH", auth).replace("LOST", lost) + more)
    return table.load(path, **functions)


class Post(Product):
    """The vendor; it looks for the token where a test says."""

    name: ClassVar[str] = "post"
    token_of: ClassVar[Callable[[emulated.Request], str | None]] = staticmethod(lambda request: request.bearer)

    @property
    def routes(self) -> Sequence[emulated.Route]:
        return (
            emulated.Route("POST", "/letters", self._start),
            emulated.Route("GET", "/letters/{id}", self._show),
            emulated.Route("PATCH", "/letters/{id}/answers", self._answer),
            emulated.Route("GET", "/letters/{id}/events", self._events),
        )

    def admit(self, request: emulated.Request) -> emulated.Reply | None:
        return None if type(self).token_of(request) == self.stage.token else self.refusal(401, "who are you?", "")

    def refusal(self, status: int, detail: str, path: str) -> emulated.Reply:
        return emulated.Reply.of(status, {"message": detail})

    def _start(self, request: emulated.Request) -> emulated.Reply:
        body: Any = request.json
        return self._shown(self.begin(body, body["text"]).id)

    def _show(self, request: emulated.Request) -> emulated.Reply:
        return self._shown(request.params["id"])

    def _answer(self, request: emulated.Request) -> emulated.Reply:
        body: Any = request.json
        row = self.rows[request.params["id"]]
        if self.state(row) != "asking":
            return self.refusal(409, "nothing is asked", "")
        return self._shown(self.go_on(row, body["answer"]).id)

    def _events(self, request: emulated.Request) -> emulated.Reply:
        told: Iterator[bytes] = iter([b'event: moved\ndata: {"n": 1}\n\n', b'event: moved\ndata: {"n": 2}\n\n'])
        return emulated.Reply(content_type="text/event-stream", follow=lambda: next(told, None))

    def _shown(self, name: str) -> emulated.Reply:
        row = self.rows[name]
        state = self.state(row)
        asks = [
            {"id": f"{name}-{n}", "name": call.name, "input": call.arguments}
            for n, call in enumerate(row.turns[0].calls)
        ]
        answer = row.turns[0].text if state == "done" else None
        return emulated.Reply.of(
            200, {"id": name, "state": state, "answer": answer, "asks": asks, **row.turns[0].extra}
        )


# How the token travels ------------------------------------------------------------------------------------------------


def basic(request: emulated.Request) -> str | None:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    user, _, password = base64.b64decode(given).decode().partition(":")
    return password if (scheme, user) == ("Basic", "api") else None


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("auth", "token_of"),
    [
        ('"bearer"', lambda request: request.bearer),
        ('{ header = "x-api-key" }', lambda request: request.headers.get("x-api-key")),
        (
            '{ header = "Authorization", prefix = "Token " }',
            lambda r: r.headers["Authorization"].removeprefix("Token "),
        ),
        ('{ query = "key" }', lambda request: request.query.get("key")),
        ('{ basic = "api" }', basic),
    ],
)
async def test_the_token_travels_as_the_table_says_and_is_shown_nowhere(
    auth: str, token_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Post, "token_of", staticmethod(token_of))
    caplog.set_level("DEBUG")
    made = letters(tmp_path, auth)
    async with (
        Emulator(Post, script=[Turn("Sent.")], token="s3cret-token") as emulator,
        connect(made, token="s3cret-token", base_url=emulator.base_url, schedule=QUICK) as client,
    ):
        run = await client.result(made.Origin("Dear Ana"))
        assert run.output == "Sent."
        assert "s3cret" not in repr(client) + repr(run) + run.to_json() + caplog.text
        with pytest.raises(Exception, match="letters") as refused:
            await client.fetch(RunRef("no/such"))
        assert "s3cret" not in str(refused.value) + repr(refused.value)


# Events ---------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_the_events_of_a_run_are_listened_to_with_its_token(tmp_path: Path) -> None:
    made = letters(tmp_path)
    async with (
        Emulator(Post, script=[Turn("Sent.", running=0.1)]) as emulator,
        connect(made, token=emulator.token, base_url=emulator.base_url, schedule=QUICK) as client,
    ):
        run = await client.start(made.Origin("Dear Ana"))
        async with client.events(run) as events:
            assert [(event.name, event.data) async for event in events] == [("moved", {"n": 1}), ("moved", {"n": 2})]
        assert (await client.result(run, events=True)).output == "Sent."
        assert len(emulator.requests("GET", "*/events")) == 2


# Answers --------------------------------------------------------------------------------------------------------------

ASKED = Run(RunRef("l1"), RunStatus.REQUIRES_ACTION, "asking", (Action("a1", "ask"),), vendor="post")
ANSWERS = [ToolOutput(ASKED.actions[0], "yes")]


def asking(name: str = "a1") -> Answer:
    return Answer({"id": "l1", "state": "asking", "asks": [{"id": name, "name": "ask"}]})


GONE = Answer({"id": "l1", "state": "running"})
NO_ANSWER = Answer({}, 502)


def test_an_answer_is_sent_once_the_run_was_seen_to_wait_for_it(tmp_path: Path) -> None:
    made = letters(tmp_path)
    sent = exchange(made.resume(ASKED, ANSWERS), asking(), GONE)
    assert [request.line for request in sent.requests] == ["GET /letters/l1", "PATCH /letters/l1/answers"]
    for answer in (GONE, asking("a2")):
        with pytest.raises(AlreadyAnsweredError, match="run l1 does not ask for this any more"):
            exchange(made.resume(ASKED, ANSWERS), answer)


@pytest.mark.parametrize("after", [GONE, asking()])
def test_a_lost_answer_is_reported_unless_the_table_says_that_nobody_else_answers(
    tmp_path: Path, after: Answer
) -> None:
    careful = letters(tmp_path)
    with pytest.raises(OutcomeUnknownError):
        exchange(careful.resume(ASKED, ANSWERS), asking(), NO_ANSWER)
    sure = letters(tmp_path, lost='lost = "ours"')
    if after is GONE:
        assert exchange(sure.resume(ASKED, ANSWERS), asking(), NO_ANSWER, after).result.status is RunStatus.RUNNING
    else:
        with pytest.raises(OutcomeUnknownError):
            exchange(sure.resume(ASKED, ANSWERS), asking(), NO_ANSWER, after)


@pytest.mark.asyncio
async def test_an_answer_that_a_crash_cut_off_is_not_given_twice(tmp_path: Path) -> None:
    made = letters(tmp_path)
    script = [Turn(calls=[Call("ask", {})]), Turn("Sent.", running=0.2)]
    async with Emulator(Post, script=script) as emulator:
        options: dict[str, Any] = {"token": emulator.token, "base_url": emulator.base_url, "schedule": QUICK}
        emulator.fail(Fault.drop(committed=True, method="PATCH", path="*/answers"))
        async with connect(made, journal=tmp_path / "journal", **options) as client:
            with pytest.raises(OutcomeUnknownError):
                await client.result(made.Origin("Dear Ana"), tools={"ask": lambda: "yes"}, key="one")
        async with connect(made, journal=tmp_path / "journal", **options) as client:
            run = await client.result(made.Origin("Dear Ana"), tools={"ask": lambda: "no"}, key="one")
        assert run.output == "Sent."
        assert len(emulator.requests("PATCH", "*/answers")) == 1


class TestCarefulTable(Conformance):
    """The same table in the kit, as an author writes it who knows nothing of lost answers."""

    emulated = Post
    start_path = "/letters"
    resume_path = "/letters/*/answers"
    resume_method = "PATCH"
    poll_path = "/letters/*"
    settles_answers = False
    not_applicable: ClassVar[Mapping[str, str]] = {
        "a start lost after it was done is not done again": LOST,
        "a start cut off under a key is gone on with": LOST,
        "several pending actions are answered together": "a letter waits for one answer",
    }

    @pytest.fixture(autouse=True)
    def _table(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(self), "dialect", letters(tmp_path))

    async def origin(self, client: Any, emulator: Any) -> Any:
        return self.dialect.Origin("Dear Ana")


# What is shown --------------------------------------------------------------------------------------------------------


def show_question(action: Action) -> show.Question:
    return show.Question(title=f"Shall we {action.name}?", choices=())


def test_a_function_beside_the_table_says_what_the_console_shows(tmp_path: Path) -> None:
    named = letters(tmp_path, more=f'[functions]\nshow_question = "{__name__}:show_question"\n')
    given = letters(tmp_path, show_question=show_question)
    for made in (named, given):
        asked = Vendor.of(made).call("show_question", ASKED.actions[0])
        assert asked.title == "Shall we ask?"


@pytest.mark.asyncio
async def test_the_console_answers_what_a_run_of_a_table_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("jsonschema")
    from agentruns.cli import arguments
    from agentruns.cli import console as command
    from tests.console.plain_browser import browsing

    made, path = letters(tmp_path), tmp_path / "journal"
    script = [Turn(calls=[Call("ask", {"question": "Shall I?"})]), Turn("Sent.", running=0.1)]
    async with (
        Emulator(Post, script=script) as emulator,
        Inbox(journal=path) as inbox,
        connect(made, token=emulator.token, base_url=emulator.base_url, schedule=QUICK, journal=path) as client,
    ):
        waiting = asyncio.create_task(client.result(made.Origin("Dear Ana"), tools=inbox, key="one"))
        await anext(each async for each in inbox.changes() if each)
        monkeypatch.setenv("POST_TOKEN", emulator.token)
        place = str(tmp_path / "post.toml")
        args = arguments.parse(["console", str(path), "--vendor", place, "--base-url", emulator.base_url])
        clients = partial(command._clients, args, path)
        async with command.over_journal(path, clients) as source, browsing(source) as browser:
            page = await browser.waits("/work/w1")
            assert "Shall I?" in page.text
            assert "post" in page.text
            (form,) = page.answers
            await browser.send(form.action, form.filled(how="approve", note="Do."))
            assert (await waiting).output == "Sent."
            await browser.until("/work/w1/events", 'data-status="completed"')
