"""Ids that derive from a batch and an item; and what is said where Ray is not installed."""

import json
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentruns import ConfigurationError, OutcomeUnknownError, conduit, middesk, narrative, origami
from agentruns._values.exchange import Request
from agentruns.cli import commands
from agentruns.dialects import MINTED
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
    assert made.idempotency_key == "6b0946a7-d3d0-552e-accd-13c7e9d63001"


def test_a_class_that_gains_fields_with_defaults_keeps_its_ids() -> None:
    def version(name: str, base: type[Any] = object, **defaults: Any) -> Any:
        return attrs.make_class(name, {key: attrs.field(default=each) for key, each in defaults.items()}, bases=(base,))

    @attrs.frozen
    class Marked:
        op_id: str = attrs.field(factory=lambda: "", kw_only=True, metadata=MINTED)

    def id_of(origin: Any) -> str:
        return str(stable_id(origin, "b", "k").op_id)

    ask, place = version("Ask", Marked, text="", place=None), version("Place", city="")
    new_ask, new_place = version("Ask", Marked, text="", place=None, tries=3), version("Place", city="", floor=0)
    same = [ask("Hi", place("Rome")), new_ask("Hi", new_place("Rome")), new_ask("Hi", new_place("Rome", 0), 3)]
    other = [new_ask("Hi", new_place("Rome", 1)), new_ask("Hi", new_place("Rome"), 4), new_ask("Hi")]
    assert len({id_of(each) for each in same}) == 1
    assert len({id_of(each) for each in [same[0], *other]}) == 4


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
