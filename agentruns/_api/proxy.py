"""A proxy between the client and the vendor: one that is named, checked before anything is sent."""

from __future__ import annotations

from base64 import b64encode
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from attrs import field, frozen

from agentruns._values import check
from agentruns._values.secret import Secret
from agentruns.errors import ConfigurationError

from .hosts import is_loopback

_LIKE = "it must look like http://proxy.example:3128, with `user:password@` before the host if need be"


@frozen
class Proxy:
    """An HTTP proxy: `url` is without user and password, which no text shows."""

    url: str
    user: Secret | None = field(default=None, repr=False)
    password: Secret = field(default=Secret(""), repr=False)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Return what is to be shown nowhere: the password, and what is made of it."""
        if self.user is None or not self.password:
            return ()
        return (self.password, Secret(b64encode(f"{self.user}:{self.password}".encode("latin-1")).decode()))

    def options(self) -> dict[str, Any]:
        """Return what a request of aiohttp is given."""
        from aiohttp import BasicAuth

        if self.user is None:
            return {"proxy": self.url}
        return {"proxy": self.url, "proxy_auth": BasicAuth(str(self.user), str(self.password))}


def proxy_of(url: str | None, base_url: str, *, insecure: bool) -> Proxy | None:
    """
    Return the proxy of a URL, None for None.

    Raise `ConfigurationError`, which does not show a password, for what is no URL of an HTTP proxy, and, unless
    *insecure*, for one elsewhere that would be given the token in plain http for a vendor on this machine.
    """
    if url is None:
        return None
    parts = _split(Secret(url))
    host = parts.hostname or ""
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if urlsplit(base_url).scheme == "http" and not insecure and not is_loopback(host):
        raise ConfigurationError(
            f"the proxy {shown} would be given the token unencrypted, as the base URL {base_url!r} is plain http",
            field="insecure",
            remedy="leave `proxy=` out, or pass `insecure=True` if you accept that",
        )
    if parts.username is None:
        return Proxy(shown)
    return Proxy(shown, Secret(unquote(parts.username)), Secret(unquote(parts.password or "")))


def _split(url: Secret) -> SplitResult:
    check.utf8("proxy", "" if url.isascii() else "\ud800")
    try:
        parts = urlsplit(url)
        _ = parts.port
        wrong = not parts.hostname or parts.path not in {"", "/"} or parts.query or parts.fragment
    except ValueError:
        raise ConfigurationError(f"proxy is not a URL; {_LIKE}", field="proxy") from None
    if parts.scheme not in {"http", "https"}:
        raise ConfigurationError(
            f"proxy has the scheme {parts.scheme[:20]!r}, and only HTTP proxies can be used; {_LIKE}", field="proxy"
        )
    if wrong or not url.isprintable() or " " in url:
        raise ConfigurationError(f"proxy is not a URL that names a host alone; {_LIKE}", field="proxy")
    return parts
