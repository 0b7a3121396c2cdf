"""The text of a table: what stands in it, on which line, and errors that name both."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, Final, NoReturn

from attrs import define, field, frozen

from agentruns.errors import ConfigurationError

_HEADER: Final = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(#.*)?")
_PART: Final = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*(\.|=|$)""")
_QUOTES: Final = ('"""', "'''")
_MISSING: Final = object()
_CLOSE: Final = 0.7

Key = tuple[str, ...]


@frozen
class Source:
    """A table as it was read: where from, its values, and the line of each key."""

    path: str
    values: Mapping[str, Any]
    lines: Mapping[Key, int] = field(repr=False)

    @classmethod
    def of(cls, path: str, text: str) -> Source:
        """Return what *text* says; raise `ConfigurationError` for what is no TOML."""
        try:
            return cls(path, tomllib.loads(text), _lines(text))
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"the table {path} is not TOML: {error}", field="dialect") from None

    def wrong(self, key: Key, what: str) -> NoReturn:
        """Raise `ConfigurationError` that names the line and the key."""
        known = next((key[:size] for size in range(len(key), 0, -1) if key[:size] in self.lines), ())
        line = self.lines.get(known, 1)
        raise ConfigurationError(f"the table {self.path}, line {line}, `{'.'.join(key)}`: {what}", field="dialect")


@define
class Section:
    """One table of the TOML, read key by key; what nobody has read at the end is unknown."""

    source: Source
    key: Key
    values: Mapping[str, Any]
    _known: set[str] = field(factory=set, init=False)

    def wrong(self, name: str, what: str) -> NoReturn:
        """Raise `ConfigurationError` for the value of *name*."""
        self.source.wrong((*self.key, name) if name else self.key, what)

    def has(self, name: str) -> bool:
        """Tell whether *name* is there."""
        self._known.add(name)
        return name in self.values

    def get(self, name: str, kind: type | tuple[type, ...], what: str, default: Any = _MISSING) -> Any:
        """Return the value of *name*, which must be a *kind*; *what* says in words what it must be."""
        self._known.add(name)
        value = self.values.get(name, default)
        if value is _MISSING:
            near = get_close_matches(name, [each for each in self.values if each not in self._known], 1, _CLOSE)
            if near:
                self.wrong(near[0], f"nothing of that name is known here; did you mean `{name}`?")
            self.wrong(name, f"it is missing; it must be {what}")
        if name in self.values and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            self.wrong(name, f"it is {value!r}; it must be {what}")
        return value

    def text(self, name: str, default: Any = _MISSING) -> Any:
        """Return a text that is not empty."""
        value = self.get(name, str, "a text", default)
        if name in self.values and not value:
            self.wrong(name, "it is empty; it must be a text")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """Return true or false."""
        return bool(self.get(name, bool, "true or false", default))

    def seconds(self, name: str, default: float | None = None) -> float | None:
        """Return a number above zero."""
        value = self.get(name, (int, float), "a number of seconds above zero", default)
        if value is not None and value <= 0:
            self.wrong(name, f"it is {value!r}; it must be a number of seconds above zero")
        return None if value is None else float(value)

    def numbers(self, name: str, default: Any = None, *, count: int | None = None) -> tuple[float, ...] | None:
        """Return a list of numbers of seconds."""
        what = f"a list of {'' if count is None else f'{count} '}numbers of seconds"
        given = self.get(name, list, what, default)
        if given is None:
            return None
        if any(isinstance(each, bool) or not isinstance(each, int | float) or each < 0 for each in given) or (
            len(given) != count if count else not given
        ):
            self.wrong(name, f"it is {given!r}; it must be {what}")
        return tuple(map(float, given))

    def choice(self, name: str, choices: Collection[str], default: Any = _MISSING) -> Any:
        """Return one of some words."""
        value = self.text(name, default)
        if value is not None and value not in choices:
            self.wrong(name, f"it is {value!r}; it must be one of {', '.join(choices)}{_near(value, choices)}")
        return value

    def section(self, name: str, *, needed: bool = False) -> Section | None:
        """Return the table *name* within this; None if there is none."""
        value = self.get(name, dict, "a table", _MISSING if needed else None)
        return None if value is None else Section(self.source, (*self.key, name), value)

    def done(self) -> None:
        """Refuse what nobody has read."""
        for name in self.values:
            if name not in self._known:
                self.wrong(name, f"nothing of that name is known here{_meant(name, self._known)}")


def _near(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, sorted(known), 1)
    return f"; did you mean `{near[0]}`?" if near else ""


def _meant(name: str, known: Collection[str]) -> str:
    return _near(name, known) or f"; there are {', '.join(f'`{each}`' for each in sorted(known))}"


def _lines(text: str) -> Mapping[Key, int]:
    """
    Return the line of each key that begins a line, or stands in a header.

    The text is TOML, so a key is what stands before the first `=`; the lines of a long text or value are passed over.
    """
    found: dict[Key, int] = {}
    table: Key = ()
    closing = ""
    for number, line in enumerate(text.splitlines(), 1):
        if closing:
            closing = "" if closing in line else closing
            continue
        header = _HEADER.fullmatch(line)
        key = _key(header[1]) if header else _key(line)
        if key:
            table = key if header else table
            whole = key if header else (*table, *key)
            for size in range(1, len(whole) + 1):
                found.setdefault(whole[:size], number)
            found[whole] = number
        closing = next((quote for quote in _QUOTES if line.count(quote) % 2), "")
    return found


def _key(text: str) -> Key:
    """Return the dotted key at the beginning of *text*, as far as `=` or the end; empty for what is none."""
    parts: list[str] = []
    at = 0
    while (found := _PART.match(text, at)) is not None:
        parts.append(next(each for each in found.groups()[:3] if each is not None))
        at = found.end()
        if found[4] != ".":
            return tuple(parts)
    return ()
