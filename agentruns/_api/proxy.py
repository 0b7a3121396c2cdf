"""A proxy between the client and the vendor: one that is named, checked before anything is sent."""

from __future__ import annotations

from base64 import b64encode
from typing import Any
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

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
    def is_here(self) -> bool:
        """Tell whether it runs on this machine."""
        return is_loopback(urlsplit(self.url).hostname or "")

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Return what is to be shown nowhere: the password, and what is made of it."""
        if self.user is None or not self.password:
            return ()
        return (self.password, Secret(self._encoded))

    def options(self) -> dict[str, Any]:
        """Return what a request of aiohttp is given."""
        if self.user is None:
            return {"proxy": self.url}
        # aiohttp passes it on as `Proxy-Authorization`, by `CONNECT` or with the request.
        return {"proxy": self.url, "proxy_headers": {"Authorization": f"Basic {self._encoded}"}}

    @property
    def _encoded(self) -> str:
        return b64encode(f"{self.user}:{self.password}".encode()).decode()


def proxy_of(url: str | None, base_url: str, *, trust_env: bool, insecure: bool) -> Proxy | None:
    """
    Return the proxy of a URL, or, if *trust_env*, that of the environment for *base_url*; None if there is none.

    Raise `ConfigurationError`, which does not show a password, for what is no URL of an HTTP proxy, and, unless
    *insecure*, for one elsewhere that would be given the token in plain http for a vendor on this machine.
    """
    if url is not None and trust_env:
        raise ConfigurationError("both proxy and trust_env are given; leave one of them out", field="proxy")
    if trust_env:
        url = _of_environment(base_url)
    if url is None:
        return None
    proxy = _read(url)
    if isinstance(proxy, str):
        raise ConfigurationError(f"proxy {proxy}; {_LIKE}", field="proxy")
    if urlsplit(base_url).scheme == "http" and not insecure and not proxy.is_here:
        raise ConfigurationError(
            f"the proxy {proxy.url} would be given the token unencrypted, as the base URL {base_url!r} is plain http",
            field="insecure",
            remedy="leave the proxy out, or pass `insecure=True` if you accept that",
        )
    return proxy


def _of_environment(base_url: str) -> Secret | None:
    """Return the proxy that the environment names for a vendor that is not this machine; aiohttp would read netrc."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(parts.netloc):
        return None
    proxies = getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    return Secret(found if not found or "://" in found else f"http://{found}") if found else None


def _read(url: str) -> Proxy | str:
    """Return the proxy of a URL, or what is wrong with the URL; no frame that fails has its parts."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in {"http", "https"}:
        return "has a scheme other than http and https, and only HTTP proxies can be used"
    wrong = not parts.hostname or parts.path not in {"", "/"} or parts.query or parts.fragment
    if wrong or not url.isascii() or not url.isprintable() or " " in url:
        return "is not a URL that names a host alone"
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if parts.username is None:
        return Proxy(shown)
    return Proxy(shown, Secret(unquote(parts.username)), Secret(unquote(parts.password or "")))
