"""Where to send and with which token: from what is passed or the environment, checked before anything is sent."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from agentruns._values import check
from agentruns._values.auth import Auth, Bearer, NoAuth, TokenSource
from agentruns._values.secret import Secret
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError

from .credentials import checked
from .hosts import is_loopback

_LIKE = "https://api.example.com/v1"


def _hidden(token: str | TokenSource) -> Secret | TokenSource:
    return Secret(token) if isinstance(token, str) else token


@frozen
class Address:
    """
    Where to send, and with which right; both settled before a transport is made.

    `token` is empty where none is sent, and a function where one is asked for; `checked` returns what that gives, or
    refuses it.
    """

    base_url: str
    token: Secret | TokenSource = field(converter=_hidden, repr=False)
    auth: Auth = field(default=Bearer(), repr=False)
    vendor: str = field(default="this vendor", repr=False)
    check_token: Callable[[str, str], None] | None = field(default=None, repr=False, eq=False)

    def checked(self, given: Any) -> Secret:
        """Return a token without blanks around it; raise `ConfigurationError` for one that cannot be sent."""
        token = checked(given, self.auth, self.vendor)
        if not token and not self.auth.optional:
            raise ConfigurationError(f"the function that is `token` gave {self.vendor} an empty text", field="token")
        if token and self.check_token is not None:
            self.check_token(self.base_url, token)
        return token


def address_of(
    dialect: Vendor,
    base_url: str | None,
    token: str | TokenSource | None,
    auth: Auth | None = None,
    *,
    insecure: bool,
) -> Address:
    """
    Return the address of a vendor; what is None is read from the vendor's environment variables.

    Raise `ConfigurationError` for no token where one is needed, a URL that is none, and a token over plain http to
    another host unless *insecure*.
    """
    auth = dialect.AUTH if auth is None else auth
    if token is None or isinstance(token, str):
        token = _token(dialect, auth, token)
    elif isinstance(auth, NoAuth):
        raise ConfigurationError(f"the token for {dialect.NAME} {auth.objection(Secret(''))}", field="token")
    url = base_url_of(dialect, base_url, insecure=insecure or token == "")
    address = Address(url, token, auth, dialect.NAME, dialect.check_token)
    if isinstance(token, str):
        address.checked(token)
    return address


def _token(dialect: Vendor, auth: Auth, token: str | None) -> Secret:
    if token is None and not isinstance(auth, NoAuth) and dialect.TOKEN_VARIABLE:
        token = Secret(os.environ.get(dialect.TOKEN_VARIABLE, ""))
    found = checked(token or Secret(""), auth, dialect.NAME)
    if not found and not auth.optional:
        variable = dialect.TOKEN_VARIABLE
        raise ConfigurationError(
            f"there is no token for {dialect.NAME}",
            field="token",
            remedy="pass `token=`" + (f", or set the environment variable {variable}" if variable else ""),
        )
    return found


def base_url_of(dialect: Vendor, base_url: str | None, *, insecure: bool = True) -> str:
    """Return what the vendor's paths hang on; raise `ConfigurationError` as `address_of` does."""
    check.text_or_none("base_url", base_url)
    url = os.environ.get(dialect.BASE_URL_VARIABLE) or dialect.BASE_URL if base_url is None else base_url
    if base_url is None and not url:
        raise ConfigurationError(
            f"there is no base URL for {dialect.NAME}, of which every deployment has its own",
            field="base_url",
            remedy=f"pass `base_url=`, or set the environment variable {dialect.BASE_URL_VARIABLE}",
        )
    check.utf8("base_url", url)
    shown = re.sub("(?s).*@", "...@", url)  # a password shows nowhere
    like = (
        f"it must look like {dialect.BASE_URL or _LIKE}: http or https, a host, a path if need be, and no user, query "
        "or fragment"
    )
    unfit = ConfigurationError(
        f"base_url is {'not one that requests can hang on' if url else 'empty'}; {like}", field="base_url"
    )
    if "?" in url or "#" in url:  # even one that nothing follows; and it shows nowhere, as a token may stand in it
        raise unfit
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"base_url is {shown!r}, which is not a URL; {like}", field="base_url") from None
    if parts.scheme not in {"http", "https"} or not host or "@" in parts.netloc:
        raise unfit
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError(
            f"base_url is {shown!r}, which no request can carry; escape what is not plain ASCII: %20 in a path, "
            "xn-- in a host",
            field="base_url",
        )
    if parts.scheme == "http" and not insecure and not is_loopback(host):
        raise ConfigurationError(
            f"the base URL {url!r} would send the token unencrypted to {host}",
            field="insecure",
            remedy="use https, or pass `insecure=True` if you accept that",
        )
    return url.rstrip("/")
