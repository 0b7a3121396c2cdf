"""`agentruns batch --engine ray` of a vendor that a table describes, and of one that a package brings."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agentruns.dialects import names
from agentruns.emulator import Emulator, Turn
from tests.conformance import acme
from tests.guides import ROOT

pytest.importorskip("ray")
pytest.importorskip("jmespath")
from tests.tables.kindo import AGENT, Kindo

pytestmark = [pytest.mark.timeout(240)]  # it begins a cluster, and many processes

COUNT = 4


def played(place: Any, emulator: Emulator[Any], vendor: str, variable: str, *more: str) -> list[Mapping[str, Any]]:
    """Run a batch in a process of its own, on the cluster that is there, and return its lines."""
    words = [sys.executable, "-m", "agentruns", "batch", vendor, "in.jsonl", "-o", "out.jsonl", "--quiet"]
    words += ["--base-url", emulator.base_url, "--engine", "ray", "--workers", "1", "--no-journal", *more]
    environment = {
        **os.environ,
        "RAY_ADDRESS": place.get_runtime_context().gcs_address,
        "PYTHONPATH": str(ROOT),
        variable: emulator.token,
    }
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=150)
    lines = Path("out.jsonl").read_text() if Path("out.jsonl").exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + lines
    return [json.loads(line) for line in lines.splitlines()]


def write(*rows: Mapping[str, Any]) -> None:
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_workers_follow_the_runs_of_a_table(place: Any) -> None:
    Path("mine.toml").write_text(names.shipped()["kindo"].read_text())
    write(*({"agent_id": AGENT, "query": f"q{number}"} for number in range(COUNT)))
    inputs = '[{"name": "query", "value": "{query}"}]'
    with Emulator(Kindo, script=lambda _: Turn("Clean.", running=0.1)) as emulator:
        lines = played(place, emulator, "mine.toml", "KINDO_API_KEY", "--inputs", inputs)
        assert emulator.state.runs_started == COUNT
    assert [(line["status"], line["output"], line["vendor"]) for line in lines] == [
        ("completed", "Clean.", "kindo")
    ] * COUNT


def test_workers_follow_the_runs_of_an_installed_package(place: Any) -> None:
    info = Path("acme_agentruns-0.1.dist-info")  # beside the driver: from there workers import, too
    info.mkdir()
    Path("acme_agentruns.py").write_text(Path(acme.__file__).read_text())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme_agentruns\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[{names.GROUP}]\nacme = acme_agentruns\n")
    write(*({"project": "p1", "text": f"number {number}"} for number in range(COUNT)))
    with Emulator(acme.Acme, script=lambda _: Turn("Done.", running=0.1)) as emulator:
        lines = played(place, emulator, "acme", "ACME_TOKEN")
        assert emulator.state.runs_started == COUNT
    assert [(line["status"], line["output"], line["vendor"]) for line in lines] == [
        ("completed", "Done.", "acme")
    ] * COUNT
