"""A parent from a file, such as a conversation: an option of the commands for every dialect that makes one."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentruns import ConfigurationError
from agentruns.cli import commands
from agentruns.dialects import load, table
from agentruns.dialects.vendor import Vendor
from agentruns.emulator import Emulator, Turn
from agentruns.emulator import vendor as emulated
from agentruns.testing import Answer, exchange
from tests.conformance import acme

MADE = """
from tests.conformance.acme import *
from agentruns.dialects import Request, wire
from agentruns.errors import ConfigurationError
NAME, PARENT, PARENT_FIELD = "made", "project", "project"

def make_parent(given, tools):
    "Its `title` is what people call it."
    if "title" not in given:
        raise ConfigurationError("it has no title")
    made = wire.read_object((yield Request("POST", "/projects", json=given)))
    return {"project": made["id"], "text": "never in the place of what was given"}
"""

TABLE = """
name = "made"
base_url = ""
token_variable = "ACME_TOKEN"
origin.fields.project = { required = true }
origin.fields.text = { required = true }
origin.fields.key = { type = "id" }
parent = { name = "project", field = "project", request = "POST /projects", id = "id" }
start = { request = "POST /projects/{project}/jobs", body = { text = "{text}", key = "{key}" }, idempotent = true }
fetch.request = "GET /jobs/{id}"
run = { id = "id", parent = "project", status = "state", output = "answer" }
statuses = { queued = "pending", working = "running", ok = "completed", ko = "failed" }
"""


class Projects(acme.Acme):
    """Acme, where a project is made before its jobs."""

    titles: Sequence[str] = ()

    @property
    def routes(self) -> Sequence[emulated.Route]:
        return (*super().routes, emulated.Route("POST", "/projects", self._make))

    def _make(self, request: emulated.Request) -> emulated.Reply:
        body: Any = request.json
        self.titles = (*self.titles, body["title"])
        return emulated.Reply.of(201, {"id": f"p{len(self.titles)}"})


@pytest.fixture(params=["made.py", "made.toml"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give a dialect of a file, and one of a table."""
    monkeypatch.chdir(tmp_path)
    Path("project.json").write_text(json.dumps({"title": "Post"}))
    path = tmp_path / request.param
    path.write_text(MADE if path.suffix == ".py" else TABLE)
    return str(path)


def call(command: str, place: str, *words: str) -> int:
    with Emulator(Projects, script=[Turn(text="Done.", pending=0, running=0)] * 3) as emulator:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ACME_TOKEN", emulator.token)
            code = commands.main([command, place, *words, "--base-url", emulator.base_url])
        call.made = (emulator.state.titles, [row.project for row in emulator.state.rows.values()])  # type: ignore[attr-defined]
    return code


def made() -> tuple[Sequence[str], Sequence[str]]:
    """Return the projects and jobs that the last call has made."""
    found: tuple[Sequence[str], Sequence[str]] = call.made  # type: ignore[attr-defined]
    return found


def test_a_run_starts_in_a_parent_that_a_file_makes(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", place, "--new-project", "project.json", "--text", "Sort.", "--json") == 0
    assert made() == (("Post",), ["p1"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["ref"]["parent"] == "p1"


def test_each_row_of_a_batch_has_its_own(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.csv").write_text("text\none\ntwo\n")
    assert call("batch", place, "in.csv", "-o", "out.jsonl", "--new-project", "project.json", "--dry-run") == 0
    assert "its first request would be POST /projects\n" in capsys.readouterr().out
    assert made() == ((), [])
    assert call("batch", place, "in.csv", "-o", "out.jsonl", "--new-project", "project.json", "-q") == 0
    titles, projects = made()
    assert (titles, sorted(projects)) == (("Post", "Post"), ["p1", "p2"])
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert {line["output"] for line in lines} == {"Done."}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "give --project of one that exists, or --new-project FILE for a new one"),
        (("--project", "p1", "--new-project", "project.json"), "give --project of one that exists, or --new-project"),
        (("--new-project", "nowhere.json"), "--new-project 'nowhere.json' cannot be read as JSON"),
        (("--new-project", "list.json"), "must hold a JSON object, by which a project is made"),
    ],
)
def test_what_makes_no_parent_is_refused_before_any_request(
    words: Sequence[str], told: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("list.json").write_text("[]")
    assert call("run", place, "--text", "Sort.", *words) == 2
    assert told in capsys.readouterr().err
    assert made() == ((), [])


def test_the_dialect_checks_the_file_and_tells_its_help(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "made.py"
    path.write_text(MADE)
    (tmp_path / "odd.json").write_text("{}")
    assert call("run", str(path), "--text", "Sort.", "--new-project", str(tmp_path / "odd.json")) == 2
    assert "makes no project: it has no title" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call("run", str(path), "--help")
    told = " ".join(capsys.readouterr().out.split())
    assert "make a new project of FILE, a JSON object, in the place of --project. Its `title` is what people" in told


def test_a_flow_that_names_no_parent_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "made.py"
    path.write_text(MADE.replace('return {"project": made["id"], "text"', 'return {"text"'))
    (tmp_path / "project.json").write_text('{"title": "Post"}')
    assert call("run", str(path), "--text", "Sort.", "--new-project", str(tmp_path / "project.json")) == 2
    assert "made.make_parent returned {'text': " in capsys.readouterr().err


@pytest.mark.parametrize("line", ["PARENT_FIELD = 'team'", "PARENT_FIELD = None"])
def test_a_field_that_the_origin_has_not_is_refused_at_the_door(line: str, tmp_path: Path) -> None:
    path = tmp_path / "made_wrong.py"
    path.write_text(f"{MADE}\n{line}\n")
    with pytest.raises(ConfigurationError, match="beside `make_parent` it must be the field of Job that names"):
        Vendor.of(load(str(path)))


def loaded(folder: Path, *changes: tuple[str, str]) -> Any:
    path, text = folder / "made.toml", TABLE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return table.load(path)


def test_a_table_sends_the_file_as_it_is_or_in_a_body(tmp_path: Path) -> None:
    given: Mapping[str, Any] = {"title": "Post", "deep": {"x": [1]}}
    done = exchange(loaded(tmp_path).make_parent(given, None), Answer({"id": "p1"}))
    assert (done.result, done.requests[0].json) == ({"project": "p1"}, given)

    within = ('"POST /projects", id', '"POST /projects", body = { settings = "{file}", kind = "job" }, id')
    done = exchange(loaded(tmp_path, within).make_parent(given, None), Answer({"id": "p1"}))
    assert done.requests[0].json == {"settings": given, "kind": "job"}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            ', field = "project"',
            ', field = "team"',
            "`parent.field`: it is 'team'; it must be one of project, text, key",
        ),
        (', request = "POST /projects", id = "id"', "", "`parent`: it needs `request` and `id`, or `functions.make_"),
        (', id = "id" }', " }", "`parent.id`: it is missing"),
        (
            "parent = {",
            "functions.make_parent = 'm:f'\nguesses.it = { taken = 'a', why = 'b' }\nheaders = {",
            "`functions.make_parent`: it needs `parent.field`",
        ),
    ],
)
def test_a_parent_that_a_table_cannot_make_is_refused_by_line_and_key(
    old: str, new: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        loaded(tmp_path, (old, new))
    assert told in str(refused.value)
    assert "line " in str(refused.value)
