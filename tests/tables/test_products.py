"""The tables of this package, on emulators that were written from the same pages."""

from agentruns.testing import Conformance
from tests.tables.browserbase import BrowserbaseCase
from tests.tables.devin import DevinCase
from tests.tables.kindo import KindoCase


class TestBrowserbase(BrowserbaseCase, Conformance):
    pass


class TestKindo(KindoCase, Conformance):
    pass


class TestDevin(DevinCase, Conformance):
    pass
