"""The files of a user: what is his stays, and what is no file is refused."""

import os
import stat
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentruns.cli import arguments, report
from agentruns.cli.batch.output import Output, check_output
from agentruns.errors import ConfigurationError

LINE = {
    "key": "a", "line": 1, "status": "failed", "attempts": 1, "durations": {}, "vendor": "narrative", "run": None,
}  # fmt: skip


def superseded(path: Path) -> None:
    """Write an output twice, so that it is tidied."""
    for _ in range(2):
        with Output(path, "narrative") as output:
            output.append(LINE)
            output.append(LINE)
            output.tidy()


def test_a_file_of_the_user_beside_the_output_stays(tmp_path: Path) -> None:
    mine = tmp_path / "out.jsonl.new"
    mine.write_text("mine")
    superseded(tmp_path / "out.jsonl")
    assert mine.read_text() == "mine"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.new"]


def test_a_link_that_somebody_has_put_beside_the_output_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("theirs")
    (tmp_path / "out.jsonl.new").symlink_to(target)
    superseded(tmp_path / "out.jsonl")
    assert target.read_text() == "theirs"
    assert not (tmp_path / "out.jsonl").is_symlink()


def test_an_output_that_is_a_link_stays_one_and_its_target_is_kept_up(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "real.jsonl", tmp_path / "out.jsonl"
    target.touch()
    link.symlink_to(target)
    superseded(link)
    assert link.is_symlink()
    assert target.read_text().count("\n") == 1
    assert [each.name for each in target.parent.iterdir()] == ["real.jsonl"]


def test_an_output_is_made_for_its_owner_only_and_keeps_the_mode_that_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with Output(path, "narrative"):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    superseded(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.timeout(20)
def test_an_output_that_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/full"), Path("/dev/null")):
        for use in (check_output, Output):
            with pytest.raises(ConfigurationError, match="is no regular file"):
                use(path, "narrative")


def test_a_page_of_the_user_is_no_report_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, page = tmp_path / "answers.jsonl", tmp_path / "answers.html"
    output.touch()
    page.write_text("<h1>mine</h1>")
    monkeypatch.setattr(report, "read", lambda path: [])
    with pytest.raises(ConfigurationError, match="is no report; say where to write by --html"):
        report.report(Namespace(output=str(output), html=None, png=None))
    assert page.read_text() == "<h1>mine</h1>"


@pytest.fixture
def _importable() -> Iterator[None]:
    paths, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = paths
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.mark.usefixtures("_importable")
@pytest.mark.parametrize("name", ["csv", "json", "types", "agentruns", "select"])
def test_handlers_may_be_in_a_file_of_any_name_and_take_the_place_of_no_module(name: str, tmp_path: Path) -> None:
    before = sys.modules.get(name)
    path = tmp_path / f"{name}.py"
    path.write_text("import beside\ndef ask(q: str) -> str:\n    return beside.WORD + q\ntools = {'ask': ask}\n")
    (tmp_path / "beside.py").write_text("WORD = 'hi '\n")
    (tmp_path / "email.py").write_text("raise RuntimeError('imported in the place of a module of Python')\n")
    tools = arguments.tools(f"{path}:tools")
    assert tools is not None
    assert tools.find(["ask"]) is not None
    assert sys.modules.get(name) is before
    assert sys.path[0] != str(tmp_path)
    assert sys.path.index(str(tmp_path)) == len(sys.path) - 1


@pytest.mark.usefixtures("_importable")
@pytest.mark.parametrize("text", ["import sys; sys.exit(1)", "raise SystemExit('no')", "tools = undefined.x", ""])
def test_handlers_that_cannot_be_loaded_are_wrong_usage(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text.replace("undefined.x", "__import__('nowhere_to_be_found')"))
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        arguments.tools(f"{path}:tools")
    path = tmp_path / "mended.py"
    path.write_text("def ask(q: str) -> str:\n    return q\ntools = {'ask': ask}\n")
    assert arguments.tools(f"{path}:tools") is not None
