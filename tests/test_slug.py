"""One text for a run, its parent and its vendor: each run has one, safe in a URL, and any other text is refused."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentruns import ConfigurationError, Run, RunRef, RunStatus
from tests.scripted_wire import refuses

TEXTS = st.text(st.characters(), max_size=12)


def run_of(vendor: str, parent: str, run_id: str) -> Run:
    return Run(RunRef(run_id, parent), RunStatus.RUNNING, "running", vendor=vendor)


@given(TEXTS, TEXTS, TEXTS.filter(bool))
def test_a_slug_names_the_run_and_needs_no_escape_in_a_url(vendor: str, parent: str, run_id: str) -> None:
    slug = run_of(vendor, parent, run_id).slug

    assert RunRef.from_slug(slug, vendor) == RunRef(run_id, parent)
    assert quote(slug, safe="") == slug


def test_a_slug_can_be_read_by_people() -> None:
    assert run_of("origami", "agent 7", "run-1.2").slug == "origami.agent~207.run-1~2E2"
    assert run_of("narrative", "", "9a4e1f52").slug == "narrative..9a4e1f52"


@given(st.text(st.sampled_from("ab.~-_/%é0F2E"), max_size=14))
def test_there_is_no_other_slug_of_the_same_run(text: str) -> None:
    try:
        ref = RunRef.from_slug(text)
    except ConfigurationError:
        return
    vendor = text.split(".")[0]
    assert run_of(vendor, ref.parent, ref.id).slug.partition(".")[2] == text.partition(".")[2]


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "a.b", "a.b.", "a.b.c.d", "a.b.c~", "a.b.~4", "a.b.~zz", "a.b.~e9", "a.b.~61", "a.b.~FF"),
        *("a.b.é", "a/b.c.d", "a.b." + "c" * 3000),
    ],
)
def test_what_is_no_slug_is_refused(text: str) -> None:
    with refuses(f"{text[:80]!r} names no run", "`run.slug`"):
        RunRef.from_slug(text)


def test_a_run_of_another_vendor_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="of origami, and not of narrative"):
        RunRef.from_slug("origami.agent.run", "narrative")
