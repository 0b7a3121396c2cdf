"""The table at the end of a session of pytest: scenario by vendor, with the reason for each that was not played."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

pytest.register_assert_rewrite("agentruns.testing.acts", "agentruns.testing.scenarios")

PROPERTY: Final = "agentruns_conformance"
"""The property of a test's report that holds the label of the case and the scenario."""

_WORDS: Final = (("passed", "yes"), ("failed", "NO"), ("error", "NO"), ("skipped", "-"))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, if any scenario was played."""
    cells = dict(_cells(terminalreporter))
    if not cells:
        return
    vendors = list(dict.fromkeys(vendor for vendor, _ in cells))
    scenarios = list(dict.fromkeys(scenario for _, scenario in cells))
    terminalreporter.section("conformance")
    width = max(map(len, scenarios)) + 2
    widths = {vendor: max(len(vendor) + 2, 11) for vendor in vendors}
    terminalreporter.line("".ljust(width) + "".join(vendor.ljust(widths[vendor]) for vendor in vendors))
    reasons: dict[str, int] = {}
    for scenario in scenarios:
        row = scenario.ljust(width)
        for vendor in vendors:
            shown, reason = cells.get((vendor, scenario), ("", ""))
            if reason:
                shown = f"- ({reasons.setdefault(reason, len(reasons) + 1)})"
            row += shown.ljust(widths[vendor])
        terminalreporter.line(row.rstrip())
    for vendor in vendors:
        told = [shown for (of, _), (shown, _) in cells.items() if of == vendor]
        terminalreporter.line(
            f"{vendor}: {told.count('yes')} shown, {told.count('NO')} failed, {told.count('-')} not played"
        )
    for reason, number in reasons.items():
        terminalreporter.line(f"({number}) {reason}")


def _cells(reporter: pytest.TerminalReporter) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    for outcome, shown in _WORDS:
        for report in reporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", ()):
                if name == PROPERTY and report.when in {"call", "setup"}:
                    vendor, scenario = value
                    reason = report.longrepr[2].removeprefix("Skipped: ") if outcome == "skipped" else ""
                    yield (vendor, scenario), (shown, reason)
