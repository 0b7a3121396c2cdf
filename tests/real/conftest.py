"""Nothing here is for the ordinary suite: it is collected where `AGENTRUNS_REAL` names a folder."""

import os
from collections.abc import Iterator

import pytest

from .servers import HOME, MissingServerError, Server, running, tell, told

collect_ignore_glob = [] if HOME in os.environ else ["test_*.py"]

pytest.register_assert_rewrite("tests.real.stories")


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give the server of the module, `make_server(folder)`, running; skip, loudly, where it cannot be installed."""
    try:
        made = request.module.make_server(tmp_path_factory.mktemp("server"))
    except MissingServerError as error:
        tell(f"NOT TESTED: {error}")
        pytest.skip(str(error))
    with running(made) as server:
        yield server


def pytest_sessionstart(session: pytest.Session) -> None:
    if HOME in os.environ and not hasattr(session.config, "workerinput"):
        told().parent.mkdir(parents=True, exist_ok=True)
        told().unlink(missing_ok=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which servers there were, in which versions, and what was measured; and, loudly, which there were not."""
    if HOME not in os.environ or not told().exists():
        return
    terminalreporter.section("real servers")
    for line in dict.fromkeys(told().read_text().splitlines()):
        missing = line.startswith("NOT TESTED")
        terminalreporter.write_line(line, red=missing, bold=missing)
