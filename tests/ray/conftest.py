"""One small cluster of Ray on this machine, for all tests that need one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TOKEN = "emulator-token"
VARIABLES = (
    "NARRATIVE_TOKEN",
    "MIDDESK_API_KEY",
    "ORIGAMI_API_KEY",
    "CONDUIT_API_TOKEN",
    "KINDO_API_KEY",
    "ACME_TOKEN",
)


@pytest.fixture(scope="package")
def cluster() -> Iterator[Any]:
    """Begin Ray, with the token of the emulator in the environment that its workers inherit."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patched:
        for variable in VARIABLES:
            patched.setenv(variable, TOKEN)
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=80 * 2**20,
            logging_level="ERROR",
        )
    try:
        yield ray
    finally:
        ray.shutdown()


@pytest.fixture
def place(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Be in an empty folder, with the token of the emulator; return Ray."""
    monkeypatch.chdir(tmp_path)
    for variable in VARIABLES:
        monkeypatch.setenv(variable, TOKEN)
    return cluster
