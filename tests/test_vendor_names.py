"""A dialect of one's own by its name: an installed package, a module or a file, in Python and on the command line."""

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from agentruns import Run, RunRef, RunStatus, connect
from agentruns.cli import commands
from agentruns.dialects import NAMES, load, names
from agentruns.emulator import Emulator, Turn
from agentruns.errors import ConfigurationError
from tests.conformance import acme

MODULE = "tests.conformance.acme:"


def offered(monkeypatch: pytest.MonkeyPatch, **places: str) -> None:
    """Let packages offer dialects: by name, what stands in their entry points."""
    points = [EntryPoint(name, place, names.GROUP) for name, place in places.items()]
    monkeypatch.setattr(names, "entry_points", lambda group: points if group == names.GROUP else [])


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


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("acme", "there is no dialect 'acme'; choose one of narrative, middesk, origami, conduit, broken"),
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


def test_a_run_from_json_has_the_detail_of_a_vendor_that_a_client_knows() -> None:
    connect(acme, token="t")
    raw = {"id": "1", "project": "p1", "state": "ok", "answer": "Done."}
    run: Run = Run(RunRef("1", "p1"), RunStatus.COMPLETED, "ok", vendor="acme", raw=raw)

    assert Run.from_json(run.to_json()).detail == acme.AcmeJob("1", "p1", "ok", "Done.")
