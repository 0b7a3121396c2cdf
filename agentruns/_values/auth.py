"""How a token travels: a vendor's way is one value, such as `Header("x-api-key")`."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from attrs import Attribute, field, frozen

from .base import ConfigurationError
from .secret import Secret

TokenSource: TypeAlias = Callable[[], str | Awaitable[str]]
"""What gives a token when it is needed: an async function or a plain one, without arguments."""

HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""What the name of a header consists of, as a whole."""

_WORDS: Final = ("bearer", "basic", "token")


def _is_header_name(_: object, attribute: Attribute[str], name: Any) -> None:
    if not isinstance(name, str) or not HEADER_NAME.fullmatch(name):
        raise ConfigurationError(f"{attribute.name} is {name!r}, which is no name of a header", field=attribute.name)


def _is_plain(_: object, attribute: Attribute[str], text: Any) -> None:
    if not isinstance(text, str) or not text.isascii() or not all(map(str.isprintable, text)):
        raise ConfigurationError(f"{attribute.name} is {text!r}; it must be plain ASCII", field=attribute.name)


def _is_filled(_: object, attribute: Attribute[str], text: Any) -> None:
    if not isinstance(text, str) or not text:
        raise ConfigurationError(f"{attribute.name} is {text!r}; it must be a text, not empty", field=attribute.name)


@frozen
class Auth:
    """
    How a token is sent: one of `Bearer`, `Header`, `Query`, `Basic` and `NoAuth`, or a subclass of one's own.

    *optional* says that the vendor may be asked without a token: where there is none, nothing is sent for it.
    """

    optional: bool = field(default=False, kw_only=True)

    def headers(self, token: str) -> Mapping[str, str]:  # noqa: ARG002
        """Return the headers that carry *token*."""
        return {}

    def params(self, token: str) -> Mapping[str, str]:  # noqa: ARG002
        """Return the query parameters that carry *token*."""
        return {}

    def names(self) -> tuple[str, ...]:
        """Return the lower-case names of the headers that this sets."""
        return ()

    def secrets(self, token: str) -> tuple[str, ...]:
        """Return what is to be shown nowhere: the token, and what is made of it."""
        return (token,)

    def objection(self, token: str) -> str | None:
        """Return why *token* cannot be sent, without showing it; None if it can."""
        first = token.split(" ", 1)[0].lower()
        if first in _WORDS and (first == "bearer" or " " in token):
            return f'begins with the word "{first.title()}"; give the token alone, without that word'
        if not token.isascii() or not token.isprintable() or " " in token:
            return "has characters that a header cannot carry"
        return None


@frozen
class Bearer(Auth):
    """Send the token as `Authorization: Bearer TOKEN`."""

    def headers(self, token: str) -> Mapping[str, str]:
        """Return the header."""
        return {"Authorization": Secret(f"Bearer {token}")}

    def names(self) -> tuple[str, ...]:
        """Return its name."""
        return ("authorization",)


@frozen
class Header(Auth):
    """Send the token as a header of its own, such as `x-api-key`, after *prefix* if there is one (`"Token "`)."""

    name: str = field(validator=_is_header_name)
    prefix: str = field(default="", validator=_is_plain, kw_only=True)

    def headers(self, token: str) -> Mapping[str, str]:
        """Return the header."""
        return {self.name: Secret(f"{self.prefix}{token}")}

    def names(self) -> tuple[str, ...]:
        """Return its name."""
        return (self.name.lower(),)


@frozen
class Query(Auth):
    """
    Send the token as a query parameter.

    It stands in the URL then, which what lies between may write down: a header is better where the vendor takes one.
    """

    name: str = field(validator=_is_filled)

    def params(self, token: str) -> Mapping[str, str]:
        """Return the parameter."""
        return {self.name: token}


@frozen
class Basic(Auth):
    """
    Send the token as `Authorization: Basic ...`.

    It is the password of *user*; where that is None, the token is user and password with a colon between.
    """

    user: str | None = None

    def headers(self, token: str) -> Mapping[str, str]:
        """Return the header."""
        return {"Authorization": Secret(f"Basic {self._encoded(token)}")}

    def names(self) -> tuple[str, ...]:
        """Return its name."""
        return ("authorization",)

    def secrets(self, token: str) -> tuple[str, ...]:
        """Return the token, its password alone, and both as they are encoded."""
        password = token if self.user is not None else Secret(token.partition(":")[2])
        return (token, self._encoded(token), password)

    def objection(self, token: str) -> str | None:
        """Return why *token* cannot be sent."""
        if not token.isascii() or not token.isprintable():
            return "has characters that a header cannot carry"
        if self.user is None and ":" not in token:
            return "has no colon; it must be user and password with a colon between: `user:password`"
        return None

    def _encoded(self, token: str) -> str:
        whole = str(token) if self.user is None else f"{self.user}:{token}"
        return Secret(b64encode(whole.encode()).decode())


@frozen
class NoAuth(Auth):
    """Send no token: the vendor asks for none. One that is passed is refused."""

    optional: bool = field(default=True, kw_only=True)

    def objection(self, token: str) -> str | None:  # noqa: ARG002
        """Return that no token can be sent."""
        return "cannot be sent: the vendor takes none. Leave `token=` out, or say how it travels by `auth=`"
