"""What lives are forked from: a process that has been through such lives itself, so that each begins at once."""

import asyncio
import gc

from tests.crash.killed_processes import PLOTS, story
from tests.crash.worker import work

for _plot in PLOTS.values():
    with story(_plot) as _told:
        asyncio.run(work(_told.life, []))
gc.collect()
gc.freeze()  # shared by all lives, and looked at by none
