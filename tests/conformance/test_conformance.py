"""The kit over the vendors of this package, each with both readings of what no page says, and over one of its own."""

from typing import Any

import pytest

from agentruns.dialects import NAMES, load
from agentruns.testing import Case, Conformance
from tests.conformance import vendors
from tests.conformance.acme import AcmeCase


class TestNarrative(vendors.NarrativeCase, Conformance):
    pass


class TestNarrativeOtherwise(vendors.NarrativeOtherwiseCase, Conformance):
    pass


class TestMiddesk(vendors.MiddeskCase, Conformance):
    pass


class TestMiddeskOtherwise(vendors.MiddeskOtherwiseCase, Conformance):
    pass


class TestOrigami(vendors.OrigamiCase, Conformance):
    pass


class TestOrigamiOtherwise(vendors.OrigamiOtherwiseCase, Conformance):
    pass


class TestConduit(vendors.ConduitCase, Conformance):
    pass


class TestConduitOtherwise(vendors.ConduitOtherwiseCase, Conformance):
    pass


class TestOpenAIResponses(vendors.OpenAIResponsesCase, Conformance):
    pass


class TestA2A(vendors.A2ACase, Conformance):
    pass


class TestLangGraph(vendors.LangGraphCase, Conformance):
    pass


class TestAcme(AcmeCase, Conformance):
    pass


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(load(name), "GUESSES")])
def test_every_guess_has_a_vendor_here_that_reads_it_otherwise(name: str) -> None:
    cases: list[type[Case]] = [
        each for each in vars(vendors).values() if isinstance(each, type) and issubclass(each, Case)
    ]
    other = next(case for case in cases if case.name == f"{name}_other")
    guesses: Any = load(name)
    told = repr(other.dialect)
    switched = [guess.name for guess in guesses.GUESSES if not guess.change]
    assert [guess for guess in switched if f"{guess}=" not in told] == []
