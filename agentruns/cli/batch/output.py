"""
The output: one JSON line per item, appended whole, so that a later call knows what is done.

An item that is taken up again gets a further line; its last one counts, and the others go when the file is tidied up,
which puts a new file in the place of the old one. A line that a crash cut off is dropped. Lines stand in the order in
which rows have ended.

A row that could not be used has no key, for any text may be the key of another row: its line counts as itself. (Earlier
versions gave it the key "line-N"; that is read as none.)
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any, Final, Self

from attrs import frozen

from agentruns._values import codec
from agentruns._values.printable import printable_json
from agentruns._values.run import RunRef
from agentruns.errors import ConfigurationError

from .file_errors import FULL, file_error
from .limits import spent_by

INVALID: Final = "invalid"
_BEGIN: Final = b'{"key":'


@frozen
class Known:
    """
    What the output says of an item.

    `run` is that of one that is not over, `digest` names what it asked for, None where that is not known. `spent` is
    what all its attempts have used, `earlier` what those before the last have.
    """

    status: str
    attempts: int
    run: RunRef | None = None
    reason: str = ""
    digest: str | None = None
    spent: Mapping[str, Any] | None = None
    earlier: Mapping[str, Any] | None = None


class Output:
    """
    The output file at *path*, made if there is none.

    With *heal*, lines that are damaged are put into a file beside it, OUTPUT.damaged, and `healed` has their numbers:
    their rows are made again from the journal. Raise `ConfigurationError` for a file that is something else, that is
    damaged, or cannot be written, `FileError` for a full disk.
    """

    def __init__(self, path: Path, vendor: str, *, heal: bool = False) -> None:
        self.path = path
        self.healed: Sequence[int] = ()
        self._heal = heal
        self.known: dict[str, Known] = {}
        self._vendor = vendor
        self._place = path.resolve()  # a link stays, and what it names is written
        self._untidy = False
        self._fresh = True
        try:
            self._file = _opened(self._place)
            try:
                self._read()
                self.tidy()
            except BaseException:
                os.close(self._file)
                raise
        except OSError as error:
            if error.errno in FULL:
                raise file_error("OUTPUT", path, "written", error) from error
            raise _unusable(path, error) from error
        self._fresh = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.fsync(self._file)
        except OSError as error:
            raise file_error("OUTPUT", self.path, "written", error) from error
        finally:
            os.close(self._file)

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line in one piece; it takes the place of an earlier one with its key. Raise `OSError` if it cannot."""
        _write(self._file, line)
        if line["status"] != INVALID and line["key"] in self.known:
            self._untidy = True

    def tidy(self) -> None:
        """Keep the last line of each item, and none of rows that could not be used; in one step, or not at all."""
        if not self._untidy:
            return
        # A name that no file has, and that nobody can foresee and put a link to another file at.
        beside = self._place.with_name(f"{self._place.name}.{token_hex(8)}.new")
        new = os.open(beside, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, self._place.stat().st_mode & 0o777)
        try:
            _lock(new, beside)
            for line in last_lines(self._place, _ignore):
                if line["status"] != INVALID or not self._fresh:
                    _write(new, line)
            os.fsync(new)
            beside.replace(self._place)
        except BaseException:
            os.close(new)
            beside.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file, self._untidy = new, False

    def _read(self) -> None:
        damaged: dict[int, bytes] = {}
        for line in _lines_of(self.path, self._vendor, damaged.__setitem__):
            if line["status"] == INVALID:
                self._untidy = True
                continue
            self._untidy |= line["key"] in self.known
            self.known[line["key"]] = _known(line)
        if damaged:
            self._put_aside(damaged)
        self._drop_what_was_cut_off()  # not before every other line has shown that the file is ours

    def _put_aside(self, damaged: Mapping[int, bytes]) -> None:
        """Keep lines that cannot be read in a file of their own."""
        _check_damage(self.path, damaged, good=bool(self.known), heal=self._heal)
        aside = self._place.with_name(f"{self._place.name}.damaged")
        file = os.open(aside, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            os.write(file, b"".join(damaged.values()))
        finally:
            os.close(file)
        self.healed, self._untidy = sorted(damaged), True

    def _drop_what_was_cut_off(self) -> None:
        with self.path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            keep = size
            while keep:
                start = max(keep - 65536, 0)
                file.seek(start)
                found = file.read(keep - start).rfind(b"\n")
                if found >= 0:
                    keep = start + found + 1
                    break
                keep = start
            if keep == size:
                return
            file.seek(keep)
            if keep == 0 and not _BEGIN.startswith(file.read(len(_BEGIN))):
                raise ConfigurationError(_strange(self.path, 1))
            file.truncate(keep)


def _opened(path: Path) -> int:
    """Return the file, locked for as long as it is open."""
    _check_kind(path)
    while True:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            _lock(file, path)
            if os.fstat(file).st_ino == path.stat().st_ino:
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # another call has tidied it up meanwhile


def _check_kind(path: Path) -> None:
    if path.exists() and not path.is_file():  # a pipe would never be opened, and a device never read to its end
        raise ConfigurationError(f"OUTPUT {str(path)!r} is no regular file; a second call could not read it again")


def _lock(file: int, path: Path) -> None:
    """Keep other calls from the file; a system without `fcntl` trusts its user."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigurationError(
            f"another call writes to OUTPUT {str(path)!r}; wait for its end, or use another file"
        ) from None


def _write(file: int, line: Mapping[str, Any]) -> None:
    text = memoryview(printable_json(codec.encode(line).decode()).encode() + b"\n")  # it is read in terminals, too
    while text:  # one write, unless the disk is full
        text = text[os.write(file, text) :]


def _ignore(_: int, __: bytes) -> None:
    """Let a damaged line be."""


def known_items(path: Path, vendor: str) -> dict[str, Known]:
    """Return what an output says of each item, damaged lines left out; raise as `lines` does."""
    found = (line for line in _lines_of(path, vendor, _ignore) if line["status"] != INVALID)
    return {line["key"]: _known(line) for line in found}


def _known(line: Mapping[str, Any]) -> Known:
    over = line["status"] in {"completed", "failed"}
    run = None if over or not line.get("run") else RunRef(line["run"]["id"], line["run"]["parent"])
    reason = "" if over else str((line.get("failure") or {}).get("type", ""))
    told = line.get("digest"), spent_by(line), line.get("earlier")
    return Known(line["status"], line["attempts"], run, reason, *told)


def lines(path: Path, damaged: Callable[[int, bytes], None] | None = None) -> Iterator[dict[str, Any]]:
    """
    Iterate over the lines of an output, blank ones left out.

    *damaged* is told the number and the bytes of a line that is no JSON. Raise `ConfigurationError` for it without
    that, and for a file that is no output.
    """
    good = False
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if not text.endswith(b"\n"):
                return  # it is being written, or was cut off
            if not text.strip():
                continue
            try:
                line = codec.decode(text)
            except codec.CodecError:
                if damaged is None:
                    raise ConfigurationError((_damaged if good else _strange)(path, number)) from None
                damaged(number, text)
                continue
            if not isinstance(line, dict) or not {"key", "status", "attempts", "durations"} <= set(line):
                raise ConfigurationError(_strange(path, number))
            good = True
            yield line


def last_lines(path: Path, damaged: Callable[[int, bytes], None] | None = None) -> Iterator[dict[str, Any]]:
    """Iterate over the last line of each item, and of each row that could not be used; *damaged* is as in `lines`."""
    last = {_item(line): number for number, line in enumerate(lines(path, damaged))}
    return (line for number, line in enumerate(lines(path, damaged)) if last[_item(line)] == number)


def _item(line: Mapping[str, Any]) -> tuple[str, Any]:
    """Return what a line is about: an item by its key, or a row that could not be used by where it stands."""
    return ("row", line.get("line")) if line["status"] == INVALID else ("item", line["key"])


def check_output(path: Path, vendor: str, *, heal: bool = False) -> None:
    """Raise `ConfigurationError` for a file that `Output` would not take, and leave it as it is."""
    try:
        if not path.exists():
            if not path.parent.is_dir():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            return
        _check_kind(path)
        damaged: dict[int, bytes] = {}
        whole = sum(1 for _ in _lines_of(path, vendor, damaged.__setitem__))
        _check_damage(path, damaged, good=whole > 0, heal=heal)
        with path.open("rb") as file:
            if not whole and not _BEGIN.startswith(file.read(len(_BEGIN))):
                raise ConfigurationError(_strange(path, 1))
    except OSError as error:
        raise _unusable(path, error) from error


def _lines_of(path: Path, vendor: str, damaged: Callable[[int, bytes], None] | None = None) -> Iterator[dict[str, Any]]:
    for line in lines(path, damaged):
        if line.get("vendor", vendor) != vendor:
            raise ConfigurationError(
                f"OUTPUT {str(path)!r} holds runs of {line['vendor']}, not of {vendor}; use another file"
            )
        yield line


def _unusable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"OUTPUT {str(path)!r} cannot be used: {error}")


def _check_damage(path: Path, damaged: Mapping[int, bytes], *, good: bool, heal: bool) -> None:
    """Refuse a file with damaged lines, unless it has others that are ours and is to be healed."""
    if damaged and not (good and heal):
        raise ConfigurationError((_damaged if good else _strange)(path, min(damaged)))


def _damaged(path: Path, number: int) -> str:
    return (
        f"{str(path)!r} is damaged in line {number}. With its journal `agentruns batch` heals it; without one, take "
        "that line out, and its row is started again"
    )


def _strange(path: Path, number: int) -> str:
    return f"{str(path)!r} is not the output of `agentruns batch` (line {number}); use another file"
