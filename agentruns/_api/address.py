"""Where to send and with which token: from what is passed or the environment, checked before anything is sent."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from agentruns._values import check
from agentruns._values.secret import Secret
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError

from .transport import Address


def address_of(dialect: Vendor, base_url: str | None, token: Secret | None, *, insecure: bool) -> Address:
    """
    Return the address of a vendor; what is None is read from the vendor's environment variables.

    Raise `ConfigurationError` for no token, a URL that is none, and a token over plain http to another host unless
    *insecure*.
    """
    address = Address(_base_url(dialect, base_url, insecure=insecure), _token(dialect, token))
    if dialect.check_token is not None:
        dialect.check_token(address.base_url, address.token)
    return address


def _token(dialect: Vendor, token: str | None) -> str:
    found = Secret((os.environ.get(dialect.TOKEN_VARIABLE, "") if token is None else token).strip())
    if not found:
        raise ConfigurationError(
            f"there is no token for {dialect.NAME}",
            field="token",
            remedy=f"pass `token=`, or set the environment variable {dialect.TOKEN_VARIABLE}",
        )
    if found.lower() == "bearer" or found.lower().startswith("bearer "):
        raise ConfigurationError(
            f'the token for {dialect.NAME} begins with the word "Bearer"; give the token alone, without that word',
            field="token",
        )
    if not found.isascii() or not found.isprintable() or " " in found:
        raise ConfigurationError(f"the token for {dialect.NAME} has characters that a header cannot carry")
    return found


def _base_url(dialect: Vendor, base_url: str | None, *, insecure: bool) -> str:
    check.text_or_none("base_url", base_url)
    url = base_url or os.environ.get(dialect.BASE_URL_VARIABLE) or dialect.BASE_URL
    check.utf8("base_url", url)
    shown = re.sub("//.*@", "//...@", url)  # a password shows nowhere
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError(
            f"base_url is {shown!r}, which no request can carry; escape what is not plain ASCII: %20 in a path, "
            "xn-- in a host",
            field="base_url",
        )
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"base_url is {shown!r}, which is not a URL", field="base_url") from None
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigurationError(
            f"base_url is not one that requests can hang on; it must look like {dialect.BASE_URL}: http or https, a "
            "host, a path if need be, and no user, query or fragment",
            field="base_url",
        )
    if parts.scheme == "http" and not insecure and not is_loopback(host):
        raise ConfigurationError(
            f"the base URL {url!r} would send the token unencrypted to {host}",
            field="insecure",
            remedy="use https, or pass `insecure=True` if you accept that",
        )
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Tell whether a host name or IP address is that of this machine."""
    if host == "localhost":  # names below it are for DNS to tell, which may tell of another machine
        return True
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
