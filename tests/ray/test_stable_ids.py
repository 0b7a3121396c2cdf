"""Ids that derive from a batch and an item; and what is said where Ray is not installed."""

import json
import sys
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentruns import ConfigurationError, OutcomeUnknownError, conduit, middesk, narrative, origami
from agentruns._values.exchange import Request
from agentruns.cli import commands
from agentruns.errors import AgentRunsError
from agentruns.ray import map_batches, stable_id
from agentruns.ray.worker import picklable

words = st.text(max_size=8)


@given(words, words, words, words)
def test_the_same_item_of_the_same_batch_has_the_same_id_and_no_other_has(
    batch: str, key: str, other_batch: str, other_key: str
) -> None:
    def id_of(batch: str, key: str, text: str = "Hi") -> str:
        made = stable_id(narrative.UserMessage("c", text), batch, key)
        assert isinstance(made, narrative.UserMessage)
        return made.client_op_id

    assert id_of(batch, key) == id_of(batch, key)
    assert (id_of(batch, key) == id_of(other_batch, other_key)) == ((batch, key) == (other_batch, other_key))
    assert id_of(batch, key) != id_of(batch, key, "Ho")
    UUID(id_of(batch, key))


def test_the_id_of_a_known_item_stays_what_it_was() -> None:
    """It must outlive this version: what changes it starts the runs of unfinished batches anew."""
    made = stable_id(origami.Prompt("Find vets.", focus_table_ids=["t"]), "spring", "17")
    assert made.idempotency_key == "856ff15d-8771-52bb-9e72-bcbbdb7e87c0"


def test_an_origin_without_ids_stays_as_it_is() -> None:
    for origin in (middesk.RunRequest("a", thread_id="t"), conduit.Dispatch("a"), object()):
        assert stable_id(origin, "b", "k") is origin


class OddError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def test_errors_that_cannot_travel_are_told_in_words() -> None:
    fit = OutcomeUnknownError(Request("POST", "/"), "so")
    assert picklable(fit) is fit
    told = picklable(OddError("no", "calendar"))
    assert isinstance(told, AgentRunsError)
    assert str(told) == "OddError: no calendar"


def test_without_ray_its_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("NARRATIVE_TOKEN", "t")
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text(json.dumps({"text": "one"}))
    call = ["batch", "narrative", "in.jsonl", "-o", "out.jsonl", "--conversation-id", "c"]
    assert commands.main([*call, "--engine", "ray"]) == 2
    assert "agentruns[ray]" in capsys.readouterr().err
    assert commands.main([*call, "--workers", "2"]) == 2
    assert "--workers is for --engine ray" in capsys.readouterr().err
    with pytest.raises(ConfigurationError, match=r"agentruns\[ray\]"):
        map_batches(None, "origami", lambda _: None, batch="b", key="k")
