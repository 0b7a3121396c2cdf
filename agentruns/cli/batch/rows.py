"""Rows of a file, one at a time: JSON lines, CSV, Parquet. What cannot be read is told by line; the rest goes on."""

from __future__ import annotations

import codecs
import csv
import gzip
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, cast

from attrs import Factory, frozen

from agentruns import _extras as extras
from agentruns._values import codec
from agentruns.errors import ConfigurationError

from .file_errors import FileError, file_error

_JSON: Final = frozenset({".jsonl", ".ndjson"})
_CSV: Final = frozenset({".csv", ".tsv"})
_PARQUET: Final = frozenset({".parquet", ".pq"})
_BATCH: Final = 512


@frozen
class Row:
    """One row: the line on which it begins (from 1; in Parquet the number of the row), and its columns by name."""

    line: int
    values: Mapping[str, Any]


@frozen
class Problem:
    """
    Why a row cannot be used: *field* is what it concerns, empty where that is the row as a whole.

    `key` is what its key would be, None where that is not known; `values` are its columns, as far as they can be read.
    """

    line: int
    field: str
    reason: str
    key: str | None = None
    values: Mapping[str, Any] = Factory(dict)

    def __str__(self) -> str:
        return f"line {self.line}{f', field {self.field}' if self.field else ''}: {self.reason}"


Read: TypeAlias = Row | Problem


@frozen
class Rows:
    """
    A file of rows. `columns` are None where every row has its own, as JSON objects may.

    `hint` says, for the end of a sentence, what helps if they are not what was expected.
    """

    path: Path
    columns: Sequence[str] | None
    _read: Callable[[], Iterator[Read]]
    _count: Callable[[threading.Event], int]
    hint: str = ""

    def __iter__(self) -> Iterator[Read]:
        """Iterate over the rows; raise `FileError` if the file cannot be read to its end."""
        try:
            yield from self._read()
        except OSError as error:
            raise file_error("INPUT", self.path, "read to its end", error) from error
        except (EOFError, zlib.error) as error:
            raise FileError(f"INPUT {str(self.path)!r} is cut off or damaged: {error}. Write it anew") from error
        except UnicodeError as error:
            raise FileError(f"INPUT {str(self.path)!r} is not in its --encoding: {error}") from error

    def count(self, leave: threading.Event) -> int | None:
        """Return how many rows there are, read beforehand; None if *leave* was set meanwhile."""
        found = self._count(leave)
        return None if leave.is_set() else found


def rows(path: Path, *, delimiter: str | None = None, encoding: str | None = None) -> Rows:
    """
    Return the rows of the file at *path*, whose kind is that of its name; one that ends in .gz is unpacked.

    Raise `ConfigurationError` for a file that is not there, whose kind is not known, or whose header makes no sense.
    """
    packed = path.suffix.lower() == ".gz"
    kind = (path.with_suffix("") if packed else path).suffix.lower()
    if str(path) == "-":
        raise ConfigurationError(
            "INPUT is '-'; it must be a file, for a second call reads the same rows again. Write what comes from stdin "
            "to a file first, such as rows.jsonl"
        )
    if not path.exists():
        raise ConfigurationError(f"INPUT is {str(path)!r}, and there is no such file")
    if not path.is_file():
        raise ConfigurationError(f"INPUT is {str(path)!r}, which is no file that can be read twice; write it to one")
    if delimiter is not None and (len(delimiter) != 1 or kind not in _CSV):
        raise ConfigurationError(f"--delimiter is {delimiter!r}; it must be one character, for a CSV file")
    if encoding is not None and (kind in _PARQUET or not _is_encoding(encoding)):
        raise ConfigurationError(f"--encoding is {encoding!r}; it must be one such as latin-1, for a CSV or JSONL file")
    file = _File(path, packed, encoding)
    try:
        if kind in _JSON:
            file.look()
            return Rows(path, None, lambda: _json_lines(file), lambda leave: _count_lines(file, leave))
        if kind in _CSV:
            file.look()
            return _csv(file, delimiter or ("\t" if kind == ".tsv" else ","), told=delimiter is not None)
        if kind in _PARQUET and not packed:
            return _parquet(path)
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise ConfigurationError(f"INPUT {str(path)!r} cannot be read: {error}") from error
    known = ", ".join(sorted(_JSON | _CSV | _PARQUET))
    raise ConfigurationError(
        f"INPUT is {path.name!r}, whose kind is not known; its name must end in one of {known}; .gz may follow all but "
        "those of Parquet"
    )


def _is_encoding(name: str) -> bool:
    with suppress(LookupError):
        return codecs.lookup(name).name != ""
    return False


@frozen
class _File:
    """A file of text, packed by gzip or not; without an encoding it is UTF-8, and what is none is kept to be told."""

    path: Path
    packed: bool
    encoding: str | None

    def text(self) -> IO[str]:
        errors = "surrogateescape" if self.encoding is None else "strict"
        options: Any = {"encoding": self.encoding or "utf-8-sig", "errors": errors, "newline": ""}
        opened: Any = gzip.open(self.path, "rt", **options) if self.packed else self.path.open(**options)  # noqa: SIM115
        return cast("IO[str]", opened)

    def binary(self) -> IO[bytes]:
        if self.encoding is not None:
            return cast("IO[bytes]", codecs.EncodedFile(self._bytes(), "utf-8", self.encoding))
        return self._bytes()

    def _bytes(self) -> IO[bytes]:
        return cast("IO[bytes]", gzip.open(self.path)) if self.packed else self.path.open("rb")

    def look(self) -> None:
        """Refuse what begins as UTF-16 does, unless it was said to be that."""
        with self._bytes() as file:
            begin = file.read(2)
        if self.encoding is None and begin in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
            raise ConfigurationError(f"INPUT {str(self.path)!r} is not UTF-8; it looks like --encoding utf-16")


# JSON lines -----------------------------------------------------------------------------------------------------------


def _json_lines(source: _File) -> Iterator[Read]:
    with source.binary() as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                value = codec.decode(line.strip())
            except codec.CodecError as error:
                yield Problem(number, "", f"it is not JSON: {error}")
                continue
            yield Row(number, value) if isinstance(value, dict) else Problem(number, "", "it is not a JSON object")


def _count_lines(source: _File, leave: threading.Event) -> int:
    count = 0
    with source.binary() as file:
        for line in file:
            count += bool(line.strip())
            if not count % 4096 and leave.is_set():
                break
    return count


# CSV ------------------------------------------------------------------------------------------------------------------


def _csv(source: _File, delimiter: str, *, told: bool) -> Rows:
    csv.field_size_limit(2**31 - 1)  # texts may be long
    path = source.path
    with source.text() as file:
        try:
            columns = next(csv.reader(file, delimiter=delimiter, strict=True), None)
        except csv.Error as error:
            raise ConfigurationError(f"INPUT {str(path)!r} has no header that can be read: {error}") from error
    if not columns:
        raise ConfigurationError(f"INPUT {str(path)!r} is empty; its first line must name the columns")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise ConfigurationError(f"INPUT {str(path)!r} names columns twice: {', '.join(twice)}. Rename one of each")
    other = next((each for each in ";\t|," if each in columns[0]), None) if len(columns) == 1 and not told else None
    hint = "" if other is None else f". Its header has one column; is the delimiter another: --delimiter {other!r}?"
    return Rows(
        path,
        columns,
        lambda: _records(source, columns, delimiter),
        lambda leave: _count_records(source, delimiter, leave),
        hint,
    )


def _records(source: _File, columns: Sequence[str], delimiter: str) -> Iterator[Read]:
    with source.text() as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        next(reader)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Problem(line, "", f"it is not CSV: {error}")
                continue
            if cells:
                yield _record(line, columns, cells)


def _record(line: int, columns: Sequence[str], cells: Sequence[str]) -> Read:
    if len(cells) != len(columns):
        return Problem(line, "", f"it has {len(cells)} cells, and the header {len(columns)}")
    for name, cell in zip(columns, cells, strict=True):
        try:
            cell.encode()
        except UnicodeEncodeError:
            return Problem(
                line, name, "it is not UTF-8; if the file is in another encoding, name it: --encoding latin-1"
            )
    return Row(line, dict(zip(columns, cells, strict=True)))


def _count_records(source: _File, delimiter: str, leave: threading.Event) -> int:
    count = -1  # the header is none
    with source.text() as file:
        reader = csv.reader(file, delimiter=delimiter)
        with suppress(csv.Error):
            for cells in reader:
                count += bool(cells)
                if not count % 4096 and leave.is_set():
                    break
    return max(count, 0)


# Parquet --------------------------------------------------------------------------------------------------------------


def _parquet(path: Path) -> Rows:
    with extras.require("parquet", "Parquet needs"):
        from pyarrow import ArrowException, parquet  # type: ignore[import-not-found,import-untyped,unused-ignore]

    try:
        with parquet.ParquetFile(path) as file:
            columns, count = list(file.schema_arrow.names), int(file.metadata.num_rows)
    except ArrowException as error:
        raise ConfigurationError(f"INPUT {str(path)!r} is not Parquet: {error}") from error

    def read() -> Iterator[Read]:
        number = 0
        try:
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=_BATCH):
                    for values in batch.to_pylist():
                        number += 1
                        yield Row(number, values)
        except ArrowException as error:
            raise FileError(f"INPUT {str(path)!r} is damaged behind row {number}: {error}") from error

    return Rows(path, columns, read, lambda _: count)
