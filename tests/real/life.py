"""A process that follows one run of a real server under a key, and is killed: see `stories.Life`."""

import asyncio
import importlib
import sys
from pathlib import Path

from .stories import RealServer


async def live(of: RealServer, url: str, folder: Path, *, hold: bool) -> None:
    """Follow the run to its end; where the handler is to *hold*, it never answers."""

    async def answer() -> str:
        with (folder / "asked").open("a") as asked:
            asked.write("asked\n")
        await asyncio.sleep(600 if hold else 0)
        return "yes"

    async with of.client(url, journal=folder / "journal") as client:
        await client.result(of.asking(0), key="k", tools=of.handler(answer), timeout=100)


if __name__ == "__main__":
    module, name, url, folder, hold = sys.argv[1:]
    asyncio.run(live(getattr(importlib.import_module(module), name)(), url, Path(folder), hold=hold == "hold"))
