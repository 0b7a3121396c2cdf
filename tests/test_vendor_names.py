"""A dialect of one's own by its name: an installed package, a module or a file, in Python and on the command line."""

import asyncio
import importlib.metadata
import json
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest

from agentruns import Backoff, Inbox, Run, RunRef, RunStatus, connect, dialects
from agentruns.cli import arguments, commands, emulate, emulators
from agentruns.cli import console as console_command
from agentruns.dialects import NAMES, for_workers, load, names
from agentruns.emulator import Call, Emulator, Turn
from agentruns.errors import ConfigurationError, ProtocolError
from tests.conformance import acme

QUICK = Backoff(initial=0.01)
MODULE = "tests.conformance.acme:"


def offered(monkeypatch: pytest.MonkeyPatch, **places: str) -> None:
    """Let packages offer dialects: by name, what stands in their entry points."""
    points = [EntryPoint(name, place, names.GROUP) for name, place in places.items()]
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda **given: points if given == {"group": names.GROUP} else []
    )


def filed(folder: Path) -> Path:
    file = folder / "own_dialect_of_a_file.py"
    file.write_text(
        "import sys\nfrom tests.conformance.acme import *\nNAME = 'filed'\nvendor = sys.modules[__name__]\n"
    )
    return file


def test_a_dialect_is_found_in_a_package_a_module_and_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offered(monkeypatch, acme="tests.conformance.acme", narrative="tests.conformance.acme")
    monkeypatch.syspath_prepend(tmp_path)
    file = filed(tmp_path)

    assert load("acme") is load(MODULE) is acme
    assert load(f"{file}").NAME == load(f"{file}:vendor").NAME == "filed"
    assert load("narrative").NAME == "narrative"  # the names of this package win
    assert "Client of acme" in repr(connect("acme", token="t"))


def test_workers_are_given_a_table_itself_and_files_by_their_full_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("jmespath")
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(names.shipped()["kindo"].read_text())
    assert for_workers("mine.toml") is load("mine.toml")
    assert for_workers("own.py:vendor") == f"{tmp_path / 'own.py'}:vendor"
    assert for_workers("own.py") == str(tmp_path / "own.py")
    assert [for_workers(name) for name in ("acme", "narrative", "kindo", MODULE)] == [
        "acme",
        "narrative",
        "kindo",
        MODULE,
    ]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("acme", f"there is no dialect 'acme'; choose one of {', '.join(NAMES)}, broken"),
        ("broken", "the dialect 'broken' cannot be imported: ModuleNotFoundError: No module named 'no_such_package'"),
        ("no_such_package:dialect", "cannot be imported: ModuleNotFoundError"),
        ("tests.conformance.acme:dialect", "cannot be imported: AttributeError"),
        ("no_such_file.py", "cannot be imported: FileNotFoundError"),
        ("os:path", "is no dialect: it lacks NAME"),
    ],
)
def test_a_name_that_leads_nowhere_says_so(name: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch, broken="no_such_package")
    with pytest.raises(ConfigurationError) as refused:
        connect(name, token="t")
    assert told in str(refused.value)


def test_a_package_that_is_broken_hides_no_other_vendor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offered(monkeypatch, broken="no_such_package", acme="tests.conformance.acme")

    assert commands.main(["vendors"]) == 0
    shown = capsys.readouterr()
    assert all(f"{name}: " in shown.out for name in (*NAMES, "acme"))
    assert "from tests.conformance.acme; token in ACME_TOKEN; has resume, cancel, page" in shown.out.replace("\n ", "")
    assert "the dialect 'broken' cannot be imported" in shown.err


def _job(emulator: Emulator[Any], command: str, *options: str) -> list[str]:
    return [command, MODULE, "--project", "p1", "--text", "Do it.", "--base-url", emulator.base_url, *options]


def test_the_command_line_runs_a_vendor_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Emulator(acme.Acme, script=[Turn(text="Done.")]) as emulator:
        monkeypatch.setenv("ACME_TOKEN", emulator.token)

        assert commands.main(_job(emulator, "run", "--json", "--origin-key", "k1")) == 0
        assert commands.main(_job(emulator, "run", "--json", "--origin-key", "k1")) == 0
        last = Run.from_json(capsys.readouterr().out.splitlines()[-1])
        assert last.output == "Done."
        assert isinstance(last.detail, acme.AcmeJob)
        assert emulator.state.runs_started == 1  # the field `key` is that of the job, and not another option
        assert commands.main(["watch", MODULE, last.id, "--base-url", emulator.base_url]) == 0
        assert commands.main(["list", MODULE, "--parent", "p1", "--base-url", emulator.base_url]) == 0


def test_options_tell_what_they_are_and_a_broken_name_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        commands.main(["run", MODULE, "--help"])
    assert "--origin-key TEXT" in capsys.readouterr().out
    for argv in (["run", "os:path"], ["watch", "os:nothing", "1"], ["batch", "no_such_file.py", "in.csv"]):
        with pytest.raises(SystemExit) as ended:
            commands.main(argv)
        assert ended.value.code == 2
        told = capsys.readouterr().err
        assert "is no dialect" in told or "cannot be imported" in told


@pytest.mark.parametrize("place", ["no_such_file.py:dialect", "broken.py", "own.py:nothing", "os:path"])
@pytest.mark.parametrize("command", ["vendors", "list", "run", "batch"])
def test_a_broken_name_is_told_by_the_command_that_was_typed(
    command: str,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text("raise RuntimeError('out of order')\n")
    Path("own.py").write_text("")

    with pytest.raises(SystemExit) as ended:
        commands.main([command, place])

    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"usage: agentruns {command} ")
    assert told.splitlines()[-1].startswith(f"agentruns {command}")
    assert "is no dialect" in told or f"the dialect {place!r} cannot be imported: " in told


RAW = {"id": "1", "project": "p1", "state": "ok", "answer": "Done."}
WRITTEN = Run(RunRef("1", "p1"), RunStatus.COMPLETED, "ok", vendor="acme", raw=RAW).to_json()


@pytest.fixture
def _nobody_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialects, "_vendors", {})


@pytest.mark.usefixtures("_nobody_known")
def test_a_run_from_json_has_the_detail_of_a_vendor_that_a_client_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Run.from_json(WRITTEN).detail is None

    connect(acme, token="t")
    assert Run.from_json(WRITTEN).detail == acme.AcmeJob("1", "p1", "ok", "Done.")


@pytest.mark.usefixtures("_nobody_known")
def test_a_run_from_json_has_the_detail_of_an_installed_vendor(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    offered(monkeypatch, acme="no_such_package")
    assert Run.from_json(WRITTEN).detail is None
    assert "the dialect 'acme' cannot be imported" in caplog.text

    offered(monkeypatch, acme="tests.conformance.acme")
    assert Run.from_json(WRITTEN).detail == acme.AcmeJob("1", "p1", "ok", "Done.")


@pytest.mark.usefixtures("_nobody_known")
def test_a_mistake_in_detail_is_named_and_leaves_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch, acme="tests.conformance.acme")
    monkeypatch.setattr(acme, "detail", lambda raw: raw["nothing"])
    run = Run.from_json(WRITTEN)

    with pytest.raises(ProtocolError, match=r"acme\.detail failed with KeyError: 'nothing'"):
        _ = run.detail
    assert run.raw == RAW


@pytest.mark.asyncio
@pytest.mark.usefixtures("_nobody_known")
async def test_an_inbox_refuses_an_answer_that_an_installed_vendor_would_not_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offered(monkeypatch, acme="tests.conformance.acme")
    inbox = Inbox()
    ask = Turn(calls=[Call("ask", {"question": "Shall I?"})])
    async with (
        Emulator(acme.Acme, script=[ask, Turn("Done.")]) as emulator,
        connect("acme", token=emulator.token, base_url=emulator.base_url, schedule=QUICK) as client,
    ):
        waiting = asyncio.create_task(client.result(acme.Job("p1", "Do it."), tools=inbox))
        (asked,) = await anext(each async for each in inbox.changes() if each)
        with pytest.raises(ConfigurationError, match="the answer to ask must be a text or an object"):
            await inbox.answer(asked.action.id, 5)
        await inbox.answer(asked.action.id, "yes")
        assert (await waiting).status is RunStatus.COMPLETED


@pytest.mark.asyncio
async def test_vendors_of_packages_are_emulated_and_a_broken_one_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offered(monkeypatch, broken="no_such_package", acme="tests.conformance.acme")
    serving = asyncio.create_task(commands._emulate(arguments.parse(["emulate", "--json"]), commands._Seen()))
    told: list[dict[str, str]] = []
    while len(told) < len(NAMES) + 1 and not serving.done():
        await asyncio.sleep(0.01)
        shown = capsys.readouterr()
        told += [json.loads(line) for line in shown.out.splitlines()]
        assert "broken" in shown.err or not shown.err
    served = {each["vendor"]: each for each in told}
    assert [*served] == [*NAMES, "acme"]
    async with connect("acme", token=served["acme"]["token"], base_url=served["acme"]["base_url"]) as client:
        assert (await client.start(acme.Job("p1", "Do it."))).vendor == "acme"
    serving.cancel()
    assert await serving == 0


def without_emulator(folder: Path, line: str) -> str:
    file = folder / "dialect_without_emulator.py"
    file.write_text(f"from tests.conformance.acme import *\nNAME = 'bare'\n{line}\n")
    return str(file)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("EMULATOR = None", "bare has no emulator: its dialect names one by EMULATOR"),
        ("EMULATOR = 'os:path'", "EMULATOR of bare is no subclass of agentruns.emulator.Vendor"),
        ("EMULATOR = 'os:nothing'", "the emulator of bare 'os:nothing' cannot be imported: AttributeError"),
        ("EMULATOR = 'Acme'", "EMULATOR is 'Acme'; it must be a class, or `module:attribute` of one"),
    ],
)
def test_an_emulator_that_is_not_there_is_told(
    line: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = commands.main(["emulate", without_emulator(tmp_path, line)])
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 2
    assert told in capsys.readouterr().err


class Limited(acme.Acme):
    """Acme, emulated with slots, and with a project that there is."""

    limits: ClassVar[Mapping[str, tuple[str, int]]] = {"slots": ("slots", 1)}
    fields: ClassVar[Mapping[str, Any]] = {"project": "p7", "text": "Hello."}

    def example_fields(self) -> Mapping[str, Any]:
        return self.fields


def test_an_emulator_of_ones_own_says_what_starts_a_run_there_and_what_may_be_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = without_emulator(tmp_path, "from tests.test_vendor_names import Limited as EMULATOR\nexample = None")
    args = arguments.parse(["emulate", name, "--slots", "3"])
    assert emulate._options(args, name) == {"slots": 3}
    with pytest.raises(ConfigurationError, match=r"--slots is for origami; .*acme: is emulated without"):
        emulate._options(args, MODULE)

    with Emulator(Limited) as running:
        origin = emulators.example_of(name, running)
        assert (origin.project, origin.text) == ("p7", "Hello.")
        assert "--project p7 --text Hello." in emulate._lines(name, running, origin, json=False)[-1]
        monkeypatch.setattr(Limited, "fields", {"place": "p7"})
        with pytest.raises(
            ConfigurationError, match=r"`example_fields` of the emulator of .* does not fit Job: .*'place'"
        ):
            emulators.example_of(name, running)
    monkeypatch.undo()
    assert commands.main(["demo", "--vendor", name, "--json"]) == 0
    assert Run.from_json(capsys.readouterr().out.splitlines()[-1]).ref.parent == "p7"


@pytest.mark.parametrize("argv", [["demo", "--vendor"], ["console", "--emulator"]])
def test_a_dialect_without_an_example_cannot_be_tried(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main([*argv, without_emulator(tmp_path, "example = None")]) == 2
    assert "its dialect gives what starts a run by `example()`" in capsys.readouterr().err


def test_the_demo_tells_a_plain_story_of_any_vendor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offered(monkeypatch, acme="tests.conformance.acme")

    assert commands.main(["demo", "--vendor", "acme", "--json"]) == 0
    states = [Run.from_json(line) for line in capsys.readouterr().out.splitlines()]
    assert states[-1].output == "Done."
    assert RunStatus.REQUIRES_ACTION in {run.status for run in states}


@pytest.mark.parametrize("command", ["run", "start", "batch"])
def test_an_origin_without_fields_is_wrong_usage(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["in.csv"] if command == "batch" else []
    with pytest.raises(SystemExit) as ended:
        commands.main([command, without_emulator(tmp_path, "Origin = dict"), *rows])
    assert ended.value.code == 2
    assert "bare starts a run from dict, which is no attrs class and has no options" in capsys.readouterr().err


def test_the_console_shows_what_a_broken_package_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offered(monkeypatch, broken="no_such_package", acme="tests.conformance.acme")
    monkeypatch.setenv("ACME_TOKEN", "t")
    args = arguments.parse(["console", "j"])

    assert [*console_command._clients(args, tmp_path / "j", ["acme", "broken", "unheard"])] == ["acme"]
    assert "runs of broken are shown as the journal has them" in capsys.readouterr().err
