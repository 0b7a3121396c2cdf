"""
Who is still there.

Every open journal is an owner, with an id of its own, and holds the lock of a small file beside the database. The
system lets go of the lock when the process dies, however it dies, so that an owner is alive if its lock is held.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

from filelock import FileLock, Timeout

from .problems import UnfitError

_PATIENCE: Final = 5.0
_PAUSE: Final = 0.01

PART_SECONDS: Final = 90.0
"""An owner writes at least as often as that which part of a budget it has; a third of it is how often it does."""


class Owners:
    """
    The owner of one open journal, and what it can tell about the others.

    Looking at an owner takes its lock for a moment, and would look like life to somebody who looks at the same time:
    call `alive` and `sweep` only while you hold the database's write lock. All methods block; none takes long.
    """

    def __init__(self, path: str) -> None:
        self.me = uuid4().hex
        self.part_seconds = PART_SECONDS
        self._path = path
        self._lock = self._lock_of(self.me)
        self._identity: tuple[int, int] | None = None
        self._seen: dict[str, bool] = {}

    def enter(self) -> None:
        """Be alive from now on; raise `OSError` or `UnfitError` where the folder does not allow it."""
        try:
            self._lock.acquire(timeout=_PATIENCE, poll_interval=_PAUSE)  # somebody may be looking at it, and delete it
        except Timeout:  # nobody keeps it for so long: such a folder, as those of /proc, takes no files
            raise UnfitError(
                f"no file can be made in {Path(self._path).parent}; use a path in a folder that can be written"
            ) from None
        self._identity = identity(self._file_of(self.me))

    def leave(self) -> None:
        """Be gone, and leave no file behind."""
        self._remove(self.me)
        self._lock.release()

    def intact(self) -> bool:
        """Tell whether others can see that this owner is alive: somebody may have deleted its file."""
        return identity(self._file_of(self.me)) == self._identity

    def look_again(self) -> None:
        """Forget who was alive: what was true in one transaction need not be so in the next."""
        self._seen.clear()

    def alive(self, owner: str) -> bool:
        """Tell whether *owner* is still there; delete what a dead one left."""
        if owner not in self._seen:
            self._seen[owner] = owner == self.me or (_is_id(owner) and self._probe(owner))
        return self._seen[owner]

    def now(self) -> float:
        """Return the machine's time of day: all owners are on one machine."""
        return time.time()

    def sweep(self) -> None:
        """Delete what dead owners left."""
        path = Path(self._path)
        prefix, suffix = f"{path.name}.", ".lock"
        for each in path.parent.iterdir():
            if each.name.startswith(prefix) and each.name.endswith(suffix):
                self.alive(each.name.removeprefix(prefix).removesuffix(suffix))

    def _probe(self, owner: str) -> bool:
        if not self._file_of(owner).exists():
            return False
        lock = self._lock_of(owner)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        except OSError:
            return True  # it cannot be told, and work of a living owner must not be taken away
        self._remove(owner)
        lock.release()
        return False

    def _remove(self, owner: str) -> None:
        with suppress(OSError):  # where an open file cannot be deleted, releasing its lock deletes it
            self._file_of(owner).unlink()

    def _file_of(self, owner: str) -> Path:
        return Path(f"{self._path}.{owner}.lock")

    def _lock_of(self, owner: str) -> FileLock:
        # A soft lock would outlive a killed process, and be no sign of life.
        return FileLock(self._file_of(owner), mode=0o600, thread_local=False, fallback_to_soft=False)


def identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return what tells the file at *path* from any other, None if there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_id(owner: str) -> bool:
    return re.fullmatch("[0-9a-f]{32}", owner) is not None
