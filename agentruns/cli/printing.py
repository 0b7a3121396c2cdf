"""The one place where commands print: each line is made safe, whoever wrote what it quotes."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Iterable
from contextlib import suppress
from typing import TextIO

from agentruns._values.printable import printable, printable_json


def say(*lines: str, to: TextIO | None = None) -> None:
    """Print *lines* on stdout, or on *to*; a line break within one is printed as an escape."""
    for line in lines:
        print(printable(line), file=to, flush=True)


def complain(*lines: str) -> None:
    """Print *lines* on stderr, if it takes them: there is nowhere else to say that it does not."""
    with suppress(OSError):
        say(*lines, to=sys.stderr)


def unwritable() -> str | None:
    """Return why stdout does not take what was printed on it, None if it does."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None


def drop(out: TextIO) -> None:
    """Let nobody try again to write what *out*, stdout as a rule, does not take."""
    with suppress(OSError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, out.fileno())
        os.close(null)


def say_json(text: str, *, to: TextIO | None = None) -> None:
    """Print one line of JSON."""
    print(printable_json(text), file=to, flush=True)


def complain_traceback(error: BaseException) -> None:
    """Print *error* on stderr, with its traceback."""
    for piece in traceback.TracebackException.from_exception(error).format():
        is_frame = piece.startswith((" ", "\n", "Traceback"))  # what the error says may have several lines, and forge
        complain(*(piece.rstrip("\n").split("\n") if is_frame else [piece.removesuffix("\n")]))


def shell(words: Iterable[str]) -> str:
    """Return a command as a shell reads it; words with control characters are quoted as bash has it."""
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    if printable(word) == word:
        return shlex.quote(word)
    plain = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{printable(plain)}'"
