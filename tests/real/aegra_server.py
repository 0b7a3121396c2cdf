"""Aegra, a server of LangGraph's API that others wrote, over a PostgreSQL of its own, with the same graphs."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests import postgres_server

from .langgraph_server import GRAPH
from .servers import MissingServerError, Package, Server

PACKAGE: Final = Package("aegra", ["aegra-api==0.11.0", "langgraph==1.2.24", "uvicorn==0.54.0"], python="3.12")


@contextmanager
def _database() -> Iterator[Mapping[str, str]]:
    with postgres_server.server() as database:
        yield {"DATABASE_URL": database.url().partition("?")[0]}


def make_server(folder: Path) -> Server:
    """Return a server, not started, that keeps threads and runs in a database which lives as long as it is used."""
    if postgres_server.programs() is None:
        raise MissingServerError("AEGRA: it needs PostgreSQL, which is not installed")
    python = str(PACKAGE.install() / "python")
    (folder / "graphs.py").write_text(GRAPH)
    graphs = {name: f"./graphs.py:{name}" for name in ("agent", "contexts", "loops", "stops")}
    (folder / "aegra.json").write_text(json.dumps({"graphs": graphs}))
    words = [python, "-m", "uvicorn", "aegra_api.main:app", "--host", "127.0.0.1", "--log-level", "warning"]
    quiet = {"LOG_LEVEL": "WARNING", "AEGRA_CONFIG": str(folder / "aegra.json")}
    return Server("aegra", lambda port: [*words, "--port", str(port)], folder, "/health", quiet, beside=_database)
