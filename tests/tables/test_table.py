"""Vendors as data: what a table may say, what is refused in it, and what its dialect makes of it."""

import asyncio
import json
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentruns import ConfigurationError, OutcomeUnknownError, ProtocolError, RunRef, RunStatus, ToolOutput, connect
from agentruns.cli.arguments import parse
from agentruns.dialects import Action, Flow, Request, Run, load, names, table
from agentruns.dialects.vendor import Vendor
from agentruns.emulator import Call, Emulator, Turn
from agentruns.testing import Answer, exchange
from tests.tables.browserbase import Browserbase
from tests.tables.devin import Devin
from tests.tables.kindo import AGENT, Kindo

TABLE = """\
name = "acme"
base_url = "https://api.acme.test"

[origin]
name = "Job"
[origin.fields]
text = { required = true, help = "what to do" }
count = { type = "integer", default = 3 }
ratio = { type = "number" }
loud = { type = "boolean" }
tags = { type = "list" }
extra = { type = "object" }
key = { type = "id" }

[start]
request = "POST /teams/{text}/jobs"
idempotent = true
headers = { Idempotency-Key = "{key}" }
params = { loud = "{loud}", ratio = "{ratio}" }
body = { text = "{text}", said = "<{text}>", count = "{count}", tags = "{tags}", extra = "{extra}", fixed = "{{x}}" }

[fetch]
request = "GET /jobs/{id}"

[run]
at = "data.job"
id = "id"
status = "state"
output = "answer"
failure = { type = "error.kind", message = "error.text" }
usage = { input_tokens = "tokens.in", output_tokens = "tokens.out" }
progress = { done = "steps" }
times = { began = "began", ended = "ended" }

[statuses]
queued = "pending"
asking = "requires_action"
ok = "completed"
ko = "failed"

[actions]
at = "asks"
id = "id"
name = "tool"
arguments = "input"

[resume]
request = "POST /jobs/{id}/answers"
body = { results = "{answers}" }
answer = { ask = "{action_id}", value = "{output}", failed = "{is_error}" }

[list]
request = "GET /jobs"
runs = "jobs"
link = "next"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "acme.toml"
    path.write_text(text)
    return path


@pytest.fixture
def acme(tmp_path: Path) -> Any:
    return table.load(written(tmp_path, TABLE))


def job(**fields: Any) -> Answer:
    return Answer({"data": {"job": {"id": "j1", "state": "queued", **fields}}})


# What is sent ---------------------------------------------------------------------------------------------------------


def test_values_are_escaped_in_paths_typed_in_bodies_and_left_out_where_there_are_none(acme: Any) -> None:
    origin = acme.Origin("a/../b?c", loud=True, tags=["x"], key="k1")
    (request,) = exchange(acme.start(origin), job()).requests
    assert request.path == "/teams/a%2F..%2Fb%3Fc/jobs"
    assert request.params == {"loud": "true"}
    assert request.headers == {"Idempotency-Key": "k1"}
    assert request.json == {
        "text": "a/../b?c",
        "said": "<a/../b?c>",
        "count": 3,
        "tags": ["x"],
        "fixed": "{x}",
    }
    assert request.idempotent


@pytest.mark.parametrize("text", [".", ".."])
def test_a_value_that_climbs_out_of_its_place_in_a_path_is_refused(acme: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"text is '{text}', which cannot stand in the path")):
        exchange(acme.start(acme.Origin(text)))


def test_braces_of_a_user_are_text(acme: Any) -> None:
    (request,) = exchange(acme.start(acme.Origin("{key}{", key="k1")), job()).requests
    assert request.json["said"] == "<{key}{>"


def test_all_answers_of_a_pause_go_in_one_request_where_the_table_has_a_list(acme: Any) -> None:
    asks = [{"id": "a1", "tool": "add", "input": {"x": 1}}, {"id": 2, "tool": "say", "input": None}]
    paused = exchange(acme.fetch(RunRef("j1"), {}), job(state="asking", asks=asks)).result
    assert [(each.id, each.name, each.arguments) for each in paused.actions] == [
        ("a1", "add", {"x": 1}),
        ("2", "say", {}),
    ]
    outputs = [ToolOutput(paused.actions[0], {"sum": 3}), ToolOutput(paused.actions[1], "no", is_error=True)]
    _, request = exchange(acme.resume(paused, outputs), job(state="asking", asks=asks), job()).requests
    assert request.json == {
        "results": [
            {"ask": "a1", "value": {"sum": 3}, "failed": False},
            {"ask": "2", "value": "no", "failed": True},
        ]
    }


def test_the_link_to_the_next_page_is_followed_on_the_vendors_own_host_only(acme: Any) -> None:
    listed = exchange(acme.page("", None), Answer({"jobs": [{"id": "j1", "state": "ok"}], "next": "/jobs?after=1"}))
    assert listed.result.cursor == "/jobs?after=1"
    assert exchange(acme.page("", "/jobs?after=1"), Answer({"jobs": []})).requests[0].path == "/jobs?after=1"
    with pytest.raises(ProtocolError, match="another origin"):
        exchange(acme.page("", None), Answer({"jobs": [], "next": "https://evil.test/jobs"}))


# What is read ---------------------------------------------------------------------------------------------------------


def test_json_that_a_vendor_puts_into_a_text_may_be_cut_within_an_emoji() -> None:
    result = r'{"parts": [{"type": "text", "text": "cut \ud83d"}]}'
    answer = Answer({"runId": "r1", "status": "success", "result": result})
    assert exchange(load("kindo").fetch(RunRef("r1"), {}), answer).result.output == "cut \ufffd"


def test_a_run_is_read_by_the_expressions(acme: Any) -> None:
    fields = {
        "state": "ko",
        "answer": {"x": 1},
        "error": {"kind": "timeout", "text": "too late"},
        "tokens": {"in": 5, "out": "many"},
        "steps": 4,
        "began": "2026-01-02T03:04:05Z",
    }
    run = exchange(acme.fetch(RunRef("j1"), {}), job(**fields)).result
    assert (run.status, run.vendor_status, run.output) == (RunStatus.FAILED, "ko", {"x": 1})
    assert (run.failure.type, run.failure.message) == ("timeout", "too late")
    assert (run.usage.input_tokens, run.usage.output_tokens, run.progress.done) == (5, None, 4)
    assert run.raw["answer"] == {"x": 1}
    assert acme.times(run)[0].isoformat() == "2026-01-02T03:04:05+00:00"
    assert acme.times(run)[1] is None


def test_a_word_that_the_table_does_not_have_counts_as_in_flight_and_is_told_once(
    acme: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert exchange(acme.fetch(RunRef("j1"), {}), job(state="new\x1b[2J")).result.status is RunStatus.RUNNING
    (record,) = caplog.records
    assert "acme says that a run is " in record.message
    assert "not in `[statuses]` of its table: it counts as in flight" in record.message
    assert "\x1b" not in record.message
    for number in range(99):
        exchange(acme.fetch(RunRef("j1"), {}), job(state=f"new {number}"))
    assert len(caplog.records) < 30


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (job(id=None), "the answer to GET /jobs/j1 does not fit `run.id` of the table, `id`: it gives None"),
        (job(state=3), "does not fit `run.status` of the table, `state`: it gives 3, and must give a text"),
        (job(state="asking", asks={}), "does not fit `actions.at` of the table, `asks`: it gives {}"),
        (job(state="asking", asks=[{"id": "a", "tool": "t", "input": 5}]), "must give an object"),
        (Answer({"data": []}), "does not fit `run.at` of the table, `data.job`"),
    ],
)
def test_a_wrong_answer_names_the_expression_and_the_request(acme: Any, answer: Answer, told: str) -> None:
    with pytest.raises(ProtocolError, match=re.escape(told)):
        exchange(acme.fetch(RunRef("j1"), {}), answer)


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('name = "acme"', 'nam = "acme"', "`nam`: nothing of that name is known here; did you mean `name`?"),
        ("base_url", "base_ur", "`base_ur`: nothing of that name is known here; did you mean `base_url`?"),
        (
            "base_url",
            'auth = { heder = "x" }\nbase_url',
            "`auth.heder`: nothing of that name is known here; did you mean",
        ),
        ("base_url", 'auth = "basic"\nbase_url', "`auth`: it is 'basic'; it must be"),
        ('request = "POST', 'request = "SEND', "`start.request`: it is 'SEND /teams"),
        (
            'request = "POST /teams/{text}',
            'request = "POST /teams/{txt}',
            "`{txt}` names nothing: did you mean `{text}`?",
        ),
        ('body = { text = "{text}", said = "<{text}>"', 'body = { said = "<{}>"', "`start.body`: `{}` names nothing"),
        ('request = "GET /jobs/{id}"', 'request = "GET //jobs/{id}"', "`fetch.request`: the path of a GET is"),
        ('output = "answer"', 'output = "answer["', "`run.output`: it is no JMESPath: `answer[^`"),
        ('output = "answer"', 'output = "a b"', "`run.output`: it is no JMESPath: `a ^b`"),
        (
            'queued = "pending"',
            'queued = "waiting"',
            "`statuses.queued`: it is 'waiting'; it must be one of pending, run",
        ),
        (
            'count = { type = "integer"',
            'count = { type = "int"',
            "`origin.fields.count.type`: it is 'int'; it must be one",
        ),
        (
            'count = { type = "integer", default = 3',
            'count = { type = "integer", default = "3"',
            "it must be a whole number",
        ),
        ("[list]\nrequest", '[list]\ncursor = "c"\nrequest', "`list`: only one of `cursor`, `link` and `page_size`"),
        ("[actions]\n", '[actions]\nnam = "x"\n', "`actions.nam`: nothing of that name is known here"),
    ],
)
def test_a_wrong_table_is_refused_by_line_and_key(tmp_path: Path, before: str, after: str, told: str) -> None:
    text = TABLE.replace(before, after, 1)
    changed = next(at for at, (one, other) in enumerate(zip(text, TABLE, strict=False)) if one != other)
    line = text[: max(changed, text.index(after))].count("\n") + 1
    with pytest.raises(ConfigurationError) as caught:
        table.load(written(tmp_path, text))
    assert told in str(caught.value)
    line -= told.startswith("`list`")  # which is the line of its header
    assert f"acme.toml, line {line}, " in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('ok = "completed"\nko = "failed"', "", "`statuses`: no word means completed or failed"),
        ('link = "next"', 'cursor = "next"', "`list.request`: `{cursor}` must stand in its path"),
        ('name = "tool"\n', "", "`actions.name`: it is missing"),
        ("[fetch]", "[fetch", "is not TOML"),
    ],
)
def test_what_is_missing_in_a_table_is_named(tmp_path: Path, before: str, after: str, told: str) -> None:
    assert before in TABLE
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        table.load(written(tmp_path, TABLE.replace(before, after, 1)))


def test_a_pause_needs_what_it_waits_for(tmp_path: Path) -> None:
    text = TABLE[: TABLE.index("[actions]")]
    with pytest.raises(ConfigurationError, match=re.escape("`statuses.asking`: a run that requires action needs")):
        table.load(written(tmp_path, text))


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"the table nowhere\.toml cannot be read"):
        load("nowhere.toml")


# What starts a run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"text": 3}, "Job.text is 3; it must be a text"),
        ({"text": ""}, "Job.text is ''; it must be a text"),
        ({"text": "a", "count": True}, "Job.count is True; it must be a whole number"),
        ({"text": "a", "ratio": "x"}, "Job.ratio is 'x'; it must be a number"),
        ({"text": "a", "tags": {}}, "Job.tags is {}; it must be a list"),
    ],
)
def test_a_field_of_another_type_is_refused_by_its_name(acme: Any, given: Mapping[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        acme.Origin(**given)


def test_origins_and_tables_pickle_and_come_back_as_the_same_classes(acme: Any) -> None:
    origin = acme.Origin("a", tags=["x"])
    again = pickle.loads(pickle.dumps(origin))
    assert again == origin
    assert type(again) is acme.Origin is pickle.loads(pickle.dumps(acme.Origin))
    assert pickle.loads(pickle.dumps(acme)) is acme
    assert hash(origin) == hash(again)
    remade, (by, fields) = origin.__reduce__()  # not by its class, which what Ray pickles with would send along
    assert by is acme
    assert remade(by, fields) == origin


def test_the_same_file_is_the_same_dialect_until_it_changes(tmp_path: Path) -> None:
    path = written(tmp_path, TABLE)
    first = table.load(path)
    assert table.load(path) is first
    written(tmp_path, TABLE.replace("api.acme", "eu.acme"))
    assert table.load(path).BASE_URL == "https://eu.acme.test"


def test_each_field_is_an_option_with_its_help(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["run", str(written(tmp_path, TABLE)), "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "--text TEXT what to do; text; required" in told
    assert "--origin-key" in told
    assert "--count JSON" in told


# Functions ------------------------------------------------------------------------------------------------------------


def told_off(run: Run[Any], outputs: Sequence[ToolOutput]) -> Flow[Run[Any]]:
    yield Request("POST", f"/own/{run.id}", json=[each.output for each in outputs])
    return run


def test_a_function_takes_the_place_of_an_operation(tmp_path: Path) -> None:
    path = written(tmp_path, TABLE)
    made: Any = table.load(path, resume=told_off)
    assert Vendor.of(made).resume is told_off
    assert pickle.loads(pickle.dumps(made)) is made
    named: Any = table.load(written(tmp_path, f'{TABLE}[functions]\nresume = "{__name__}:told_off"\n'))
    assert named.resume is told_off


def test_a_function_that_no_dialect_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="resum is no function that a table may be given"):
        table.load(written(tmp_path, TABLE), resum=told_off)
    with pytest.raises(ConfigurationError, match="must be `module:function`"):
        table.load(written(tmp_path, f'{TABLE}[functions]\nresume = "told_off"\n'))


# The products ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names.shipped())
def test_a_table_of_this_package_is_found_by_its_name_and_says_what_it_guesses(name: str) -> None:
    made: Any = load(name)
    assert Vendor.of(made).NAME == made.NAME == name
    assert isinstance(made.example(), made.Origin)
    assert all(guess.taken and guess.why for guess in made.GUESSES)


def test_a_question_of_browserbase_is_read_from_its_messages_and_answered() -> None:
    script = [Turn(calls=[Call("code", {"of": "bank"})], running=0.05), Turn("Done.", running=0.05)]

    async def main() -> None:
        made: Any = load("browserbase")
        asked: list[Any] = []

        def reply(action: Action) -> str:
            asked.append((action.name, action.arguments))
            return "123456"

        async with (
            Emulator(Browserbase, script=script) as emulator,
            connect(made, token=emulator.token, base_url=emulator.base_url) as client,
        ):
            origin = made.Origin("Log in", pause_when="a code is needed")
            run = await client.result(origin, tools=reply, timeout=20)
            assert run.output == {"text": "Done."}
            assert asked == [("pause", {"message": "code: {'of': 'bank'}"})]
            (row,) = emulator.state.rows.values()
            assert row.answers == ("123456",)
            assert row.asked == {"task": "Log in", "pauseWhen": "a code is needed"}

    asyncio.run(main())


def test_a_lost_start_of_devin_is_found_by_its_tag_and_that_of_kindo_reported() -> None:
    devin: Any = load("devin")
    origin = devin.Origin("Add a test.", key="k1")
    lost = OutcomeUnknownError(Request("POST", "/v1/sessions"), "no answer")
    row = {"session_id": "s2", "status": "running", "status_enum": "working", "tags": ["k1"]}
    other = {**row, "session_id": "s1", "tags": ["k0"]}
    found = exchange(devin.start(origin), lost, Answer({"sessions": []}), Answer({"sessions": [other, row]}))
    assert found.result.id == "s2"
    assert found.requests[0].json == {"prompt": "Add a test.", "tags": ["k1"]}
    assert found.requests[1].params == {"limit": "100", "tags": "k1"}
    assert exchange(devin.recover(origin, {}), Answer({"sessions": [row]})).result.id == "s2"
    with pytest.raises(OutcomeUnknownError, match="no run with the key 'k1' was observed in the list for 18 s"):
        exchange(devin.recover(origin, {}), *[Answer({"sessions": [other]})] * 4)
    kindo: Any = load("kindo")
    with pytest.raises(OutcomeUnknownError, match="kindo has no id of ours to find it by"):
        exchange(kindo.recover(kindo.Origin(AGENT), {}))


def test_devin_is_read_page_by_page_by_offset() -> None:
    devin: Any = load("devin")
    rows = [{"session_id": f"s{number}", "status": "running", "status_enum": "blocked"} for number in range(100)]
    first = exchange(devin.page("", None), Answer({"sessions": rows})).result
    assert (len(first.runs), first.cursor) == (100, "100")
    second = exchange(devin.page("", "100"), Answer({"sessions": rows[:1]}))
    assert second.requests[0].params == {"limit": "100", "offset": "100"}
    assert second.result.cursor is None


def test_a_run_of_kindo_without_a_message_has_an_empty_output() -> None:
    kindo: Any = load("kindo")
    body = {"runId": "r1", "status": "success", "result": None}
    assert exchange(kindo.fetch(RunRef("r1"), {}), Answer(body)).result.output == ""


def test_the_command_line_runs_a_table_without_a_line_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from agentruns.cli.commands import main

    copy = tmp_path / "mine.toml"
    copy.write_text(names.shipped()["kindo"].read_text())
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"agent_id": AGENT, "query": f"q{number}"}) + "\n" for number in range(3)))
    with Emulator(Kindo, script=[Turn("Clean.", running=0.05)] * 4) as emulator:
        monkeypatch.setenv("KINDO_API_KEY", emulator.token)
        monkeypatch.setenv("KINDO_BASE_URL", emulator.base_url)
        inputs = json.dumps([{"name": "query", "value": "Scan."}])
        assert main(["run", str(copy), "--agent-id", AGENT, "--inputs", inputs, "--json"]) == 0
        assert '"Clean."' in capsys.readouterr().out
        assert main(["run", "kindo", "--agent-id", AGENT, "--inputs", inputs]) == 0
        template = '[{"name": "query", "value": "{query}"}]'
        out = tmp_path / "out.jsonl"
        assert main(["batch", str(copy), str(rows), "-o", str(out), "--inputs", template, "-q"]) == 0
        assert out.read_text().count('"completed"') == 3
        assert emulator.state.runs_started == 5
    assert main(["vendors", str(copy)]) == 0
    assert "has recover, parse_run, times" in " ".join(capsys.readouterr().out.split())


def test_sessions_of_devin_are_listed_and_watched_by_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from agentruns.cli.commands import main

    with Emulator(Devin, script=[Turn("Done.", running=0.05)]) as emulator:
        monkeypatch.setenv("DEVIN_API_KEY", emulator.token)
        monkeypatch.setenv("DEVIN_BASE_URL", emulator.base_url)
        assert main(["start", "devin", "--prompt", "Add a test.", "--json"]) == 0
        name = json.loads(capsys.readouterr().out.splitlines()[0])["ref"]["id"]
        assert main(["watch", "devin", name]) == 0
        assert main(["list", "devin"]) == 0
        assert name in capsys.readouterr().out
