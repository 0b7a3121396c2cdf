"""The README and the guides: every Python block runs, against the emulators, and every link leads somewhere."""

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs
import pytest

import agentruns
from agentruns import dialects
from agentruns.cli import arguments
from agentruns.emulator import Call, Emulator, Turn
from tests.guides import GUIDES, README, ROOT, anchors_of, blocks_of, links_of, name_of

BLOCKS = {f"{name_of(guide)}: {name}": block for guide in GUIDES for name, block in blocks_of(guide).items()}
ONE_SCREEN = "README.md: In one screen (1)"

QUESTIONS = [Turn(calls=[Call("ask-questions", {"question": "Which?", "suggestedAnswers": ["This"]})]), Turn("Done.")]

LONGEST = 150
"""Seconds that a block may take: one begins a cluster, which takes half a minute where the machine is busy."""

pytestmark = pytest.mark.timeout(LONGEST + 10)

PROMPTLY = """
import runpy, sys
from agentruns.dialects import origami
origami.POLL_SECONDS = (0.05, 0.05)  # not 15 s, as its page advises: so a block ends soon
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.fixture
def _emulators(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with (
        Emulator("narrative") as narrative,
        Emulator("middesk") as middesk,
        Emulator("origami", script=QUESTIONS, retry_after=0) as origami,
        Emulator("conduit") as conduit,
        Emulator("openai_responses") as responses,
        Emulator("langgraph") as langgraph,
    ):
        by_variable: dict[str, Emulator[Any]] = {
            "NARRATIVE_TOKEN": narrative,
            "MIDDESK_API_KEY": middesk,
            "ORIGAMI_API_KEY": origami,
            "CONDUIT_API_TOKEN": conduit,
            "OPENAI_API_KEY": responses,
            "LANGGRAPH_API_KEY": langgraph,
        }
        for variable, emulator in by_variable.items():
            monkeypatch.setenv(variable, emulator.token)
            monkeypatch.setenv(f"{variable.partition('_')[0]}_BASE_URL", emulator.base_url)
        yield


def test_there_are_blocks_and_guides() -> None:
    assert ONE_SCREEN in BLOCKS
    assert len(BLOCKS) >= 15
    assert {"agentruns/web/README.md", "agentruns/dialects/README.md"} <= set(map(name_of, GUIDES))


@pytest.mark.usefixtures("_emulators")
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_runs_as_it_stands(name: str, tmp_path: Path) -> None:
    is_test = "def test_" in BLOCKS[name]
    program = tmp_path / ("test_block.py" if is_test else "block.py")
    program.write_text(BLOCKS[name])
    for library in ("django", "fastapi", "ray", "starlette"):
        if f"\nimport {library}\n" in BLOCKS[name] or f"\nfrom {library}" in BLOCKS[name]:
            pytest.importorskip(library)
    ignored = ["-W", "ignore::DeprecationWarning:ray.data.context"]
    how = ["-m", "pytest", "-q", "-p", "no:cacheprovider"] if is_test else ["-W", "error", *ignored]
    if "origami.Prompt" in BLOCKS[name]:
        how += ["-c", PROMPTLY]
    ended = subprocess.run(
        [sys.executable, *how, str(program)], capture_output=True, text=True, cwd=tmp_path, timeout=LONGEST, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.usefixtures("_emulators")
def test_the_one_screen_example_answers_its_tool_and_prints_the_answer() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", BLOCKS[ONE_SCREEN]], capture_output=True, text=True, timeout=LONGEST, check=True
    ).stdout
    assert "requires_action" in shown
    assert "confirm_booking" in shown.splitlines()[-1]


def test_the_set_up_commands_are_one_line_each() -> None:
    demo, gates = (block.strip() for block in list(blocks_of(README, "console").values())[:2])
    assert "\n" not in demo + gates
    assert demo.endswith("agentruns demo")
    assert gates.endswith("tox")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


COMMANDS = [
    line.partition("#")[0].strip()
    for guide in GUIDES
    for block in blocks_of(guide, "console").values()
    for line in block.splitlines()
    if line.startswith("agentruns ")
]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_one_that_the_command_line_takes(line: str) -> None:
    assert arguments.parse(shlex.split(line)[1:]).command == line.split()[1]


@pytest.mark.usefixtures("_emulators")
def test_the_batch_of_the_guide_runs_as_it_stands(tmp_path: Path) -> None:
    guide = ROOT / "agentruns/cli/batch/README.md"
    (tmp_path / "questions.csv").write_text(*blocks_of(guide, "csv").values())
    (tmp_path / "config.json").write_text(*blocks_of(guide, "json").values())
    for line in "".join(blocks_of(guide, "console").values()).splitlines()[:2]:
        command = [sys.executable, "-m", *shlex.split(line)]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=LONGEST, check=False)
        assert ended.returncode == 0, ended.stderr
    answers = [json.loads(answer) for answer in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [answer["status"] for answer in answers] == ["completed", "completed"]


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 200


PAGES = [*GUIDES, ROOT / "tests" / "README.md", ROOT / ".github" / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_link_is_relative_and_leads_to_what_is_there(page: Path) -> None:
    for link in links_of(page):
        place, _, anchor = link.partition("#")
        target = page.parent / place if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_line_is_longer_than_a_screen_is_wide(page: Path) -> None:
    assert [line for line in page.read_text().splitlines() if len(line) > 130] == []


def test_every_guide_but_the_readme_has_a_line_in_it() -> None:
    assert {name_of(guide) for guide in GUIDES[1:]} <= set(links_of(README))


def test_the_guides_are_installed_with_the_package() -> None:
    installed = Path(agentruns.__file__).parent
    for guide in GUIDES[1:]:
        assert (installed / guide.relative_to(ROOT / "agentruns")).read_text() == guide.read_text()


def test_no_page_names_a_module_that_is_not_there() -> None:
    for page in PAGES:
        for path in re.findall(r"`((?:agentruns|tests|benchmarks)/[\w/]+(?:\.py|/))`", page.read_text()):
            assert (ROOT / path).exists(), (name_of(page), path)


def test_the_map_of_the_tests_names_every_kit_and_folder() -> None:
    shown = (ROOT / "tests" / "README.md").read_text()
    folders = [path.name + "/" for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name[0] not in "._"]
    kits = [
        path.name for path in (ROOT / "tests").glob("*.py") if not path.name.startswith(("test_", "__", "conftest"))
    ]
    assert [name for name in [*folders, *kits] if f"`{name}`" not in shown] == []


@pytest.mark.parametrize("name", dialects.NAMES)
def test_the_guide_to_a_vendor_has_every_word_flow_guess_and_field(name: str) -> None:
    guide = (ROOT / "agentruns" / "dialects" / name / "README.md").read_text()
    vendor: Any = dialects.load(name)
    kinds = ("list_", "get_", "create_", "update_", "delete_", "archive_", "give_", "send_", "take_", "draft_", "edit_")
    flows = [each for each in vendor.__all__ if each.startswith(kinds) and each != "list_parent"]
    fields = [field.name for field in attrs.fields(vendor.Origin)]
    guesses = [guess.name for guess in getattr(vendor, "GUESSES", ())]
    switches = list(inspect.signature(vendor.variant).parameters) if guesses else []
    assert [each for each in (*vendor.STATUS, *flows, *fields, *guesses, *switches) if each not in guide] == []
    assert "| What the page says | What we do |" in guide


def _named(text: str) -> Iterator[str]:
    """Yield the symbols of the package that a text names in full, metrics left out."""
    metrics = "".join(module.read_text() for module in (ROOT / "agentruns" / "_telemetry").glob("*.py"))
    found: list[str] = re.findall(r"`(agentruns(?:\.\w+)+)(?:\(.*?\))?`", text)
    yield from (symbol for symbol in found if f'"{symbol}"' not in metrics)


def _leads_somewhere(symbol: str) -> bool:
    found: Any = agentruns
    for number, name in enumerate(parts := symbol.split(".")[1:]):
        if not hasattr(found, name):
            try:
                import_module(".".join(["agentruns", *parts[: number + 1]]))
            except ModuleNotFoundError:
                return name in getattr(found, "__annotations__", {})
        found = getattr(found, name)
    return True


@pytest.mark.parametrize("page", [ROOT / "CHANGELOG.md", *PAGES], ids=name_of)
def test_every_symbol_that_is_named_in_full_is_there(page: Path) -> None:
    assert [symbol for symbol in _named(page.read_text()) if not _leads_somewhere(symbol)] == []


def test_every_test_that_the_table_of_faults_names_is_there() -> None:
    folder = ROOT / "tests"
    named = re.findall(r"`([\w/]+\.py)::(test_\w*)(\*?)`", (folder / "FAULTS.md").read_text())
    assert len(named) > 60
    for file, test, more in named:
        pattern = rf"^(async )?def {test}{r'' if more else r'[(]'}"
        assert re.search(pattern, (folder / file).read_text(), re.MULTILINE), f"{file}::{test}"
