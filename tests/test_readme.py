"""Every Python block of the README runs, against the emulator."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentruns.emulator import Call, Emulator, Turn

README = Path(__file__).parent.parent / "README.md"
BLOCKS = {
    f"{heading.strip()} ({number})": block
    for heading, section in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", README.read_text(), re.MULTILINE | re.DOTALL)
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL), 1)
}


QUESTIONS = [Turn(calls=[Call("ask-questions", {"question": "Which?", "suggestedAnswers": ["This"]})]), Turn("Done.")]


@pytest.fixture(autouse=True)
def _emulators(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with Emulator("narrative") as one, Emulator("origami", script=QUESTIONS, retry_after=0) as other:
        monkeypatch.setenv("NARRATIVE_BASE_URL", one.base_url)
        monkeypatch.setenv("NARRATIVE_TOKEN", one.token)
        monkeypatch.setenv("ORIGAMI_BASE_URL", other.base_url)
        monkeypatch.setenv("ORIGAMI_API_KEY", other.token)
        yield


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 5
    assert "In one screen (1)" in BLOCKS


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
    ended = subprocess.run(
        [sys.executable, *how, str(program)], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_one_screen_example_answers_its_tool_and_prints_the_answer() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", BLOCKS["In one screen (1)"]], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "requires_action" in shown
    assert "confirm_booking" in shown.splitlines()[-1]


def test_the_set_up_commands_are_one_line_each() -> None:
    consoles = re.findall(r"^```console\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    demo, gates = (block.strip() for block in consoles[:2])
    assert "\n" not in demo + gates
    assert demo.endswith("agentruns demo")
    assert gates.endswith("tox")
    assert os.access(README.parent / ".ci" / "run", os.X_OK) or "site-packages" in str(README)
