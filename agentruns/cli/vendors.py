"""`agentruns vendors`: what each vendor's dialect guesses, because no page says it, and how to change it."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from agentruns._values import codec
from agentruns.dialects import NAMES, load
from agentruns.dialects.guesses import Guess


def show(name: str | None, *, json: bool) -> None:
    """Print the guesses of one vendor, or of all: as lines of JSON, or for people."""
    for vendor in NAMES if name is None else (name,):
        dialect: Any = load(vendor)
        guesses: Sequence[Guess] = getattr(dialect, "GUESSES", ())
        if json:
            for guess in guesses:
                row = {
                    "vendor": vendor,
                    "guess": guess.name,
                    "taken": guess.taken,
                    "why": guess.why,
                    "change": guess.switch(vendor),
                }
                sys.stdout.write(codec.encode(row).decode() + "\n")
        else:
            sys.stdout.write("\n".join(_told(vendor, guesses)) + "\n\n")


def _told(vendor: str, guesses: Sequence[Guess]) -> list[str]:
    lines = [f"{vendor}: {len(guesses)} guesses; pass a variant where the vendor's name or module is taken"]
    for guess in guesses:
        lines.append(f"  {guess.name}")
        told = (("taken", guess.taken), ("because", guess.why), ("change", guess.switch(vendor)))
        lines += [
            textwrap.fill(text, 100, initial_indent=f"    {what:<8} ", subsequent_indent=" " * 13)
            for what, text in told
        ]
    return lines
