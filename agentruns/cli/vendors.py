"""`agentruns vendors`: what each vendor's dialect guesses, because no page says it, and how to change it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Final

from agentruns._values import codec
from agentruns._values.generic import Json
from agentruns.dialects import NAMES, NoAuth, load
from agentruns.dialects.guesses import Guess, Variant
from agentruns.dialects.names import installed, shipped
from agentruns.dialects.vendor import CAPABILITIES, Vendor
from agentruns.errors import ConfigurationError

from .printing import complain, say, say_json

_WIDTH: Final = 100
_GLUE: Final = "\x00"
"""What stands for a space that no line ends at."""


def show(name: str | None, *, json: bool) -> None:
    """Print what one vendor has and guesses, or all: as lines of JSON, one for each guess, or for people."""
    readable = find_spec("jmespath") is not None
    others = sorted({*installed(), *(shipped() if readable else ())} - {*NAMES})
    seen: dict[str, Vendor] = {}
    for vendor in (*NAMES, *others) if name is None else (name,):
        try:
            dialect: Any = load(vendor)
            known = Vendor.of(dialect)
        except ConfigurationError as error:  # a package that is broken is no reason not to show the others
            complain(f"agentruns: {error}")
            continue
        seen[vendor] = known
        guesses: Sequence[Guess] = getattr(dialect, "GUESSES", ())
        switched = dialect.switched if isinstance(dialect, Variant) else {}
        if json:
            for row in _rows(vendor, known, guesses, switched):
                say_json(codec.encode(row).decode())
        else:
            able = ", ".join(known.capabilities) or "no more than start and fetch"
            about = f"from {_source(vendor)}; {_token(known)}; has {able}"
            first, *rest = _told(vendor, known.NAME, guesses, switched)
            told = _wrapped(about, "  ", "  ")
            say(first, *told, *rest, "")
    if name is None and not json:
        say(*_tables(seen))
        if not readable:
            say("", f"{', '.join(shipped())}: tables, which `pip install 'agentruns[tables]'` lets be read")


def _rows(
    vendor: str, known: Vendor, guesses: Sequence[Guess], switched: Mapping[str, str]
) -> Iterator[Mapping[str, Json]]:
    """Yield an object for each guess of a vendor, with what the vendor is; one without a guess where it has none."""
    about: Mapping[str, Json] = {
        "vendor": vendor,
        "source": _source(vendor),
        "capabilities": list(known.capabilities),
        "token_variable": None if isinstance(known.AUTH, NoAuth) else known.TOKEN_VARIABLE,
    }
    if not guesses:
        yield {**about, **dict.fromkeys(("guess", "taken", "why", "change", "switched"))}
    for guess in guesses:
        yield {
            **about,
            "guess": guess.name,
            "taken": guess.taken,
            "why": guess.why,
            "change": guess.switch(known.NAME),
            "switched": switched.get(guess.name),
        }


def _tables(vendors: Mapping[str, Vendor]) -> list[str]:
    """Return what each vendor can do, a line for each capability: in as many tables as it takes."""
    first = max(map(len, CAPABILITIES)) + 2
    widths = {name: max(len(name), 3) + 2 for name in vendors}
    groups: list[list[str]] = [[]]
    for name, width in widths.items():
        if first + sum(map(widths.__getitem__, groups[-1])) + width > _WIDTH:
            groups.append([])
        groups[-1].append(name)
    lines: list[str] = []
    for group in groups:
        lines += [] if not lines else [""]
        lines.append(("".ljust(first) + "".join(name.ljust(widths[name]) for name in group)).rstrip())
        for capability in CAPABILITIES:
            cells = ["yes" if capability in vendors[name].capabilities else "-" for name in group]
            row = "".join(cell.ljust(widths[name]) for cell, name in zip(cells, group, strict=True))
            lines.append(f"{capability.ljust(first)}{row.rstrip()}")
    return lines


def _token(vendor: Vendor) -> str:
    if isinstance(vendor.AUTH, NoAuth):
        return "no token"
    return f"token in {vendor.TOKEN_VARIABLE}" + (" (not needed everywhere)" if vendor.AUTH.optional else "")


def _source(name: str) -> str:
    point = None if name in NAMES else installed().get(name)
    if point is None and name in shipped():
        return "a table of agentruns"
    if name in NAMES or point is None:
        return "agentruns" if name in NAMES else name
    return point.value if point.dist is None else f"{point.dist.name} ({point.value})"


def _told(vendor: str, name: str, guesses: Sequence[Guess], switched: Mapping[str, str]) -> list[str]:
    lines = [f"{vendor}: {len(guesses)} guesses; pass a variant where the vendor's name or module is taken"]
    for guess in guesses:
        lines.append(f"  {guess.name}")
        told = [("taken", guess.taken), ("because", guess.why), ("change", guess.switch(name))]
        if guess.name in switched:
            told.append(("switched", f"`{switched[guess.name]}` here"))
        for what, text in told:
            lines += _wrapped(text, f"    {what:<8} ", " " * 13)
    return lines


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    """Return the lines of a text, cut between words: not within a name that has hyphens, nor within code."""
    whole = re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", _GLUE), text)
    lines = textwrap.wrap(
        whole, _WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace(_GLUE, " ") for line in lines]
