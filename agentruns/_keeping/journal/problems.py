"""What is wrong with a journal's file, in words that say what to do."""

from __future__ import annotations

import errno
from typing import Final


class UnfitError(Exception):
    """Say why a file cannot be a journal of ours; never leaves this package."""


_FULL: Final = "the disk is full; free some space, then make the same call again"
_READ_ONLY: Final = "it cannot be written; give this user write permission for the file and its folder"
_DAMAGED: Final = "it is damaged; restore it from a backup, or use another path"

NO_LOCKS: Final = "its file system does not let several processes share it; use a path on a local disk"

_OF_SQLITE: Final = {
    "SQLITE_BUSY": "another program keeps it locked; end that program's transaction, then make the same call again",
    "SQLITE_CANTOPEN": "it cannot be opened; look at the permissions of the file and its folder",
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_FULL": _FULL,
    "SQLITE_IOERR": "the disk fails or has no room; look at the disk, then make the same call again",
    "SQLITE_NOTADB": "it is not an SQLite file; use another path",
    "SQLITE_READONLY": _READ_ONLY,
}
_OF_SYSTEM: Final = {
    errno.EACCES: _READ_ONLY,
    errno.EDQUOT: _FULL,
    errno.ENOLCK: NO_LOCKS,
    errno.ENOSPC: _FULL,
    errno.ENOSYS: NO_LOCKS,
    errno.EOPNOTSUPP: NO_LOCKS,
    errno.EPERM: _READ_ONLY,
    errno.EROFS: _READ_ONLY,
}


def reason(error: Exception) -> str:
    """Return what an error of the driver or of the system means, and what helps."""
    if isinstance(error, UnfitError):
        return str(error)
    if isinstance(error, OSError):
        return _OF_SYSTEM.get(error.errno or 0, str(error))
    named = str(getattr(error, "sqlite_errorname", ""))
    known = _OF_SQLITE.get("_".join(named.split("_")[:2]))
    return f"{known} ({named}: {error})" if known else f"{type(error).__name__}: {error}"
