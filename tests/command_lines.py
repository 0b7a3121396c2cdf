"""What tests of the command line share: an emulated Narrative that commands find, and calls of `agentruns batch`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentruns import Stats
from agentruns.emulator import Call, Emulator, Narrative, Prompt, Turn

CONFIG = {"model": "m", "data_plane_id": "0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11", "max_iterations": 3, "max_tokens": 99}
STATS = Stats(
    watched=0,
    polls=9,
    polls_shared=0,
    lists=0,
    polls_saved_by_lists=0,
    ended=0,
    lag=None,
    budget=0.25,
    contact_lost=0,
)


def use(running: Emulator[Narrative], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have commands find an emulator where they look for Narrative."""
    monkeypatch.setenv("NARRATIVE_BASE_URL", running.base_url)
    monkeypatch.setenv("NARRATIVE_TOKEN", running.token)


@contextmanager
def at_hand(monkeypatch: pytest.MonkeyPatch, folder: Path, **options: Any) -> Iterator[Emulator[Narrative]]:
    """Emulate Narrative for commands that run in *folder*, where `conversation.json` describes a conversation."""
    with Emulator("narrative", **options) as running:
        use(running, monkeypatch)
        monkeypatch.chdir(folder)
        Path("conversation.json").write_text(json.dumps(CONFIG))
        yield running


def speaks(prompt: Prompt) -> Turn:
    """Answer as the text asks: `bad` fails, `slow` takes for ever, `ask` calls a tool first."""
    text = prompt.text or ""
    if "bad" in text:
        return Turn(error="JobFailed")
    if "ask" in text and not prompt.outputs:
        return Turn(calls=[Call("book", {"slot": text})])
    return Turn(f"Re: {text}", running=600 if "slow" in text else 0.05)


def call(*more: str, key: str = "{id}") -> list[str]:
    """Return the words of a call over `in.jsonl`."""
    words = ["batch", "narrative", "in.jsonl", "-o", "out.jsonl", "--text", "{question}"]
    return [*words, "--conversation", "conversation.json", "--key", key, *more]


def ask(*questions: str) -> None:
    """Write the input: the ids count from 1."""
    text = "".join(json.dumps({"id": n, "question": each}) + "\n" for n, each in enumerate(questions, 1))
    Path("in.jsonl").write_text(text)


def results(path: str = "out.jsonl") -> dict[str | int, Any]:
    """Return the lines by key, those of rows that could not be used by where they stand."""
    found = [json.loads(line) for line in Path(path).read_text().splitlines()]
    by_name = {line["line"] if line["key"] is None else line["key"]: line for line in found}
    assert len(by_name) == len(found), "one line per item"
    return by_name
