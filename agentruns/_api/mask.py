"""Hide what must not be seen in what servers and libraries say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from agentruns._values.secret import HIDDEN

_SHORTEST_SECRET: Final = 8
_MANY_ESCAPES: Final = 10_000
"""So many that looking at each by itself takes longer than searching for the token."""

_KEPT: Final = 32
"""How many secrets are hidden at most: the last ones, where a token is renewed again and again."""


class Mask:
    """
    Hide a token in what a server says, as it is and as JSON or a URL may escape it.

    A word of fewer than 8 characters is no secret but a placeholder (`dev`, `none`); hiding it would garble the answer.
    """

    def __init__(self, token: str) -> None:
        spelled = "".join(map(_spellings, token))
        self._codes = {f"{ord(mark):0{digits}x}".encode() for mark in token for digits in (2, 4)}
        self._kept = len(token) < _SHORTEST_SECRET
        self._sign = max(re.findall("[0-9A-Za-z]*", token), key=len).encode()
        self._text = re.compile(spelled)
        self._bytes = re.compile(spelled.encode())

    def text(self, text: str) -> str:
        return text if self._kept else self._text.sub(HIDDEN, text)

    def body(self, body: bytes) -> bytes:
        if self._kept:
            return body
        # Every spelling has an escape in it, or the longest plain part of the token as it is. `in` would first try to
        # take that for a number, and the error of that costs more than the search.
        shows = body.find(self._sign) >= 0 or self._escapes(body, b"%", 2) or self._escapes(body, b"\\u", 4)
        return self._bytes.sub(HIDDEN.encode(), body) if shows else body

    def _escapes(self, body: bytes, sign: bytes, digits: int) -> bool:
        """Tell whether *sign* may escape a character of the token; searching for the whole token takes much longer."""
        if sign[0] not in body or sign not in body:  # as in nearly every answer; one byte is found the fastest
            return False
        if body.count(sign) > _MANY_ESCAPES:
            return True
        return any(piece[:digits].lower() in self._codes for piece in body.split(sign)[1:])


def _spellings(mark: str) -> str:
    # Each begins with a plain character: a search passes over all others quickly.
    sign, digits = re.escape(mark), [f"[{each}{each.upper()}]" for each in f"{ord(mark):04x}"]
    escaped = "" if mark.isalnum() else rf"|\\{sign}"
    return rf"(?:{sign}{escaped}|\\u{''.join(digits)}|%{''.join(digits[2:])})"


class Masks:
    """Hide every secret of one client: each token that it has had, and what was made of it."""

    __slots__ = ("_by_secret", "_masks")

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._by_secret: dict[str, Mask] = {}
        self._masks: tuple[Mask, ...] = ()
        self.hide(secrets)

    def hide(self, secrets: Iterable[str]) -> None:
        """Hide these from now on, too; the longest first, since one may be a part of another."""
        for secret in secrets:
            known = self._by_secret.pop(secret, None)
            if secret:
                self._by_secret[secret] = known or Mask(secret)
        while len(self._by_secret) > _KEPT:
            del self._by_secret[next(iter(self._by_secret))]
        self._masks = tuple(self._by_secret[each] for each in sorted(self._by_secret, key=len, reverse=True))

    def text(self, text: str) -> str:
        """Return a text without the secrets."""
        for mask in self._masks:
            text = mask.text(text)
        return text

    def body(self, body: bytes) -> bytes:
        """Return a body without the secrets."""
        for mask in self._masks:
            body = mask.body(body)
        return body


class Headers(Mapping[str, str]):
    """The headers of an answer, by lower-case name, the secrets hidden; most are never looked at."""

    __slots__ = ("_masks", "_values")

    def __init__(self, values: Mapping[str, str], masks: Masks) -> None:
        self._values = values
        self._masks = masks

    def __getitem__(self, name: str) -> str:
        return self._masks.text(self._values[name])

    def get(self, name: str, default: Any = None) -> Any:
        """Return a header, or *default*: asked of every answer, nearly always in vain."""
        value = self._values.get(name)
        return default if value is None else self._masks.text(value)

    def __iter__(self) -> Iterator[str]:
        return iter({name.lower(): None for name in self._values})

    def __len__(self) -> int:
        return len(set(map(str.lower, self._values)))

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[type[dict[str, str]], tuple[dict[str, str]]]:
        return dict, (dict(self),)
