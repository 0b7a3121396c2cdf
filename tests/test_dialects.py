"""The kit of who writes a dialect: all of it from one place, and none of it at the price of a vendor."""

import subprocess
import sys

import pytest
from attrs import fields

from agentruns import ConfigurationError, dialects
from agentruns._values.commands import Checkpoint, ClaimRun, Command
from agentruns._values.exchange import Request, Response
from agentruns.dialects import Flow, Ownership, checkpoint, claim_run, protocol
from agentruns.dialects.vendor import Vendor
from tests.guides import ROOT


def test_the_kit_is_what_its_docstring_tells() -> None:
    told = dialects.__doc__ or ""
    assert [name for name in dialects.__all__ if name != "NAMES" and f"`{name}" not in told] == []
    assert [name for name in dialects.__all__ if not hasattr(dialects, name)] == []


STABLE = """
    Action AdvisesPolls AsksByItself Auth Authenticates Basic Bearer Cancels Checkpoint ChecksToken ClaimRun Dialect
    Failure FindsAnsweringRun Flow GivesExample GroupsRuns Header IsEmulated Json JsonText Limit LimitsRuns
    Lists ListsCurrentStates Lock NAMES NamesTraceRoles NoAuth Ownership Page ParsesRun Problem Progress Query
    RateLimit Recovers ReportsErrorsInBody ReportsTimes Request Response Resumes ResumesAgain ResumesFirst Run
    AwaitSlot GroupsAnswers ReadsTools ReadsTrace ShowsArtifacts ShowsQuestions ShowsRuns ShowsSteps show
    RunRef RunStatus SendsDefaults SkippedRows Sleep StreamsEvents ToolOutput Usage check checkpoint claim_run
    guesses load reading search wire
"""


def test_the_names_of_the_kit_are_those_that_dialects_outside_rely_on() -> None:
    assert set(STABLE.split()) <= set(dialects.__all__), "one is gone: that breaks packages, and takes a major version"


def test_the_guide_tells_what_each_name_of_a_dialect_buys() -> None:
    guide = (ROOT / "agentruns" / "dialects" / "README.md").read_text()
    names = [each.name for each in fields(Vendor)]
    assert [name for name in names if f"`{name}`" not in guide and f"`{name}(" not in guide] == []


def test_every_capability_is_in_the_kit() -> None:
    capabilities = {name for name, each in vars(protocol).items() if getattr(each, "_is_protocol", False)}

    assert capabilities - {"Protocol"} <= set(dialects.__all__)


def test_a_rate_limit_has_a_short_name() -> None:
    assert dialects.Limit is dialects.RateLimit


def test_the_kit_imports_no_vendor() -> None:
    vendors = [f"agentruns.dialects.{name}" for name in dialects.NAMES]
    program = f"import sys, agentruns.dialects; sys.exit(not sys.modules.keys().isdisjoint({vendors}))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_vendor_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(
        ConfigurationError, match="no dialect 'acme'; choose one of narrative, middesk, origami, conduit"
    ):
        dialects.load("acme")


def decided(flow: Flow[object], status: int) -> tuple[Command, object]:
    """Return what a flow asks for, and what it returns when that is decided so."""
    asked = next(flow)
    with pytest.raises(StopIteration) as end:
        flow.send(Response(status, {}, b"", Request("NONE", "/")))
    return asked, end.value.value


@pytest.mark.parametrize(
    ("verdict", "kept"), [(Ownership.MINE, True), (Ownership.UNCLEAR, True), (Ownership.OTHERS, False)]
)
def test_a_checkpoint_is_kept_unless_another_start_was_waited_for(verdict: Ownership, kept: bool) -> None:
    asked, returned = decided(checkpoint({"a": 1}, "group", 3.0), verdict)

    assert asked == Checkpoint({"a": 1}, "group", 3.0)
    assert returned is kept


@pytest.mark.parametrize("verdict", Ownership)
def test_a_claim_says_whose_a_run_is_and_without_a_journal_it_is_ours(verdict: Ownership) -> None:
    assert decided(claim_run("r"), verdict) == (ClaimRun("r"), verdict)
    assert decided(claim_run("r"), 200)[1] is Ownership.MINE
