"""
Who may use the console, and what its pages may do.

A page on the web can make a browser send requests to this machine, or, by a name that it lets point here, even read the
answers. So each request must name a host of ours and carry the cookie that the printed address was exchanged for, and
whatever changes something must come from a page of ours, with the token of its form.

Cookies do not tell ports apart: another server of this machine that the browser visits is sent them, too. So a session
ends, by itself or when its user signs out, and whoever has copied its cookie is out with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Callable
from html import escape
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from attrs import field, frozen

from .newcomers import Newcomers

SESSION_SECONDS: Final = 12 * 3600.0
"""Seconds after which the printed address must be opened again."""

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

_MOST_SESSIONS: Final = 100
_SAFE: Final = frozenset({"GET", "HEAD"})
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def _secret() -> str:
    return secrets.token_urlsafe(32)


@frozen(eq=False)
class Session:
    """One browser that has signed in, until `ends_at` by the clock of the guard, or until `over` is set."""

    ends_at: float
    over: asyncio.Event = field(factory=asyncio.Event)


@frozen
class AccessGuard:
    """
    The secrets of one console, and the names under which it may be reached.

    `token` stands in the address that is printed; it is exchanged for a session, whose secret is in the cookie, and
    `csrf` in each form. `hosts` are names beside those of loopback. With *exposed*, any address of this machine will
    do, since names alone can lie. *clock* counts seconds.
    """

    hosts: frozenset[str] = frozenset()
    exposed: bool = False
    token: str = field(factory=_secret, repr=False)
    csrf: str = field(factory=_secret, init=False, repr=False)
    newcomers: Newcomers = field(factory=Newcomers, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    _tickets: set[str] = field(factory=set, init=False, repr=False)
    _sessions: dict[bytes, Session] = field(factory=dict, init=False, repr=False)  # by the digest of the secret

    def ticket(self) -> str:
        """Return a token that opens the console once: others may see the command that opens a browser with it."""
        ticket = _secret()
        self._tickets.add(ticket)
        return ticket

    def session_of(self, request: web.Request) -> Session | None:
        """Return the session whose cookie a request has, unless it is over."""
        session = self._sessions.get(_digest(_cookie(request)))
        return session if session is not None and self.seconds_left(session) > 0 else None

    def seconds_left(self, session: Session) -> float:
        """Return for how long a session goes on, at most."""
        return session.ends_at - self.clock()

    def sign_out(self, request: web.Request) -> web.StreamResponse:
        """End the session of a request, and return the page that says so."""
        session = self._sessions.pop(_digest(_cookie(request)), None)
        if session is not None:
            session.over.set()
        answer = _page(200, "Signed out", "To come back, open the address that the console printed when it started.")
        answer.del_cookie(_cookie_name(request), httponly=True, samesite="Strict", path="/")
        return answer

    def middleware(self) -> Middleware:
        """Return what stands before every handler of the application."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            refusal = self._refusal(request)
            if refusal is not None:
                return refusal
            self.newcomers.admit(request.transport)
            return await handler(request)

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
        if self.session_of(request) is None:
            answer = _page(401, "Not signed in", "Open the address that the console printed when it started.")
            answer.headers["HX-Refresh"] = "true"  # a form that was sent by script: its page shows that it is over
            return answer
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
        answer.set_cookie(_cookie_name(request), self._sign_in(), httponly=True, samesite="Strict", path="/")
        return answer

    def _sign_in(self) -> str:
        """Begin a session and return its secret."""
        for digest, session in tuple(self._sessions.items()):
            if self.seconds_left(session) <= 0 or len(self._sessions) >= _MOST_SESSIONS:
                del self._sessions[digest]
                session.over.set()
        secret = _secret()
        self._sessions[_digest(secret)] = Session(self.clock() + SESSION_SECONDS)
        return secret


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


def _digest(secret: str) -> bytes:
    """Return what a secret is looked up by: how long that takes tells nothing of the secrets that there are."""
    return hashlib.sha256(secret.encode(errors="replace")).digest()


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
