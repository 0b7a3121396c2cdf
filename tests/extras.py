"""
Each extra, installed alone in an empty environment, runs the example of its guide.

    python -m tests.extras             # the two that take least
    python -m tests.extras all         # every one; some minutes
    python -m tests.extras web ray     # those

Needs `uv`, and a package index. `tox -e extras` runs it.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from agentruns.emulator import Emulator
from tests.guides import ROOT, blocks_of

_DOCSTRINGS: Final = """
from agentruns import Tools
tools = Tools()
@tools.add
def weather(city: str) -> str:
    '''
    Tell the weather.

    Args:
        city: Where.
    '''
    return city
assert "Where." in str(tools.schemas()), tools.schemas()
"""
_OTEL: Final = "import opentelemetry.trace\n"
_NOTEBOOK: Final = """
import IPython
from agentruns.notebook import show
"""
_CONSOLE: Final = """
import asyncio, re, urllib.request
from agentruns.cli.console import emulated, served
async def main():
    async with emulated("conduit") as source, served(source) as address:
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(), urllib.request.ProxyHandler({}))
        page = await asyncio.to_thread(lambda: opener.open(address).read().decode())
        assert "Start a run" in page
asyncio.run(main())
"""
_BATCH: Final = """
import shlex, subprocess, sys
from pathlib import Path
def run(line):
    subprocess.run([sys.executable, "-m", *shlex.split(line)], check=True)
Path("config.json").write_text(CONFIG)
Path("questions.csv").write_text(ROWS)
"""
_PARQUET: Final = """
import pyarrow.csv, pyarrow.parquet
pyarrow.parquet.write_table(pyarrow.csv.read_csv("questions.csv"), "questions.parquet")
run(LINES[1].replace(".csv", ".parquet"))
assert Path("answers.jsonl").read_text().count('"completed"') == 2
"""
_REPORT: Final = """
run(LINES[1])
run(LINES[2])
assert "<svg" in Path("answers.html").read_text()
"""
_TESTING: Final = """
import re, subprocess, sys
from pathlib import Path
Path("test_mine.py").write_text(TESTS)
ended = subprocess.run([sys.executable, "-m", "pytest", "-q", "test_mine.py"], capture_output=True, text=True)
shown = re.search(r"middesk: (\\d+) shown, 0 failed, \\d not played", ended.stdout)
assert shown and int(shown[1]) > 33, ended.stdout + ended.stderr
"""


def _guide(name: str, block: str) -> str:
    return blocks_of(ROOT / "agentruns" / name / "README.md")[block]


def _batch(then: str) -> str:
    guide = ROOT / "agentruns/cli/batch/README.md"
    (config,), (rows,) = blocks_of(guide, "json").values(), blocks_of(guide, "csv").values()
    lines = "".join(blocks_of(guide, "console").values()).splitlines()
    return f"CONFIG, ROWS, LINES = {config!r}, {rows!r}, {lines!r}{_BATCH}{then}"


SCREEN: Final = blocks_of(ROOT / "README.md")["In one screen (1)"]
EXAMPLES: Final[Mapping[str, str]] = {
    "cli": "import rich, subprocess, sys\nsubprocess.run([sys.executable, '-m', 'agentruns', 'demo'], check=True)\n",
    "journal": _guide("_keeping", "Keeping work across a crash (1)"),
    "docstrings": _DOCSTRINGS,
    "otel": _OTEL + SCREEN,
    "notebook": _NOTEBOOK + SCREEN,
    "web,journal": _guide("web", "In a web handler (1)"),
    "console": _CONSOLE,
    "parquet,journal": _batch(_PARQUET),
    "report,journal": _batch(_REPORT),
    "testing": f"TESTS = {_guide('testing', 'The scenarios (1)')!r}{_TESTING}",
    "tables": _guide("dialects/tables", "A whole table (1)"),
    "ray": _guide("ray", "As a step of Ray Data (1)"),
}
CHEAP: Final = ("cli", "journal")


def main(names: list[str]) -> int:
    """Run the examples of the extras of these names, and return an exit code."""
    wanted = list(EXAMPLES) if names == ["all"] else names or list(CHEAP)
    failed = []
    with tempfile.TemporaryDirectory() as folder, Emulator("narrative") as emulator:
        _run("uv", "build", "--quiet", "--wheel", "--out-dir", folder, str(ROOT))
        (wheel,) = Path(folder).glob("*.whl")
        for name in wanted:
            place = Path(folder) / name
            ok = _is_fine(place, f"agentruns[{name}] @ {wheel.as_uri()}", EXAMPLES[name], emulator)
            print(f"{name}: {'ok' if ok else 'FAILED'}", flush=True)  # noqa: T201
            failed += [] if ok else [name]
    return 1 if failed else 0


def _is_fine(place: Path, requirement: str, program: str, emulator: Emulator[Any]) -> bool:
    _run("uv", "venv", "--quiet", "--python", sys.executable, str(place))
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    _run("uv", "pip", "install", "--quiet", "--python", str(python), requirement)
    (place / "example.py").write_text(program)
    environment = {**os.environ, "NARRATIVE_TOKEN": emulator.token, "NARRATIVE_BASE_URL": emulator.base_url}
    environment.pop("PYTHONPATH", None)
    ended = subprocess.run(
        [str(python), "example.py"],
        cwd=place,
        env=environment,
        timeout=180,
        check=False,
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        print(ended.stdout, ended.stderr, file=sys.stderr)  # noqa: T201
    return ended.returncode == 0


def _run(*words: str) -> None:
    subprocess.run(words, check=True, timeout=600)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
