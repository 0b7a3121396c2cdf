"""
Who may use the console, and what its pages may do.

A page on the web can make a browser send requests to this machine, or, by a name that it lets point here, even read the
answers. So each request must name a host of ours and carry the cookie that the printed address was exchanged for, and
whatever changes something must come from a page of ours, with the token of its form.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from html import escape
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from attrs import field, frozen

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: under that, browsers send "null" for the origin of a form.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

_SAFE: Final = frozenset({"GET", "HEAD"})
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def _secret() -> str:
    return secrets.token_urlsafe(32)


@frozen
class AccessGuard:
    """
    The secrets of one console, and the names under which it may be reached.

    `token` stands in the address that is printed; `session`, which it is exchanged for, in the cookie. `hosts` are
    names beside those of loopback. With *exposed*, any address of this machine will do, since names alone can lie.
    """

    hosts: frozenset[str] = frozenset()
    exposed: bool = False
    token: str = field(factory=_secret, repr=False)
    session: str = field(factory=_secret, repr=False)
    _tickets: set[str] = field(factory=set, init=False, repr=False)

    def ticket(self) -> str:
        """Return a token that opens the console once: others may see the command that opens a browser with it."""
        ticket = _secret()
        self._tickets.add(ticket)
        return ticket

    @property
    def csrf(self) -> str:
        """Return what each form carries."""
        return hmac.new(self.session.encode(), b"form", hashlib.sha256).hexdigest()

    def middleware(self) -> Middleware:
        """Return what stands before every handler of the application."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            return self._refusal(request) or await handler(request)

        return guarded

    def is_from_our_form(self, token: str) -> bool:
        """Tell whether a form carries the token of this console."""
        return _same(token, self.csrf)

    def _refusal(self, request: web.Request) -> web.StreamResponse | None:
        """Return the answer to a request that may not pass, None for one that may."""
        if not self._knows(request.host):
            return _page(421, "Unknown host", "This console does not answer to that name.")
        if request.method not in _SAFE and not _is_from_here(request):
            return _page(403, "From elsewhere", "That did not come from a page of this console.")
        given = request.query.get("token")
        if given is not None and request.method in _SAFE:
            if not (_same(given, self.token) or self._is_ticket(given)):
                return _page(403, "Wrong token", "Open the address that the console printed when it started.")
            return self._enter(request)
        if not _same(_cookie(request), self.session):
            return _page(401, "Not signed in", "Open the address that the console printed when it started.")
        return None

    def _is_ticket(self, given: str) -> bool:
        found = [each for each in self._tickets if _same(given, each)]
        self._tickets.difference_update(found)
        return bool(found)

    def _knows(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in _LOOPBACK_NAMES or name in self.hosts:
            return True
        try:
            return self.exposed and bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    def _enter(self, request: web.Request) -> web.StreamResponse:
        """Exchange the token for the cookie, and take it out of the address."""
        left = str(request.rel_url.without_query_params("token"))
        place = "/" + left.lstrip("/\\")  # two slashes would name another host, and a backslash counts as one
        if request.headers.get("Sec-Fetch-Site", "none") in {"none", "same-origin"}:
            answer = web.Response(status=303, headers={"Location": place})
        else:  # after a click elsewhere, such a cookie goes only where a page of ours leads
            refresh = f'<meta http-equiv="refresh" content="0;url={escape(place)}">'
            answer = _page(200, "Opening", "One moment.", head=refresh)
        answer.set_cookie(_cookie_name(request), self.session, httponly=True, samesite="Strict", path="/")
        return answer


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Put the headers that every answer has onto *response*; a signal of the application."""
    for name, value in HEADERS.items():
        response.headers[name] = value


def _is_from_here(request: web.Request) -> bool:
    """Tell whether the browser says that a page of this very address sent the request."""
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    return origin == f"{request.scheme}://{request.host}" and site == "same-origin"


def _cookie_name(request: web.Request) -> str:
    """Return a name for each port: cookies do not tell ports apart, and two consoles may run."""
    socket = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return f"agentruns-{socket[1] if socket else 0}"


def _cookie(request: web.Request) -> str:
    return request.cookies.get(_cookie_name(request), "")


def _same(given: str, known: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), known.encode())


def _page(status: int, title: str, text: str, *, head: str = "") -> web.Response:
    """Return a page without style or script: who may not pass gets no file of ours."""
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"{head}<title>{title} – agentruns</title></head><body><main><h1>{title}</h1><p>{text}</p></main></body></html>"
    )
    return web.Response(status=status, text=html, content_type="text/html")
