"""Prints the matrix: scenario by vendor, with the reason for each cell that does not apply."""

import re
from collections.abc import Iterator

import pytest

_CELL = re.compile(r"test_conformance\[(?P<vendor>[a-z_]+)-(?P<scenario>.+)\]$")


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    cells = dict(_cells(terminalreporter))
    if not cells:
        return
    vendors = list(dict.fromkeys(vendor for vendor, _ in cells))
    scenarios = list(dict.fromkeys(scenario for _, scenario in cells))
    terminalreporter.section("conformance")
    width = max(map(len, scenarios)) + 2
    terminalreporter.line("".ljust(width) + "".join(vendor.ljust(11) for vendor in vendors))
    reasons: dict[str, str] = {}
    for scenario in scenarios:
        row = scenario.ljust(width)
        for vendor in vendors:
            shown, reason = cells.get((vendor, scenario), ("", ""))
            if reason:
                shown = f"- ({reasons.setdefault(reason, str(len(reasons) + 1))})"
            row += shown.ljust(11)
        terminalreporter.line(row.rstrip())
    for reason, number in reasons.items():
        terminalreporter.line(f"({number}) {reason}")


def _cells(reporter: pytest.TerminalReporter) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    for outcome, shown in (("passed", "yes"), ("failed", "NO"), ("skipped", "-")):
        for report in reporter.stats.get(outcome, []):
            cell = _CELL.search(report.nodeid)
            if cell and getattr(report, "when", "") in {"call", "setup"}:
                reason = report.longrepr[2].removeprefix("Skipped: ") if outcome == "skipped" else ""
                yield (cell["vendor"], cell["scenario"]), (shown, reason)
