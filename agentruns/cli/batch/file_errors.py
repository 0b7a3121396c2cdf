"""Errors of a file of a batch that fails while it is in use: which file, why, and what helps."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

from agentruns.errors import AgentRunsError

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class FileError(AgentRunsError):
    """Report a file that could not be read or written, although it was open."""


def file_error(name: str, path: Path, done: str, error: OSError) -> FileError:
    """Return the error for the file called *name* that could not be *done*, such as "written"."""
    said = error.strerror or str(error)
    return FileError(f"{name} {str(path)!r} could not be {done}: {said}. {_help(error.errno)}")


def _help(number: int | None) -> str:
    if number in FULL:
        return "Free some space on its disk"
    if number == errno.EFBIG:
        return "Allow larger files there, or use another one"
    return "Look at its disk and its permissions"
